/* Every method computes on a device whose memory the host must not touch (guarded.h), and gets the
 * bits of the CPU: what a GPU asks of src/attention. */
#include "attention.h"
#include "guarded.h"

#include "longspan/quantize.h"

MPI_SUITE(guarded)

/* K8, V8: of 8 bits */
enum {
    Q,
    K,
    V,
    D_O,
    DLSE,
    INPUTS,
    O = INPUTS,
    LSE,
    O_LO,
    DQ,
    DK,
    DV,
    DSINKS,
    DDISTANCES,
    DBIAS,
    K8,
    V8,
    TENSORS
};
enum { DISTANCES = 5 };

/* One device, a plan on it and its tensors; and the results, where the host can read them. */
struct side {
    struct ls_device *device;
    struct ls_attention_plan *plan;
    struct ls_tensor t[TENSORS];
    char *result[TENSORS];
};

static size_t bytes_of(const struct ls_tensor *t)
{
    size_t bytes = (size_t)ls_dtype_size(t->type);

    for (int i = 0; i < t->ndim; i++) bytes *= (size_t)t->dim[i];
    return bytes;
}

static void shape_tensors(struct side *side, const struct ls_attention_shape *s, int64_t q_rows,
                          int64_t k_rows)
{
    const int64_t q[] = {s->b, q_rows, s->h, s->d}, k[] = {s->b, k_rows, s->h_kv, s->d};
    const int64_t numbers[] = {s->b, s->h, q_rows};

    for (int i = 0; i < TENSORS; i++) {
        const bool of_keys = i == K || i == V || i == DK || i == DV;
        const int64_t wide[] = {s->b, k_rows, s->h_kv, ls_key_width(s)};

        if (i == K8 || i == V8)
            side->t[i] = ls_tensor_view(NULL, ls_key_type(s), 4, wide);
        else if (i == DLSE || i == LSE)
            side->t[i] = ls_tensor_view(NULL, LS_F32, 3, numbers);
        else if (i == DBIAS)
            side->t[i] =
                ls_tensor_view(NULL, LS_F32, 4, (const int64_t[]){1, s->h, q_rows, s->s_k});
        else if (i == DSINKS || i == DDISTANCES)
            side->t[i] = ls_tensor_view(NULL, LS_F32, i == DSINKS ? 1 : 2,
                                        (const int64_t[]){s->h, DISTANCES});
        else
            side->t[i] = ls_tensor_view(NULL, s->type, 4, of_keys ? k : q);
    }
}

/* Drawn by the rank alone: whoever is right has the same from the same. */
static void fill(struct side *side, int i)
{
    struct ls_tensor *t = &side->t[i];
    const int64_t n = (int64_t)(bytes_of(t) / (size_t)ls_dtype_size(t->type));
    float *drawn = malloc((size_t)n * sizeof *drawn + 1);
    char *host = malloc(bytes_of(t) + 1);

    ls_random_normal(drawn, 7, (uint32_t)(100 * rank + i), 0, n);
    ls_dtype_convert(host, t->type, drawn, LS_F32, n);
    ls_device_write(side->device, t->data, host, bytes_of(t));
    free(host);
    free(drawn);
}

static ls_status open_side(struct side *side, struct ls_device *device, const struct job *job)
{
    struct ls_attention_options options = job->options;

    *side = (struct side){.device = device};
    options.device = device;
    LS_TRY(ls_attention_plan_create(&side->plan, world, &job->shape, &options));
    const struct ls_layout q = ls_attention_plan_query_layout(side->plan);
    const struct ls_layout k = ls_attention_plan_key_layout(side->plan);

    shape_tensors(side, &job->shape,
                  options.has_rows ? options.q_rows : ls_layout_part_rows(&q, rank),
                  options.has_rows ? options.k_rows : ls_layout_part_rows(&k, rank));
    for (int i = 0; i < TENSORS; i++) {
        LS_TRY(ls_device_alloc(&side->t[i].data, device, LS_TAG_ACTIVATION, bytes_of(&side->t[i])));
        if (i < INPUTS) fill(side, i);
    }
    return LS_OK;
}

