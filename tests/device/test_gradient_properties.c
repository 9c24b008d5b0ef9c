/* Properties of gradients that hold whatever computes them. */
#include "gradient_harness.h"

static size_t k_count(const struct meeting *m)
{
    return (size_t)(m->shape.b * m->shape.h * m->s_k_loc * m->shape.d);
}

static float *copy(const float *from, size_t n)
{
    return memcpy(room(n * sizeof *from), from, n * sizeof *from);
}

static void fill_row(struct ls_tensor *t, int64_t row, double value)
{
    for (int64_t head = 0; head < t->dim[2]; head++)
        for (int64_t e = 0; e < t->dim[3]; e++) store_at(t, 0, row, head, e, value);
}

/* What backward takes. */
enum { OF_K, OF_V, OF_Q, OF_D_O, OF_LSE, OF_DELTA, OPERANDS };

static const char *const operand_names[] = {"k", "v", "q", "d_o", "lse", "delta"};

/* Plants a number that is none; lse and delta are what forward then gives, if `forward`. */
static void plant(struct meeting *m, int operand, int64_t row, float value, bool forward)
{
    struct ls_tensor *const tensors[] = {&m->k, &m->v, &m->q, &m->d_o};

    if (operand < OF_LSE) fill_row(tensors[operand], row, (double)value);
    if (forward) meeting_forward(m);
    if (operand == OF_LSE) m->lse[row] = value;
    if (operand == OF_DELTA) m->delta[row] = value;
}

/* Whether query i is or sees the row. */
static bool meets(const struct meeting *m, int operand, int64_t row, int64_t i)
{
    return operand <= OF_V ? meeting_sees(m, 0, i, row) : i == row;
}

/* Queries that do not meet the row keep the bits of their dq, and keys that none of those see which
 * do, theirs. */
static void expect_untouched(const struct meeting *m, const struct meeting *before, int operand,
                             int64_t row, const char *what)
{
    const size_t d = (size_t)m->shape.d, bytes = d * sizeof *m->dq;
    const size_t d_v = (size_t)ls_value_dim(&m->shape);
    bool *touched = calloc((size_t)m->s_k_loc, sizeof *touched);

    for (int64_t i = 0; i < m->s_q_loc; i++) {
        const bool met = meets(m, operand, row, i);

        for (int64_t j = 0; j < m->s_k_loc; j++) touched[j] |= met && meeting_sees(m, 0, i, j);
        cr_expect(met || memcmp(m->dq + (size_t)i * d, before->dq + (size_t)i * d, bytes) == 0,
                  "%s, %s: dq of row %ld", meeting_name(m), what, (long)i);
    }
    for (int64_t j = 0; j < m->s_k_loc; j++) {
        const size_t at = (size_t)j * d;

        if (touched[j]) continue;
        cr_expect_eq(memcmp(m->dk + at, before->dk + at, bytes), 0, "%s, %s: dk of row %ld",
                     meeting_name(m), what, (long)j);
        cr_expect_eq(
            memcmp(m->dv + (size_t)j * d_v, before->dv + (size_t)j * d_v, d_v * sizeof *m->dv), 0,
            "%s, %s: dv of row %ld", meeting_name(m), what, (long)j);
    }
    free(touched);
}

/* A pair that is seen hides nothing. */
static void expect_odd(const struct meeting *m, int operand, int64_t row, const char *what)
{
    const float *const odd[] = {m->dq, m->dq, m->dk, m->dv, m->dv, m->dk};
    const int64_t d = odd[operand] == m->dv ? ls_value_dim(&m->shape) : m->shape.d;

    cr_expect_not(isfinite(odd[operand][row * d]), "%s, %s", meeting_name(m), what);
}

static void plant_in_each_operand(const struct meeting *base, int number)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    struct meeting before = *base;

    meeting_open(&before);
    meeting_run(&before);
    for (int i = 0; i < 2 * OPERANDS; i++) {
        const int operand = i % OPERANDS;
        const bool forward = i < OPERANDS;
        const float value = values[(i + number) % 3];
        const int64_t row = (i + number) % 2 ? 260 : 70;
        struct meeting m = *base;
        char what[64];

        snprintf(what, sizeof what, "%s of row %ld is %g %s forward", operand_names[operand],
                 (long)row, (double)value, forward ? "before" : "after");
        meeting_open(&m);
        plant(&m, operand, row, value, forward);
        meeting_run(&m);
        expect_untouched(&m, &before, operand, row, what);
        if (isnan(value) || operand != OF_LSE) expect_odd(&m, operand, row, what);
        meeting_close(&m);
    }
    meeting_close(&before);
}

/* NaN or infinity in a row is nothing to those that have no pair with it. */
static void odd_numbers_stay_behind_the_mask(void)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};
    static const int64_t documents[] = {0, 90, 130, 310};
    const struct ls_mask_rule rules[] = {
        {.shift = -5, .left = 30, .right = 10, .prefix = 3},
        {.shift = 10, .left = INT64_MAX},
        {.left = INT64_MAX, .documents = documents, .document_count = 3},
    };

    for (int i = 0; i < LENGTH(types) * LENGTH(rules); i++) {
        const struct meeting m = {
            .shape = {1, 1, 1, 300, 310, 20, types[i / LENGTH(rules)], i % 2 ? 13 : 27},
            .rule = rules[i % LENGTH(rules)]};

        plant_in_each_operand(&m, i);
    }
}

