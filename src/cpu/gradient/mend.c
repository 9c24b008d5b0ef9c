/* A tile in which some pairs are not seen and some rows hold NaN or infinity. A pair that is not
 * seen counts as 0, but 0 times such a number is not 0: the products get the tile without those
 * rows, and what these take part in is added pair by pair. Bits of other rows stay as they are. */
#include <math.h>
#include <string.h>

#include "cpu/gradient/gradient.h"
#include "cpu/gradient/pair.h"
#include "longspan/attention.h"
#include "tensor/dtype.h"

/* Two tensors' leaves of one head, and which of their rows are left out. */
struct rows {
    const struct ls_tensor *first, *second;
    const struct ls_leaf *leaf;
    int64_t batch, head;
    bool odd[LS_LEAF];
};

struct mend {
    const struct ls_gradient_kernel *kernel;
    const struct gradient_tile *tile;
    struct rows keys, queries;
    float *dq, *dk, *dv; /* of the tile */
};

static bool is_finite(const struct ls_tensor *t, const struct rows *rows, int r)
{
    return ls_dtype_find_nonfinite(element(t, rows->batch, rows->leaf->row + r, rows->head),
                                   t->type, t->dim[3]) < 0;
}

static void load(float *out, const struct ls_tensor *t, const struct rows *rows, int r)
{
    ls_dtype_convert(out, LS_F32, element(t, rows->batch, rows->leaf->row + r, rows->head), t->type,
                     t->dim[3]);
}

/* Both leaves in w->raw, zero where a row is odd; returns where the second begins. */
static char *gather_rest(struct gradient_worker *w, const struct ls_gradient_kernel *kernel,
                         const struct rows *rows, int64_t s, int count)
{
    const size_t row = gradient_row_bytes(kernel, kernel->pad.d);
    const size_t second_row = gradient_row_bytes(kernel, kernel->pad.d_v);
    char *second = cpu_gather_gradient_leaf(w, kernel, rows->first, rows->second, rows->leaf, s,
                                            rows->batch, rows->head);

    for (int r = 0; r < count; r++) {
        if (!rows->odd[r]) continue;
        memset(w->raw + (size_t)r * row, 0, row);
        memset(second + (size_t)r * second_row, 0, second_row);
    }
    return second;
}

/* Packs both leaves again, zero where a row is odd. */
static ls_status pack_rest(const struct mend *mend, struct gradient_worker *w)
{
    const struct ls_gradient_kernel *kernel = mend->kernel;
    const struct ls_attention_shape *s = &kernel->shape.attention.global;
    const char *v = gather_rest(w, kernel, &mend->keys, s->s_k, mend->tile->key_count);

    LS_TRY(kernel->products->pack_keys(w->mended_keys, w->own, w->raw, v));
    const char *d_o = gather_rest(w, kernel, &mend->queries, s->s_q, mend->tile->rows);

    return kernel->products->pack_queries(w->mended_queries, w->own, w->raw, d_o);
}

static void find_odd_rows(struct mend *mend)
{
    for (int j = 0; j < mend->tile->key_count; j++)
        mend->keys.odd[j] = !is_finite(mend->keys.first, &mend->keys, j) ||
                            !is_finite(mend->keys.second, &mend->keys, j);
    for (int i = 0; i < mend->tile->rows; i++)
        mend->queries.odd[i] = mend->tile->lse[i] == INFINITY ||
                               !is_finite(mend->queries.first, &mend->queries, i) ||
                               !is_finite(mend->queries.second, &mend->queries, i);
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;

    for (int64_t e = 0; e < n; e++) sum += a[e] * b[e];
    return sum;
}

