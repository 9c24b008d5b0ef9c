/* Two transformer layers, forward and backward, from an MPI program.
 *     mpicc layer_mpi.c $(pkg-config --cflags --libs longspan) -lm -o layer_mpi
 *     mpirun -n 2 ./layer_mpi             the ranks share heads and columns (tensor parallelism)
 *     mpirun -n 2 ./layer_mpi context     the ranks share the sequence (context parallelism)
 * Each rank holds its share of the weights and its rows of x and y. In the end a gradient is
 * compared with what a small change of that weight does to the loss, which is half of |y|^2. */
#include <longspan/longspan.h>
#include <longspan/mpi.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { S = 600, E = 32, H = 4, F = 64, LAYERS = 2, SHARED = 8 };

/* A failure that all ranks share could be handled more gently; an example may just stop. */
static void must(ls_status status)
{
    if (status == LS_OK) return;
    fprintf(stderr, "layer_mpi: %s: %s\n", ls_status_name(status), ls_message());
    MPI_Abort(MPI_COMM_WORLD, 1);
}

/* ---- tensors */

static int64_t count(const struct ls_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

/* Contiguous zeros. The caller frees data. */
static struct ls_tensor new_tensor(int ndim, int64_t a, int64_t b, int64_t c)
{
    struct ls_tensor t = ls_tensor_view(NULL, LS_F32, ndim, (int64_t[]){a, b, c});

    t.data = calloc((size_t)count(&t) + 1, sizeof(float));
    if (!t.data) MPI_Abort(MPI_COMM_WORLD, 1);
    return t;
}

/* Any numbers of about this size will do. */
static void fill(struct ls_tensor *t, double size, double seed)
{
    for (int64_t i = 0; i < count(t); i++)
        ((float *)t->data)[i] = (float)(size * sin(seed + 1.7 * (double)i + 0.1 * sin((double)i)));
}

/* A rank's share of a layer of RMSNorm, SwiGLU and no biases; or of its gradients. */
struct weights {
    struct ls_tensor tensor[6];
    struct ls_layer_parameters parameters;
};

static void create_weights(struct weights *w, int tp)
{
    const int64_t h = E / tp, f = F / tp;

    w->tensor[0] = new_tensor(1, E, 0, 0);
    w->tensor[1] = new_tensor(1, E, 0, 0);
    w->tensor[2] = new_tensor(2, 3 * h, E, 0);
    w->tensor[3] = new_tensor(2, E, h, 0);
    w->tensor[4] = new_tensor(2, 2 * f, E, 0);
    w->tensor[5] = new_tensor(2, E, f, 0);
    w->parameters = (struct ls_layer_parameters){.norm1 = &w->tensor[0],
                                                 .norm2 = &w->tensor[1],
                                                 .qkv = &w->tensor[2],
                                                 .out = &w->tensor[3],
                                                 .up = &w->tensor[4],
                                                 .down = &w->tensor[5]};
}

/* Norms are the same on all tensor-parallel ranks, all else is each one's own. */
static void fill_weights(struct weights *w, int layer, int tensor)
{
    for (int i = 0; i < 6; i++)
        fill(&w->tensor[i], i < 2 ? 1 : 0.2, 10 * layer + i + (i < 2 ? 0 : 0.3 * tensor));
}

static void destroy_weights(struct weights *w)
{
    for (int i = 0; i < 6; i++) free(w->tensor[i].data);
}

/* ---- the layers */

struct model {
    struct ls_layer_plan *plan; /* one serves both */
    struct ls_layer_state *state[LAYERS];
    struct weights weights[LAYERS], gradients[LAYERS];
    struct ls_tensor x[LAYERS + 1]; /* [1, rows, E]: what layer i is given; the last is y */
    struct ls_tensor dx[LAYERS + 1];
};

static void create_model(struct model *m, struct ls_comm *comm, struct ls_device *device,
                         bool context)
{
    const struct ls_layer_shape shape = {
        .b = 1, .s = S, .e = E, .h = H, .h_kv = H, .d = E / H, .f = F, .type = LS_F32};
    struct ls_layer_options options = LS_LAYER_OPTIONS;
    const int ranks = ls_comm_size(comm), tp = context ? 1 : ranks;

    options.norm = LS_NORM_RMS;
    options.activation = LS_ACTIVATION_SWIGLU;
    options.no_bias = true;
    options.causal = true;
    options.rope_theta = 10000;
    options.recompute = "core,norm,mlp"; /* less to keep, the same bits */
    options.tp = tp;
    options.cp = ranks / tp;
    options.sp = true;
    options.device = device;
    must(ls_layer_plan_create(&m->plan, comm, &shape, &options));
    for (int i = 0; i <= LAYERS; i++) {
        m->x[i] = new_tensor(3, 1, ls_layer_rows(m->plan), E);
        m->dx[i] = new_tensor(3, 1, ls_layer_rows(m->plan), E);
    }
    for (int i = 0; i < LAYERS; i++) {
        must(ls_layer_state_create(&m->state[i], m->plan, NULL));
        create_weights(&m->weights[i], tp);
        create_weights(&m->gradients[i], tp);
        fill_weights(&m->weights[i], i, ls_comm_rank(comm) % tp);
    }
    for (int64_t row = 0; row < ls_layer_rows(m->plan); row++) {
        struct ls_tensor one =
            ls_tensor_view((float *)m->x[0].data + row * E, LS_F32, 1, (int64_t[]){E});

        fill(&one, 1, 0.01 * (double)ls_layer_position(m->plan, row));
    }
}

static void destroy_model(struct model *m)
{
    for (int i = 0; i < LAYERS; i++) {
        ls_layer_state_destroy(m->state[i]);
        destroy_weights(&m->weights[i]);
        destroy_weights(&m->gradients[i]);
    }
    for (int i = 0; i <= LAYERS; i++) {
        free(m->x[i].data);
        free(m->dx[i].data);
    }
    ls_layer_plan_destroy(m->plan);
}

/* Half of |y|^2, of all ranks: with sequence or context parallelism no row is on two of them. */
static double forward(struct model *m)
{
    double loss = 0;

    for (int i = 0; i < LAYERS; i++)
        must(ls_layer_forward(&m->x[i + 1], m->plan, m->state[i], &m->weights[i].parameters,
                              &m->x[i], 0));
    for (int64_t i = 0; i < count(&m->x[LAYERS]); i++)
        loss += 0.5 * pow(((float *)m->x[LAYERS].data)[i], 2);
    MPI_Allreduce(MPI_IN_PLACE, &loss, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return loss;
}

/* dy = y; gradients are added to, and start from 0 here. */
static void backward(struct model *m)
{
    memcpy(m->dx[LAYERS].data, m->x[LAYERS].data, (size_t)count(&m->x[LAYERS]) * sizeof(float));
    for (int i = LAYERS - 1; i >= 0; i--)
        must(ls_layer_backward(&m->dx[i], &m->gradients[i].parameters, m->plan, m->state[i],
                               &m->weights[i].parameters, &m->dx[i + 1]));
}

/* How far a gradient of the first layer's norm is from what the loss says. */
static double check(struct model *m)
{
    const float step = 1e-2F;
    float *weight = (float *)m->weights[0].tensor[0].data + SHARED;
    const float gradient = ((float *)m->gradients[0].tensor[0].data)[SHARED];

    *weight += step;
    const double above = forward(m);
    *weight -= 2 * step;
    const double below = forward(m);
    return fabs((above - below) / (2 * (double)step) / (double)gradient - 1);
}

int main(int argc, char **argv)
{
    const bool context = argc > 1 && strcmp(argv[1], "context") == 0;
    struct ls_device *device;
    struct model model;
    struct ls_comm *comm;
    int level;

    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
    must(ls_comm_create_mpi(&comm, MPI_COMM_WORLD));
    must(ls_device_open(&device, "cpu", 0, 0));
    create_model(&model, comm, device, context);
    const double loss = forward(&model);
    backward(&model);
    const double error = check(&model);
    const bool ok = error < 1e-2; /* false for a NaN as well */
    if (ls_comm_rank(comm) == 0)
        printf("layer_mpi: %d layers, %d %s-parallel ranks, loss %.3f, gradient within %.1e: %s\n",
               LAYERS, ls_comm_size(comm), context ? "context" : "tensor", loss, error,
               ok ? "ok" : "WRONG");
    destroy_model(&model);
    ls_device_close(device);
    ls_comm_destroy(comm);
    MPI_Finalize();
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
