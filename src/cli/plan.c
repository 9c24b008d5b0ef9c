#include <stdio.h>
#include <string.h>

#include "attention/method.h"
#include "attention/methods/table.h"
#include "cli/command.h"
#include "cli/format.h"
#include "cli/mask_arrays.h"
#include "cli/rates.h"
#include "cli/report.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "plan/attention_size.h"
#include "tensor/dtype.h"

struct plan_options {
    struct cli_options shared;
    int64_t ranks; /* 0: as many as run this */
    bool measure;
};

enum { KEY_RANKS = CLI_KEY_OWN, KEY_MEASURE, KEY_BACKWARD };

static ls_status set_option(void *options, int key, const char *value)
{
    struct plan_options *o = options;

    switch (key) {
    case KEY_MEASURE:
        o->measure = true;
        return LS_OK;
    case KEY_BACKWARD:
        o->shared.attention.backward = true;
        return LS_OK;
    default:
        return cli_value_integer(&o->ranks, "--ranks", value, 1, CLI_MOST_RANKS);
    }
}

static const struct cli_syntax plan_syntax = {
    .doc = "Which methods can compute an attention, and what each would send, keep in memory and "
           "compute. Nothing is computed; of files, only the headers are read. With --measure also "
           "the time that each would take.",
    .takes =
        CLI_TAKES_INPUT | CLI_TAKES_MASK | CLI_TAKES_LAYOUT | CLI_TAKES_STRICT | CLI_TAKES_THREADS,
    .own =
        (const struct argp_option[]){
            {"ranks", KEY_RANKS, "P", 0, "Ranks to plan for; default as many as run this",
             CLI_SECTION_COMPUTATION},
            {"backward", KEY_BACKWARD, NULL, 0, "Plan for gradients as well",
             CLI_SECTION_COMPUTATION},
            {"measure", KEY_MEASURE, NULL, 0,
             "Measure how fast these ranks compute and send, and predict times",
             CLI_SECTION_COMPUTATION},
            {0},
        },
    .set = set_option,
};

/* A method, and what it would take or why it cannot. */
struct row {
    const char *name;
    int p;
    bool backward;
    struct ls_attention_prediction *prediction; /* NULL: it does not fit */
    char reason[256];
    double backward_flops; /* 0: forward alone */
    double tensor_bytes;   /* of the rank that holds most: what cli_inputs.h counts */
    double gflops;         /* of a rank, measured for this method; 0: not measured */
    double seconds;
};

static double most_tensor_bytes(const struct row *row, const struct ls_attention_shape *n,
                                const struct ls_attention_options *options)
{
    const int64_t numbers = (options->sinks != NULL) + options->distances;
    const struct ls_attention_prediction *plan = row->prediction;
    double most = 0;

    for (int r = 0; r < row->p; r++) {
        double bytes = cli_tensor_bytes(n, &plan->q_layout, &plan->k_layout, r);

        if (row->backward)
            bytes += cli_gradient_bytes(n, numbers, &plan->q_layout, &plan->k_layout, r) +
                     cli_bias_gradient_bytes(n, options, &plan->q_layout, r);
        if (bytes > most) most = bytes;
    }
    return most;
}

static ls_status plan_row(struct row *row, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *asked)
{
    struct ls_attention_options options = *asked;

    options.method = row->name;
    const ls_status status = ls_attention_predict(&row->prediction, shape, &options, row->p);
    if (status == LS_EFIT) {
        snprintf(row->reason, sizeof row->reason, "%s", ls_message());
        return LS_OK;
    }
    LS_TRY(status);
    row->tensor_bytes = most_tensor_bytes(row, shape, asked);
    if (row->backward) row->backward_flops = ls_backward_work(shape) * row->prediction->cost.flops;
    return LS_OK;
}

/* Collective. rates NULL: planned for one rank. */
static ls_status predict_time(struct row *row, const struct cli_world *world,
                              const struct ls_attention_shape *shape,
                              const struct ls_attention_options *options,
                              const struct cli_rates *rates)
{
    if (!row->prediction) return LS_OK;
    const struct ls_cost *cost = &row->prediction->cost;

    if (cost->flops_most > 0)
        LS_TRY(cli_rates_kernel(&row->gflops, world, shape, options, row->prediction));
    row->seconds = cli_rates_seconds(rates, cost, row->p, row->gflops);
    return LS_OK;
}

/* A method's own. */
static double working_bytes(const struct ls_cost *c)
{
    return (double)c->workspace_bytes + (double)c->comm_bytes + (double)c->gradient_bytes;
}

static double bytes_in_all(const struct row *row)
{
    return row->tensor_bytes + working_bytes(&row->prediction->cost);
}

