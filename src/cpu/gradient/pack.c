/* Leaves of tensors brought into the gradient products' type and order. */
#include <math.h>
#include <string.h>

#include "cpu/gradient/gradient.h"
#include "cpu/gradient/pair.h"
#include "tensor/dtype.h"

static size_t row_bytes(const struct ls_gradient_kernel *kernel)
{
    return (size_t)kernel->d_pad * (size_t)ls_dtype_size(kernel->products->type);
}

void cpu_gather_gradient_leaf(char *raw, const struct ls_gradient_kernel *kernel,
                              const struct ls_tensor *from, const struct ls_leaf *leaf, int64_t s,
                              int64_t batch, int64_t head)
{
    const size_t padded = row_bytes(kernel), size = (size_t)ls_dtype_size(kernel->products->type);
    const size_t used = (size_t)kernel->shape.attention.global.d * size;
    const int rows = leaf_rows(leaf->number, s);

    for (int r = 0; r < rows; r++, raw += padded) {
        ls_dtype_convert(raw, kernel->products->type, element(from, batch, leaf->row + r, head),
                         from->type, kernel->shape.attention.global.d);
        memset(raw + used, 0, padded - used);
    }
    memset(raw, 0, (size_t)(LS_LEAF - rows) * padded);
}

static bool is_finite(const struct ls_gradient_kernel *kernel, const char *raw)
{
    return ls_dtype_find_nonfinite(raw, kernel->products->type,
                                   (int64_t)2 * LS_LEAF * kernel->d_pad) < 0;
}

ls_status cpu_pack_gradient_keys(struct gradient_job *job, struct gradient_worker *w, int64_t slot)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_gradient_call *call = job->call;
    const struct ls_attention_shape *s = &kernel->shape.attention.global;
    const int64_t pair = job->first / kernel->group + slot / call->k_leaves.count;
    const struct ls_leaf *leaf = &call->k_leaves.leaf[slot % call->k_leaves.count];
    char *v = w->raw + LS_LEAF * row_bytes(kernel);

    cpu_gather_gradient_leaf(w->raw, kernel, call->k, leaf, s->s_k, pair / s->h_kv, pair % s->h_kv);
    cpu_gather_gradient_leaf(v, kernel, call->v, leaf, s->s_k, pair / s->h_kv, pair % s->h_kv);
    kernel->keys.clean[slot] = is_finite(kernel, w->raw);
    return kernel->products->pack_keys(kernel->keys.leaf + (size_t)slot * kernel->keys_bytes,
                                       w->own, w->raw, v);
}

/* A row that sees no key takes part as one that is not there, as does one behind the last query,
 * which is the leaf's row `end`. */
static void place_rows(struct gradient_queries *out, const struct gradient_job *job,
                       struct gradient_worker *w, int64_t first, int rows, int64_t end)
{
    const size_t row = row_bytes(job->kernel);

    for (int r = 0; r < LS_LEAF; r++) {
        const bool present = r < rows && r < end && job->call->lse[first + r] != -INFINITY;

        out->lse[r] = present ? job->call->lse[first + r] * LOG2E : INFINITY;
        out->delta[r] = present ? job->call->delta[first + r] : 0;
        if (present || r >= rows) continue;
        memset(w->raw + (size_t)r * row, 0, row);
        memset(w->raw + (size_t)(LS_LEAF + r) * row, 0, row);
    }
}

static void start_dq(struct gradient_queries *out, const struct gradient_job *job, int64_t first,
                     int rows, int64_t q_leaf)
{
    const int64_t d = job->kernel->shape.attention.global.d;

    sum_forest_start(&out->dq, rows, (int)d);
    out->dq.node[0] = (struct sums){job->call->dq + first * d, d};
    out->turn = gradient_next_chunk(job, q_leaf, 0);
    if (out->turn == gradient_chunks(job)) cpu_sums_clear(out->dq.node[0], rows, (int)d);
}

/* One wave must have them all. */
bool cpu_gradient_queries_are_packed(const struct gradient_job *job)
{
    const struct ls_attention_shape *s = &job->kernel->shape.attention.global;

    return job->call->same_queries && job->heads == s->b * s->h;
}

ls_status cpu_pack_gradient_queries(struct gradient_job *job, struct gradient_worker *w,
                                    int64_t slot)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_gradient_call *call = job->call;
    const struct ls_attention_shape *s = &kernel->shape.attention.global;
    const int64_t head = job->first + slot / call->q_leaves.count;
    const int64_t q_leaf = slot % call->q_leaves.count;
    const struct ls_leaf *leaf = &call->q_leaves.leaf[q_leaf];
    const int rows = leaf_rows(leaf->number, s->s_q);
    const int64_t first = head * call->q->dim[1] + leaf->row;
    char *d_o = w->raw + LS_LEAF * row_bytes(kernel);

    start_dq(&kernel->queries[slot], job, first, rows, q_leaf);
    if (cpu_gradient_queries_are_packed(job)) return LS_OK;
    cpu_gather_gradient_leaf(w->raw, kernel, call->q, leaf, s->s_q, head / s->h, head % s->h);
    cpu_gather_gradient_leaf(d_o, kernel, call->d_o, leaf, s->s_q, head / s->h, head % s->h);
    place_rows(&kernel->queries[slot], job, w, first, rows,
               kernel->shape.attention.mask.s_q - leaf->number * LS_LEAF);
    kernel->packed.clean[slot] = is_finite(kernel, w->raw);
    return kernel->products->pack_queries(
        kernel->packed.leaf + (size_t)slot * kernel->queries_bytes, w->own, w->raw, d_o);
}
