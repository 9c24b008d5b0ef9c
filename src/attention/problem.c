#include "attention/problem.h"

#include <stdlib.h>

#include "attention/options.h"
#include "device/rows.h"
#include "plan/attention_size.h"
#include "tensor/dtype.h"

static ls_status check_counts(const struct ls_attention_shape *s)
{
    if (s->b < 1 || s->h < 1 || s->h_kv < 1)
        return ls_fail(LS_ESHAPE,
                       "batch %ld, heads %ld, key/value heads %ld: each must be at least 1",
                       (long)s->b, (long)s->h, (long)s->h_kv);
    if (s->h % s->h_kv != 0)
        return ls_fail(LS_ESHAPE, "%ld heads are not a multiple of %ld key/value heads", (long)s->h,
                       (long)s->h_kv);
    if (s->d < 1 || s->d > LS_MAX_HEAD_DIM)
        return ls_fail(LS_ESHAPE, "head dim is %ld, must be 1 to %d", (long)s->d, LS_MAX_HEAD_DIM);
    if (s->d_v < 0 || s->d_v > LS_MAX_HEAD_DIM)
        return ls_fail(LS_ESHAPE, "head dim of v is %ld, must be 1 to %d", (long)s->d_v,
                       LS_MAX_HEAD_DIM);
    if (s->s_q < 0 || s->s_k < 0)
        return ls_fail(LS_ESHAPE, "sequence lengths %ld and %ld: neither may be negative",
                       (long)s->s_q, (long)s->s_k);
    return LS_OK;
}

/* Every count that follows from the shape, of bytes, tiles and bytes sent, stays below 2^62. */
static ls_status check_size(const struct ls_attention_shape *s, int p)
{
    const double rows = (double)(s->s_q > s->s_k ? s->s_q : s->s_k) + LS_LEAF;
    const double row = (double)(s->d + ls_value_dim(s) + 128) * 8;
    const double bytes = (double)s->b * (double)s->h * rows * row * p;
    const double tiles = (double)s->b * (double)s->h * (rows / LS_LEAF) * (rows / LS_LEAF);

    if (bytes >= 0x1p62 || tiles >= 0x1p62)
        return ls_fail(LS_ESHAPE,
                       "batch %ld x heads %ld x sequence %.0f x head dim %ld is beyond any machine",
                       (long)s->b, (long)s->h, rows - LS_LEAF, (long)s->d);
    return LS_OK;
}

static ls_status check_options(const struct ls_attention_shape *s,
                               const struct ls_attention_options *o)
{
    if (s->type != LS_F32 && s->type != LS_BF16 && s->type != LS_F16)
        return ls_fail(LS_ETYPE, "attention of type %s: must be f32, bf16 or f16",
                       ls_dtype_name(s->type));
    if (ls_keys_are_quantized(s) && !ls_dtype_is_of_8_bits(s->kv_type))
        return ls_fail(LS_ETYPE, "keys and values of type %s: must be i8, e4m3 or that of queries",
                       ls_dtype_name(s->kv_type));
    if (ls_keys_are_quantized(s) && o->backward)
        return ls_fail(LS_EVALUE,
                       "keys and values of type %s are for forward alone, options.backward is set",
                       ls_dtype_name(s->kv_type));
    if ((unsigned)o->layout > LS_LAYOUT_BALANCED)
        return ls_fail(LS_EVALUE, "layout is %d, which names none", (int)o->layout);
    if (o->has_rows && (o->q_rows < 0 || o->q_rows > s->s_q || o->k_rows < 0 || o->k_rows > s->s_k))
        return ls_fail(LS_ESHAPE,
                       "this rank's own rows are %ld queries and %ld keys, the sequences have %ld "
                       "and %ld",
                       (long)o->q_rows, (long)o->k_rows, (long)s->s_q, (long)s->s_k);
    if (o->node_size < 0)
        return ls_fail(LS_EVALUE, "node size is %d, must not be negative", o->node_size);
    return LS_OK;
}

