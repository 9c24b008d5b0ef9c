#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/profile.h"
#include "cli/command.h"
#include "cli/exchange.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/report.h"
#include "cli/values.h"

#define MOST_BYTES ((int64_t)1 << 40)
#define MOST_REPEATS 1000000

/* Without --repeat: as often as this time allows, within limits. */
#define ROW_SECONDS 0.02
#define AUTO_REPEATS 1000

/* A size is this many times the one before. */
#define SIZE_STEP 4

enum { KEY_OP = CLI_KEY_OWN, KEY_SMALLEST, KEY_LARGEST, KEY_REPEAT };

struct comm_options {
    struct cli_options shared;
    bool chosen[CLI_EXCHANGES]; /* none: all of them */
    int64_t smallest, largest;  /* bytes */
    int64_t repeat;             /* 0: by the time it takes */
};

/* One line of the table. */
struct row {
    const struct cli_exchange *exchange;
    int64_t bytes, count, repeat, wrong;
    double seconds;                  /* of one exchange; the slowest rank's mean */
    double algorithm_rate, bus_rate; /* GB/s */
};

struct comm_bench {
    struct comm_options options;
    struct cli_report report;
    struct cli_world *world;
    float *in, *out; /* each with room for the larger side of the largest exchange */
    struct ls_traffic traffic;
    struct ls_batch batch;
    int rows;
    int64_t wrong;       /* over all rows and ranks */
    double bus_rate_sum; /* over all rows */
};

static ls_status choose_exchange(struct comm_options *o, const char *name)
{
    const char *names[CLI_EXCHANGES];
    int i;

    for (i = 0; i < CLI_EXCHANGES; i++) names[i] = cli_exchanges[i].name;
    LS_TRY(cli_value_name(&i, "--op", name, names, CLI_EXCHANGES));
    o->chosen[i] = true;
    return LS_OK;
}

static ls_status set_option(void *options, int key, const char *value)
{
    struct comm_options *o = options;

    switch (key) {
    case KEY_OP:
        return choose_exchange(o, value);
    case KEY_SMALLEST:
        return cli_value_bytes(&o->smallest, "--smallest", value, 1, MOST_BYTES);
    case KEY_LARGEST:
        return cli_value_bytes(&o->largest, "--largest", value, 1, MOST_BYTES);
    default:
        return cli_value_integer(&o->repeat, "--repeat", value, 1, MOST_REPEATS);
    }
}

static const struct cli_syntax syntax = {
    .doc = "Time and bandwidth of exchanges between the ranks, over sizes, each checked by its "
           "content; bus bandwidth as nccl-tests defines it.",
    .own =
        (const struct argp_option[]){
            {"op", KEY_OP, "NAME", 0,
             "Measure sendrecv, broadcast, all-reduce, reduce-scatter, all-gather or all-to-all; "
             "may be repeated; default all",
             CLI_SECTION_COMPUTATION},
            {"smallest", KEY_SMALLEST, "BYTES", 0, "First size, such as 8 (the default) or 64K",
             CLI_SECTION_COMPUTATION},
            {"largest", KEY_LARGEST, "BYTES", 0, "Last size; default 256M",
             CLI_SECTION_COMPUTATION},
            {"repeat", KEY_REPEAT, "N", 0, "Measure the mean of N; default fewer for larger sizes",
             CLI_SECTION_RESULTS},
            {0},
        },
    .set = set_option,
};

static ls_status read_options(bool *done, struct comm_options *o, const struct cli_world *world,
                              int argc, char **argv)
{
    bool any = false;

    *o = (struct comm_options){.smallest = 8, .largest = (int64_t)256 << 20};
    LS_TRY(cli_options_parse(done, &o->shared, world, &syntax, argc, argv, o));
    if (o->smallest > o->largest)
        return ls_fail(LS_EVALUE, "--smallest %" PRId64 " is more than --largest %" PRId64,
                       o->smallest, o->largest);
    for (int i = 0; i < CLI_EXCHANGES; i++) any |= o->chosen[i];
    for (int i = 0; i < CLI_EXCHANGES; i++) o->chosen[i] |= !any;
    return LS_OK;
}

