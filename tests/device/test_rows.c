/* Rows are copied and cleared wherever they lie, by any number of threads, and nothing beside them
 * is touched. */
#include "device/rows.h"
#include "harness.h"
#include "tensor/dtype.h"

enum { AROUND = 64 }; /* bytes on either side, which stay */

/* A tensor whose dimensions lie in memory in this order, with a gap behind each row of the last. */
struct placed {
    struct ls_tensor t;
    unsigned char *memory;
    size_t bytes;
};

static struct placed place(ls_dtype type, int ndim, const int64_t *dim, const int *order,
                           int64_t gap)
{
    struct placed p = {.t = ls_tensor_view(NULL, type, ndim, dim)};
    int64_t stride = dim[ndim - 1] + gap;

    for (int i = ndim - 2; i >= 0; i--) {
        p.t.stride[order[i]] = stride;
        stride *= dim[order[i]];
    }
    p.bytes = (size_t)stride * (size_t)ls_dtype_size(type) + 2 * AROUND;
    p.memory = malloc(p.bytes);
    p.t.data = p.memory + AROUND;
    return p;
}

static unsigned char *row_at(const struct placed *p, int64_t i, int64_t j, int64_t k)
{
    const int64_t at[] = {i, j, k};
    int64_t element = 0;

    for (int a = 0; a < p->t.ndim - 1; a++) element += at[a] * p->t.stride[a];
    return (unsigned char *)p->t.data + element * ls_dtype_size(p->t.type);
}

/* The same with one row after the other; from NULL: zeros. */
static void fill_plainly(const struct placed *to, const struct placed *from)
{
    const int n = to->t.ndim;
    const int64_t dim[] = {n > 1 ? to->t.dim[0] : 1, n > 2 ? to->t.dim[1] : 1,
                           n > 3 ? to->t.dim[2] : 1};
    const size_t bytes = (size_t)(to->t.dim[n - 1] * ls_dtype_size(to->t.type));

    for (int64_t i = 0; i < dim[0]; i++)
        for (int64_t j = 0; j < dim[1]; j++)
            for (int64_t k = 0; k < dim[2]; k++) {
                if (from)
                    memcpy(row_at(to, i, j, k), row_at(from, i, j, k), bytes);
                else
                    memset(row_at(to, i, j, k), 0, bytes);
            }
}

static void check(ls_dtype type, int ndim, const int64_t *dim, const int *to_order,
                  const int *from_order, int64_t gap)
{
    struct placed from = place(type, ndim, dim, from_order, 0);

    for (size_t i = 0; i < from.bytes; i++) from.memory[i] = (unsigned char)(i * 7 + 1);
    for (int threads = 1; threads <= 5; threads++) {
        struct mirror mirror = {.device = open_device(threads)};
        struct ls_queue *queue = &mirror.device->queue;

        need_family(mirror.device->ops->rows, "rows");
        for (int zero = 0; zero <= 1; zero++) {
            struct placed to = place(type, ndim, dim, to_order, gap);
            struct placed plain = place(type, ndim, dim, to_order, gap);

            memset(to.memory, 0xa5, to.bytes);
            memset(plain.memory, 0xa5, plain.bytes);
            fill_plainly(&plain, zero ? NULL : &from);
            struct ls_tensor to_t, from_t;

            mirror_result(&mirror, to.memory, to.bytes);
            mirror_output(&to_t, &mirror, &to.t);
            mirror_input(&from_t, &mirror, &from.t);
            if (zero)
                ls_zero(queue, &to_t);
            else
                ls_copy(queue, &to_t, &from_t);
            cr_assert_eq(ls_queue_finish(NULL, queue), LS_OK, "%s", ls_message());
            mirror_read_back(&mirror);
            cr_assert_eq(memcmp(to.memory, plain.memory, to.bytes), 0,
                         "%s of %d dimensions, %ld x .. x %ld, gap %ld, %d threads",
                         zero ? "zeros" : "a copy", ndim, (long)dim[0], (long)dim[ndim - 1],
                         (long)gap, threads);
            free(plain.memory);
            free(to.memory);
        }
    }
    free(from.memory);
}

/* bshd, bhsd, one after the other, and what a team is worth for. */
static void are_copied_and_cleared_wherever_they_lie(void)
{
    static const int64_t dims[][4] = {{2, 37, 3, 8},   {1, 1, 1, 1},  {3, 1, 5, 64},
                                      {1, 700, 8, 64}, {2, 5, 0, 16}, {2, 300, 7, 1}};
    static const int orders[][3] = {{0, 1, 2}, {0, 2, 1}, {2, 1, 0}, {1, 0, 2}};
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F64};

    for (int i = 0; i < LENGTH(dims) * LENGTH(orders) * LENGTH(orders); i++)
        check(types[i % LENGTH(types)], 4, dims[i / LENGTH(orders) / LENGTH(orders)],
              orders[i % LENGTH(orders)], orders[i / LENGTH(orders) % LENGTH(orders)], i % 3);
}

/* Of one run, which is cut for threads, and of two and three dimensions, as lse and sums are. */
static void may_be_of_any_dimensions(void)
{
    static const int straight[] = {0, 1, 2}, turned[] = {1, 0, 2};

    check(LS_F32, 1, (const int64_t[]){1000003}, straight, straight, 0);
    check(LS_F32, 2, (const int64_t[]){9, 70001}, straight, straight, 5);
    check(LS_F32, 3, (const int64_t[]){3, 17, 4099}, straight, turned, 1);
    check(LS_F16, 3, (const int64_t[]){3, 17, 0}, straight, turned, 1);
}

TEST_EACH_DEVICE(rows, are_copied_and_cleared_wherever_they_lie)
TEST_EACH_DEVICE(rows, may_be_of_any_dimensions)