static ls_status read_masks(struct ls_problem *problem, const struct ls_attention_options *o)
{
    problem->masks = ls_options_masks(&problem->shape, o);
    const int64_t count = ls_masks_count(&problem->masks);

    problem->rules = calloc((size_t)count, sizeof *problem->rules);
    if (!problem->rules) return ls_fail(LS_ENOMEM, "%lld masks: out of memory", (long long)count);
    LS_TRY(ls_options_mask(problem->rules, &problem->shape, o));
    return ls_mask_set_make(&problem->masks, &problem->mask_set, problem->rules);
}

/* Leaves of queries by the tiles that they are, which leaves of keys follow where they are the same
 * positions; else keys are dealt evenly. */
static ls_status deal(struct ls_problem *problem)
{
    const int64_t q_leaves = ls_layout_leaves(&problem->q_layout);
    const int64_t k_leaves = ls_layout_leaves(&problem->k_layout);
    const bool alike = problem->shape.s_q == problem->shape.s_k && problem->rules->shift == 0;
    int64_t *work = malloc((size_t)(q_leaves + k_leaves + 1) * sizeof *work);
    ls_status status;

    if (!work) return ls_fail(LS_ENOMEM, "balanced layout: out of memory");
    ls_leaf_work(work, q_leaves, &problem->masks);
    for (int64_t i = 0; i < k_leaves; i++) work[q_leaves + i] = 1;
    status = ls_dealing_create(&problem->dealing[0], work, q_leaves, problem->p);
    if (status == LS_OK && !alike)
        status = ls_dealing_create(&problem->dealing[1], work + q_leaves, k_leaves, problem->p);
    problem->q_layout.dealing = problem->dealing[0];
    problem->k_layout.dealing = problem->dealing[alike ? 0 : 1];
    free(work);
    return status;
}

/* The most even one whose rows kv heads can be dealt to; of two the one with longer rows. */
static void choose_grid(struct ls_problem *problem)
{
    const int p = problem->p;

    problem->grid_heads = 1;
    for (int u = 2; u <= p; u++)
        if (p % u == 0 && problem->shape.h_kv % u == 0 &&
            abs(u - p / u) <= abs(problem->grid_heads - p / problem->grid_heads))
            problem->grid_heads = u;
    problem->grid_ring = p / problem->grid_heads;
}

static ls_status take_grid(struct ls_problem *problem, const struct ls_attention_options *o)
{
    const int64_t places = (int64_t)o->grid_heads * o->grid_ring;

    problem->ring_inside = o->ring_inside;
    if (o->grid_heads == 0 && o->grid_ring == 0) {
        choose_grid(problem);
        return LS_OK;
    }
    if (o->grid_heads < 0 || places != problem->p)
        return ls_fail(LS_EVALUE, "grid of %dx%d: the product must be the number of ranks, %d",
                       o->grid_heads, o->grid_ring, problem->p);
    problem->grid_heads = o->grid_heads;
    problem->grid_ring = o->grid_ring;
    return LS_OK;
}

static ls_status take_device(struct ls_problem *problem, const struct ls_attention_options *o)
{
    problem->device = o->device;
    if (o->device) return LS_OK;
    LS_TRY(ls_device_open(&problem->device, "cpu", 0, o->threads));
    problem->opened = true;
    return LS_OK;
}

static ls_status take_options(struct ls_problem *problem, const struct ls_attention_options *o,
                              ls_layout_choice choice)
{
    const struct ls_attention_shape *shape = &problem->shape;
    ls_layout_kind kind = o->layout;

    LS_TRY(take_grid(problem, o));
    LS_TRY(read_masks(problem, o));
    LS_TRY(ls_options_scores(&problem->scores, shape, o));
    problem->group = ls_options_group(shape, o);
    LS_TRY(take_device(problem, o));
    if (problem->layout_chosen) kind = choice ? choice(problem) : LS_LAYOUT_CONTIGUOUS;
    problem->q_layout = (struct ls_layout){.kind = kind, .s = shape->s_q, .p = problem->p};
    problem->k_layout = (struct ls_layout){.kind = kind, .s = shape->s_k, .p = problem->p};
    return kind == LS_LAYOUT_BALANCED ? deal(problem) : LS_OK;
}

