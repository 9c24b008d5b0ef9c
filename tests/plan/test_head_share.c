/* Heads are dealt to ranks: all of them, once, evenly where that can be. */
#include <criterion/criterion.h>

#include "plan/head_share.h"

/* Calls check for all small shapes and numbers of ranks. */
static void for_each_case(void (*check)(const struct ls_attention_shape *s, int p))
{
    for (int64_t h_kv = 1; h_kv <= 8; h_kv++)
        for (int64_t group = 1; group <= 6; group++)
            for (int p = 1; p <= 52; p++)
                check(&(struct ls_attention_shape){.h = h_kv * group, .h_kv = h_kv}, p);
}

static void has_every_query_head_once(const struct ls_attention_shape *s, int p)
{
    int64_t next = 0;

    for (int r = 0; r < p; r++) {
        const struct ls_head_share share = ls_head_share(s, p, r);

        if (share.q.count == 0) continue;
        cr_expect_eq(share.q.first, next, "h %ld/%ld p %d: rank %d begins with head %ld",
                     (long)s->h, (long)s->h_kv, p, r, (long)share.q.first);
        next = share.q.first + share.q.count;
    }
    cr_expect_eq(next, s->h, "h %ld/%ld p %d: %ld heads", (long)s->h, (long)s->h_kv, p, (long)next);
}

Test(head_share, every_query_head_is_dealt_once)
{
    for_each_case(has_every_query_head_once);
}

static void has_its_kv_heads(const struct ls_attention_shape *s, int p)
{
    const int64_t group = s->h / s->h_kv;
    int64_t copies = 0;

    for (int r = 0; r < p; r++) {
        const struct ls_head_share share = ls_head_share(s, p, r);

        copies += share.kv.count;
        cr_expect_eq(share.q.count == 0, share.kv.count == 0, "h %ld/%ld p %d rank %d", (long)s->h,
                     (long)s->h_kv, p, r);
        if (share.q.count == 0) continue;
        cr_expect_eq(share.q.count % share.kv.count, 0, "h %ld/%ld p %d rank %d: %ld of %ld",
                     (long)s->h, (long)s->h_kv, p, r, (long)share.q.count, (long)share.kv.count);
        const int64_t each = share.q.count / share.kv.count;
        for (int64_t i = 0; i < share.q.count; i++)
            cr_expect_eq((share.q.first + i) / group, share.kv.first + i / each,
                         "h %ld/%ld p %d rank %d: query head %ld", (long)s->h, (long)s->h_kv, p, r,
                         (long)(share.q.first + i));
    }
    cr_expect_eq(ls_head_share_copies(s, p), copies, "h %ld/%ld p %d", (long)s->h, (long)s->h_kv,
                 p);
}

Test(head_share, a_rank_has_the_kv_heads_of_its_query_heads_equally_often)
{
    for_each_case(has_its_kv_heads);
}

static void is_even(const struct ls_attention_shape *s, int p)
{
    const bool divides = s->h_kv % p == 0 || (p % s->h_kv == 0 && s->h % p == 0);

    for (int r = 0; r < p; r++) {
        const int64_t count = ls_head_share(s, p, r).q.count;

        if (divides)
            cr_expect_eq(count, s->h / p, "h %ld/%ld p %d rank %d: %ld heads", (long)s->h,
                         (long)s->h_kv, p, r, (long)count);
        cr_expect(count > 0 || p > s->h, "h %ld/%ld p %d: rank %d has nothing to do", (long)s->h,
                  (long)s->h_kv, p, r);
        cr_expect(count <= 1 || p < s->h, "h %ld/%ld p %d: rank %d has %ld heads", (long)s->h,
                  (long)s->h_kv, p, r, (long)count);
    }
}

Test(head_share, all_ranks_work_and_alike_where_that_can_be)
{
    for_each_case(is_even);
}
