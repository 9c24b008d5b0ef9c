/* Gradients of biases of pairs against sums in double, for every mask and score, and whatever
 * queries and keys a call brings. */
#include "device/bias_gradient.h"
#include "gradient_harness.h"

enum { MOST_RUNS = 64 };

static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

static float biases[2 * 4 * 300 * 560]; /* drawn */

/* What a call gives, and how its queries are cut: runs end at multiples of this, and of a leaf. */
struct back {
    struct meeting m;
    int64_t cut;
    struct ls_tensor dbias;
};

static int list_runs(struct ls_row_run *run, const struct back *p)
{
    int count = 0;

    for (int64_t row = 0, n; row < p->m.s_q_loc; row += n) {
        const int64_t position = position_of(&p->m.q_leaves, row);

        for (n = 1; row + n < p->m.s_q_loc && row / LS_LEAF == (row + n) / LS_LEAF &&
                    (position + n) % p->cut != 0;)
            n++;
        cr_assert_lt(count, MOST_RUNS);
        run[count++] = (struct ls_row_run){.row = row, .count = n, .position = position};
    }
    return count;
}

static void open_back(struct back *p, bool entries, bool heads)
{
    struct meeting *m = &p->m;
    const struct ls_attention_shape *s = &m->shape;
    const int64_t matrix = s->s_q * s->s_k, all = m->scores.heads ? m->scores.heads : s->h;

    need_family(open_device(1)->ops->bias_gradient, "gradients of biases");
    cr_assert_leq((entries ? s->b : 1) * (heads ? all : 1) * matrix, LENGTH(biases));
    ls_random_normal(biases, 8, 1, 0, LENGTH(biases));
    m->scores.bias = biases;
    m->scores.bias_keys = s->s_k;
    m->scores.bias_entry = entries ? (heads ? all : 1) * matrix : 0;
    m->scores.bias_head = heads ? matrix : 0;
    meeting_open(m);
    if (p->cut == 0) p->cut = LS_LEAF;
    p->dbias =
        ls_tensor_view(NULL, LS_F32, 4,
                       (const int64_t[]){entries ? s->b : 1, heads ? s->h : 1, m->s_q_loc, s->s_k});
    p->dbias.data = room(tensor_bytes(&p->dbias));
}

static void close_back(struct back *p)
{
    free(p->dbias.data);
    meeting_close(&p->m);
}

static void run_back(struct back *p)
{
    struct meeting *m = &p->m;
    struct ls_device *device = open_device(m->threads);
    struct mirror mirror = {.device = device};
    const int64_t dim[] = {m->shape.b, m->shape.h, m->s_q_loc};
    const struct ls_tensor lse = ls_tensor_view(m->lse, LS_F32, 3, dim),
                           delta = ls_tensor_view(m->delta, LS_F32, 3, dim);
    struct ls_row_run run[MOST_RUNS];
    struct ls_tensor there[7];
    struct ls_bias_gradient_kernel *kernel;
    struct ls_kernel_shape shape = meeting_shape(m).attention;

    shape.scores.bias =
        mirror_operand(&mirror, biases, sizeof biases); /* of memory that the device reads */
    const struct ls_bias_gradient_call call = {.dbias =
                                                   mirror_output(&there[0], &mirror, &p->dbias),
                                               .q = mirror_input(&there[1], &mirror, &m->q),
                                               .d_o = mirror_input(&there[2], &mirror, &m->d_o),
                                               .k = mirror_input(&there[3], &mirror, &m->k),
                                               .v = mirror_input(&there[4], &mirror, &m->v),
                                               .lse = mirror_input(&there[5], &mirror, &lse),
                                               .delta = mirror_input(&there[6], &mirror, &delta),
                                               .runs = run,
                                               .run_count = list_runs(run, p),
                                               .k_leaves = m->k_leaves};

    cr_assert_eq(ls_bias_gradient_kernel_create(&kernel, device, shape), LS_OK, "%s", ls_message());
    ls_bias_gradient(&device->queue, kernel, &call);
    cr_assert_eq(ls_queue_finish(NULL, &device->queue), LS_OK, "%s", ls_message());
    ls_bias_gradient_kernel_destroy(device, kernel);
    mirror_read_back(&mirror);
}

/* The sum over all who share the bias of query row i and key row j, and what it may err by. */
static double exact_bias(double *bound, const struct back *p, const struct wide *wide,
                         int64_t entry, int64_t head, int64_t i, int64_t j)
{
    const struct meeting *m = &p->m;
    const struct ls_attention_shape *s = &m->shape;
    const int64_t entries = p->dbias.dim[0] == s->b ? 1 : s->b;
    const int64_t heads = p->dbias.dim[1] == s->h ? 1 : s->h;
    double sum = 0;

    *bound = 0x1p-126;
    for (int64_t n = 0; n < entries * heads; n++) {
        const int64_t b = entry + n / heads, h = head + n % heads;

        if (!meeting_sees(m, b, i, j) || m->lse[query_at(m, b, h, i)] == -INFINITY) continue;
        const struct exact_pair pair = exact_pair(m, wide, b, h, i, j);

        sum += pair.dlogit;
        *bound += pair.dlogit_bound;
    }
    return sum;
}