ls_status ls_problem_init(struct ls_problem *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options, int p,
                          ls_layout_choice choice)
{
    LS_TRY(check_counts(shape));
    LS_TRY(check_size(shape, p));
    LS_TRY(check_options(shape, options));

    struct ls_problem problem = {
        .shape = *shape,
        .p = p,
        .strict = options->strict,
        .ends_meet = !options->has_query_offset && !options->align_start,
        .own_rows = options->has_rows,
        .node_size = options->node_size ? options->node_size : p == 1,
        .backward = options->backward,
        .layout_chosen = options->layout == LS_LAYOUT_AUTO,
    };
    const ls_status status = take_options(&problem, options, choice);
    if (status == LS_OK)
        *out = problem;
    else
        ls_problem_fini(&problem);
    return status;
}

void ls_problem_fini(struct ls_problem *problem)
{
    if (problem->opened) ls_device_close(problem->device);
    for (int i = 0; i < 2; i++) ls_dealing_destroy(problem->dealing[i]);
    ls_mask_set_free(&problem->mask_set);
    free(problem->rules);
}

struct ls_kernel_shape ls_problem_kernel_shape(const struct ls_problem *problem, int64_t k_leaves)
{
    return (struct ls_kernel_shape){.global = problem->shape,
                                    .masks = problem->masks,
                                    .scores = problem->scores,
                                    .k_leaves = k_leaves,
                                    .few_rows = problem->group * problem->shape.s_q <= LS_FEW_ROWS,
                                    .own_maximum = problem->backward,
                                    .strict = problem->strict};
}

static struct ls_kernel_shape part_kernel_shape(const struct ls_problem *problem)
{
    return ls_problem_kernel_shape(problem, ls_layout_most_leaves(&problem->k_layout));
}

ls_status ls_problem_kernel_create(struct ls_attention_kernel **out,
                                   const struct ls_problem *problem)
{
    return ls_attention_kernel_create(out, problem->device, part_kernel_shape(problem));
}

size_t ls_problem_kernel_bytes(const struct ls_problem *problem)
{
    return ls_attention_kernel_bytes(problem->device, part_kernel_shape(problem));
}

struct ls_tensor ls_problem_queries(const struct ls_problem *problem, void *data, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    return ls_tensor_view(data, s->type, 4, (const int64_t[]){s->b, rows, s->h, s->d});
}

struct ls_tensor ls_problem_keys(const struct ls_problem *problem, void *data, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    return ls_tensor_view(data, ls_key_type(s), 4,
                          (const int64_t[]){s->b, rows, s->h_kv, ls_key_width(s)});
}

struct ls_tensor ls_problem_values(const struct ls_problem *problem, void *data, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    return ls_tensor_view(data, ls_key_type(s), 4,
                          (const int64_t[]){s->b, rows, s->h_kv, ls_value_width(s)});
}

struct ls_tensor ls_range_of(const struct ls_tensor *t, int axis, int64_t first, int64_t count)
{
    struct ls_tensor view = *t;

    if (count > 0 && t->dim[1] > 0) /* else there may be no memory */
        view.data = (char *)t->data + first * t->stride[axis] * ls_dtype_size(t->type);
    view.dim[axis] = count;
    return view;
}

ls_status ls_problem_alloc(void **out, const struct ls_problem *problem, ls_tag tag, size_t bytes)
{
    return ls_device_alloc(out, problem->device, tag, bytes);
}

void ls_problem_free(const struct ls_problem *problem, void *memory)
{
    if (memory) ls_device_free(problem->device, memory);
}

void ls_problem_copy(const struct ls_problem *problem, struct ls_tensor *to,
                     const struct ls_tensor *from)
{
    ls_copy(&problem->device->queue, to, from);
}

/* [blocks, floats], a block every stride floats */
static struct ls_tensor blocks_view(float *data, int64_t stride, int64_t blocks, int64_t floats)
{
    struct ls_tensor view = ls_tensor_view(data, LS_F32, 2, (const int64_t[]){blocks, floats});

    view.stride[0] = stride;
    return view;
}

void ls_problem_copy_floats(const struct ls_problem *problem, float *to, int64_t to_stride,
                            const float *from, int64_t from_stride, int64_t blocks, int64_t floats)
{
    struct ls_tensor into = blocks_view(to, to_stride, blocks, floats);
    const struct ls_tensor source = blocks_view((float *)from, from_stride, blocks, floats);

    ls_problem_copy(problem, &into, &source);
}
