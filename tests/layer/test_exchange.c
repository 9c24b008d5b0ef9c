/* A grid of ranks: rows outside of attention and MLP are shared by tensor-parallel ranks, gathered
 * for the inside and summed on the way back, whatever divides, beside a linear or by themselves;
 * and no byte is sent that need not be. */
#include "layer/exchange.h"
#include "tensors.h"

MPI_SUITE(exchange)

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

static struct ls_tensor create_rows(struct side *x, const struct shape *s, int64_t rows)
{
    return create_tensor(x->device, s->type, 3, (const int64_t[]){s->b, rows, s->e});
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
    x->inside = create_rows(x, s, s->rows);
    x->outside = x->grid.sp ? create_rows(x, s, x->own.count) : x->inside;
}

static void close_side(struct side *x)
{
    if (x->grid.sp) ls_device_free(x->device, x->outside.data);
    ls_device_free(x->device, x->inside.data);
    ls_exchange_fini(&x->exchange);
    ls_grid_fini(&x->grid);
    ls_device_close(x->device);
}

/* A number of few bits, of element i of rows from `first` on of all rows as one rank has them. */
static double number(const struct ls_tensor *t, int64_t first, int64_t i)
{
    const int64_t rows = t->dim[1], e = t->dim[2];

    return (double)((i / e / rows * 31 + (first + i / e % rows) * 7 + i % e * 3) % 61) / 4;
}

/* Every element of a tensor whose first row is this one of all. */
static void fill(const struct side *x, const struct ls_tensor *t, int64_t first, int addend)
{
    double *numbers = malloc((size_t)numbers_of(t) * sizeof *numbers + 1);

    for (int64_t i = 0; i < numbers_of(t); i++) numbers[i] = number(t, first, i) + addend;
    write_numbers(x->device, t, numbers);
    free(numbers);
}

/* Whether it is the number of each, so often, plus so much, rounded. */
static bool holds(const struct side *x, const struct ls_tensor *t, int64_t first, double times,
                  double plus)
{
    double *got = read_numbers(x->device, t), rounded;
    bool right = true;

    for (int64_t i = 0; i < numbers_of(t); i++) {
        ls_dtype_store(t->type, &rounded, number(t, first, i) * times + plus);
        right &= got[i] == ls_dtype_load(t->type, &rounded);
    }
    free(got);
    return right;
}

static void check_gather(struct side *x, const char *text)
{
    const int which = x->grid.context; /* groups hold different rows */

    fill(x, &x->inside, 0, 99);
    fill(x, &x->outside, x->grid.sp ? x->own.first : 0, which);
    MPI_CHECK_OK(ls_exchange_start_gather(&x->exchange, &x->inside, &x->outside));
    MPI_CHECK_OK(ls_exchange_wait(&x->exchange));
    MPI_CHECK(holds(x, &x->inside, 0, 1, which), "%s: gathered", text);
}

/* Rank i of a group adds i. */
static void check_sum(struct side *x, const char *text)
{
    const int t = x->grid.t;

    if (x->grid.sp) fill(x, &x->outside, 0, 99);
    fill(x, &x->inside, 0, x->grid.tensor);
    MPI_CHECK_OK(ls_exchange_start_sum(&x->exchange, &x->outside, &x->inside));
    MPI_CHECK_OK(ls_exchange_wait(&x->exchange));
    MPI_CHECK(holds(x, &x->outside, x->own.first, t, t * (t - 1) / 2.0), "%s: summed", text);
}

/* ---- beside a linear */

/* What its work has been given. */
struct pieces {
    const struct side *x;
    bool sums;    /* the work makes rows inside, else it reads them */
    bool as_told; /* the first one is called so, and rows are there when their turn comes */
    int count;
    int64_t rows; /* all of them */
    struct ls_exchange_piece first, last;
};

static struct ls_tensor piece_of(const struct side *x, const struct ls_exchange_piece *piece)
{
    const int64_t e = x->inside.dim[2];

    return ls_tensor_view((char *)x->inside.data + piece->first * e * ls_dtype_size(x->inside.type),
                          x->inside.type, 2, (const int64_t[]){piece->count, e});
}

static void take_piece(const void *job, const struct ls_exchange_piece *piece)
{
    struct pieces *p = (struct pieces *)job;
    const struct side *x = p->x;
    const struct ls_tensor rows = piece_of(x, piece);
    double *numbers = read_numbers(x->device, &rows);

    p->as_told &= piece->is_first == (p->count == 0);
    for (int64_t i = 0; i < numbers_of(&rows); i++) {
        const double base = number(&x->inside, 0, piece->first * rows.dim[1] + i);

        p->as_told &= p->sums || numbers[i] == base + x->grid.context;
        numbers[i] = base + x->grid.tensor;
    }
    if (p->sums) write_numbers(x->device, &rows, numbers);
    free(numbers);
    if (p->count++ == 0) p->first = *piece;
    p->last = *piece;
    p->rows += piece->count;
}

