#include "attention/plan.h"

#include <stdlib.h>
#include <string.h>

void ls_leaves_append(struct ls_leaf *list, int64_t *count, const struct ls_layout *layout,
                      int rank, int64_t first_row)
{
    const int64_t n = ls_layout_part_leaves(layout, rank);

    for (int64_t i = 0; i < n; i++)
        list[(*count)++] = (struct ls_leaf){.number = ls_layout_part_leaf(layout, rank, i),
                                            .row = first_row + i * LS_LEAF};
}

void ls_leaves_by_rank(struct ls_leaf_list *part, struct ls_leaf *leaf,
                       const struct ls_layout *layout)
{
    int64_t count = 0;

    for (int r = 0; r < layout->p; r++) {
        const int64_t first = count;

        ls_leaves_append(leaf, &count, layout, r, 0);
        part[r] = (struct ls_leaf_list){.leaf = leaf + first, .count = count - first};
    }
}

static int by_number(const void *a, const void *b)
{
    const int64_t x = ((const struct ls_leaf *)a)->number, y = ((const struct ls_leaf *)b)->number;

    return (x > y) - (x < y);
}

void ls_leaves_sort(struct ls_leaf *list, int64_t count)
{
    qsort(list, (size_t)count, sizeof *list, by_number);
}

void ls_leaves_gather(struct ls_leaf_list *out, struct ls_leaf *leaf, int64_t *first_row,
                      const struct ls_layout *layout)
{
    int64_t count = 0;

    first_row[0] = 0;
    for (int r = 0; r < layout->p; r++) {
        first_row[r + 1] = first_row[r] + ls_layout_part_rows(layout, r);
        ls_leaves_append(leaf, &count, layout, r, first_row[r]);
    }
    ls_leaves_sort(leaf, count);
    *out = (struct ls_leaf_list){.leaf = leaf, .count = count};
}

struct ls_kernel_shape ls_plan_kernel_shape(const struct ls_problem *problem, int64_t k_leaves)
{
    return (struct ls_kernel_shape){.global = problem->shape,
                                    .mask = problem->mask,
                                    .scores = problem->scores,
                                    .threads = problem->threads,
                                    .k_leaves = k_leaves,
                                    .strict = problem->strict};
}

struct ls_tensor ls_plan_key_view(const struct ls_problem *problem, void *data, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;
    const int64_t dim[] = {s->b, rows, s->h_kv, s->d};

    return ls_tensor_view(data, s->type, 4, dim);
}

void ls_tensor_copy(struct ls_tensor *to, const struct ls_tensor *from)
{
    const size_t size = (size_t)ls_dtype_size(from->type);

    for (int64_t i = 0; i < from->dim[0]; i++) {
        for (int64_t j = 0; j < from->dim[1]; j++) {
            for (int64_t k = 0; k < from->dim[2]; k++) {
                const int64_t at = i * from->stride[0] + j * from->stride[1] + k * from->stride[2];
                const int64_t into = i * to->stride[0] + j * to->stride[1] + k * to->stride[2];

                memcpy((char *)to->data + (size_t)into * size,
                       (const char *)from->data + (size_t)at * size, (size_t)from->dim[3] * size);
            }
        }
    }
}

ls_status ls_plan_attend(struct ls_attention_plan *plan, struct ls_kernel_call call)
{
    if (!call.q_leaves.leaf) call.q_leaves = plan->q_leaves;
    return ls_attention_kernel_attend(&plan->result, &plan->problem.device, plan->kernel, &call);
}

static int method_number(const struct ls_method *method)
{
    int i = 0;

    while (ls_method_at(i) != method) i++;
    return i;
}

