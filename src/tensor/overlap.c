/* A row, a run of the last dimension, begins at the sum of index times stride. Two rows share a
 * byte if their beginnings are less than a row apart, so the question is whether a sum of whole
 * multiples of strides falls into an interval. With the strides in falling order all smaller ones
 * together reach less than one step of a larger one, if dimensions are nested, so that a step or
 * two of each is all there is to try. */
#include "tensor/overlap.h"

/* Places tried before a layout counts as one that nobody has. */
#define MOST_TRIES 10000

/* x steps, least <= x <= most. */
struct axis {
    int64_t step; /* bytes, over 0 */
    int64_t least, most;
};

struct sum {
    struct axis axis[2 * LS_MAX_DIMS]; /* by step, the largest first; none twice */
    int count;
};

static int64_t least_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t floor_of(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Adds steps first to last of a stride in bytes. */
static void add_axis(struct sum *sum, int64_t stride, int64_t first, int64_t last)
{
    struct axis new = {stride, first, last};
    int at = sum->count;

    if (stride == 0 || (first == 0 && last == 0)) return;
    if (stride < 0) new = (struct axis){-stride, -last, -first};
    for (int i = 0; i < sum->count; i++) {
        if (sum->axis[i].step != new.step) continue;
        sum->axis[i].least += new.least;
        sum->axis[i].most += new.most;
        return;
    }
    for (; at > 0 && sum->axis[at - 1].step < new.step; at--) sum->axis[at] = sum->axis[at - 1];
    sum->axis[at] = new;
    sum->count++;
}

/* Whether some sum of axis i and the smaller ones lies in [low, high]. */
static bool falls_into(const struct sum *sum, int i, int64_t low, int64_t high, int *tries)
{
    const struct axis axis = sum->axis[i];
    int64_t least = 0, most = 0; /* of the smaller ones */

    if (i == sum->count) return low <= 0 && high >= 0;
    for (int j = i + 1; j < sum->count; j++) {
        least += sum->axis[j].least * sum->axis[j].step;
        most += sum->axis[j].most * sum->axis[j].step;
    }
    low -= most, high -= least; /* where a multiple of the step has to be */
    if (low > axis.most * axis.step || high < axis.least * axis.step) return false;
    const int64_t first = most_of(axis.least, -floor_of(-low, axis.step));
    const int64_t last = least_of(axis.most, floor_of(high, axis.step));

    for (int64_t x = first; x <= last && --*tries > 0; x++)
        if (falls_into(sum, i + 1, low + most - x * axis.step, high + least - x * axis.step, tries))
            return true;
    return false;
}

static bool has_sum(const struct sum *sum, int64_t low, int64_t high)
{
    int tries = MOST_TRIES;

    return falls_into(sum, 0, low, high, &tries);
}

static int64_t row_bytes(const struct ls_tensor *t)
{
    return (t->ndim > 0 ? t->dim[t->ndim - 1] : 1) * ls_dtype_size(t->type);
}

static bool is_empty(const struct ls_tensor *t)
{
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] == 0) return true;
    return false;
}

bool ls_tensors_overlap(const struct ls_tensor *a, const struct ls_tensor *b)
{
    const int64_t apart = (int64_t)((uintptr_t)b->data - (uintptr_t)a->data);
    struct sum sum = {.count = 0}; /* a row of a, less where one of b stands behind b's first */

    if (is_empty(a) || is_empty(b)) return false;
    for (int i = 0; i < a->ndim - 1; i++)
        add_axis(&sum, a->stride[i] * ls_dtype_size(a->type), 0, a->dim[i] - 1);
    for (int i = 0; i < b->ndim - 1; i++)
        add_axis(&sum, b->stride[i] * ls_dtype_size(b->type), 1 - b->dim[i], 0);
    return has_sum(&sum, apart - row_bytes(a) + 1, apart + row_bytes(b) - 1);
}

/* Two rows differ in a first dimension, where the one behind is named second. */
bool ls_tensor_rows_overlap(const struct ls_tensor *t)
{
    const int64_t size = ls_dtype_size(t->type), row = row_bytes(t);

    if (is_empty(t)) return false;
    for (int first = 0; first < t->ndim - 1; first++) {
        struct sum sum = {.count = 0};

        if (t->dim[first] == 1) continue;
        add_axis(&sum, t->stride[first] * size, 1, t->dim[first] - 1);
        for (int i = first + 1; i < t->ndim - 1; i++)
            add_axis(&sum, t->stride[i] * size, 1 - t->dim[i], t->dim[i] - 1);
        if (has_sum(&sum, 1 - row, row - 1)) return true;
    }
    return false;
}
