/* The communication table over MPI, on any number of ranks. */
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "comm/transport.h"
#include "tensor/dtype.h"

MPI_SUITE(comm)

static struct ls_traffic traffic;

/* Room for so many messages. */
static struct ls_batch batch_of(int most)
{
    const struct ls_transport transport = ls_transport_of(world, &traffic);
    struct ls_batch batch;

    MPI_CHECK_OK(ls_batch_init(&batch, &transport, most));
    return batch;
}

static struct ls_batch collective_batch(void)
{
    const struct ls_transport transport = ls_transport_of(world, &traffic);
    struct ls_batch batch;

    MPI_CHECK_OK(ls_batch_init_collective(&batch, &transport));
    return batch;
}

static bool is_under_way(const struct ls_message *message, int n)
{
    bool any = false;

    for (int i = 0; i < n; i++) any |= message[i].handle != 0;
    return any;
}

static int next_rank(void)
{
    return (rank + 1) % size;
}

static int previous_rank(void)
{
    return (rank + size - 1) % size;
}

static void fill(char *bytes, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++) bytes[i] = (char)(seed * 31 + (int)(i % 251));
}

static bool is_filled(const char *bytes, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != (char)(seed * 31 + (int)(i % 251))) return false;
    return true;
}

MPI_TEST(comm, messages_of_uneven_sizes_travel_round_the_ring)
{
    /* around the sizes at which MPI changes its way of sending */
    static const size_t sizes[] = {0, 1, 4095, 4096, 65535, 65537, 1000003};
    char *in = malloc(1000100), *into = malloc(1000100);
    struct ls_batch batch = batch_of(2);
    int64_t sent = 0;

    traffic = (struct ls_traffic){0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const size_t in_bytes = sizes[i] + (size_t)rank;
        const size_t into_bytes = sizes[i] + (size_t)previous_rank();

        fill(in, in_bytes, rank);
        memset(into, 0, into_bytes + 1);
        ls_batch_receive(&batch, into, into_bytes, previous_rank());
        ls_batch_send(&batch, in, in_bytes, next_rank());
        MPI_CHECK_OK(ls_batch_run(&batch));
        MPI_CHECK(is_filled(into, into_bytes, previous_rank()), "%zu bytes", into_bytes);
        MPI_CHECK(into[into_bytes] == 0, "%zu bytes: one too many", into_bytes);
        MPI_CHECK_OK(ls_batch_wait(&batch));
        sent += (int64_t)in_bytes;
    }
    MPI_CHECK(traffic.bytes_sent == sent, "%ld counted", (long)traffic.bytes_sent);
    ls_batch_fini(&batch);
    free(in);
    free(into);
}

/* Batches of several messages for every rank, several of them under way. */
MPI_TEST(comm, messages_between_two_ranks_keep_their_order)
{
    enum { BATCHES = 8, EACH = 8, ALL = BATCHES * EACH };
    const int n = ALL * size;
    int *in = malloc(sizeof(int) * (size_t)n), *into = malloc(sizeof(int) * (size_t)n);
    struct ls_batch batch[BATCHES];
    bool right = true;

    for (int i = 0; i < BATCHES; i++) {
        batch[i] = batch_of(2 * EACH * size);
        for (int r = size - 1; r >= 0; r--)
            for (int j = 0; j < EACH; j++) {
                const int at = r * ALL + i * EACH + j;

                in[at] = 1000000 * rank + at;
                ls_batch_send(&batch[i], &in[at], sizeof(int), r);
                ls_batch_receive(&batch[i], &into[at], sizeof(int), r);
            }
        MPI_CHECK_OK(ls_batch_start(&batch[i]));
    }
    for (int i = BATCHES - 1; i >= 0; i--) MPI_CHECK_OK(ls_batch_wait(&batch[i]));
    for (int r = 0; r < size; r++)
        for (int i = 0; i < ALL; i++) right &= into[r * ALL + i] == 1000000 * r + rank * ALL + i;
    MPI_CHECK(right, "%d messages", n);
    for (int i = 0; i < BATCHES; i++) ls_batch_fini(&batch[i]);
    free(in);
    free(into);
}

