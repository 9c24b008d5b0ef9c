#include "attention/method.h"
#include "cli/command.h"
#include "cli/report.h"

static const struct cli_syntax methods_syntax = {
    .doc = "Lists the ways to bring distributed keys and values together with the queries."};

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
    struct cli_options options;
    struct cli_report report;
    bool done;

    (void)held;
    LS_TRY(cli_options_parse(&done, &options, world, &methods_syntax, argc, argv, NULL));
    if (done) return LS_OK;
    ls_status status = cli_report_open(&report, world, &options);

    if (status == LS_OK) {
        report_methods(&report);
        status = cli_report_commit(&report, world);
    }
    cli_report_fini(&report);
    return status;
}