/* A row that sees nothing gives nothing and gets 0, whatever it holds. */
static void blind_rows_take_no_part(void)
{
    struct meeting m = {.shape = {1, 1, 1, 300, 100, 16, LS_F32, 0}};

    m.rule = causal_rule(300, 100); /* queries up to 199 see nothing */
    meeting_open(&m);
    meeting_run(&m);
    float *dk = copy(m.dk, k_count(&m)), *dv = copy(m.dv, k_count(&m));
    for (int64_t i = 0; i < 200; i++) {
        cr_assert_eq(m.lse[i], -INFINITY);
        m.delta[i] = NAN;
        fill_row(&m.q, i, NAN);
        fill_row(&m.d_o, i, INFINITY);
    }
    meeting_run(&m);
    for (int64_t i = 0; i < 200 * 16; i++) cr_assert_eq(m.dq[i], 0, "dq %ld", (long)i);
    cr_expect_eq(memcmp(m.dk, dk, k_count(&m) * sizeof *dk), 0);
    cr_expect_eq(memcmp(m.dv, dv, k_count(&m) * sizeof *dv), 0);
    free(dk);
    free(dv);
    meeting_close(&m);
}

/* sum_j dv_j = sum_i d_o_i over rows that see a key; and, without a gradient of lse and all queries
 * alike, sum_j dk_j = 0. */
static void sums_over_keys(void)
{
    enum { D = 24, S = 700 };
    struct meeting m = {.shape = {1, 1, 1, S, S, D, LS_F32, 0}, .rule = causal_rule(S, S)};

    meeting_open(&m);
    for (int64_t i = 0; i < S; i++)
        for (int64_t e = 0; e < D; e++) store_at(&m.q, 0, i, 0, e, sin((double)e));
    meeting_forward(&m);
    for (int64_t i = 0; i < S; i++) m.delta[i] += 0.25F * sinf((float)i);
    meeting_run(&m);
    for (int64_t e = 0; e < D; e++) {
        double dv = 0, dk = 0, d_o = 0, size = 0;

        for (int64_t j = 0; j < S; j++) {
            dk += (double)m.dk[j * D + e];
            size += fabs((double)m.dk[j * D + e]);
            dv += (double)m.dv[j * D + e];
            d_o += load_at(&m.d_o, 0, j, 0, e);
        }
        cr_expect_lt(fabs(dk), 1e-5 * size + 1e-6, "dk %ld: %g of %g", (long)e, dk, size);
        cr_expect_lt(fabs(dv - d_o), 1e-4, "dv %ld: %g, %g", (long)e, dv, d_o);
    }
    meeting_close(&m);
}

static double loss(struct problem *p, const struct ls_tensor *d_o, double dlse)
{
    double sum = 0;

    problem_run(p);
    for (int64_t i = 0; i < elements(&p->o); i++)
        sum += (double)((float *)p->o.data)[i] * (double)((float *)d_o->data)[i];
    for (int64_t i = 0; i < elements(&p->lse); i++) sum += dlse * (double)((float *)p->lse.data)[i];
    return sum;
}

/* What forward says when an element of q, k or v moves a little, in f32. */
static void forward_agrees(void)
{
    enum { S = 290, D = 8 };
    struct problem p = {.shape = {1, 1, 1, S, S, D, LS_F32, 0}, .options = {.causal = true}};
    struct meeting m = {.shape = {1, 1, 1, S, S, D, LS_F32, 0}, .rule = causal_rule(S, S)};
    const float step = 0x1p-5F;
    float slope[S];
    struct ls_tensor dlse = ls_tensor_view(slope, LS_F32, 3, (const int64_t[]){1, 1, S});

    problem_open(&p);
    meeting_open(&m);
    for (int i = 0; i < S; i++) slope[i] = 0.5F;
    memcpy(m.q.data, p.q.data, tensor_bytes(&p.q));
    memcpy(m.k.data, p.k.data, tensor_bytes(&p.k));
    memcpy(m.v.data, p.v.data, tensor_bytes(&p.v));
    problem_run(&p);
    memcpy(m.lse, p.lse.data, tensor_bytes(&p.lse));
    run_delta(m.delta, 2, &m.d_o, &p.o, NULL, &dlse);
    meeting_run(&m);
    for (int i = 0; i < 6; i++) {
        struct ls_tensor *moved = i % 3 == 0 ? &p.q : i % 3 == 1 ? &p.k : &p.v;
        const float *got = i % 3 == 0 ? m.dq : i % 3 == 1 ? m.dk : m.dv;
        const int64_t at = i < 3 ? 37 : 260 * D + 3;
        float *x = (float *)moved->data + at, was = *x;

        *x = was + step;
        const double above = loss(&p, &m.d_o, 0.5);
        *x = was - step;
        const double below = loss(&p, &m.d_o, 0.5);
        *x = was;
        const double difference = (above - below) / (2 * (double)step);
        cr_expect_lt(fabs(difference - (double)got[at]), 2e-3 * (1 + fabs(difference)),
                     "%d: %g, difference %g", i, (double)got[at], difference);
    }
    meeting_close(&m);
    problem_close(&p);
}

TestSuite(gradient_properties, .timeout = 600);
TEST_EACH_VARIANT(gradient_properties, odd_numbers_stay_behind_the_mask)
TEST_EACH_VARIANT(gradient_properties, blind_rows_take_no_part)
TEST_EACH_VARIANT(gradient_properties, sums_over_keys)
TEST_EACH_VARIANT(gradient_properties, forward_agrees)
