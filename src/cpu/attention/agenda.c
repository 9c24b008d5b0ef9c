/* What one call of the attention kernel has to do: which leaves meet, and in which order. */
#include "cpu/attention/kernel.h"

/* First place in the list of a leaf with this number or a higher one. */
static int64_t place_of(const struct ls_leaf_list *list, int64_t number)
{
    int64_t low = 0, high = list->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;

        if (list->leaf[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int64_t leaves_of(int64_t keys)
{
    return (keys + LS_LEAF - 1) / LS_LEAF;
}

static struct seen_leaves seen_by(const struct ls_attention_kernel *kernel,
                                  const struct ls_leaf_list *keys, const struct ls_leaf *queries)
{
    const int rows = leaf_rows(queries->number, kernel->shape.global.s_q);
    const struct ls_visible seen =
        ls_mask_rows(&kernel->shape.mask, queries->number * LS_LEAF, rows);
    const int64_t prefix = place_of(keys, leaves_of(seen.prefix));
    const int64_t from = place_of(keys, seen.from / LS_LEAF);

    if (seen.from == seen.to) return (struct seen_leaves){prefix, prefix, prefix};
    return (struct seen_leaves){.prefix = prefix,
                                .from = from > prefix ? from : prefix,
                                .to = place_of(keys, leaves_of(seen.to))};
}

/* Keys that some leaf of queries sees. What these see never begins or ends before what the one
 * before them does, but for the prefix, which is the same for all. */
static void list_keys(struct agenda *agenda, int64_t queries)
{
    int64_t n = 0, next = queries > 0 ? agenda->sees[0].prefix : 0;

    for (int64_t place = 0; place < next; place++) agenda->keys[n++] = place;
    for (int64_t i = 0; i < queries; i++) {
        const struct seen_leaves sees = agenda->sees[i];

        for (next = next > sees.from ? next : sees.from; next < sees.to; next++)
            agenda->keys[n++] = next;
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
        const int bits = bits_of(seen_count(agenda->sees[i]));
        if (bits > most) most = bits;
    }
    for (int64_t n = 0; n < queries; most--)
        for (int64_t i = queries - 1; i >= 0; i--)
            if (bits_of(seen_count(agenda->sees[i])) == most) agenda->order[n++] = i;
}

void cpu_make_agenda(struct ls_attention_kernel *kernel, const struct ls_kernel_call *call)
{
    struct agenda *agenda = &kernel->agenda;
    const struct ls_leaf_list *queries = &call->q_leaves;

    for (int64_t i = 0; i < queries->count; i++)
        agenda->sees[i] = seen_by(kernel, &call->k_leaves, &queries->leaf[i]);
    list_keys(agenda, queries->count);
    order_queries(agenda, queries->count);
}
