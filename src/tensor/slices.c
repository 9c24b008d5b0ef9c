#include "tensor/slices.h"

#include <stdlib.h>

struct ls_band ls_slice_band(const struct ls_slice *slice)
{
    const bool ends = slice->type == LS_SLICE_CAUSAL || slice->type == LS_SLICE_BOTH;
    const bool begins = slice->type == LS_SLICE_INVERSE_CAUSAL || slice->type == LS_SLICE_BOTH;

    return (struct ls_band){.q_from = slice->q0,
                            .q_to = slice->q1,
                            .k_from = slice->k0,
                            .k_to = slice->k1,
                            .low = begins ? slice->k0 - slice->q0 : -LS_FAR,
                            .high = ends ? slice->k1 - slice->q1 : LS_FAR};
}

static ls_status check_slice(const struct ls_slice *slice, int64_t number, int64_t s_q, int64_t s_k)
{
    if (slice->type < LS_SLICE_FULL || slice->type > LS_SLICE_BOTH)
        return ls_fail(LS_EVALUE,
                       "slice %lld is of type %lld, must be 0 (full), 1 (causal), 2 (inverse "
                       "causal) or 3 (both)",
                       (long long)number, (long long)slice->type);
    if (slice->q0 < 0 || slice->q0 > slice->q1 || slice->q1 > s_q)
        return ls_fail(LS_EVALUE, "slice %lld: queries %lld to %lld are not among the %lld",
                       (long long)number, (long long)slice->q0, (long long)slice->q1,
                       (long long)s_q);
    if (slice->k0 < 0 || slice->k0 > slice->k1 || slice->k1 > s_k)
        return ls_fail(LS_EVALUE, "slice %lld: keys %lld to %lld are not among the %lld",
                       (long long)number, (long long)slice->k0, (long long)slice->k1,
                       (long long)s_k);
    return LS_OK;
}

/* ---- whether two share a pair */

struct numbered {
    struct ls_band band;
    int64_t number;
};

static int by_first_query(const void *left, const void *right)
{
    const struct numbered *a = left, *b = right;

    if (a->band.q_from != b->band.q_from) return a->band.q_from < b->band.q_from ? -1 : 1;
    return (a->number > b->number) - (a->number < b->number);
}

static ls_status compare(const struct numbered *a, const struct numbered *b)
{
    const int64_t first = a->number < b->number ? a->number : b->number;
    struct ls_band both;
    int64_t i, j;

    if (!ls_band_both(&both, &a->band, &b->band)) return LS_OK;
    ls_band_first(&i, &j, &both);
    return ls_fail(LS_EVALUE,
                   "slices %lld and %lld overlap: query %lld and key %lld are in both, and no pair "
                   "may be",
                   (long long)first, (long long)(a->number + b->number - first), (long long)i,
                   (long long)j);
}

/* Those before the i-th that reach beyond its first query are at the beginning of the list. */
static ls_status compare_all(struct numbered *list, int64_t count)
{
    int64_t open = 0;

    for (int64_t i = 0; i < count; i++) {
        const struct numbered next = list[i];
        int64_t kept = 0;

        for (int64_t other = 0; other < open; other++) {
            if (list[other].band.q_to <= next.band.q_from) continue;
            LS_TRY(compare(&list[other], &next));
            list[kept++] = list[other];
        }
        list[kept++] = next;
        open = kept;
    }
    return LS_OK;
}

ls_status ls_slices_check(const struct ls_slice *slices, int64_t count, int64_t s_q, int64_t s_k)
{
    struct numbered *list;

    if (!slices) return LS_OK;
    if (count < 0)
        return ls_fail(LS_EVALUE, "slices: there are %lld, must be 0 or more", (long long)count);
    for (int64_t i = 0; i < count; i++) LS_TRY(check_slice(&slices[i], i, s_q, s_k));
    list = malloc((size_t)(count + 1) * sizeof *list);
    if (!list) return ls_fail(LS_ENOMEM, "%lld slices: out of memory", (long long)count);
    for (int64_t i = 0; i < count; i++) list[i] = (struct numbered){ls_slice_band(&slices[i]), i};
    qsort(list, (size_t)count, sizeof *list, by_first_query);
    const ls_status status = compare_all(list, count);

    free(list);
    return status;
}
