/* The materialized core, the paper's baseline: all probabilities of this rank's queries are kept.
 * Context-parallel ranks gather keys and values of all of them, which are not kept: backward
 * gathers them again. Sums over queries of the gradients of keys and values go in f32 to the rank
 * that has these, where they are added in the order that sum_tree.h says, and rounded once. A group
 * of heads, which has one key, is added before that; in strict mode behind it, as one rank does. */
#include <math.h>
#include <stdlib.h>

#include "attention/plan.h"
#include "device/materialized.h"
#include "device/rows.h"
#include "layer/core.h"
#include "layer/sum_tree.h"
#include "plan/attention_size.h"
#include "tensor/dtype.h"

struct ls_layer_materialized {
    struct ls_materialized_kernel *kernel;
    struct ls_sum_tree tree;
    int64_t sent_heads; /* whose sums go to other ranks: of q, or those of k */
    float *dk, *dv;     /* [sums of the tree][b, heads, s, d] of this rank's queries */
    /* where there are other context-parallel ranks; blocks are of one rank each, as large as the
     * largest, and hold its rows: */
    struct ls_batch batch;
    void *blocks; /* [c] of [b, rows, 2 kv heads, d]: keys and values */
    void *keys;   /* the same of all, in the order of positions, [b, s, 2 kv heads, d] */
    float *sums;  /* [b, s, sent heads, d]: one of this rank's */
    float *parts; /* [c] blocks of [b, sent heads, rows, d]: the same */
    float *slots; /* [sums of the tree][c] blocks: what all have of the sums of this rank's keys */
};

/* ---- rows of ranks */

static int64_t rows_of(const struct ls_layer_plan *plan, int rank)
{
    return ls_layout_part_rows(&plan->layout, rank);
}

/* A block of so many heads. */
static int64_t block_elements(const struct ls_layer_plan *plan, int64_t heads)
{
    return plan->shape.b * ls_layout_most_rows(&plan->layout) * heads * plan->shape.d;
}

static int64_t key_elements(const struct ls_layer_plan *plan)
{
    return block_elements(plan, 2 * plan->kv_heads);
}

static size_t element(const struct ls_layer_plan *plan)
{
    return (size_t)ls_dtype_size(plan->shape.type);
}

/* Keys and values of a rank in its block. */
static struct ls_tensor keys_in_block(const struct ls_layer_plan *plan, int rank)
{
    const struct ls_layer_shape *s = &plan->shape;
    const int64_t dim[] = {s->b, rows_of(plan, rank), 2 * plan->kv_heads, s->d};
    const size_t at = (size_t)(rank * key_elements(plan)) * element(plan);

    return ls_tensor_view((char *)plan->materialized->blocks + at, s->type, 4, dim);
}

/* Of one of this rank's sums the rows that another one has: [b, rows, sent heads, d] of what lies
 * head by head. */
static struct ls_tensor part_for(const struct ls_layer_plan *plan, int rank)
{
    const struct ls_layer_materialized *m = plan->materialized;
    const struct ls_layer_shape *s = &plan->shape;
    const int64_t rows = rows_of(plan, rank), dim[] = {s->b, rows, m->sent_heads, s->d};
    struct ls_tensor view =
        ls_tensor_view(m->parts + rank * block_elements(plan, m->sent_heads), LS_F32, 4, dim);

    view.stride[0] = m->sent_heads * rows * s->d;
    view.stride[1] = s->d;
    view.stride[2] = rows * s->d;
    return view;
}

/* Between rows of a rank and their places among all, leaf by leaf. */
static void move_rows(struct ls_layer_plan *plan, const struct ls_tensor *all,
                      const struct ls_tensor *part, int rank, bool to_all)
{
    for (int64_t i = 0; i < ls_layout_part_leaves(&plan->layout, rank); i++) {
        const int64_t leaf = ls_layout_part_leaf(&plan->layout, rank, i);
        const int64_t rows = ls_layout_leaf_rows(&plan->layout, leaf);
        struct ls_tensor at = ls_range_of(all, 1, leaf * LS_LEAF, rows);
        struct ls_tensor here = ls_range_of(part, 1, i * LS_LEAF, rows);

        ls_copy(&plan->device->queue, to_all ? &at : &here, to_all ? &here : &at);
    }
}

/* ---- keys and values of all */

