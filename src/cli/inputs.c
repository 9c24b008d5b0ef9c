#include "cli/inputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/ledger.h"
#include "cli/format.h"
#include "cli/quantized.h"
#include "comm/comm.h"
#include "device/attention.h"
#include "tensor/file.h"

/* More is a slip of the finger, and bytes still fit an int64_t. */
#define MOST_ELEMENTS 0x1p56

/* More heads than this are not believed unless --order says so. */
#define LIKELY_HEADS 256

static const char *const tensor_names[3] = {"q", "k", "v"};

/* ---- options */

bool cli_inputs_given(const struct cli_input_options *o)
{
    return o->input || o->single[0] || o->single[1] || o->single[2] || o->random.given;
}

/* Options that exclude each other, or would be without effect. */
static ls_status check_options(const struct cli_input_options *o)
{
    const int singles = !!o->single[0] + !!o->single[1] + !!o->single[2];
    const int ways = !!o->input + (singles > 0) + o->random.given;

    if (ways == 0)
        return ls_fail(LS_EVALUE, "no input: give --input, --q with --k and --v, or --random");
    if (ways > 1) return ls_fail(LS_EVALUE, "--input, --q --k --v and --random exclude each other");
    for (int i = 0; singles > 0 && i < 3; i++)
        if (!o->single[i])
            return ls_fail(LS_EVALUE, "--%s is missing; q, k and v are needed", tensor_names[i]);
    LS_TRY(cli_packed_check(&o->packed));
    if (o->packed.how != CLI_NOT_PACKED && !o->input)
        return ls_fail(LS_EVALUE, "--packed is of the tensor qkv of --input");
    if (o->packed.how != CLI_NOT_PACKED && o->has_order)
        return ls_fail(LS_EVALUE, "--packed and --order exclude each other: it is an order");
    if (o->random.given && cli_names_given(&o->names))
        return ls_fail(LS_EVALUE, "--names is of files, not of --random");
    return LS_OK;
}

/* ---- shapes of files */

bool cli_input_add_batch(struct ls_input *source, int ndim)
{
    if (source->ndim != ndim - 1) return false;
    memmove(source->dim + 1, source->dim, (size_t)source->ndim * sizeof(*source->dim));
    source->dim[0] = 1;
    source->ndim = ndim;
    return true;
}

/* The shape, but for d_v, if the files are read in this order; k and v are known to agree. */
static struct ls_attention_shape shape_in(ls_order order, const int64_t q[4], const int64_t k[4])
{
    const int s = order == LS_ORDER_BSHD ? 1 : 2, h = 3 - s;

    return (struct ls_attention_shape){
        .b = q[0], .h = q[h], .h_kv = k[h], .s_q = q[s], .s_k = k[s], .d = q[3]};
}

static bool heads_fit(const struct ls_attention_shape *shape)
{
    return shape->h_kv > 0 && shape->h > 0 && shape->h % shape->h_kv == 0;
}

static ls_status check_head_dim(const char *label, int64_t d)
{
    if (d >= 1 && d <= LS_MAX_HEAD_DIM) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: head dim is %" PRId64 ", it can be 1 to %d", label, d,
                   LS_MAX_HEAD_DIM);
}

