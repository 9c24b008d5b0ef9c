/* The communication table over MPI, on any number of ranks. */
#include "harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

MPI_SUITE(comm)

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
    int64_t sent = 0;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const size_t in_bytes = sizes[i] + (size_t)rank;
        const size_t into_bytes = sizes[i] + (size_t)previous_rank();
        struct ls_request requests[2];

        fill(in, in_bytes, rank);
        memset(into, 0, into_bytes + 1);
        MPI_CHECK_OK(
            ls_comm_receive(&requests[0], world, into, into_bytes, previous_rank(), (int)i));
        MPI_CHECK_OK(ls_comm_send(&requests[1], world, in, in_bytes, next_rank(), (int)i));
        MPI_CHECK_OK(ls_comm_wait(world, requests, 2));
        MPI_CHECK(is_filled(into, into_bytes, previous_rank()), "%zu bytes", into_bytes);
        MPI_CHECK(into[into_bytes] == 0, "%zu bytes: one too many", into_bytes);
        MPI_CHECK(requests[0].handle == 0 && requests[1].handle == 0, "not marked");
        MPI_CHECK_OK(ls_comm_wait(world, requests, 2));
        sent += (int64_t)in_bytes;
    }
    MPI_CHECK(ls_comm_bytes_sent(world) == sent, "%ld counted", (long)ls_comm_bytes_sent(world));
    ls_comm_reset_counters(world);
    MPI_CHECK(ls_comm_bytes_sent(world) == 0, "after the reset");
    free(in);
    free(into);
}

MPI_TEST(comm, many_messages_find_their_tags_and_ranks)
{
    enum { TAGS = 64 };
    const int n = TAGS * size;
    int *in = malloc(sizeof(int) * (size_t)n), *into = malloc(sizeof(int) * (size_t)n);
    struct ls_request *requests = malloc(sizeof(*requests) * 2 * (size_t)n);
    bool posted = true, right = true;

    for (int i = 0; i < n; i++) {
        in[i] = 1000 * rank + i;
        posted &=
            ls_comm_send(&requests[i], world, &in[i], sizeof(int), i / TAGS, i % TAGS) == LS_OK;
    }
    for (int i = n - 1; i >= 0; i--)
        posted &= ls_comm_receive(&requests[n + i], world, &into[i], sizeof(int), i / TAGS,
                                  i % TAGS) == LS_OK;
    MPI_CHECK(posted, "%s", ls_message());
    MPI_CHECK_OK(ls_comm_wait(world, requests, 2 * n));
    for (int i = 0; i < n; i++) right &= into[i] == 1000 * (i / TAGS) + TAGS * rank + i % TAGS;
    MPI_CHECK(right, "%d messages", n);
    free(in);
    free(into);
    free(requests);
}

MPI_TEST(comm, progress_completes_what_has_both_sides)
{
    enum { BYTES = 3 << 20 };
    char *in = malloc(BYTES), *into = malloc(BYTES);
    struct ls_request requests[2] = {{0}, {0}};
    bool done = false, moved = true;

    fill(in, BYTES, rank);
    MPI_CHECK_OK(ls_comm_progress(&done, world, requests, 2));
    MPI_CHECK(done, "nothing to do is not done");
    MPI_CHECK_OK(ls_comm_receive(&requests[0], world, into, BYTES, previous_rank(), 0));
    MPI_CHECK_OK(ls_comm_progress(&done, world, requests, 2));
    MPI_CHECK(!done && requests[0].handle != 0, "done before anybody sent");
    MPI_CHECK_OK(ls_comm_send(&requests[1], world, in, BYTES, next_rank(), 0));
    while (moved && !done) moved = ls_comm_progress(&done, world, requests, 2) == LS_OK;
    MPI_CHECK(moved, "%s", ls_message());
    MPI_CHECK(requests[0].handle == 0 && requests[1].handle == 0, "done but not marked");
    MPI_CHECK(is_filled(into, BYTES, previous_rank()), "content");
    MPI_CHECK(ls_comm_exposed_seconds(world) == 0, "progress is not waiting");
    MPI_CHECK_OK(ls_comm_progress(NULL, world, requests, 2));
    free(in);
    free(into);
}

/* Rank 1 waits for rank 0, unless it comes to it a tenth of a second late, on a machine that is
 * busy with other things; hardly ten times. */
MPI_TEST(comm, waiting_is_measured)
{
    double longest = 0;

    for (int round = 0; round < 10; round++) {
        char in = 1, into = 0;
        struct ls_request requests[2];

        MPI_CHECK_OK(ls_comm_receive(&requests[0], world, &into, 1, previous_rank(), 0));
        if (rank == 0) usleep(100000);
        const ls_status sent = ls_comm_send(&requests[1], world, &in, 1, next_rank(), 0);
        const ls_status waited = ls_comm_wait(world, requests, 2);

        MPI_CHECK(sent == LS_OK && waited == LS_OK, "%s", ls_message());
        longest = fmax(longest, ls_comm_exposed_seconds(world));
        ls_comm_reset_counters(world);
        MPI_CHECK(ls_comm_exposed_seconds(world) == 0, "after the reset");
    }
    MPI_CHECK(rank == 0 || previous_rank() != 0 || longest > 0.02, "%g s", longest);
}

