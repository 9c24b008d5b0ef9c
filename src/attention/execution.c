/* What every execution begins and ends with. */
#include <string.h>

#include "attention/agreement.h"
#include "attention/options.h"
#include "attention/plan.h"
#include "tensor/dtype.h"

/* A caller built against an older header has a shorter struct; what it lacks is zero. */
static ls_status read_execution(struct ls_attention_execution *out,
                                const struct ls_attention_execution *in)
{
    *out = (struct ls_attention_execution)LS_ATTENTION_EXECUTION;
    if (!in) return LS_OK;
    if (in->size < offsetof(struct ls_attention_execution, has_dropout_seed) ||
        in->size > sizeof *out)
        return ls_fail(LS_EVALUE,
                       "execution of %zu bytes, this library knows %zu: start from "
                       "LS_ATTENTION_EXECUTION",
                       in->size, sizeof *out);
    memcpy(out, in, in->size);
    return LS_OK;
}

static size_t document_bytes(const struct ls_mask_rule *rule)
{
    return (size_t)(rule->document_count + 1) * sizeof *rule->documents;
}

static bool has_documents_of(const struct ls_mask_rule *a, const struct ls_mask_rule *b)
{
    return a->documents && b->documents && a->document_count == b->document_count &&
           !a->q_documents && !b->q_documents &&
           memcmp(a->documents, b->documents, document_bytes(a)) == 0;
}

/* What follows from the plan's mask is no use under another one. */
static ls_status check_use(const struct ls_attention_plan *plan)
{
    if (plan->method->sends_seen)
        return ls_fail(LS_EFIT,
                       "documents: method %s sends what those of the plan leave to be seen; make "
                       "the plan with these, or with another method",
                       plan->method->name);
    if (plan->problem.layout_chosen && plan->problem.q_layout.kind == LS_LAYOUT_BALANCED)
        return ls_fail(LS_EFIT, "documents: layout balanced was chosen for those of the plan; make "
                                "the plan with these, or ask for a layout");
    return LS_OK;
}

static ls_status check_lengths(const struct ls_attention_plan *plan,
                               const struct ls_attention_execution *e)
{
    const struct ls_attention_shape *s = &plan->problem.shape;

    if (e->s_q < 0 || e->s_q > s->s_q || e->s_k < 0 || e->s_k > s->s_k)
        return ls_fail(LS_ESHAPE,
                       "lengths of this execution: %lld queries and %lld keys, must be 0 to the "
                       "plan's %lld and %lld",
                       (long long)e->s_q, (long long)e->s_k, (long long)s->s_q, (long long)s->s_k);
    if (plan->lists.list[LS_LIST_Q_LENGTHS] || plan->lists.list[LS_LIST_K_LENGTHS])
        return ls_fail(LS_EFIT, "lengths: the entries of the plan have lengths of their own; make "
                                "the plan without them, or with these");
    return LS_OK;
}

/* No longer than planned: the mask ends earlier. */
static ls_status take_lengths(struct ls_mask_rule *rule, const struct ls_attention_plan *plan,
                              const struct ls_attention_execution *e)
{
    const int64_t planned = rule->shift;

    if (!e->has_lengths) return LS_OK;
    if (rule->s_q > e->s_q) rule->s_q = e->s_q;
    rule->s_k = e->s_k;
    if (plan->problem.ends_meet) rule->shift = e->s_k - e->s_q;
    if (rule->prefix > e->s_k) rule->prefix = e->s_k;
    if (rule->shift != planned && plan->method->sends_seen)
        return ls_fail(LS_EFIT,
                       "lengths: query 0 stands at key %lld, planned at %lld, and method %s sends "
                       "what is seen from there; make the plan with these, or with another method",
                       (long long)rule->shift, (long long)planned, plan->method->name);
    return LS_OK;
}

static ls_status take_documents(struct ls_mask_rule *rule, const struct ls_attention_plan *plan,
                                const struct ls_attention_execution *e)
{
    const struct ls_mask_rule planned = *rule;

    if (!e->documents) return LS_OK;
    LS_TRY(ls_documents_check(e->documents, e->document_count, rule->s_k - rule->k_first));
    rule->documents = e->documents;
    rule->document_count = e->document_count;
    rule->q_documents = NULL;
    return has_documents_of(rule, &planned) ? LS_OK : check_use(plan);
}