/* Forward, which leaves o_lo where backward follows it. */
static int64_t forward_bytes(const struct row *row)
{
    return row->prediction->cost.bytes_sent +
           (row->backward ? row->prediction->cost.residual_bytes_sent : 0);
}

static int64_t forward_messages(const struct row *row)
{
    return row->prediction->cost.messages +
           (row->backward ? row->prediction->cost.residual_messages : 0);
}

/* Backward, which gives the gradients of biases where there are any. */
static int64_t backward_bytes(const struct row *row)
{
    return row->prediction->cost.backward_bytes_sent + row->prediction->cost.bias_bytes_sent;
}

static int64_t backward_messages(const struct row *row)
{
    return row->prediction->cost.backward_messages + row->prediction->cost.bias_messages;
}

/* Part of the ranks' time for which they wait for the one that has most to compute. */
static double idle_part(const struct row *row)
{
    const double most = row->prediction->cost.flops_most * row->p;

    return most > 0 ? 1 - row->prediction->cost.flops / most : 0;
}

static json_t *row_json(const struct row *row, bool measured)
{
    if (!row->prediction)
        return json_pack("{ss sb ss}", "method", row->name, "fits", 0, "reason", row->reason);
    const struct ls_cost *c = &row->prediction->cost;
    json_t *json =
        json_pack("{ss sb ss sf sf sI sI sI sI sI sI}", "method", row->name, "fits", 1, "layout",
                  ls_layout_name(row->prediction->q_layout.kind), "flops", c->flops, "idle",
                  idle_part(row), "bytes_sent", (json_int_t)forward_bytes(row), "messages",
                  (json_int_t)forward_messages(row), "tensor_bytes", (json_int_t)row->tensor_bytes,
                  "workspace_bytes", (json_int_t)c->workspace_bytes, "comm_bytes",
                  (json_int_t)c->comm_bytes, "bytes_per_rank", (json_int_t)bytes_in_all(row));
    if (row->backward)
        json_object_update_new(json,
                               json_pack("{sf sI sI sI}", "backward_flops", row->backward_flops,
                                         "backward_bytes_sent", (json_int_t)backward_bytes(row),
                                         "backward_messages", (json_int_t)backward_messages(row),
                                         "gradient_bytes", (json_int_t)c->gradient_bytes));
    if (measured) {
        json_object_set_new(json, "seconds", json_real(row->seconds));
        json_object_set_new(json, "gflops", json_real(row->gflops));
    }
    return json;
}

static void report_row(const struct cli_report *report, const struct row *row, bool measured,
                       bool chosen)
{
    char idle[16] = "", time[sizeof(struct cli_text) + 1] = "";

    if (!row->prediction) {
        cli_report_line(report, row->name, "does not fit: %s", row->reason);
        return;
    }
    const struct ls_cost *c = &row->prediction->cost;
    if (idle_part(row) > 0.005) snprintf(idle, sizeof idle, "  %.0f %% idle", 100 * idle_part(row));
    if (measured) snprintf(time, sizeof time, " %9s", cli_seconds(row->seconds).s);
    cli_report_line(report, row->name, "%-10s %8s %9s %8s %9s %9s %9s%s%s%s",
                    ls_layout_name(row->prediction->q_layout.kind),
                    cli_flops(c->flops + row->backward_flops).s,
                    cli_bytes((double)(forward_bytes(row) + backward_bytes(row))).s,
                    cli_count(forward_messages(row) + backward_messages(row)).s,
                    cli_bytes(row->tensor_bytes).s, cli_bytes(working_bytes(c)).s,
                    cli_bytes(bytes_in_all(row)).s, time, idle, chosen ? "  <- auto" : "");
}

static void report_head(const struct cli_report *report, const struct ls_attention_shape *n,
                        const struct plan_options *o, int p)
{
    cli_report_task(report, n, &o->shared.attention);
    cli_report_line(report, "workers", "%s", cli_workers(p, o->shared.threads).s);
    cli_report_line(report, "", "compute, sent, messages: of all ranks; memory: of the largest");
    if (o->shared.attention.backward)
        cli_report_line(report, "", "all of forward and backward together");
    if (o->measure)
        cli_report_line(report, "", "time: as measured now, nothing of the sending hidden");
    cli_report_say(report, "%s", "");
    cli_report_line(report, "method", "%-10s %8s %9s %8s %9s %9s %9s%s", "layout", "compute",
                    "sent", "messages", "tensors", "workspace", "memory",
                    o->measure ? "      time" : "");
}