MPI_TEST(comm, what_moves_traffic_along_completes_what_has_both_sides)
{
    enum { BYTES = 3 << 20 };
    char *in = malloc(BYTES), *into = malloc(BYTES);
    struct ls_batch comes = batch_of(1), goes = batch_of(1);
    struct ls_progress mover = {0};

    traffic = (struct ls_traffic){.mover = &mover};
    fill(in, BYTES, rank);
    ls_batch_receive(&comes, into, BYTES, previous_rank());
    MPI_CHECK(mover.call == NULL, "nothing is under way");
    MPI_CHECK_OK(ls_batch_start(&comes));
    MPI_CHECK(mover.call == ls_traffic_move && mover.context == &traffic, "who moves it");
    mover.call(mover.context);
    MPI_CHECK(is_under_way(comes.message, 1), "done before anybody sent");
    MPI_CHECK_OK(ls_comm_barrier(world));
    ls_batch_send(&goes, in, BYTES, next_rank());
    MPI_CHECK_OK(ls_batch_start(&goes));
    while (is_under_way(comes.message, 1) || is_under_way(goes.message, 1))
        mover.call(mover.context);
    MPI_CHECK(is_filled(into, BYTES, previous_rank()), "content");
    MPI_CHECK(traffic.exposed_seconds == 0, "moving is not waiting");
    MPI_CHECK_OK(ls_batch_wait(&goes));
    MPI_CHECK(mover.call != NULL, "one is still to be waited for");
    MPI_CHECK_OK(ls_batch_wait(&comes));
    MPI_CHECK(mover.call == NULL, "nothing is under way any more");
    ls_batch_fini(&comes);
    ls_batch_fini(&goes);
    free(in);
    free(into);
    traffic = (struct ls_traffic){0};
}

/* Rank 1 waits for rank 0, unless it comes to it a tenth of a second late, on a machine that is
 * busy with other things; hardly ten times. */
MPI_TEST(comm, waiting_is_measured)
{
    struct ls_batch batch = batch_of(2);
    double longest = 0;

    for (int round = 0; round < 10; round++) {
        char in = 1, into = 0;

        traffic = (struct ls_traffic){0};
        ls_batch_receive(&batch, &into, 1, previous_rank());
        ls_batch_send(&batch, &in, 1, next_rank());
        if (rank == 0) usleep(100000);
        MPI_CHECK_OK(ls_batch_run(&batch));
        longest = fmax(longest, traffic.exposed_seconds);
    }
    MPI_CHECK(rank == 0 || previous_rank() != 0 || longest > 0.02, "%g s", longest);
    ls_batch_fini(&batch);
}

/* The message on `first` is sent first and received last. */
static void check_apart(struct ls_comm *first, struct ls_comm *last, const char *which)
{
    int in[2] = {1, 2}, into[2] = {0, 0};
    struct ls_comm *const of[] = {first, last, last, first};
    struct ls_batch batch[4];

    for (int i = 0; i < 4; i++) {
        const struct ls_transport transport = ls_transport_of(of[i], &traffic);
        const int word = of[i] == last;

        MPI_CHECK_OK(ls_batch_init(&batch[i], &transport, 1));
        if (i < 2)
            ls_batch_send(&batch[i], &in[word], sizeof(int), next_rank());
        else
            ls_batch_receive(&batch[i], &into[word], sizeof(int), previous_rank());
        MPI_CHECK_OK(ls_batch_start(&batch[i]));
    }
    for (int i = 3; i >= 0; i--) MPI_CHECK_OK(ls_batch_wait(&batch[i]));
    for (int i = 0; i < 4; i++) ls_batch_fini(&batch[i]);
    MPI_CHECK(into[0] == 1 && into[1] == 2, "%s: got %d and %d", which, into[0], into[1]);
}

