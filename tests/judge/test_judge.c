/* The judge sees the same on any number of ranks, and what is wrong wherever it is. A result of one
 * rank is cut into the parts of layouts, which all ranks then judge together. */
#include "../mpi/harness.h"

#include <math.h>

#include "base/random.h"
#include "longspan/judge.h"

MPI_SUITE(judge)

enum { B = 2, H = 4, H_KV = 2, S_Q = 300, S_K = 350, D = 8, DISTANCES = 601 };
enum { Q, K, V, O, LSE, D_O, O_LO, DLSE, DQ, DK, DV, DSINKS, DDISTANCE_BIAS, DBIAS, TENSORS };

static const struct ls_attention_shape shape = {B, H, H_KV, S_Q, S_K, D, LS_F32, 0};

static bool is_of_keys(int which)
{
    return which == K || which == V || which == DK || which == DV;
}

/* Rows of one tensor, contiguous; lse [b, h, s], dsinks [h], ddistance_bias [h, distances], dbias
 * [1, h, s, s_k]. The caller frees data. */
static struct ls_tensor create(int which, int64_t rows)
{
    const int64_t full[] = {B, rows, is_of_keys(which) ? H_KV : H, D}, lse[] = {B, H, rows};
    const int64_t of_heads[] = {H, DISTANCES};
    const bool flat = which == LSE || which == DLSE;
    const int64_t room = which == DBIAS ? H * rows * S_K : (B * rows + 1) * H * D + H * DISTANCES;
    void *data = calloc((size_t)room + 1, sizeof(float));

    if (which == DBIAS) return ls_tensor_view(data, LS_F32, 4, (const int64_t[]){1, H, rows, S_K});
    if (which >= DSINKS) return ls_tensor_view(data, LS_F32, which == DSINKS ? 1 : 2, of_heads);
    return ls_tensor_view(data, LS_F32, flat ? 3 : 4, flat ? lse : full);
}

static struct ls_tensor whole[TENSORS], part[TENSORS];

/* An element: of lse there is one, e = 0, a row; of dsinks one a head, of biases by distance some;
 * of biases of pairs, which entries share, e is the key. */
static float *at(const struct ls_tensor *t, int64_t b, int64_t row, int64_t head, int64_t e)
{
    const int64_t *s = t->stride;

    if (t->ndim <= 2) return (float *)t->data + head * t->stride[0] + e;
    if (t == &whole[DBIAS] || t == &part[DBIAS])
        return (float *)t->data + head * s[1] + row * s[2] + e;
    if (t->ndim == 3) return (float *)t->data + b * s[0] + head * s[1] + row;
    return (float *)t->data + b * s[0] + row * s[1] + head * s[2] + e;
}

/* ---- the whole result, the same on every rank, and its parts */

static const float sinks[H] = {1, -2, 0.5f, 3};
static float biases[H * DISTANCES], pair_biases[H * S_Q * S_K];
static struct ls_attention_options options = LS_ATTENTION_OPTIONS;

static struct ls_attention_saved saved_of(struct ls_tensor *t)
{
    return (struct ls_attention_saved){&t[Q],   &t[K],   &t[V],    &t[O],
                                       &t[LSE], &t[D_O], &t[O_LO], &t[DLSE]};
}

static struct ls_attention_gradients gradients_of(struct ls_tensor *t)
{
    return (struct ls_attention_gradients){.dq = &t[DQ],
                                           .dk = &t[DK],
                                           .dv = &t[DV],
                                           .dsinks = &t[DSINKS],
                                           .ddistance_bias = &t[DDISTANCE_BIAS],
                                           .dbias = &t[DBIAS]};
}

static void choose_options(void)
{
    options.causal = true;
    options.backward = true;
    options.threads = 2;
    options.sinks = sinks;
    ls_random_normal(biases, 2, 0, 0, H * DISTANCES);
    options.distance_bias = biases;
    options.distances = DISTANCES;
    ls_random_normal(pair_biases, 2, 1, 0, H * S_Q * S_K);
    options.bias = pair_biases;
    options.bias_per_head = true;
}

