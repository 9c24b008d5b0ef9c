/* A grid of ranks: rows outside of attention and MLP are shared by tensor-parallel ranks, gathered
 * for the inside and summed on the way back, whatever divides; and no byte is sent that need not
 * be. */
#include "../mpi/harness.h"
#include "layer/exchange.h"
#include "tensor/dtype.h"

MPI_SUITE(exchange)

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* A grid on all ranks, and one exchange between tensor-parallel ones. */
struct side {
    struct ls_device *device;
    struct ls_grid grid;
    struct ls_traffic traffic;
    struct ls_exchange exchange;
    struct ls_tensor inside, outside;
    struct ls_outer_rows own;
};

static const struct shape {
    int64_t b, rows, e;
    ls_dtype type;
} shapes[] = {
    {1, 24, 5, LS_BF16},  {1, 25, 7, LS_F32}, {3, 24, 4, LS_F32},
    {2, 31, 16, LS_BF16}, {2, 1, 3, LS_F32},  {1, 0, 8, LS_BF16},
};

static struct ls_tensor tensor(struct side *x, const struct shape *s, int64_t rows)
{
    const int64_t dim[] = {s->b, rows, s->e};
    struct ls_tensor t = ls_tensor_view(NULL, s->type, 3, dim);

    MPI_CHECK_OK(ls_device_alloc(&t.data, x->device, LS_TAG_ACTIVATION,
                                 (size_t)(s->b * rows * s->e + 1) * sizeof(float)));
    return t;
}

static void open_side(struct side *x, const struct shape *s, int t, bool sp)
{
    *x = (struct side){.device = NULL};
    MPI_CHECK_OK(ls_device_open(&x->device, "cpu", 0, 1));
    MPI_CHECK_OK(ls_grid_init(&x->grid, world, t, size / t, sp));
    const struct ls_transport transport = ls_transport_of(x->grid.tensor_ranks, &x->traffic);
    const size_t before = ls_ledger_live(ls_device_ledger(x->device), LS_TAG_COMM);

    MPI_CHECK_OK(ls_exchange_init(&x->exchange, &x->grid, &transport, &x->device->queue, s->b,
                                  s->rows, s->e, s->type));
    MPI_CHECK(ls_ledger_live(ls_device_ledger(x->device), LS_TAG_COMM) - before ==
                  ls_exchange_bytes(&x->grid, s->b, s->rows, s->e, s->type),
              "bytes of blocks");
    x->own = ls_grid_outer_rows(&x->grid, s->rows, x->grid.tensor);
    x->inside = tensor(x, s, s->rows);
    x->outside = x->grid.sp ? tensor(x, s, x->own.count) : x->inside;
}

static void close_side(struct side *x)
{
    if (x->grid.sp) ls_device_free(x->device, x->outside.data);
    ls_device_free(x->device, x->inside.data);
    ls_exchange_fini(&x->exchange);
    ls_grid_fini(&x->grid);
    ls_device_close(x->device);
}

static char *element(const struct ls_tensor *t, int64_t b, int64_t row, int64_t i)
{
    return (char *)t->data + (b * t->stride[0] + row * t->stride[1] + i) * ls_dtype_size(t->type);
}

/* A number of few bits, of an element of all rows as one rank has it. */
static double number(int64_t b, int64_t row, int64_t i, int of)
{
    return (double)((b * 31 + row * 7 + i * 3) % 61) / 4 + of;
}

/* Every element of a tensor whose first row is this one of all. */
static void fill(const struct ls_tensor *t, int64_t first, int of)
{
    for (int64_t b = 0; b < t->dim[0]; b++)
        for (int64_t row = 0; row < t->dim[1]; row++)
            for (int64_t i = 0; i < t->dim[2]; i++)
                ls_dtype_store(t->type, element(t, b, row, i), number(b, first + row, i, of));
}

/* Whether it is the number of each, so often, plus so much, rounded. */
static bool holds(const struct ls_tensor *t, int64_t first, double times, double plus)
{
    for (int64_t b = 0; b < t->dim[0]; b++)
        for (int64_t row = 0; row < t->dim[1]; row++)
            for (int64_t i = 0; i < t->dim[2]; i++) {
                double rounded;

                ls_dtype_store(t->type, &rounded, number(b, first + row, i, 0) * times + plus);
                if (memcmp(element(t, b, row, i), &rounded, (size_t)ls_dtype_size(t->type)) != 0)
                    return false;
            }
    return true;
}

static void check_gather(struct side *x, const char *text)
{
    const int which = x->grid.context; /* groups hold different rows */

    fill(&x->inside, 0, 99);
    fill(&x->outside, x->grid.sp ? x->own.first : 0, which);
    MPI_CHECK_OK(ls_exchange_start_gather(&x->exchange, &x->inside, &x->outside));
    MPI_CHECK_OK(ls_exchange_wait(&x->exchange));
    MPI_CHECK(holds(&x->inside, 0, 1, which), "%s: gathered", text);
}

