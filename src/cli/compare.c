#include "cli/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "reference/contract.h"
#include "reference/gradient_contract.h"
#include "store/shared.h"
#include "tensor/dtype.h"
#include "tensor/file.h"

#define CHUNK 65536 /* elements that are read at a time */

enum { O, LSE, DQ, DK, DV, DSINKS, DDISTANCE_BIAS, DBIAS, TENSORS };

static const char *const tensor_name[TENSORS] = {
    "o", "lse", "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};

/* A tensor as both files have it. */
struct pair {
    const struct ls_tensor_file *file[2];
    const struct ls_file_tensor *tensor[2]; /* NULL: not there */
    double empty;                           /* what a row that sees no key has */
};

/* How far apart its two are. */
struct distance {
    double diff2, norm2; /* of a - b, of b */
    double units;        /* largest |a - b| / (2 u max(|a|, |b|) + 2 eta) */
    double largest;      /* |a - b| */
    double relative;     /* largest |a - b| / max(1, |b|) */
    double compared;     /* elements whose b is finite, or right for a row that sees no key */
};

/* What is found out about a tensor. */
struct comparison {
    struct pair pair;
    bool common;
    const char *why;   /* it is not good; NULL */
    ls_dtype contract; /* whose limits hold */
    struct distance apart;
    double error, limit; /* as the table has it for this tensor */
};

static int64_t elements(const struct ls_file_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

/* 0 for the same infinities and for two NaN, as in the contract; infinite if one is a number. */
static double apart(double a, double b)
{
    if (a == b || (isnan(a) && isnan(b))) return 0;
    return isfinite(a) && isfinite(b) ? fabs(a - b) : INFINITY;
}

static void add_element(struct distance *out, double a, double b, ls_dtype type)
{
    const double error = apart(a, b);
    const double unit =
        2 * ls_dtype_unit(type) * fmax(fabs(a), fabs(b)) + 2 * ls_dtype_smallest(type);

    if (isfinite(b)) out->norm2 += b * b;
    if (error == 0) return; /* unit may be infinite or NaN */
    out->diff2 += error * error;
    out->units = fmax(out->units, isfinite(error) ? error / unit : INFINITY);
    out->largest = fmax(out->largest, error);
    out->relative = fmax(out->relative, isfinite(b) ? error / fmax(1, fabs(b)) : INFINITY);
}

/* Reads `n` elements of both, widened; raw has room for CHUNK of the widest type. */
static ls_status read_both(double *out[2], void *raw, const struct pair *pair, int64_t first,
                           int64_t n)
{
    for (int i = 0; i < 2; i++) {
        LS_TRY(ls_tensor_file_read(raw, pair->file[i], pair->tensor[i], first, n));
        ls_dtype_convert(out[i], LS_F64, raw, pair->tensor[i]->type, n);
    }
    return LS_OK;
}

/* This rank's chunks: every p-th. */
static ls_status measure_chunks(struct distance *out, const struct pair *pair, ls_dtype type,
                                const struct cli_world *world)
{
    const int64_t total = elements(pair->tensor[0]);
    void *memory;
    ls_status status = LS_OK;

    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, (size_t)3 * CHUNK * sizeof(double)));
    double *room = memory, *values[2] = {room, room + CHUNK};

    for (int64_t first = (int64_t)world->rank * CHUNK; first < total && status == LS_OK;
         first += (int64_t)world->size * CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;

        cli_world_beat(world);
        status = read_both(values, room + (size_t)2 * CHUNK, pair, first, n);
        for (int64_t i = 0; i < n && status == LS_OK; i++) {
            add_element(out, values[0][i], values[1][i], type);
            out->compared += isfinite(values[1][i]) || values[1][i] == pair->empty;
        }
    }
    ls_free(memory);
    return status;
}

static ls_status measure(struct distance *out, const struct cli_world *world,
                         const struct pair *pair, ls_dtype type)
{
    struct distance own = {.diff2 = 0};

    LS_TRY(ls_comm_agree(world->comm, measure_chunks(&own, pair, type, world)));
    double sums[] = {own.diff2, own.norm2, own.compared};
    double most[] = {own.units, own.largest, own.relative};

    LS_TRY(ls_comm_reduce(sums, world->comm, 3, LS_REDUCE_SUM));
    LS_TRY(ls_comm_reduce(most, world->comm, 3, LS_REDUCE_MAX));
    *out = (struct distance){.diff2 = sums[0],
                             .norm2 = sums[1],
                             .units = most[0],
                             .largest = most[1],
                             .relative = most[2],
                             .compared = sums[2]};
    return LS_OK;
}

