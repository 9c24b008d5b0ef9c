/* Causal attention over one long sequence from an MPI program that holds its own parts of Q, K, V.
 *     mpicc attend_mpi.c $(pkg-config --cflags --libs longspan) -lm -o attend_mpi
 *     mpirun -n 2 ./attend_mpi
 * Every rank computes its queries' rows over all keys, then checks one row by a plain loop. */
#include <longspan/longspan.h>
#include <longspan/mpi.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

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

/* This rank's part of q, k or v, [1, rows, heads, D]: the layout tells which positions it holds. */
static struct ls_tensor new_part(int tensor, const struct ls_layout *layout, int rank, int heads)
{
    const int64_t rows = ls_layout_part_rows(layout, rank);
    const struct ls_tensor part = new_tensor(4, (int64_t[]){1, rows, heads, D});
    float *out = part.data;

    for (int64_t row = 0; row < rows; row++)
        for (int head = 0; head < heads; head++)
            for (int e = 0; e < D; e++)
                *out++ = element(tensor, ls_layout_position(layout, rank, row), head, e);
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
    options.causal = true;
    must(ls_attention_plan_create(&plan, comm, &shape, &options));

    const int rank = ls_comm_rank(comm);
    const struct ls_layout q_layout = ls_attention_plan_query_layout(plan);
    const struct ls_layout k_layout = ls_attention_plan_key_layout(plan);
    const int64_t rows = ls_layout_part_rows(&q_layout, rank);
    struct ls_tensor q = new_part(Q, &q_layout, rank, H);
    struct ls_tensor k = new_part(K, &k_layout, rank, H_KV);
    struct ls_tensor v = new_part(V, &k_layout, rank, H_KV);
    struct ls_tensor o = new_tensor(4, (int64_t[]){1, rows, H, D});
    struct ls_tensor lse = new_tensor(3, (int64_t[]){1, H, rows});
    must(ls_attention_forward(&o, &lse, plan, &q, &k, &v));

    if (rows > 0) { /* one row: the last one of the last head ends both o and lse */
        const float *const last_o = (float *)o.data + (rows * H - 1) * D;
        const float *const last_lse = (float *)lse.data + (rows * H - 1);

        error = row_error(last_o, *last_lse, ls_layout_position(&q_layout, rank, rows - 1), H - 1);
    }
    int ok = error < 1e-5; /* false for a NaN as well */
    MPI_Allreduce(MPI_IN_PLACE, &ok, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
    ls_attention_plan_describe(&report, plan);
    if (rank == 0)
        printf("attend_mpi: %d positions, %d ranks, %s, layout %s: %s\n", S, ls_comm_size(comm),
               report.method, ls_layout_name(report.layout), ok ? "ok" : "WRONG");

    void *const memory[] = {q.data, k.data, v.data, o.data, lse.data};
    for (int i = 0; i < 5; i++) free(memory[i]);
    ls_attention_plan_destroy(plan);
    ls_comm_destroy(comm);
    MPI_Finalize();
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
