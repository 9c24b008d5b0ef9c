#include "cpu/attention/places.h"

/* First place in the list, from `low` on, of a leaf with this number or a higher one. */
static int64_t place_of(const struct ls_leaf_list *list, int64_t low, int64_t number)
{
    int64_t high = list->count;

    while (low < high) {
        const int64_t middle = low + (high - low) / 2;

        if (list->leaf[middle].number < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct ls_range cpu_seen_places(const struct ls_mask *mask, const struct ls_leaf *queries, int rows,
                                const struct ls_leaf_list *keys, int64_t place)
{
    while (place < keys->count) {
        const struct ls_range leaves =
            ls_mask_leaves(mask, queries->number * LS_LEAF, rows, keys->leaf[place].number);

        if (leaves.from == leaves.to) break;
        place = place_of(keys, place, leaves.from);
        const int64_t to = place_of(keys, place, leaves.to);
        if (to > place) return (struct ls_range){place, to};
    }
    return (struct ls_range){keys->count, keys->count};
}
