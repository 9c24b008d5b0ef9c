/* What some ranks write, others read: the same bytes, whatever the layout and number of ranks. */
#include "../mpi/harness.h"

#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>

#include "longspan/store.h"
#include "store/elements.h"

MPI_SUITE(store)

enum { B = 2, S = 1100, H = 3, D = 5 };

static char path[PATH_MAX];

/* A name that all ranks know and no file has. */
static void name_file(void)
{
    if (rank == 0)
        snprintf(path, sizeof path, "/tmp/longspan-store-%ld.safetensors", (long)getpid());
    MPI_CHECK_OK(ls_comm_broadcast(path, world, sizeof path, 0));
}

static float element(int64_t b, int64_t position, int64_t head, int64_t e)
{
    return (float)(((b * S + position) * H + head) * D + e);
}

static float *at(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head, int64_t e)
{
    return (float *)t->data + b * t->stride[0] + row * t->stride[1] + head * t->stride[2] +
           e * t->stride[3];
}

/* This rank's part of [b, s, h, d]. The caller frees data. */
static struct ls_tensor create(const struct ls_layout *layout, int r, ls_order order, int64_t d)
{
    const int64_t rows = ls_layout_part_rows(layout, r);
    float *data = calloc((size_t)(B * rows * H * d + 1), sizeof *data);

    return ls_order_view(data, LS_F32, order, B, rows, H, d);
}

/* Fills the part in, or counts the elements that are not what it was filled with. */
static int64_t visit(const struct ls_tensor *t, const struct ls_layout *layout, int r, bool fill)
{
    int64_t wrong = 0;

    for (int64_t i = 0; i < B * t->dim[1] * H * t->dim[3]; i++) {
        const int64_t e = i % t->dim[3], head = i / t->dim[3] % H;
        const int64_t row = i / (t->dim[3] * H) % t->dim[1], b = i / (t->dim[3] * H * t->dim[1]);
        const float value = element(b, ls_layout_position(layout, r, row), head, e);

        if (fill) *at(t, b, row, head, e) = value;
        wrong += *at(t, b, row, head, e) != value;
    }
    return wrong;
}

/* All ranks write x [b, s, h, d] and lse [b, h, s] of this layout. */
static void write_file(const struct ls_layout *layout, ls_order order)
{
    const struct ls_output_tensor tensors[] = {
        {"x", LS_F32, order, B, S, H, D, false},
        {"lse", LS_F32, LS_ORDER_BHSD, B, S, H, 0, false},
    };
    const struct ls_tensor x = create(layout, rank, order, D);
    const struct ls_tensor rows = create(layout, rank, LS_ORDER_BHSD, 1);
    const struct ls_tensor lse =
        ls_tensor_view(rows.data, LS_F32, 3, (const int64_t[]){B, H, rows.dim[1]});
    struct ls_output *output;

    visit(&x, layout, rank, true);
    visit(&rows, layout, rank, true);
    MPI_CHECK_OK(ls_output_create(&output, world, path, tensors, 2));
    MPI_CHECK_OK(ls_output_write(output, 0, layout, &x, NULL));
    MPI_CHECK_OK(ls_output_write(output, 1, layout, &lse, NULL));
    MPI_CHECK(access(path, F_OK) != 0, "the file is there before it is whole");
    MPI_CHECK_OK(ls_output_commit(output));
    ls_output_destroy(output);
    free(rows.data);
    free(x.data);
}

/* Elements of a tensor that are not what was written. Collective over comm. */
static int64_t wrong_in(const char *name, const struct ls_layout *layout, ls_order order, int64_t d,
                        struct ls_comm *comm)
{
    const int r = ls_comm_rank(comm);
    struct ls_tensor t = create(layout, r, order, d);
    struct ls_input input;

    MPI_CHECK_OK(ls_input_open(&input, comm, path, name, false));
    MPI_CHECK_OK(ls_input_load(&t, comm, &input, order, layout, LS_FINITE, NULL));
    const int64_t wrong = visit(&t, layout, r, false);

    ls_input_close(&input);
    free(t.data);
    return wrong;
}

static struct ls_layout layout_of(ls_layout_kind kind, int p)
{
    return (struct ls_layout){.kind = kind, .s = S, .p = p};
}