/* Every rank must have asked for the same. */
static ls_status compare_ranks(struct ls_comm *comm, const struct ls_problem *p,
                               const struct ls_method *method)
{
    const struct ls_attention_shape *s = &p->shape;
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
        {"type", (double)s->type, false},
        {"place of the first query among the keys", (double)p->mask.shift, true},
        {"keys before a query that it sees", (double)p->mask.left, true},
        {"keys behind a query that it sees", (double)p->mask.right, true},
        {"prefix", (double)p->mask.prefix, true},
        {"documents", (double)p->mask.document_count, true},
        {"mode (strict or fast)", p->strict, false},
        {"layout", (double)p->q_layout.kind, false},
        {"ranks of a node", (double)p->node_size, true},
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

void ls_plan_cost(struct ls_cost *out, const struct ls_attention_plan *plan)
{
    plan->method->cost(out, &plan->problem);
    if (!plan->redistribution) return;
    const struct ls_pieces pieces = ls_redistribution_pieces(plan->redistribution);

    ls_redistribution_cost(out, &plan->problem, &pieces);
}

/* A caller built against an older header has a shorter struct; what it lacks is zero. */
static ls_status read_options(struct ls_attention_options *out,
                              const struct ls_attention_options *in)
{
    if (in->size < offsetof(struct ls_attention_options, threads) || in->size > sizeof *out)
        return ls_fail(LS_EVALUE,
                       "options of %zu bytes, this library knows %zu: start from "
                       "LS_ATTENTION_OPTIONS",
                       in->size, sizeof *out);
    *out = (struct ls_attention_options)LS_ATTENTION_OPTIONS;
    memcpy(out, in, in->size);
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

    LS_TRY(read_options(&options, given));
    if (options.node_size == 0) options.node_size = ls_comm_node_run(comm);
    if (options.method) {
        LS_TRY(ls_method_find(&plan->method, options.method));
        plan->why = "asked for";
    } else {
        LS_TRY(ls_method_choose(&plan->method, &plan->why, shape, &options, p));
    }
    LS_TRY(ls_problem_init(&plan->problem, shape, &options, p, plan->method));
    LS_TRY(keep_documents(plan));
    plan->q_rows = options.q_rows;
    plan->k_rows = options.k_rows;

    const char *reason = plan->method->fits(&plan->problem);
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
        return ls_redistribution_create(&plan->redistribution, plan->comm, problem, plan->q_rows,
                                        plan->k_rows);
    plan->q_rows = ls_layout_part_rows(&problem->q_layout, plan->rank);
    plan->k_rows = ls_layout_part_rows(&problem->k_layout, plan->rank);
    return LS_OK;
}

/* Each rank has tried its products for itself; all must have found the same. */
static ls_status compare_places(const struct ls_attention_plan *plan)
{
    const double own = ls_attention_kernel_is_canonical(&plan->problem.device, plan->kernel);
    double least = own, most = own;

    LS_TRY(ls_comm_reduce(&least, plan->comm, 1, LS_REDUCE_MIN));
    LS_TRY(ls_comm_reduce(&most, plan->comm, 1, LS_REDUCE_MAX));
    if (least == most) return LS_OK;
    return ls_fail(LS_EFIT,
                   "a row's bits depend on its place on some ranks and not on others, all "
                   "with %s: strict mode needs the same machines",
                   plan->fingerprint);
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
    ls_fingerprint(plan->fingerprint, &plan->problem.device);
    if (plan->problem.strict)
        LS_TRY_GOTO(status, ls_fingerprint_agree(comm, plan->fingerprint), destroy);
    LS_TRY_GOTO(status, ls_comm_duplicate(&plan->comm, comm), destroy);
    plan->rank = ls_comm_rank(comm);
    LS_TRY_GOTO(status, take_rows(plan), destroy);
    status = list_queries(plan);
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
    if (plan->own) plan->method->destroy(plan);
    ls_attention_kernel_destroy(&plan->problem.device, plan->kernel);
    ls_redistribution_destroy(plan->redistribution);
    free(plan->q_leaf);
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

static ls_status check_tensor(const struct ls_tensor *t, const char *name, ls_dtype type, int ndim,
                              const int64_t *dim)
{
    if (t->type != type)
        return ls_fail(LS_ETYPE, "%s is %s, the plan is for %s", name, ls_dtype_name(t->type),
                       ls_dtype_name(type));
    if (t->ndim != ndim)
        return ls_fail(LS_ESHAPE, "%s has %d dimensions, must have %d", name, t->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        if (t->dim[i] != dim[i])
            return ls_fail(LS_ESHAPE, "%s: dimension %d is %ld, must be %ld on this rank", name, i,
                           (long)t->dim[i], (long)dim[i]);
    if (t->dim[ndim - 1] > 1 && t->stride[ndim - 1] != 1)
        return ls_fail(LS_ESHAPE, "%s: the last dimension has stride %ld, must be contiguous", name,
                       (long)t->stride[ndim - 1]);
    return LS_OK;
}

static ls_status check_call(const struct ls_attention_plan *plan,
                            const struct ls_attention_call *call)
{
    const struct ls_attention_shape *s = &plan->problem.shape;
    const int64_t q_dim[] = {s->b, plan->q_rows, s->h, s->d};
    const int64_t k_dim[] = {s->b, plan->k_rows, s->h_kv, s->d};
    const int64_t lse_dim[] = {s->b, s->h, plan->q_rows};

    LS_TRY(check_tensor(call->q, "q", s->type, 4, q_dim));
    LS_TRY(check_tensor(call->k, "k", s->type, 4, k_dim));
    LS_TRY(check_tensor(call->v, "v", s->type, 4, k_dim));
    LS_TRY(check_tensor(call->o, "o", s->type, 4, q_dim));
    return check_tensor(call->lse, "lse", LS_F32, 3, lse_dim);
}

/* A rank whose method fails still sends what the others wait for. */
static ls_status forward_own_rows(struct ls_attention_plan *plan,
                                  const struct ls_attention_call *call)
{
    struct ls_redistribution *r = plan->redistribution;
    const struct ls_tensor *const in[LS_TRAVELLERS] = {
        [LS_Q] = call->q, [LS_K] = call->k, [LS_V] = call->v};
    const struct ls_tensor *const out[LS_TRAVELLERS] = {[LS_LSE] = call->lse, [LS_O] = call->o};
    struct ls_tensor part[LS_TRAVELLERS];

    for (int which = 0; which < LS_TRAVELLERS; which++)
        ls_redistribution_part(&part[which], r, which, in[which] ? in[which] : out[which]);
    LS_TRY(ls_redistribute_to_parts(r, in));
    const ls_status status =
        plan->method->forward(plan, &(struct ls_attention_call){.o = &part[LS_O],
                                                                .lse = &part[LS_LSE],
                                                                .q = &part[LS_Q],
                                                                .k = &part[LS_K],
                                                                .v = &part[LS_V]});
    if (status == LS_ECOMM) return status;
    LS_TRY(ls_redistribute_to_pieces(out, r));
    return status;
}

ls_status ls_attention_forward(struct ls_tensor *o, struct ls_tensor *lse,
                               struct ls_attention_plan *plan, const struct ls_tensor *q,
                               const struct ls_tensor *k, const struct ls_tensor *v)
{
    const struct ls_attention_call call = {.o = o, .lse = lse, .q = q, .k = k, .v = v};

    LS_TRY(ls_comm_agree(plan->comm, check_call(plan, &call)));
    memset(&plan->result, 0, sizeof plan->result);
    ls_comm_reset_counters(plan->comm);
    const ls_status status =
        plan->redistribution ? forward_own_rows(plan, &call) : plan->method->forward(plan, &call);
    if (status == LS_ECOMM) return status; /* nobody can be asked any more */
    return ls_comm_agree(plan->comm, status);
}

void ls_attention_plan_describe(struct ls_attention_report *out,
                                const struct ls_attention_plan *plan)
{
    const struct ls_problem *p = &plan->problem;

    *out = (struct ls_attention_report){
        .method = plan->method->name,
        .why = plan->why,
        .layout = p->q_layout.kind,
        .isa = ls_device_isa(&p->device),
        .kernel = ls_attention_kernel_name(&p->device, plan->kernel),
        .strict = p->strict,
        .fingerprint = plan->fingerprint,
        .threads = p->threads,
        .tile_q = LS_LEAF,
        .tile_k = LS_LEAF,
        .tiles_computed = plan->result.tiles,
        .bytes_sent = ls_comm_bytes_sent(plan->comm),
        .exposed_comm_seconds = ls_comm_exposed_seconds(plan->comm),
        .pack_seconds = plan->result.profile.seconds[LS_EVENT_PACK],
        .tile_seconds = plan->result.profile.seconds[LS_EVENT_TILE],
        .merge_seconds = plan->result.profile.seconds[LS_EVENT_MERGE],
        .finish_seconds = plan->result.profile.seconds[LS_EVENT_FINISH],
    };
}
