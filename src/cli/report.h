/* What a subcommand found out, as text for people and as one JSON object. Ranks other than 0 may
 * call everything here; nothing comes of it. */
#ifndef LS_CLI_REPORT_H
#define LS_CLI_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "cli/options.h"
#include "tensor/target.h"

struct cli_report {
    FILE *text;              /* NULL: print none */
    json_t *json;            /* the object; NULL: none was asked for */
    struct ls_target target; /* its file; none: standard output */
};

/* Makes the JSON's temporary file, so that a folder that cannot be written is known before anything
 * is computed. Agreed by all ranks. Errors: LS_EFILE, LS_EIO, LS_ENOMEM. */
ls_status cli_report_open(struct cli_report *report, const struct cli_world *world,
                          const struct cli_options *options);

/* Writes the JSON: it appears whole or not at all. Agreed by all ranks. Errors: LS_EIO. */
ls_status cli_report_commit(struct cli_report *report, const struct cli_world *world);

/* Removes a file that was not committed. */
void cli_report_fini(struct cli_report *report);

/* "name        text" on a line; an empty name continues the one before. */
void cli_report_line(const struct cli_report *report, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A line without a name. */
void cli_report_say(const struct cli_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What is computed: lines, and the fields causal, mask and scores of the object. */
void cli_report_task(const struct cli_report *report, const struct ls_attention_shape *shape,
                     const struct ls_attention_options *options);

/* A number as JSON can say it: null if it is not finite. */
json_t *cli_json_real(double value);

/* Fields of the object. */
void cli_report_string(const struct cli_report *report, const char *name, const char *value);
void cli_report_integer(const struct cli_report *report, const char *name, int64_t value);
void cli_report_real(const struct cli_report *report, const char *name, double value);
void cli_report_value(const struct cli_report *report, const char *name, json_t *value);

#endif