MPI_TEST(store, any_layout_and_number_of_ranks_reads_what_another_wrote)
{
    static const ls_layout_kind kinds[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG,
                                           LS_LAYOUT_STRIPED};
    struct ls_comm *self;

    name_file();
    MPI_CHECK_OK(ls_comm_create_self(&self));
    for (int i = 0; i < 6; i++) {
        const ls_order order = i % 2 ? LS_ORDER_BHSD : LS_ORDER_BSHD;
        const struct ls_layout from = layout_of(kinds[i / 2], size);
        const struct ls_layout to = layout_of(kinds[(i / 2 + 1) % 3], size);
        const struct ls_layout one = layout_of(LS_LAYOUT_CONTIGUOUS, 1);

        write_file(&from, order);
        MPI_CHECK(wrong_in("x", &to, order, D, world) == 0, "%s from %s", ls_layout_name(to.kind),
                  ls_layout_name(from.kind));
        MPI_CHECK(wrong_in("lse", &to, LS_ORDER_BHSD, 1, world) == 0, "lse");
        MPI_CHECK(wrong_in("x", &one, order, D, self) == 0, "%s on one", ls_layout_name(from.kind));
        MPI_Barrier(MPI_COMM_WORLD);
        if (rank == 0) unlink(path);
    }
    ls_comm_destroy(self);
}

/* A process that writes the beginning of `path` into the pipe beside it, not all at once. */
struct feeder {
    pthread_t thread;
    char pipe[PATH_MAX + 8];
    double share;
};

static void *feed(void *argument)
{
    const struct feeder *f = argument;
    FILE *from = fopen(path, "r"), *to = fopen(f->pipe, "w"); /* waits for its reader */
    char bytes[1 << 16];
    size_t n = 1;

    fseek(from, 0, SEEK_END);
    long left = (long)(f->share * (double)ftell(from));

    rewind(from);
    while (left > 0 && n > 0) {
        n = fread(bytes, 1, left < (long)sizeof bytes ? (size_t)left : sizeof bytes, from);
        fwrite(bytes, 1, n, to);
        fflush(to);
        left -= (long)n;
        usleep(2000);
    }
    fclose(to);
    fclose(from);
    return NULL;
}

/* The first rank feeds what all open. */
static ls_status open_through_pipe(struct ls_input *out, const char *name, double share)
{
    struct feeder f = {.share = share};

    snprintf(f.pipe, sizeof f.pipe, "%s.pipe", path);
    MPI_CHECK(rank > 0 || mkfifo(f.pipe, 0600) == 0, "no pipe %s", f.pipe);
    if (rank == 0) pthread_create(&f.thread, NULL, feed, &f);
    const ls_status status = ls_input_open(out, world, f.pipe, name, false);

    if (rank == 0) {
        pthread_join(f.thread, NULL);
        unlink(f.pipe);
    }
    return status;
}

MPI_TEST(store, all_ranks_read_what_one_gets_through_a_pipe)
{
    const struct ls_layout layout = layout_of(LS_LAYOUT_ZIGZAG, size);
    struct ls_tensor x = create(&layout, rank, LS_ORDER_BSHD, D);
    struct ls_input input;

    name_file();
    write_file(&layout, LS_ORDER_BSHD);
    MPI_CHECK_OK(open_through_pipe(&input, "x", 1));
    MPI_CHECK_OK(ls_input_load(&x, world, &input, LS_ORDER_BSHD, &layout, LS_FINITE, NULL));
    MPI_CHECK(visit(&x, &layout, rank, false) == 0, "other elements");
    ls_input_close(&input);
    check_failure(open_through_pipe(&input, "y", 1), LS_EVALUE, "no tensor 'y'", "no such tensor");
    check_failure(open_through_pipe(&input, "x", 0.7), LS_EFORMAT, "truncated", "a part");
    check_failure(open_through_pipe(&input, "x", 0), LS_EFORMAT, "is empty", "nothing");
    if (rank == 0) unlink(path);
    free(x.data);
}

MPI_TEST(store, a_number_for_each_head_is_written_once)
{
    const struct ls_output_tensor numbers = {.name = "dsinks", .type = LS_F32, .h = H};
    const int64_t dim[] = {H}, more[] = {H + 1};
    float data[H + 1] = {1, 2, 3};
    const struct ls_tensor whole = ls_tensor_view(data, LS_F32, 1, dim);
    const struct ls_tensor longer = ls_tensor_view(data, LS_F32, 1, more);
    struct ls_output *output;
    struct ls_input input, beside, none;
    double value[H];

    name_file();
    MPI_CHECK_OK(ls_output_create(&output, world, path, &numbers, 1));
    check_failure(ls_output_write(output, 0, NULL, rank == size - 1 ? &longer : &whole, NULL),
                  LS_ESHAPE, "dimension 0", "one more");
    MPI_CHECK_OK(ls_output_write(output, 0, NULL, &whole, NULL));
    MPI_CHECK_OK(ls_output_commit(output));
    ls_output_destroy(output);
    MPI_CHECK_OK(ls_input_open(&input, world, path, "dsinks", false));
    MPI_CHECK(input.ndim == 1 && input.dim[0] == H, "%d dimensions", input.ndim);
    MPI_CHECK_OK(ls_input_open_beside(&beside, &input, "dsinks"));
    check_failure(ls_input_open_beside(&none, &input, "dsink"), LS_EVALUE, "'dsinks' meant",
                  "none");
    ls_input_close(&input); /* the file stays open for the other */
    check_failure(ls_input_open_beside(&none, &input, "dsinks"), LS_EVALUE, "not open", "closed");
    MPI_CHECK_OK(ls_input_read(value, &beside, 0, H));
    for (int i = 0; i < H; i++) MPI_CHECK(value[i] == data[i], "head %d: %g", i, value[i]);
    ls_input_close(&beside);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) unlink(path);
}

