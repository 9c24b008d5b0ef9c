#include "cli/report.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/format.h"
#include "comm/comm.h"
#include "device/attention.h"
#include "tensor/dtype.h"

#define NAME_WIDTH 10

ls_status cli_report_open(struct cli_report *report, const struct cli_world *world,
                          const struct cli_options *options)
{
    const bool on_stdout = options->json && strcmp(options->json, "-") == 0;
    ls_status status = LS_OK;

    *report = (struct cli_report){.target = LS_NO_TARGET};
    if (world->rank == 0) {
        if (!options->quiet) report->text = options->text_aside ? stderr : stdout;
        if (options->json && !on_stdout) status = ls_target_open(&report->target, options->json);
        if (options->json && !(report->json = json_object()))
            status = ls_fail(LS_ENOMEM, "--json: no memory for the object");
    }
    return ls_comm_agree(world->comm, status);
}

static ls_status write_json(struct cli_report *report)
{
    const int fd = report->target.temporary.fd;
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
    *report = (struct cli_report){.target = LS_NO_TARGET};
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

/* ---- what is computed */

/* Words with commas between them. */
struct words {
    char s[256];
    size_t used;
};

static void add_words(struct words *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void add_words(struct words *out, const char *format, ...)
{
    va_list arguments;

    if (out->used > 0 && out->used + 2 < sizeof(out->s)) {
        memcpy(out->s + out->used, ", ", 3);
        out->used += 2;
    }
    va_start(arguments, format);
    const int n = vsnprintf(out->s + out->used, sizeof(out->s) - out->used, format, arguments);
    va_end(arguments);
    out->used += (size_t)n;
    if (out->used >= sizeof(out->s)) out->used = sizeof(out->s) - 1;
}

static struct cli_text side(int64_t keys)
{
    return keys == LS_NO_LIMIT ? (struct cli_text){"inf"} : cli_count(keys);
}

/* Causal closes a window behind, whatever was asked for. */
static int64_t keys_behind(const struct ls_attention_options *o)
{
    return o->causal ? 0 : o->has_window ? o->window_right : LS_NO_LIMIT;
}

static struct words mask_words(const struct ls_attention_options *o)
{
    struct words words = {.used = 0};

    if (o->has_window)
        add_words(&words, "%s keys before and %s behind", side(o->window_left).s,
                  side(keys_behind(o)).s);
    if (o->documents)
        add_words(&words, "%s%s%s", cli_counted(o->document_count, "document", "documents").s,
                  o->q_documents ? " of queries and of keys" : "",
                  o->documents_per_entry ? " in each entry" : "");
    if (o->q_lengths || o->k_lengths)
        add_words(&words, "entries of their own lengths, padded on the %s",
                  o->pad_left ? "left" : "right");
    if (o->slices) add_words(&words, "%s", cli_counted(o->slice_count, "slice", "slices").s);
    if (o->pair_bits)
        add_words(&words, "pairs of a file%s%s%s", o->pairs_per_entry ? " of each entry" : "",
                  o->pairs_per_entry && o->pairs_per_head ? " and" : "",
                  o->pairs_per_head ? " of each head" : "");
    if (o->prefix > 0) add_words(&words, "a prefix of %s", cli_counted(o->prefix, "key", "keys").s);
    if (o->align_start) add_words(&words, "aligned at the start");
    if (o->has_query_offset)
        add_words(&words, "queries from place %s on", cli_count(o->query_offset).s);
    return words;
}

static struct words score_words(const struct ls_attention_options *o)
{
    struct words words = {.used = 0};

    if (o->alibi) add_words(&words, "ALiBi");
    if (o->distance_bias)
        add_words(&words, "biases by %s", cli_counted(o->distances, "distance", "distances").s);
    if (o->bias)
        add_words(&words, "biases of pairs%s%s", o->bias_per_entry ? " of each entry" : "",
                  o->bias_per_head ? o->bias_per_entry ? " and head" : " of each head" : "");
    if (o->soft_cap > 0) add_words(&words, "soft cap %g", (double)o->soft_cap);
    if (o->sinks) add_words(&words, "sinks");
    if (o->dropout > 0)
        add_words(&words, "dropout %g by seed %llu", (double)o->dropout,
                  (unsigned long long)o->dropout_seed);
    return words;
}

static json_t *limit_json(bool limited, int64_t limit)
{
    return limited && limit != LS_NO_LIMIT ? json_integer(limit) : json_null();
}

/* Queries that stand at an offset are aligned with neither side. */
static json_t *align_json(const struct ls_attention_options *o)
{
    return o->has_query_offset ? json_null() : json_string(o->align_start ? "start" : "end");
}

static void report_options(const struct cli_report *report, const struct ls_attention_options *o)
{
    const struct words mask = mask_words(o), scores = score_words(o);

    if (mask.used > 0) cli_report_line(report, "mask", "%s", mask.s);
    if (scores.used > 0) cli_report_line(report, "scores", "%s", scores.s);
    cli_report_value(report, "causal", json_boolean(o->causal));
    cli_report_value(
        report, "mask",
        json_pack(
            "{sososIsbsbsbsIsbsIsoso}", "window_left", limit_json(o->has_window, o->window_left),
            "window_right", limit_json(true, keys_behind(o)), "documents",
            (json_int_t)(o->documents ? o->document_count : 0), "documents_of_queries",
            o->q_documents != NULL, "documents_per_entry", o->documents_per_entry, "lengths",
            o->q_lengths || o->k_lengths, "slices", (json_int_t)(o->slices ? o->slice_count : 0),
            "pairs", o->pair_bits != NULL, "prefix", (json_int_t)o->prefix, "align", align_json(o),
            "query_offset", limit_json(o->has_query_offset, o->query_offset)));
    cli_report_value(report, "scores",
                     json_pack("{sbsIsbsfsbsfsI}", "alibi", o->alibi != NULL, "distances",
                               (json_int_t)o->distances, "bias", o->bias != NULL, "soft_cap",
                               (double)o->soft_cap, "sinks", o->sinks != NULL, "dropout",
                               (double)o->dropout, "dropout_seed", (json_int_t)o->dropout_seed));
}

void cli_report_task(const struct cli_report *report, const struct ls_attention_shape *shape,
                     const struct ls_attention_options *options)
{
    const bool at_end = options->causal && shape->s_q != shape->s_k && !options->align_start &&
                        !options->has_query_offset;

    cli_report_line(report, "attention", "%s x %s, %s%s",
                    cli_counted(shape->s_q, "query", "queries").s,
                    cli_counted(shape->s_k, "key", "keys").s,
                    options->causal       ? "causal"
                    : options->has_window ? "a window"
                                          : "full",
                    at_end ? " (aligned at the end)" : "");
    char of_v[32] = "", of_keys[32] = "";

    if (ls_value_dim(shape) != shape->d)
        snprintf(of_v, sizeof(of_v), ", of v %" PRId64, ls_value_dim(shape));
    if (ls_keys_are_quantized(shape))
        snprintf(of_keys, sizeof(of_keys), ", k and v %s", ls_dtype_name(shape->kv_type));
    cli_report_line(report, "shape", "batch %s, heads %s, k/v heads %s, head dim %s%s, %s%s",
                    cli_count(shape->b).s, cli_count(shape->h).s, cli_count(shape->h_kv).s,
                    cli_count(shape->d).s, of_v, ls_dtype_name(shape->type), of_keys);
    report_options(report, options);
}

/* ---- fields */

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