/* The room that any exchange of the largest size needs on one side. */
static size_t side_bytes(const struct comm_bench *b)
{
    int64_t most = 0;

    for (int i = 0; i < CLI_EXCHANGES; i++) {
        const struct cli_exchange *x = &cli_exchanges[i];
        const int64_t count = cli_exchange_count(x, b->options.largest, b->world->size);
        const int64_t bytes = cli_exchange_bytes(x, count, b->world->size);

        if (bytes > most) most = bytes;
    }
    return (size_t)most;
}

static ls_status allocate(struct comm_bench *b)
{
    const size_t bytes = side_bytes(b);
    ls_status status = LS_OK;

    LS_TRY(cli_memory_check(b->world, 2 * (double)bytes));
    b->in = malloc(bytes);
    b->out = malloc(bytes);
    if (!b->in || !b->out)
        status = ls_fail(LS_ENOMEM, "no memory for twice %s", cli_bytes((double)bytes).s);
    if (status == LS_OK) {
        const struct ls_transport transport = ls_transport_of(b->world->comm, &b->traffic);
        status = ls_batch_init_collective(&b->batch, &transport);
    }
    return ls_comm_agree(b->world->comm, status);
}

/* Seconds that `repeat` exchanges take the slowest rank. */
static ls_status measure(double *seconds, struct comm_bench *b, const struct row *row,
                         int64_t repeat)
{
    struct ls_comm *comm = b->world->comm;

    LS_TRY(ls_comm_barrier(comm));
    const double since = ls_now();

    for (int64_t i = 0; i < repeat; i++) {
        row->exchange->add(&b->batch, b->out, b->in, row->count);
        LS_TRY(ls_batch_run(&b->batch));
    }
    *seconds = ls_now() - since;
    return ls_comm_reduce(seconds, comm, 1, LS_REDUCE_MAX);
}

/* The first exchange warms up and is the one whose content is judged. */
static ls_status measure_row(struct row *row, struct comm_bench *b)
{
    struct ls_comm *comm = b->world->comm;
    double wrong;

    cli_exchange_fill(b->out, b->in, row->exchange, comm, row->count);
    LS_TRY(measure(&row->seconds, b, row, 1));
    wrong = (double)cli_exchange_wrong(b->out, row->exchange, comm, row->count);
    LS_TRY(ls_comm_reduce(&wrong, comm, 1, LS_REDUCE_SUM));
    row->wrong = (int64_t)wrong;

    row->repeat = b->options.repeat;
    if (row->repeat == 0)
        row->repeat = (int64_t)fmax(1, fmin(AUTO_REPEATS, ROW_SECONDS / row->seconds));
    if (row->exchange->in_place) /* sums of zeros do not grow */
        memset(b->out, 0, sizeof(float) * (size_t)row->count);
    LS_TRY(measure(&row->seconds, b, row, row->repeat));
    row->seconds /= (double)row->repeat;
    row->algorithm_rate = (double)row->bytes / row->seconds / 1e9;
    row->bus_rate =
        cli_exchange_bus_bytes(row->exchange, row->bytes, b->world->size) / row->seconds / 1e9;
    return LS_OK;
}

/* ---- report */

static void report_head(const struct comm_bench *b)
{
    cli_report_integer(&b->report, "ranks", b->world->size);
    cli_report_value(&b->report, "exchanges", json_array());
    cli_report_say(&b->report, "# %-14s %12s %12s %6s %10s %8s %8s %7s", "operation", "size",
                   "count", "type", "time", "algbw", "busbw", "#wrong");
    cli_report_say(&b->report, "# %-14s %12s %12s %6s %10s %8s %8s", "", "(B)", "(elements)", "",
                   "(us)", "(GB/s)", "(GB/s)");
}