static void compute(struct ls_comm *self)
{
    const struct ls_attention_saved saved = saved_of(whole);
    const struct ls_attention_gradients gradients = gradients_of(whole);
    struct ls_attention_plan *plan;

    choose_options();
    for (int i = 0; i < TENSORS; i++) {
        whole[i] = create(i, is_of_keys(i) ? S_K : S_Q);
        ls_random_normal(whole[i].data, 5, (uint32_t)i, 0, B * S_Q * (i == DLSE ? H : H * D));
    }
    for (int i = K; i <= V; i++)
        ls_random_normal(whole[i].data, 5, (uint32_t)i, 0, B * S_K * H_KV * D);
    MPI_CHECK_OK(ls_attention_plan_create(&plan, self, &shape, &options));
    MPI_CHECK_OK(ls_attention_forward_residual(&whole[O], &whole[O_LO], &whole[LSE], plan,
                                               &whole[Q], &whole[K], &whole[V], NULL));
    MPI_CHECK_OK(ls_attention_backward(&gradients, plan, &saved, NULL));
    ls_attention_plan_destroy(plan);
}

static void free_all(struct ls_tensor *t)
{
    for (int i = 0; i < TENSORS; i++) free(t[i].data);
}

static struct ls_layout layout_of(ls_layout_kind kind, bool keys, int p)
{
    return (struct ls_layout){.kind = kind, .s = keys ? S_K : S_Q, .p = p};
}

static void cut(int which, const struct ls_layout *layout)
{
    const int64_t rows = ls_layout_part_rows(layout, rank), heads = is_of_keys(which) ? H_KV : H;

    part[which] = create(which, rows);
    for (int64_t i = 0; which == DBIAS && i < H * rows; i++)
        memcpy(at(&part[DBIAS], 0, i % rows, i / rows, 0),
               at(&whole[DBIAS], 0, ls_layout_position(layout, rank, i % rows), i / rows, 0),
               S_K * sizeof(float));
    if (which == DBIAS) return;
    if (which >= DSINKS) {
        memcpy(part[which].data, whole[which].data, which == DSINKS ? sizeof sinks : sizeof biases);
        return;
    }
    for (int64_t i = 0; i < B * rows * heads; i++) {
        const int64_t b = i / (rows * heads), row = i / heads % rows, head = i % heads;
        const int64_t position = ls_layout_position(layout, rank, row);

        memcpy(at(&part[which], b, row, head, 0), at(&whole[which], b, position, head, 0),
               (part[which].ndim == 3 ? 1 : D) * sizeof(float));
    }
}

static struct ls_judge_task task_of(struct ls_attention_saved *saved,
                                    struct ls_attention_gradients *gradients, struct ls_tensor *t,
                                    ls_layout_kind kind, int p)
{
    *saved = saved_of(t);
    *gradients = gradients_of(t);
    return (struct ls_judge_task){.shape = &shape,
                                  .options = &options,
                                  .q_layout = layout_of(kind, false, p),
                                  .k_layout = layout_of(kind, true, p),
                                  .result = saved,
                                  .gradients = gradients,
                                  .contract = LS_F32};
}

/* Collective over comm, which has p ranks. */
static struct ls_judgement judge(struct ls_tensor *t, ls_layout_kind kind, struct ls_comm *comm,
                                 int64_t rows)
{
    struct ls_attention_saved saved;
    struct ls_attention_gradients gradients;
    struct ls_judge_task task = task_of(&saved, &gradients, t, kind, ls_comm_size(comm));
    struct ls_judgement out = {.ok = false};

    task.rows = rows;
    MPI_CHECK_OK(ls_judge_attention(&out, comm, &task, NULL));
    return out;
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

static bool figures_agree(const struct ls_judgement *a, const struct ls_judgement *b)
{
    bool same = a->ok == b->ok && a->rows == b->rows && near(a->kappa, b->kappa) &&
                near(a->abs_lse, b->abs_lse) && near(a->rel_lse, b->rel_lse) &&
                near(a->lse_limit, b->lse_limit);

    for (int i = 0; i < LS_JUDGED_TENSORS; i++) {
        const struct ls_judged *x = &a->tensor[i], *y = &b->tensor[i];

        same &= x->judged && x->ok == y->ok && near(x->rel, y->rel) &&
                near(x->rel_limit, y->rel_limit) && near(x->max_units, y->max_units) &&
                memcmp(x->worst, y->worst, sizeof(x->worst)) == 0;
    }
    return same;
}

static const ls_layout_kind kinds[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG};

MPI_TEST(judge, a_right_result_passes_with_the_same_figures_on_any_number_of_ranks)
{
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    compute(self);
    const struct ls_judgement alone = judge(whole, LS_LAYOUT_CONTIGUOUS, self, 0);

    MPI_CHECK(alone.ok && !alone.failed, "%s: %s", alone.failed, alone.why);
    MPI_CHECK(alone.rows == B * H * S_Q && alone.has_lse, "%ld rows", (long)alone.rows);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct ls_layout q = layout_of(kinds[i], false, size);
        const struct ls_layout k = layout_of(kinds[i], true, size);

        for (int t = 0; t < TENSORS; t++) cut(t, is_of_keys(t) ? &k : &q);
        const struct ls_judgement all = judge(part, kinds[i], world, 0);

        MPI_CHECK(figures_agree(&all, &alone), "%s: rel %g %g %g %g %g %g, alone %g %g %g %g %g %g",
                  ls_layout_name(kinds[i]), all.tensor[0].rel, all.tensor[1].rel, all.tensor[2].rel,
                  all.tensor[3].rel, all.tensor[4].rel, all.tensor[6].rel, alone.tensor[0].rel,
                  alone.tensor[1].rel, alone.tensor[2].rel, alone.tensor[3].rel,
                  alone.tensor[4].rel, alone.tensor[6].rel);
        free_all(part);
    }
    free_all(whole);
    ls_comm_destroy(self);
}

