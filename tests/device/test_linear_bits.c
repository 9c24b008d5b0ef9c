/* What linear layers compute has the same bits by any number of threads, in any place among any
 * rows, and, of sums over tokens, however leaves were cut; and a row reaches nobody else. */
#include "linear_harness.h"

static const ls_dtype types[] = {LS_F32, LS_BF16};

static void run_all(struct layer *l, struct ls_device *device, struct ls_leaf_list leaves)
{
    struct ls_linear_kernel *kernel = open_kernel(device, &l->shape);

    run_forward(l, device, kernel, (struct forward){.bias = true, .gelu = true, .z = true});
    run_dx(l, device, kernel);
    if (leaves.count > 0) run_dw(l, device, kernel, leaves, false);
    ls_linear_kernel_destroy(device, kernel);
}

static void threads_change_no_bit(void)
{
    for (int i = 0; i < LENGTH(types); i++) {
        const struct ls_linear_shape shape = {types[i], 600, 1100, 77, true, 2, 300};
        struct layer one = {.shape = shape};
        struct ls_leaf leaf[MOST_LEAVES];
        const struct ls_leaf_list leaves = all_leaves(leaf, &shape);

        layer_open(&one, 0);
        run_all(&one, open_device(1), leaves);
        for (int threads = 2; threads <= 5; threads++) {
            struct layer many = {.shape = shape};

            layer_open(&many, 0);
            run_all(&many, open_device(threads), leaves);
            expect_same_rows(&one.y, &many.y, "y of several threads");
            expect_same_rows(&one.z, &many.z, "z of several threads");
            expect_same_rows(&one.dx, &many.dx, "dx of several threads");
            expect_same_rows(&one.dw, &many.dw, "dw of several threads");
            layer_close(&many);
        }
        layer_close(&one);
    }
}

/* Rows [first, first + n) of m. */
static struct matrix some_rows(const struct matrix *m, int64_t first, int64_t n)
{
    struct matrix part = *m;

    part.t.data = row_of(m, first);
    part.t.dim[0] = n;
    return part;
}

static void rows_have_their_bits_in_any_place(void)
{
    static const struct {
        int64_t first, n;
    } parts[] = {{0, 1}, {256, 1}, {100, 3}, {31, 33}, {1, 200}, {130, 127}};

    for (int i = 0; i < LENGTH(types) * LENGTH(parts); i++) {
        const int64_t first = parts[i / 2].first, n = parts[i / 2].n;
        struct layer whole = {.shape = {types[i % 2], 257, 1060, 75, true, 1, 257}};
        struct layer part = {.shape = whole.shape};

        layer_open(&whole, 0);
        run_all(&whole, open_device(1), (struct ls_leaf_list){0});
        part = whole;
        part.shape.rows = n;
        part.x = some_rows(&whole.x, first, n);
        part.dy = some_rows(&whole.dy, first, n);
        part.y = matrix_open(types[i % 2], n, 75, 0, MARK);
        part.z = matrix_open(types[i % 2], n, 75, 0, MARK);
        part.dx = matrix_open(types[i % 2], n, 1060, 0, MARK);
        run_all(&part, open_device(2), (struct ls_leaf_list){0});

        const struct matrix y = some_rows(&whole.y, first, n), z = some_rows(&whole.z, first, n);
        const struct matrix dx = some_rows(&whole.dx, first, n);
        expect_same_rows(&part.y, &y, "y of some rows");
        expect_same_rows(&part.z, &z, "z of some rows");
        expect_same_rows(&part.dx, &dx, "dx of some rows");
        free(part.y.memory);
        free(part.z.memory);
        free(part.dx.memory);
        layer_close(&whole);
    }
}

/* Rows [first, first + n) of a layer's tensors; its weights, if others are given in their place. */
static struct layer some_of(const struct layer *whole, int64_t first, int64_t n,
                            const struct matrix *weights)
{
    struct layer part = *whole;

    part.x = some_rows(&whole->x, first, n);
    part.dy = some_rows(&whole->dy, first, n);
    part.y = some_rows(&whole->y, first, n);
    part.z = some_rows(&whole->z, first, n);
    part.dx = some_rows(&whole->dx, first, n);
    part.packed = weights != NULL;
    if (weights) part.w = *weights;
    return part;
}

/* Weights are packed with the first of them, and those that later calls name are not read. */
static void rows_may_come_in_pieces(void)
{
    static const int64_t first[] = {0, 100, 101, 101, 230};

    for (int i = 0; i < LENGTH(types); i++) {
        const struct ls_linear_shape shape = {types[i], 230, 1060, 75, true, 1, 230};
        struct layer whole = {.shape = shape}, pieces = {.shape = shape};
        struct ls_device *device = open_device(2);
        struct ls_linear_kernel *kernel = open_kernel(device, &shape);
        struct matrix spoilt = matrix_open(types[i], 75, 1060, 0, 0xff);

        layer_open(&whole, 0);
        layer_open(&pieces, 0);
        run_all(&whole, device, (struct ls_leaf_list){0});
        for (int dx = 0; dx < 2; dx++)
            for (int j = 0; j + 1 < LENGTH(first); j++) {
                struct layer part =
                    some_of(&pieces, first[j], first[j + 1] - first[j], j > 0 ? &spoilt : NULL);

                if (dx)
                    run_dx(&part, device, kernel);
                else
                    run_forward(&part, device, kernel,
                                (struct forward){.bias = true, .gelu = true, .z = true});
            }
        expect_same_rows(&whole.y, &pieces.y, "y of pieces");
        expect_same_rows(&whole.z, &pieces.z, "z of pieces");
        expect_same_rows(&whole.dx, &pieces.dx, "dx of pieces");
        free(spoilt.memory);
        ls_linear_kernel_destroy(device, kernel);
        layer_close(&pieces);
        layer_close(&whole);
    }
}

