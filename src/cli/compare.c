#include "cli/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "reference/contract.h"
#include "tensor/dtype.h"
#include "tensor/file.h"

#define CHUNK 65536 /* elements that are read at a time */

/* A tensor that both files have. */
struct pair {
    const struct ls_tensor_file *file[2];
    const struct ls_file_tensor *tensor[2];
};

/* How far apart its two are. */
struct distance {
    double diff2, norm2; /* of a - b, of b */
    double units;        /* largest |a - b| / (2 u max(|a|, |b|) + 2 eta) */
    double largest;      /* |a - b| */
    double relative;     /* largest |a - b| / max(1, |b|) */
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
                                int rank, int p)
{
    const int64_t total = elements(pair->tensor[0]);
    void *memory;
    ls_status status = LS_OK;

    LS_TRY(ls_alloc(&memory, LS_TAG_WORKSPACE, (size_t)3 * CHUNK * sizeof(double)));
    double *room = memory, *values[2] = {room, room + CHUNK};

    for (int64_t first = (int64_t)rank * CHUNK; first < total && status == LS_OK;
         first += (int64_t)p * CHUNK) {
        const int64_t n = total - first < CHUNK ? total - first : CHUNK;

        status = read_both(values, room + (size_t)2 * CHUNK, pair, first, n);
        for (int64_t i = 0; i < n && status == LS_OK; i++)
            add_element(out, values[0][i], values[1][i], type);
    }
    ls_free(memory);
    return status;
}

static ls_status measure(struct distance *out, const struct cli_world *world,
                         const struct pair *pair, ls_dtype type)
{
    struct distance own = {.diff2 = 0};

    LS_TRY(ls_comm_agree(world->comm, measure_chunks(&own, pair, type, world->rank, world->size)));
    double sums[] = {own.diff2, own.norm2}, most[] = {own.units, own.largest, own.relative};

    LS_TRY(ls_comm_reduce(sums, world->comm, 2, LS_REDUCE_SUM));
    LS_TRY(ls_comm_reduce(most, world->comm, 3, LS_REDUCE_MAX));
    *out = (struct distance){.diff2 = sums[0],
                             .norm2 = sums[1],
                             .units = most[0],
                             .largest = most[1],
                             .relative = most[2]};
    return LS_OK;
}

/* The limits of the table, as ls_errors_judge knows them. */
static void judge(struct ls_verdict *out, const struct distance *o, const struct distance *lse,
                  ls_dtype contract)
{
    struct ls_errors errors;

    ls_errors_init(&errors);
    if (o) {
        errors.diff2 = o->diff2;
        errors.norm2 = o->norm2;
    }
    if (lse) errors.max_lse = lse->relative;
    ls_errors_judge(out, &errors, contract, 2);
}

static double relative_norm(const struct distance *x)
{
    return x->diff2 == 0 ? 0 : sqrt(x->diff2 / x->norm2);
}

static json_t *tensor_json(const struct distance *x, double limit, bool lse)
{
    json_t *json = json_object();

    json_object_set_new(json, "rel", cli_json_real(relative_norm(x)));
    json_object_set_new(json, "units", cli_json_real(x->units));
    json_object_set_new(json, "abs", cli_json_real(x->largest));
    if (lse) json_object_set_new(json, "rel_lse", cli_json_real(x->relative));
    json_object_set_new(json, "limit", cli_json_real(limit));
    return json;
}

static void report_units(const struct cli_report *report, const struct distance *x)
{
    cli_report_line(report, "",
                    "units %.3g: the largest difference / (2 u max(|a|, |b|)), no limit", x->units);
}

