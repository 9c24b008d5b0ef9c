#include "tensor/mask_rule.h"

#include <stdlib.h>

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

ls_status ls_mask_rule_make(struct ls_mask *out, struct ls_band **bands, int64_t *room,
                            const struct ls_mask_rule *rule)
{
    const int64_t needed = ls_mask_rule_room(rule);

    if (needed > *room) {
        struct ls_band *more = realloc(*bands, (size_t)needed * sizeof *more);

        if (!more)
            return ls_fail(LS_ENOMEM, "mask of %lld bands: out of memory", (long long)needed);
        *bands = more;
        *room = needed;
    }
    *out = ls_mask_rule_apply(rule, *bands);
    return LS_OK;
}