/* ---- leaves */

static void add_matrix(struct matrix *into, const struct matrix *from)
{
    for (int64_t r = 0; r < into->t.dim[0]; r++)
        for (int64_t c = 0; c < into->t.dim[1]; c++)
            ((float *)(void *)row_of(into, r))[c] += ((float *)(void *)row_of(from, r))[c];
}

/* dw of leaves numbered [first, end), by calls of one leaf each: the tree, as it is defined. */
static struct matrix sum_by_tree(struct layer *l, struct ls_device *device,
                                 struct ls_linear_kernel *kernel, struct ls_leaf_list leaves,
                                 int64_t first, int64_t end)
{
    struct layer own = *l;
    int64_t half = 1;

    if (end - first == 1) {
        own.dw = matrix_open(LS_F32, l->shape.out, l->shape.in, 0, MARK);
        run_dw(&own, device, kernel, (struct ls_leaf_list){leaves.leaf + first, 1}, false);
        return own.dw;
    }
    while (2 * half < end - first) half *= 2;
    struct matrix left = sum_by_tree(l, device, kernel, leaves, first, first + half);
    struct matrix right = sum_by_tree(l, device, kernel, leaves, first + half, end);
    add_matrix(&left, &right);
    free(right.memory);
    return left;
}

/* Eleven leaves of two sequences and a third that is not here, in one call; as the tree has them;
 * and in two calls that meet at a node. */
static void leaves_are_added_by_the_tree(void)
{
    for (int i = 0; i < LENGTH(types); i++) {
        struct layer l = {.shape = {types[i], 2 * 1400, 40, 35, true, 3, 1400}};
        struct ls_device *device = open_device(2);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);
        struct ls_leaf leaf[MOST_LEAVES + 8];
        struct ls_leaf_list leaves = {leaf, 0};

        for (; leaves.count < 11; leaves.count++) {
            const int64_t n = leaves.count;

            leaf[n] = (struct ls_leaf){n, n / 6 * 1400 + n % 6 * LS_LEAF};
        }
        layer_open(&l, 0);
        struct matrix tree = sum_by_tree(&l, device, kernel, leaves, 0, leaves.count);
        run_dw(&l, device, kernel, leaves, false);
        expect_same_rows(&l.dw, &tree, "dw of all leaves at once");
        run_dw(&l, device, kernel, (struct ls_leaf_list){leaf, 8}, false);
        run_dw(&l, device, kernel, (struct ls_leaf_list){leaf + 8, 3}, true);
        expect_same_rows(&l.dw, &tree, "dw of two nodes");
        free(tree.memory);
        layer_close(&l);
        ls_linear_kernel_destroy(device, kernel);
    }
}

/* Those left out are of other ranks: what waits beside them is added when something behind comes.
 */
static void leaves_may_be_left_out(void)
{
    static const int numbers[] = {1, 2, 4, 5};

    for (int i = 0; i < LENGTH(types); i++) {
        struct layer l = {.shape = {types[i], 4 * LS_LEAF, 40, 35, true, 1, 6 * LS_LEAF}};
        struct ls_device *device = open_device(2);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);
        struct ls_leaf leaf[LENGTH(numbers)];
        const struct ls_leaf_list leaves = {leaf, LENGTH(numbers)};

        for (int n = 0; n < LENGTH(numbers); n++)
            leaf[n] = (struct ls_leaf){numbers[n], n * LS_LEAF};
        layer_open(&l, 0);
        struct matrix tree = sum_by_tree(&l, device, kernel, leaves, 0, leaves.count);
        run_dw(&l, device, kernel, leaves, false);
        expect_same_rows(&l.dw, &tree, "dw of some leaves");
        free(tree.memory);
        layer_close(&l);
        ls_linear_kernel_destroy(device, kernel);
    }
}

