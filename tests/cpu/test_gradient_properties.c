/* Properties of gradients that hold whatever computes them. */
#include "gradient_harness.h"

static size_t q_count(const struct meeting *m)
{
    return (size_t)(m->shape.b * m->shape.h * m->s_q_loc * m->shape.d);
}

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

/* Rows whose pairs do not have `query` and `key` in common keep their bits. */
static void expect_untouched(const struct meeting *m, const float *dq, const float *dk,
                             const float *dv, int64_t query, int64_t key, const char *what)
{
    const int64_t d = m->shape.d;

    for (int64_t i = 0; i < m->s_q_loc; i++) {
        if (i == query || (key >= 0 && meeting_sees(m, i, key))) continue;
        cr_expect_eq(memcmp(m->dq + i * d, dq + i * d, (size_t)d * sizeof *dq), 0,
                     "%s, %s: dq of row %ld", meeting_name(m), what, (long)i);
    }
    for (int64_t j = 0; j < m->s_k_loc; j++) {
        if (j == key || (query >= 0 && meeting_sees(m, query, j))) continue;
        /* a key's value is nothing to other keys, but NaN in a score is to delta's row */
        cr_expect_eq(memcmp(m->dv + j * d, dv + j * d, (size_t)d * sizeof *dv), 0,
                     "%s, %s: dv of row %ld", meeting_name(m), what, (long)j);
        cr_expect_eq(memcmp(m->dk + j * d, dk + j * d, (size_t)d * sizeof *dk), 0,
                     "%s, %s: dk of row %ld", meeting_name(m), what, (long)j);
    }
}

/* NaN or infinity in a row is nothing to those that have no pair with it. */
static void odd_numbers_stay_behind_the_mask(void)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY};
    struct meeting base = {.shape = {1, 1, 1, 300, 310, 20, LS_F32},
                           .mask = {.shift = -5, .left = 30, .right = 10, .prefix = 3}};

    for (int i = 0; i < 12; i++) {
        struct meeting m = base;
        const int64_t row = i % 2 ? 260 : 70;

        m.shape.type = i < 6 ? LS_F32 : LS_BF16;
        meeting_open(&m);
        meeting_run(&m);
        float *dq = copy(m.dq, q_count(&m)), *dk = copy(m.dk, k_count(&m));
        float *dv = copy(m.dv, k_count(&m));
        struct ls_tensor *poisoned[] = {&m.k, &m.v, &m.q, &m.d_o};
        struct ls_tensor *t = poisoned[i % 4];
        const bool of_keys = i % 4 < 2;

        fill_row(t, row, odd[i % 3]);
        meeting_run(&m);
        expect_untouched(&m, dq, dk, dv, of_keys ? -1 : row, of_keys ? row : -1,
                         i % 4 == 0   ? "k"
                         : i % 4 == 1 ? "v"
                         : i % 4 == 2 ? "q"
                                      : "d_o");
        cr_expect(!isfinite(i % 4 == 3 ? m.dv[row * 20]
                            : of_keys  ? m.dq[row * 20]
                                       : m.dk[row * 20]),
                  "%s: a pair that is seen hides it", meeting_name(&m));
        free(dq);
        free(dk);
        free(dv);
        meeting_close(&m);
    }
}

/* A row that sees nothing gives nothing and gets 0, whatever it holds. */
static void blind_rows_take_no_part(void)
{
    struct meeting m = {.shape = {1, 1, 1, 300, 100, 16, LS_F32}};

    m.mask = ls_mask_causal(300, 100); /* queries up to 199 see nothing */
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
    struct meeting m = {.shape = {1, 1, 1, S, S, D, LS_F32}, .mask = ls_mask_causal(S, S)};

    meeting_open(&m);
    for (int64_t i = 0; i < S; i++)
        for (int64_t e = 0; e < D; e++) store_at(&m.q, 0, i, 0, e, sin((double)e));
    meeting_forward(&m);
    for (int64_t i = 0; i < S; i++) m.delta[i] += 0.25F * sinf((float)(i * D));
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
    const struct ls_device device = cpu_device();
    struct problem p = {.shape = {1, 1, 1, S, S, D, LS_F32}, .options = {.causal = true}};
    struct meeting m = {.shape = {1, 1, 1, S, S, D, LS_F32}, .mask = ls_mask_causal(S, S)};
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
    ls_device_delta(&device, m.delta, &m.d_o, &p.o, NULL, &dlse, 2);
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
TEST_EACH_ISA(gradient_properties, odd_numbers_stay_behind_the_mask)
TEST_EACH_ISA(gradient_properties, blind_rows_take_no_part)
TEST_EACH_ISA(gradient_properties, sums_over_keys)
TEST_EACH_ISA(gradient_properties, forward_agrees)