/* All rows come once; by rank, if these have rows one after the other. */
static void check_pieces(const struct pieces *p, const struct shape *s, const char *text)
{
    const struct side *x = p->x;
    const bool by_rank = x->grid.sp && s->b == 1 && s->rows % x->grid.t == 0;
    const struct ls_exchange_piece *own = p->sums ? &p->last : &p->first;

    MPI_CHECK(p->as_told && p->rows == s->b * s->rows, "%s: pieces", text);
    MPI_CHECK(p->count == (by_rank ? x->grid.t : 1), "%s: %d pieces", text, p->count);
    MPI_CHECK(!by_rank || (own->first == x->own.first && own->count == x->own.count),
              "%s: own rows from %ld", text, (long)own->first);
}

static void check_gather_beside(struct side *x, const struct shape *s, const char *text)
{
    struct pieces p = {.x = x, .as_told = true};

    fill(x, &x->inside, 0, 99);
    fill(x, &x->outside, x->grid.sp ? x->own.first : 0, x->grid.context);
    MPI_CHECK_OK(ls_exchange_gather_beside(&x->exchange, &x->inside, &x->outside,
                                           &(struct ls_exchange_work){take_piece, &p}));
    check_pieces(&p, s, text);
}

static void check_sum_beside(struct side *x, const struct shape *s, const char *text)
{
    const int t = x->grid.t;
    struct pieces p = {.x = x, .sums = true, .as_told = true};
    const struct ls_tensor parts = create_rows(x, s, s->rows);

    fill(x, &x->inside, 0, 99);
    MPI_CHECK_OK(ls_exchange_sum_beside(&x->exchange, &x->outside, &x->inside, &parts,
                                        &(struct ls_exchange_work){take_piece, &p}));
    check_pieces(&p, s, text);
    MPI_CHECK(holds(x, &x->outside, x->own.first, t, t * (t - 1) / 2.0), "%s: summed beside", text);
    ls_device_free(x->device, parts.data);
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
            x.traffic.bytes_sent = 0;
            check_gather_beside(&x, s, text);
            check_sum_beside(&x, s, text);
            check_bytes(&x, s, text);
            close_side(&x);
        }
}

/* A rank's part for adds_bf16_in_f32. */
static void make_part(const void *job, const struct ls_exchange_piece *piece)
{
    const struct side *x = job;
    const struct ls_tensor rows = piece_of(x, piece);

    write_everywhere(x->device, &rows, x->grid.tensor ? 0x1p-9 : 1);
}

static void sum_parts(struct side *x, const struct shape *s, bool beside)
{
    const struct ls_tensor parts = create_rows(x, s, s->rows);

    if (beside) {
        MPI_CHECK_OK(ls_exchange_sum_beside(&x->exchange, &x->outside, &x->inside, &parts,
                                            &(struct ls_exchange_work){make_part, x}));
    } else {
        make_part(x, &(struct ls_exchange_piece){0, s->rows, true});
        MPI_CHECK_OK(ls_exchange_start_sum(&x->exchange, &x->outside, &x->inside));
        MPI_CHECK_OK(ls_exchange_wait(&x->exchange));
    }
    ls_device_free(x->device, parts.data);
}

/* Half of 2^-8 is lost when added to 1 in bf16 and kept in f32: 1 + 3 x 2^-9 is above 1 + 2^-7. */
MPI_TEST(exchange, adds_bf16_in_f32)
{
    const struct shape s = {1, 12 * size, 8, LS_BF16};
    const double exact = 1 + (size - 1) * 0x1p-9;
    uint16_t rounded;

    ls_dtype_store(LS_BF16, &rounded, exact);
    for (int i = 0; i < 4; i++) {
        struct side x;
        bool right = true;

        open_side(&x, &s, size, i % 2);
        sum_parts(&x, &s, i / 2);
        double *got = read_numbers(x.device, &x.outside);
        for (int64_t k = 0; k < numbers_of(&x.outside); k++)
            right &= got[k] == ls_dtype_load(LS_BF16, &rounded);
        free(got);
        MPI_CHECK(right, "sp %d, beside %d: not %g", i % 2, i / 2, exact);
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
