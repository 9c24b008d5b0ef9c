#include "tensor/mask_rule.h"

#include <stdlib.h>

#include "tensor/slices.h"

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
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

int64_t ls_mask_rule_room(const struct ls_mask_rule *rule)
{
    const int64_t bands = documents_of(rule) + (rule->prefix > 0);

    return bands > 1 ? bands : 0;
}

/* What the window leaves of keys behind the prefix, in document i. */
static struct ls_band document_band(const struct ls_mask_rule *rule, int64_t i)
{
    struct ls_band band = {
        .q_to = rule->s_q,
        .k_from = rule->prefix,
        .k_to = rule->s_k,
        .low = rule->left == INT64_MAX ? -LS_FAR : rule->shift - rule->left,
        .high = rule->right == INT64_MAX ? LS_FAR : rule->shift + rule->right,
    };

    if (!rule->documents) return band;
    const int64_t from = rule->documents[i], to = clamp(rule->documents[i + 1], 0, rule->s_k);

    band.q_from = clamp(from - rule->shift, 0, rule->s_q);
    band.q_to = clamp(to - rule->shift, 0, rule->s_q);
    band.k_from = clamp(from, rule->prefix, rule->s_k);
    band.k_to = to;
    return band;
}

struct ls_mask ls_mask_rule_apply(const struct ls_mask_rule *rule, struct ls_band *room)
{
    struct ls_mask mask = {.s_q = rule->s_q,
                           .s_k = rule->s_k,
                           .shift = rule->shift,
                           .band = ls_mask_rule_room(rule) > 0 ? room : NULL};

    ls_mask_add(
        &mask,
        (struct ls_band){.q_to = rule->s_q, .k_to = rule->prefix, .low = -LS_FAR, .high = LS_FAR});
    for (int64_t i = 0; i < documents_of(rule); i++) ls_mask_add(&mask, document_band(rule, i));
    return mask;
}

/* ---- memory for the bands */

/* *bands [*room] are at least so many; what they were is lost. */
static ls_status need(struct ls_band **bands, int64_t *room, int64_t count)
{
    struct ls_band *more;

    if (count <= *room) return LS_OK;
    more = malloc((size_t)count * sizeof *more);
    if (!more) return ls_fail(LS_ENOMEM, "mask of %lld bands: out of memory", (long long)count);
    free(*bands);
    *bands = more;
    *room = count;
    return LS_OK;
}

static int by_first_query(const void *left, const void *right)
{
    const struct ls_band *a = left, *b = right;

    return (a->q_from > b->q_from) - (a->q_from < b->q_from);
}

/* The pairs of the mask that are in one of the slices, in bands that are written to out unless that
 * is NULL; returns how many. */
static int64_t cut(struct ls_band *out, const struct ls_mask *mask, const struct ls_mask_rule *rule)
{
    int64_t count = 0;

    for (int64_t i = 0; i < rule->slice_count; i++) {
        const struct ls_band slice = ls_slice_band(&rule->slices[i]);
        const struct ls_bands near = ls_mask_bands(mask, slice.q_from, slice.q_to);

        for (const struct ls_band *band = near.from; band < near.to; band++) {
            struct ls_band both;

            if (!ls_band_both(&both, &slice, band)) continue;
            if (out) out[count] = both;
            count++;
        }
    }
    return count;
}

/* The mask of the slices and of the rest of the rule, whose own mask it is. */
static ls_status make_cut(struct ls_mask *out, struct ls_band **bands, int64_t *room,
                          const struct ls_mask *mask, const struct ls_mask_rule *rule)
{
    const int64_t count = cut(NULL, mask, rule);
    struct ls_mask both = *mask;

    LS_TRY(need(bands, room, count + 1)); /* of none too: no bands is not one */
    cut(*bands, mask, rule);
    qsort(*bands, (size_t)count, sizeof **bands, by_first_query);
    both.band = *bands;
    both.count = 0;
    for (int64_t i = 0; i < count; i++) ls_mask_add(&both, (*bands)[i]);
    *out = both;
    return LS_OK;
}

ls_status ls_mask_rule_make(struct ls_mask *out, struct ls_band **bands, int64_t *room,
                            const struct ls_mask_rule *rule)
{
    struct ls_band *uncut = NULL;
    int64_t uncut_room = 0;
    struct ls_mask mask;
    ls_status status;

    if (!rule->slices) {
        LS_TRY(need(bands, room, ls_mask_rule_room(rule)));
        *out = ls_mask_rule_apply(rule, *bands);
        return LS_OK;
    }
    LS_TRY(need(&uncut, &uncut_room, ls_mask_rule_room(rule)));
    mask = ls_mask_rule_apply(rule, uncut);
    status = make_cut(out, bands, room, &mask, rule);
    free(uncut);
    return status;
}