/* What has to agree whatever the order. */
static ls_status check_dims(const struct cli_inputs *in)
{
    const struct ls_input *q = &in->source[0], *k = &in->source[1], *v = &in->source[2];

    for (int i = 0; i < 3; i++) {
        const struct ls_input *s = &in->source[i];

        if (s->ndim != 4)
            return ls_fail(LS_ESHAPE, "%s: shape is %s, not [batch,] sequence, heads, head dim",
                           s->label, cli_dims(s->dim, s->ndim).s);
    }
    const int64_t *qd = q->dim, *kd = k->dim, *vd = v->dim;

    LS_TRY(check_head_dim(q->label, qd[3]));
    LS_TRY(check_head_dim(v->label, vd[3]));
    if (kd[3] != qd[3])
        return ls_fail(LS_ESHAPE, "%s: head dim is %" PRId64 ", %s has %" PRId64, k->label, kd[3],
                       q->name, qd[3]);
    if (kd[0] != qd[0])
        return ls_fail(LS_ESHAPE, "%s: batch is %" PRId64 ", %s has %" PRId64, k->label, kd[0],
                       q->name, qd[0]);
    if (memcmp(vd, kd, 3 * sizeof(*vd)) != 0)
        return ls_fail(LS_ESHAPE, "%s: shape is %s, %s has %s: all but the head dim must agree",
                       v->label, cli_dims(vd, 4).s, k->name, cli_dims(kd, 4).s);
    return LS_OK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* As far as divisibility goes, nearly all shapes fit both orders (s and h trade places). So an
 * order is sure only if it is the one with a possible number of heads, and one lower than that of
 * positions. */
bool cli_order_guess(ls_order *out, const int64_t q[4], const int64_t k[4])
{
    const struct ls_attention_shape a = shape_in(LS_ORDER_BSHD, q, k),
                                    b = shape_in(LS_ORDER_BHSD, q, k);
    const bool a_possible = heads_fit(&a) && a.h <= LIKELY_HEADS;
    const bool b_possible = heads_fit(&b) && b.h <= LIKELY_HEADS;
    const bool a_sure = a_possible && !b_possible && a.h <= larger(a.s_q, a.s_k);
    const bool b_sure = b_possible && !a_possible && b.h <= larger(b.s_q, b.s_k);
    const bool same = a.h == 1 && b.h == 1 && a.s_k == 1 && b.s_k == 1;

    *out = b_sure ? LS_ORDER_BHSD : LS_ORDER_BSHD;
    return a_sure || b_sure || same;
}

static ls_status choose_order(struct cli_inputs *in)
{
    const int64_t *q = in->source[0].dim, *k = in->source[1].dim;
    const struct ls_attention_shape a = shape_in(LS_ORDER_BSHD, q, k),
                                    b = shape_in(LS_ORDER_BHSD, q, k);

    if (cli_order_guess(&in->order, q, k)) return LS_OK;
    if (!heads_fit(&a) && !heads_fit(&b)) return LS_OK; /* check_shape will say so */
    return ls_fail(LS_ESHAPE,
                   "%s: can be %" PRId64 " positions of %" PRId64 " heads or %" PRId64
                   " positions of %" PRId64 " heads: say which, --order bshd or bhsd",
                   in->source[0].label, a.s_q, a.h, b.s_q, b.h);
}

static ls_status shape_of_files(struct cli_inputs *in, const struct cli_input_options *o)
{
    for (int i = 0; i < 3; i++)
        if (cli_input_add_batch(&in->source[i], 4) && i == 0) in->single = true;
    LS_TRY(check_dims(in));
    in->order = o->order;
    if (!o->has_order) LS_TRY(choose_order(in));
    in->shape = shape_in(in->order, in->source[0].dim, in->source[1].dim);
    in->shape.d_v = in->source[2].dim[3];
    return LS_OK;
}

static ls_status type_of_files(struct cli_inputs *in, bool keep_f64)
{
    const struct ls_input *q = &in->source[0];

    for (int i = 1; i < 3; i++) {
        const struct ls_input *s = &in->source[i];

        if (s->type != q->type && !in->brings_quantized)
            return ls_fail(LS_ETYPE, "%s: type is %s, %s has %s: choose one with --dtype", s->label,
                           ls_dtype_name(s->type), q->name, ls_dtype_name(q->type));
    }
    if (q->type == LS_F64 && !keep_f64)
        return ls_fail(LS_ETYPE, "%s: type is f64: choose bf16, f16 or f32 with --dtype", q->label);
    in->shape.type = q->type;
    return LS_OK;
}

/* ---- all of them */

static ls_status check_shape(const struct cli_inputs *in)
{
    const struct ls_attention_shape *n = &in->shape;
    const char *label = in->source[0].label;
    const int64_t sizes[] = {n->b, n->h, n->h_kv, n->s_q};
    static const char *const names[] = {"batch", "number of heads", "number of k/v heads",
                                        "number of queries"};

    for (int i = 0; i < 4; i++)
        if (sizes[i] < 1) return ls_fail(LS_ESHAPE, "%s: the %s is 0", label, names[i]);
    LS_TRY(check_head_dim(label, n->d));
    LS_TRY(check_head_dim(in->source[2].label, n->d_v));
    if (!heads_fit(n))
        return ls_fail(LS_ESHAPE,
                       "%s: %" PRId64 " heads are not a multiple of the %" PRId64 " of %s", label,
                       n->h, n->h_kv, in->source[1].name);
    if ((double)n->b * (double)n->h * (double)larger(n->s_q, n->s_k) *
            (double)larger(n->d, n->d_v) >
        MOST_ELEMENTS)
        return ls_fail(LS_ESHAPE, "%s: more than 2^56 elements", label);
    return LS_OK;
}

/* The file may be a .npy, or hold one tensor under any name. */
static ls_status open_packed(struct cli_inputs *in, const struct cli_world *world,
                             const struct cli_input_options *o)
{
    const int64_t *q = in->source[0].dim, *k = in->source[1].dim;

    LS_TRY(cli_names_open(&in->source[0], &o->names, "qkv", world, o->input, true));
    LS_TRY(cli_packed_take(in->source, &in->single, &o->packed));
    in->order = LS_ORDER_BSHD;
    in->shape = shape_in(in->order, q, k);
    in->shape.d_v = in->shape.d;
    snprintf(in->origin, sizeof(in->origin), "%.280s, packed as %s", o->input,
             cli_packed_name(o->packed.how));
    return LS_OK;
}

static ls_status open_tensor(struct cli_inputs *in, const struct cli_world *world,
                             const struct cli_input_options *o, int i)
{
    const char *path = o->input ? o->input : o->single[i];

    if (o->input && i > 0)
        return cli_names_open_beside(&in->source[i], &o->names, tensor_names[i], &in->source[0]);
    return cli_names_open(&in->source[i], &o->names, tensor_names[i], world, path, !o->input);
}

static ls_status open_files(struct cli_inputs *in, const struct cli_world *world,
                            const struct cli_input_options *o)
{
    if (o->packed.how != CLI_NOT_PACKED) return open_packed(in, world, o);
    for (int i = 0; i < 3; i++) LS_TRY(open_tensor(in, world, o, i));
    LS_TRY(shape_of_files(in, o));
    const char *order = ls_order_name(in->order);

    if (o->input)
        snprintf(in->origin, sizeof(in->origin), "%.280s in order %s", o->input, order);
    else
        snprintf(in->origin, sizeof(in->origin), "%s %s %s in order %s", in->source[0].name,
                 in->source[1].name, in->source[2].name, order);
    return LS_OK;
}

static void draw(struct ls_input *out, uint64_t seed, uint32_t stream, const char *name)
{
    ls_input_draw(out, seed, stream, name);
    snprintf(out->label, sizeof(out->label), "--random: %s", name);
}

static void open_random(struct cli_inputs *in, const struct cli_input_options *o)
{
    const uint64_t seed = o->random.seed;

    for (int i = 0; i < 3; i++) draw(&in->source[i], seed, (uint32_t)i, tensor_names[i]);
    in->order = o->has_order ? o->order : LS_ORDER_BSHD;
    in->shape = o->random.shape;
    snprintf(in->origin, sizeof(in->origin), "standard normal numbers, seed %" PRIu64, seed);
}

static ls_status open_any(struct cli_inputs *in, const struct cli_world *world,
                          const struct cli_input_options *o, bool keep_f64)
{
    if (o->random.given)
        open_random(in, o);
    else
        LS_TRY(open_files(in, world, o));
    LS_TRY(check_shape(in));
    LS_TRY(cli_quantized_open(in, o));
    if (o->has_dtype)
        in->shape.type = o->dtype;
    else if (!o->random.given)
        LS_TRY(type_of_files(in, keep_f64));
    return LS_OK;
}

ls_status cli_inputs_open(struct cli_inputs *out, const struct cli_world *world,
                          const struct cli_input_options *options, bool keep_f64)
{
    *out = (struct cli_inputs){.order = LS_ORDER_BSHD};
    LS_TRY(check_options(options));
    const ls_status status = ls_comm_agree(world->comm, open_any(out, world, options, keep_f64));

    if (status != LS_OK) cli_inputs_close(out);
    return status;
}

void cli_inputs_close(struct cli_inputs *inputs)
{
    for (int i = 0; i < 3; i++) ls_input_close(&inputs->source[i]);
    for (int i = 0; i < 2; i++) ls_input_close(&inputs->scale[i]);
    ls_input_close(&inputs->mean);
}

#define DO_STREAM 3 /* q, k and v are 0 to 2 */

static ls_status open_do(struct ls_input *out, const struct cli_inputs *in,
                         const struct cli_input_options *o)
{
    const struct ls_tensor_file *file = in->source[0].file;
    const int64_t *q = in->source[0].dim, dim[] = {q[0], q[1], q[2], in->shape.d_v};

    if (!o->input || !cli_names_expect(&o->names, "do", file)) {
        draw(out, o->random.given ? o->random.seed : 0, DO_STREAM, "do");
        return LS_OK;
    }
    LS_TRY(cli_names_open_beside(out, &o->names, "do", &in->source[0]));
    cli_input_add_batch(out, 4);
    if (out->ndim == 4 && memcmp(out->dim, dim, sizeof(dim)) == 0) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: shape is %s, that of o is %s, with the head dim of %s",
                   out->label, cli_dims(out->dim, out->ndim).s, cli_dims(dim, 4).s,
                   in->source[2].label);
}

