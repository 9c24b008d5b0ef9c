#include "cli/quantized.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "device/attention.h"
#include "longspan/quantize.h"
#include "store/elements.h"
#include "tensor/dtype.h"
#include "tensor/layout.h"

static const char *const scale_names[2] = {"k_scale", "v_scale"};

/* ---- opening */

/* Scales are [b, s, h_kv] in the order of k, one for each row; of e4m3 [b, h_kv]. */
static ls_status check_scale(struct ls_input *scale, const struct cli_inputs *in)
{
    const int64_t *k = in->source[1].dim, h = in->shape.h_kv;
    const bool of_rows = in->shape.kv_type == LS_I8;
    const int64_t dim[] = {k[0], of_rows ? k[1] : h, k[2]};
    const int ndim = of_rows ? 3 : 2;

    if (k[0] == 1) cli_input_add_batch(scale, ndim);
    if (scale->ndim == ndim && memcmp(scale->dim, dim, (size_t)ndim * sizeof(*dim)) == 0)
        return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: shape is %s, must be %s, one for each %s", scale->label,
                   cli_dims(scale->dim, scale->ndim).s, cli_dims(dim, ndim).s,
                   of_rows ? "key and head" : "head");
}

static ls_status check_mean(struct ls_input *mean, const struct cli_inputs *in)
{
    const struct ls_attention_shape *n = &in->shape;
    const int64_t dim[] = {n->b, n->h_kv, n->d};

    if (n->b == 1) cli_input_add_batch(mean, 3);
    if (mean->ndim == 3 && memcmp(mean->dim, dim, sizeof(dim)) == 0) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: shape is %s, must be %s", mean->label,
                   cli_dims(mean->dim, mean->ndim).s, cli_dims(dim, 3).s);
}

static ls_status open_brought(struct cli_inputs *in, const struct cli_names *names)
{
    for (int i = 0; i < 2; i++) {
        LS_TRY(cli_names_open_beside(&in->scale[i], names, scale_names[i], &in->source[1 + i]));
        LS_TRY(check_scale(&in->scale[i], in));
    }
    if (!cli_names_expect(names, "k_mean", in->source[1].file)) return LS_OK;
    LS_TRY(cli_names_open_beside(&in->mean, names, "k_mean", &in->source[1]));
    return check_mean(&in->mean, in);
}

ls_status cli_quantized_open(struct cli_inputs *in, const struct cli_input_options *options)
{
    const struct ls_input *k = &in->source[1], *v = &in->source[2];

    in->shape.kv_type = options->kv_dtype;
    in->brings_quantized = ls_dtype_is_of_8_bits(k->type) || ls_dtype_is_of_8_bits(v->type);
    if (!in->brings_quantized) return LS_OK;
    if (k->type != v->type)
        return ls_fail(LS_ETYPE, "%s: type is %s, %s has %s: both must be the same", v->label,
                       ls_dtype_name(v->type), k->name, ls_dtype_name(k->type));
    if (options->kv_dtype)
        return ls_fail(LS_EVALUE, "--kv-dtype: k and v of the input are %s already",
                       ls_dtype_name(k->type));
    in->shape.kv_type = k->type;
    return open_brought(in, &options->names);
}

/* ---- rows */

double cli_quantized_bytes(const struct cli_inputs *in, const struct ls_layout *k_layout, int rank)
{
    const struct ls_attention_shape *n = &in->shape;
    const int loaded = in->brings_quantized ? 1 : ls_dtype_size(n->type);

    if (!ls_keys_are_quantized(n)) return 0;
    return (double)(n->b * n->h_kv) * (double)ls_layout_part_rows(k_layout, rank) *
           (double)(n->d + n->d_v) * (loaded + (double)sizeof(float));
}