static void report_pair(const struct cli_report *report, const struct ls_verdict *v,
                        const struct distance *o, const struct distance *lse, ls_dtype contract)
{
    cli_report_string(report, "contract", ls_dtype_name(contract));
    if (o) {
        cli_report_line(report, "o", "rel %.3g, limit %.3g (twice the contract of %s)", v->rel_o,
                        v->rel_o_limit, ls_dtype_name(contract));
        report_units(report, o);
        cli_report_value(report, "o", tensor_json(o, v->rel_o_limit, false));
    }
    if (lse) {
        cli_report_line(report, "lse", "rel %.3g, limit %.3g, relative to max(1, |lse|)",
                        lse->relative, v->lse_limit);
        cli_report_line(report, "", "abs %.3g", lse->largest);
        report_units(report, lse);
        cli_report_value(report, "lse", tensor_json(lse, v->lse_limit, true));
    }
    cli_report_value(report, "ok", json_boolean(v->ok));
    cli_report_say(report, "compared: %s%s",
                   v->ok ? "ok, within twice the contract"
                         : "FAILED, further apart than the limits",
                   o && lse ? ""
                   : o      ? " (o alone is in both)"
                            : " (lse alone is in both)");
}

static ls_status find_pair(struct pair *out, const char *name, struct ls_tensor_file *const file[2])
{
    *out = (struct pair){.file = {NULL}};
    for (int i = 0; i < 2; i++) {
        out->file[i] = file[i];
        out->tensor[i] = ls_tensor_file_find(file[i], name);
        if (!out->tensor[i] && name[0] == 'o' && ls_tensor_file_at(file[i], 0)->name[0] == '\0')
            out->tensor[i] = ls_tensor_file_at(file[i], 0); /* a .npy file has no names */
    }
    const struct ls_file_tensor *a = out->tensor[0], *b = out->tensor[1];

    if (!a || !b) return LS_OK;
    if (a->ndim != b->ndim || memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof(a->dim[0])) != 0)
        return ls_fail(LS_ESHAPE, "%s: shape is %s in %s, %s in %s", name,
                       cli_dims(a->dim, a->ndim).s, ls_tensor_file_path(file[0]),
                       cli_dims(b->dim, b->ndim).s, ls_tensor_file_path(file[1]));
    return LS_OK;
}

static bool is_common(const struct pair *pair)
{
    return pair->tensor[0] && pair->tensor[1];
}

static ls_dtype coarser(const struct pair *o)
{
    const ls_dtype a = o->tensor[0]->type, b = o->tensor[1]->type;
    const ls_dtype type = ls_dtype_unit(a) > ls_dtype_unit(b) ? a : b;

    return type == LS_F64 ? LS_F32 : type;
}

static ls_status compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                         struct ls_tensor_file *const file[2], const ls_dtype *contract)
{
    struct pair o, lse;
    struct distance apart_o, apart_lse;
    struct ls_verdict verdict;

    LS_TRY(find_pair(&o, "o", file));
    LS_TRY(find_pair(&lse, "lse", file));
    if (!is_common(&o) && !is_common(&lse))
        return ls_fail(LS_EVALUE, "%s and %s have neither o nor lse in common",
                       ls_tensor_file_path(file[0]), ls_tensor_file_path(file[1]));
    if (!is_common(&o) && !contract)
        return ls_fail(LS_EVALUE, "without o in both files, --contract must say which type's "
                                  "limits hold");
    const ls_dtype type = contract ? *contract : coarser(&o);

    if (is_common(&o)) LS_TRY(measure(&apart_o, world, &o, type));
    if (is_common(&lse)) LS_TRY(measure(&apart_lse, world, &lse, LS_F32));
    const struct distance *const x = is_common(&o) ? &apart_o : NULL;
    const struct distance *const y = is_common(&lse) ? &apart_lse : NULL;

    judge(&verdict, x, y, type);
    report_pair(report, &verdict, x, y, type);
    *held = verdict.ok;
    return LS_OK;
}

ls_status cli_compare(bool *held, const struct cli_report *report, const struct cli_world *world,
                      const char *path_a, const char *path_b, const ls_dtype *contract)
{
    struct ls_tensor_file *file[2] = {NULL, NULL};
    ls_status status = ls_tensor_file_open(&file[0], path_a);

    if (status == LS_OK) status = ls_tensor_file_open(&file[1], path_b);
    status = ls_comm_agree(world->comm, status);
    if (status == LS_OK) status = compare(held, report, world, file, contract);
    if (file[1]) ls_tensor_file_close(file[1]);
    if (file[0]) ls_tensor_file_close(file[0]);
    return status;
}