/* Rows that are not the call's leaves of keys stay as they are. */
static void expect_exact_biases(const struct back *p)
{
    const struct meeting *m = &p->m;
    struct wide wide = wide_open(m);
    const float *got = p->dbias.data;

    for (int64_t n = 0; n < p->dbias.dim[0] * p->dbias.dim[1] * m->s_q_loc;
         n++, got += m->shape.s_k) {
        const int64_t matrix = n / m->s_q_loc;

        for (int64_t j = 0; j < m->s_k_loc; j++) {
            const int64_t key = position_of(&m->k_leaves, j);
            double bound;
            const double exact = exact_bias(&bound, p, &wide, matrix / p->dbias.dim[1],
                                            matrix % p->dbias.dim[1], n % m->s_q_loc, j);

            cr_assert(fabs((double)got[key] - exact) <= bound,
                      "%s: entry and head %ld row %ld key %ld: %g, not %g, allowed %g",
                      meeting_name(m), (long)matrix, (long)(n % m->s_q_loc), (long)key,
                      (double)got[key], exact, bound);
        }
    }
    wide_close(&wide);
}

static void run_case(struct back p, bool entries, bool heads)
{
    open_back(&p, entries, heads);
    run_back(&p);
    expect_exact_biases(&p);
    close_back(&p);
}

static void scores_are_exact(void)
{
    static const float slopes[] = {0.5F, 0.0F, 0.0625F, 1.0F};
    static const float distances[] = {0.5F, -1, 2, 0, 3, 1, -1, 0, 0.5F, 0.25F, -2, 1};
    const struct ls_scores scores[] = {
        {.soft_cap = 2},
        {.alibi = slopes, .scale = -0.3F},
        {.dropout = 0.3F, .seed = 7},
        {.distance_bias = distances, .distances = 3, .heads = 4, .first_head = 2},
        {.soft_cap = 5, .alibi = slopes, .dropout = 0.1F, .seed = 9, .heads = 4, .first_head = 1},
    };

    for (int i = 0; i < LENGTH(scores) * LENGTH(types); i++) {
        struct back p = {.m = {.shape = {2, 2, 1, 270, 260, 9, types[i % 3], 14},
                               .scores = scores[i / 3],
                               .threads = 1 + i % 2}};

        p.m.rule = i % 2 ? causal_rule(270, 260) : ls_mask_rule_full(270, 260);
        run_case(p, i & 1, i & 2);
    }
}

static void masks_are_exact(void)
{
    for (int i = 0; i < 12; i++)
        run_case((struct back){.m = {.shape = {1 + i % 2, 4, 2, 300 - i, 560 - 9 * i, 5 + i,
                                               types[i % 3], 0},
                                     .bands_by = 1 + (uint64_t)i,
                                     .threads = 1 + i % 3},
                               .cut = i % 4 == 0 ? 37 : LS_LEAF},
                 i & 1, i & 2);
}

/* A rank's leaves are not neighbours. */
static void shares_are_exact(void)
{
    for (int i = 0; i < 4; i++)
        run_case((struct back){.m = {.shape = {1, 1, 1, 790, 1100, 3, types[i % 3], 0},
                                     .rule = {.left = i == 0 ? 300 : INT64_MAX, .right = 0},
                                     .q_share = {2, i % 2},
                                     .k_share = {2, i / 2}}},
                 false, false);
}

/* A row has the same bits wherever it is cut from others, and however many threads there are. */
static void bits_do_not_depend_on_cuts(void)
{
    for (int i = 0; i < 3; i++) {
        struct back whole = {.m = {.shape = {2, 2, 2, 300, 270, 40, types[i], 0}, .threads = 1}},
                    cut = whole;

        whole.m.rule = cut.m.rule = causal_rule(300, 270);
        cut.cut = 11;
        cut.m.threads = 3;
        open_back(&whole, false, true);
        open_back(&cut, false, true);
        run_back(&whole);
        run_back(&cut);
        cr_assert_arr_eq(whole.dbias.data, cut.dbias.data, tensor_bytes(&whole.dbias), "%s",
                         ls_dtype_name(types[i]));
        close_back(&whole);
        close_back(&cut);
    }
}

/* What somebody does not see does not reach his pairs; those that nobody sees are 0. */
static void what_is_not_seen_does_not_matter(void)
{
    for (int i = 0; i < 3; i++) {
        struct back p = {.m = {.shape = {1, 2, 1, 300, 310, 6, types[i], 0}}};

        p.m.rule = (struct ls_mask_rule){.shift = 0, .left = 50, .right = 0};
        open_back(&p, false, false);
        for (int64_t j = 0; j < 310; j++)
            for (int64_t e = 0; j % 100 == 7 && e < 6; e++) {
                store_at(&p.m.k, 0, j, 0, e, NAN);
                store_at(&p.m.v, 0, j, 0, e, e % 2 ? NAN : INFINITY);
            }
        run_back(&p);
        for (int64_t row = 0; row < 300; row++)
            for (int64_t j = 0; j < 310; j++) {
                const float got = ((const float *)p.dbias.data)[row * 310 + j];

                if (j > row || j < row - 50)
                    cr_assert_eq(got, 0, "row %ld key %ld: %g", (long)row, (long)j, (double)got);
                else
                    cr_assert_eq(isnan(got), j % 100 == 7, "row %ld key %ld: %g", (long)row,
                                 (long)j, (double)got);
            }
        close_back(&p);
    }
}

TestSuite(bias_gradient, .timeout = 600);
TEST_EACH_VARIANT(bias_gradient, scores_are_exact)
TEST_EACH_VARIANT(bias_gradient, masks_are_exact)
TEST_EACH_VARIANT(bias_gradient, shares_are_exact)
TEST_EACH_VARIANT(bias_gradient, bits_do_not_depend_on_cuts)
TEST_EACH_VARIANT(bias_gradient, what_is_not_seen_does_not_matter)