static struct ls_tensor heads_of_all(const struct ls_layer_plan *plan, void *data, ls_dtype type,
                                     int64_t heads)
{
    const int64_t dim[] = {plan->shape.b, plan->shape.s, heads, plan->shape.d};

    return ls_tensor_view(data, type, 4, dim);
}

/* *k, *v [b, s, kv heads, d]. */
static ls_status gather_keys(struct ls_tensor *k, struct ls_tensor *v, struct ls_layer_plan *plan,
                             const struct ls_layer_heads *own)
{
    struct ls_layer_materialized *m = plan->materialized;
    const int64_t kv = plan->kv_heads;

    *k = own->k;
    *v = own->v;
    if (plan->grid.c == 1) return LS_OK;
    struct ls_tensor block = keys_in_block(plan, plan->grid.context);
    struct ls_tensor halves[] = {ls_range_of(&block, 2, 0, kv), ls_range_of(&block, 2, kv, kv)};
    const struct ls_tensor all = heads_of_all(plan, m->keys, plan->shape.type, 2 * kv);

    ls_copy(&plan->device->queue, &halves[0], &own->k);
    ls_copy(&plan->device->queue, &halves[1], &own->v);
    ls_batch_all_gather(&m->batch, m->blocks, (size_t)key_elements(plan) * element(plan));
    LS_TRY(ls_batch_run(&m->batch));
    for (int r = 0; r < plan->grid.c; r++) {
        block = keys_in_block(plan, r);
        move_rows(plan, &all, &block, r, true);
    }
    *k = ls_range_of(&all, 2, 0, kv);
    *v = ls_range_of(&all, 2, kv, kv);
    return LS_OK;
}

/* ---- gradients of keys and values */

/* One dk or dv, of all heads. */
static int64_t gradient_elements(const struct ls_layer_plan *plan)
{
    return plan->shape.b * plan->heads * plan->shape.s * plan->shape.d;
}

/* *out [b, sent heads, rows, d]: gradients of this rank's keys, of what all have; `own` is this
 * one's dk or dv. */
static ls_status sum_over_ranks(float **out, struct ls_layer_plan *plan, const float *own)
{
    struct ls_layer_materialized *m = plan->materialized;
    struct ls_queue *queue = &plan->device->queue;
    const int64_t n = block_elements(plan, m->sent_heads);
    struct ls_tensor sums = heads_of_all(plan, m->sums, LS_F32, m->sent_heads);

    for (int64_t i = 0; i < m->tree.sums; i++, own += gradient_elements(plan)) {
        ls_round_sums(queue, &sums, own, NULL, plan->heads / m->sent_heads);
        for (int r = 0; r < plan->grid.c; r++) {
            const struct ls_tensor part = part_for(plan, r);

            move_rows(plan, &sums, &part, r, false);
        }
        ls_batch_all_to_all(&m->batch, m->slots + i * plan->grid.c * n, m->parts,
                            (size_t)n * sizeof(float));
        LS_TRY(ls_batch_run(&m->batch));
    }
    *out = ls_sum_tree_add(&m->tree, queue, m->slots, n);
    return LS_OK;
}

/* out: gradients of this rank's keys and values. */
static ls_status sum_gradients(const struct ls_layer_heads *out, struct ls_layer_plan *plan)
{
    struct ls_layer_materialized *m = plan->materialized;
    struct ls_tensor to[] = {out->k, out->v};
    float *const own[] = {m->dk, m->dv};

    for (int i = 0; i < 2; i++) {
        float *whole = own[i];

        if (plan->grid.c > 1) LS_TRY(sum_over_ranks(&whole, plan, own[i]));
        ls_round_sums(&plan->device->queue, &to[i], whole, NULL, m->sent_heads / plan->kv_heads);
    }
    return LS_OK;
}

/* ---- executions */

static struct ls_probabilities probabilities_of(const struct ls_layer_state *state)
{
    return (struct ls_probabilities){.softmax = ls_layer_kept(state, LS_KEPT_SOFTMAX).data,
                                     .mask = ls_layer_kept(state, LS_KEPT_SOFTMAX_MASK).data,
                                     .dropped = ls_layer_kept(state, LS_KEPT_DROPPED).data};
}

