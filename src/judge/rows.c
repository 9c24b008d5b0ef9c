#include "judge/rows.h"

#include <stdbool.h>

#include "base/random.h"
#include "tensor/dtype.h"

#define SAMPLE_SEED 20240613
#define SAMPLE_STREAM 3 /* q, k and v are 0 to 2 */

/* ---- which rows */

/* First and last rows of every part are always taken; they begin and end leaves. */
static bool is_edge(const struct ls_layout *layout, int64_t position)
{
    const int64_t in_leaf = position % LS_LEAF;

    if (in_leaf != 0 && in_leaf != LS_LEAF - 1 && position != layout->s - 1) return false;
    for (int r = 0; r < layout->p; r++) {
        const int64_t rows = ls_layout_part_rows(layout, r);

        if (rows > 0 && (position == ls_layout_position(layout, r, 0) ||
                         position == ls_layout_position(layout, r, rows - 1)))
            return true;
    }
    return false;
}

/* Takes exactly `rows` positions in rising order, each set of them equally likely but for the
 * edges. Source: Knuth, TAOCP 2, 3.4.2, algorithm S. Returns how many there are. */
static int64_t sample(int64_t *out, const struct ls_layout *layout, int64_t rows, int64_t head)
{
    int64_t edges = 0, taken = 0;

    for (int64_t i = 0; i < layout->s; i++) edges += is_edge(layout, i);
    int64_t left = layout->s - edges, wanted = rows > edges ? rows - edges : 0;

    for (int64_t i = 0; i < layout->s; i++) {
        bool take = is_edge(layout, i);

        if (!take) {
            const uint64_t index = (uint64_t)(head * layout->s + i);

            take = (int64_t)ls_random_below(SAMPLE_SEED, SAMPLE_STREAM, index, (uint64_t)left) <
                   wanted;
            wanted -= take;
            left--;
        }
        if (take) out[taken++] = i;
    }
    return taken;
}

int64_t ls_judge_choose_rows(int64_t *out, const struct ls_layout *layout, int64_t rows, int64_t i)
{
    if (rows > 0 && rows < layout->s) return sample(out, layout, rows, i);
    for (int64_t position = 0; position < layout->s; position++) out[position] = position;
    return layout->s;
}

int64_t ls_judge_most_rows(const struct ls_layout *layout, int64_t rows)
{
    const int64_t edges = 2 * (int64_t)layout->p;

    return rows > 0 && rows < layout->s - edges ? rows + edges : layout->s;
}

/* ---- their elements */

static const char *row_of(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head)
{
    return (const char *)t->data +
           (b * t->stride[0] + row * t->stride[1] + head * t->stride[2]) * ls_dtype_size(t->type);
}

/* A part's leaves are in rising order. */
int64_t ls_judge_find_row(const struct ls_layout *layout, int rank, int64_t position)
{
    const int64_t leaf = position / LS_LEAF;
    int64_t low = 0, high = ls_layout_part_leaves(layout, rank);

    while (low < high) {
        const int64_t middle = low + (high - low) / 2,
                      at = ls_layout_part_leaf(layout, rank, middle);

        if (at == leaf) return middle * LS_LEAF + position % LS_LEAF;
        if (at < leaf)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

void ls_judge_load_rows(double *out, const struct ls_tensor *t, int64_t b, int64_t first, int64_t n,
                        int64_t head)
{
    const int64_t d = t->dim[3];

    for (int64_t i = 0; i < n; i++)
        ls_dtype_convert(out + i * d, LS_F64, row_of(t, b, first + i, head), t->type, d);
}
