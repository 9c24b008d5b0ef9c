#include "cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/nearest.h"
#include "cli/files.h"
#include "cli/shared_options.h"
#include "device/device.h"

#define MOST_OPTIONS 64

/* ---- the options of one subcommand */

struct option_list {
    struct argp_option at[MOST_OPTIONS]; /* ends with {0} */
    int count;
};

static void list_options(struct option_list *list, const struct cli_syntax *syntax)
{
    static const struct argp_option sections[] = {
        {.doc = "Input:", .group = CLI_SECTION_INPUT},
        {.doc = "Computation:", .group = CLI_SECTION_COMPUTATION},
        {.doc = "Results:", .group = CLI_SECTION_RESULTS},
        {.doc = "Common options:", .group = CLI_SECTION_COMMON},
    };
    bool used[CLI_SECTION_COMMON + 1] = {false};
    const struct argp_option *o;
    unsigned of;

    *list = (struct option_list){.count = 0};
    for (int i = 0; (o = cli_shared_option(&of, i)) != NULL; i++)
        if (!of || (of & syntax->takes)) list->at[list->count++] = *o;
    for (o = syntax->own; o && o->name; o++) list->at[list->count++] = *o;
    for (int i = 0; i < list->count; i++) used[list->at[i].group] = true;
    for (int i = 0; i < CLI_SECTION_COMMON; i++)
        if (used[sections[i].group]) list->at[list->count++] = sections[i];
}

static void print_help(const struct option_list *list, const struct cli_syntax *syntax, char *name)
{
    const struct argp argp = {
        .options = list->at, .args_doc = syntax->arguments, .doc = syntax->doc};

    argp_help(&argp, stdout, ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, name);
}

static ls_status fail_unknown(const struct option_list *list, const char *name)
{
    const char *names[MOST_OPTIONS];
    int n = 0;

    for (int i = 0; i < list->count; i++)
        if (list->at[i].name) names[n++] = list->at[i].name;
    const char *nearest = ls_nearest(name, names, n);

    if (nearest) return ls_fail(LS_EVALUE, "unknown option --%s; is --%s meant?", name, nearest);
    return ls_fail(LS_EVALUE, "unknown option --%s; see --help", name);
}

/* The option with this name, or of which it is the only beginning. */
static ls_status find_option(const struct argp_option **out, const struct option_list *list,
                             const char *name)
{
    const struct argp_option *found = NULL;

    for (int i = 0; i < list->count; i++) {
        const struct argp_option *o = &list->at[i];

        if (!o->name || strncmp(o->name, name, strlen(name)) != 0) continue;
        if (strcmp(o->name, name) == 0) {
            *out = o;
            return LS_OK;
        }
        if (found)
            return ls_fail(LS_EVALUE, "--%s can mean --%s or --%s", name, found->name, o->name);
        found = o;
    }
    if (!found) return fail_unknown(list, name);
    *out = found;
    return LS_OK;
}

/* ---- parsing */

/* A command line on its way into its options. */
struct parsing {
    const struct cli_syntax *syntax;
    struct option_list list;
    struct cli_options *shared;
    void *own;
    struct cli_files files;
    bool help;
};

/* The option at argv[*i] with its value; moves *i to the last word that belongs to it. */
static ls_status read_option(const struct argp_option **option, const char **value,
                             const struct option_list *list, int argc, char **argv, int *i)
{
    const char *word = strcmp(argv[*i], "-h") == 0 ? "--help" : argv[*i];
    char name[64];

    if (word[1] != '-') return ls_fail(LS_EVALUE, "unknown option %s; see --help", word);
    const size_t end = strcspn(word, "=");
    const bool has_value = word[end] == '=';

    snprintf(name, sizeof(name), "%.*s", (int)end - 2, word + 2);
    LS_TRY(find_option(option, list, name));
    const struct argp_option *o = *option;

    *value = has_value ? word + end + 1 : NULL;
    if (has_value && !o->arg) return ls_fail(LS_EVALUE, "--%s takes no value", o->name);
    if (has_value || !o->arg || (o->flags & OPTION_ARG_OPTIONAL)) return LS_OK;
    if (*i + 1 == argc) return ls_fail(LS_EVALUE, "--%s needs a value (%s)", o->name, o->arg);
    *value = argv[++*i];
    return LS_OK;
}

static ls_status take_argument(struct parsing *p, const char *argument)
{
    if (!p->syntax->arguments) return cli_options_surplus(argument);
    LS_TRY(p->syntax->set(p->own, CLI_ARGUMENT, argument));
    cli_files_add(&p->files, NULL, argument, false);
    return LS_OK;
}

static ls_status take_option(struct parsing *p, const struct argp_option *option, const char *value)
{
    if (option->key == CLI_KEY_HELP) {
        p->help = true;
        return LS_OK;
    }
    if (value && strstr(option->arg, "FILE"))
        cli_files_add(&p->files, option->name, value, option->flags & CLI_WRITES);
    if (option->key < CLI_KEY_OWN) return cli_shared_set(p->shared, option->key, value);
    return p->syntax->set(p->own, option->key, value);
}

static ls_status take_words(struct parsing *p, int argc, char **argv)
{
    const struct argp_option *option = NULL;
    const char *value = NULL;
    bool only_arguments = false;

    for (int i = 1; i < argc && !p->help; i++) {
        if (only_arguments || argv[i][0] != '-' || argv[i][1] == '\0') {
            LS_TRY(take_argument(p, argv[i]));
            continue;
        }
        only_arguments = strcmp(argv[i], "--") == 0;
        if (only_arguments) continue;
        LS_TRY(read_option(&option, &value, &p->list, argc, argv, &i));
        LS_TRY(take_option(p, option, value));
    }
    return LS_OK;
}

ls_status cli_options_surplus(const char *argument)
{
    return ls_fail(LS_EVALUE, "unexpected argument '%s'", argument);
}

static ls_status complete_threads(struct cli_options *shared)
{
    struct ls_device *device;

    if (shared->threads == 0) {
        LS_TRY(ls_device_open(&device, "cpu", 0, 0));
        shared->threads = device->facts.threads;
        ls_device_close(device);
        shared->threads_unasked = !getenv("OMP_NUM_THREADS");
    }
    shared->attention.threads = shared->threads;
    return LS_OK;
}

/* argp prints the help. Its parser is not used: its messages name no nearest option, and every rank
 * would print them. */
ls_status cli_options_parse(bool *done, struct cli_options *shared, const struct cli_world *world,
                            const struct cli_syntax *syntax, int argc, char **argv,
                            void *own_options)
{
    const struct ls_attention_options attention = LS_ATTENTION_OPTIONS;
    struct parsing p = {.syntax = syntax, .shared = shared, .own = own_options};

    *shared = (struct cli_options){.attention = attention};
    list_options(&p.list, syntax);
    LS_TRY(take_words(&p, argc, argv));
    if (p.help && world->rank == 0) print_help(&p.list, syntax, argv[0]);
    *done = p.help;
    if (p.help) return LS_OK;
    LS_TRY(complete_threads(shared));
    if (shared->timeout > 0) LS_TRY(ls_comm_set_timeout(world->comm, shared->timeout));
    return cli_files_check(&shared->text_aside, &p.files, world);
}