MPI_TEST(judge, one_wrong_element_is_found)
{
    static const struct {
        int tensor, judged;
        const char *name;
    } cases[] = {{O, LS_JUDGED_O, "o"},
                 {LSE, -1, "lse"},
                 {DQ, LS_JUDGED_DQ, "dq"},
                 {DK, LS_JUDGED_DK, "dk"},
                 {DV, LS_JUDGED_DV, "dv"},
                 {DSINKS, LS_JUDGED_DSINKS, "dsinks"},
                 {DDISTANCE_BIAS, LS_JUDGED_DDISTANCE_BIAS, "ddistance_bias"},
                 {DBIAS, LS_JUDGED_DBIAS, "dbias"}};
    const struct ls_layout q = layout_of(LS_LAYOUT_CONTIGUOUS, false, size);
    const struct ls_layout k = layout_of(LS_LAYOUT_CONTIGUOUS, true, size);
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    compute(self);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* a last row is always judged */
        const int64_t last[] = {1, (is_of_keys(cases[i].tensor) ? S_K : S_Q) - 1, 1, 3};
        const int64_t of_head[] = {-1, -1, 1, 0};
        const int64_t of_distance[] = {-1, 576, 1, 20}, of_bias[] = {0, S_Q - 1, 1, S_K - 1};
        const int64_t *where = cases[i].tensor == DSINKS           ? of_head
                               : cases[i].tensor == DDISTANCE_BIAS ? of_distance
                               : cases[i].tensor == DBIAS          ? of_bias
                                                                   : last;
        const int64_t e = cases[i].tensor == LSE              ? 0
                          : cases[i].tensor == DDISTANCE_BIAS ? where[1] + where[3]
                                                              : where[3];
        float *element = at(&whole[cases[i].tensor], where[0], where[1], where[2], e);
        const float right = *element;

        *element += 0.01f;
        for (int t = 0; t < TENSORS; t++) cut(t, is_of_keys(t) ? &k : &q);
        *element = right;
        const struct ls_judgement v = judge(part, LS_LAYOUT_CONTIGUOUS, world, 8);

        free_all(part);
        MPI_CHECK(!v.ok && v.failed && strcmp(v.failed, cases[i].name) == 0 && v.why, "%s: %s",
                  cases[i].name, v.failed ? v.failed : "passed");
        if (cases[i].judged >= 0)
            MPI_CHECK(memcmp(v.tensor[cases[i].judged].worst, where, sizeof last) == 0,
                      "%s: worst is elsewhere", cases[i].name);
    }
    free_all(whole);
    ls_comm_destroy(self);
}

/* ---- what may be left out, and what may not */

struct told {
    int calls, ends;
    bool falls;
    int64_t done;
};

static void take(void *context, const char *phase, int64_t done, int64_t of)
{
    struct told *told = context;

    told->falls |= phase && (done < told->done || done > of);
    told->done = phase ? done : 0;
    told->calls += phase != NULL;
    told->ends += phase == NULL;
}

