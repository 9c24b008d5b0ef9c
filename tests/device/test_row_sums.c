/* Sums over rows are those of the one tree, bit for bit, however many threads add them and however
 * rows are cut and lie. */
#include "device/rows.h"

#include <math.h>

#include "nodes.h"

static void sum_part(struct nodes *n, const struct sheet *x, const struct part *p, int threads)
{
    struct mirror mirror = {.device = open_device(threads)};
    struct ls_queue *const queue = &mirror.device->queue;
    const int64_t e = x->t.dim[2];
    const size_t bytes = ls_row_sums_bytes(mirror.device, x->t.dim[0] * p->rows, e);
    const struct ls_row_order order = nodes_add(n, p, x->t.dim[0]);
    struct ls_tensor there;
    void *scratch;

    cr_assert_eq(ls_device_alloc(&scratch, mirror.device, LS_TAG_WORKSPACE, bytes), LS_OK);
    ls_row_sums(queue, nodes_mirror(&mirror, n), mirror_input(&there, &mirror, &x->t), &order,
                scratch);
    cr_assert_eq(ls_queue_finish(NULL, queue), LS_OK, "%s", ls_message());
    mirror_read_back(&mirror);
    ls_device_free(mirror.device, scratch);
    ls_device_close(mirror.device);
}

/* sum [e] = over all rows of x, cut so. */
static void sum_parts(float *sum, const struct sheet *x, int cut, int parts, int threads)
{
    const int64_t b = x->t.dim[0], s = x->t.dim[1], e = x->t.dim[2];
    struct nodes *const n = nodes_create(e);

    for (int i = parts - 1; i >= 0; i--) {
        struct part p;

        part_init(&p, s, cut, i, parts);
        struct sheet rows = part_of_sheet(x, &p, i);
        sum_part(n, &rows, &p, threads);
        free(rows.memory);
    }
    for (int64_t i = n->slots * e; i < MOST_NODES * e; i++)
        cr_assert_eq(((unsigned char *)&n->sum[i])[1], SHEET_FILL, "beside the nodes");
    memcpy(sum, nodes_merge(n, b * s), (size_t)e * sizeof *sum);
    nodes_destroy(n);
}

static void row_of_sheet(float *out, const void *what, int64_t i)
{
    const struct sheet *x = what;
    const int64_t s = x->t.dim[1];

    ls_dtype_convert(out, LS_F32, sheet_at(x, i / s, i % s, 0), x->t.type, x->t.dim[2]);
}

static void tree_sum(float *sum, const struct sheet *x)
{
    const int64_t rows = x->t.dim[0] * x->t.dim[1];
    int level = 0;

    while (INT64_C(1) << level < rows) level++;
    tree_of_rows(sum, row_of_sheet, x, 0, level, rows, x->t.dim[2]);
}

static void check(const struct sheet *x, int cut, int parts, int threads)
{
    const int64_t e = x->t.dim[2];
    float *const sum = malloc((size_t)e * sizeof *sum), *const tree =
                                                            malloc((size_t)e * sizeof *tree);

    sum_parts(sum, x, cut, parts, threads);
    tree_sum(tree, x);
    cr_assert_eq(memcmp(sum, tree, (size_t)e * sizeof *sum), 0,
                 "%s b %ld s %ld e %ld, cut %d of %d, %d threads", ls_dtype_name(x->t.type),
                 (long)x->t.dim[0], (long)x->t.dim[1], (long)e, cut, parts, threads);
    free(sum);
    free(tree);
}

/* Rows of widely different size, so that each order of addition gives other bits. */
static struct sheet uneven_rows(ls_dtype type, int64_t b, int64_t s, int64_t e)
{
    struct sheet x = sheet_create(type, b, s, e, 3);

    sheet_fill(&x, 1, 1, 0);
    for (int64_t i = 0; i < b * s; i++)
        for (int64_t k = 0; k < e; k++)
            sheet_store(&x, i / s, i % s, k,
                        ldexp(sheet_load(&x, i / s, i % s, k), (int)(i * 7 % 5)));
    return x;
}

static void are_those_of_the_tree(void)
{
    static const int64_t lengths[] = {1, 2, 3, 8, 13, 257, 700}, widths[] = {1, 5, 77, 768, 1000};

    need_family(open_device(1)->ops->rows, "rows");
    for (int i = 0; i < LENGTH(lengths) * LENGTH(widths); i++)
        for (int64_t b = 1; b <= 2; b++) {
            struct sheet x = uneven_rows(i % 2 ? LS_BF16 : LS_F32, b, lengths[i / LENGTH(widths)],
                                         widths[i % LENGTH(widths)]);

            check(&x, i % CUTS, i % MOST_PARTS + 1, i % 5 + 1);
            free(x.memory);
        }
}

static void do_not_depend_on_cut_and_threads(void)
{
    need_family(open_device(1)->ops->rows, "rows");
    for (int type = 0; type <= 1; type++)
        for (int64_t s = 100; s <= 357; s += 257) {
            struct sheet x = uneven_rows(type ? LS_BF16 : LS_F32, 2, s, 301);

            for (int i = 0; i < CUTS * MOST_PARTS * 5; i++)
                check(&x, i / 5 % CUTS, i / 5 / CUTS + 1, i % 5 + 1);
            free(x.memory);
        }
}

static void have_the_nan_of_their_column_only(void)
{
    struct sheet x = uneven_rows(LS_BF16, 2, 57, 40);
    float sum[40], clean[40];

    need_family(open_device(1)->ops->rows, "rows");
    sum_parts(clean, &x, 0, 2, 2);
    sheet_store(&x, 1, 33, 17, NAN);
    sum_parts(sum, &x, 0, 2, 2);
    for (int k = 0; k < 40; k++)
        cr_expect(k == 17 ? isnan(sum[k]) : sum[k] == clean[k], "column %d", k);
    free(x.memory);
}

/* Subnormals are kept, and rounding is to nearest, whatever the caller has set. */
static void do_not_depend_on_the_callers_float_mode(void)
{
    struct sheet x = uneven_rows(LS_F32, 1, 300, 33);
    float sum[33], other[33];

    need_family(open_device(1)->ops->rows, "rows");
    sum_parts(sum, &x, 0, 1, 2);
    fesetround(FE_UPWARD);
    sum_parts(other, &x, 0, 1, 2);
    cr_expect_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    cr_expect_eq(memcmp(sum, other, sizeof sum), 0);
    free(x.memory);
}

TEST_EACH_VARIANT(row_sums, are_those_of_the_tree)
TEST_EACH_VARIANT(row_sums, do_not_depend_on_cut_and_threads)
TEST_EACH_DEVICE(row_sums, have_the_nan_of_their_column_only)
TEST_EACH_DEVICE(row_sums, do_not_depend_on_the_callers_float_mode)
