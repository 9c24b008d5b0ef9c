#include "tensor/mask.h"

static int64_t clamp(int64_t x, int64_t least, int64_t most)
{
    return x < least ? least : x > most ? most : x;
}

struct ls_mask ls_mask_full(int64_t s_q, int64_t s_k)
{
    return (struct ls_mask){
        .s_q = s_q, .s_k = s_k, .shift = s_k - s_q, .left = INT64_MAX, .right = INT64_MAX};
}

struct ls_mask ls_mask_causal(int64_t s_q, int64_t s_k)
{
    struct ls_mask mask = ls_mask_full(s_q, s_k);

    mask.right = 0;
    return mask;
}

/* The last document that begins at or before this position. */
static int64_t document_of(const struct ls_mask *mask, int64_t position)
{
    int64_t low = 0, high = mask->document_count;

    while (high - low > 1) {
        const int64_t middle = low + (high - low) / 2;

        if (mask->documents[middle] <= position)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Keys that a query at this position could see if there were no window. */
static struct ls_visible document_at(const struct ls_mask *mask, int64_t position)
{
    if (!mask->documents) return (struct ls_visible){.to = mask->s_k};
    if (position < 0) return (struct ls_visible){0};
    if (position >= mask->s_k) return (struct ls_visible){.from = mask->s_k, .to = mask->s_k};
    const int64_t document = document_of(mask, position);

    return (struct ls_visible){.from = mask->documents[document],
                               .to = mask->documents[document + 1]};
}

/* What the query at this place sees of its document, and of the prefix. */
static struct ls_visible visible_at(const struct ls_mask *mask, int64_t at,
                                    struct ls_visible document)
{
    const int64_t from = mask->left == INT64_MAX ? 0 : at - mask->left;
    const int64_t to = mask->right == INT64_MAX ? mask->s_k : at + mask->right + 1;
    struct ls_visible visible = {
        .prefix = mask->prefix,
        .from = clamp(from, document.from, document.to),
        .to = clamp(to, document.from, document.to),
    };

    visible.from = clamp(visible.from, mask->prefix, mask->s_k);
    visible.to = clamp(visible.to, visible.from, mask->s_k);
    return visible;
}

struct ls_visible ls_mask_row(const struct ls_mask *mask, int64_t i)
{
    const int64_t at = i + mask->shift;

    if (i >= mask->s_q) return (struct ls_visible){0};
    return visible_at(mask, at, document_at(mask, at));
}

void ls_mask_list(struct ls_visible *out, const struct ls_mask *mask, int64_t first, int64_t rows)
{
    const int64_t present = clamp(mask->s_q - first, 0, rows);
    struct ls_visible document = {0};

    for (int64_t i = present; i < rows; i++) out[i] = (struct ls_visible){0};
    for (int64_t i = 0; i < present; i++) {
        const int64_t at = first + i + mask->shift;

        if (i == 0 || (mask->documents && (at <= 0 || at >= document.to)))
            document = document_at(mask, at);
        out[i] = visible_at(mask, at, document);
    }
}

struct ls_visible ls_mask_rows(const struct ls_mask *mask, int64_t first, int64_t rows)
{
    const int64_t present = clamp(mask->s_q - first, 1, rows);
    const struct ls_visible begin = ls_mask_row(mask, first);
    const struct ls_visible end = ls_mask_row(mask, first + present - 1);

    return (struct ls_visible){.prefix = begin.prefix, .from = begin.from, .to = end.to};
}

struct ls_visible ls_mask_common(const struct ls_mask *mask, int64_t first, int64_t rows)
{
    const struct ls_visible begin = ls_mask_row(mask, first);
    const struct ls_visible end = ls_mask_row(mask, first + rows - 1);

    if (first + rows > mask->s_q) return (struct ls_visible){0};
    /* from and to never fall, so that what both ends see, all rows between them see */
    return (struct ls_visible){
        .prefix = mask->prefix, .from = end.from, .to = begin.to < end.from ? end.from : begin.to};
}

static int64_t overlap(int64_t a_from, int64_t a_to, int64_t b_from, int64_t b_to)
{
    const int64_t from = a_from > b_from ? a_from : b_from, to = a_to < b_to ? a_to : b_to;

    return to > from ? to - from : 0;
}

int64_t ls_visible_count(struct ls_visible visible, int64_t first, int64_t keys)
{
    return overlap(0, visible.prefix, first, first + keys) +
           overlap(visible.from, visible.to, first, first + keys);
}

bool ls_mask_is_full(const struct ls_mask *mask, int64_t first, int64_t rows, int64_t key,
                     int64_t keys)
{
    return ls_visible_count(ls_mask_common(mask, first, rows), key, keys) == keys;
}
