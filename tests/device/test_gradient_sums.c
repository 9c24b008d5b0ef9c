/* delta, sums of partial gradients, and the order in which they are added. */
#include <fenv.h>

#include "gradient_harness.h"

/* The operations on memory of the host. */
static void finish(struct mirror *m)
{
    cr_assert_eq(ls_queue_finish(NULL, &m->device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(m);
}

static struct mirror begin(int threads)
{
    struct mirror m = {.device = open_device(threads)};

    need_family(m.device->ops->rows, "rows");
    return m;
}

static void run_add(float *into, int threads, const float *from, int64_t n)
{
    const size_t bytes = (size_t)n * sizeof *into;
    struct mirror m = begin(threads);

    ls_add(&m.device->queue, mirror_result(&m, into, bytes), mirror_operand(&m, from, bytes), n);
    finish(&m);
}

static void run_round_sums(struct ls_tensor *out, int threads, const float *a, const float *b,
                           int64_t group)
{
    const size_t bytes = (size_t)(elements(out) * group) * sizeof *a;
    struct mirror m = begin(threads);
    struct ls_tensor there;

    ls_round_sums(&m.device->queue, mirror_output(&there, &m, out), mirror_operand(&m, a, bytes),
                  mirror_operand(&m, b, bytes), group);
    finish(&m);
}

/* out and sinks are the host's. */
static void run_sink_sums(double *out, int threads, const float *sinks, struct ls_sink_rows rows)
{
    const size_t bytes = (size_t)(rows.b * rows.h * rows.s) * sizeof *rows.lse;
    struct mirror m = begin(threads);

    rows.lse = mirror_operand(&m, rows.lse, bytes);
    rows.delta = mirror_operand(&m, rows.delta, bytes);
    ls_sink_sums(&m.device->queue, out, sinks, &rows);
    finish(&m);
}

static void delta_equals_double(void)
{
    enum { B = 2, S = 5, H = 3, D = 40 };
    struct ls_tensor t[3],
        dlse = ls_tensor_view(room(B * H * S * 4), LS_F32, 3, (const int64_t[]){B, H, S});
    float delta[B * H * S];

    for (int type = LS_F32; type <= LS_F16; type++) {
        for (int i = 0; i < 3; i++) {
            t[i] = tensor_over(NULL, (ls_dtype)type, B, S, H, D, i == 1);
            t[i].data = room(tensor_bytes(&t[i]));
            fill_normal(&t[i], (uint32_t)i, i == 2 ? 1e-3F : 1);
        }
        fill_normal(&dlse, 9, 1);
        for (int with = 0; with < 4; with++) {
            run_delta(delta, 1 + with, &t[0], &t[1], with & 1 ? &t[2] : NULL,
                      with & 2 ? &dlse : NULL);
            for (int i = 0; i < B * H * S; i++) {
                const int64_t b = i / (H * S), h = i / S % H, s = i % S;
                double exact = with & 2 ? -(double)((float *)dlse.data)[i] : 0;

                for (int64_t e = 0; e < D; e++)
                    exact +=
                        load_at(&t[0], b, s, h, e) *
                        (load_at(&t[1], b, s, h, e) + (with & 1 ? load_at(&t[2], b, s, h, e) : 0));
                cr_expect_float_eq(delta[i], exact, 1e-6 * (1 + fabs(exact)), "%d %d %d", type,
                                   with, i);
            }
        }
        for (int i = 0; i < 3; i++) free(t[i].data);
    }
    free(dlse.data);
}

static void sums_are_added(void)
{
    enum { N = 9001 };
    static float into[N + 1], from[N];

    for (int i = 0; i < N; i++) {
        into[i] = (float)i;
        from[i] = 0.5F;
    }
    run_add(into, 3, from, N);
    for (int i = 0; i < N; i++) cr_assert_eq(into[i], (float)i + 0.5F);
    cr_expect_eq(into[N], 0);
}

/* Numbers for which each order of adding gives another sum. */
static float summand(int64_t head, int64_t row, int64_t e)
{
    float x;

    ls_random_normal(&x, 3, 0, (uint64_t)((head * 100 + row) * 300 + e), 1);
    return ldexpf(x, (int)(head * 7 % 13));
}

/* Of one term each, or of two; those of the second are the numbers of heads far behind. */
static float tree_sum(int64_t first, int64_t count, int64_t row, int64_t e, int terms)
{
    int64_t half = 1;

    if (count == 1)
        return summand(first, row, e) + (terms == 2 ? summand(first + 50, row, e) : 0.0F);
    while (2 * half < count) half *= 2;
    return tree_sum(first, half, row, e, terms) +
           tree_sum(first + half, count - half, row, e, terms);
}

static void heads_of_a_group_are_added_by_the_tree(void)
{
    enum { B = 2, HEADS = 2, S = 3, D = 5 };

    for (int64_t group = 1; group <= 9; group++) {
        const int64_t n = B * HEADS * group * S * D;
        float *a = room((size_t)n * sizeof *a), *b = room((size_t)n * sizeof *b);
        struct ls_tensor out =
            tensor_over(room(B * S * HEADS * D * 4), LS_F32, B, S, HEADS, D, group % 2);

        for (int64_t i = 0; i < n; i++) {
            a[i] = summand(i / (S * D), i / D % S, i % D);
            b[i] = summand(i / (S * D) + 50, i / D % S, i % D);
        }
        for (int terms = 1; terms <= 2; terms++) {
            run_round_sums(&out, 2, a, terms == 2 ? b : NULL, group);
            for (int64_t pair = 0; pair < B * HEADS; pair++)
                for (int64_t i = 0; i < S * D; i++)
                    cr_assert_eq((float)load_at(&out, pair / HEADS, i / D, pair % HEADS, i % D),
                                 tree_sum(pair * group, group, i / D, i % D, terms));
        }
        free(out.data);
        free(b);
        free(a);
    }
}

static void zeroes_are_positive(void)
{
    float sums[2] = {-0.0F, -0.0F}, got = 1;
    struct ls_tensor out = tensor_over(&got, LS_F32, 1, 1, 1, 1, false);

    for (int group = 1; group <= 2; group++) {
        got = 1;
        run_round_sums(&out, 1, sums, NULL, group);
        cr_expect_eq(signbit(got), 0);
        cr_expect_eq(got, 0);
        got = 1;
        run_round_sums(&out, 1, sums, sums, group);
        cr_expect_eq(signbit(got), 0);
        cr_expect_eq(got, 0);
    }
}

static void callers_rounding_does_not_matter(void)
{
    float one = 1, little = 0x1p-30F, pair[] = {1, 0x1p-30F}, got[3] = {1};
    const struct ls_tensor unit = tensor_over(&one, LS_F32, 1, 1, 1, 1, false);
    const struct ls_tensor rest = tensor_over(&little, LS_F32, 1, 1, 1, 1, false);
    struct ls_tensor out = tensor_over(&got[2], LS_F32, 1, 1, 1, 1, false);

    fesetround(FE_UPWARD);
    run_add(&got[0], 1, &little, 1);
    run_delta(&got[1], 1, &unit, &unit, &rest, NULL);
    run_round_sums(&out, 1, pair, NULL, 2);
    cr_expect_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    for (int i = 0; i < LENGTH(got); i++) cr_expect_eq(got[i], 1, "%d: %a", i, (double)got[i]);
}

/* Terms of rows that see nothing are 0 though exp(sink - lse) is NaN or infinite. */
static void sinks_equal_double(void)
{
    enum { B = 2, H = 3, S = 700, LEAVES = 2 };
    static const int64_t first[] = {256, 0}, rows[] = {256, 256};
    static const float sinks[H] = {0.5F, -INFINITY, 2};
    static float lse[B * H * S], delta[B * H * S];
    double got[H * LEAVES];

    for (int i = 0; i < B * H * S; i++) {
        lse[i] = i % 7 == 0 ? -INFINITY : (float)(i % 5) / 2;
        delta[i] = (float)(i % 11) - 5;
    }
    for (int threads = 1; threads <= 3; threads++) {
        run_sink_sums(got, threads, sinks,
                      (struct ls_sink_rows){lse, delta, B, H, S, first, rows, LEAVES});
        for (int i = 0; i < H * LEAVES; i++) {
            const int64_t head = i / LEAVES, leaf = i % LEAVES;
            double exact = 0;

            for (int64_t b = 0; b < B; b++)
                for (int64_t r = first[leaf]; r < first[leaf] + rows[leaf]; r++) {
                    const int64_t at = (b * H + head) * S + r;

                    if (lse[at] != -INFINITY)
                        exact -= exp((double)sinks[head] - (double)lse[at]) * (double)delta[at];
                }
            cr_expect_eq(got[i], exact, "head %ld, leaf %ld: %g", (long)head, (long)leaf, got[i]);
        }
    }
}

TEST_EACH_DEVICE(gradient_sums, delta_equals_double)
TEST_EACH_DEVICE(gradient_sums, sums_are_added)
TEST_EACH_DEVICE(gradient_sums, heads_of_a_group_are_added_by_the_tree)
TEST_EACH_DEVICE(gradient_sums, zeroes_are_positive)
TEST_EACH_DEVICE(gradient_sums, callers_rounding_does_not_matter)
TEST_EACH_DEVICE(gradient_sums, sinks_equal_double)
