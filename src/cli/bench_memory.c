#include <math.h>

#include "cli/binding.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/report.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "device/device.h"

#define TRIES 3
#define LEAST_BYTES ((int64_t)64 << 10)
#define MOST_BYTES ((int64_t)1 << 40)

enum { KEY_SIZE = CLI_KEY_OWN };

struct memory_options {
    struct cli_options shared;
    int64_t bytes; /* that a rank reads */
};

static ls_status set_option(void *options, int key, const char *value)
{
    struct memory_options *o = options;

    (void)key;
    return cli_value_bytes(&o->bytes, "--size", value, LEAST_BYTES, MOST_BYTES);
}

static const struct cli_syntax syntax = {
    .doc = "Bandwidth of reading memory: the practical ceiling of attention with few queries.",
    .takes = CLI_TAKES_THREADS,
    .own =
        (const struct argp_option[]){
            {"size", KEY_SIZE, "BYTES", 0,
             "Of each rank, divided among its threads, such as 256M (the default) or 64K",
             CLI_SECTION_COMPUTATION},
            {0},
        },
    .set = set_option,
};

/* GB/s of all ranks together, which read at the same time; the best of a few. */
static ls_status measure(double *gbs, const struct cli_world *world, struct ls_device *device,
                         const struct memory_options *o)
{
    *gbs = 0;
    for (int i = 0; i < TRIES; i++) {
        double rate = 0;

        LS_TRY(ls_comm_barrier(world->comm));
        LS_TRY(ls_comm_agree(world->comm, ls_device_read_rate(&rate, device, (size_t)o->bytes)));
        LS_TRY(ls_comm_reduce(&rate, world->comm, 1, LS_REDUCE_SUM));
        *gbs = fmax(*gbs, rate);
    }
    return LS_OK;
}

static ls_status open_and_measure(double *gbs, const struct cli_world *world,
                                  const struct memory_options *o)
{
    struct ls_device *device = NULL;
    ls_status status = ls_device_open(&device, "cpu", 0, o->shared.threads);

    LS_TRY_GOTO(status, ls_comm_agree(world->comm, status), close);
    LS_TRY_GOTO(status, cli_memory_check(world, (double)o->bytes), close);
    status = measure(gbs, world, device, o);
close:
    ls_device_close(device);
    return status;
}

static void report_memory(const struct cli_report *report, const struct cli_world *world,
                          const struct memory_options *o, double gbs)
{
    const double each = gbs / ((double)world->size * o->shared.threads);

    cli_report_integer(report, "bytes", o->bytes);
    cli_report_integer(report, "ranks", world->size);
    cli_report_integer(report, "threads", o->shared.threads);
    cli_report_real(report, "read_gbs", gbs);
    cli_report_real(report, "read_gbs_per_thread", each);
    cli_report_line(report, "memory", "%s a rank", cli_bytes((double)o->bytes).s);
    cli_report_line(report, "workers", "%s", cli_workers(world->size, o->shared.threads).s);
    cli_report_line(report, "speed", "%s GB/s read, %s a thread", cli_number(gbs).s,
                    cli_number(each).s);
}

ls_status cli_bench_memory(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct memory_options o = {.bytes = (int64_t)256 << 20};
    struct cli_report report;
    double gbs;
    bool done;
    ls_status status;

    (void)held;
    LS_TRY(cli_options_parse(&done, &o.shared, world, &syntax, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    cli_binding_hint(world, &o.shared);
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.shared), fini);
    LS_TRY_GOTO(status, open_and_measure(&gbs, world, &o), fini);
    report_memory(&report, world, &o, gbs);
    status = cli_report_commit(&report, world);
fini:
    cli_report_fini(&report);
    return status;
}
