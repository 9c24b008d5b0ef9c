#include <math.h>
#include <stdlib.h>

#include "base/ledger.h"
#include "base/random.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/gemm.h"
#include "cli/memory.h"
#include "cli/report.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "device/linear.h"
#include "tensor/dtype.h"

#define TRIES 7
#define TRY_SECONDS 0.02 /* of calls between two looks at the clock, at least */
#define MOST_SIZE 1048576

enum { KEY_TOKENS = CLI_KEY_OWN, KEY_INPUTS, KEY_OUTPUTS, KEY_DTYPE };

struct linear_options {
    struct cli_options shared;
    ls_dtype type;
    int64_t tokens, in, out;
};

static ls_status set_option(void *options, int key, const char *value)
{
    struct linear_options *o = options;

    switch (key) {
    case KEY_TOKENS:
        return cli_value_integer(&o->tokens, "--tokens", value, 1, MOST_SIZE);
    case KEY_INPUTS:
        return cli_value_integer(&o->in, "--inputs", value, 1, MOST_SIZE);
    case KEY_OUTPUTS:
        return cli_value_integer(&o->out, "--outputs", value, 1, MOST_SIZE);
    default:
        return cli_value_dtype(&o->type, "--dtype", value);
    }
}

static const struct cli_syntax syntax = {
    .doc = "Speed of a linear layer, forward and of its gradients, beside the GEMM rate of the "
           "same run.",
    .takes = CLI_TAKES_THREADS,
    .own =
        (const struct argp_option[]){
            {"tokens", KEY_TOKENS, "N", 0, "Rows of each call, of each rank; default 2048",
             CLI_SECTION_COMPUTATION},
            {"inputs", KEY_INPUTS, "N", 0, "Features of the input; default 768",
             CLI_SECTION_COMPUTATION},
            {"outputs", KEY_OUTPUTS, "N", 0, "Features of the output; default 3072",
             CLI_SECTION_COMPUTATION},
            {"dtype", KEY_DTYPE, "TYPE", 0, "bf16 (default) or f32", CLI_SECTION_COMPUTATION},
            {0},
        },
    .set = set_option,
};

/* A layer with its operands; y and z have the gradient dy as well. */
struct layer {
    struct ls_device *device; /* the caller's */
    struct ls_linear_kernel *kernel;
    struct ls_leaf *leaf;
    struct ls_tensor x, w, bias, y, z, dw;
    void *memory;
};

enum { FORWARD, FORWARD_GELU, INPUT_GRADIENT, WEIGHT_GRADIENT, OPERATIONS };

static const struct {
    const char *name, *label; /* in the object, and in the text */
} operations[OPERATIONS] = {
    [FORWARD] = {"forward", "forward"},
    [FORWARD_GELU] = {"forward_gelu", "with gelu"},
    [INPUT_GRADIENT] = {"dx", "dx"},
    [WEIGHT_GRADIENT] = {"dw", "dw"},
};

static struct ls_linear_shape shape_of(const struct linear_options *o)
{
    return (struct ls_linear_shape){.type = o->type,
                                    .rows = o->tokens,
                                    .in = o->in,
                                    .out = o->out,
                                    .backward = true,
                                    .b = 1,
                                    .s = o->tokens};
}

/* Bytes of the operands; places them from `base` on unless it is NULL. */
static size_t place(struct layer *l, const struct linear_options *o, char *base)
{
    const struct {
        struct ls_tensor *t;
        ls_dtype type;
        int64_t rows, columns;
    } all[] = {{&l->x, o->type, o->tokens, o->in},  {&l->w, o->type, o->out, o->in},
               {&l->bias, o->type, 1, o->out},      {&l->y, o->type, o->tokens, o->out},
               {&l->z, o->type, o->tokens, o->out}, {&l->dw, LS_F32, o->out, o->in}};
    size_t used = 0;

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const size_t n = (size_t)all[i].rows * (size_t)all[i].columns;

        *all[i].t = ls_tensor_view(base ? base + used : NULL, all[i].type, 2,
                                   (const int64_t[]){all[i].rows, all[i].columns});
        used += (n * (size_t)ls_dtype_size(all[i].type) + 63) / 64 * 64;
    }
    return used;
}

