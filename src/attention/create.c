/* Making a plan, asking about it, and ending it. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

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

/* A number that tells arrays apart, exact as a double; 0 for none. */
static double digest(const void *array, size_t bytes)
{
    return array ? (double)(XXH3_64bits(array, bytes) >> 12) : 0;
}

/* Every rank must have asked for the same. */
static ls_status compare_ranks(struct ls_comm *comm, const struct ls_problem *p,
                               const struct ls_method *method)
{
    const struct ls_attention_shape *s = &p->shape;
    const size_t documents = (size_t)(p->mask.document_count + 1) * sizeof *p->mask.documents;
    const struct {
        const char *name;
        double value;
        bool number; /* that says something to a reader */
    } fields[] = {
        {"batch", (double)s->b, true},
        {"heads", (double)s->h, true},
        {"key/value heads", (double)s->h_kv, true},
        {"query length", (double)s->s_q, true},
        {"key length", (double)s->s_k, true},
        {"head dim", (double)s->d, true},
        {"scale", p->scores.scale, true},
        {"soft cap", p->scores.soft_cap, true},
        {"ALiBi slopes", digest(p->scores.alibi, (size_t)s->h * sizeof(float)), false},
        {"sinks (some or none)", p->scores.sinks != NULL, false},
        {"dropout", p->scores.dropout, true},
        {"seed of dropout", digest(&p->scores.seed, sizeof p->scores.seed), false},
        {"lengths of documents", digest(p->mask.documents, documents), false},
        {"type", (double)s->type, false},
        {"place of the first query among the keys", (double)p->mask.shift, true},
        {"keys before a query that it sees", (double)p->mask.left, false},
        {"keys behind a query that it sees", (double)p->mask.right, false},
        {"prefix", (double)p->mask.prefix, true},
        {"documents", (double)p->mask.document_count, true},
        {"mode (strict or fast)", p->strict, false},
        {"gradients (backward or forward alone)", p->backward, false},
        {"layout", (double)p->q_layout.kind, false},
        {"ranks of a node", (double)p->node_size, true},
        {"ranks that swap heads", (double)p->grid_heads, true},
        {"ranks that follow each other", (double)p->ring_inside, false},
        {"method", method_number(method), false},
        {"rows (own ones or the layout's)", p->own_rows, false},
    };
    enum { FIELDS = sizeof fields / sizeof *fields };
    double least[FIELDS], most[FIELDS];

    for (int i = 0; i < FIELDS; i++) least[i] = most[i] = fields[i].value;
    LS_TRY(ls_comm_reduce(least, comm, FIELDS, LS_REDUCE_MIN));
    LS_TRY(ls_comm_reduce(most, comm, FIELDS, LS_REDUCE_MAX));
    for (int i = 0; i < FIELDS; i++) {
        if (least[i] == most[i]) continue;
        if (!fields[i].number)
            return ls_fail(LS_ESHAPE, "ranks disagree about the %s", fields[i].name);
        return ls_fail(LS_ESHAPE, "ranks disagree about the %s: from %g to %g", fields[i].name,
                       least[i], most[i]);
    }
    return LS_OK;
}

ls_status ls_plan_cost(struct ls_cost *out, const struct ls_attention_plan *plan)
{
    LS_TRY(plan->method->cost(out, &plan->problem));
    if (!plan->redistribution) return LS_OK;
    const struct ls_pieces pieces = ls_redistribution_pieces(plan->redistribution);

    ls_redistribution_cost(out, &plan->problem, &pieces);
    return LS_OK;
}

/* The caller's may be gone when the plan is executed. */
static ls_status keep_documents(struct ls_attention_plan *plan)
{
    struct ls_mask *mask = &plan->problem.mask;
    const size_t bytes = (size_t)(mask->document_count + 1) * sizeof *plan->documents;

    if (!mask->documents) return LS_OK;
    plan->documents = malloc(bytes);
    if (!plan->documents) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    memcpy(plan->documents, mask->documents, bytes);
    mask->documents = plan->documents;
    return LS_OK;
}

static ls_status choose_method(struct ls_attention_plan *plan,
                               const struct ls_attention_shape *shape,
                               const struct ls_attention_options *given, const struct ls_comm *comm)
{
    const int p = ls_comm_size(comm);
    struct ls_attention_options options;

    LS_TRY(ls_options_read(&options, given));
    if (options.node_size == 0) options.node_size = ls_comm_node_run(comm);
    if (options.method) {
        LS_TRY(ls_method_find(&plan->method, options.method));
        plan->why = "asked for";
    } else {
        LS_TRY(ls_method_choose(&plan->method, &plan->why, shape, &options, p));
    }
    LS_TRY(ls_problem_init(&plan->problem, shape, &options, p, plan->method->layout));
    LS_TRY(keep_documents(plan));
    plan->q_rows = options.q_rows;
    plan->k_rows = options.k_rows;

    const char *reason = ls_method_misfit(plan->method, &plan->problem);
    if (reason) return ls_fail(LS_EFIT, "method %s cannot do this: %s", plan->method->name, reason);
    return LS_OK;
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
    LS_TRY_GOTO(status, compare_ranks(comm, &plan->problem, plan->method), destroy);
    ls_fingerprint(plan->fingerprint, plan->problem.device,
                   ls_problem_kernel_shape(&plan->problem, 0), plan->problem.backward);
    if (plan->problem.strict)
        LS_TRY_GOTO(status, ls_fingerprint_agree(comm, plan->fingerprint), destroy);
    LS_TRY_GOTO(status, open_transport(plan, comm), destroy);
    LS_TRY_GOTO(status, take_rows(plan), destroy);
    status = list_queries(plan);
    if (status == LS_OK) status = ls_gradients_create(plan);
    if (status == LS_OK) status = plan->method->create(plan);
    LS_TRY_GOTO(status, ls_comm_agree(comm, status), destroy);
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
    if (plan->own) plan->method->destroy(plan);
    ls_attention_kernel_destroy(plan->problem.device, plan->kernel);
    ls_redistribution_destroy(plan->redistribution);
    ls_gradients_destroy(plan);
    free(plan->q_leaf);
    ls_problem_fini(&plan->problem);
    free(plan->documents);
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

/* What an execution did, as callers see it. */
static struct ls_attention_work work_of(const struct ls_execution *e)
{
    return (struct ls_attention_work){
        .tiles_computed = e->work.tiles,
        .bytes_sent = e->bytes_sent,
        .exposed_comm_seconds = e->exposed_seconds,
        .pack_seconds = e->work.profile.seconds[LS_EVENT_PACK],
        .tile_seconds = e->work.profile.seconds[LS_EVENT_TILE],
        .merge_seconds = e->work.profile.seconds[LS_EVENT_MERGE],
        .finish_seconds = e->work.profile.seconds[LS_EVENT_FINISH],
    };
}

void ls_attention_plan_describe(struct ls_attention_report *out,
                                const struct ls_attention_plan *plan)
{
    const struct ls_problem *p = &plan->problem;
    const struct ls_attention_work forward = work_of(&plan->forward);

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
        .tiles_computed = forward.tiles_computed,
        .bytes_sent = forward.bytes_sent,
        .exposed_comm_seconds = forward.exposed_comm_seconds,
        .pack_seconds = forward.pack_seconds,
        .tile_seconds = forward.tile_seconds,
        .merge_seconds = forward.merge_seconds,
        .finish_seconds = forward.finish_seconds,
        .backward = work_of(&plan->backward),
    };
}
