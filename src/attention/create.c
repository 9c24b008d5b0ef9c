/* Making a plan, asking about it, and ending it. */
#include <stdlib.h>
#include <string.h>

#include "attention/agreement.h"
#include "attention/bias_gradient.h"
#include "attention/choice.h"
#include "attention/distances.h"
#include "attention/gradient.h"
#include "attention/leaves.h"
#include "attention/methods/table.h"
#include "attention/options.h"
#include "attention/plan.h"
#include "attention/travelling/redistribute.h"

static int method_number(const struct ls_method *method)
{
    int i = 0;

    while (ls_method_at(i) != method) i++;
    return i;
}

static double digest(const struct ls_lists *lists, enum ls_list which)
{
    return ls_digest(lists->list[which], lists->bytes[which]);
}

/* Of the matrices that the plan reads. */
static double pair_digest(const struct ls_problem *p)
{
    double digest = 0;

    for (int64_t i = 0; i < ls_masks_count(&p->masks); i++) {
        const struct ls_pair_bits *bits = &p->rules[i].bits;
        const double both[] = {
            digest, ls_digest(bits->first_row, (size_t)(p->shape.s_q * bits->row_bytes))};

        if (bits->first_row) digest = ls_digest(both, sizeof both);
    }
    return digest;
}

/* Whether there are biases of pairs, and whether entries and heads have their own. */
static double bias_kind(const struct ls_scores *scores)
{
    return (scores->bias != NULL) + 2 * (scores->bias_entry != 0) + 4 * (scores->bias_head != 0);
}

/* Every rank must have asked for the same. */
static ls_status compare_ranks(struct ls_comm *comm, const struct ls_problem *p,
                               const struct ls_lists *lists, const struct ls_method *method)
{
    const struct ls_attention_shape *s = &p->shape;
    const struct ls_mask_rule *rule = p->rules;
    const float *alibi = p->scores.alibi ? p->scores.alibi + p->scores.first_head : NULL;
    const struct ls_topic topics[] = {
        {"batch", (double)s->b, true},
        {"heads", (double)s->h, true},
        {"key/value heads", (double)s->h_kv, true},
        {"query length", (double)s->s_q, true},
        {"key length", (double)s->s_k, true},
        {"head dim", (double)s->d, true},
        {"head dim of v", (double)ls_value_dim(s), true},
        {"scale", p->scores.scale, true},
        {"soft cap", p->scores.soft_cap, true},
        {"first head", (double)p->scores.first_head, true},
        {"heads in all", (double)p->scores.heads, true},
        {"heads that share a key/value head", (double)p->group, true},
        {"ALiBi slopes", ls_digest(alibi, (size_t)s->h * sizeof(float)), false},
        {"sinks (some or none)", p->scores.sinks != NULL, false},
        {"distances that have biases", (double)p->scores.distances, true},
        {"biases by distance (some or none)", p->scores.distance_bias != NULL, false},
        {"biases of pairs, and whose own they are", bias_kind(&p->scores), false},
        {"dropout", p->scores.dropout, true},
        {"seed of dropout", ls_digest(&p->scores.seed, sizeof p->scores.seed), false},
        {"lengths of documents", digest(lists, LS_LIST_DOCUMENTS), false},
        {"lengths of documents of queries", digest(lists, LS_LIST_Q_DOCUMENTS), false},
        {"query lengths", digest(lists, LS_LIST_Q_LENGTHS), false},
        {"key lengths", digest(lists, LS_LIST_K_LENGTHS), false},
        {"side of the padding", lists->pad_left, false},
        {"ends at which documents are aligned", rule->align_start, false},
        {"place of a document's first query", (double)rule->pair_offset, true},
        {"pairs of slices", digest(lists, LS_LIST_SLICES), false},
        {"type", (double)s->type, false},
        {"type of keys and values", (double)s->kv_type, false},
        {"place of the first query among the keys", (double)rule->shift, true},
        {"keys before a query that it sees", (double)rule->left, false},
        {"keys behind a query that it sees", (double)rule->right, false},
        {"prefix", (double)rule->prefix, true},
        {"documents", (double)rule->document_count, true},
        {"slices", (double)rule->slice_count, true},
        {"pairs that are left", pair_digest(p), false},
        {"entries that have masks of their own", (double)p->masks.entries, true},
        {"heads that have masks of their own", (double)p->masks.heads, true},
        {"mode (strict or fast)", p->strict, false},
        {"gradients (backward or forward alone)", p->backward, false},
        {"layout", (double)p->q_layout.kind, false},
        {"ranks of a node", (double)p->node_size, true},
        {"ranks that swap heads", (double)p->grid_heads, true},
        {"ranks that follow each other", (double)p->ring_inside, false},
        {"method", method_number(method), false},
        {"rows (own ones or the layout's)", p->own_rows, false},
    };

    return ls_agree_about(comm, LS_OK, topics, sizeof topics / sizeof *topics);
}

