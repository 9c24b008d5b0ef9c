#include "cli/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm/comm.h"

#define NAME_WIDTH 10

static bool is_special(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && !S_ISREG(st.st_mode);
}

/* mkstemp makes private files; a result is as readable as the umask says. */
static void share(int descriptor)
{
    const mode_t mask = umask(0);

    umask(mask);
    (void)!fchmod(descriptor, 0666 & ~mask);
}

static ls_status open_temporary(struct cli_report *r)
{
    const size_t length = strlen(r->path) + sizeof(".XXXXXX");

    r->temporary = malloc(length);
    if (!r->temporary) return ls_fail(LS_ENOMEM, "no memory for a file name");
    snprintf(r->temporary, length, "%s.XXXXXX", r->path);
    const int descriptor = mkstemp(r->temporary);
    if (descriptor < 0) {
        const int error = errno;

        free(r->temporary);
        r->temporary = NULL;
        return ls_fail(LS_EFILE, "--json: cannot create %s: %s", r->path, strerror(error));
    }
    share(descriptor);
    r->file = fdopen(descriptor, "w");
    return r->file ? LS_OK : ls_fail(LS_ENOMEM, "--json: cannot open a stream");
}

static ls_status open_json(struct cli_report *r, const char *path)
{
    r->path = path;
    r->json = json_object();
    if (!r->json) return ls_fail(LS_ENOMEM, "no memory for the JSON object");
    if (strcmp(path, "-") == 0) {
        r->file = stdout;
        return LS_OK;
    }
    if (!is_special(path)) return open_temporary(r);
    r->file = fopen(path, "w");
    return r->file ? LS_OK : ls_fail(LS_EFILE, "--json: cannot open %s: %m", path);
}

ls_status cli_report_open(struct cli_report *report, const struct cli_world *world,
                          const struct cli_output_options *options)
{
    ls_status status = LS_OK;

    *report = (struct cli_report){.text = NULL};
    if (world->rank == 0) {
        const bool json_on_stdout = options->json && strcmp(options->json, "-") == 0;

        if (!options->quiet) report->text = json_on_stdout ? stderr : stdout;
        if (options->json) status = open_json(report, options->json);
    }
    return ls_comm_agree(world->comm, status);
}

static ls_status write_json(struct cli_report *r)
{
    bool ok = json_dumpf(r->json, r->file, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0;

    ok = ok && fputc('\n', r->file) != EOF && fflush(r->file) == 0;
    if (ok && r->temporary) ok = fsync(fileno(r->file)) == 0 && rename(r->temporary, r->path) == 0;
    if (!ok) return ls_fail(LS_EIO, "--json: cannot write %s: %m", r->path);
    free(r->temporary);
    r->temporary = NULL;
    return LS_OK;
}

ls_status cli_report_commit(struct cli_report *report, const struct cli_world *world)
{
    return ls_comm_agree(world->comm, report->json ? write_json(report) : LS_OK);
}

void cli_report_fini(struct cli_report *report)
{
    if (report->file && report->file != stdout) fclose(report->file);
    if (report->temporary) unlink(report->temporary);
    free(report->temporary);
    json_decref(report->json);
    *report = (struct cli_report){.text = NULL};
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
