#include <omp.h>
#include <unistd.h>

#include "base/cpu.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/report.h"
#include "config.h"

static error_t parse_info(int key, char *arg, struct argp_state *state)
{
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = state->input;
        return 0;
    }
    return key == ARGP_KEY_ARG ? cli_options_surplus(arg) : ARGP_ERR_UNKNOWN;
}

static const struct argp info_argp = {
    .parser = parse_info,
    .doc = "Describes this machine as Longspan sees it.",
    .children = (const struct argp_child[]){{.argp = &cli_output_argp}, {0}},
};

static ls_status report_info(const struct cli_report *report, const struct cli_world *world)
{
    char mpi[256];
    ls_isa isa;
    const ls_isa best = ls_cpu_isa_best();
    const double memory = cli_memory_available();

    LS_TRY(ls_cpu_isa(&isa));
    cli_world_mpi_version(mpi, sizeof(mpi));
    cli_report_line(report, "longspan", "%s", PACKAGE_VERSION);
    cli_report_line(report, "cpu", "%s", ls_cpu_model());
    cli_report_line(report, "isa", "%s%s%s%s", ls_isa_name(isa), isa == best ? "" : " (best ",
                    isa == best ? "" : ls_isa_name(best), isa == best ? "" : ")");
    cli_report_line(report, "threads", "%d a rank unless --threads says otherwise, %d processors",
                    omp_get_max_threads(), omp_get_num_procs());
    cli_report_line(report, "memory", "%s available", cli_bytes(memory).s);
    cli_report_line(report, "ranks", "%d", world->size);
    cli_report_line(report, "mpi", "%s", mpi);
    cli_report_string(report, "version", PACKAGE_VERSION);
    cli_report_string(report, "cpu", ls_cpu_model());
    cli_report_string(report, "isa", ls_isa_name(isa));
    cli_report_string(report, "isa_best", ls_isa_name(best));
    cli_report_integer(report, "threads", omp_get_max_threads());
    cli_report_integer(report, "memory_available_bytes", (int64_t)memory);
    cli_report_integer(report, "ranks", world->size);
    cli_report_string(report, "mpi", mpi);
    return LS_OK;
}

ls_status cli_info(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct cli_output_options options = {.json = NULL};
    struct cli_report report;
    bool done;

    (void)held;
    LS_TRY(cli_options_parse(&done, world, &info_argp, argc, argv, &options));
    if (done) return LS_OK;
    ls_status status = cli_report_open(&report, world, &options);

    if (status == LS_OK) status = report_info(&report, world);
    if (status == LS_OK) status = cli_report_commit(&report, world);
    cli_report_fini(&report);
    return status;
}
