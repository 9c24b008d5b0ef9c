#include "tensor/mask_rule.h"

#include <stdlib.h>

#include "tensor/slices.h"

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

struct ls_mask_rule ls_mask_rule_full(int64_t s_q, int64_t s_k)
{
    return (struct ls_mask_rule){
        .s_q = s_q, .s_k = s_k, .shift = s_k - s_q, .left = INT64_MAX, .right = INT64_MAX};
}

static int64_t documents_of(const struct ls_mask_rule *rule)
{
    return rule->documents ? rule->document_count : 1;
}

/* A document, or a gap of queries that are in none. */
struct document {
    struct ls_range queries, keys;
    int64_t shift;
};

static struct ls_range cut(struct ls_range range, int64_t from, int64_t to)
{
    return (struct ls_range){clamp(range.from, from, to), clamp(range.to, from, to)};
}

static int64_t pair_shift(const struct ls_mask_rule *rule, struct ls_range queries,
                          struct ls_range keys)
{
    return rule->align_start ? keys.from - queries.from + rule->pair_offset : keys.to - queries.to;
}

static struct document document(const struct ls_mask_rule *rule, int64_t i)
{
    struct document it = {{rule->q_first, rule->s_q}, {rule->k_first, rule->s_k}, rule->shift};

    if (!rule->documents) return it;
    it.keys = (struct ls_range){rule->k_first + rule->documents[i],
                                rule->k_first + rule->documents[i + 1]};
    it.queries = (struct ls_range){it.keys.from - rule->shift, it.keys.to - rule->shift};
    if (rule->q_documents) {
        it.queries = (struct ls_range){rule->q_first + rule->q_documents[i],
                                       rule->q_first + rule->q_documents[i + 1]};
        it.shift = pair_shift(rule, it.queries, it.keys);
    } else if (it.keys.to > rule->s_k) { /* beside all keys, not in the rest of a longer one */
        it.queries.to = rule->s_k - rule->shift;
    }
    it.queries = cut(it.queries, rule->q_first, rule->s_q);
    it.keys = cut(it.keys, rule->k_first, rule->s_k);
    return it;
}

int64_t ls_mask_rule_room(const struct ls_mask_rule *rule)
{
    return documents_of(rule) * (rule->prefix > 0 ? 2 : 1) + (rule->prefix > 0 ? 2 : 0);
}

/* What the queries see of the prefix, and what the window leaves them of their keys behind it. */
static void add_document(struct ls_mask *mask, const struct ls_mask_rule *rule,
                         const struct document *it)
{
    const int64_t behind = clamp(rule->k_first + rule->prefix, rule->k_first, rule->s_k);
    struct ls_band band = {.q_from = it->queries.from,
                           .q_to = it->queries.to,
                           .k_from = rule->k_first,
                           .k_to = behind,
                           .low = -LS_FAR,
                           .high = LS_FAR,
                           .shift = it->shift};

    ls_mask_add(mask, band);
    band.k_from = larger(it->keys.from, behind);
    band.k_to = it->keys.to;
    if (rule->left != INT64_MAX) band.low = it->shift - rule->left;
    if (rule->right != INT64_MAX) band.high = it->shift + rule->right;
    ls_mask_add(mask, band);
}

static void add_gap(struct ls_mask *mask, const struct ls_mask_rule *rule, int64_t from, int64_t to)
{
    add_document(mask, rule, &(struct document){.queries = {from, to}, .shift = rule->shift});
}

struct ls_mask ls_mask_rule_apply(const struct ls_mask_rule *rule, struct ls_band *room)
{
    struct ls_mask mask = {.s_q = rule->s_q,
                           .s_k = rule->s_k,
                           .q_first = rule->q_first,
                           .shift = rule->shift,
                           .bits = rule->bits,
                           .band = ls_mask_rule_room(rule) > 1 ? room : NULL};
    int64_t end = rule->q_first;

    for (int64_t i = 0; i < documents_of(rule); i++) {
        const struct document it = document(rule, i);

        if (it.queries.from >= it.queries.to) continue;
        add_gap(&mask, rule, end, it.queries.from);
        add_document(&mask, rule, &it);
        end = it.queries.to;
    }
    add_gap(&mask, rule, end, rule->s_q);
    return mask;
}

/* ---- slices */

static int by_first_query(const void *left, const void *right)
{
    const struct ls_band *a = left, *b = right;

    return (a->q_from > b->q_from) - (a->q_from < b->q_from);
}

/* The pairs of the mask that are in one of the slices, in bands that are written to out unless that
 * is NULL; returns how many. */