/* The message on `first` is sent first and received last. */
static void check_apart(struct ls_comm *first, struct ls_comm *last, const char *which)
{
    int in[2] = {1, 2}, into[2] = {0, 0};
    struct ls_request of_first[2], of_last[2];

    MPI_CHECK_OK(ls_comm_send(&of_first[0], first, &in[0], sizeof(int), next_rank(), 0));
    MPI_CHECK_OK(ls_comm_send(&of_last[0], last, &in[1], sizeof(int), next_rank(), 0));
    MPI_CHECK_OK(ls_comm_receive(&of_last[1], last, &into[1], sizeof(int), previous_rank(), 0));
    MPI_CHECK_OK(ls_comm_receive(&of_first[1], first, &into[0], sizeof(int), previous_rank(), 0));
    MPI_CHECK_OK(ls_comm_wait(last, of_last, 2));
    MPI_CHECK_OK(ls_comm_wait(first, of_first, 2));
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

/* None, odd, several slices of a reduce-scatter and, tried on 2 ranks only, several steps of an
 * all-reduce. */
static const int64_t bulk_sizes[] = {0, 1, 2, 7, 1001, 300007, (1 << 24) + 3};

static size_t bulk_size_count(void)
{
    const size_t all = sizeof(bulk_sizes) / sizeof(bulk_sizes[0]);

    return size == 2 ? all : all - 1;
}

/* Sums over ranks are exact. */
static float bulk_value(int of_rank, int64_t i)
{
    return (float)((i * 37 + of_rank * 101) % 1009 - 500);
}

static float folded_value(int64_t i, ls_reduction how)
{
    float folded = bulk_value(0, i);

    for (int r = 1; r < size; r++) {
        const float b = bulk_value(r, i);

        folded = how == LS_REDUCE_SUM   ? folded + b
                 : how == LS_REDUCE_MAX ? fmaxf(folded, b)
                                        : fminf(folded, b);
    }
    return folded;
}

MPI_TEST(comm, bulk_reductions_reach_every_element_on_every_rank)
{
    for (size_t k = 0; k < bulk_size_count(); k++)
        for (int how = LS_REDUCE_SUM; how <= LS_REDUCE_MIN; how++) {
            const int64_t n = bulk_sizes[k];
            float *values = malloc(sizeof(float) * (size_t)(n + 1));
            bool right = true;

            for (int64_t i = 0; i <= n; i++) values[i] = bulk_value(rank, i);
            MPI_CHECK_OK(ls_comm_all_reduce(values, world, n, (ls_reduction)how));
            for (int64_t i = 0; i < n; i++)
                right &= values[i] == folded_value(i, (ls_reduction)how);
            MPI_CHECK(right, "%ld values, reduction %d", (long)n, how);
            MPI_CHECK(values[n] == bulk_value(rank, n), "%ld values: one too many", (long)n);
            free(values);
        }
}

MPI_TEST(comm, a_bulk_reduction_never_hides_a_nan)
{
    for (int where = 0; where < size; where++)
        for (int how = LS_REDUCE_SUM; how <= LS_REDUCE_MIN; how++) {
            float values[2] = {rank == where ? NAN : (float)rank, -INFINITY};

            MPI_CHECK_OK(ls_comm_all_reduce(values, world, 2, (ls_reduction)how));
            MPI_CHECK(isnan(values[0]), "on rank %d, reduction %d: %g", where, how, values[0]);
            MPI_CHECK(values[1] == -INFINITY, "reduction %d: %g", how, values[1]);
        }
}

MPI_TEST(comm, a_reduce_scatter_leaves_each_rank_the_sum_of_its_part)
{
    for (size_t k = 0; k < bulk_size_count(); k++) {
        const int64_t n = bulk_sizes[k];
        float *in = malloc(sizeof(float) * (size_t)(n * size + 1));
        float *out = malloc(sizeof(float) * (size_t)(n + 1));
        bool right = true, kept = true;

        for (int64_t i = 0; i < n * size; i++) in[i] = bulk_value(rank, i);
        out[n] = 0.5F;
        MPI_CHECK_OK(ls_comm_reduce_scatter(out, world, in, n));
        for (int64_t i = 0; i < n; i++)
            right &= out[i] == folded_value(n * rank + i, LS_REDUCE_SUM);
        for (int64_t i = 0; i < n * size; i++) kept &= in[i] == bulk_value(rank, i);
        MPI_CHECK(right, "%ld values", (long)n);
        MPI_CHECK(kept, "%ld values: the input changed", (long)n);
        MPI_CHECK(out[n] == 0.5F, "%ld values: one too many", (long)n);
        free(in);
        free(out);
    }
}

MPI_TEST(comm, an_all_to_all_brings_each_block_to_its_rank)
{
    static const size_t sizes[] = {0, 1, 13, 100003};

    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        const size_t n = sizes[k];
        char *in = malloc((size_t)size * n + 1), *out = calloc((size_t)size, n + 1);
        bool right = true;

        for (int r = 0; r < size; r++) fill(in + (size_t)r * n, n, 10 * rank + r);
        MPI_CHECK_OK(ls_comm_all_to_all(out, world, in, n));
        for (int r = 0; r < size; r++) right &= is_filled(out + (size_t)r * n, n, 10 * r + rank);
        MPI_CHECK(right, "blocks of %zu bytes", n);
        MPI_CHECK(out[(size_t)size * n] == 0, "blocks of %zu bytes: one too many", n);
        free(in);
        free(out);
    }
}