/* The gradients of one pair, added. */
static void add_pair(const struct mend *mend, int i, int j)
{
    const struct gradient_tile *tile = mend->tile;
    const struct ls_attention_shape *s = &mend->kernel->shape.attention.global;
    const struct head_dims pad = mend->kernel->pad;
    const int64_t d = s->d, d_v = ls_value_dim(s);
    float q[LS_MAX_HEAD_DIM], d_o[LS_MAX_HEAD_DIM], k[LS_MAX_HEAD_DIM], v[LS_MAX_HEAD_DIM];

    load(q, mend->queries.first, &mend->queries, i);
    load(d_o, mend->queries.second, &mend->queries, i);
    load(k, mend->keys.first, &mend->keys, j);
    load(v, mend->keys.second, &mend->keys, j);
    const int64_t distance = gradient_tile_distance(tile, i, j);
    const struct gradient_pair pair = gradient_of_pair(
        dot(q, k, d), dot(d_o, v, d_v), tile->lse[i], tile->delta[i], tile->scores, tile->scale,
        gradient_tile_bias(tile, i, j), gradient_tile_keeps(tile, i, j));

    gradient_tile_note(tile, distance, pair.dlogit);

    for (int64_t e = 0; e < d; e++) {
        mend->dq[i * pad.d + e] += pair.ds * k[e];
        mend->dk[j * pad.d + e] += pair.ds * q[e];
    }
    for (int64_t e = 0; e < d_v; e++) mend->dv[j * pad.d_v + e] += pair.p * d_o[e];
}

/* A row that sees no key at all takes part in nothing. */
static void add_odd_pairs(const struct mend *mend)
{
    const struct gradient_tile *tile = mend->tile;

    for (int i = 0; i < tile->rows; i++) {
        if (tile->lse[i] == INFINITY) continue;
        for (int j = 0; j < tile->key_count; j++)
            if (gradient_tile_sees(tile, i, j) && (mend->queries.odd[i] || mend->keys.odd[j]))
                add_pair(mend, i, j);
    }
}

/* Rows of odd keys and queries start from nothing: zeroes have taken part in their place. */
static void clear_odd_rows(const struct mend *mend)
{
    const struct head_dims pad = mend->kernel->pad;
    const size_t row = (size_t)pad.d * sizeof(float), dv_row = (size_t)pad.d_v * sizeof(float);

    for (int j = 0; j < mend->tile->key_count; j++) {
        if (!mend->keys.odd[j]) continue;
        memset(mend->dk + j * pad.d, 0, row);
        memset(mend->dv + j * pad.d_v, 0, dv_row);
    }
    for (int i = 0; i < mend->tile->rows; i++)
        if (mend->queries.odd[i]) memset(mend->dq + i * pad.d, 0, row);
}

ls_status cpu_gradient_mended_tile(struct gradient_job *job, struct gradient_worker *w,
                                   const struct gradient_tile *tile, const struct ls_leaf *q_leaf,
                                   const struct ls_leaf *k_leaf)
{
    const struct ls_gradient_call *call = job->call;
    const int64_t local = tile->head - tile->scores->first_head,
                  kv_head = local / job->kernel->group;
    struct mend mend = {
        .kernel = job->kernel,
        .tile = tile,
        .keys = {call->k, call->v, k_leaf, tile->batch, kv_head, {false}},
        .queries = {call->q, call->d_o, q_leaf, tile->batch, local, {false}},
        .dq = w->mended_dq,
        .dk = w->mended_dk,
        .dv = w->mended_dv,
    };
    const struct head_dims pad = job->kernel->pad;
    const struct sum_path dq = sum_path_to(mend.dq, LS_LEAF, pad.d),
                          dk = sum_path_to(mend.dk, LS_LEAF, pad.d),
                          dv = sum_path_to(mend.dv, LS_LEAF, pad.d_v);
    struct gradient_tile rest = *tile;

    find_odd_rows(&mend);
    LS_TRY(pack_rest(&mend, w));
    for (int i = 0; i < LS_LEAF; i++)
        w->mended_lse[i] = i < tile->rows && mend.queries.odd[i] ? INFINITY : tile->lse[i];
    rest.keys = w->mended_keys;
    rest.queries = w->mended_queries;
    rest.lse = w->mended_lse;
    rest.left_out = mend.keys.odd;
    rest.dq = &dq;
    rest.dk = &dk;
    rest.dv = &dv;
    LS_TRY(job->kernel->products->tile(w->own, &rest));
    clear_odd_rows(&mend);
    add_odd_pairs(&mend);
    cpu_sum_path_take(tile->dq, 0, tile->rows, dq.total);
    cpu_sum_path_take(tile->dk, 0, tile->key_count, dk.total);
    cpu_sum_path_take(tile->dv, 0, tile->key_count, dv.total);
    return LS_OK;
}
