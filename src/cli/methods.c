#include <stdio.h>
#include <string.h>

#include "attention/capability.h"
#include "attention/methods/table.h"
#include "cli/command.h"
#include "cli/report.h"

static const struct cli_syntax methods_syntax = {
    .doc = "Lists the ways to bring distributed keys and values together with the queries."};

/* The names of what a method can do. */
static json_t *list_capabilities(const struct ls_method *method)
{
    json_t *list = json_array();

    for (int i = 0; i < ls_capability_count(); i++)
        if (ls_method_is_capable(method, i))
            json_array_append_new(list, json_string(ls_capability_name(i)));
    return list;
}

/* One column for each capability, as wide as its name; no method: the names. */
static void write_row(char *out, size_t length, const struct ls_method *method)
{
    size_t used = (size_t)snprintf(out, length, "%-7s",
                                   !method                         ? "ranks"
                                   : ls_method_takes_ranks(method) ? "any"
                                                                   : "one");

    for (int i = 0; i < ls_capability_count() && used < length; i++) {
        const char *name = ls_capability_name(i);
        const size_t width = i + 1 < ls_capability_count() ? strlen(name) : 0;
        const char *cell = !method ? name : ls_method_is_capable(method, i) ? "yes" : "-";

        used += (size_t)snprintf(out + used, length - used, " %-*s", (int)width, cell);
    }
}

static void report_methods(const struct cli_report *report)
{
    json_t *list = json_array();
    char row[200];

    for (int i = 0; i < ls_method_count(); i++) {
        const struct ls_method *method = ls_method_at(i);

        cli_report_line(report, method->name, "%s", method->summary);
        json_array_append_new(list, json_pack("{sssssbso}", "name", method->name, "summary",
                                              method->summary, "several_ranks",
                                              ls_method_takes_ranks(method), "capabilities",
                                              list_capabilities(method)));
    }
    for (int i = -1; i < ls_method_count(); i++) {
        const struct ls_method *method = i < 0 ? NULL : ls_method_at(i);

        write_row(row, sizeof row, method);
        cli_report_line(report, method ? method->name : "method", "%s", row);
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