MPI_TEST(store, random_numbers_are_those_of_their_places)
{
    const struct ls_layout all = layout_of(LS_LAYOUT_CONTIGUOUS, 1);
    const struct ls_layout layout = layout_of(LS_LAYOUT_ZIGZAG, size);
    struct ls_tensor whole = create(&all, 0, LS_ORDER_BSHD, D);
    struct ls_tensor part = create(&layout, rank, LS_ORDER_BSHD, D);
    struct ls_input input;
    struct ls_comm *self;
    int64_t wrong = 0;

    ls_input_draw(&input, 7, 1, "q");
    MPI_CHECK_OK(ls_comm_create_self(&self));
    MPI_CHECK_OK(ls_input_load(&whole, self, &input, LS_ORDER_BSHD, &all, LS_ANY_VALUE, NULL));
    MPI_CHECK_OK(ls_input_load(&part, world, &input, LS_ORDER_BSHD, &layout, LS_ANY_VALUE, NULL));
    for (int64_t b = 0; b < B; b++)
        for (int64_t row = 0; row < part.dim[1]; row++)
            wrong += memcmp(at(&part, b, row, 0, 0),
                            at(&whole, b, ls_layout_position(&layout, rank, row), 0, 0),
                            H * D * sizeof(float)) != 0;
    MPI_CHECK(wrong == 0, "%ld rows differ", (long)wrong);
    ls_input_close(&input);
    ls_comm_destroy(self);
    free(part.data);
    free(whole.data);
}

MPI_TEST(store, what_one_rank_cannot_do_fails_on_every_rank)
{
    const struct ls_output_tensor x = {"x", LS_F32, LS_ORDER_BSHD, B, S, H, D, false};
    const struct ls_layout layout = layout_of(LS_LAYOUT_CONTIGUOUS, size);
    struct ls_tensor part = create(&layout, rank, LS_ORDER_BSHD, D);
    const bool last = rank == size - 1;
    struct ls_output *output;
    struct ls_input input;

    name_file();
    visit(&part, &layout, rank, true);
    MPI_CHECK_OK(ls_output_create(&output, world, path, &x, 1));
    part.stride[1] += rank == 0; /* who has rows */
    check_failure(ls_output_write(output, 0, &layout, &part, NULL), LS_ESHAPE, "stride", "stride");
    part.stride[1] -= rank == 0;
    check_failure(ls_output_write(output, 1, &layout, &part, NULL), LS_EVALUE, "tensor 1 of 1",
                  "number");
    MPI_CHECK_OK(ls_output_write(output, 0, &layout, &part, NULL));
    MPI_CHECK_OK(ls_output_commit(output));
    check_failure(ls_output_commit(output), LS_EVALUE, "finished", "twice");
    ls_output_destroy(output);

    MPI_CHECK_OK(ls_input_open(&input, world, path, "x", false));
    check_failure(ls_input_load(&part, world, &input, LS_ORDER_BSHD, &layout, 5000, NULL),
                  LS_EVALUE, "where sums in f32 need less than 5000", "limit");
    check_failure(ls_input_load(&part, world, &input, LS_ORDER_BHSD, &layout, LS_FINITE, NULL),
                  LS_ESHAPE, "x: is not [2, 3, 1100, 5]", "order");
    if (last) ls_input_close(&input);
    check_failure(ls_input_load(&part, world, &input, LS_ORDER_BSHD, &layout, LS_FINITE, NULL),
                  LS_EVALUE, "not open", "closed");
    ls_input_close(&input);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) unlink(path);
    free(part.data);
}

MPI_TEST(store, what_is_not_committed_leaves_nothing)
{
    const struct ls_output_tensor x = {"x", LS_F32, LS_ORDER_BSHD, B, S, H, D, false};
    const struct ls_output_tensor flat = {"lse", LS_F32, LS_ORDER_BSHD, B, S, H, 0, false};
    struct ls_output *output = NULL;

    name_file();
    MPI_CHECK_OK(ls_output_create(&output, world, path, &x, 1));
    ls_output_destroy(output);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_CHECK(access(path, F_OK) != 0, "%s", path);
    check_failure(ls_output_create(&output, world, path, &flat, 1), LS_EVALUE, "order bhsd",
                  "order");
    check_failure(ls_output_create(&output, world, "/no/such/folder/x", &x, 1), LS_EFILE,
                  "/no/such", "folder");
}
