#include "cli/options.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/values.h"

#define MOST_THREADS 4096
#define MOST_OPTIONS 64

error_t cli_options_error(ls_status status)
{
    return status == LS_OK ? 0 : EINVAL;
}

error_t cli_options_surplus(const char *argument)
{
    return cli_options_error(ls_fail(LS_EVALUE, "unexpected argument '%s'", argument));
}

/* ---- groups that several subcommands share */

static error_t parse_output(int key, char *arg, struct argp_state *state)
{
    struct cli_output_options *o = state->input;

    switch (key) {
    case CLI_KEY_JSON:
        o->json = arg;
        return 0;
    case CLI_KEY_QUIET:
        o->quiet = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp cli_output_argp = {
    .options =
        (const struct argp_option[]){
            {"json", CLI_KEY_JSON, "FILE", 0,
             "Write the results as a JSON object (-: to standard output, the text to standard "
             "error)",
             40},
            {"quiet", CLI_KEY_QUIET, NULL, 0, "Print no text", 40},
            {"help", CLI_KEY_HELP, NULL, 0, "Print this help", 40},
            {0},
        },
    .parser = parse_output,
};

static error_t parse_threads(int key, char *arg, struct argp_state *state)
{
    int *threads = state->input;
    int64_t value;

    if (key == ARGP_KEY_INIT) {
        *threads = omp_get_max_threads();
        return 0;
    }
    if (key != CLI_KEY_THREADS) return ARGP_ERR_UNKNOWN;
    if (cli_value_integer(&value, "--threads", arg, 1, MOST_THREADS) != LS_OK) return EINVAL;
    *threads = (int)value;
    return 0;
}

const struct argp cli_threads_argp = {
    .options =
        (const struct argp_option[]){
            {"threads", CLI_KEY_THREADS, "N", 0, "Threads of each rank", 40},
            {0},
        },
    .parser = parse_threads,
};

static error_t parse_progress(int key, char *arg, struct argp_state *state)
{
    static const char *const names[] = {"auto", "always", "never"};
    cli_progress_mode *mode = state->input;
    int i;

    if (key != CLI_KEY_PROGRESS) return ARGP_ERR_UNKNOWN;
    if (cli_value_name(&i, "--progress", arg, names, 3) != LS_OK) return EINVAL;
    *mode = (cli_progress_mode)i;
    return 0;
}

const struct argp cli_progress_argp = {
    .options =
        (const struct argp_option[]){
            {"progress", CLI_KEY_PROGRESS, "WHEN", 0,
             "Draw a progress bar: auto (on a terminal, after two seconds), always or never", 40},
            {0},
        },
    .parser = parse_progress,
};

static error_t parse_causal(int key, char *arg, struct argp_state *state)
{
    struct ls_attention_options *o = state->input;

    (void)arg;
    if (key != CLI_KEY_CAUSAL) return ARGP_ERR_UNKNOWN;
    o->causal = true;
    return 0;
}

const struct argp cli_causal_argp = {
    .options =
        (const struct argp_option[]){
            {"causal", CLI_KEY_CAUSAL, NULL, 0,
             "Query i sees key j iff j <= i + SK - SQ (aligned at the end)", 20},
            {0},
        },
    .parser = parse_causal,
};

static error_t parse_scale(int key, char *arg, struct argp_state *state)
{
    struct ls_attention_options *o = state->input;
    double scale;

    if (key != CLI_KEY_SCALE) return ARGP_ERR_UNKNOWN;
    if (cli_value_real(&scale, "--scale", arg) != LS_OK) return EINVAL;
    o->has_scale = true;
    o->scale = (float)scale;
    return 0;
}

const struct argp cli_scale_argp = {
    .options =
        (const struct argp_option[]){
            {"scale", CLI_KEY_SCALE, "X", 0, "Factor of q.k; default 1/sqrt(D)", 20},
            {0},
        },
    .parser = parse_scale,
};

static error_t parse_layout(int key, char *arg, struct argp_state *state)
{
    struct ls_attention_options *o = state->input;
    const char *names[LS_LAYOUT_STRIPED];
    int i;

    if (key != CLI_KEY_LAYOUT) return ARGP_ERR_UNKNOWN;
    for (i = 0; i < LS_LAYOUT_STRIPED; i++) names[i] = ls_layout_name((ls_layout_kind)(i + 1));
    if (cli_value_name(&i, "--layout", arg, names, LS_LAYOUT_STRIPED) != LS_OK) return EINVAL;
    o->layout = (ls_layout_kind)(i + 1);
    return 0;
}

const struct argp cli_layout_argp = {
    .options =
        (const struct argp_option[]){
            {"layout", CLI_KEY_LAYOUT, "NAME", 0,
             "Which positions a rank holds: contiguous, zigzag or striped; default the best for "
             "method and mask",
             20},
            {0},
        },
    .parser = parse_layout,
};

/* ---- parsing */

struct option_list {
    const struct argp_option *at[MOST_OPTIONS];
    int count;
};

static void collect(struct option_list *list, const struct argp *argp)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->doc); o++)
        if (o->name && list->count < MOST_OPTIONS) list->at[list->count++] = o;
    for (const struct argp_child *child = argp->children; child && child->argp; child++)
        collect(list, child->argp);
}

