#include "judge/judge.h"

#include <string.h>

#include "attention/agreement.h"
#include "attention/operands.h"
#include "attention/options.h"

static const char *const tensor_names[LS_JUDGED_TENSORS] = {
    "o", "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};

/* ---- the task, checked */

static ls_status check_layout(const char *of, const struct ls_layout *layout, int64_t s, int p)
{
    if (layout->s != s || layout->p != p)
        return ls_fail(LS_ESHAPE,
                       "layout of %s: %lld positions over %d ranks, there are %lld and %d", of,
                       (long long)layout->s, layout->p, (long long)s, p);
    if (layout->kind <= LS_LAYOUT_AUTO || layout->kind > LS_LAYOUT_BALANCED ||
        (layout->kind == LS_LAYOUT_BALANCED) != (layout->dealing != NULL))
        return ls_fail(LS_EVALUE, "layout of %s: kind %d names none, or lacks its dealing", of,
                       (int)layout->kind);
    return LS_OK;
}

/* A judge computes in double whatever the types are; what options say of methods is not for it. */
static ls_status take_problem(struct ls_judge *judge, const struct ls_judge_task *task)
{
    struct ls_attention_options options;
    struct ls_attention_shape shape = *task->shape;

    shape.type = LS_F32;
    LS_TRY(ls_options_read(&options, task->options));
    options.layout = LS_LAYOUT_CONTIGUOUS;
    options.has_rows = false;
    options.grid_heads = options.grid_ring = 0;
    LS_TRY(ls_problem_init(&judge->problem, &shape, &options, judge->p, NULL));
    LS_TRY(check_layout("queries", &task->q_layout, shape.s_q, judge->p));
    LS_TRY(check_layout("keys", &task->k_layout, shape.s_k, judge->p));
    if ((unsigned)task->contract > LS_F64)
        return ls_fail(LS_EVALUE, "contract is %d, which names no type", (int)task->contract);
    if (task->rows < 0)
        return ls_fail(LS_EVALUE, "rows to judge are %lld, must be 1 or more, or 0: all",
                       (long long)task->rows);
    judge->q_layout = task->q_layout;
    judge->k_layout = task->k_layout;
    judge->contract = task->contract;
    judge->rows = task->rows;
    return LS_OK;
}

/* lse as [b, s, h, 1], dsinks as [1, 1, h, 1], ddistance_bias as [1, 1, h, distances] */
static struct ls_tensor rows_of(const struct ls_tensor *t)
{
    if (t->ndim == 4) return *t;
    if (t->ndim <= 2)
        return (struct ls_tensor){.type = t->type,
                                  .ndim = 4,
                                  .dim = {1, 1, t->dim[0], t->ndim == 2 ? t->dim[1] : 1},
                                  .stride = {0, 0, t->stride[0], 1},
                                  .data = t->data};
    return (struct ls_tensor){.type = t->type,
                              .ndim = 4,
                              .dim = {t->dim[0], t->dim[2], t->dim[1], 1},
                              .stride = {t->stride[0], t->stride[2], t->stride[1], 1},
                              .data = t->data};
}

static ls_status take_tensors(struct ls_judge *judge, const struct ls_judge_task *task)
{
    const struct ls_attention_saved *r = task->result;
    const struct ls_attention_gradients none = {.dq = NULL},
                                        *g = task->gradients ? task->gradients : &none;
    const struct ls_attention_shape *n = &judge->problem.shape;
    const int64_t q_rows = ls_layout_part_rows(&judge->q_layout, judge->rank);
    const int64_t k_rows = ls_layout_part_rows(&judge->k_layout, judge->rank);
    const int64_t q[] = {n->b, q_rows, n->h, n->d}, k[] = {n->b, k_rows, n->h_kv, n->d};
    const int64_t d_v = ls_value_dim(n), v[] = {n->b, k_rows, n->h_kv, d_v},
                  o[] = {n->b, q_rows, n->h, d_v};
    const int64_t lse[] = {n->b, n->h, q_rows};
    const struct ls_scores *scores = &judge->problem.scores;
    const int64_t distances[] = {n->h, scores->distances};
    const int64_t biases[] = {scores->bias_entry > 0 ? n->b : 1, scores->bias_head > 0 ? n->h : 1,
                              q_rows, n->s_k};
    const bool of_saved = g->dk || g->dv || g->dsinks || g->ddistance_bias || g->dbias;
    const bool back = g->dq || of_saved;
    struct ls_operand list[LS_JUDGE_TENSORS] = {
        [LS_JUDGE_Q] = {"q", r->q, LS_F64, 4, q, false},
        [LS_JUDGE_K] = {"k", r->k, LS_F64, 4, k, false},
        [LS_JUDGE_V] = {"v", r->v, LS_F64, 4, v, false},
        [LS_JUDGE_O] = {"o", r->o, LS_F64, 4, o, false},
        [LS_JUDGE_LSE] = {"lse", r->lse, LS_F32, 3, lse, !of_saved},
        [LS_JUDGE_D_O] = {"d_o", r->d_o, LS_F64, 4, o, !back},
        [LS_JUDGE_O_LO] = {"o_lo", back ? r->o_lo : NULL, LS_F64, 4, o, true},
        [LS_JUDGE_DLSE] = {"dlse", back ? r->dlse : NULL, LS_F32, 3, lse, true},
        [LS_JUDGE_DQ] = {"dq", g->dq, LS_F64, 4, q, true},
        [LS_JUDGE_DK] = {"dk", g->dk, LS_F64, 4, k, true},
        [LS_JUDGE_DV] = {"dv", g->dv, LS_F64, 4, v, true},
        [LS_JUDGE_DSINKS] = {"dsinks", g->dsinks, LS_F32, 1, &n->h, true},
        [LS_JUDGE_DDISTANCE_BIAS] = {"ddistance_bias", g->ddistance_bias, LS_F32, 2, distances,
                                     true},
        [LS_JUDGE_DBIAS] = {"dbias", g->dbias, LS_F64, 4, biases, true},
    };

    if (g->dsinks && !judge->problem.scores.sinks)
        return ls_fail(LS_EVALUE, "dsinks is to be judged, the options are without sinks");
    if (g->ddistance_bias && !judge->problem.scores.distance_bias)
        return ls_fail(LS_EVALUE,
                       "ddistance_bias is to be judged, the options are without such biases");
    if (g->dbias && !scores->bias)
        return ls_fail(LS_EVALUE, "dbias is to be judged, the options are without biases of pairs");
    for (int i = 0; i < LS_JUDGE_TENSORS; i++) {
        const struct ls_tensor *t = list[i].tensor;

        judge->has[i] = t != NULL;
        if (t && list[i].ndim == 4 && (unsigned)t->type <= LS_F64) list[i].type = t->type;
    }
    LS_TRY(ls_operands_check(list, LS_JUDGE_TENSORS, 0, NULL));
    for (int i = 0; i < LS_JUDGE_TENSORS; i++)
        if (judge->has[i]) judge->tensor[i] = rows_of(list[i].tensor);
    return LS_OK;
}

static ls_status judge_init(struct ls_judge *out, struct ls_comm *comm,
                            const struct ls_judge_task *task,
                            const struct ls_progress_callback *progress)
{
    *out = (struct ls_judge){
        .comm = comm, .p = ls_comm_size(comm), .rank = ls_comm_rank(comm), .progress = progress};
    ls_errors_init(&out->errors);
    for (int i = 0; i < LS_JUDGE_GRADIENTS; i++) ls_gradient_errors_init(&out->gradient_errors[i]);
    LS_TRY(take_problem(out, task));
    return take_tensors(out, task);
}

/* ---- the verdict */

/* Of no keys dk, dv and dbias have no elements, and none of them is wrong. */
static bool is_empty(const struct ls_judge *judge, int tensor)
{
    return (tensor == LS_JUDGE_DK || tensor == LS_JUDGE_DV || tensor == LS_JUDGE_DBIAS) &&
           judge->problem.shape.s_k == 0;
}

static struct ls_judged judged_gradient(const struct ls_judge *judge, int i)
{
    const struct ls_gradient_errors *e = &judge->gradient_errors[i];
    struct ls_gradient_verdict v;

    if (!judge->has[LS_JUDGE_DQ + i] || is_empty(judge, LS_JUDGE_DQ + i))
        return (struct ls_judged){.ok = true};
    ls_gradient_errors_judge(&v, e, judge->contract, 1);
    struct ls_judged out = {.judged = true,
                            .ok = v.ok,
                            .why = v.why,
                            .rel = v.rel,
                            .rel_limit = v.rel_limit,
                            .absolute = e->norm2 == 0 && e->compared > 0,
                            .max_units = v.max_units,
                            .unlimited = e->unlimited};

    memcpy(out.worst, e->worst, sizeof(out.worst));
    return out;
}

static void judge_forward(struct ls_judgement *out, const struct ls_judge *judge)
{
    const struct ls_errors *e = &judge->errors;
    struct ls_judged *o = &out->tensor[LS_JUDGED_O];
    struct ls_verdict v;

    ls_errors_judge(&v, e, judge->contract, 1);
    out->contract = judge->contract;
    out->rows = e->rows;
    out->kappa = e->kappa;
    out->has_lse = judge->has[LS_JUDGE_LSE];
    out->abs_lse = v.abs_lse;
    out->rel_lse = v.max_lse;
    out->lse_limit = v.lse_limit;
    *o = (struct ls_judged){.judged = true,
                            .ok = v.ok,
                            .why = v.why,
                            .rel = v.rel_o,
                            .rel_limit = v.rel_o_limit,
                            .absolute = e->norm2 == 0 && e->compared > 0,
                            .max_units = v.max_units,
                            .unlimited = e->unlimited};
    memcpy(o->worst, e->worst, sizeof(o->worst));
}

static struct ls_judgement judgement(const struct ls_judge *judge)
{
    struct ls_judgement out = {.ok = true};

    judge_forward(&out, judge);
    for (int i = 0; i < LS_JUDGE_GRADIENTS; i++)
        out.tensor[LS_JUDGED_DQ + i] = judged_gradient(judge, i);
    for (int i = LS_JUDGED_TENSORS - 1; i >= 0; i--) {
        if (out.tensor[i].ok) continue;
        out.ok = false;
        out.failed = tensor_names[i];
        out.why = out.tensor[i].why;
    }
    if (!out.tensor[LS_JUDGED_O].ok && out.rel_lse > out.lse_limit) out.failed = "lse";
    return out;
}

/* Which tensors there are, one bit each. */
static double mask_of(const bool *has)
{
    double mask = 0;

    for (int i = 0; i < LS_JUDGE_TENSORS; i++) mask = 2 * mask + has[i];
    return mask;
}

/* Of a tensor that every rank has whole, [1, 1, h, n]; 0 if it is not there. */
static double digest_of(const struct ls_judge *judge, int tensor)
{
    const struct ls_tensor *t = &judge->tensor[tensor];
    double digest = 0;

    for (int64_t head = 0; judge->has[tensor] && head < t->dim[2]; head++)
        digest += ls_digest((const float *)t->data + head * t->stride[2],
                            (size_t)t->dim[3] * sizeof(float));
    return digest;
}

/* Ranks that do not judge the same would wait for each other. */
static ls_status compare_ranks(const struct ls_judge *judge, ls_status status)
{
    const struct ls_attention_shape *s = &judge->problem.shape;
    const int64_t sizes[] = {s->b, s->h, s->h_kv, s->s_q, s->s_k, s->d, ls_value_dim(s)};
    const struct ls_topic topics[] = {
        {"tensors that are there", mask_of(judge->has), false},
        {"rows to judge", (double)judge->rows, true},
        {"contract", (double)judge->contract, false},
        {"values of dsinks", digest_of(judge, LS_JUDGE_DSINKS), false},
        {"values of ddistance_bias", digest_of(judge, LS_JUDGE_DDISTANCE_BIAS), false},
        {"shape", ls_digest(sizes, sizeof sizes), false},
    };

    return ls_agree_about(judge->comm, status, topics, sizeof topics / sizeof *topics);
}

ls_status ls_judge_attention(struct ls_judgement *out, struct ls_comm *comm,
                             const struct ls_judge_task *task,
                             const struct ls_progress_callback *progress)
{
    struct ls_judge judge;
    ls_status status = compare_ranks(&judge, judge_init(&judge, comm, task, progress));

    if (status == LS_OK) status = ls_judge_queries(&judge);
    if (status == LS_OK) status = ls_judge_keys(&judge);
    if (status == LS_OK) status = ls_judge_sinks(&judge);
    if (status == LS_OK) status = ls_judge_distances(&judge);
    if (status == LS_OK) status = ls_judge_biases(&judge);
    if (status == LS_OK) *out = judgement(&judge);
    ls_problem_fini(&judge.problem);
    return status;
}