/* Forward alone, with the same keys and values in 8 bits. */
static ls_status run_quantized(struct side *side)
{
    struct ls_attention_execution execution = LS_ATTENTION_EXECUTION;
    static const int results[] = {O, LSE, K8, V8};
    struct ls_tensor *t = side->t;
    float mean[2 * 4 * 16];

    LS_TRY(ls_attention_quantize(&t[K8], &t[V8], mean, side->plan, &t[K], &t[V]));
    execution.key_mean = mean;
    LS_TRY(ls_attention_forward(&t[O], &t[LSE], side->plan, &t[Q], &t[K8], &t[V8], &execution));
    for (int i = 0; i < 4; i++) {
        const int which = results[i];

        side->result[which] = malloc(bytes_of(&t[which]) + 1);
        ls_device_read(side->device, side->result[which], t[which].data, bytes_of(&t[which]));
    }
    return LS_OK;
}

static ls_status run_side(struct side *side, const struct job *job)
{
    struct ls_tensor *t = side->t;

    if (job->shape.kv_type) return run_quantized(side);
    const struct ls_attention_saved saved = {.q = &t[Q],
                                             .k = &t[K],
                                             .v = &t[V],
                                             .o = &t[O],
                                             .o_lo = &t[O_LO],
                                             .lse = &t[LSE],
                                             .d_o = &t[D_O],
                                             .dlse = &t[DLSE]};
    const struct ls_attention_gradients out = {.dq = &t[DQ],
                                               .dk = &t[DK],
                                               .dv = &t[DV],
                                               .dsinks = job->options.sinks ? &t[DSINKS] : NULL,
                                               .ddistance_bias =
                                                   job->options.sinks ? &t[DDISTANCES] : NULL,
                                               .dbias = job->options.sinks ? &t[DBIAS] : NULL};

    LS_TRY(ls_attention_forward_residual(&t[O], &t[O_LO], &t[LSE], side->plan, &t[Q], &t[K], &t[V],
                                         NULL));
    LS_TRY(ls_attention_backward(&out, side->plan, &saved, NULL));
    for (int i = INPUTS; i < (job->options.sinks ? K8 : DSINKS); i++) {
        side->result[i] = malloc(bytes_of(&t[i]) + 1);
        ls_device_read(side->device, side->result[i], t[i].data, bytes_of(&t[i]));
    }
    return LS_OK;
}

static void close_side(struct side *side)
{
    ls_attention_plan_destroy(side->plan);
    for (int i = 0; i < TENSORS; i++) {
        ls_device_free(side->device, side->t[i].data);
        free(side->result[i]);
    }
}

static bool has_same_results(const struct side *a, const struct side *b)
{
    for (int i = INPUTS; i < TENSORS; i++)
        if (a->result[i] && memcmp(a->result[i], b->result[i], bytes_of(&a->t[i])) != 0)
            return false;
    return true;
}

/* Uneven rows of this rank's own: rank r has r + 1 shares. */
static int64_t own_rows(int64_t s)
{
    const int64_t shares = (int64_t)size * (size + 1) / 2;

    return s * (rank + 1) * (rank + 2) / 2 / shares - s * rank * (rank + 1) / 2 / shares;
}

static void check_method(struct job *job, int method)
{
    struct ls_device *cpu;
    struct side guarded_side, plain;

    if (!job_take_method(job, method, size)) return;
    MPI_CHECK_OK(ls_device_open(&cpu, "cpu", 0, 2));
    struct ls_device *device = guarded_device(2);

    MPI_CHECK(device != NULL, "%s", ls_message());
    MPI_CHECK_OK(open_side(&plain, cpu, job));
    MPI_CHECK_OK(open_side(&guarded_side, device, job));
    MPI_CHECK_OK(run_side(&plain, job));
    MPI_CHECK_OK(run_side(&guarded_side, job));
    MPI_CHECK(has_same_results(&plain, &guarded_side), "%s%s%s", job->options.method,
              job->options.strict ? ", strict" : "", job->options.has_rows ? ", own rows" : "");
    close_side(&guarded_side);
    close_side(&plain);
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(device)) == 0, "what was allocated is freed");
    ls_device_close(device);
    ls_device_close(cpu);
}

