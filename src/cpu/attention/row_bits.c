/* Does a row of a product depend on where it stands? Native products compute every row alone; some
 * of a library's do not, and which ones is not documented: so it is tried. */
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "cpu/attention/kernel.h"
#include "tensor/dtype.h"

/* Operands and results of one strip and one leaf. */
struct trial {
    const struct strip_worker *w;
    size_t q_bytes, p_bytes; /* of a row of q, of a row of probabilities */
    char *q, *p, *raw, *packed;
    float *scores, *acc; /* [strip][score_stride], [strip][pad.d_v] */
    float *first;        /* the row's result where it was first */
    void *memory;
};

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static ls_status trial_open(struct trial *t, const struct strip_worker *w)
{
    const struct products *products = w->products;
    const size_t size = (size_t)ls_dtype_size(products->type), strip = (size_t)products->strip;
    const size_t d = (size_t)w->pad.d, d_v = (size_t)w->pad.d_v;
    const int widest = head_dims_widest(w->pad);
    size_t bytes[7];
    char *piece;

    *t = (struct trial){.w = w, .q_bytes = d * size, .p_bytes = (size_t)products->p_stride * size};
    bytes[0] = aligned(strip * t->q_bytes);
    bytes[1] = aligned(strip * t->p_bytes);
    bytes[2] = aligned(LS_LEAF * (size_t)widest * size);
    bytes[3] = aligned(products->packed_bytes(widest));
    bytes[4] = aligned(strip * (size_t)products->score_stride * sizeof(float));
    bytes[5] = aligned(strip * d_v * sizeof(float));
    bytes[6] = (LS_LEAF + LS_MAX_HEAD_DIM) * sizeof(float);
    size_t all = 0;
    for (int i = 0; i < 7; i++) all += bytes[i];
    t->memory = aligned_alloc(64, all);
    if (!t->memory) return ls_fail(LS_ENOMEM, "attention kernel: out of memory");
    memset(t->memory, 0, all);
    piece = t->memory;
    t->q = piece;
    t->p = t->q + bytes[0];
    t->raw = t->p + bytes[1];
    t->packed = t->raw + bytes[2];
    t->scores = (float *)(void *)(t->packed + bytes[3]);
    t->acc = (float *)(void *)(t->packed + bytes[3] + bytes[4]);
    t->first = (float *)(void *)((char *)t->acc + bytes[5]);
    return LS_OK;
}

/* n numbers of N(0,1). */
static void draw(void *out, ls_dtype type, uint32_t stream, int n)
{
    float value[LS_MAX_HEAD_DIM];

    ls_random_normal(value, 1, stream, 0, n);
    ls_dtype_convert(out, type, value, LS_F32, n);
}

static void draw_leaf(const struct trial *t, uint32_t stream, int d)
{
    const ls_dtype type = t->w->products->type;
    const size_t row = (size_t)d * (size_t)ls_dtype_size(type);

    for (int j = 0; j < LS_LEAF; j++) draw(t->raw + (size_t)j * row, type, stream + (uint32_t)j, d);
}

static const struct key_span whole = {.end = LS_LEAF};

/* Where the row is tried: its place, the rows of the strip. */
static const int places[][2] = {{0, 1},   {1, 2},   {2, 3},   {3, 5},  {7, 8},  {8, 9},   {4, 15},
                                {15, 16}, {16, 17}, {30, 31}, {0, 64}, {7, 64}, {31, 64}, {63, 64}};

/* Whether `result` of the row is the same at all places; at 0 it becomes `first`. */
static bool is_same(float *first, const float *result, int n, int i)
{
    if (i == 0) memcpy(first, result, (size_t)n * sizeof *first);
    return memcmp(first, result, (size_t)n * sizeof *first) == 0;
}

static ls_status try_scores(bool *same, const struct trial *t, int i, int at, int rows)
{
    const struct products *products = t->w->products;
    const struct operand leaf = {.packed = t->packed};

    memset(t->q, 0, (size_t)products->strip * t->q_bytes);
    draw(t->q + (size_t)at * t->q_bytes, products->type, 0, t->w->pad.d);
    LS_TRY(products->scores(t->scores, t->w->own, t->q, leaf, rows, whole));
    *same &= is_same(t->first, t->scores + at * products->score_stride, LS_LEAF, i);
    return LS_OK;
}

static ls_status try_output(bool *same, const struct trial *t, int i, int at, int rows)
{
    const struct products *products = t->w->products;
    const struct operand leaf = {.packed = t->packed};

    memset(t->p, 0, (size_t)products->strip * t->p_bytes);
    draw(t->p + (size_t)at * t->p_bytes, products->type, 1, LS_LEAF);
    LS_TRY(products->output(t->acc, t->w->own, t->p, leaf, rows, whole));
    *same &= is_same(t->first, t->acc + at * t->w->pad.d_v, t->w->pad.d_v, i);
    return LS_OK;
}

static ls_status try_places(bool *same, const struct trial *t,
                            ls_status (*try)(bool *same, const struct trial *t, int i, int at,
                                             int rows))
{
    const int strip = t->w->products->strip;

    for (int i = 0; i < (int)(sizeof places / sizeof *places); i++) {
        const int rows = places[i][1] < strip ? places[i][1] : strip;
        const int at = places[i][0] < rows ? places[i][0] : rows - 1;

        LS_TRY(try(same, t, i, at, rows));
    }
    return LS_OK;
}

static ls_status compare(bool *same, const struct trial *t)
{
    const struct products *products = t->w->products;

    *same = true;
    draw_leaf(t, 2, t->w->pad.d);
    LS_TRY(products->pack_k(t->packed, t->w->own, t->raw));
    LS_TRY(try_places(same, t, try_scores));
    draw_leaf(t, 2, t->w->pad.d_v);
    LS_TRY(products->pack_v(t->packed, t->w->own, t->raw));
    return try_places(same, t, try_output);
}

ls_status cpu_rows_keep_bits(bool *same, const struct strip_worker *w)
{
    struct trial t;

    LS_TRY(trial_open(&t, w));
    if (w->products->begin) w->products->begin();
    const ls_status status = compare(same, &t);
    if (w->products->end) w->products->end();
    free(t.memory);
    return status;
}