MPI_TEST(comm, groups_of_the_same_ranks_do_not_hear_each_other)
{
    struct ls_comm *copy, *second;
    int in = 7, into = 0;
    MPI_Request callers;

    MPI_CHECK_OK(ls_comm_duplicate(&copy, world));
    MPI_CHECK_OK(ls_comm_create_mpi(&second, MPI_COMM_WORLD));
    MPI_CHECK(ls_comm_rank(copy) == rank && ls_comm_size(copy) == size, "of the copy");
    MPI_CHECK(ls_comm_node_size(copy) == ls_comm_node_size(world), "of the copy");
    MPI_Isend(&in, 1, MPI_INT, next_rank(), 0, MPI_COMM_WORLD, &callers);
    check_apart(world, copy, "a duplicate");
    check_apart(copy, world, "its original");
    check_apart(second, world, "another group of the caller's communicator");
    MPI_Recv(&into, 1, MPI_INT, previous_rank(), 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Wait(&callers, MPI_STATUS_IGNORE);
    MPI_CHECK(into == 7, "the caller's own message became %d", into);
    ls_comm_destroy(second);
    ls_comm_destroy(copy);
}

/* Sums of these depend on their order. */
static double awkward(int of_rank, int i)
{
    return (of_rank % 2 == 0 ? 1e16 : -1e16) + 0.3 * of_rank + i;
}

MPI_TEST(comm, reductions_fold_in_the_order_of_ranks_with_the_same_bits_everywhere)
{
    enum { N = 75 }; /* more than one step, and a rest */
    static const ls_reduction hows[] = {LS_REDUCE_SUM, LS_REDUCE_MAX, LS_REDUCE_MIN};

    for (int k = 0; k < 3; k++) {
        double values[N], expected[N];
        double *all = malloc(sizeof(values) * (size_t)size);
        bool same = true;

        for (int i = 0; i < N; i++) {
            values[i] = awkward(rank, i);
            expected[i] = awkward(0, i);
            for (int r = 1; r < size; r++) {
                const double b = awkward(r, i);

                expected[i] = hows[k] == LS_REDUCE_SUM   ? expected[i] + b
                              : hows[k] == LS_REDUCE_MAX ? fmax(expected[i], b)
                                                         : fmin(expected[i], b);
            }
        }
        MPI_CHECK_OK(ls_comm_reduce(values, world, N, hows[k]));
        MPI_CHECK(memcmp(values, expected, sizeof(values)) == 0, "reduction %d", k);
        MPI_CHECK_OK(ls_comm_gather(all, world, values, sizeof(values)));
        for (int r = 0; r < size; r++) same &= memcmp(all + r * N, values, sizeof(values)) == 0;
        MPI_CHECK(same, "reduction %d: ranks differ", k);
        free(all);
    }
}

MPI_TEST(comm, a_reduction_never_hides_a_nan)
{
    for (int where = 0; where < size; where++)
        for (int how = LS_REDUCE_SUM; how <= LS_REDUCE_MIN; how++) {
            double values[2] = {rank == where ? NAN : rank, -INFINITY};

            MPI_CHECK_OK(ls_comm_reduce(values, world, 2, (ls_reduction)how));
            MPI_CHECK(isnan(values[0]), "on rank %d, reduction %d: %g", where, how, values[0]);
            MPI_CHECK(values[1] == -INFINITY, "reduction %d: %g", how, values[1]);
        }
}

MPI_TEST(comm, broadcast_and_gather_move_any_number_of_bytes)
{
    static const size_t sizes[] = {0, 1, 13, 100003};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const size_t n = sizes[i];
        char *one = malloc(n + 1), *all = calloc((size_t)size, n + 1);
        bool right = true;

        for (int root = 0; root < size; root++) {
            fill(one, n, rank == root ? root : 100);
            MPI_CHECK_OK(ls_comm_broadcast(one, world, n, root));
            MPI_CHECK(is_filled(one, n, root), "%zu bytes from rank %d", n, root);
        }
        fill(one, n, rank);
        MPI_CHECK_OK(ls_comm_gather(all, world, one, n));
        for (int r = 0; r < size; r++) right &= is_filled(all + (size_t)r * n, n, r);
        MPI_CHECK(right, "gathering %zu bytes", n);
        MPI_CHECK_OK(ls_comm_barrier(world));
        free(one);
        free(all);
    }
}

/* None, odd, and several slices of a sum. */
static const int64_t bulk_sizes[] = {0, 1, 2, 7, 1001, 300007, (1 << 20) + 3};

#define BULK_SIZES ((int)(sizeof bulk_sizes / sizeof *bulk_sizes))

static const ls_dtype bulk_types[] = {LS_F32, LS_BF16, LS_F16};

/* What a rank has at index i, which every type holds. */
static float bulk_value(int of_rank, int64_t i)
{
    return (float)((i * 37 + of_rank * 101) % 255 - 127);
}

static void fill_values(void *out, ls_dtype type, int of_rank, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float value = bulk_value(of_rank, i);

        ls_dtype_convert((char *)out + i * ls_dtype_size(type), type, &value, LS_F32, 1);
    }
}

/* In f32 in the order of ranks, and rounded once. */
static float folded_value(int64_t i, ls_dtype type, ls_reduction how)
{
    float folded = bulk_value(0, i), rounded;
    uint32_t stored;

    for (int r = 1; r < size; r++) {
        const float b = bulk_value(r, i);

        folded = how == LS_REDUCE_SUM   ? folded + b
                 : how == LS_REDUCE_MAX ? fmaxf(folded, b)
                                        : fminf(folded, b);
    }
    ls_dtype_convert(&stored, type, &folded, LS_F32, 1);
    ls_dtype_convert(&rounded, LS_F32, &stored, type, 1);
    return rounded;
}

static bool is_folded(const void *values, ls_dtype type, int64_t n, int64_t first, ls_reduction how)
{
    for (int64_t i = 0; i < n; i++) {
        float value;

        ls_dtype_convert(&value, LS_F32, (const char *)values + i * ls_dtype_size(type), type, 1);
        if (value != folded_value(first + i, type, how)) return false;
    }
    return true;
}