static void report_row(const struct comm_bench *b, const struct row *row)
{
    cli_report_say(&b->report,
                   "  %-14s %12" PRId64 " %12" PRId64 " %6s %10.2f %8.2f %8.2f %7" PRId64,
                   row->exchange->name, row->bytes, row->count, "f32", row->seconds * 1e6,
                   row->algorithm_rate, row->bus_rate, row->wrong);
    json_array_append_new(json_object_get(b->report.json, "exchanges"),
                          json_pack("{ss sI sI ss sI sf sf sf sI}", "operation",
                                    row->exchange->name, "bytes", (json_int_t)row->bytes, "count",
                                    (json_int_t)row->count, "dtype", "f32", "repeat",
                                    (json_int_t)row->repeat, "seconds", row->seconds, "algbw_gbs",
                                    row->algorithm_rate, "busbw_gbs", row->bus_rate, "wrong",
                                    (json_int_t)row->wrong));
}

static void report_end(const struct comm_bench *b)
{
    const double average = b->bus_rate_sum / b->rows;

    cli_report_real(&b->report, "average_busbw_gbs", average);
    cli_report_integer(&b->report, "wrong", b->wrong);
    cli_report_value(&b->report, "ok", json_boolean(b->wrong == 0));
    cli_report_say(&b->report, "verified: %s, %s; bus bandwidth %s GB/s on average over %s",
                   b->wrong == 0 ? "ok" : "FAILED",
                   cli_counted(b->wrong, "wrong value", "wrong values").s, cli_number(average).s,
                   cli_counted(b->world->size, "rank", "ranks").s);
}

/* ---- the bench */

static ls_status bench_size(struct comm_bench *b, const struct cli_exchange *exchange,
                            int64_t count)
{
    struct row row = {.exchange = exchange, .count = count};

    row.bytes = cli_exchange_bytes(exchange, count, b->world->size);
    LS_TRY(measure_row(&row, b));
    report_row(b, &row);
    b->rows++;
    b->wrong += row.wrong;
    b->bus_rate_sum += row.bus_rate;
    return LS_OK;
}

/* The last size is the largest, whatever the steps come to. */
static ls_status bench_exchange(struct comm_bench *b, const struct cli_exchange *exchange)
{
    const int64_t largest = b->options.largest;
    int64_t before = 0;

    for (int64_t bytes = b->options.smallest; bytes > 0;) {
        const int64_t count = cli_exchange_count(exchange, bytes, b->world->size);

        if (count > before) LS_TRY(bench_size(b, exchange, count));
        before = count;
        if (bytes == largest) break;
        bytes = bytes < largest / SIZE_STEP ? bytes * SIZE_STEP : largest;
    }
    return LS_OK;
}

static ls_status bench_all(struct comm_bench *b)
{
    report_head(b);
    for (int i = 0; i < CLI_EXCHANGES; i++)
        if (b->options.chosen[i]) LS_TRY(bench_exchange(b, &cli_exchanges[i]));
    report_end(b);
    return LS_OK;
}

ls_status cli_bench_comm(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct comm_bench b = {.world = world};
    bool done;
    ls_status status;

    LS_TRY(read_options(&done, &b.options, world, argc, argv));
    if (done) return LS_OK;
    LS_TRY(cli_world_complete(world));
    LS_TRY_GOTO(status, cli_report_open(&b.report, world, &b.options.shared), fini);
    LS_TRY_GOTO(status, allocate(&b), fini);
    LS_TRY_GOTO(status, bench_all(&b), fini);
    status = cli_report_commit(&b.report, world);
    *held = b.wrong == 0;
fini:
    ls_batch_fini(&b.batch);
    free(b.in);
    free(b.out);
    cli_report_fini(&b.report);
    return status;
}