ls_status ls_plan_cost(struct ls_cost *out, const struct ls_attention_plan *plan)
{
    LS_TRY(ls_method_cost(out, plan->method, &plan->problem));
    if (!plan->redistribution) return LS_OK;
    const struct ls_pieces pieces = ls_redistribution_pieces(plan->redistribution);

    ls_redistribution_cost(out, &plan->problem, &pieces);
    return LS_OK;
}

/* The rules refer to the plan's own lists. */
static ls_status keep_lists(struct ls_attention_plan *plan, struct ls_attention_options *options)
{
    const struct ls_attention_shape *shape = &plan->problem.shape;

    plan->rules = malloc((size_t)ls_masks_count(&plan->problem.masks) * sizeof *plan->rules);
    if (!plan->rules) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    LS_TRY(ls_lists_keep(&plan->lists, shape, options));
    return ls_options_mask(plan->problem.rules, shape, options);
}

static ls_status choose_method(struct ls_attention_plan *plan,
                               const struct ls_attention_shape *shape,
                               const struct ls_attention_options *options,
                               const struct ls_comm *comm)
{
    struct ls_choice choice;
    const char *misfit;

    LS_TRY(ls_choose(&choice, &misfit, shape, options, ls_comm_size(comm), ls_comm_node_run(comm)));
    if (misfit) return ls_fail(LS_EFIT, "method %s cannot do this: %s", options->method, misfit);
    plan->method = choice.method;
    plan->why = choice.why;
    plan->problem = choice.problem;
    plan->q_rows = choice.options.q_rows;
    plan->k_rows = choice.options.k_rows;
    return keep_lists(plan, &choice.options);
}

static ls_status list_queries(struct ls_attention_plan *plan)
{
    const struct ls_layout *layout = &plan->problem.q_layout;

    plan->q_leaf =
        malloc((size_t)(ls_layout_part_leaves(layout, plan->rank) + 1) * sizeof *plan->q_leaf);
    if (!plan->q_leaf) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    ls_leaves_append(plan->q_leaf, &plan->q_leaves.count, layout, plan->rank, 0);
    plan->q_leaves.leaf = plan->q_leaf;
    return LS_OK;
}

/* Collective. Which rows callers have. */
static ls_status take_rows(struct ls_attention_plan *plan)
{
    const struct ls_problem *problem = &plan->problem;

    if (problem->own_rows)
        return ls_redistribution_create(&plan->redistribution, plan->comm, &plan->transport,
                                        problem, plan->q_rows, plan->k_rows);
    plan->q_rows = ls_layout_part_rows(&problem->q_layout, plan->rank);
    plan->k_rows = ls_layout_part_rows(&problem->k_layout, plan->rank);
    return LS_OK;
}

/* Each rank has tried its products for itself; all must have found the same. */
static ls_status compare_places(const struct ls_attention_plan *plan)
{
    bool same;

    LS_TRY(ls_comm_alike(&same, plan->comm,
                         ls_attention_kernel_is_canonical(plan->problem.device, plan->kernel)));
    if (same) return LS_OK;
    return ls_fail(LS_EFIT,
                   "a row's bits depend on its place on some ranks and not on others, all "
                   "with %s: strict mode needs the same machines",
                   plan->fingerprint);
}

/* The next wait reports what fails. */
static void be_heard(void *comm)
{
    ls_comm_beat(comm);
}

