#include <inttypes.h>
#include <stdio.h>

#include "cli/format.h"
#include "cli/verify.h"
#include "tensor/dtype.h"

static json_t *verdict_json(const struct cli_verdict *c)
{
    const struct ls_verdict *v = &c->verdict;
    json_t *json = json_object();

    json_object_set_new(json, "ok", json_boolean(c->ok));
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

static const char *const gradient_names[CLI_GRADIENTS] = {"dq", "dk", "dv"};

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

static struct place place_of(const int64_t worst[4])
{
    struct place out = {"no element errs"};

    if (worst[0] >= 0)
        snprintf(out.s, sizeof(out.s),
                 "worst at batch %" PRId64 ", position %" PRId64 ", head %" PRId64
                 ", element %" PRId64,
                 worst[0], worst[1], worst[2], worst[3]);
    return out;
}

static void report_gradients(const struct cli_report *report, const struct cli_verdict *v)
{
    for (int i = 0; i < CLI_GRADIENTS; i++) {
        const struct ls_gradient_verdict *g = &v->gradients[i];

        if (!v->has_gradient[i]) continue;
        cli_report_line(report, "", "%-4s rel    %-9.3g limit %.3g", gradient_names[i], g->rel,
                        g->rel_limit);
        cli_report_line(report, "", "%-4s units  %-9.3g limit 1, %s", gradient_names[i],
                        g->max_units, place_of(v->gradient_errors[i].worst).s);
    }
}

void cli_verify_report(const struct cli_report *report, const struct cli_verdict *v)
{
    const struct ls_verdict *x = &v->verdict;
    json_t *json = verdict_json(v);

    add_gradients_json(json, v);
    cli_report_value(report, "verify", json);
    cli_report_line(report, "errors", "o    rel    %-9.3g limit %.3g (contract of %s)", x->rel_o,
                    x->rel_o_limit, ls_dtype_name(v->contract));
    cli_report_line(report, "", "o    units  %-9.3g limit 1, %s", x->max_units,
                    place_of(v->errors.worst).s);
    if (v->has_lse)
        cli_report_line(report, "", "lse  rel    %-9.3g limit %.3g, relative to max(1, |lse|)",
                        x->max_lse, x->lse_limit);
    if (v->has_lse) cli_report_line(report, "", "lse  abs    %.3g", x->abs_lse);
    report_gradients(report, v);
    cli_report_say(report, "verified: %s, %s against the double-precision oracle%s",
                   v->ok ? "ok" : "FAILED", cli_counted(v->errors.rows, "row", "rows").s,
                   v->has_lse ? "" : " (no lse to judge)");
}