/* Leaves 1, 4, 6, 7, 9 of which each has its place in the tree, wherever their rows are. */
static void leaves_may_be_anywhere(void)
{
    static const int64_t numbers[] = {1, 4, 6, 7, 9}, places[] = {3, 0, 4, 1, 2};
    enum { COUNT = LENGTH(numbers) };

    for (int i = 0; i < LENGTH(types); i++) {
        struct layer l = {.shape = {types[i], COUNT * LS_LEAF, 33, 50, true, 1, 10 * LS_LEAF}};
        struct ls_device *device = open_device(1);
        struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);
        struct ls_leaf leaf[COUNT];
        struct matrix alone[COUNT];

        layer_open(&l, 0);
        for (int n = 0; n < COUNT; n++) leaf[n] = (struct ls_leaf){numbers[n], places[n] * LS_LEAF};
        for (int n = 0; n < COUNT; n++)
            alone[n] =
                sum_by_tree(&l, device, kernel, (struct ls_leaf_list){leaf, COUNT}, n, n + 1);
        add_matrix(&alone[2], &alone[3]); /* 6 and 7 */
        add_matrix(&alone[1], &alone[2]);
        add_matrix(&alone[0], &alone[1]);
        add_matrix(&alone[0], &alone[4]);
        run_dw(&l, device, kernel, (struct ls_leaf_list){leaf, COUNT}, false);
        expect_same_rows(&l.dw, &alone[0], "dw of scattered leaves");
        for (int n = 0; n < COUNT; n++) free(alone[n].memory);
        layer_close(&l);
        ls_linear_kernel_destroy(device, kernel);
    }
}

static void no_rows_and_no_leaves_are_fine(void)
{
    struct layer l = {.shape = {LS_BF16, 30, 40, 35, true, 1, 30}};
    struct ls_device *device = open_device(2);
    struct ls_linear_kernel *kernel = open_kernel(device, &l.shape);

    layer_open(&l, 2);
    run_dw(&l, device, kernel, (struct ls_leaf_list){0}, true);
    cr_expect_eq(((uint32_t *)l.dw.t.data)[39], 0xa5a5a5a5, "nothing is added");
    run_dw(&l, device, kernel, (struct ls_leaf_list){0}, false);
    for (int64_t r = 0; r < 35; r++)
        for (int64_t c = 0; c < 40; c++) cr_assert_eq(((float *)(void *)row_of(&l.dw, r))[c], 0);
    expect_marks_around(&l.dw, "dw");

    struct layer none = l;
    none.x.t.dim[0] = none.y.t.dim[0] = none.dy.t.dim[0] = none.dx.t.dim[0] = 0;
    run_forward(&none, device, kernel, (struct forward){.bias = true});
    run_dx(&none, device, kernel);
    expect_marks_around(&none.y, "y of no rows");
    expect_marks_around(&none.dx, "dx of no rows");
    layer_close(&l);
    ls_linear_kernel_destroy(device, kernel);
}

/* ---- NaN */

static void fill_row(struct matrix *m, int64_t row, double value)
{
    for (int64_t c = 0; c < m->t.dim[1]; c++)
        ls_dtype_store(m->t.type, row_of(m, row) + c * (int64_t)ls_dtype_size(m->t.type), value);
}

/* All rows of `found` but this one are as in `clean`, and this one is not finite at all. */
static void expect_only_row(const struct matrix *found, const struct matrix *clean, int64_t row,
                            const char *what)
{
    double *value = matrix_widen(found);

    for (int64_t r = 0; r < clean->t.dim[0]; r++) {
        if (r != row)
            cr_assert_eq(memcmp(row_of(found, r), row_of(clean, r), row_bytes(clean)), 0,
                         "%s: row %ld noticed row %ld", what, (long)r, (long)row);
        for (int64_t c = 0; r == row && c < clean->t.dim[1]; c++)
            cr_assert(!isfinite(value[r * clean->t.dim[1] + c]), "%s: row %ld is finite", what,
                      (long)r);
    }
    free(value);
}

static void what_is_not_finite_stays_in_its_row(void)
{
    static const double values[] = {NAN, INFINITY};

    for (int i = 0; i < LENGTH(types) * LENGTH(values); i++) {
        struct layer clean = {.shape = {types[i % 2], 70, 45, 50, true, 1, 70}};
        struct layer bad = {.shape = clean.shape};
        struct ls_device *device = open_device(1);

        layer_open(&clean, 0);
        layer_open(&bad, 0);
        fill_row(&bad.x, 33, values[i / 2]);
        fill_row(&bad.dy, 68, values[i / 2]);
        run_all(&clean, device, (struct ls_leaf_list){0});
        run_all(&bad, device, (struct ls_leaf_list){0});
        expect_only_row(&bad.z, &clean.z, 33, "z");
        expect_only_row(&bad.dx, &clean.dx, 68, "dx");
        layer_close(&clean);
        layer_close(&bad);
    }
}

TEST_EACH_VARIANT(linear_bits, threads_change_no_bit)
TEST_EACH_VARIANT(linear_bits, rows_have_their_bits_in_any_place)
TEST_EACH_VARIANT(linear_bits, rows_may_come_in_pieces)
TEST_EACH_VARIANT(linear_bits, leaves_are_added_by_the_tree)
TEST_EACH_VARIANT(linear_bits, leaves_may_be_left_out)
TEST_EACH_VARIANT(linear_bits, leaves_may_be_anywhere)
TEST_EACH_VARIANT(linear_bits, what_is_not_finite_stays_in_its_row)
TEST_EACH_DEVICE(linear_bits, no_rows_and_no_leaves_are_fine)
