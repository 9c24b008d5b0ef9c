#include <math.h>
#include <omp.h>

#include "base/cpu.h"
#include "base/machine.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/mpi_start.h"
#include "cli/report.h"
#include "config.h"
#include "device/device.h"

static const struct cli_syntax info_syntax = {.doc = "Describes this machine as Longspan sees it."};

static json_t *limit_json(const struct ls_cgroup_limit *limit, const char *unit)
{
    if (!isfinite(limit->limit)) return json_null();
    return json_pack("{ss sf}", "cgroup", limit->group, unit, limit->limit);
}

static ls_status report_info(const struct cli_report *report, const struct cli_world *world)
{
    struct ls_machine machine;
    struct ls_device *device;
    char mpi[256];
    const ls_isa best = ls_cpu_isa_best();
    struct ls_cgroup_limit processors;
    struct cli_memory memory;

    LS_TRY(ls_machine_describe(&machine));
    LS_TRY(ls_device_open(&device, "cpu", 0, 0));
    const struct ls_device_facts facts = device->facts;

    ls_device_close(device);
    ls_cgroup_processors(&processors, "");
    cli_memory_find(&memory);
    cli_mpi_version(mpi, sizeof(mpi));
    cli_report_line(report, "longspan", "%s", PACKAGE_VERSION);
    cli_report_line(report, "cpu", "%s, %d cores, %d NUMA node%s", machine.model, machine.cores,
                    machine.numa_nodes, machine.numa_nodes == 1 ? "" : "s");
    cli_report_line(report, "caches", "L1 %s, L2 %s, L3 %s", cli_bytes((double)machine.l1d_bytes).s,
                    cli_bytes((double)machine.l2_bytes).s, cli_bytes((double)machine.l3_bytes).s);
    cli_report_line(report, "isa", "%s, best here %s", facts.isa, ls_isa_name(best));
    cli_report_line(report, "threads", "%d a rank unless --threads says otherwise, %d processors",
                    facts.threads, omp_get_num_procs());
    if (isfinite(processors.limit))
        cli_report_line(report, "", "limit of cgroup %s: %.3g processor%s", processors.group,
                        processors.limit, processors.limit == 1 ? "" : "s");
    cli_report_line(report, "memory", "%s available%s", cli_bytes(memory.available).s,
                    memory.reason);
    cli_report_line(report, "products", "%s", facts.library);
    cli_report_line(report, "ranks", "%d", world->size);
    cli_report_line(report, "mpi", "%s", mpi);
    cli_report_string(report, "version", PACKAGE_VERSION);
    cli_report_string(report, "cpu", machine.model);
    cli_report_integer(report, "cores", machine.cores);
    cli_report_integer(report, "l1d_bytes", (int64_t)machine.l1d_bytes);
    cli_report_integer(report, "l2_bytes", (int64_t)machine.l2_bytes);
    cli_report_integer(report, "l3_bytes", (int64_t)machine.l3_bytes);
    cli_report_string(report, "isa", facts.isa);
    cli_report_string(report, "isa_best", ls_isa_name(best));
    cli_report_integer(report, "threads", facts.threads);
    cli_report_value(report, "processor_limit", limit_json(&processors, "processors"));
    cli_report_value(report, "memory_available_bytes",
                     isfinite(memory.available) ? json_integer((json_int_t)memory.available)
                                                : json_null());
    cli_report_value(report, "memory_limit", limit_json(&memory.group, "bytes"));
    cli_report_string(report, "products", facts.library);
    cli_report_integer(report, "ranks", world->size);
    cli_report_string(report, "mpi", mpi);
    return LS_OK;
}

ls_status cli_info(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct cli_options options;
    struct cli_report report;
    bool done;

    (void)held;
    LS_TRY(cli_options_parse(&done, &options, world, &info_syntax, argc, argv, NULL));
    if (done) return LS_OK;
    ls_status status = cli_report_open(&report, world, &options);

    if (status == LS_OK) status = report_info(&report, world);
    if (status == LS_OK) status = cli_report_commit(&report, world);
    cli_report_fini(&report);
    return status;
}
