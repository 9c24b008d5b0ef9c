/* What of a layer to compute again: what each piece frees and costs, what was chosen, the frontier
 * of bytes against time, and grids of ranks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/format.h"
#include "cli/plan_model.h"
#include "plan/pieces.h"

#define FRONTIER 16 /* points, at most */

/* ---- pieces */

/* Nothing is said of nothing. */
static struct cli_text unless_zero(double value, struct cli_text text)
{
    return value > 0 ? text : (struct cli_text){"-"};
}

static void report_piece(const struct cli_report *report, json_t *list,
                         const struct cli_model_options *o, const struct ls_recompute_set *set,
                         int64_t freed)
{
    const struct ls_layer_work *work = &set->work;
    const struct cli_text time = cli_model_has_rates(o)
                                     ? unless_zero(set->seconds, cli_seconds(set->seconds))
                                     : (struct cli_text){""};
    json_t *json =
        json_pack("{ss sI sI sI sf sf sf}", "name", ls_pieces_name(set->pieces).s, "kept_bytes",
                  (json_int_t)set->kept, "freed_bytes", (json_int_t)freed, "again_bytes",
                  (json_int_t)set->again, "flops", set->work.flops, "memory_bytes",
                  set->work.memory, "exchanged_bytes", set->work.exchanged);

    if (cli_model_has_rates(o)) json_object_set_new(json, "seconds", json_real(set->seconds));
    json_array_append_new(list, json);
    cli_report_line(report, ls_pieces_name(set->pieces).s, "%10s %10s %10s %10s %10s %10s %10s",
                    cli_bytes((double)set->kept).s,
                    unless_zero((double)freed, cli_bytes((double)freed)).s,
                    unless_zero((double)set->again, cli_bytes((double)set->again)).s,
                    unless_zero(work->flops, cli_flops(work->flops)).s,
                    unless_zero(work->memory, cli_bytes(work->memory)).s,
                    unless_zero(work->exchanged, cli_bytes(work->exchanged)).s, time.s);
}

void cli_model_report_pieces(const struct cli_report *report, const struct cli_model_options *o)
{
    const struct ls_recompute_set none = ls_recompute_set_of(&o->model, &o->run, 0, &o->rates);
    json_t *list = json_array();

    cli_report_say(report, "%s", "");
    cli_report_line(report, "a piece", "%10s %10s %10s %10s %10s %10s %10s", "kept", "freed",
                    "again", "products", "memory", "exchanged",
                    cli_model_has_rates(o) ? "time" : "");
    for (unsigned piece = 1; piece < LS_RECOMPUTE_SETS; piece <<= 1) {
        const struct ls_recompute_set set =
            ls_recompute_set_of(&o->model, &o->run, piece, &o->rates);

        report_piece(report, list, o, &set, none.kept - set.kept);
    }
    cli_report_value(report, "pieces", list);
}

/* ---- choices */

/* "40 none, 56 norm,activation" */
struct sets_text {
    char s[512];
};

static struct sets_text sets_text(const struct ls_recompute_problem *problem,
                                  const struct ls_recompute_choice *choice)
{
    struct sets_text text = {""};
    size_t used = 0;

    for (int i = 0; i < problem->n && used < sizeof text.s; i++)
        if (choice->layers[i] > 0)
            used += (size_t)snprintf(text.s + used, sizeof text.s - used, "%s%lld %s",
                                     used ? ", " : "", (long long)choice->layers[i],
                                     ls_pieces_name(problem->set[i].pieces).s);
    return text;
}

static json_t *sets_json(const struct ls_recompute_problem *problem,
                         const struct ls_recompute_choice *choice)
{
    json_t *list = json_array();

    for (int i = 0; i < problem->n; i++)
        if (choice->layers[i] > 0)
            json_array_append_new(list, json_pack("{ss sI}", "recompute",
                                                  ls_pieces_name(problem->set[i].pieces).s,
                                                  "layers", (json_int_t)choice->layers[i]));
    return list;
}

static void report_frontier(const struct cli_report *report,
                            const struct ls_recompute_problem *problem,
                            const struct ls_recompute_choice *points, int count)
{
    json_t *list = json_array();

    cli_report_say(report, "%s", "");
    cli_report_line(report, "frontier", "%10s %10s  layers", "a rank", "time");
    for (int i = 0; i < count; i++) {
        cli_report_line(report, "", "%10s %10s  %s", cli_bytes((double)points[i].bytes).s,
                        cli_seconds(points[i].seconds).s, sets_text(problem, &points[i]).s);
        json_array_append_new(
            list, json_pack("{sI sf so}", "bytes_per_rank", (json_int_t)points[i].bytes, "seconds",
                            points[i].seconds, "sets", sets_json(problem, &points[i])));
    }
    cli_report_value(report, "frontier", list);
}

ls_status cli_model_report_choice(const struct cli_report *report,
                                  const struct ls_recompute_problem *problem,
                                  const struct ls_recompute_choice *choice)
{
    struct ls_recompute_choice *points = calloc(FRONTIER, sizeof *points);
    int count = 0;
    ls_status status = points ? ls_recompute_frontier(points, &count, FRONTIER, problem)
                              : ls_fail(LS_ENOMEM, "frontier: out of memory");

    if (status == LS_OK) {
        cli_report_line(report, "chosen", "%s", sets_text(problem, choice).s);
        cli_report_value(report, "sets", sets_json(problem, choice));
        report_frontier(report, problem, points, count);
    }
    free(points);
    return status;
}

/* ---- grids */

static json_t *grid_json(const struct ls_grid_plan *grid)
{
    const struct ls_model_run *run = &grid->run;

    return json_pack("{sI sI sI sI sb sI sI sf sf so}", "tp", (json_int_t)run->t, "cp",
                     (json_int_t)run->c, "pp", (json_int_t)run->p, "interleave", (json_int_t)run->m,
                     "sp", run->sp, "copies", (json_int_t)grid->copies, "bytes_per_rank",
                     (json_int_t)grid->choice.bytes, "seconds", grid->time.seconds,
                     "seconds_per_token", grid->seconds_per_token, "sets",
                     sets_json(&grid->problem, &grid->choice));
}

void cli_model_report_grids(const struct cli_report *report, const struct cli_model_options *o,
                            const struct ls_grid_plan *grids, int count)
{
    json_t *list = json_array();

    cli_report_say(report, "%s", "");
    cli_report_line(report, "", "tokens/s of all copies; exchanges %s",
                    o->rates.exchanged > 0 ? "after computing" : "take no time: no --link");
    cli_report_line(report, "grid", "%4s %4s %4s %4s %4s %6s %10s %11s %10s  layers", "tp", "cp",
                    "pp", "int", "sp", "copies", "bytes", "micro-batch", "tokens/s");
    for (int i = 0; i < count; i++) {
        const struct ls_grid_plan *grid = &grids[i];
        const struct ls_model_run *run = &grid->run;

        cli_report_line(report, "", "%4lld %4lld %4lld %4lld %4s %6lld %10s %11s %10s  %s",
                        (long long)run->t, (long long)run->c, (long long)run->p, (long long)run->m,
                        run->sp ? "yes" : "no", (long long)grid->copies,
                        cli_bytes((double)grid->choice.bytes).s, cli_seconds(grid->time.seconds).s,
                        cli_number(1 / grid->seconds_per_token).s,
                        sets_text(&grid->problem, &grid->choice).s);
        json_array_append_new(list, grid_json(grid));
    }
    cli_report_value(report, "grids", list);
}