static ls_status make_masks(struct ls_attention_plan *plan, const struct ls_attention_execution *e)
{
    if (!e->has_lengths && !e->documents) return LS_OK;
    if (e->has_lengths) LS_TRY(check_lengths(plan, e));
    for (int64_t i = 0; i < ls_masks_count(&plan->now.masks); i++) {
        LS_TRY(take_lengths(&plan->rules[i], plan, e));
        LS_TRY(take_documents(&plan->rules[i], plan, e));
    }
    return ls_mask_set_make(&plan->now.masks, &plan->mask_set, plan->rules);
}

static int64_t mean_count(const struct ls_attention_shape *s)
{
    return s->b * s->h_kv * s->d;
}

static ls_status take_key_mean(struct ls_attention_plan *plan, const float *mean)
{
    const struct ls_problem *problem = &plan->problem;
    const struct ls_attention_shape *s = &problem->shape;

    if (!mean) return LS_OK;
    if (!ls_keys_are_quantized(s))
        return ls_fail(LS_EVALUE, "a mean of keys that are %s: only those of 8 bits have one",
                       ls_dtype_name(s->type));
    const int64_t bad = ls_dtype_find_nonfinite(mean, LS_F32, mean_count(s));

    if (bad >= 0)
        return ls_fail(LS_EVALUE, "the mean of keys is %g at element %lld, must be finite",
                       (double)mean[bad], (long long)bad);
    plan->now.key_mean = (struct ls_key_mean){.mean = mean,
                                              .heads = s->h_kv,
                                              .group = s->h / s->h_kv,
                                              .first_head = problem->scores.first_head};
    return LS_OK;
}

ls_status ls_plan_take(struct ls_attention_plan *plan,
                       const struct ls_attention_execution *execution)
{
    const struct ls_problem *problem = &plan->problem;
    struct ls_attention_execution e;

    plan->now = (struct ls_kernel_change){.masks = problem->masks, .seed = problem->scores.seed};
    memcpy(plan->rules, problem->rules,
           (size_t)ls_masks_count(&problem->masks) * sizeof *plan->rules);
    LS_TRY(read_execution(&e, execution));
    if (e.has_dropout_seed) plan->now.seed = e.dropout_seed;
    LS_TRY(take_key_mean(plan, e.key_mean));
    return make_masks(plan, &e);
}

ls_status ls_plan_agree(const struct ls_attention_plan *plan, ls_status status, const char *wish,
                        int asked)
{
    const struct ls_kernel_change *now = &plan->now;
    const struct ls_mask_rule *rule = plan->rules;
    const float *mean = now->key_mean.mean;
    const size_t mean_bytes = (size_t)mean_count(&plan->problem.shape) * sizeof *mean;
    const struct ls_topic topics[] = {
        {wish, asked, false},
        {"seed of dropout", ls_digest(&now->seed, sizeof now->seed), false},
        {"query length", (double)rule->s_q, true},
        {"key length", (double)rule->s_k, true},
        {"documents", ls_digest(rule->documents, document_bytes(rule)), false},
        {"mean of keys", ls_digest(mean, mean_bytes), false},
    };

    return ls_agree_about(plan->comm, status, topics, sizeof topics / sizeof *topics);
}

void ls_plan_begin(struct ls_attention_plan *plan, const char *direction)
{
    ls_comm_place(plan->comm, plan->method->name, direction);
    ls_plan_queue(plan)->progress = plan->traffic.idle;
    plan->work = (struct ls_work){0};
    plan->traffic.bytes_sent = 0;
    plan->traffic.exposed_seconds = 0;
}

void ls_plan_leave(struct ls_attention_plan *plan)
{
    ls_plan_queue(plan)->progress = (struct ls_progress){0};
}

ls_status ls_plan_end(struct ls_attention_work *out, struct ls_attention_plan *plan,
                      ls_status status)
{
    const ls_status computed = ls_queue_finish(&plan->work, ls_plan_queue(plan));
    const double *seconds = plan->work.profile.seconds;

    *out = (struct ls_attention_work){
        .tiles_computed = plan->work.tiles,
        .bytes_sent = plan->traffic.bytes_sent,
        .exposed_comm_seconds = plan->traffic.exposed_seconds,
        .pack_seconds = seconds[LS_EVENT_PACK],
        .tile_seconds = seconds[LS_EVENT_TILE],
        .merge_seconds = seconds[LS_EVENT_MERGE],
        .finish_seconds = seconds[LS_EVENT_FINISH],
    };
    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    LS_TRY(ls_comm_agree(plan->comm, status == LS_OK ? computed : status));
    ls_comm_place(plan->comm, "", "");
    return LS_OK;
}
