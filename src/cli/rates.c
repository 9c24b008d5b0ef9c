#include "cli/rates.h"

#include <math.h>
#include <string.h>

#include "base/ledger.h"
#include "base/profile.h"
#include "base/random.h"
#include "cli/gemm.h"
#include "comm/transport.h"
#include "plan/attention_size.h"
#include "tensor/dtype.h"

#define MESSAGE_BYTES ((size_t)32 << 20)
#define MESSAGE_TRIES 5
#define SMALL_MESSAGES 200

#define KERNEL_TRIES 3
#define MOST_QUERIES 1024                  /* from there on, packing keys costs next to nothing */
#define MOST_KEY_BYTES ((int64_t)64 << 20) /* more than any cache holds */

#define READ_BYTES ((size_t)128 << 20)

#define PATTERN 4096 /* random numbers, repeated */

/* ---- messages */

/* Every rank sends to the next and receives from the one before. */
static ls_status send_round(struct ls_batch *batch, char *out, const char *in, size_t bytes)
{
    const int p = batch->transport.size, rank = batch->transport.rank;

    ls_batch_receive(batch, out, bytes, (rank - 1 + p) % p);
    ls_batch_send(batch, in, bytes, (rank + 1) % p);
    return ls_batch_run(batch);
}

/* Seconds of one of `times` rounds, on the slowest rank. */
static ls_status time_rounds(double *seconds, const struct cli_world *world, struct ls_batch *batch,
                             char *memory, size_t bytes, int times)
{
    LS_TRY(ls_comm_barrier(world->comm));
    const double since = ls_now();

    for (int i = 0; i < times; i++)
        LS_TRY(send_round(batch, memory, memory + MESSAGE_BYTES, bytes));
    *seconds = (ls_now() - since) / times;
    return ls_comm_reduce(seconds, world->comm, 1, LS_REDUCE_MAX);
}

static ls_status time_messages(struct cli_rates *out, const struct cli_world *world,
                               struct ls_batch *batch, char *memory)
{
    double least = INFINITY, seconds;

    memset(memory, 1, 2 * MESSAGE_BYTES);
    for (int i = 0; i < MESSAGE_TRIES; i++) {
        LS_TRY(time_rounds(&seconds, world, batch, memory, MESSAGE_BYTES, 1));
        least = fmin(least, seconds);
    }
    out->message_bytes = (double)MESSAGE_BYTES / least;
    return time_rounds(&out->message_seconds, world, batch, memory, sizeof(double), SMALL_MESSAGES);
}

ls_status cli_rates_measure(struct cli_rates *out, const struct cli_world *world)
{
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = ls_transport_of(world->comm, &traffic);
    struct ls_batch batch = {0};
    void *memory = NULL;
    ls_status status;

    if (world->size == 1)
        return ls_fail(LS_EVALUE, "--measure: one rank sends no messages, and so cannot tell how "
                                  "fast they are: start as many as are planned for");
    status = ls_alloc(&memory, LS_TAG_COMM, 2 * MESSAGE_BYTES);
    if (status == LS_OK) status = ls_batch_init(&batch, &transport, 2);
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, status), free_all);
    status = time_messages(out, world, &batch, memory);
free_all:
    ls_batch_fini(&batch);
    ls_free(memory);
    return status;
}

/* ---- the machine */

ls_status cli_rates_machine(struct ls_rates *out, const struct cli_world *world, ls_dtype type,
                            int threads)
{
    struct cli_gemm gemm = {.device = NULL};
    double read = 0;
    ls_status status;

    LS_TRY_GOTO(status, cli_gemm_init(&gemm, world, type, threads), fini);
    LS_TRY_GOTO(status, cli_gemm_measure(&gemm, world), fini);
    LS_TRY_GOTO(status,
                ls_comm_agree(world->comm, ls_device_read_rate(&read, gemm.device, READ_BYTES)),
                fini);
    LS_TRY_GOTO(status, ls_comm_reduce(&read, world->comm, 1, LS_REDUCE_SUM), fini);
    *out =
        (struct ls_rates){.flops = gemm.best * threads * 1e9, .memory = read / world->size * 1e9};
fini:
    cli_gemm_fini(&gemm);
    return status;
}

/* ---- the kernel */

/* One rank's attention, and its tensors. */
struct probe {
    struct ls_attention_shape shape;
    struct ls_comm *alone;
    struct ls_attention_plan *plan;
    struct ls_tensor q, k, v, o, lse;
    void *memory;
};

static int64_t at_most(int64_t n, int64_t most)
{
    return n < most ? n : most;
}

static struct ls_attention_shape probe_shape(const struct ls_attention_shape *whole,
                                             const struct ls_attention_prediction *prediction)
{
    struct ls_attention_shape shape = *whole;

    shape.b = 1;
    shape.h /= shape.h_kv;
    shape.h_kv = 1;
    const int64_t key_bytes = (int64_t)ls_key_value_bytes(&shape, 1);

    shape.s_q = at_most(prediction->cost.call_rows, MOST_QUERIES);
    shape.s_k = at_most(ls_layout_most_rows(&prediction->k_layout), MOST_KEY_BYTES / key_bytes);
    return shape;
}

