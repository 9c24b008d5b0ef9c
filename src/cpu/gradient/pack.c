/* Leaves of tensors brought into the gradient products' type and order. */
#include <math.h>
#include <string.h>

#include "cpu/gradient/gradient.h"
#include "cpu/gradient/pair.h"
#include "cpu/prefetch.h"
#include "tensor/dtype.h"

/* Returns the end of raw. */
static char *gather_rows(char *raw, size_t padded, ls_dtype type, const struct ls_tensor *from,
                         const struct ls_leaf *leaf, int rows, int64_t batch, int64_t head)
{
    const int64_t d = from->dim[3];
    const size_t used = (size_t)d * (size_t)ls_dtype_size(type);
    const size_t unused = (size_t)(LS_LEAF - rows) * padded;

    for (int r = 0; r < rows; r++, raw += padded) {
        const char *row = element(from, batch, leaf->row + r, head);

        prefetch_row_to_read(from, row);
        ls_dtype_convert(raw, type, row, from->type, d);
        memset(raw + used, 0, padded - used);
    }
    memset(raw, 0, unused);
    return raw + unused;
}

char *cpu_gather_gradient_leaf(struct gradient_worker *w, const struct ls_gradient_kernel *kernel,
                               const struct ls_tensor *first, const struct ls_tensor *second,
                               const struct ls_leaf *leaf, int64_t s, int64_t batch, int64_t head)
{
    const ls_dtype type = kernel->products->type;
    const int rows = leaf_rows(leaf->number, s);
    char *end = gather_rows(w->raw, gradient_row_bytes(kernel, kernel->pad.d), type, first, leaf,
                            rows, batch, head);

    gather_rows(end, gradient_row_bytes(kernel, kernel->pad.d_v), type, second, leaf, rows, batch,
                head);
    return end;
}

static bool is_finite(const struct ls_gradient_kernel *kernel, const char *raw)
{
    const int64_t elements = (int64_t)LS_LEAF * (kernel->pad.d + kernel->pad.d_v);

    return ls_dtype_find_nonfinite(raw, kernel->products->type, elements) < 0;
}

ls_status cpu_pack_gradient_keys(struct gradient_job *job, struct gradient_worker *w, int64_t i)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_gradient_call *call = job->call;
    const struct ls_attention_shape *s = &kernel->shape.attention.global;
    const int64_t pair = job->first / kernel->group + i / call->k_leaves.count;
    const int64_t k_leaf = i % call->k_leaves.count;
    const int64_t slot = keys_slot(job, pair * kernel->group, k_leaf);
    const struct ls_leaf *leaf = &call->k_leaves.leaf[k_leaf];
    const char *v = cpu_gather_gradient_leaf(w, kernel, call->k, call->v, leaf, s->s_k,
                                             pair / s->h_kv, pair % s->h_kv);

    kernel->keys.clean[slot] = is_finite(kernel, w->raw);
    return kernel->products->pack_keys(kernel->keys.leaf + (size_t)slot * kernel->keys_bytes,
                                       w->own, w->raw, v);
}

/* A row that sees no key takes part as one that is not there. */
static void place_rows(struct gradient_queries *out, const struct gradient_job *job,
                       struct gradient_worker *w, char *d_o, int64_t first, int rows,
                       const struct ls_mask *mask, int64_t position)
{
    const size_t q_row = gradient_row_bytes(job->kernel, job->kernel->pad.d);
    const size_t d_o_row = gradient_row_bytes(job->kernel, job->kernel->pad.d_v);

    for (int r = 0; r < LS_LEAF; r++) {
        const bool present =
            r < rows && ls_mask_has(mask, position + r) && job->call->lse[first + r] != -INFINITY;

        out->lse[r] = present ? job->call->lse[first + r] * LOG2E : INFINITY;
        out->delta[r] = present ? job->call->delta[first + r] : 0;
        if (present || r >= rows) continue;
        memset(w->raw + (size_t)r * q_row, 0, q_row);
        memset(d_o + (size_t)r * d_o_row, 0, d_o_row);
    }
}

static void start_dq(struct gradient_queries *out, const struct gradient_job *job, int64_t head,
                     int64_t first, int rows, int64_t q_leaf)
{
    const int64_t d = job->kernel->shape.attention.global.d;

    sum_forest_start(&out->dq, rows, (int)d);
    out->dq.node[0] = (struct sums){job->call->dq + first * d, d};
    out->turn = gradient_next_chunk(job, head, q_leaf, 0);
    if (out->turn < gradient_chunks(job)) return;
    cpu_sums_clear(out->dq.node[0], rows, (int)d);
    gradient_finish_dq(job, head, q_leaf, out->dq.node[0]);
}

/* One wave must have them all. */
bool cpu_gradient_queries_are_packed(const struct gradient_job *job)
{
    const struct ls_attention_shape *s = &job->kernel->shape.attention.global;

    return job->call->same_queries && job->heads == s->b * s->h;
}

ls_status cpu_pack_gradient_queries(struct gradient_job *job, struct gradient_worker *w, int64_t i)
{
    const struct ls_gradient_kernel *kernel = job->kernel;
    const struct ls_gradient_call *call = job->call;
    const struct ls_attention_shape *s = &kernel->shape.attention.global;
    const int64_t head = job->first + i / call->q_leaves.count;
    const int64_t q_leaf = i % call->q_leaves.count, slot = queries_slot(job, head, q_leaf);
    const struct ls_leaf *leaf = &call->q_leaves.leaf[q_leaf];
    const int rows = leaf_rows(leaf->number, s->s_q);
    const int64_t first = head * call->q->dim[1] + leaf->row;

    start_dq(&kernel->queries[slot], job, head, first, rows, q_leaf);
    if (cpu_gradient_queries_are_packed(job)) return LS_OK;
    char *d_o = cpu_gather_gradient_leaf(w, kernel, call->q, call->d_o, leaf, s->s_q, head / s->h,
                                         head % s->h);

    place_rows(&kernel->queries[slot], job, w, d_o, first, rows, gradient_mask(kernel, head),
               leaf->number * LS_LEAF);
    kernel->packed.clean[slot] = is_finite(kernel, w->raw);
    return kernel->products->pack_queries(
        kernel->packed.leaf + (size_t)slot * kernel->queries_bytes, w->own, w->raw, d_o);
}