MPI_TEST(comm, bulk_communication_counts_what_must_be_sent_and_its_time)
{
    enum { N = 40 }; /* a multiple of every number of ranks that is tested */
    const int64_t bytes = N * (int64_t)sizeof(float), others = size - 1;
    float *in = calloc((size_t)size, bytes), *out = calloc((size_t)size, bytes);

    MPI_CHECK_OK(ls_comm_all_reduce(out, world, N, LS_REDUCE_SUM));
    MPI_CHECK(ls_comm_bytes_sent(world) == 2 * others * bytes / size, "all-reduce");
    MPI_CHECK(ls_comm_exposed_seconds(world) > 0, "all-reduce");
    ls_comm_reset_counters(world);
    MPI_CHECK_OK(ls_comm_reduce_scatter(out, world, in, N));
    MPI_CHECK(ls_comm_bytes_sent(world) == others * bytes, "reduce-scatter");
    MPI_CHECK(ls_comm_exposed_seconds(world) > 0, "reduce-scatter");
    ls_comm_reset_counters(world);
    MPI_CHECK_OK(ls_comm_all_to_all(out, world, in, (size_t)bytes));
    MPI_CHECK(ls_comm_bytes_sent(world) == others * bytes, "all-to-all");
    MPI_CHECK(ls_comm_exposed_seconds(world) > 0, "all-to-all");
    free(in);
    free(out);
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
    struct ls_request requests[2];
    ls_status status;

    MPI_CHECK(ls_comm_send(&requests[0], world, in, 8, next_rank(), -7) == LS_ECOMM, "bad tag");
    MPI_CHECK(strstr(ls_message(), "sending 8 bytes to rank") != NULL, "%s", ls_message());
    MPI_CHECK(message_has_words_for(MPI_ERR_TAG), "%s", ls_message());
    MPI_CHECK(ls_comm_receive(&requests[0], world, into, 8, 0, -7) == LS_ECOMM, "bad tag");
    MPI_CHECK(strstr(ls_message(), "receiving 8 bytes from rank 0, tag -7") != NULL, "%s",
              ls_message());
    MPI_CHECK(ls_comm_send(&requests[0], world, in, 8, size, 0) == LS_ECOMM, "bad rank");
    MPI_CHECK(strstr(ls_message(), "ranks are 0 to") != NULL, "%s", ls_message());
    MPI_CHECK(ls_comm_bytes_sent(world) == 0, "a send that failed is counted");

    if (size == 1) return; /* Open MPI cuts a message to oneself without a word */
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); /* see longspan/mpi.h */
    MPI_CHECK_OK(ls_comm_receive(&requests[0], world, into, 4, previous_rank(), 9));
    MPI_CHECK_OK(ls_comm_send(&requests[1], world, in, 64, next_rank(), 9));
    status = ls_comm_wait(world, requests, 1);
    MPI_CHECK(status == LS_ECOMM, "64 bytes fitted into 4");
    MPI_CHECK(message_has_words_for(MPI_ERR_TRUNCATE), "%s", ls_message());
    MPI_CHECK(strstr(ls_message(), "tag 9") != NULL, "%s", ls_message());
    MPI_CHECK_OK(ls_comm_wait(world, &requests[1], 1));
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
    struct ls_request request;
    bool right = true;
    char *memory;

    if (size != 2) MPI_SKIP("runs on 2 ranks, not %d", size);
    memory = map_thin(n);
    MPI_CHECK(memory != NULL, "cannot map memory");
    for (int i = 0; i < 6 && rank == 0; i++) memory[marks[i]] = (char)(i + 1);
    MPI_CHECK_OK(rank == 0 ? ls_comm_send(&request, world, memory, n, 1, 0)
                           : ls_comm_receive(&request, world, memory, n, 0, 0));
    MPI_CHECK_OK(ls_comm_wait(world, &request, 1));
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
    MPI_CHECK_OK(ls_comm_all_to_all(out, world, in, n));
    for (int i = 0; i < 6; i++)
        exchanged &= out[(size_t)(i / 3) * n + marks[i % 3]] == 10 * (i / 3) + 3 * rank + i % 3;
    MPI_CHECK(exchanged, "all-to-all: what was marked");
    MPI_CHECK_OK(ls_comm_gather(out, world, in, n));
    for (int i = 0; i < 6; i++)
        gathered &= out[(size_t)(i / 3) * n + marks[i % 3]] == 10 * (i / 3) + i % 3;
    MPI_CHECK(gathered, "gather: what was marked");
}
