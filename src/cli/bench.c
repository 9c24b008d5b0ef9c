#include <stdio.h>
#include <string.h>

#include "cli/attend.h"
#include "cli/command.h"
#include "cli/gemm.h"
#include "cli/report.h"
#include "cli/values.h"
#include "tensor/dtype.h"

#define GEMM_TRIES 5
#define MOST_GEMM 65536

enum { KEY_SIZE = CLI_KEY_OWN };

/* ---- bench gemm */

struct gemm_options {
    struct cli_output_options output;
    int threads;
    ls_dtype type;
    int64_t size[3]; /* m, n, k */
};

static error_t parse_gemm(int key, char *arg, struct argp_state *state)
{
    struct gemm_options *o = state->input;
    int count;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->threads;
        state->child_inputs[1] = &o->output;
        return 0;
    case CLI_KEY_DTYPE:
        return cli_options_error(cli_value_dtype(&o->type, "--dtype", arg));
    case KEY_SIZE:
        return cli_options_error(
            cli_value_list(o->size, &count, "--size (M,N,K)", arg, 3, 3, 1, MOST_GEMM));
    case ARGP_KEY_ARG:
        return cli_options_surplus(arg);
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp gemm_argp = {
    .options =
        (const struct argp_option[]){
            {.doc = "What is multiplied:", .group = 10},
            {.doc = "Common options:", .group = 40},
            {"dtype", CLI_KEY_DTYPE, "TYPE", 0, "bf16 (default), f16 or f32", 10},
            {"size", KEY_SIZE, "M,N,K", 0, "Of each product; default 256,512,128", 10},
            {0},
        },
    .parser = parse_gemm,
    .doc = "Rate of independent matrix products, one a thread, operands in cache: the practical "
           "ceiling of attention.",
    .children =
        (const struct argp_child[]){
            {.argp = &cli_threads_argp},
            {.argp = &cli_output_argp},
            {0},
        },
};

static void report_gemm(const struct cli_report *report, const struct cli_world *world,
                        const struct gemm_options *o, const struct cli_gemm *gemm, double rate)
{
    const int workers = world->size * o->threads;

    cli_report_string(report, "dtype", ls_dtype_name(cli_gemm_type(gemm)));
    cli_report_integer(report, "m", o->size[0]);
    cli_report_integer(report, "n", o->size[1]);
    cli_report_integer(report, "k", o->size[2]);
    cli_report_integer(report, "ranks", world->size);
    cli_report_integer(report, "threads", o->threads);
    cli_report_string(report, "isa", cli_gemm_isa(gemm));
    cli_report_real(report, "gflops", rate * workers);
    cli_report_real(report, "gflops_per_thread", rate);
    cli_report_line(report, "product", "%d x %d x %d, %s, %s", (int)o->size[0], (int)o->size[1],
                    (int)o->size[2], ls_dtype_name(cli_gemm_type(gemm)), cli_gemm_isa(gemm));
    if (cli_gemm_type(gemm) != o->type)
        cli_report_line(report, "", "this device cannot multiply %s", ls_dtype_name(o->type));
    cli_report_line(report, "workers", "%d rank%s x %d thread%s", world->size,
                    world->size == 1 ? "" : "s", o->threads, o->threads == 1 ? "" : "s");
    cli_report_line(report, "speed", "%.1f GF/s, %.1f a thread, the best of %d", rate * workers,
                    rate, GEMM_TRIES);
}

static ls_status measure_gemm(double *rate, struct cli_gemm *gemm, const struct gemm_options *o)
{
    cli_gemm_resize(gemm, (int)o->size[0], (int)o->size[1], (int)o->size[2]);
    *rate = 0;
    for (int i = 0; i < GEMM_TRIES; i++) LS_TRY(cli_gemm_measure(rate, gemm));
    return LS_OK;
}

static ls_status bench_gemm(struct cli_world *world, int argc, char **argv)
{
    struct gemm_options o = {.type = LS_BF16, .size = {256, 512, 128}};
    struct cli_report report;
    struct cli_gemm *gemm;
    double rate;
    bool done;
    ls_status status;

    LS_TRY(cli_options_parse(&done, world, &gemm_argp, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.output), fini_report);
    LS_TRY_GOTO(status, cli_gemm_create(&gemm, world, o.type, o.threads), fini_report);
    LS_TRY_GOTO(status, measure_gemm(&rate, gemm, &o), destroy_gemm);
    report_gemm(&report, world, &o, gemm, rate);
    status = cli_report_commit(&report, world);
destroy_gemm:
    cli_gemm_destroy(gemm);
fini_report:
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

static void print_help(const struct cli_world *world)
{
    if (world->rank == 0)
        printf("Usage: longspan bench gemm|attend [OPTION...]\n\n"
               "  gemm    rate of matrix products, the practical ceiling\n"
               "  attend  attention beside that rate\n\n"
               "`longspan bench gemm --help` and `longspan bench attend --help` list the "
               "options.\n");
}

ls_status cli_bench(bool *held, struct cli_world *world, int argc, char **argv)
{
    static const char *const subjects[] = {"gemm", "attend"};
    static char program[64];
    int i;

    if (argc < 2)
        return ls_fail(LS_EVALUE, "bench what? gemm or attend; see longspan bench --help");
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(world);
        return LS_OK;
    }
    LS_TRY(cli_value_name(&i, "command", argv[1], subjects, 2));
    snprintf(program, sizeof(program), "%s %s", world->program, subjects[i]);
    world->program = program;
    argv[1] = program;
    if (i == 0) return bench_gemm(world, argc - 1, argv + 1);
    return bench_attend(held, world, argc - 1, argv + 1);
}