static ls_status open_transport(struct ls_attention_plan *plan, const struct ls_comm *comm)
{
    struct ls_traffic *traffic = &plan->traffic;

    LS_TRY(ls_comm_duplicate(&plan->comm, comm));
    plan->rank = ls_comm_rank(comm);
    if (ls_comm_has_timeout(comm)) traffic->idle = (struct ls_progress){be_heard, plan->comm};
    traffic->mover = &ls_plan_queue(plan)->progress;
    plan->transport = ls_plan_transport(plan, plan->comm);
    return LS_OK;
}

ls_status ls_attention_plan_create(struct ls_attention_plan **out, struct ls_comm *comm,
                                   const struct ls_attention_shape *shape,
                                   const struct ls_attention_options *options)
{
    struct ls_attention_plan *plan = calloc(1, sizeof *plan);
    ls_status status = plan ? choose_method(plan, shape, options, comm)
                            : ls_fail(LS_ENOMEM, "attention plan: out of memory");

    LS_TRY_GOTO(status, ls_comm_agree(comm, status), destroy);
    LS_TRY_GOTO(status, compare_ranks(comm, &plan->problem, &plan->lists, plan->method), destroy);
    ls_fingerprint(plan->fingerprint, plan->problem.device,
                   ls_problem_kernel_shape(&plan->problem, 0), plan->problem.backward);
    if (plan->problem.strict)
        LS_TRY_GOTO(status, ls_fingerprint_agree(comm, plan->fingerprint), destroy);
    LS_TRY_GOTO(status, open_transport(plan, comm), destroy);
    LS_TRY_GOTO(status, take_rows(plan), destroy);
    status = list_queries(plan);
    if (status == LS_OK) status = ls_gradients_create(plan);
    if (status == LS_OK) status = ls_distances_create(plan);
    if (status == LS_OK) status = ls_bias_gradient_create(plan);
    LS_TRY_GOTO(status, ls_comm_agree(comm, status), destroy); /* create may be collective */
    LS_TRY_GOTO(status, ls_comm_agree(comm, plan->method->create(plan)), destroy);
    if (plan->problem.strict) LS_TRY_GOTO(status, compare_places(plan), destroy);
    *out = plan;
    return LS_OK;
destroy:
    ls_attention_plan_destroy(plan);
    return status;
}

void ls_attention_plan_destroy(struct ls_attention_plan *plan)
{
    if (!plan) return;
    if (plan->comm && ls_comm_beat(plan->comm) != LS_OK) {
        ls_comm_destroy(plan->comm); /* the rest stays: messages may still come into it */
        return;
    }
    plan->traffic.mover = NULL; /* of a device that may stay */
    if (plan->own) plan->method->destroy(plan);
    ls_attention_kernel_destroy(plan->problem.device, plan->kernel);
    ls_redistribution_destroy(plan->redistribution);
    ls_gradients_destroy(plan);
    ls_distances_destroy(plan);
    ls_bias_gradient_destroy(plan);
    free(plan->q_leaf);
    ls_problem_fini(&plan->problem);
    ls_lists_free(&plan->lists);
    free(plan->rules);
    ls_mask_set_free(&plan->mask_set);
    ls_comm_destroy(plan->comm);
    free(plan);
}

struct ls_layout ls_attention_plan_query_layout(const struct ls_attention_plan *plan)
{
    return plan->problem.q_layout;
}

struct ls_layout ls_attention_plan_key_layout(const struct ls_attention_plan *plan)
{
    return plan->problem.k_layout;
}

void ls_attention_plan_describe(struct ls_attention_report *out,
                                const struct ls_attention_plan *plan)
{
    const struct ls_problem *p = &plan->problem;

    *out = (struct ls_attention_report){
        .method = plan->method->name,
        .why = plan->why,
        .layout = p->q_layout.kind,
        .isa = p->device->facts.isa,
        .kernel = ls_attention_kernel_name(p->device, ls_problem_kernel_shape(p, 0)),
        .strict = p->strict,
        .fingerprint = plan->fingerprint,
        .threads = p->device->facts.threads,
        .tile_q = LS_LEAF,
        .tile_k = LS_LEAF,
        .forward = plan->forward,
        .backward = plan->backward,
    };
}
