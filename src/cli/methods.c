#include "attention/method.h"
#include "cli/command.h"
#include "cli/report.h"

static error_t parse_methods(int key, char *arg, struct argp_state *state)
{
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = state->input;
        return 0;
    }
    return key == ARGP_KEY_ARG ? cli_options_surplus(arg) : ARGP_ERR_UNKNOWN;
}

static const struct argp methods_argp = {
    .parser = parse_methods,
    .doc = "Lists the ways to bring distributed keys and values together with the queries.",
    .children = (const struct argp_child[]){{.argp = &cli_output_argp}, {0}},
};

static void report_methods(const struct cli_report *report)
{
    json_t *list = json_array();

    for (int i = 0; i < ls_method_count(); i++) {
        const struct ls_method *method = ls_method_at(i);

        cli_report_line(report, method->name, "%s", method->summary);
        json_array_append_new(
            list, json_pack("{ssss}", "name", method->name, "summary", method->summary));
    }
    cli_report_value(report, "methods", list);
}

ls_status cli_methods(bool *held, struct cli_world *world, int argc, char **argv)
{
    struct cli_output_options options = {.json = NULL};
    struct cli_report report;
    bool done;

    (void)held;
    LS_TRY(cli_options_parse(&done, world, &methods_argp, argc, argv, &options));
    if (done) return LS_OK;
    ls_status status = cli_report_open(&report, world, &options);

    if (status == LS_OK) {
        report_methods(&report);
        status = cli_report_commit(&report, world);
    }
    cli_report_fini(&report);
    return status;
}
