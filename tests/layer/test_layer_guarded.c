/* A layer computes on a device whose memory the host must not touch (guarded.h), and gets the bits
 * of the CPU: what a GPU asks of src/layer. */
#include "../mpi/guarded.h"
#include "share.h"

MPI_SUITE(layer_guarded)

#define OPTIONS .size = sizeof(struct ls_layer_options)

static const struct ls_layer_shape shapes[] = {
    {.b = 2, .s = 300, .e = 16, .h = 4, .h_kv = 4, .d = 8, .f = 24, .type = LS_F32},
    {.b = 1, .s = 515, .e = 32, .h = 4, .h_kv = 1, .d = 8, .f = 32, .type = LS_BF16},
};

/* Between them all operations of a device, and every piece made again. */
static const struct ls_layer_options kinds[] = {
    {OPTIONS, .causal = true, .dropout = 0.25F},
    {OPTIONS, .norm = LS_NORM_RMS, .activation = LS_ACTIVATION_SWIGLU, .no_bias = true,
     .rope_theta = 1e4F, .recompute = "core,norm,mlp,qkv"},
    {OPTIONS, .post_norm = true, .activation = LS_ACTIVATION_GELU_ERF, .dropout = 0.25F,
     .recompute = "full"},
    {OPTIONS, .parallel = true, .dropout = 0.25F, .recompute = "activation,dropout"},
};

static void check_layer(const struct ls_layer_shape *shape, const struct ls_layer_options *options,
                        int t, bool sp)
{
    struct side plain, apart;
    struct ls_device *cpu;

    MPI_CHECK_OK(ls_device_open(&cpu, "cpu", 0, 2));
    struct ls_device *device = guarded_device(2);
    MPI_CHECK(device != NULL, "%s", ls_message());
    open_side(&plain, cpu, shape, options, t, sp);
    open_side(&apart, device, shape, options, t, sp);
    run_side(&plain);
    run_side(&apart);
    MPI_CHECK(has_same_results(&plain, &apart), "%s, t %d c %d sp %d%s%s, %s",
              ls_dtype_name(shape->type), t, size / t, sp, options->post_norm ? ", post-norm" : "",
              options->parallel ? ", parallel" : "",
              options->recompute ? options->recompute : "none");
    close_side(&apart);
    close_side(&plain);
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(device)) == 0, "what was allocated is freed");
    ls_device_close(device);
    ls_device_close(cpu);
}

MPI_TEST(layer_guarded, computes_there_on_any_grid)
{
    for (int t = 1; t <= size && t <= 4; t++)
        for (int i = 0; i < COUNT(shapes) * COUNT(kinds); i++)
            for (int sp = 0; sp < (t > 1 ? 2 : 1) && is_grid(&shapes[i % COUNT(shapes)], t); sp++)
                check_layer(&shapes[i % COUNT(shapes)], &kinds[i / COUNT(shapes)], t, sp);
}
