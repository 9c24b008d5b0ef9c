#include "cli/packed.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "cli/format.h"
#include "cli/values.h"
#include "longspan/attention.h"
#include "tensor/file.h"

#define MOST_DIMS 3 /* of a position */

/* By cli_packing: the name, and the shape that says all. */
static const char *const names[] = {"no", "s3hd", "sh3d", "sgd"};
static const char *const shapes[] = {"", "[b, s, h + 2 h_kv, d]", "[b, s, h, 3, d]",
                                     "[b, s, h_kv, h / h_kv + 2, d]"};

ls_status cli_packed_set(struct cli_packed *out, const char *name)
{
    int i;

    LS_TRY(cli_value_name(&i, "--packed", name, names + 1, CLI_PACKED_SGD));
    out->how = (cli_packing)(i + 1);
    return LS_OK;
}

const char *cli_packed_name(cli_packing how)
{
    return names[how];
}

static int64_t kv_heads_of(const struct cli_packed *p)
{
    return p->kv_heads > 0 ? p->kv_heads : p->heads;
}

ls_status cli_packed_check(const struct cli_packed *p)
{
    const int64_t h_kv = kv_heads_of(p);

    if (p->how == CLI_NOT_PACKED && (p->heads > 0 || p->kv_heads > 0))
        return ls_fail(LS_EVALUE, "--heads and --kv-heads are of --packed");
    if (p->how == CLI_NOT_PACKED) return LS_OK;
    if (p->heads == 0)
        return ls_fail(LS_EVALUE,
                       "--packed %s needs --heads, those of q, and --kv-heads if k has "
                       "fewer",
                       names[p->how]);
    if (p->heads % h_kv != 0)
        return ls_fail(LS_EVALUE, "--heads %" PRId64 " is no multiple of --kv-heads %" PRId64,
                       p->heads, h_kv);
    if (p->how == CLI_PACKED_SH3D && p->heads != h_kv)
        return ls_fail(LS_EVALUE, "--packed sh3d has as many heads of k as of q; with fewer it is "
                                  "sgd");
    return LS_OK;
}

/* ---- shapes */

/* What a shape may mean. */
struct reading {
    int64_t b, s, d;
    bool single;
};

/* Dimensions of a position, of which the last is that many times the head dim. */
struct form {
    int n;
    int64_t dim[MOST_DIMS];
};

/* In full, with the last two as one, and with all as one; n 0: there is none. */
static void list_forms(struct form out[3], const struct cli_packed *p)
{
    const int64_t h = p->heads, h_kv = kv_heads_of(p), group = h / h_kv + 2;

    switch (p->how) {
    case CLI_PACKED_S3HD:
        out[0] = (struct form){h == h_kv ? 3 : 0, {3, h, 1}};
        out[1] = (struct form){2, {h + 2 * h_kv, 1}};
        break;
    case CLI_PACKED_SH3D:
        out[0] = (struct form){3, {h, 3, 1}};
        out[1] = (struct form){2, {h, 3}};
        break;
    default:
        out[0] = (struct form){3, {h_kv, group, 1}};
        out[1] = (struct form){2, {h_kv, group}};
    }
    out[2] = (struct form){1, {h + 2 * h_kv}};
}

/* Whether a shape is [b, s] or, single, [s] of positions of this form. */
static bool read_as(struct reading *out, const struct ls_input *source, const struct form *form,
                    bool single)
{
    const int lead = single ? 1 : 2, last = lead + form->n - 1;
    const int64_t *dim = source->dim;

    if (form->n == 0 || source->ndim != last + 1) return false;
    if (memcmp(dim + lead, form->dim, (size_t)(form->n - 1) * sizeof(*dim)) != 0) return false;
    *out = (struct reading){.b = single ? 1 : dim[0],
                            .s = dim[lead - 1],
                            .d = dim[last] / form->dim[form->n - 1],
                            .single = single};
    return dim[last] % form->dim[form->n - 1] == 0 && out->d >= 1 && out->d <= LS_MAX_HEAD_DIM;
}

static ls_status find_reading(struct reading *out, const struct ls_input *source,
                              const struct cli_packed *p)
{
    struct reading found[6] = {{.b = 0}};
    struct form forms[3];
    int n = 0;

    list_forms(forms, p);
    for (int i = 0; i < 6; i++) n += read_as(&found[n], source, &forms[i / 2], i % 2);
    if (n == 0)
        return ls_fail(LS_ESHAPE,
                       "%s: shape is %s: no %s of %" PRId64 " heads and %" PRId64
                       " of k and v, as %s has it",
                       source->label, cli_dims(source->dim, source->ndim).s, names[p->how],
                       p->heads, kv_heads_of(p), shapes[p->how]);
    if (n > 1)
        return ls_fail(LS_ESHAPE,
                       "%s: shape %s can be batch %" PRId64 " of %" PRId64 " positions, head dim "
                       "%" PRId64 ", or batch %" PRId64 " of %" PRId64 ", head dim %" PRId64
                       ": save it as %s",
                       source->label, cli_dims(source->dim, source->ndim).s, found[0].b, found[0].s,
                       found[0].d, found[1].b, found[1].s, found[1].d, shapes[p->how]);
    *out = found[0];
    return LS_OK;
}

/* ---- heads */

/* Those of q, k and v among all of a position. */
static void find_heads(struct ls_packed_heads out[3], const struct cli_packed *p)
{
    const int64_t h = p->heads, h_kv = kv_heads_of(p), group = h / h_kv, all = h + 2 * h_kv;

    if (p->how == CLI_PACKED_S3HD) {
        out[0] = (struct ls_packed_heads){all, 0, h, all};
        out[1] = (struct ls_packed_heads){all, h, h_kv, all};
        out[2] = (struct ls_packed_heads){all, h + h_kv, h_kv, all};
    } else {
        out[0] = (struct ls_packed_heads){all, 0, group, group + 2};
        out[1] = (struct ls_packed_heads){all, group, 1, group + 2};
        out[2] = (struct ls_packed_heads){all, group + 1, 1, group + 2};
    }
}

ls_status cli_packed_take(struct ls_input qkv[3], bool *single, const struct cli_packed *packed)
{
    static const char *const tensors[3] = {"q", "k", "v"};
    struct ls_packed_heads heads[3];
    struct ls_input source = qkv[0];
    struct reading reading = {.b = 0};

    LS_TRY(find_reading(&reading, &source, packed));
    find_heads(heads, packed);
    for (int i = 0; i < 3; i++) {
        const int64_t h = i == 0 ? packed->heads : kv_heads_of(packed);
        const int64_t dim[] = {reading.b, reading.s, h, reading.d};

        if (i > 0) LS_TRY(ls_input_open_beside(&qkv[i], &source, source.tensor->name));
        ls_input_take_heads(&qkv[i], &heads[i], dim);
        snprintf(qkv[i].label, sizeof(qkv[i].label), "%.80s: %s", source.label, tensors[i]);
        snprintf(qkv[i].name, sizeof(qkv[i].name), "%s", tensors[i]);
    }
    *single = reading.single;
    return LS_OK;
}