static ls_status forward(const struct ls_layer_pass *p)
{
    struct ls_layer_plan *plan = p->plan;
    const struct ls_tensor qkv = ls_layer_kept(p->state, LS_KEPT_QKV);
    const struct ls_tensor all = ls_layer_kept(p->state, LS_KEPT_ATTENTION);
    const struct ls_layer_heads own = ls_layer_heads_of(plan, &qkv);
    struct ls_tensor o = ls_layer_output_heads(plan, &all), k, v;

    LS_TRY(gather_keys(&k, &v, plan, &own));
    ls_materialized_forward(
        &plan->device->queue, plan->materialized->kernel,
        &(struct ls_materialized_forward){.o = p->makes[LS_KEPT_ATTENTION] ? &o : NULL,
                                          .kept = probabilities_of(p->state),
                                          .q = &own.q,
                                          .k = &k,
                                          .v = &v,
                                          .runs = &plan->inner_runs,
                                          .seed = p->state->seed});
    return LS_OK;
}

static ls_status backward(const struct ls_tensor *dqkv, struct ls_layer_plan *plan,
                          const struct ls_layer_state *state, const struct ls_tensor *d_o)
{
    struct ls_layer_materialized *m = plan->materialized;
    const struct ls_tensor qkv = ls_layer_kept(state, LS_KEPT_QKV);
    const struct ls_layer_heads own = ls_layer_heads_of(plan, &qkv);
    struct ls_layer_heads out = ls_layer_heads_of(plan, dqkv);
    const struct ls_tensor d_heads = ls_layer_output_heads(plan, d_o);
    struct ls_tensor k, v;

    LS_TRY(gather_keys(&k, &v, plan, &own));
    ls_materialized_backward(&plan->device->queue, m->kernel,
                             &(struct ls_materialized_backward){.dq = &out.q,
                                                                .dk = m->dk,
                                                                .dv = m->dv,
                                                                .first = m->tree.first,
                                                                .sums = m->tree.sums,
                                                                .kept = probabilities_of(state),
                                                                .q = &own.q,
                                                                .k = &k,
                                                                .v = &v,
                                                                .d_o = &d_heads,
                                                                .runs = &plan->inner_runs});
    return sum_gradients(&out, plan);
}

/* ---- making it */

static ls_status check(const struct ls_layer_plan *plan)
{
    const struct ls_layer_shape *s = &plan->shape;
    const struct ls_layer_options *o = &plan->options;

    if (o->method)
        return ls_fail(LS_EVALUE, "method %s is for a fused core: a materialized one has none",
                       o->method);
    if (o->layout == LS_LAYOUT_BALANCED)
        return ls_fail(LS_EVALUE, "layout balanced is for a fused core: all rows of a materialized "
                                  "one are of the same work, choose another");
    if ((unsigned)o->layout > LS_LAYOUT_BALANCED)
        return ls_fail(LS_EVALUE, "layout is %d, which names none", (int)o->layout);
    if (s->d < 1 || s->d > LS_MAX_HEAD_DIM)
        return ls_fail(LS_ESHAPE, "head dim is %lld, must be 1 to %d", (long long)s->d,
                       LS_MAX_HEAD_DIM);
    if ((double)s->b * (double)plan->heads * (double)s->s * (double)s->s > 0x1p60)
        return ls_fail(LS_ESHAPE, "%lld x %lld x %lld x %lld probabilities are too many",
                       (long long)s->b, (long long)plan->heads, (long long)s->s, (long long)s->s);
    return LS_OK;
}

static struct ls_layout layout_of(const struct ls_layer_plan *plan)
{
    const struct ls_layer_options *o = &plan->options;
    struct ls_layout layout = {.kind = o->layout, .s = plan->shape.s, .p = plan->grid.c};

    if (layout.kind == LS_LAYOUT_AUTO) layout.kind = ls_layout_for_rings(o->causal, layout.p);
    return layout;
}

static ls_status create_kernel(struct ls_layer_plan *plan)
{
    const struct ls_layer_shape *s = &plan->shape;
    const struct ls_materialized_shape shape = {
        .type = s->type,
        .b = s->b,
        .h = plan->heads,
        .h_kv = plan->kv_heads,
        .d = s->d,
        .rows = rows_of(plan, plan->grid.context),
        .s = s->s,
        .causal = plan->options.causal,
        .backward = true,
        .scale = (float)(1 / sqrt((double)s->d)),
        .dropout = plan->options.dropout,
        .heads = s->h,
        .first_head = plan->grid.tensor * plan->heads,
    };

    return ls_materialized_kernel_create(&plan->materialized->kernel, plan->device, &shape);
}