static ls_status create_rows(struct cli_quantized *out, const struct cli_inputs *in, int64_t rows)
{
    const struct ls_attention_shape *n = &in->shape;
    const int64_t width[] = {ls_key_width(n), ls_value_width(n)};

    for (int i = 0; i < 2; i++)
        LS_TRY(
            cli_tensor_create(&out->rows[i], n->kv_type, in->order, n->b, rows, n->h_kv, width[i]));
    return LS_OK;
}

static ls_status create_mean(struct cli_quantized *out, const struct ls_attention_shape *n)
{
    void *memory;

    LS_TRY(
        ls_alloc(&memory, LS_TAG_ACTIVATION, (size_t)(n->b * n->h_kv * n->d) * sizeof(*out->mean)));
    out->mean = memory;
    return LS_OK;
}

static ls_status read_mean(struct cli_quantized *out, const struct cli_inputs *in)
{
    const struct ls_attention_shape *n = &in->shape;
    const int64_t count = n->b * n->h_kv * n->d;

    LS_TRY(create_mean(out, n));
    LS_TRY(ls_input_read_floats(out->mean, &in->mean, 0, count));
    const int64_t bad = ls_dtype_find_nonfinite(out->mean, LS_F32, count);

    if (bad < 0) return LS_OK;
    return ls_fail(LS_EVALUE, "%s: %g at element %" PRId64 ": must be finite", in->mean.label,
                   (double)out->mean[bad], bad);
}

static char *row_of(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head)
{
    return (char *)t->data +
           (b * t->stride[0] + row * t->stride[1] + head * t->stride[2]) * ls_dtype_size(t->type);
}

/* Numbers and scales, [b, s, h, d] and [b, s, h, 1], side by side. */
static ls_status join(struct ls_tensor *out, const struct ls_tensor *numbers,
                      const struct ls_tensor *scale, const char *label,
                      const struct ls_layout *layout, int rank)
{
    const int64_t *dim = numbers->dim;

    for (int64_t i = 0; i < dim[0] * dim[1] * dim[2]; i++) {
        const int64_t b = i / dim[2] / dim[1], row = i / dim[2] % dim[1], head = i % dim[2];
        const float *of_row = (const float *)(const void *)row_of(scale, b, row, head);
        char *to = row_of(out, b, row, head);

        if (!(*of_row > 0 && isfinite(*of_row)))
            return ls_fail(LS_EVALUE,
                           "%s: the scale is %g at batch %" PRId64 ", position %" PRId64
                           ", head %" PRId64 ": must be finite and above 0",
                           label, (double)*of_row, b, ls_layout_position(layout, rank, row), head);
        memcpy(to, row_of(numbers, b, row, head), (size_t)dim[3]);
        memcpy(to + dim[3], of_row, sizeof(*of_row));
    }
    return LS_OK;
}

/* out [b, s, h, 1], all rows of a head alike; scales [b, h]. */
static ls_status spread_scales(struct ls_tensor *out, const struct ls_input *source)
{
    const int64_t *dim = out->dim;

    for (int64_t pair = 0; pair < dim[0] * dim[2]; pair++) {
        float scale;

        LS_TRY(ls_input_read_floats(&scale, source, pair, 1));
        for (int64_t row = 0; row < dim[1]; row++)
            *(float *)(void *)row_of(out, pair / dim[2], row, pair % dim[2]) = scale;
    }
    return LS_OK;
}

/* Agreed by all ranks. */
static ls_status load_scales(struct ls_tensor *out, const struct cli_inputs *in,
                             const struct cli_world *world, int which,
                             const struct ls_layout *layout, struct cli_progress *progress)
{
    struct ls_input source = in->scale[which];

    if (source.ndim == 2) return ls_comm_agree(world->comm, spread_scales(out, &source));
    source.ndim = 4;
    source.dim[3] = 1;
    return cli_input_load(out, world, &source, in->order, layout, LS_ANY_VALUE, progress);
}

