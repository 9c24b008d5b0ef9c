/* What one call of the attention kernel has to do: which leaves meet, and in which order. */
#include <string.h>

#include "cpu/attention/kernel.h"

/* One leaf of queries more sees this run of places than sees those before it. */
static void count_up(int64_t *more, struct ls_range run, int64_t places)
{
    more[run.from]++;
    if (run.to < places) more[run.to]--;
}

static struct seen_leaves seen_by(const struct ls_attention_kernel *kernel,
                                  const struct ls_kernel_call *call, const struct ls_leaf *queries)
{
    struct ls_range run = seen_places(kernel, call, queries, 0);
    struct seen_leaves sees = {0};

    for (; run.from < run.to; run = seen_places(kernel, call, queries, run.to)) {
        sees.count += run.to - run.from;
        sees.end = run.to;
        count_up(kernel->agenda.keys, run, call->k_leaves.count);
    }
    return sees;
}

/* The places that are seen, where count_up has left its counts. */
static void list_keys(struct agenda *agenda, int64_t places)
{
    int64_t seen = 0, n = 0;

    for (int64_t place = 0; place < places; place++) {
        seen += agenda->keys[place];
        if (seen > 0) agenda->keys[n++] = place;
    }
    agenda->key_count = n;
}

static int bits_of(int64_t n)
{
    int bits = 0;

    while (n >> bits > 0) bits++;
    return bits;
}

/* By the size of what they see, to a factor of two; of one size the last ones, which are the
 * longest if causal, come first. */
static void order_queries(struct agenda *agenda, int64_t queries)
{
    int most = 0;

    for (int64_t i = 0; i < queries; i++) {
        const int bits = bits_of(agenda->sees[i].count);
        if (bits > most) most = bits;
    }
    for (int64_t n = 0; n < queries; most--)
        for (int64_t i = queries - 1; i >= 0; i--)
            if (bits_of(agenda->sees[i].count) == most) agenda->order[n++] = i;
}

void cpu_make_agenda(struct ls_attention_kernel *kernel, const struct ls_kernel_call *call)
{
    struct agenda *agenda = &kernel->agenda;
    const struct ls_leaf_list *queries = &call->q_leaves;

    memset(agenda->keys, 0, (size_t)call->k_leaves.count * sizeof *agenda->keys);
    for (int64_t i = 0; i < queries->count; i++)
        agenda->sees[i] = seen_by(kernel, call, &queries->leaf[i]);
    list_keys(agenda, call->k_leaves.count);
    order_queries(agenda, queries->count);
}
