/* Heads are turned by the angles of their positions, millions of rows into a sequence too, and
 * back; what stands beside them is left alone. */
#include <fenv.h>
#include <math.h>
#include <stdio.h>

#include "device/pointwise.h"
#include "reference/rotary.h"
#include "sheet.h"

/* [b, s, h, d] in a sheet whose rows are h heads, `apart` elements each. */
struct heads {
    struct sheet rows;
    int64_t h, d, apart;
};

static struct heads heads_create(ls_dtype type, int64_t b, int64_t s, int64_t h, int64_t d,
                                 int64_t apart)
{
    struct heads x = {sheet_create(type, b, s, h * apart, 3), h, d, apart};

    sheet_fill(&x.rows, 1, 1, 0);
    return x;
}

static struct ls_tensor view_of(const struct heads *x, const struct ls_tensor *rows)
{
    struct ls_tensor t = *rows;

    t.ndim = 4;
    t.dim[2] = x->h;
    t.dim[3] = x->d;
    t.stride[2] = x->apart;
    t.stride[3] = 1;
    return t;
}

/* out may be x. */
static void rotate(struct heads *out, const struct heads *x, const struct ls_rotary *rotary,
                   const struct ls_row_runs *runs, bool back, int threads)
{
    struct mirror m = {.device = open_device(threads)};
    struct ls_tensor out_rows, x_rows;

    need_family(m.device->ops->pointwise, "pointwise operations");
    sheet_result(&out_rows, &m, &out->rows);
    if (out != x) mirror_input(&x_rows, &m, &x->rows.t);
    struct ls_tensor to = view_of(out, &out_rows),
                     from = view_of(x, out == x ? &out_rows : &x_rows);
    ls_rotate(&m.device->queue, &to, &from, rotary, runs, back);
    cr_assert_eq(ls_queue_finish(NULL, &m.device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(&m);
    ls_device_close(m.device);
}

/* Angles err by 1e-8, sine and cosine by a rounding each, products and sums by another. */
static void check_head(const struct heads *out, const struct heads *x,
                       const struct ls_rotary *rotary, const int64_t at[3], int64_t position,
                       bool back)
{
    const double u = x->rows.t.type == LS_BF16 ? 0x1p-8 : 0x1p-24;
    const int64_t first = at[2] * x->apart, pairs = rotary->dims / 2;
    double head[256];

    for (int64_t k = 0; k < x->d; k++) head[k] = sheet_load(&x->rows, at[0], at[1], first + k);
    ls_reference_rotate(head, rotary, position, back);
    for (int64_t k = 0; k < x->d; k++) {
        const double value = sheet_load(&out->rows, at[0], at[1], at[2] * out->apart + k);
        const double size =
            k >= 2 * pairs
                ? 0
                : fabs(sheet_load(&x->rows, at[0], at[1], first + k)) +
                      fabs(sheet_load(&x->rows, at[0], at[1], first + (k + pairs) % (2 * pairs)));

        cr_assert(fabs(value - head[k]) <= u * fabs(head[k]) + (0x1p-24 + 1.2e-8) * size,
                  "%s %s: position %ld head %ld element %ld is %.9g for %.9g", variant->name,
                  ls_dtype_name(x->rows.t.type), (long)position, (long)at[2], (long)k, value,
                  head[k]);
    }
}

/* From far in a sequence and in two runs out of order in the tensor. */
static void are_turned_by_their_positions(void)
{
    static const int64_t starts[] = {0, 255, 4095, 999990, 9999980};
    static const int64_t dims[] = {2, 6, 64, 80, 128}, widths[] = {2, 10, 64, 128, 128};
    double frequency[64];

    for (int i = 0; i < LENGTH(starts) * LENGTH(dims) * 2; i++) {
        const int64_t start = starts[i % LENGTH(starts)], d = widths[i / 2 % LENGTH(dims)];
        const struct ls_rotary rotary = {dims[i / 2 % LENGTH(dims)], frequency};
        const struct ls_row_run run[] = {{3, 4, start}, {0, 3, start + 9}};
        const struct ls_row_runs runs = {run, 2, start + 20};
        struct heads x = heads_create(i & 1 ? LS_BF16 : LS_F32, 2, 7, 3, d, d + i % 3);
        struct heads out = heads_create(x.rows.t.type, 2, 7, 3, d, d);

        memset(out.rows.memory, SHEET_FILL, out.rows.bytes);
        ls_rotary_frequencies(frequency, i % 3 ? 10000 : 500000, rotary.dims);
        for (int back = 0; back <= 1; back++) {
            rotate(&out, &x, &rotary, &runs, back, i % 4 + 1);
            for (int64_t j = 0; j < 2 * 7 * 3; j++) {
                const int64_t at[] = {j / 21, j / 3 % 7, j % 3};

                check_head(&out, &x, &rotary, at,
                           at[1] >= 3 ? start + at[1] - 3 : start + 9 + at[1], back);
            }
        }
        sheet_expect_untouched_around(&out.rows, "out");
        rotate(&x, &x, &rotary, &runs, true, 2);
        for (int64_t j = 0; j < 2 * 7 * 3 * d; j++)
            cr_assert_eq(
                sheet_load(&x.rows, j / d / 21, j / d / 3 % 7, j / d % 3 * x.apart + j % d),
                sheet_load(&out.rows, j / d / 21, j / d / 3 % 7, j % (3 * d)), "in place");
        free(x.rows.memory);
        free(out.rows.memory);
    }
}

/* The same bits for all cuts and threads, in any rounding. */
static void do_not_depend_on_cut_and_threads(void)
{
    double frequency[16];
    const struct ls_rotary rotary = {32, frequency};
    struct part all;

    ls_rotary_frequencies(frequency, 10000, 32);
    part_init(&all, 61, 0, 0, 1);
    for (int i = 0; i < CUTS * MOST_PARTS; i++) {
        const int cut = i % CUTS, parts = i / CUTS + 1;
        struct heads x = heads_create(i % 2 ? LS_BF16 : LS_F32, 2, 61, 2, 40, 40);
        struct heads out = heads_create(x.rows.t.type, 2, 61, 2, 40, 40), cuts = out;

        cuts.rows = sheet_create(x.rows.t.type, 2, 61, 80, 0);
        rotate(&out, &x, &rotary, &all.runs, false, 1);
        for (int part = 0; part < parts; part++) {
            struct part p;

            part_init(&p, 61, cut, part, parts);
            struct heads mine = {part_of_sheet(&x.rows, &p, 1), 2, 40, 40};
            fesetround(i % 3 ? FE_TONEAREST : FE_DOWNWARD);
            rotate(&mine, &mine, &rotary, &p.runs, false, i % 5 + 1);
            fesetround(FE_TONEAREST);
            part_into_sheet(&cuts.rows, &p, &mine.rows);
            free(mine.rows.memory);
        }
        sheet_expect_equal(&out.rows, &cuts.rows, "a cut");
        free(x.rows.memory);
        free(out.rows.memory);
        free(cuts.rows.memory);
    }
}

TEST_EACH_VARIANT(rotary, are_turned_by_their_positions)
TEST_EACH_VARIANT(rotary, do_not_depend_on_cut_and_threads)
