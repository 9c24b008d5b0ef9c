#include "cli/verify_report.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/format.h"

static const char *const names[LS_JUDGED_TENSORS] = {
    "o", "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};

/* The first of what was judged that is not good, and why; "" if all is. */
static struct cli_text fault_of(const struct ls_judgement *v)
{
    struct cli_text out = {""};

    if (!v->ok) snprintf(out.s, sizeof(out.s), "%s: %s", v->failed, v->why);
    return out;
}

static json_t *verdict_json(const struct ls_judgement *v)
{
    const struct ls_judged *o = &v->tensor[LS_JUDGED_O];
    json_t *json = json_object();

    json_object_set_new(json, "ok", json_boolean(v->ok));
    json_object_set_new(json, "why", v->ok ? json_null() : json_string(fault_of(v).s));
    json_object_set_new(json, "contract", json_string(ls_dtype_name(v->contract)));
    json_object_set_new(json, "rows", json_integer(v->rows));
    json_object_set_new(json, "rel_o", cli_json_real(o->rel));
    json_object_set_new(json, "rel_o_limit", cli_json_real(o->rel_limit));
    json_object_set_new(json, "max_units", cli_json_real(o->max_units));
    json_object_set_new(json, "abs_lse", v->has_lse ? cli_json_real(v->abs_lse) : json_null());
    json_object_set_new(json, "rel_lse", v->has_lse ? cli_json_real(v->rel_lse) : json_null());
    json_object_set_new(json, "lse_limit", cli_json_real(v->lse_limit));
    json_object_set_new(json, "kappa", cli_json_real(v->kappa));
    return json;
}

static void add_gradients_json(json_t *json, const struct ls_judgement *v)
{
    char name[32];

    for (int i = LS_JUDGED_DQ; i < LS_JUDGED_TENSORS; i++) {
        const struct ls_judged *g = &v->tensor[i];

        if (!g->judged) continue;
        snprintf(name, sizeof(name), "rel_%s", names[i]);
        json_object_set_new(json, name, cli_json_real(g->rel));
        snprintf(name, sizeof(name), "rel_%s_limit", names[i]);
        json_object_set_new(json, name, cli_json_real(g->rel_limit));
        snprintf(name, sizeof(name), "max_units_%s", names[i]);
        json_object_set_new(json, name, cli_json_real(g->max_units));
    }
}

/* Room for where the worst element is. */
struct place {
    char s[128];
};

/* element: what the last number of a place is of. */
static struct place place_of(const struct ls_judged *t, const char *element)
{
    struct place out = {"no element errs"};

    if (t->unlimited > 0)
        snprintf(out.s, sizeof(out.s), "infinite for %s",
                 cli_counted(t->unlimited, "element", "elements").s);
    else if (t->worst[2] >= 0 && t->worst[1] < 0)
        snprintf(out.s, sizeof(out.s), "worst at head %" PRId64, t->worst[2]);
    else if (t->worst[2] >= 0 && t->worst[0] < 0)
        snprintf(out.s, sizeof(out.s), "worst at head %" PRId64 ", bias number %" PRId64,
                 t->worst[2], t->worst[1] + t->worst[3]);
    else if (t->worst[2] >= 0)
        snprintf(out.s, sizeof(out.s),
                 "worst at batch %" PRId64 ", position %" PRId64 ", head %" PRId64 ", %s %" PRId64,
                 t->worst[0], t->worst[1], t->worst[2], element, t->worst[3]);
    return out;
}

static const char *of_what(const struct ls_judged *t)
{
    return t->absolute ? ", absolute: the exact one is 0" : "";
}

static void report_gradients(const struct cli_report *report, const struct ls_judgement *v)
{
    for (int i = LS_JUDGED_DQ; i < LS_JUDGED_TENSORS; i++) {
        const struct ls_judged *g = &v->tensor[i];

        if (!g->judged) continue;
        cli_report_line(report, "", "%-6s rel    %-9.3g limit %.3g%s", names[i], g->rel,
                        g->rel_limit, of_what(g));
        cli_report_line(report, "", "%-6s units  %-9.3g limit 1, %s", names[i], g->max_units,
                        place_of(g, i == LS_JUDGED_DBIAS ? "key" : "element").s);
    }
}

void cli_verify_report(const struct cli_report *report, const struct ls_judgement *v)
{
    const struct ls_judged *o = &v->tensor[LS_JUDGED_O];
    json_t *json = verdict_json(v);

    add_gradients_json(json, v);
    cli_report_value(report, "verify", json);
    cli_report_line(report, "errors", "o      rel    %-9.3g limit %.3g%s (contract of %s)", o->rel,
                    o->rel_limit, of_what(o), ls_dtype_name(v->contract));
    cli_report_line(report, "", "o      units  %-9.3g limit 1, %s", o->max_units,
                    place_of(o, "element").s);
    if (v->has_lse)
        cli_report_line(report, "", "lse    rel    %-9.3g limit %.3g, relative to max(1, |lse|)",
                        v->rel_lse, v->lse_limit);
    if (v->has_lse) cli_report_line(report, "", "lse    abs    %.3g", v->abs_lse);
    report_gradients(report, v);
    cli_report_say(report, "verified: %s%s, %s against the double-precision oracle%s",
                   v->ok ? "ok" : "FAILED, ", fault_of(v).s, cli_counted(v->rows, "row", "rows").s,
                   v->has_lse ? "" : " (no lse to judge)");
}
