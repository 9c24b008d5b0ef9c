/* What one call of the attention kernel has to do: which leaves meet, and in which order. */
#include <string.h>

#include "cpu/attention/kernel.h"

/* One leaf of queries more sees this run of places than sees those before it. */
static void count_up(int64_t *more, struct ls_range run, int64_t places)
{
    more[run.from]++;
    if (run.to < places) more[run.to]--;
}

static struct seen_leaves seen_by(int64_t *keys, const struct ls_attention_kernel *kernel,
                                  const struct ls_kernel_call *call, const struct ls_mask *mask,
                                  const struct ls_leaf *queries)
{
    struct ls_range run = seen_places(kernel, call, mask, queries, 0);
    struct seen_leaves sees = {0};

    for (; run.from < run.to; run = seen_places(kernel, call, mask, queries, run.to)) {
        sees.count += run.to - run.from;
        sees.end = run.to;
        count_up(keys, run, call->k_leaves.count);
    }
    return sees;
}

/* The places that are seen, where count_up has left its counts; returns how many. */
static int64_t list_keys(int64_t *keys, int64_t places)
{
    int64_t seen = 0, n = 0;

    for (int64_t place = 0; place < places; place++) {
        seen += keys[place];
        if (seen > 0) keys[n++] = place;
    }
    return n;
}

static int bits_of(int64_t n)
{
    int bits = 0;

    while (n >> bits > 0) bits++;
    return bits;
}

/* The size of what a leaf of queries sees under all masks of a pair, to a factor of two. */
static int size_of(const struct seen_leaves *sees, int64_t leaf, int64_t queries, int64_t masks)
{
    int64_t count = 0;

    for (int64_t m = 0; m < masks; m++) count += sees[m * queries + leaf].count;
    return bits_of(count);
}

/* By this size; of one size the last ones, which are the longest if causal, come first. */
static void order_queries(int64_t *order, const struct seen_leaves *sees, int64_t queries,
                          int64_t masks)
{
    int most = 0;

    for (int64_t i = 0; i < queries; i++) {
        const int size = size_of(sees, i, queries, masks);
        if (size > most) most = size;
    }
    for (int64_t n = 0; n < queries; most--)
        for (int64_t i = queries - 1; i >= 0; i--)
            if (size_of(sees, i, queries, masks) == most) order[n++] = i;
}

void cpu_make_agenda(struct ls_attention_kernel *kernel, const struct ls_kernel_call *call)
{
    struct agenda *agenda = &kernel->agenda;
    const struct ls_leaf_list *queries = &call->q_leaves;
    const int64_t places = call->k_leaves.count, masks = masks_of_a_pair(kernel);

    agenda->most_keys = 0;
    for (int64_t n = 0; n < agenda_pairs(kernel); n++) {
        const int64_t pair = agenda_first(kernel, n);
        struct seen_leaves *sees = agenda->sees + n * masks * queries->count;
        int64_t *keys = agenda->keys + n * places;

        memset(keys, 0, (size_t)places * sizeof *keys);
        for (int64_t m = 0; m < masks; m++)
            for (int64_t i = 0; i < queries->count; i++)
                sees[m * queries->count + i] =
                    seen_by(keys, kernel, call, mask_of_pair(kernel, pair, m), &queries->leaf[i]);
        agenda->key_count[n] = list_keys(keys, places);
        if (agenda->key_count[n] > agenda->most_keys) agenda->most_keys = agenda->key_count[n];
        order_queries(agenda->order + n * queries->count, sees, queries->count, masks);
    }
}