static ls_status load_rows(struct ls_tensor *out, const struct cli_inputs *in,
                           const struct cli_world *world, int which,
                           const struct ls_tensor *numbers, const struct ls_layout *layout,
                           struct cli_progress *progress)
{
    const struct ls_attention_shape *n = &in->shape;
    struct ls_tensor scale = {.data = NULL};
    ls_status status = ls_comm_agree(world->comm, cli_tensor_create(&scale, LS_F32, in->order, n->b,
                                                                    numbers->dim[1], n->h_kv, 1));

    if (status == LS_OK) status = load_scales(&scale, in, world, which, layout, progress);
    if (status == LS_OK)
        status = ls_comm_agree(
            world->comm, join(out, numbers, &scale, in->scale[which].label, layout, world->rank));
    ls_free(scale.data);
    return status;
}

ls_status cli_quantized_load(struct cli_quantized *out, const struct cli_inputs *in,
                             const struct cli_world *world, const struct ls_tensor qkv[3],
                             const struct ls_layout *k_layout, struct cli_progress *progress)
{
    if (!in->brings_quantized) return LS_OK;
    ls_status status = create_rows(out, in, qkv[1].dim[1]);

    if (status == LS_OK && in->mean.file) status = read_mean(out, in);
    LS_TRY(ls_comm_agree(world->comm, status));
    for (int i = 0; i < 2; i++)
        LS_TRY(load_rows(&out->rows[i], in, world, i, &qkv[1 + i], k_layout, progress));
    return LS_OK;
}

ls_status cli_quantized_make(struct cli_quantized *out, const struct cli_inputs *in,
                             const struct cli_world *world, struct ls_attention_plan *plan,
                             const struct ls_tensor qkv[3])
{
    if (!ls_keys_are_quantized(&in->shape) || in->brings_quantized) return LS_OK;
    ls_status status = create_rows(out, in, qkv[1].dim[1]);

    /* e4m3 has digits enough for what one channel adds to the others */
    if (status == LS_OK && in->shape.kv_type == LS_I8) status = create_mean(out, &in->shape);
    LS_TRY(ls_comm_agree(world->comm, status));
    return ls_attention_quantize(&out->rows[0], &out->rows[1], out->mean, plan, &qkv[1], &qkv[2]);
}

/* ---- what they stand for */

/* mean [b, h, d], or NULL */
static void widen(struct ls_tensor *out, const struct ls_tensor *rows, const float *mean)
{
    const int64_t *dim = out->dim;

    for (int64_t i = 0; i < dim[0] * dim[1] * dim[2]; i++) {
        const int64_t b = i / dim[2] / dim[1], row = i / dim[2] % dim[1], head = i % dim[2];
        const char *from = row_of(rows, b, row, head);
        float *to = (float *)(void *)row_of(out, b, row, head), scale;

        ls_dtype_convert(to, LS_F32, from, rows->type, dim[3]);
        memcpy(&scale, from + dim[3], sizeof(scale));
        for (int64_t e = 0; e < dim[3]; e++)
            to[e] = to[e] * scale + (mean ? mean[(b * dim[2] + head) * dim[3] + e] : 0);
    }
}

ls_status cli_quantized_widen(struct cli_quantized *q, const struct cli_inputs *in,
                              const struct cli_world *world)
{
    const struct ls_attention_shape *n = &in->shape;
    const int64_t width[] = {n->d, n->d_v};
    ls_status status = LS_OK;

    for (int i = 0; i < 2 && status == LS_OK; i++)
        status = cli_tensor_create(&q->exact[i], LS_F32, in->order, n->b, q->rows[i].dim[1],
                                   n->h_kv, width[i]);
    LS_TRY(ls_comm_agree(world->comm, status));
    for (int i = 0; i < 2; i++) widen(&q->exact[i], &q->rows[i], i == 0 ? q->mean : NULL);
    return LS_OK;
}

void cli_quantized_free(struct cli_quantized *q)
{
    ls_free(q->mean);
    for (int i = 0; i < 2; i++) {
        ls_free(q->exact[i].data);
        ls_free(q->rows[i].data);
    }
}
