#include "cli/report.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/format.h"
#include "comm/comm.h"
#include "tensor/dtype.h"

#define NAME_WIDTH 10

ls_status cli_report_open(struct cli_report *report, const struct cli_world *world,
                          const struct cli_options *options)
{
    const bool on_stdout = options->json && strcmp(options->json, "-") == 0;
    ls_status status = LS_OK;

    *report = (struct cli_report){.target = {.fd = -1, .sink = LS_NO_SINK}};
    if (world->rank == 0) {
        if (!options->quiet) report->text = on_stdout ? stderr : stdout;
        if (options->json && !on_stdout) status = ls_target_open(&report->target, options->json);
        if (options->json && !(report->json = json_object()))
            status = ls_fail(LS_ENOMEM, "--json: no memory for the object");
    }
    return ls_comm_agree(world->comm, status);
}

static ls_status write_json(struct cli_report *report)
{
    const int fd = report->target.fd;
    char *text = json_dumps(report->json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    ls_status status = LS_OK;

    if (!text) return ls_fail(LS_ENOMEM, "--json: no memory for the object");
    if (fd < 0)
        puts(text); /* main looks whether it arrived */
    else if (dprintf(fd, "%s\n", text) < 0)
        status = ls_fail(LS_EIO, "%s: cannot write: %m", report->target.path);
    else
        status = ls_target_publish(&report->target);
    free(text);
    return status;
}

ls_status cli_report_commit(struct cli_report *report, const struct cli_world *world)
{
    return ls_comm_agree(world->comm, report->json ? write_json(report) : LS_OK);
}

void cli_report_fini(struct cli_report *report)
{
    ls_target_close(&report->target);
    json_decref(report->json);
    *report = (struct cli_report){.target = {.fd = -1, .sink = LS_NO_SINK}};
}

void cli_report_line(const struct cli_report *report, const char *name, const char *format, ...)
{
    va_list arguments;

    if (!report->text) return;
    fprintf(report->text, "%-*s  ", NAME_WIDTH, name);
    va_start(arguments, format);
    vfprintf(report->text, format, arguments);
    va_end(arguments);
    fputc('\n', report->text);
}

void cli_report_say(const struct cli_report *report, const char *format, ...)
{
    va_list arguments;

    if (!report->text) return;
    va_start(arguments, format);
    vfprintf(report->text, format, arguments);
    va_end(arguments);
    fputc('\n', report->text);
}

void cli_report_task(const struct cli_report *report, const struct ls_attention_shape *shape,
                     bool causal)
{
    cli_report_line(report, "attention", "%s x %s, %s%s",
                    cli_counted(shape->s_q, "query", "queries").s,
                    cli_counted(shape->s_k, "key", "keys").s, causal ? "causal" : "full",
                    causal && shape->s_q != shape->s_k ? " (aligned at the end)" : "");
    cli_report_line(report, "shape", "batch %s, heads %s, k/v heads %s, head dim %s, %s",
                    cli_count(shape->b).s, cli_count(shape->h).s, cli_count(shape->h_kv).s,
                    cli_count(shape->d).s, ls_dtype_name(shape->type));
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

void cli_report_string(const struct cli_report *report, const char *name, const char *value)
{
    cli_report_value(report, name, json_string(value));
}

void cli_report_integer(const struct cli_report *report, const char *name, int64_t value)
{
    cli_report_value(report, name, json_integer(value));
}

void cli_report_real(const struct cli_report *report, const char *name, double value)
{
    cli_report_value(report, name, cli_json_real(value));
}

void cli_report_value(const struct cli_report *report, const char *name, json_t *value)
{
    if (report->json)
        json_object_set_new(report->json, name, value);
    else
        json_decref(value);
}
