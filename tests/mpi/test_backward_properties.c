/* Properties of gradients that hold whatever they are, for every method: they find mistakes in
 * delta, lse and masks without an oracle. And what the residual of o and a sink's gradient are for.
 */
#include "gradients.h"

MPI_SUITE(backward_properties)

/* Every method that can do it runs the job; check judges each. */
static void each_method(struct descent *g, void (*check)(const struct descent *g))
{
    for (int m = 0; m < ls_method_count(); m++) {
        struct descent one = *g;

        if (!descent_take_method(&one, m)) continue;
        descent_create_plan(&one, world);
        descent_run(&one);
        check(&one);
        descent_destroy_plan(&one);
    }
}

static struct descent new_descent(ls_dtype type, int64_t h_kv, bool causal)
{
    struct descent g = {
        .job = {.shape = {1, 4, h_kv, 900, 900, 32, type, 0}, .options = LS_ATTENTION_OPTIONS},
        .residual = true};

    g.job.options.causal = causal;
    g.job.options.threads = 1;
    return g;
}

/* Sums over all rows of all ranks of a tensor of this rank's rows, by element of each head. */
static void sum_rows(double sums[4][32], const struct descent *g, const struct ls_tensor *t)
{
    memset(sums, 0, 4 * 32 * sizeof sums[0][0]);
    for (int64_t i = 0; i < t->dim[1]; i++)
        for (int64_t h = 0; h < t->dim[2]; h++)
            for (int64_t e = 0; e < t->dim[3]; e++)
                sums[h][e] +=
                    ls_dtype_load(t->type, (char *)row_of(t, 0, i, h) + e * ls_dtype_size(t->type));
    MPI_CHECK_OK(ls_comm_reduce(sums[0], g->job.comm, 4 * 32, LS_REDUCE_SUM));
}

/* Probabilities of a row are 1 together, so that what comes in goes out. */
static void dv_is_d_o_together(const struct descent *g)
{
    double dv[4][32], d_o[4][32];

    sum_rows(dv, g, &g->gradient[DV]);
    sum_rows(d_o, g, &g->d_o);
    for (int h = 0; h < 2; h++)
        for (int e = 0; e < 32; e++)
            MPI_CHECK(fabs(dv[h][e] - d_o[2 * h][e] - d_o[2 * h + 1][e]) < 1e-3,
                      "%s: head %d, element %d: %g", job_text(&g->job), h, e, dv[h][e]);
}

MPI_TEST(backward_properties, dv_of_all_keys_is_d_o_of_all_queries)
{
    struct descent g = new_descent(LS_F32, 2, true);

    descent_create_whole(&g, 3);
    each_method(&g, dv_is_d_o_together);
    descent_destroy_whole(&g);
}

/* A shift of all keys changes no probability. */
static void dk_is_nothing_together(const struct descent *g)
{
    double dk[4][32];

    sum_rows(dk, g, &g->gradient[DK]);
    for (int h = 0; h < 4; h++)
        for (int e = 0; e < 32; e++)
            MPI_CHECK(fabs(dk[h][e]) < 1e-3, "%s: head %d, element %d: %g", job_text(&g->job), h, e,
                      dk[h][e]);
}

MPI_TEST(backward_properties, dk_of_all_keys_is_nothing_if_queries_are_alike)
{
    struct descent g = new_descent(LS_F32, 4, true);
    const struct ls_tensor *q = &g.job.whole[0];

    descent_create_whole(&g, 4);
    for (int64_t i = 1; i < q->dim[1]; i++)
        memcpy(row_of(q, 0, i, 0), row_of(q, 0, 0, 0), (size_t)q->stride[1] * sizeof(float));
    each_method(&g, dk_is_nothing_together);
    descent_destroy_whole(&g);
}

static void keeps_the_contract(const struct descent *g)
{
    descent_check(g, "keys that nobody sees are no numbers");
}

