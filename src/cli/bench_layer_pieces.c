/* Which pieces each layer of `bench layer` computes again: as they are given, or chosen. */
#include <stdlib.h>
#include <string.h>

#include "cli/bench_layer.h"
#include "cli/rates.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "plan/recompute.h"

/* ---- as asked for */

static int64_t count_sets(const char *text)
{
    int64_t n = 1;

    for (const char *at = text; (at = strchr(at, '/')); at++) n++;
    return n;
}

static ls_status read_list(unsigned *pieces, int64_t sets, const char *text)
{
    char *copy = strdup(text), *next = copy;
    ls_status status = LS_OK;

    if (!copy) return ls_fail(LS_ENOMEM, "no memory for a list of pieces");
    for (int64_t i = 0; i < sets && status == LS_OK; i++)
        status = ls_pieces_parse(&pieces[i], strsep(&next, "/"));
    free(copy);
    return status;
}

/* "full" or "auto": of all layers; "none/full": of one after the other. */
static ls_status read_sets(struct cli_layer_run *run, const char *text)
{
    const int64_t layers = run->options.layers, sets = count_sets(text);

    if (sets != 1 && sets != layers)
        return ls_fail(LS_EVALUE, "--recompute %s is of %lld layers, --layers of %lld", text,
                       (long long)sets, (long long)layers);
    if (sets > 1) return read_list(run->pieces, sets, text);
    LS_TRY(ls_pieces_parse_or_auto(&run->chooses, &run->pieces[0], text));
    for (int64_t i = 1; i < layers; i++) run->pieces[i] = run->pieces[0];
    return LS_OK;
}

/* What --recompute auto may take. */
static ls_status read_memory(struct cli_layer_run *run)
{
    const char *memory = run->options.memory;

    if (run->chooses && !memory)
        return ls_fail(LS_EVALUE, "--recompute auto needs --memory BYTES: what a rank may take");
    if (memory && !run->chooses)
        return ls_fail(LS_EVALUE, "--memory is what --recompute auto may take: add it");
    return memory ? cli_value_bytes(&run->memory, "--memory", memory, 1, INT64_MAX / 2) : LS_OK;
}

/* Masks that are not stored are a piece, whatever else is one. */
static void add_masks(struct cli_layer_run *run)
{
    for (int64_t i = 0; run->options.mask > 0 && i < run->options.layers; i++)
        run->pieces[i] |= LS_PIECE_DROPOUT;
}

ls_status cli_layer_read_pieces(struct cli_layer_run *run)
{
    const struct cli_layer_options *o = &run->options;

    run->pieces = calloc((size_t)o->layers, sizeof *run->pieces);
    if (!run->pieces) return ls_fail(LS_ENOMEM, "no memory for a list of layers");
    if (o->recompute) LS_TRY(read_sets(run, o->recompute));
    LS_TRY(read_memory(run));
    add_masks(run);
    return LS_OK;
}

/* ---- chosen */

static ls_status find_rates(struct ls_rates *out, const struct cli_layer_run *run)
{
    const struct cli_world *world = run->world;
    struct cli_rates links = {.message_bytes = 0};

    LS_TRY(cli_rates_machine(out, world, run->shape.type, run->options.shared.threads));
    if (world->size > 1) LS_TRY(cli_rates_measure(&links, world));
    out->exchanged = links.message_bytes;
    return LS_OK;
}

/* Of a rank with most rows, beside `fixed` bytes. */
static ls_status choose(struct cli_layer_run *run, const struct ls_rates *rates, int64_t fixed)
{
    const struct ls_model_shape model = ls_layer_as_model(&run->shape, &run->layer);
    struct ls_model_run how = cli_layer_how(run, 0);
    struct ls_recompute_problem problem;
    struct ls_recompute_choice choice;
    int64_t layer = 0;

    how.has_rows = false;
    LS_TRY(ls_recompute_problem_init(&problem, &model, &how, rates, false));
    problem.layers = run->options.layers;
    problem.fixed = fixed;
    LS_TRY(ls_recompute_choose(&choice, &problem, run->memory));
    for (int set = 0; set < problem.n; set++)
        for (int64_t i = 0; i < choice.layers[set]; i++)
            run->pieces[layer++] = problem.set[set].pieces;
    run->again_seconds = choice.seconds;
    return LS_OK;
}

ls_status cli_layer_choose_pieces(struct cli_layer_run *run)
{
    struct ls_ledger *ledger = ls_device_ledger(run->gemm.device);
    double fixed = (double)ls_ledger_live_total(ledger);
    struct ls_comm *comm = run->world->comm;
    struct ls_rates rates;

    if (!run->chooses) return LS_OK;
    LS_TRY(find_rates(&rates, run));
    LS_TRY(ls_comm_reduce(&fixed, comm, 1, LS_REDUCE_MAX));
    LS_TRY(
        ls_comm_agree(comm, run->world->rank == 0 ? choose(run, &rates, (int64_t)fixed) : LS_OK));
    LS_TRY(
        ls_comm_broadcast(run->pieces, comm, (size_t)run->options.layers * sizeof *run->pieces, 0));
    add_masks(run);
    return LS_OK;
}

/* ---- names */

ls_status cli_layer_name_pieces(char **out, const struct cli_layer_run *run)
{
    const int64_t layers = run->options.layers;
    char *text = calloc((size_t)layers, sizeof(struct ls_pieces_text) + 1), *end = text;
    int64_t alike = 1;

    if (!text) return ls_fail(LS_ENOMEM, "no memory for the names of pieces");
    while (alike < layers && run->pieces[alike] == run->pieces[0]) alike++;
    for (int64_t i = 0; i < (alike == layers ? 1 : layers); i++) {
        if (i > 0) *end++ = '/';
        end = stpcpy(end, ls_pieces_name(run->pieces[i]).s);
    }
    *out = text;
    return LS_OK;
}