static ls_status alloc_floats(float **out, const struct ls_layer_plan *plan, ls_tag tag, int64_t n)
{
    void *memory;

    LS_TRY(ls_device_alloc(&memory, plan->device, tag, (size_t)n * sizeof **out));
    *out = memory;
    return LS_OK;
}

/* What no rank's rows reach is sent and added, too. */
static ls_status create_exchange(struct ls_layer_plan *plan)
{
    struct ls_layer_materialized *m = plan->materialized;
    const struct ls_transport context =
        ls_transport_on(plan->device, plan->grid.context_ranks, &plan->traffic);
    const int64_t c = plan->grid.c, block = block_elements(plan, m->sent_heads);
    const int64_t rows = plan->shape.b * plan->shape.s * plan->shape.d;
    const int64_t keys[] = {c * key_elements(plan)}, parts[] = {c * block};

    LS_TRY(ls_batch_init_collective(&m->batch, &context));
    LS_TRY(ls_device_alloc(&m->blocks, plan->device, LS_TAG_COMM, (size_t)keys[0] * element(plan)));
    LS_TRY(ls_device_alloc(&m->keys, plan->device, LS_TAG_WORKSPACE,
                           (size_t)(2 * plan->kv_heads * rows) * element(plan)));
    LS_TRY(alloc_floats(&m->sums, plan, LS_TAG_WORKSPACE, m->sent_heads * rows));
    LS_TRY(alloc_floats(&m->parts, plan, LS_TAG_COMM, parts[0]));
    LS_TRY(alloc_floats(&m->slots, plan, LS_TAG_COMM, m->tree.sums * parts[0]));
    struct ls_tensor blocks = ls_tensor_view(m->blocks, plan->shape.type, 1, keys);
    struct ls_tensor sums = ls_tensor_view(m->parts, LS_F32, 1, parts);
    ls_zero(&plan->device->queue, &blocks);
    ls_zero(&plan->device->queue, &sums);
    return ls_queue_finish(NULL, &plan->device->queue);
}

/* Which sums this rank has, and memory for them. */
static ls_status create_sums(struct ls_layer_plan *plan)
{
    struct ls_layer_materialized *m = plan->materialized;
    const bool strict = plan->options.strict;

    LS_TRY(ls_sum_tree_init(&m->tree, &plan->layout, 1, plan->grid.context, strict));
    m->sent_heads = strict || plan->grid.c == 1 ? plan->heads : plan->kv_heads;
    plan->key_sums = m->tree.sums * m->sent_heads;
    const int64_t n = m->tree.sums * gradient_elements(plan);
    LS_TRY(alloc_floats(&m->dk, plan, LS_TAG_GRADIENT, n));
    return alloc_floats(&m->dv, plan, LS_TAG_GRADIENT, n);
}

static ls_status create(struct ls_layer_plan *plan)
{
    LS_TRY(check(plan)); /* alike on all ranks */
    ls_fingerprint_of_device(plan->fingerprint, plan->device);
    if (plan->options.strict)
        LS_TRY(ls_fingerprint_agree(plan->grid.context_ranks, plan->fingerprint));
    plan->layout = layout_of(plan);
    plan->materialized = calloc(1, sizeof *plan->materialized);
    if (!plan->materialized) return ls_fail(LS_ENOMEM, "layer: out of memory");
    LS_TRY(create_kernel(plan));
    LS_TRY(create_sums(plan));
    return plan->grid.c > 1 ? create_exchange(plan) : LS_OK;
}

static void destroy(struct ls_layer_plan *plan)
{
    struct ls_layer_materialized *m = plan->materialized;

    if (!m) return;
    void *const memory[] = {m->slots, m->parts, m->sums, m->keys, m->blocks, m->dv, m->dk};

    ls_batch_fini(&m->batch);
    for (int i = 0; i < 7; i++) ls_device_free(plan->device, memory[i]);
    ls_sum_tree_fini(&m->tree);
    ls_materialized_kernel_destroy(plan->device, m->kernel);
    free(m);
}

const struct ls_layer_core ls_layer_core_materialized = {
    .create = create, .destroy = destroy, .forward = forward, .backward = backward};