/* Nobody sees the last keys: whatever they hold, their gradients are 0 and the others the same. */
MPI_TEST(backward_properties, masked_keys_change_nothing)
{
    struct descent g = new_descent(LS_F32, 2, true);

    g.job.options.align_start = true;
    g.job.shape.s_q = 640;
    descent_create_whole(&g, 5);
    descent_solve(&g);
    for (int64_t i = 640; i < 900; i++)
        for (int t = 1; t < 3; t++)
            memset(row_of(&g.job.whole[t], 0, i, 0), 0xff,
                   (size_t)g.job.whole[t].stride[1] * sizeof(float));
    each_method(&g, keeps_the_contract);
    descent_destroy_whole(&g);
}

/* ---- what is no number stays in its document */

enum { OF_Q, OF_K, OF_V, OF_D_O, OF_O, OF_LSE, OF_DLSE, OPERANDS };

/* Both sides of where the second of two documents begins, in one leaf. */
static const int64_t two_documents[] = {0, 400, 900}, odd_row[] = {390, 410};

/* NaN in all heads of one row, by the rank that has it. */
static void plant_nan(const struct descent *g, int operand, int64_t position)
{
    const struct ls_tensor *const rows[] = {&g->job.part[0], &g->job.part[1], &g->job.part[2],
                                            &g->d_o, &g->job.o};
    const struct ls_tensor *const numbers[] = {&g->job.lse, &g->dlse};
    const int which = operand == OF_K || operand == OF_V;

    for (int64_t i = 0; i < g->job.part[which].dim[1]; i++) {
        if (job_position(&g->job, which, i) != position) continue;
        for (int64_t h = 0; h < g->job.part[which].dim[2]; h++)
            if (operand < OF_LSE)
                memset(row_of(rows[operand], 0, i, h), 0xff, row_bytes(rows[operand]));
            else
                lse_of(numbers[operand - OF_LSE], 0, h)[i] = NAN;
    }
}

static void run_with_nan(struct descent *g, int operand, int64_t position)
{
    descent_load(g);
    if (operand != OF_O && operand != OF_LSE) plant_nan(g, operand, position);
    MPI_CHECK_OK(descent_forward(g));
    plant_nan(g, operand, position);
    MPI_CHECK_OK(descent_backward(g));
}

static bool second(int64_t position)
{
    return position >= two_documents[1];
}

/* Whether this rank's gradients are those of `before`, in one of the documents. */
static bool document_is_untouched(const struct descent *g, const struct ls_tensor before[GRADIENTS],
                                  bool of_second)
{
    for (int which = 0; which < GRADIENTS; which++) {
        const struct ls_tensor *t = &g->gradient[which];

        for (int64_t i = 0; i < t->dim[1]; i++)
            for (int64_t h = 0; h < t->dim[2]; h++)
                if (second(job_position(&g->job, which, i)) == of_second &&
                    memcmp(row_of(t, 0, i, h), row_of(&before[which], 0, i, h), row_bytes(t)) != 0)
                    return false;
    }
    return true;
}

static void nan_stays_in_its_document(const struct descent *g)
{
    static const char *const names[] = {"q", "k", "v", "d_o", "o", "lse", "dlse"};
    struct descent odd = *g;

    for (int t = 0; t < GRADIENTS; t++)
        tensor_create(&odd.gradient[t], g->job.shape.type, g->gradient[t].dim, false);
    for (int i = 0; i < 2 * OPERANDS; i++) {
        const int64_t position = odd_row[i / OPERANDS];

        run_with_nan(&odd, i % OPERANDS, position);
        MPI_CHECK(document_is_untouched(&odd, g->gradient, !second(position)),
                  "%s: row %ld of %s is NaN", job_text(&g->job), (long)position,
                  names[i % OPERANDS]);
    }
    for (int t = 0; t < GRADIENTS; t++) free(odd.gradient[t].data);
}

MPI_TEST(backward_properties, nan_of_another_document_changes_no_bit)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

    for (int i = 0; i < 3; i++) {
        struct descent g = new_descent(types[i], 2, true);

        g.job.options.documents = two_documents;
        g.job.options.document_count = 2;
        descent_create_whole(&g, 9);
        descent_draw_dlse(&g, 9);
        each_method(&g, nan_stays_in_its_document);
        descent_destroy_whole(&g);
    }
}