static ls_status fill(struct layer *l, struct ls_tensor *t, uint32_t stream)
{
    const int64_t n = t->dim[0] * t->dim[1];
    const size_t bytes = (size_t)n * (size_t)ls_dtype_size(t->type);
    float *value = malloc((size_t)n * sizeof *value);
    void *rounded = malloc(bytes);

    if (value && rounded) {
        ls_random_normal(value, 0, stream, 0, n);
        ls_dtype_convert(rounded, t->type, value, LS_F32, n);
        ls_device_write(l->device, t->data, rounded, bytes);
    }
    const bool filled = value && rounded;
    free(rounded);
    free(value);
    return filled ? LS_OK : ls_fail(LS_ENOMEM, "no memory for random numbers");
}

static ls_status open_layer(struct layer *l, const struct linear_options *o)
{
    const struct ls_linear_shape shape = shape_of(o);
    const int64_t leaves = (o->tokens + LS_LEAF - 1) / LS_LEAF;
    struct ls_tensor *const random[] = {&l->x, &l->w, &l->bias, &l->y, &l->z};

    l->leaf = malloc((size_t)leaves * sizeof *l->leaf);
    if (!l->leaf) return ls_fail(LS_ENOMEM, "no memory for a list of leaves");
    for (int64_t i = 0; i < leaves; i++) l->leaf[i] = (struct ls_leaf){i, i * LS_LEAF};
    LS_TRY(ls_linear_kernel_create(&l->kernel, l->device, &shape));
    LS_TRY(ls_device_alloc(&l->memory, l->device, LS_TAG_ACTIVATION, place(l, o, NULL)));
    place(l, o, l->memory);
    for (uint32_t i = 0; i < 5; i++) LS_TRY(fill(l, random[i], i));
    return LS_OK;
}

static void close_layer(struct layer *l)
{
    if (l->device) ls_linear_kernel_destroy(l->device, l->kernel);
    if (l->memory) ls_device_free(l->device, l->memory);
    free(l->leaf);
}

static void start(struct layer *l, int operation)
{
    struct ls_queue *queue = &l->device->queue;
    const struct ls_linear_call forward = {.y = &l->y,
                                           .z = operation == FORWARD_GELU ? &l->z : NULL,
                                           .x = &l->x,
                                           .w = &l->w,
                                           .bias = &l->bias,
                                           .gelu = operation == FORWARD_GELU};
    const struct ls_linear_input_gradient gradient = {.dx = &l->x, .dy = &l->y, .w = &l->w};
    const struct ls_linear_sum sum = {
        .dw = &l->dw,
        .dy = &l->y,
        .x = &l->x,
        .leaves = {l->leaf, (l->x.dim[0] + LS_LEAF - 1) / LS_LEAF},
    };

    if (operation == INPUT_GRADIENT)
        ls_linear_dx(queue, l->kernel, &gradient);
    else if (operation == WEIGHT_GRADIENT)
        ls_linear_dw(queue, l->kernel, &sum);
    else
        ls_linear(queue, l->kernel, &forward);
}

/* GF/s of some calls, one after the other. */
static ls_status measure_once(double *gflops, struct layer *l, const struct linear_options *o,
                              int operation)
{
    const double flop = 2.0 * (double)o->tokens * (double)o->in * (double)o->out;
    const double since = ls_now();
    double seconds = 0;
    int calls = 0;

    for (; seconds < TRY_SECONDS; calls++) {
        start(l, operation);
        LS_TRY(ls_queue_finish(NULL, &l->device->queue));
        seconds = ls_now() - since;
    }
    *gflops = 1e-9 * flop * calls / seconds;
    return LS_OK;
}

/* All operations and the product rate in turn, so that a machine that changes its speed does so
 * for all of them; the best of each, of all ranks together. */