static int64_t cut_bands(struct ls_band *out, const struct ls_mask *mask,
                         const struct ls_mask_rule *rule)
{
    int64_t count = 0;

    for (int64_t i = 0; i < rule->slice_count; i++) {
        const struct ls_band slice = ls_slice_band(&rule->slices[i]);
        const struct ls_bands near = ls_mask_bands(mask, slice.q_from, slice.q_to);

        for (const struct ls_band *band = near.from; band < near.to; band++) {
            struct ls_band both;

            if (!ls_band_both(&both, band, &slice)) continue;
            if (out) out[count] = both;
            count++;
        }
    }
    return count;
}

/* ---- memory for the bands */

/* There are at least so many; what they were is lost. */
static ls_status need(struct ls_mask_bands *bands, int64_t count)
{
    struct ls_band *more;

    if (count <= bands->room) return LS_OK;
    more = malloc((size_t)count * sizeof *more);
    if (!more) return ls_fail(LS_ENOMEM, "mask of %lld bands: out of memory", (long long)count);
    free(bands->band);
    bands->band = more;
    bands->room = count;
    return LS_OK;
}

/* The mask of the slices and of the rest of the rule, whose own mask it is. */
static ls_status make_cut(struct ls_mask *out, struct ls_mask_bands *bands,
                          const struct ls_mask *mask, const struct ls_mask_rule *rule)
{
    const int64_t count = cut_bands(NULL, mask, rule);
    struct ls_mask both = *mask;

    LS_TRY(need(bands, count + 1)); /* of none too: no bands is not one */
    cut_bands(bands->band, mask, rule);
    qsort(bands->band, (size_t)count, sizeof *bands->band, by_first_query);
    both.band = bands->band;
    both.count = 0;
    for (int64_t i = 0; i < count; i++) ls_mask_add(&both, bands->band[i]);
    *out = both;
    return LS_OK;
}

static ls_status make(struct ls_mask *out, struct ls_mask_bands *bands,
                      const struct ls_mask_rule *rule)
{
    struct ls_mask_bands uncut = {.room = 0};
    struct ls_mask mask;
    ls_status status;

    if (!rule->slices) {
        LS_TRY(need(bands, ls_mask_rule_room(rule)));
        *out = ls_mask_rule_apply(rule, bands->band);
        return LS_OK;
    }
    LS_TRY(need(&uncut, ls_mask_rule_room(rule)));
    mask = ls_mask_rule_apply(rule, uncut.band);
    status = make_cut(out, bands, &mask, rule);
    free(uncut.band);
    return status;
}

/* Which leaves the mask's bits may let meet; the same as those of the mask before it, if its bits
 * are. */
static ls_status map_bits(struct ls_mask *mask, struct ls_mask_bands *bands,
                          const struct ls_mask *before)
{
    struct ls_pair_bits *bits = &mask->bits;
    const int64_t q_leaves = (bits->rows + LS_LEAF - 1) / LS_LEAF;

    if (!bits->first_row) return LS_OK;
    if (before && before->bits.first_row == bits->first_row) {
        *bits = before->bits;
        return LS_OK;
    }
    bits->k_leaves = (8 * bits->row_bytes + LS_LEAF - 1) / LS_LEAF;
    if (q_leaves * bits->k_leaves > bands->some_room) {
        free(bands->some);
        bands->some_room = q_leaves * bits->k_leaves;
        bands->some = malloc((size_t)bands->some_room * sizeof *bands->some);
        if (!bands->some) {
            bands->some_room = 0;
            return ls_fail(LS_ENOMEM, "mask of pairs: out of memory");
        }
    }
    ls_pair_bits_map(bands->some, bits);
    bits->some = bands->some;
    return LS_OK;
}

static ls_status need_masks(struct ls_mask_set *set, int64_t count)
{
    if (count <= set->room) return LS_OK;
    ls_mask_set_free(set);
    set->mask = calloc((size_t)count, sizeof *set->mask);
    set->bands = calloc((size_t)count, sizeof *set->bands);
    if (!set->mask || !set->bands)
        return ls_fail(LS_ENOMEM, "%lld masks: out of memory", (long long)count);
    set->room = count;
    return LS_OK;
}

ls_status ls_mask_set_make(struct ls_masks *out, struct ls_mask_set *set,
                           const struct ls_mask_rule *rules)
{
    const int64_t count = ls_masks_count(out);

    LS_TRY(need_masks(set, count));
    for (int64_t i = 0; i < count; i++) {
        LS_TRY(make(&set->mask[i], &set->bands[i], &rules[i]));
        LS_TRY(map_bits(&set->mask[i], &set->bands[i], i > 0 ? &set->mask[i - 1] : NULL));
    }
    out->mask = set->mask;
    return LS_OK;
}

void ls_mask_set_free(struct ls_mask_set *set)
{
    for (int64_t i = 0; i < set->room; i++) {
        free(set->bands[i].band);
        free(set->bands[i].some);
    }
    free(set->bands);
    free(set->mask);
    *set = (struct ls_mask_set){.room = 0};
}