ls_status cli_inputs_open_do(struct ls_input *out, const struct cli_inputs *inputs,
                             const struct cli_world *world, const struct cli_input_options *options)
{
    return ls_comm_agree(world->comm, open_do(out, inputs, options));
}

/* Rows of one rank's part of all heads. */
static double head_rows(const struct ls_attention_shape *shape, int64_t heads,
                        const struct ls_layout *layout, int rank)
{
    return (double)(shape->b * heads) * (double)ls_layout_part_rows(layout, rank);
}

/* Of `keys` elements like those of q and k, and so many like those of v. */
static double row_bytes(const struct ls_attention_shape *shape, int keys, int values)
{
    return (double)(keys * shape->d + values * ls_value_dim(shape)) * ls_dtype_size(shape->type);
}

double cli_tensor_bytes(const struct ls_attention_shape *shape, const struct ls_layout *q_layout,
                        const struct ls_layout *k_layout, int rank)
{
    const double rows_q = head_rows(shape, shape->h, q_layout, rank);
    const double rows_k = head_rows(shape, shape->h_kv, k_layout, rank);

    return rows_q * (row_bytes(shape, 1, 1) + (double)sizeof(float)) +
           rows_k * (double)(ls_key_width(shape) + ls_value_width(shape)) *
               ls_dtype_size(ls_key_type(shape));
}