MPI_TEST(judge, some_rows_of_o_alone_are_judged)
{
    const struct ls_layout q = layout_of(LS_LAYOUT_CONTIGUOUS, false, size);
    const struct ls_layout k = layout_of(LS_LAYOUT_CONTIGUOUS, true, size);
    struct told told = {0};
    const struct ls_progress_callback callback = {.call = take, .context = &told};
    struct ls_judgement v;
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    compute(self);
    for (int t = 0; t < TENSORS; t++) cut(t, is_of_keys(t) ? &k : &q);
    const struct ls_attention_saved o = {
        .q = &part[Q], .k = &part[K], .v = &part[V], .o = &part[O]};
    const struct ls_judge_task task = {.shape = &shape,
                                       .options = &options,
                                       .q_layout = q,
                                       .k_layout = k,
                                       .result = &o,
                                       .contract = LS_F32,
                                       .rows = 32};

    MPI_CHECK_OK(ls_judge_attention(&v, world, &task, &callback));
    MPI_CHECK(v.ok && v.rows == B * H * 32 && !v.has_lse, "%ld rows", (long)v.rows);
    MPI_CHECK(v.tensor[LS_JUDGED_O].judged && !v.tensor[LS_JUDGED_DQ].judged, "of o alone");
    MPI_CHECK(told.calls == B * H && told.ends == 1 && !told.falls, "told %d times, %d ends",
              told.calls, told.ends);
    free_all(part);
    free_all(whole);
    ls_comm_destroy(self);
}

static const struct ls_attention_options without_sinks = LS_ATTENTION_OPTIONS;

/* A task in which something is wrong, on the last rank alone where that is possible. */
static void spoil(int what, struct ls_judge_task *task, struct ls_attention_saved *saved)
{
    const bool mine = rank == size - 1;

    if (what == 0) saved->lse = NULL;
    if (what == 1) saved->d_o = NULL;
    if (what == 2 && mine) part[O].dim[1]++;
    if (what == 3) task->rows = -1;
    if (what == 4) task->q_layout.p++;
    if (what == 5) task->contract = (ls_dtype)17;
    if (what == 6 && mine) part[LSE].type = LS_F64;
    if (what == 7) task->options = &without_sinks;
    if (what == 8 && mine) part[DSINKS].dim[0]--;
}

MPI_TEST(judge, a_task_that_is_none_is_refused_on_every_rank)
{
    static const struct {
        ls_status status;
        const char *word;
    } cases[] = {{LS_EVALUE, "lse is missing"},     {LS_EVALUE, "d_o is missing"},
                 {LS_ESHAPE, "o: dimension 1"},     {LS_EVALUE, "rows to judge are -1"},
                 {LS_ESHAPE, "layout of queries"},  {LS_EVALUE, "contract is 17"},
                 {LS_ETYPE, "lse is f64"},          {LS_EVALUE, "without sinks"},
                 {LS_ESHAPE, "dsinks: dimension 0"}};
    const struct ls_layout q = layout_of(LS_LAYOUT_CONTIGUOUS, false, size);
    const struct ls_layout k = layout_of(LS_LAYOUT_CONTIGUOUS, true, size);

    choose_options();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ls_attention_saved saved;
        struct ls_attention_gradients gradients;
        struct ls_judgement v;

        for (int t = 0; t < TENSORS; t++)
            part[t] = create(t, ls_layout_part_rows(is_of_keys(t) ? &k : &q, rank));
        struct ls_judge_task task = task_of(&saved, &gradients, part, LS_LAYOUT_CONTIGUOUS, size);

        spoil((int)i, &task, &saved);
        check_failure(ls_judge_attention(&v, world, &task, NULL), cases[i].status, cases[i].word,
                      cases[i].word);
        free_all(part);
    }
}

MPI_TEST(judge, ranks_that_hold_other_gradients_of_sinks_are_told)
{
    const struct ls_layout q = layout_of(LS_LAYOUT_CONTIGUOUS, false, size);
    const struct ls_layout k = layout_of(LS_LAYOUT_CONTIGUOUS, true, size);
    struct ls_attention_saved saved;
    struct ls_attention_gradients gradients;
    struct ls_judgement v;

    choose_options();
    for (int t = 0; t < TENSORS; t++)
        part[t] = create(t, ls_layout_part_rows(is_of_keys(t) ? &k : &q, rank));
    *at(&part[DSINKS], 0, 0, 2, 0) = size > 1 && rank == 1 ? 5 : 6;
    struct ls_judge_task task = task_of(&saved, &gradients, part, LS_LAYOUT_CONTIGUOUS, size);

    task.rows = 1;
    if (size > 1)
        check_failure(ls_judge_attention(&v, world, &task, NULL), LS_ESHAPE, "dsinks", "dsinks");
    free_all(part);
}