static void fill(struct ls_tensor *t, int64_t n)
{
    const size_t size = (size_t)ls_dtype_size(t->type);
    float values[PATTERN];

    ls_random_normal(values, 0, 0, 0, PATTERN);
    for (int64_t i = 0; i < n; i += PATTERN)
        ls_dtype_convert((char *)t->data + (size_t)i * size, t->type, values, LS_F32,
                         at_most(n - i, PATTERN));
}

/* Of 8-bit keys or values: a scale behind each row. */
static void set_scales(struct ls_tensor *t)
{
    const float one = 1;

    for (int64_t i = 0; i < t->dim[1]; i++)
        memcpy((char *)t->data + (i + 1) * t->dim[3] - sizeof(one), &one, sizeof(one));
}

/* probe->shape is there. */
static ls_status probe_init(struct probe *probe, const struct ls_attention_options *asked)
{
    const struct ls_attention_shape s = probe->shape;
    const int64_t d_v = ls_value_dim(&s), q_rows = s.s_q * s.h;
    const int64_t q_dim[] = {1, s.s_q, s.h, s.d}, k_dim[] = {1, s.s_k, 1, ls_key_width(&s)};
    const int64_t o_dim[] = {1, s.s_q, s.h, d_v}, v_dim[] = {1, s.s_k, 1, ls_value_width(&s)};
    const size_t k_bytes = ls_key_bytes(&s, s.s_k), v_bytes = ls_value_bytes(&s, s.s_k);
    const size_t size = (size_t)ls_dtype_size(s.type);
    const struct ls_attention_options options = {.size = sizeof options,
                                                 .method = "local",
                                                 .has_scale = asked->has_scale,
                                                 .scale = asked->scale,
                                                 .threads = asked->threads};
    const size_t lse_bytes = (size_t)(s.h * s.s_q) * sizeof(float);

    LS_TRY(ls_alloc(&probe->memory, LS_TAG_ACTIVATION,
                    lse_bytes + (size_t)(q_rows * (s.d + d_v)) * size + k_bytes + v_bytes));
    char *at = probe->memory;
    probe->lse = ls_tensor_view(at, LS_F32, 3, (const int64_t[]){1, s.h, s.s_q});
    probe->q = ls_tensor_view(at += lse_bytes, s.type, 4, q_dim);
    probe->o = ls_tensor_view(at += (size_t)(q_rows * s.d) * size, s.type, 4, o_dim);
    probe->k = ls_tensor_view(at += (size_t)(q_rows * d_v) * size, ls_key_type(&s), 4, k_dim);
    probe->v = ls_tensor_view(at += k_bytes, ls_key_type(&s), 4, v_dim);
    fill(&probe->q, q_rows * s.d);
    fill(&probe->k, s.s_k * ls_key_width(&s));
    fill(&probe->v, s.s_k * ls_value_width(&s));
    if (ls_keys_are_quantized(&s)) {
        set_scales(&probe->k);
        set_scales(&probe->v);
    }
    LS_TRY(ls_comm_create_self(&probe->alone));
    return ls_attention_plan_create(&probe->plan, probe->alone, &s, &options);
}

static void probe_fini(struct probe *probe)
{
    ls_attention_plan_destroy(probe->plan);
    ls_comm_destroy(probe->alone);
    ls_free(probe->memory);
}

/* Seconds of the fastest of a few executions. */
static ls_status probe_run(double *seconds, struct probe *probe)
{
    *seconds = INFINITY;
    for (int i = 0; i < KERNEL_TRIES; i++) {
        const double since = ls_now();

        LS_TRY(ls_attention_forward(&probe->o, &probe->lse, probe->plan, &probe->q, &probe->k,
                                    &probe->v, NULL));
        *seconds = fmin(*seconds, ls_now() - since);
    }
    return LS_OK;
}

ls_status cli_rates_kernel(double *gflops, const struct cli_world *world,
                           const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options,
                           const struct ls_attention_prediction *prediction)
{
    struct probe probe = {.shape = probe_shape(shape, prediction)};
    double seconds = 0;
    ls_status status = probe_init(&probe, options);

    LS_TRY_GOTO(status, ls_comm_agree(world->comm, status), fini);
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, probe_run(&seconds, &probe)), fini);
    LS_TRY_GOTO(status, ls_comm_reduce(&seconds, world->comm, 1, LS_REDUCE_MAX), fini);
    const struct ls_attention_shape *s = &probe.shape;
    *gflops = 1e-9 * ls_pair_flops(s) * (double)s->s_q * (double)s->s_k / seconds;
fini:
    probe_fini(&probe);
    return status;
}

double cli_rates_seconds(const struct cli_rates *rates, const struct ls_cost *cost, int p,
                         double gflops)
{
    const double computing = cost->flops_most > 0 ? cost->flops_most * 1e-9 / gflops : 0;

    if (!rates) return computing;
    return computing + (double)cost->bytes_sent / p / rates->message_bytes +
           (double)cost->messages / p * rates->message_seconds;
}