double cli_gradient_bytes(const struct ls_attention_shape *shape, int64_t numbers,
                          const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                          int rank)
{
    const double rows_q = head_rows(shape, shape->h, q_layout, rank);
    const double rows_k = head_rows(shape, shape->h_kv, k_layout, rank);

    return rows_q * row_bytes(shape, 1, 2) + rows_k * row_bytes(shape, 1, 1) +
           (double)shape->h * (double)numbers * (double)sizeof(float);
}

double cli_bias_gradient_bytes(const struct ls_attention_shape *shape,
                               const struct ls_attention_options *options,
                               const struct ls_layout *q_layout, int rank)
{
    const double matrices = (options->bias_per_entry ? (double)shape->b : 1) *
                            (options->bias_per_head ? (double)shape->h : 1);

    if (!options->bias) return 0;
    return matrices * (double)ls_layout_part_rows(q_layout, rank) * (double)shape->s_k *
           (double)sizeof(float);
}

ls_status cli_tensor_create(struct ls_tensor *out, ls_dtype type, ls_order order, int64_t b,
                            int64_t rows, int64_t h, int64_t d)
{
    void *data;

    LS_TRY(ls_alloc(&data, LS_TAG_ACTIVATION,
                    (size_t)(b * rows * h * d) * (size_t)ls_dtype_size(type)));
    *out = ls_order_view(data, type, order, b, rows, h, d);
    return LS_OK;
}

ls_status cli_input_load(struct ls_tensor *out, const struct cli_world *world,
                         const struct ls_input *source, ls_order order,
                         const struct ls_layout *layout, double limit,
                         struct cli_progress *progress)
{
    const struct ls_progress_callback callback = cli_progress_callback(progress);
    const ls_status status =
        ls_input_load(out, world->comm, source, order, layout, limit, &callback);

    if (status != LS_EVALUE) return status;
    return ls_fail(LS_EVALUE, "%s; --allow-nonfinite computes anyway", ls_message());
}

ls_status cli_inputs_load(struct ls_tensor out[3], const struct cli_inputs *inputs,
                          const struct cli_world *world, const struct ls_layout *q_layout,
                          const struct ls_layout *k_layout, double v_limit,
                          struct cli_progress *progress)
{
    const struct ls_layout *const layout[3] = {q_layout, k_layout, k_layout};
    const double others = isnan(v_limit) ? LS_ANY_VALUE : LS_FINITE;
    const struct ls_attention_shape *n = &inputs->shape;
    ls_status status = LS_OK;

    memset(out, 0, 3 * sizeof(*out));
    for (int i = 0; i < 3 && status == LS_OK; i++)
        status =
            cli_tensor_create(&out[i], i > 0 && inputs->brings_quantized ? n->kv_type : n->type,
                              inputs->order, n->b, ls_layout_part_rows(layout[i], world->rank),
                              i == 0 ? n->h : n->h_kv, i == 2 ? n->d_v : n->d);
    LS_TRY(ls_comm_agree(world->comm, status));
    for (int i = 0; i < 3; i++)
        LS_TRY(cli_input_load(&out[i], world, &inputs->source[i], inputs->order, layout[i],
                              i == 2 ? v_limit : others, progress));
    return LS_OK;
}
