/* Causal attention over one long sequence from an MPI program that holds its own parts of Q, K, V.
 *     mpicc attend_mpi.c $(pkg-config --cflags --libs longspan) -lm -o attend_mpi
 *     mpirun -n 2 ./attend_mpi            the ranks hold what the plan's layout gives them
 *     mpirun -n 2 ./attend_mpi own-rows   the ranks hold runs of rows as this program cuts them
 * Every rank computes its queries' rows over all keys, then checks one row by a plain loop. */
#include <longspan/longspan.h>
#include <longspan/mpi.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S = 3001, H = 4, H_KV = 2, D = 64 };
enum { Q, K, V };

/* Element e of a head at a global position. Any numbers will do, if all ranks agree on them. */
static float element(int tensor, int64_t position, int head, int e)
{
    return (float)sin(1.3 * tensor + 0.5 * head + 0.01 * (double)position * (e + 1));
}

/* A failure that all ranks share could be handled more gently; an example may just stop. */
static void must(ls_status status)
{
    if (status == LS_OK) return;
    fprintf(stderr, "attend_mpi: %s: %s\n", ls_status_name(status), ls_message());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Contiguous f32 memory; a rank's part may be empty. The caller frees data. */
static struct ls_tensor new_tensor(int ndim, const int64_t *dim)
{
    size_t bytes = sizeof(float);

    for (int i = 0; i < ndim; i++) bytes *= (size_t)dim[i];
    void *const data = malloc(bytes ? bytes : 1);
    if (!data) MPI_Abort(MPI_COMM_WORLD, 1);
    return ls_tensor_view(data, LS_F32, ndim, dim);
}

/* Where this program's own cut of the sequence has rank's rows begin. */
static int64_t own_begin(int rank, int ranks)
{
    return (int64_t)S * rank / ranks;
}

/* This rank's rows: its own, or its part of the plan's layout. There are as many keys as queries,
 * so that both are cut alike. */
struct rows {
    int64_t count, own_first;
    struct ls_layout layout;
    int rank;
    bool own;
};

static int64_t position_of(const struct rows *rows, int64_t row)
{
    return rows->own ? rows->own_first + row : ls_layout_position(&rows->layout, rows->rank, row);
}

/* q, k or v, [1, rows, heads, D]. */
static struct ls_tensor new_part(int tensor, const struct rows *rows, int heads)
{
    const struct ls_tensor part = new_tensor(4, (int64_t[]){1, rows->count, heads, D});
    float *out = part.data;

    for (int64_t row = 0; row < rows->count; row++)
        for (int head = 0; head < heads; head++)
            for (int e = 0; e < D; e++) *out++ = element(tensor, position_of(rows, row), head, e);
    return part;
}

/* Distance of a row of o and its lse from the definition, computed in double precision. */
static double row_error(const float *o, float lse, int64_t position, int head)
{
    double exact[D] = {0}, sum = 0, square;
    const int kv_head = head / (H / H_KV);

    for (int64_t key = 0; key <= position; key++) {
        double logit = 0;

        for (int e = 0; e < D; e++)
            logit += (double)element(Q, position, head, e) * element(K, key, kv_head, e);
        const double p = exp(logit / sqrt(D)); /* at most e^8 here: no maximum to subtract */
        for (int e = 0; e < D; e++) exact[e] += p * element(V, key, kv_head, e);
        sum += p;
    }
    square = pow(lse - log(sum), 2);
    for (int e = 0; e < D; e++) square += pow(o[e] - exact[e] / sum, 2);
    return sqrt(square);
}

int main(int argc, char **argv)
{
    const struct ls_attention_shape shape = {
        .b = 1, .h = H, .h_kv = H_KV, .s_q = S, .s_k = S, .d = D, .type = LS_F32};
    struct ls_attention_options options = LS_ATTENTION_OPTIONS;
    struct ls_attention_report report;
    struct ls_attention_plan *plan;
    struct ls_comm *comm;
    double error = 0;
    int level;

    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    must(ls_comm_create_mpi(&comm, MPI_COMM_WORLD));
    const int rank = ls_comm_rank(comm), ranks = ls_comm_size(comm);
    struct rows rows = {.own = argc > 1 && strcmp(argv[1], "own-rows") == 0, .rank = rank};

    rows.own_first = own_begin(rank, ranks);
    rows.count = own_begin(rank + 1, ranks) - rows.own_first;
    options.causal = true;
    options.has_rows = rows.own;
    options.q_rows = options.k_rows = rows.count;
    must(ls_attention_plan_create(&plan, comm, &shape, &options));
    rows.layout = ls_attention_plan_query_layout(plan);
    if (!rows.own) rows.count = ls_layout_part_rows(&rows.layout, rank);

    struct ls_tensor q = new_part(Q, &rows, H);
    struct ls_tensor k = new_part(K, &rows, H_KV);
    struct ls_tensor v = new_part(V, &rows, H_KV);
    struct ls_tensor o = new_tensor(4, (int64_t[]){1, rows.count, H, D});
    struct ls_tensor lse = new_tensor(3, (int64_t[]){1, H, rows.count});
    must(ls_attention_forward(&o, &lse, plan, &q, &k, &v, NULL));

    if (rows.count > 0) { /* one row: the last one of the last head ends both o and lse */
        const float *const last_o = (float *)o.data + (rows.count * H - 1) * D;
        const float *const last_lse = (float *)lse.data + (rows.count * H - 1);

        error = row_error(last_o, *last_lse, position_of(&rows, rows.count - 1), H - 1);
    }
    int ok = error < 1e-5; /* false for a NaN as well */
    MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    ls_attention_plan_describe(&report, plan);
    if (rank == 0)
        printf("attend_mpi: %d positions, %d ranks, %s, layout %s%s: %s\n", S, ranks, report.method,
               ls_layout_name(report.layout), rows.own ? " from own rows" : "",
               ok ? "ok" : "WRONG");

    void *const memory[] = {q.data, k.data, v.data, o.data, lse.data};
    for (int i = 0; i < 5; i++) free(memory[i]);
    ls_attention_plan_destroy(plan);
    ls_comm_destroy(comm);
    MPI_Finalize();
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