/* Rank i of a group adds i. */
static void check_sum(struct side *x, const char *text)
{
    const int t = x->grid.t;

    if (x->grid.sp) fill(&x->outside, 0, 99);
    fill(&x->inside, 0, x->grid.tensor);
    MPI_CHECK_OK(ls_exchange_start_sum(&x->exchange, &x->outside, &x->inside));
    MPI_CHECK_OK(ls_exchange_wait(&x->exchange));
    MPI_CHECK(holds(&x->outside, x->own.first, t, t * (t - 1) / 2.0), "%s: summed", text);
}

/* Where rows divide: of each exchange (t - 1) / t of all rows, twice that of an all-reduce. */
static void check_bytes(const struct side *x, const struct shape *s, const char *text)
{
    const int64_t all = s->b * s->rows * s->e * ls_dtype_size(s->type), t = x->grid.t;
    const int64_t optimal = 2 * all / t * (t - 1);

    if (s->rows % t != 0 || (!x->grid.sp && s->b * s->rows * s->e % t != 0)) return;
    MPI_CHECK(x->traffic.bytes_sent == optimal, "%s: %ld bytes, not %ld", text,
              (long)x->traffic.bytes_sent, (long)optimal);
}

MPI_TEST(exchange, gathers_and_sums_rows)
{
    for (int t = 1; t <= size; t++)
        for (int i = 0; i < COUNT(shapes) * 2 && size % t == 0; i++) {
            const struct shape *s = &shapes[i / 2];
            struct side x;
            char text[80];

            snprintf(text, sizeof text, "t %d of %d, sp %d, rows %ld, b %ld", t, size, i % 2,
                     (long)s->rows, (long)s->b);
            open_side(&x, s, t, i % 2);
            for (int turn = 0; turn < 2; turn++) {
                x.traffic.bytes_sent = 0;
                check_gather(&x, text);
                check_sum(&x, text);
            }
            check_bytes(&x, s, text);
            close_side(&x);
        }
}

/* Half of 2^-8 is lost when added to 1 in bf16 and kept in f32: 1 + 3 x 2^-9 is above 1 + 2^-7. */
MPI_TEST(exchange, adds_bf16_in_f32)
{
    const struct shape s = {1, 12, 8, LS_BF16};

    for (int sp = 0; sp < 2; sp++) {
        struct side x;
        double exact = 1 + (size - 1) * 0x1p-9;
        uint16_t rounded;

        open_side(&x, &s, size, sp);
        for (int64_t i = 0; i < s.rows * s.e; i++)
            ls_dtype_store(LS_BF16, element(&x.inside, 0, 0, i), x.grid.tensor ? 0x1p-9 : 1);
        MPI_CHECK_OK(ls_exchange_start_sum(&x.exchange, &x.outside, &x.inside));
        MPI_CHECK_OK(ls_exchange_wait(&x.exchange));
        ls_dtype_store(LS_BF16, &rounded, exact);
        bool right = true;
        for (int64_t row = 0; row < x.outside.dim[1]; row++)
            right &= memcmp(element(&x.outside, 0, row, 3), &rounded, sizeof rounded) == 0;
        MPI_CHECK(right, "sp %d: not %g", sp, exact);
        close_side(&x);
    }
}

MPI_TEST(exchange, rows_are_shared_as_evenly_as_can_be)
{
    for (int t = 1; t <= 8; t++)
        for (int64_t n = 0; n < 40; n++) {
            const struct ls_grid grid = {.t = t, .c = 1, .sp = t > 1};
            int64_t next = 0;

            for (int i = 0; i < t; i++) {
                const struct ls_outer_rows rows = ls_grid_outer_rows(&grid, n, i);

                cr_assert(rows.first == next && rows.count == n / t + (i < n % t), "%ld on %d",
                          (long)n, t);
                next += rows.count;
            }
            cr_assert_eq(next, n);
        }
}

MPI_TEST(exchange, a_grid_of_other_ranks_is_refused)
{
    struct ls_grid grid;
    char text[80];

    snprintf(text, sizeof text, "%d tensor-parallel x 1 context-parallel ranks are not the %d",
             size + 1, size);
    check_failure(ls_grid_init(&grid, world, size + 1, 1, true), LS_EVALUE, text, "t too large");
    ls_grid_fini(&grid);
    check_failure(ls_grid_init(&grid, world, 0, size, true), LS_EVALUE, "0 tensor", "none");
    ls_grid_fini(&grid);
}