/* The limits of the tables, as the contract knows them; of logits nothing is known. */

static void judge_forward(struct comparison *c, bool lse)
{
    struct ls_errors errors;
    struct ls_verdict v;

    ls_errors_init(&errors);
    errors.compared = (int64_t)c->apart.compared;
    if (lse) {
        errors.max_lse = c->apart.relative;
        errors.lse_limit = ls_lse_limit(c->contract, 0, 0, 0);
    } else {
        errors.diff2 = c->apart.diff2;
        errors.norm2 = c->apart.norm2;
    }
    ls_errors_judge(&v, &errors, c->contract, 2);
    c->why = v.why;
    c->error = lse ? v.max_lse : v.rel_o;
    c->limit = lse ? v.lse_limit : v.rel_o_limit;
}

/* What cancels on the way to a gradient is known only with the input: nothing is allowed for it. */
static void judge_gradient(struct comparison *c)
{
    struct ls_gradient_errors errors;
    struct ls_gradient_verdict v;

    if (elements(c->pair.tensor[0]) == 0) return; /* dk, dv of no keys: none is wrong */
    ls_gradient_errors_init(&errors);
    errors.diff2 = c->apart.diff2;
    errors.norm2 = c->apart.norm2;
    errors.compared = (int64_t)c->apart.compared;
    ls_gradient_errors_judge(&v, &errors, c->contract, 2);
    c->why = v.why;
    c->error = v.rel;
    c->limit = v.rel_limit;
}

static void judge(struct comparison *c, int which)
{
    if (which == O || which == LSE)
        judge_forward(c, which == LSE);
    else
        judge_gradient(c);
}

static double relative_norm(const struct distance *x)
{
    return x->diff2 == 0 ? 0 : sqrt(x->diff2 / x->norm2);
}

static json_t *tensor_json(const struct comparison *c, bool lse)
{
    json_t *json = json_object();

    json_object_set_new(json, "contract", json_string(ls_dtype_name(c->contract)));
    json_object_set_new(json, "rel", cli_json_real(relative_norm(&c->apart)));
    json_object_set_new(json, "units", cli_json_real(c->apart.units));
    json_object_set_new(json, "abs", cli_json_real(c->apart.largest));
    if (lse) json_object_set_new(json, "rel_lse", cli_json_real(c->error));
    json_object_set_new(json, "limit", cli_json_real(c->limit));
    json_object_set_new(json, "why", c->why ? json_string(c->why) : json_null());
    return json;
}

static void report_tensor(const struct cli_report *report, const struct comparison *c, int which)
{
    const char *name = tensor_name[which];

    if (which == LSE) {
        cli_report_line(report, name, "rel %.3g, limit %.3g, relative to max(1, |lse|)", c->error,
                        c->limit);
        cli_report_line(report, "", "abs %.3g", c->apart.largest);
    } else {
        cli_report_line(report, name, "rel %.3g, limit %.3g (twice the contract of %s)", c->error,
                        c->limit, ls_dtype_name(c->contract));
    }
    cli_report_line(report, "",
                    "units %.3g: the largest difference / (2 u max(|a|, |b|)), no limit",
                    c->apart.units);
    cli_report_value(report, name, tensor_json(c, which == LSE));
}

static void report_all(const struct cli_report *report, const struct comparison *all)
{
    char names[64] = "", fault[96] = "";

    for (int i = 0; i < TENSORS; i++) {
        if (!all[i].common) continue;
        report_tensor(report, &all[i], i);
        strcat(names, names[0] ? ", " : "");
        strcat(names, tensor_name[i]);
        if (all[i].why && !fault[0])
            snprintf(fault, sizeof(fault), "FAILED, %s: %s", tensor_name[i], all[i].why);
    }
    cli_report_value(report, "ok", json_boolean(!fault[0]));
    cli_report_say(report, "compared (%s): %s", names,
                   fault[0] ? fault : "ok, within twice the contract");
}

static ls_status find_pair(struct pair *out, int which, const char *name,
                           struct ls_tensor_file *const file[2])
{
    *out = (struct pair){.empty = which == LSE ? -INFINITY : 0};
    for (int i = 0; i < 2; i++) {
        out->file[i] = file[i];
        out->tensor[i] = ls_tensor_file_find(file[i], name);
        if (!out->tensor[i] && which == O && ls_tensor_file_count(file[i]) == 1 &&
            ls_tensor_file_at(file[i], 0)->name[0] == '\0')
            out->tensor[i] = ls_tensor_file_at(file[i], 0); /* a .npy file has no names */
    }
    const struct ls_file_tensor *a = out->tensor[0], *b = out->tensor[1];

