#include "plan/head_share.h"

/* The i-th run when n things are dealt to so many. */
static struct ls_head_run deal(int64_t n, int64_t many, int64_t i)
{
    const int64_t base = n / many, extra = n % many;

    return (struct ls_head_run){.first = i * base + (i < extra ? i : extra),
                                .count = base + (i < extra)};
}

struct ls_head_share ls_head_share(const struct ls_attention_shape *shape, int p, int rank)
{
    const int64_t group = shape->h / shape->h_kv;

    if (p <= shape->h_kv) {
        const struct ls_head_run kv = deal(shape->h_kv, p, rank);
        return (struct ls_head_share){.q = {kv.first * group, kv.count * group}, .kv = kv};
    }
    struct ls_head_run ranks = deal(p, shape->h_kv, 0);
    int64_t kv = 0;

    while (ranks.first + ranks.count <= rank) ranks = deal(p, shape->h_kv, ++kv);
    const struct ls_head_run q = deal(group, ranks.count, rank - ranks.first);
    return (struct ls_head_share){.q = {kv * group + q.first, q.count}, .kv = {kv, q.count > 0}};
}

int64_t ls_head_share_copies(const struct ls_attention_shape *shape, int p)
{
    int64_t copies = 0;

    for (int r = 0; r < p; r++) copies += ls_head_share(shape, p, r).kv.count;
    return copies;
}

struct ls_attention_shape ls_head_share_shape(const struct ls_attention_shape *shape,
                                              const struct ls_head_share *share)
{
    struct ls_attention_shape own = *shape;

    own.h = share->q.count > 0 ? share->q.count : 1;
    own.h_kv = share->q.count > 0 ? share->kv.count : 1;
    return own;
}