static ls_status measure(double gflops[OPERATIONS], struct cli_gemm *gemm, struct layer *l,
                         const struct cli_world *world, const struct linear_options *o)
{
    for (int i = 0; i < OPERATIONS; i++) gflops[i] = 0;
    for (int i = 0; i < TRIES * OPERATIONS; i++) {
        double rate = 0;

        if (i % OPERATIONS == 0) LS_TRY(cli_gemm_measure(gemm, world));
        LS_TRY(ls_comm_barrier(world->comm));
        LS_TRY(ls_comm_agree(world->comm, measure_once(&rate, l, o, i % OPERATIONS)));
        LS_TRY(ls_comm_reduce(&rate, world->comm, 1, LS_REDUCE_SUM));
        gflops[i % OPERATIONS] = fmax(gflops[i % OPERATIONS], rate);
    }
    return LS_OK;
}

static ls_status open_and_measure(double gflops[OPERATIONS], struct cli_gemm *gemm,
                                  const struct cli_world *world, const struct linear_options *o)
{
    struct layer layer = {0};
    ls_status status;

    LS_TRY(cli_gemm_init(gemm, world, o->type, o->shared.threads));
    layer.device = gemm->device;

    const struct ls_linear_shape shape = shape_of(o);
    const size_t bytes = ls_linear_kernel_bytes(layer.device, &shape) + place(&layer, o, NULL);
    LS_TRY_GOTO(status, cli_memory_check(world, (double)bytes), close);
    LS_TRY_GOTO(status, ls_comm_agree(world->comm, open_layer(&layer, o)), close);
    status = measure(gflops, gemm, &layer, world, o);
close:
    close_layer(&layer);
    return status;
}

static void report_linear(const struct cli_report *report, const struct cli_world *world,
                          const struct linear_options *o, const struct cli_gemm *gemm,
                          const double gflops[OPERATIONS])
{
    const double workers = (double)world->size * gemm->threads;
    const char *kernel = ls_linear_kernel_name(gemm->device, o->type);
    json_t *all = json_array();

    cli_report_string(report, "dtype", ls_dtype_name(o->type));
    cli_report_integer(report, "tokens", o->tokens);
    cli_report_integer(report, "inputs", o->in);
    cli_report_integer(report, "outputs", o->out);
    cli_report_integer(report, "ranks", world->size);
    cli_report_integer(report, "threads", gemm->threads);
    cli_report_string(report, "kernel", kernel);
    cli_report_real(report, "gemm_gflops_per_thread", gemm->best);
    cli_report_line(report, "layer", "%s tokens, %s -> %s, %s, %s", cli_count(o->tokens).s,
                    cli_count(o->in).s, cli_count(o->out).s, ls_dtype_name(o->type), kernel);
    cli_report_line(report, "workers", "%s", cli_workers(world->size, gemm->threads).s);
    for (int i = 0; i < OPERATIONS; i++) {
        const double each = gflops[i] / workers;

        json_array_append_new(
            all, json_pack("{s:s, s:f, s:f, s:f}", "operation", operations[i].name, "gflops",
                           gflops[i], "gflops_per_thread", each, "ratio", each / gemm->best));
        cli_report_line(report, operations[i].label, "%s GF/s, %s a thread, %.0f %% of products",
                        cli_number(gflops[i]).s, cli_number(each).s, 100 * each / gemm->best);
    }
    cli_report_value(report, "operations", all);
    cli_report_line(report, "products", "%s GF/s a thread, %s, the best of %d",
                    cli_number(gemm->best).s, ls_dtype_name(gemm->type), TRIES);
}

ls_status cli_bench_linear(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct linear_options o = {.type = LS_BF16, .tokens = 2048, .in = 768, .out = 3072};
    double gflops[OPERATIONS];
    struct cli_gemm gemm = {0};
    struct cli_report report;
    bool done;
    ls_status status;

    (void)held;
    LS_TRY(cli_options_parse(&done, &o.shared, world, &syntax, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    cli_binding_hint(world, &o.shared);
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.shared), fini);
    LS_TRY_GOTO(status, open_and_measure(gflops, &gemm, world, &o), fini);
    report_linear(&report, world, &o, &gemm, gflops);
    status = cli_report_commit(&report, world);
fini:
    cli_gemm_fini(&gemm);
    cli_report_fini(&report);
    return status;
}