static ls_status fail_unknown(const struct option_list *list, const char *name, int length)
{
    const char *names[MOST_OPTIONS];
    char given[64];

    snprintf(given, sizeof(given), "%.*s", length, name);
    for (int i = 0; i < list->count; i++) names[i] = list->at[i]->name;
    const char *nearest = ls_nearest(given, names, list->count);
    if (nearest) return ls_fail(LS_EVALUE, "unknown option --%s; is --%s meant?", given, nearest);
    return ls_fail(LS_EVALUE, "unknown option --%s; see --help", given);
}

/* The option called name[0..length), or of which that is the only beginning. */
static ls_status find_option(const struct argp_option **out, const struct option_list *list,
                             const char *name, int length)
{
    const struct argp_option *found = NULL;

    for (int i = 0; i < list->count; i++) {
        const struct argp_option *o = list->at[i];

        if (strncmp(o->name, name, (size_t)length) != 0) continue;
        if (o->name[length] == '\0') {
            *out = o;
            return LS_OK;
        }
        if (found)
            return ls_fail(LS_EVALUE, "--%.*s can mean --%s or --%s", length, name, found->name,
                           o->name);
        found = o;
    }
    if (!found) return fail_unknown(list, name, length);
    *out = found;
    return LS_OK;
}

/* argp's own messages name neither the nearest option nor one rank only, so that every option is
 * looked at before argp sees it; what argp is given then has no unknown option and no missing
 * value. */
static ls_status inspect(bool *help, const struct argp *argp, int argc, char **argv)
{
    struct option_list list = {.count = 0};
    const struct argp_option *option = NULL;

    collect(&list, argp);
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] != '-' || argv[i][1] == '\0') continue;
        if (strcmp(argv[i], "-h") == 0) {
            *help = true;
            continue;
        }
        if (argv[i][1] != '-') return ls_fail(LS_EVALUE, "unknown option %s; see --help", argv[i]);
        const char *name = argv[i] + 2;
        const size_t length = strcspn(name, "=");
        const bool has_value = name[length] == '=';

        LS_TRY(find_option(&option, &list, name, (int)length));
        *help = *help || option->key == CLI_KEY_HELP;
        if (has_value && !option->arg)
            return ls_fail(LS_EVALUE, "--%s takes no value", option->name);
        if (has_value || !option->arg || (option->flags & OPTION_ARG_OPTIONAL)) continue;
        if (++i == argc)
            return ls_fail(LS_EVALUE, "--%s needs a value (%s)", option->name, option->arg);
    }
    return LS_OK;
}

ls_status cli_options_parse(bool *done, const struct cli_world *world, const struct argp *argp,
                            int argc, char **argv, void *input)
{
    *done = false;
    LS_TRY(inspect(done, argp, argc, argv));
    if (*done) {
        if (world->rank == 0)
            argp_help(argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC,
                      argv[0]);
        return LS_OK;
    }
    const error_t error =
        argp_parse(argp, argc, argv, ARGP_NO_EXIT | ARGP_NO_ERRS | ARGP_NO_HELP, NULL, input);
    if (error == ENOMEM) return ls_fail(LS_ENOMEM, "no memory for the command line");
    return error ? LS_EVALUE : LS_OK;
}
