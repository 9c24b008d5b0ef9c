#include <inttypes.h>
#include <stdio.h>

#include "cli/format.h"
#include "cli/verify.h"
#include "tensor/dtype.h"

static const char *const gradient_names[CLI_GRADIENTS] = {"dq", "dk", "dv"};

/* The first of what was judged that is not good, and why; "" if all is. */
static struct cli_text fault_of(const struct cli_verdict *v)
{
    struct cli_text out = {""};
    const char *name = v->verdict.max_lse > v->verdict.lse_limit ? "lse" : "o";
    const char *why = v->verdict.why;

    for (int i = 0; i < CLI_GRADIENTS && !why; i++) {
        name = gradient_names[i];
        if (v->has_gradient[i]) why = v->gradients[i].why;
    }
    if (why) snprintf(out.s, sizeof(out.s), "%s: %s", name, why);
    return out;
}

static json_t *verdict_json(const struct cli_verdict *c)
{
    const struct ls_verdict *v = &c->verdict;
    json_t *json = json_object();

    json_object_set_new(json, "ok", json_boolean(c->ok));
    json_object_set_new(json, "why", c->ok ? json_null() : json_string(fault_of(c).s));
    json_object_set_new(json, "contract", json_string(ls_dtype_name(c->contract)));
    json_object_set_new(json, "rows", json_integer(c->errors.rows));
    json_object_set_new(json, "rel_o", cli_json_real(v->rel_o));
    json_object_set_new(json, "rel_o_limit", cli_json_real(v->rel_o_limit));
    json_object_set_new(json, "max_units", cli_json_real(v->max_units));
    json_object_set_new(json, "abs_lse", c->has_lse ? cli_json_real(v->abs_lse) : json_null());
    json_object_set_new(json, "rel_lse", c->has_lse ? cli_json_real(v->max_lse) : json_null());
    json_object_set_new(json, "lse_limit", cli_json_real(v->lse_limit));
    json_object_set_new(json, "kappa", cli_json_real(c->errors.kappa));
    return json;
}

static void add_gradients_json(json_t *json, const struct cli_verdict *c)
{
    char name[32];

    for (int i = 0; i < CLI_GRADIENTS; i++) {
        const struct ls_gradient_verdict *g = &c->gradients[i];

        if (!c->has_gradient[i]) continue;
        snprintf(name, sizeof(name), "rel_%s", gradient_names[i]);
        json_object_set_new(json, name, cli_json_real(g->rel));
        snprintf(name, sizeof(name), "rel_%s_limit", gradient_names[i]);
        json_object_set_new(json, name, cli_json_real(g->rel_limit));
        snprintf(name, sizeof(name), "max_units_%s", gradient_names[i]);
        json_object_set_new(json, name, cli_json_real(g->max_units));
    }
}

/* Room for where the worst element is. */
struct place {
    char s[128];
};

static struct place place_of(const int64_t worst[4], int64_t unlimited)
{
    struct place out = {"no element errs"};

    if (unlimited > 0)
        snprintf(out.s, sizeof(out.s), "infinite for %s",
                 cli_counted(unlimited, "element", "elements").s);
    else if (worst[0] >= 0)
        snprintf(out.s, sizeof(out.s),
                 "worst at batch %" PRId64 ", position %" PRId64 ", head %" PRId64
                 ", element %" PRId64,
                 worst[0], worst[1], worst[2], worst[3]);
    return out;
}

static const char *of_what(double norm2, int64_t compared)
{
    return norm2 == 0 && compared > 0 ? ", absolute: the exact one is 0" : "";
}

static void report_gradients(const struct cli_report *report, const struct cli_verdict *v)
{
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        const struct ls_gradient_verdict *g = &v->gradients[i];
        const struct ls_gradient_errors *errors = &v->gradient_errors[i];

        if (!v->has_gradient[i]) continue;
        cli_report_line(report, "", "%-4s rel    %-9.3g limit %.3g%s", gradient_names[i], g->rel,
                        g->rel_limit, of_what(errors->norm2, errors->compared));
        cli_report_line(report, "", "%-4s units  %-9.3g limit 1, %s", gradient_names[i],
                        g->max_units, place_of(errors->worst, errors->unlimited).s);
    }
}

void cli_verify_report(const struct cli_report *report, const struct cli_verdict *v)
{
    const struct ls_verdict *x = &v->verdict;
    json_t *json = verdict_json(v);

    add_gradients_json(json, v);
    cli_report_value(report, "verify", json);
    cli_report_line(report, "errors", "o    rel    %-9.3g limit %.3g%s (contract of %s)", x->rel_o,
                    x->rel_o_limit, of_what(v->errors.norm2, v->errors.compared),
                    ls_dtype_name(v->contract));
    cli_report_line(report, "", "o    units  %-9.3g limit 1, %s", x->max_units,
                    place_of(v->errors.worst, v->errors.unlimited).s);
    if (v->has_lse)
        cli_report_line(report, "", "lse  rel    %-9.3g limit %.3g, relative to max(1, |lse|)",
                        x->max_lse, x->lse_limit);
    if (v->has_lse) cli_report_line(report, "", "lse  abs    %.3g", x->abs_lse);
    report_gradients(report, v);
    cli_report_say(report, "verified: %s%s, %s against the double-precision oracle%s",
                   v->ok ? "ok" : "FAILED, ", fault_of(v).s,
                   cli_counted(v->errors.rows, "row", "rows").s,
                   v->has_lse ? "" : " (no lse to judge)");
}