    if (!a || !b) return LS_OK;
    for (int i = 0; i < 2; i++) LS_TRY(ls_tensor_file_check(file[i], out->tensor[i]));
    if (a->ndim != b->ndim || memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof(a->dim[0])) != 0)
        return ls_fail(LS_ESHAPE, "%s: shape is %s in %s, %s in %s", name,
                       cli_dims(a->dim, a->ndim).s, ls_tensor_file_path(file[0]),
                       cli_dims(b->dim, b->ndim).s, ls_tensor_file_path(file[1]));
    return LS_OK;
}

/* One whose name was given is to be in both. */
static ls_status check_missing(const struct pair *pair, const char *name,
                               const struct cli_names *names)
{
    for (int i = 0; i < 2; i++)
        if (!cli_names_expect(names, name, pair->file[i])) return LS_OK;
    return ls_fail(LS_EVALUE, "%s: holds no tensor '%s'",
                   ls_tensor_file_path(pair->file[pair->tensor[0] != NULL]),
                   cli_names_of(names, name));
}

static ls_status find_pairs(struct comparison *all, struct ls_tensor_file *const file[2],
                            const struct cli_names *names)
{
    bool any = false;

    for (int i = 0; i < TENSORS; i++) {
        LS_TRY(find_pair(&all[i].pair, i, cli_names_of(names, tensor_name[i]), file));
        all[i].common = all[i].pair.tensor[0] && all[i].pair.tensor[1];
        any |= all[i].common;
        if (!all[i].common) LS_TRY(check_missing(&all[i].pair, tensor_name[i], names));
    }
    if (!any)
        return ls_fail(
            LS_EVALUE,
            "%s and %s have none of o, lse, dq, dk, dv, dsinks, ddistance_bias and dbias in "
            "common",
            ls_tensor_file_path(file[0]), ls_tensor_file_path(file[1]));
    return LS_OK;
}

static ls_dtype coarser(ls_dtype a, ls_dtype b)
{
    return ls_dtype_unit(a) > ls_dtype_unit(b) ? a : b;
}

/* f32 whatever was computed. */
static bool is_always_f32(int which)
{
    return which == LSE || which >= DSINKS;
}

/* That of the coarser of a tensor's two types. Those that are always f32 have that of the first
 * other one. contract: that of all; NULL: none was asked for. */
static ls_status choose_contracts(struct comparison *all, const ls_dtype *contract)
{
    const struct comparison *other = NULL;

    for (int i = TENSORS - 1; i >= 0; i--) {
        const struct ls_file_tensor *const *tensor = all[i].pair.tensor;

        if (!all[i].common || is_always_f32(i)) continue;
        all[i].contract = coarser(LS_F32, coarser(tensor[0]->type, tensor[1]->type));
        other = &all[i];
    }
    if (!other && !contract)
        return ls_fail(
            LS_EVALUE,
            "only what is always f32 (lse, dsinks, ddistance_bias, dbias) is in both files: "
            "--contract must say which type's limits hold");
    for (int i = 0; i < TENSORS && other; i++)
        if (is_always_f32(i)) all[i].contract = other->contract;
    for (int i = 0; i < TENSORS && contract; i++) all[i].contract = *contract;
    return LS_OK;
}

static ls_status compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                         struct ls_tensor_file *const file[2], const struct cli_names *names,
                         const ls_dtype *contract)
{
    struct comparison all[TENSORS] = {{.common = false}};

    LS_TRY(find_pairs(all, file, names));
    LS_TRY(choose_contracts(all, contract));
    *held = true;
    for (int i = 0; i < TENSORS; i++) {
        struct comparison *c = &all[i];

        if (!c->common) continue;
        LS_TRY(measure(&c->apart, world, &c->pair, is_always_f32(i) ? LS_F32 : c->contract));
        judge(c, i);
        *held &= !c->why;
    }
    report_all(report, all);
    return LS_OK;
}

ls_status cli_compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                      const char *const path[2], const struct cli_names *names,
                      const ls_dtype *contract)
{
    struct ls_tensor_file *file[2] = {NULL, NULL};
    ls_status status = ls_shared_open(&file[0], world->comm, path[0]);

    if (status == LS_OK) status = ls_shared_open(&file[1], world->comm, path[1]);
    if (status == LS_OK) status = compare(held, report, world, file, names, contract);
    if (file[1]) ls_tensor_file_close(file[1]);
    if (file[0]) ls_tensor_file_close(file[0]);
    return status;
}