static void report_rates(const struct cli_report *report, const struct cli_rates *rates)
{
    cli_report_line(report, "messages", "%s/s from each rank to the next, %s each",
                    cli_bytes(rates->message_bytes).s, cli_seconds(rates->message_seconds).s);
    cli_report_real(report, "message_bytes_per_second", rates->message_bytes);
    cli_report_real(report, "message_seconds", rates->message_seconds);
}

/* Every method that there is. */
static ls_status report_methods(const struct cli_report *report, json_t *list,
                                const struct cli_world *world, const struct plan_options *o,
                                const struct ls_attention_shape *shape, int p,
                                const struct cli_rates *rates, const char *chosen)
{
    const struct ls_attention_options *asked = &o->shared.attention;
    ls_status status = LS_OK;

    for (int i = 0; i < ls_method_count() && status == LS_OK; i++) {
        struct row row = {.name = ls_method_at(i)->name, .p = p, .backward = asked->backward};

        status = ls_comm_agree(world->comm, plan_row(&row, shape, asked));
        if (status == LS_OK && o->measure) status = predict_time(&row, world, shape, asked, rates);
        if (status == LS_OK) {
            report_row(report, &row, o->measure, chosen && strcmp(row.name, chosen) == 0);
            json_array_append_new(list, row_json(&row, o->measure));
        }
        ls_attention_prediction_destroy(row.prediction);
    }
    return status;
}

static ls_status report_plan(const struct cli_report *report, const struct cli_world *world,
                             const struct plan_options *o, const struct ls_attention_shape *shape,
                             int p)
{
    const bool sends = o->measure && p > 1;
    struct ls_attention_prediction *best = NULL;
    struct cli_rates rates;
    ls_status status;

    if (sends) LS_TRY(cli_rates_measure(&rates, world));
    json_t *list = json_array();
    status =
        ls_comm_agree(world->comm, ls_attention_predict(&best, shape, &o->shared.attention, p));
    if (status != LS_OK && status != LS_EFIT) goto free_list;
    const char *chosen = best ? best->method : NULL;
    report_head(report, shape, o, p);
    LS_TRY_GOTO(status,
                report_methods(report, list, world, o, shape, p, sends ? &rates : NULL, chosen),
                free_list);
    if (sends) report_rates(report, &rates);
    cli_report_line(report, "auto", "%s%s%s", chosen ? chosen : "", chosen ? ": " : "",
                    chosen ? best->why : "no method fits");
    cli_report_integer(report, "ranks", p);
    cli_report_value(report, "methods", list);
    cli_report_value(report, "auto", chosen ? json_string(chosen) : json_null());
    ls_attention_prediction_destroy(best);
    return LS_OK;
free_list:
    ls_attention_prediction_destroy(best);
    json_decref(list);
    return status;
}

static ls_status check_options(const struct plan_options *o)
{
    if (o->measure && o->shared.attention.backward)
        return ls_fail(LS_EVALUE, "--measure times forward alone: leave out --backward");
    return LS_OK;
}

static ls_status plan_attend(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct plan_options o = {.ranks = 0};
    struct cli_inputs inputs = {.order = LS_ORDER_BSHD};
    struct cli_mask_arrays arrays = {.alibi = NULL};
    struct cli_report report;
    bool done;
    ls_status status;

    (void)held;
    LS_TRY(cli_options_parse(&done, &o.shared, world, &plan_syntax, argc, argv, &o));
    if (done) return LS_OK;
    LS_TRY(check_options(&o));
    const int p = o.ranks ? (int)o.ranks : world->size;

    if (o.shared.attention.node_size == 0 && p == world->size)
        o.shared.attention.node_size = ls_comm_node_run(world->comm);
    LS_TRY_GOTO(status, cli_report_open(&report, world, &o.shared), fini);
    LS_TRY_GOTO(status, cli_inputs_open(&inputs, world, &o.shared.input, false), fini);
    LS_TRY_GOTO(status,
                cli_mask_load(&arrays, &o.shared.attention, &o.shared.mask, &o.shared.input, world,
                              &inputs),
                fini);
    cli_mask_report(&report, &arrays);
    LS_TRY_GOTO(status, report_plan(&report, world, &o, &inputs.shape, p), fini);
    status = cli_report_commit(&report, world);
fini:
    cli_mask_free(&arrays);
    cli_inputs_close(&inputs);
    cli_report_fini(&report);
    return status;
}

ls_status cli_plan(bool *held, struct cli_world *world, int argc, char **argv)
{
    static const struct cli_command subjects[] = {
        {"attend", "methods of attention with bytes, flops and memory", plan_attend},
        {"model", "memory and work of a transformer that is trained", cli_plan_model}};
    static const struct cli_menu menu = {
        .head = "\nPredicts from shapes alone.\n", .commands = subjects, .count = 2};

    return cli_menu_run(held, world, &menu, argc, argv);
}
