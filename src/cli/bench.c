#include "cli/attend.h"
#include "cli/binding.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/values.h"
#include "tensor/dtype.h"

#define GEMM_TRIES 5
#define MOST_GEMM 65536

enum { KEY_DTYPE = CLI_KEY_OWN, KEY_SIZE };

/* ---- bench gemm */

struct gemm_options {
    struct cli_options shared;
    ls_dtype type;
    int64_t size[3]; /* m, n, k */
};

static ls_status set_option(void *options, int key, const char *value)
{
    struct gemm_options *o = options;
    int count;

    if (key == KEY_DTYPE) return cli_value_dtype(&o->type, "--dtype", value);
    return cli_value_list(o->size, &count, "--size (M,N,K)", value, 3, 3, 1, MOST_GEMM);
}

static const struct cli_syntax gemm_syntax = {
    .doc = "Rate of independent matrix products, one a thread, operands in cache: the practical "
           "ceiling of attention.",
    .takes = CLI_TAKES_THREADS,
    .own =
        (const struct argp_option[]){
            {"dtype", KEY_DTYPE, "TYPE", 0, "bf16 (default), f16 or f32", CLI_SECTION_COMPUTATION},
            {"size", KEY_SIZE, "M,N,K", 0, "Of each product; default 256,512,128",
             CLI_SECTION_COMPUTATION},
            {0},
        },
    .set = set_option,
};

static void report_gemm(const struct cli_report *report, const struct cli_world *world,
                        const struct gemm_options *o, const struct cli_gemm *gemm)
{
    const double rate = gemm->best * world->size * gemm->threads;
    const char *isa = gemm->device->facts.isa;

    cli_report_string(report, "dtype", ls_dtype_name(gemm->type));
    cli_report_integer(report, "m", gemm->m);
    cli_report_integer(report, "n", gemm->n);
    cli_report_integer(report, "k", gemm->k);
    cli_report_integer(report, "ranks", world->size);
    cli_report_integer(report, "threads", gemm->threads);
    cli_report_string(report, "isa", isa);
    cli_report_real(report, "gflops", rate);
    cli_report_real(report, "gflops_per_thread", gemm->best);
    cli_report_line(report, "product", "%d x %d x %d, %s, %s", gemm->m, gemm->n, gemm->k,
                    ls_dtype_name(gemm->type), isa);
    if (gemm->type != o->type)
        cli_report_line(report, "", "this device cannot multiply %s", ls_dtype_name(o->type));
    cli_report_line(report, "workers", "%s", cli_workers(world->size, gemm->threads).s);
    cli_report_line(report, "speed", "%s GF/s, %s a thread, the best of %d", cli_number(rate).s,
                    cli_number(gemm->best).s, GEMM_TRIES);
}

static ls_status measure_gemm(struct cli_gemm *out, const struct cli_world *world,
                              const struct gemm_options *o)
{
    LS_TRY(cli_gemm_init(out, world, o->type, o->shared.threads));
    out->m = (int)o->size[0];
    out->n = (int)o->size[1];
    out->k = (int)o->size[2];
    for (int i = 0; i < GEMM_TRIES; i++) LS_TRY(cli_gemm_measure(out, world));
    return LS_OK;
}

static ls_status bench_gemm(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct gemm_options o = {.type = LS_BF16, .size = {256, 512, 128}};
    struct cli_report report;
    struct cli_gemm gemm = {0};
    bool done;
    ls_status status;

    (void)held;
    LS_TRY(cli_options_parse(&done, &o.shared, world, &gemm_syntax, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    cli_binding_hint(world, &o.shared);
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.shared), fini);
    LS_TRY_GOTO(status, measure_gemm(&gemm, world, &o), fini);
    report_gemm(&report, world, &o, &gemm);
    status = cli_report_commit(&report, world);
fini:
    cli_gemm_fini(&gemm);
    cli_report_fini(&report);
    return status;
}

/* ---- bench attend */

static ls_status bench_attend(bool *held, struct cli_world *world, int argc, char **argv)
{
    static const struct cli_attend_defaults defaults = {
        .doc = "Speed of attention beside the GEMM rate of the same run: attend with an input of "
               "1,2,2,4096,4096,64 and 5 repeats unless told otherwise.",
        .random = "1,2,2,4096,4096,64",
        .repeat = 5,
    };

    return cli_attend_with(held, world, argc, argv, &defaults);
}

ls_status cli_bench(bool *held, struct cli_world *world, int argc, char **argv)
{
    static const struct cli_command subjects[] = {
        {"gemm", "rate of matrix products, the practical ceiling", bench_gemm},
        {"attend", "attention beside that rate", bench_attend},
        {"linear", "a linear layer and its gradients beside that rate", cli_bench_linear},
        {"layer", "a transformer layer forward and backward, its bytes planned and measured",
         cli_bench_layer},
        {"memory", "bandwidth of reading memory", cli_bench_memory},
        {"comm", "time and bandwidth of exchanges between the ranks", cli_bench_comm},
    };
    static const struct cli_menu menu = {
        .head = "\nMeasures how fast this machine is.\n", .commands = subjects, .count = 6};

    return cli_menu_run(held, world, &menu, argc, argv);
}