MPI_TEST(comm, an_all_reduce_reaches_every_element_on_every_rank)
{
    struct ls_batch batch = collective_batch();

    for (int k = 0; k < BULK_SIZES; k++)
        for (int t = 0; t < 3; t++) {
            const ls_reduction how = (ls_reduction)((k + t) % 3);
            const int64_t n = bulk_sizes[k], size_of = ls_dtype_size(bulk_types[t]);
            char *values = malloc((size_t)((n + 1) * size_of));
            char *rest = malloc((size_t)size_of);

            fill_values(values, bulk_types[t], rank, n + 1);
            memcpy(rest, values + n * size_of, (size_t)size_of);
            ls_batch_all_reduce(&batch, values, bulk_types[t], n, how);
            MPI_CHECK_OK(ls_batch_run(&batch));
            MPI_CHECK(is_folded(values, bulk_types[t], n, 0, how), "%ld of %s, reduction %d",
                      (long)n, ls_dtype_name(bulk_types[t]), how);
            MPI_CHECK(memcmp(rest, values + n * size_of, (size_t)size_of) == 0,
                      "%ld values: one too many", (long)n);
            free(rest);
            free(values);
        }
    ls_batch_fini(&batch);
}

MPI_TEST(comm, sums_are_rounded_once_in_the_order_of_ranks)
{
    /* in bf16 each of these is lost beside 256, all of them are not */
    const float value = rank == 0 ? 256 : 0.5F;
    struct ls_batch batch = collective_batch();
    float expected = 256, got;
    uint16_t stored;

    for (int r = 1; r < size; r++) expected += 0.5F;
    ls_dtype_convert(&stored, LS_BF16, &value, LS_F32, 1);
    ls_batch_all_reduce(&batch, &stored, LS_BF16, 1, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_run(&batch));
    ls_dtype_convert(&got, LS_F32, &stored, LS_BF16, 1);
    ls_dtype_convert(&stored, LS_BF16, &expected, LS_F32, 1);
    ls_dtype_convert(&expected, LS_F32, &stored, LS_BF16, 1);
    MPI_CHECK(got == expected, "%g, not %g", (double)got, (double)expected);

    /* in another order, or added by pairs, this is something else */
    float sum = (float)awkward(rank, 0), in_order = (float)awkward(0, 0);

    for (int r = 1; r < size; r++) in_order += (float)awkward(r, 0);
    ls_batch_all_reduce(&batch, &sum, LS_F32, 1, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(sum == in_order, "%g, not %g", (double)sum, (double)in_order);
    ls_batch_fini(&batch);
}

MPI_TEST(comm, a_bulk_reduction_never_hides_a_nan)
{
    struct ls_batch batch = collective_batch();

    for (int where = 0; where < size; where++)
        for (int how = LS_REDUCE_SUM; how <= LS_REDUCE_MIN; how++) {
            float values[2] = {rank == where ? NAN : (float)rank, -INFINITY};

            ls_batch_all_reduce(&batch, values, LS_F32, 2, (ls_reduction)how);
            MPI_CHECK_OK(ls_batch_run(&batch));
            MPI_CHECK(isnan(values[0]), "on rank %d, reduction %d: %g", where, how, values[0]);
            MPI_CHECK(values[1] == -INFINITY, "reduction %d: %g", how, values[1]);
        }
    ls_batch_fini(&batch);
}

MPI_TEST(comm, a_reduce_scatter_leaves_each_rank_the_sum_of_its_part)
{
    struct ls_batch batch = collective_batch();

    for (int k = 0; k < BULK_SIZES; k++)
        for (int t = 0; t < 3; t++) {
            const int64_t n = bulk_sizes[k], size_of = ls_dtype_size(bulk_types[t]);
            const size_t in_bytes = (size_t)(n * size * size_of);
            char *in = malloc(in_bytes + 1), *kept = malloc(in_bytes + 1);
            char *out = calloc((size_t)(n + 1), (size_t)size_of);

            fill_values(in, bulk_types[t], rank, n * size);
            memcpy(kept, in, in_bytes);
            ls_batch_reduce_scatter(&batch, out, in, bulk_types[t], n);
            MPI_CHECK_OK(ls_batch_run(&batch));
            MPI_CHECK(is_folded(out, bulk_types[t], n, n * rank, LS_REDUCE_SUM), "%ld of %s",
                      (long)n, ls_dtype_name(bulk_types[t]));
            MPI_CHECK(memcmp(in, kept, in_bytes) == 0, "%ld values: the input changed", (long)n);
            for (int64_t i = 0; i < size_of; i++)
                MPI_CHECK(out[n * size_of + i] == 0, "%ld values: one too many", (long)n);
            free(in);
            free(kept);
            free(out);
        }
    ls_batch_fini(&batch);
}

MPI_TEST(comm, blocks_come_to_their_ranks)
{
    static const size_t sizes[] = {0, 1, 13, 100003};
    struct ls_batch batch = collective_batch();

    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const size_t n = sizes[k];
        char *in = malloc((size_t)size * n + 1), *out = calloc((size_t)size, n + 1);
        bool right = true, gathered = true;

        for (int r = 0; r < size; r++) fill(in + (size_t)r * n, n, 10 * rank + r);
        ls_batch_all_to_all(&batch, out, in, n);
        MPI_CHECK_OK(ls_batch_run(&batch));
        for (int r = 0; r < size; r++) right &= is_filled(out + (size_t)r * n, n, 10 * r + rank);
        MPI_CHECK(right, "all-to-all of %zu bytes", n);
        MPI_CHECK(out[(size_t)size * n] == 0, "all-to-all of %zu bytes: one too many", n);

        memset(out, 0, (size_t)size * n);
        fill(out + (size_t)rank * n, n, 7 * rank);
        ls_batch_all_gather(&batch, out, n);
        MPI_CHECK_OK(ls_batch_run(&batch));
        for (int r = 0; r < size; r++) gathered &= is_filled(out + (size_t)r * n, n, 7 * r);
        MPI_CHECK(gathered, "all-gather of %zu bytes", n);

        for (int root = 0; root < size; root++) {
            fill(out, n, rank == root ? root : 100);
            ls_batch_broadcast(&batch, out, n, root);
            MPI_CHECK_OK(ls_batch_run(&batch));
            MPI_CHECK(is_filled(out, n, root), "broadcast of %zu bytes from rank %d", n, root);
        }
        free(in);
        free(out);
    }
    ls_batch_fini(&batch);
}