static void check_methods(bool strict, bool rows)
{
    static float pair_biases[4 * 700 * 900];
    static const float sinks[] = {0.5F, -1, 2, 0};
    static const float biases[4 * DISTANCES] = {1, -1, 0.5F, 2, 0, 0, 3, -2, 1, 1, 0.25F};

    for (int i = 0; i < ls_method_count(); i++) {
        struct job job = {.shape = {2, 4, 4, 700, 900, 16, i % 2 ? LS_BF16 : LS_F32, 0},
                          .options = LS_ATTENTION_OPTIONS};

        job.options.backward = true;
        job.options.strict = strict;
        job.options.sinks = sinks;
        job.options.distance_bias = biases;
        job.options.distances = DISTANCES;
        job.options.bias = pair_biases;
        job.options.bias_per_head = true;
        job.options.has_window = true;
        job.options.window_left = 300;
        job.options.window_right = i % 3 == 0 ? 50 : 0;
        job.options.has_rows = rows;
        job.options.q_rows = own_rows(700);
        job.options.k_rows = own_rows(900);
        check_method(&job, i);
    }
}

MPI_TEST(guarded, every_method_computes_there)
{
    check_methods(false, false);
}

MPI_TEST(guarded, every_method_computes_there_in_strict_mode)
{
    check_methods(true, false);
}

MPI_TEST(guarded, every_method_takes_rows_of_its_caller_there)
{
    check_methods(false, true);
    check_methods(true, true);
}

MPI_TEST(guarded, every_method_takes_keys_of_8_bits_there)
{
    for (int i = 0; i < 2 * ls_method_count(); i++) {
        struct job job = {.shape = {.b = 2,
                                    .h = 4,
                                    .h_kv = 4,
                                    .s_q = 300,
                                    .s_k = 900,
                                    .d = 16,
                                    .type = LS_BF16,
                                    .kv_type = i % 2 ? LS_I8 : LS_E4M3},
                          .options = LS_ATTENTION_OPTIONS};

        job.options.strict = i % 4 == 0;
        job.options.has_rows = i % 3 == 0;
        job.options.q_rows = own_rows(300);
        job.options.k_rows = own_rows(900);
        check_method(&job, i / 2);
    }
}

MPI_TEST(guarded, a_tensor_elsewhere_is_refused)
{
    struct job job = {.shape = {1, 1, 1, 40, 40, 8, LS_F32, 0}, .options = LS_ATTENTION_OPTIONS};
    struct ls_device *device = guarded_device(1);
    struct side side;
    float elsewhere[40 * 8];

    MPI_CHECK(device != NULL, "%s", ls_message());
    job.options.backward = true;
    MPI_CHECK_OK(open_side(&side, device, &job));
    void *kept = side.t[K].data;

    side.t[K].data = elsewhere;
    const ls_status status = run_side(&side, &job);

    side.t[K].data = kept;
    check_failure(status, LS_EVALUE, "k is not in memory of the plan's device, guarded",
                  "k on the host");
    close_side(&side);
    ls_device_close(device);
}

/* All of a transport: sums and blocks, of which a slice and a rest. */
MPI_TEST(guarded, collective_operations_work_there)
{
    enum { N = 300007 };
    struct ls_device *device = guarded_device(1);
    struct ls_traffic traffic = {0};

    MPI_CHECK(device != NULL, "%s", ls_message());
    const struct ls_transport transport = device->ops->transport(device->self, world, &traffic);
    struct ls_batch batch;
    float *host = malloc(N * sizeof *host);
    void *values;
    bool right = true;

    MPI_CHECK_OK(ls_batch_init_collective(&batch, &transport));
    MPI_CHECK_OK(ls_device_alloc(&values, device, LS_TAG_GRADIENT, N * sizeof *host));
    for (int i = 0; i < N; i++) host[i] = (float)(i % 100 + rank);
    ls_device_write(device, values, host, N * sizeof *host);
    ls_batch_all_reduce(&batch, values, LS_F32, N, LS_REDUCE_SUM);
    MPI_CHECK_OK(ls_batch_run(&batch));
    ls_device_read(device, host, values, N * sizeof *host);
    for (int i = 0; i < N; i++) right &= host[i] == (float)(i % 100 * size + size * (size - 1) / 2);
    MPI_CHECK(right, "sums");
    ls_batch_fini(&batch);
    ls_device_free(device, values);
    free(host);
    ls_device_close(device);
}