static double error_without;

static void keep_error(const struct descent *g)
{
    error_without = descent_error(g, DQ);
}

static void errs_less(const struct descent *g)
{
    const double error = descent_error(g, DQ);

    MPI_CHECK(error <= gradient_limit(LS_BF16) && error < 0.8 * error_without,
              "%s: dq errs by %.3g, without the residual of o by %.3g", job_text(&g->job), error,
              error_without);
}

/* Large logits, then values that have a mean: delta takes what rounding left of o. Probabilities
 * stay f32, so that there is nothing else that rounds o. */
MPI_SUITE_APART(backward_properties_generic);

Test(backward_properties_generic, the_residual_of_o_makes_dq_better)
{
    setenv("LONGSPAN_ISA", "generic", 1);
    for (int i = 0; i < 2; i++) {
        struct descent g = new_descent(LS_BF16, 2, false);

        descent_create_whole(&g, 6);
        job_transform(&g.job, i == 0 ? 0 : 2, i == 0 ? 32 : 1, i == 0 ? 0 : 2);
        descent_solve(&g);
        g.residual = false;
        each_method(&g, keep_error);
        g.residual = true;
        each_method(&g, errs_less);
        descent_destroy_whole(&g);
    }
}

/* A key takes nearly all of most rows: what rounding made of its probability would be in delta. */
MPI_TEST(backward_properties, large_logits_keep_the_contract)
{
    struct descent g = new_descent(LS_BF16, 2, false);

    g.residual = true;
    descent_create_whole(&g, 6);
    job_transform(&g.job, 0, 32, 0);
    descent_solve(&g);
    each_method(&g, keeps_the_contract);
    descent_destroy_whole(&g);
}

static void sinks_keep_the_contract(const struct descent *g)
{
    for (int h = 0; h < 4; h++)
        MPI_CHECK(fabs(g->dsinks[h] - g->exact_dsinks[h]) <= 1e-5 * (1 + fabs(g->exact_dsinks[h])),
                  "%s: head %d: %.8g, exact %.8g", job_text(&g->job), h, (double)g->dsinks[h],
                  g->exact_dsinks[h]);
    descent_check(g, "sinks");
}

/* One sink takes nearly all, one next to nothing. */
MPI_TEST(backward_properties, sinks_have_gradients)
{
    static const float sinks[] = {0.5f, 9, -20, 3};
    struct descent g = new_descent(LS_F32, 2, true);

    g.job.options.sinks = sinks;
    descent_create_whole(&g, 7);
    descent_draw_dlse(&g, 7);
    descent_solve(&g);
    each_method(&g, sinks_keep_the_contract);
    descent_destroy_whole(&g);
}

/* What is dropped follows from the seed and global positions: o, too, is the same for any method.
 */
static struct ls_tensor one_rank_o;

static void drops_the_same(const struct descent *g)
{
    double worst = 0;

    for (int64_t i = 0; i < g->job.o.dim[1]; i++) {
        const float *o = row_of(&g->job.o, 0, i, 0);
        const float *expected = row_of(&one_rank_o, 0, job_position(&g->job, 0, i), 0);

        for (int64_t e = 0; e < 4 * 32; e++) worst = fmax(worst, fabs((double)o[e] - expected[e]));
    }
    MPI_CHECK(worst < 1e-5, "%s: o differs by %g", job_text(&g->job), worst);
}

MPI_TEST(backward_properties, dropout_is_the_same_for_every_method)
{
    struct descent g = new_descent(LS_F32, 2, true), alone;
    struct ls_comm *self;

    g.job.options.dropout = 0.25f;
    g.job.options.dropout_seed = 11;
    descent_create_whole(&g, 8);
    alone = g;
    alone.job.options.method = "local";
    MPI_CHECK_OK(ls_comm_create_self(&self));
    descent_create_plan(&alone, self);
    descent_run(&alone);
    one_rank_o = alone.job.o;
    each_method(&g, drops_the_same);
    descent_destroy_plan(&alone);
    ls_comm_destroy(self);
    descent_destroy_whole(&g);
}