MPI_TEST(comm, a_collective_operation_goes_on_while_it_is_moved)
{
    enum { N = 1 << 20 };
    struct ls_batch batch = collective_batch();
    struct ls_progress mover = {0};
    float *values = malloc(sizeof(float) * N);

    traffic = (struct ls_traffic){.mover = &mover};
    fill_values(values, LS_F32, rank, N);
    ls_batch_all_reduce(&batch, values, LS_F32, N, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_start(&batch));
    while (mover.call != NULL && batch.proceed) mover.call(mover.context);
    MPI_CHECK(is_folded(values, LS_F32, N, 0, LS_REDUCE_SUM), "moved to its end");
    MPI_CHECK(traffic.exposed_seconds == 0, "moving is not waiting");
    MPI_CHECK_OK(ls_batch_wait(&batch));
    ls_batch_fini(&batch);
    free(values);
    traffic = (struct ls_traffic){0};
}

/* A sum of several slices, the last of which is short. */
MPI_TEST(comm, bytes_of_a_large_sum_are_known_before)
{
    const int64_t n = 1100003;
    float *values = calloc((size_t)n, sizeof *values);
    struct ls_batch batch = collective_batch();

    traffic = (struct ls_traffic){0};
    ls_batch_all_reduce(&batch, values, LS_F32, n, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(traffic.bytes_sent == ls_batch_all_reduce_bytes(size, rank, n, LS_F32), "%ld bytes",
              (long)traffic.bytes_sent);
    ls_batch_fini(&batch);
    free(values);
}

MPI_TEST(comm, bulk_communication_counts_what_must_be_sent)
{
    enum { N = 840 }; /* a multiple of every number of ranks that is tested */
    const int64_t bytes = N * (int64_t)sizeof(float), others = size - 1;
    float *in = calloc((size_t)size, bytes), *out = calloc((size_t)size, bytes);
    struct ls_batch batch = collective_batch();

    traffic = (struct ls_traffic){0};
    ls_batch_all_reduce(&batch, out, LS_F32, N, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(traffic.bytes_sent == 2 * others * bytes / size, "all-reduce");
    for (int64_t n = 0; n <= N * size && size > 1; n += n < 7 ? 1 : N * size / 3 - 1) {
        traffic = (struct ls_traffic){0};
        ls_batch_all_reduce(&batch, out, LS_BF16, n, LS_REDUCE_SUM);
        MPI_CHECK_OK(ls_batch_run(&batch));
        MPI_CHECK(traffic.bytes_sent == ls_batch_all_reduce_bytes(size, rank, n, LS_BF16),
                  "all-reduce of %ld", (long)n);
    }
    traffic = (struct ls_traffic){0};
    ls_batch_reduce_scatter(&batch, out, in, LS_F32, N);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(traffic.bytes_sent == others * bytes, "reduce-scatter");
    traffic = (struct ls_traffic){0};
    ls_batch_all_to_all(&batch, out, in, (size_t)bytes);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(traffic.bytes_sent == others * bytes, "all-to-all");
    MPI_CHECK(size == 1 || traffic.exposed_seconds > 0, "all-to-all");
    ls_batch_fini(&batch);
    free(in);
    free(out);
}

/* ---- sub-groups */

/* A grid of two columns, or one: a rank is in a row and in a column. */
MPI_TEST(comm, a_group_is_cut_into_a_grid)
{
    const int columns = size % 2 == 0 ? 2 : 1, rows = size / columns;
    const int row = rank / columns, column = rank % columns;
    int list[64];
    struct ls_comm *across, *down, *copy;
    double sum = rank;

    for (int i = 0; i < columns; i++) list[i] = row * columns + columns - 1 - i;
    MPI_CHECK_OK(ls_comm_split(&across, world, list, columns));
    MPI_CHECK(ls_comm_size(across) == columns && ls_comm_rank(across) == columns - 1 - column,
              "numbered as in the list");
    for (int i = 0; i < rows; i++) list[i] = i * columns + column;
    MPI_CHECK_OK(ls_comm_split(&down, world, list, rows));
    MPI_CHECK_OK(ls_comm_duplicate(&copy, down));
    MPI_CHECK_OK(ls_comm_reduce(&sum, copy, 1, LS_REDUCE_SUM));
    MPI_CHECK(sum == rows * (rows - 1) / 2 * columns + rows * column, "%g", sum);
    MPI_CHECK(ls_comm_node_size(down) <= rows, "%d", ls_comm_node_size(down));

    const struct ls_transport transport = ls_transport_of(down, &traffic);
    struct ls_batch batch;
    float value = (float)rank;

    MPI_CHECK_OK(ls_batch_init_collective(&batch, &transport));
    ls_batch_all_reduce(&batch, &value, LS_F32, 1, LS_REDUCE_MAX);
    MPI_CHECK_OK(ls_batch_run(&batch));
    MPI_CHECK(value == (float)((rows - 1) * columns + column), "%g", (double)value);
    ls_batch_fini(&batch);
    ls_comm_destroy(copy);
    ls_comm_destroy(down);
    ls_comm_destroy(across);
}

MPI_TEST(comm, a_sub_group_that_cannot_be_is_refused_everywhere)
{
    struct ls_comm *none;
    const int next = next_rank(), twice[] = {rank, rank}, beyond[] = {rank, size};
    int all[64];

    if (size > 1) {
        MPI_CHECK(ls_comm_split(&none, world, &next, 1) == LS_EVALUE, "without this rank");
        MPI_CHECK(strstr(ls_message(), "not among its 1 ranks"), "%s", ls_message());
    }
    MPI_CHECK(ls_comm_split(&none, world, twice, 2) == LS_EVALUE, "twice");
    MPI_CHECK(strstr(ls_message(), "named twice"), "%s", ls_message());
    MPI_CHECK(ls_comm_split(&none, world, beyond, 2) == LS_EVALUE, "beyond");
    MPI_CHECK(strstr(ls_message(), "the ranks are 0 to"), "%s", ls_message());
    for (int i = 0; i < size; i++) all[i] = i;
    if (size == 1) return;
    MPI_CHECK(ls_comm_split(&none, world, rank == 0 ? &rank : all, rank == 0 ? 1 : size) ==
                  LS_EVALUE,
              "lists that differ");
    MPI_CHECK(strstr(ls_message(), "names other ranks"), "%s", ls_message());
}

MPI_TEST(comm, all_ranks_leave_with_the_lowest_failure)
{
    static const struct {
        const char *name;
        unsigned failing; /* bit r: rank r */
    } cases[] = {{"none", 0},
                 {"the first", 1},
                 {"the second", 2},
                 {"the third", 4},
                 {"the second on", ~1u},
                 {"every other", 0x55555555},
                 {"others", 0xaaaaaaaa},
                 {"all", ~0u}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const unsigned failing = cases[i].failing & ((1u << size) - 1);
        const int lowest = failing != 0 ? __builtin_ctz(failing) : -1;
        ls_status mine = LS_OK, agreed;
        char expected[80];

        if (failing >> rank & 1) mine = ls_fail(LS_EVALUE + rank, "value %d", rank);
        agreed = ls_comm_agree(world, mine);
        if (lowest < 0) {
            MPI_CHECK(agreed == LS_OK, "%s: %s", cases[i].name, ls_status_name(agreed));
            continue;
        }
        snprintf(expected, sizeof(expected), size > 1 ? "rank %d: value %d" : "value %d", lowest,
                 lowest);
        MPI_CHECK(agreed == (ls_status)(LS_EVALUE + lowest), "%s: %s", cases[i].name,
                  ls_status_name(agreed));
        MPI_CHECK(strcmp(ls_message(), expected) == 0, "%s: %s", cases[i].name, ls_message());
        MPI_CHECK(ls_comm_agree(world, agreed) == agreed, "%s: again", cases[i].name);
        MPI_CHECK(strcmp(ls_message(), expected) == 0, "%s, again: %s", cases[i].name,
                  ls_message());
    }
}

MPI_TEST(comm, ranks_that_fail_alike_name_no_rank)
{
    MPI_CHECK(ls_comm_agree(world, ls_fail(LS_EFIT, "d is %d", 300)) == LS_EFIT, "status");
    MPI_CHECK(strcmp(ls_message(), "d is 300") == 0, "%s", ls_message());
}

/* Whether the last message is one line that has the MPI library's own words for this class. */
static bool message_has_words_for(int class)
{
    char words[MPI_MAX_ERROR_STRING];
    int length;

    MPI_Error_string(class, words, &length);
    return strstr(ls_message(), words) != NULL && strchr(ls_message(), '\n') == NULL;
}

MPI_TEST(comm, an_error_names_the_operation_the_peer_and_what_mpi_says)
{
    char in[64] = {0}, into[64];
    struct ls_batch batch = batch_of(2), other = batch_of(1);

    traffic = (struct ls_traffic){0};
    ls_batch_send(&other, in, 8, size);
    MPI_CHECK(ls_batch_start(&other) == LS_ECOMM, "bad rank");
    MPI_CHECK(strstr(ls_message(), "ranks are 0 to") != NULL, "%s", ls_message());
    MPI_CHECK(traffic.bytes_sent == 0, "a send that failed is counted");
    ls_batch_fini(&other);

    if (size == 1) return; /* Open MPI cuts a message to oneself without a word */
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* see longspan/mpi.h */
    other = batch_of(1);
    ls_batch_receive_at(&batch, into, 4, previous_rank(), NULL);
    ls_batch_send_at(&other, in, 64, next_rank(), NULL);
    MPI_CHECK_OK(ls_batch_start(&batch));
    MPI_CHECK_OK(ls_batch_start(&other));
    MPI_CHECK(ls_batch_wait(&batch) == LS_ECOMM, "64 bytes fitted into 4");
    MPI_CHECK(message_has_words_for(MPI_ERR_TRUNCATE), "%s", ls_message());
    MPI_CHECK(strstr(ls_message(), "receiving 4 bytes from rank"), "%s", ls_message());
    MPI_CHECK_OK(ls_batch_wait(&other));
    ls_batch_receive_at(&batch, into, 64, previous_rank(), NULL);
    ls_batch_send_at(&other, in, 4, next_rank(), NULL);
    MPI_CHECK_OK(ls_batch_start(&batch));
    MPI_CHECK_OK(ls_batch_start(&other));
    MPI_CHECK(ls_batch_wait(&batch) == LS_ECOMM, "4 bytes filled 64");
    MPI_CHECK(strstr(ls_message(), "it sent 4"), "%s", ls_message());
    MPI_CHECK_OK(ls_batch_wait(&other));
    ls_batch_fini(&batch);
    ls_batch_fini(&other);
}

/* Whether a receive that does not fit says so, in these words. */
static void check_misfit(struct ls_batch *comes, struct ls_batch *goes, const char *words)
{
    MPI_CHECK_OK(ls_batch_start(comes));
    MPI_CHECK_OK(ls_batch_start(goes));
    MPI_CHECK(ls_batch_wait(comes) == LS_ECOMM, "%s", words);
    MPI_CHECK(strstr(ls_message(), words), "not \"%s\", but: %s", words, ls_message());
    MPI_CHECK_OK(ls_batch_wait(goes));
    ls_batch_fini(comes);
    ls_batch_fini(goes);
}

/* Around the sizes at which MPI changes its way of sending. */
MPI_TEST(comm, sizes_that_differ_are_told_with_both_places)
{
    static const size_t sizes[][2] = {{4, 64}, {64, 4},      {0, 8},       {8, 0},
                                      {7, 8},  {4, 1000003}, {1000003, 4}, {1000002, 1000003}};
    char *in = calloc(1000003, 1), *into = malloc(1000003);

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct ls_batch comes = batch_of(1), goes = batch_of(1);
        char words[120];

        ls_batch_receive_at(&comes, into, sizes[i][0], previous_rank(), "/a/in.c:12");
        ls_batch_send_at(&goes, in, sizes[i][1], next_rank(), "out.c:345");
        snprintf(words, sizeof words,
                 "in.c:12 receives %zu bytes from rank %d, which sends %zu at out.c:345",
                 sizes[i][0], previous_rank(), sizes[i][1]);
        check_misfit(&comes, &goes, words);
    }
    free(in);
    free(into);
}

MPI_TEST(comm, a_debug_build_knows_the_places)
{
    const char *site = LS_SITE;
    char in[8] = {0}, into[8], words[120];

    if (!site) MPI_SKIP("configured without --enable-debug");
    struct ls_batch comes = batch_of(1), goes = batch_of(1);
    const int line = __LINE__;
    ls_batch_receive(&comes, into, 4, previous_rank());
    ls_batch_send(&goes, in, 8, next_rank());
    snprintf(words, sizeof words,
             "test_comm.c:%d receives 4 bytes from rank %d, which sends 8 at test_comm.c:%d",
             line + 1, previous_rank(), line + 2);
    check_misfit(&comes, &goes, words);
}

#define WINDOW ((size_t)16 << 20)

/* Address space of n bytes and a little more. Only the 16 MiB on both sides of each GiB are memory
 * of their own, all else is one and the same 16 MiB: a message of gigabytes at the cost of little.
 */
static char *map_thin(size_t n)
{
    const size_t windows = n / WINDOW + 1;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    FILE *file = tmpfile();
    char *memory = mmap(NULL, windows * WINDOW, PROT_READ | PROT_WRITE, flags, -1, 0);

    if (memory == MAP_FAILED || file == NULL || ftruncate(fileno(file), WINDOW) != 0) return NULL;
    for (size_t i = 0; i < windows; i++)
        if (i % 64 != 0 && i % 64 != 63)
            mmap(memory + i * WINDOW, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                 fileno(file), 0);
    fclose(file);
    return memory;
}

MPI_TEST(comm, a_message_may_be_larger_than_an_int_counts)
{
    const size_t n = ((size_t)1 << 31) + 8;
    const size_t marks[] = {0, ((size_t)1 << 30) - 1, (size_t)1 << 30, n - 9, n - 8, n - 1};
    struct ls_batch batch = batch_of(1);
    bool right = true;
    char *memory;

    if (size != 2) MPI_SKIP("runs on 2 ranks, not %d", size);
    memory = map_thin(n);
    MPI_CHECK(memory != NULL, "cannot map memory");
    for (int i = 0; i < 6 && rank == 0; i++) memory[marks[i]] = (char)(i + 1);
    if (rank == 0)
        ls_batch_send(&batch, memory, n, 1);
    else
        ls_batch_receive(&batch, memory, n, 0);
    MPI_CHECK_OK(ls_batch_run(&batch));
    ls_batch_fini(&batch);
    for (int i = 0; i < 6; i++) right &= memory[marks[i]] == i + 1;
    MPI_CHECK(right, "what was marked");
    MPI_CHECK(memory[1] == 0 && memory[n - 2] == 0 && memory[n] == 0, "beside it");
}

MPI_TEST(comm, blocks_of_a_collective_may_together_be_larger_than_an_int_counts)
{
    const size_t n = ((size_t)1 << 30) + 8;
    const size_t marks[] = {0, n - 8, n - 1};
    bool exchanged = true, gathered = true;
    char *in, *out;

    if (size != 2) MPI_SKIP("runs on 2 ranks, not %d", size);
    in = map_thin(2 * n);
    out = map_thin(2 * n);
    MPI_CHECK(in != NULL && out != NULL, "cannot map memory");
    for (int i = 0; i < 6; i++) in[(size_t)(i / 3) * n + marks[i % 3]] = (char)(10 * rank + i);
    struct ls_batch batch = collective_batch();

    ls_batch_all_to_all(&batch, out, in, n);
    MPI_CHECK_OK(ls_batch_run(&batch));
    ls_batch_fini(&batch);
    for (int i = 0; i < 6; i++)
        exchanged &= out[(size_t)(i / 3) * n + marks[i % 3]] == 10 * (i / 3) + 3 * rank + i % 3;
    MPI_CHECK(exchanged, "all-to-all: what was marked");
    MPI_CHECK_OK(ls_comm_gather(out, world, in, n));
    for (int i = 0; i < 6; i++)
        gathered &= out[(size_t)(i / 3) * n + marks[i % 3]] == 10 * (i / 3) + i % 3;
    MPI_CHECK(gathered, "gather: what was marked");
}
