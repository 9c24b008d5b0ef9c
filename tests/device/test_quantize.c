/* Keys and values become numbers of 8 bits and their scales: sums of rows, largest magnitudes, and
 * rows rounded to nearest in units of a scale that takes the largest of them. */
#include "base/exact_sum.h"
#include "device/quantize.h"
#include "harness.h"

enum { B = 2, S = 600, H = 3, D = 37, PAIRS = B * H };

static const ls_dtype types[] = {LS_BF16, LS_F32, LS_F16}, narrow[] = {LS_I8, LS_E4M3};

/* x drawn, of any type and order; two rows of the last head hold NaN and infinity. */
struct sheet {
    struct ls_tensor x, there;
    struct mirror mirror;
    float mean[PAIRS * D];
};

static void sheet_open(struct sheet *s, ls_dtype type, bool bhsd, int threads)
{
    s->mirror = (struct mirror){.device = open_device(threads)};
    need_family(s->mirror.device->ops->quantize, "quantize");
    s->x = tensor_over(malloc((size_t)(B * S * H * D) * sizeof(double)), type, B, S, H, D, bhsd);
    fill_normal(&s->x, 3, 2);
    store_at(&s->x, 1, 5, H - 1, 7, NAN);
    store_at(&s->x, 1, 300, H - 1, 0, INFINITY);
    mirror_input(&s->there, &s->mirror, &s->x);
    draw_mean(s->mean, PAIRS * D);
}

static void sheet_close(struct sheet *s)
{
    mirror_read_back(&s->mirror);
    ls_device_close(s->mirror.device);
    free(s->x.data);
}

static bool is_finite(int64_t pair, int64_t row)
{
    return pair != PAIRS - 1 || (row != 5 && row != 300);
}

static double at(const struct sheet *s, int64_t pair, int64_t row, int64_t e, bool less)
{
    const double x = load_at(&s->x, pair / H, row, pair % H, e);

    return less ? (double)((float)x - s->mean[pair * D + e]) : x;
}

static void sums_are_exact(void)
{
    for (int c = 0; c < 6; c++) {
        static int64_t limb[PAIRS * D * LS_EXACT_LIMBS], rows[PAIRS];
        struct sheet s;

        sheet_open(&s, types[c % 3], c >= 3, 1 + c % 4);
        memset(limb, 0, sizeof limb);
        memset(rows, 0, sizeof rows);
        for (int twice = 0; twice < 2; twice++)
            ls_quantize_sum(&s.mirror.device->queue, limb, rows, &s.there);
        cr_assert_eq(ls_queue_finish(NULL, &s.mirror.device->queue), LS_OK);
        for (int64_t i = 0; i < PAIRS * D; i++) {
            double sum = 0;

            for (int64_t row = 0; row < S; row++)
                if (is_finite(i / D, row)) sum += at(&s, i / D, row, i % D, false);
            cr_expect_float_eq(ls_exact_value(limb + i * LS_EXACT_LIMBS), 2 * sum, 1e-12,
                               "%s, sum %ld", ls_dtype_name(types[c % 3]), (long)i);
        }
        for (int64_t pair = 0; pair < PAIRS; pair++)
            cr_expect_eq(rows[pair], 2 * (pair == PAIRS - 1 ? S - 2 : S));
        sheet_close(&s);
    }
}

/* Of a row, or of all rows of a head. */
static double largest_of(const struct sheet *s, int64_t pair, int64_t first, int64_t end, bool less)
{
    double most = 0;

    for (int64_t row = first; row < end; row++)
        for (int64_t e = 0; e < D && is_finite(pair, row); e++)
            most = fmax(most, fabs(at(s, pair, row, e, less)));
    return most;
}

static void the_largest_is_found(void)
{
    for (int c = 0; c < 6; c++) {
        struct sheet s;
        float largest[PAIRS];

        sheet_open(&s, types[c % 3], c % 2, 1 + c % 3);
        ls_quantize_largest(&s.mirror.device->queue, largest, &s.there, c < 3 ? s.mean : NULL);
        cr_assert_eq(ls_queue_finish(NULL, &s.mirror.device->queue), LS_OK);
        for (int64_t pair = 0; pair < PAIRS; pair++)
            cr_expect_eq((double)largest[pair], largest_of(&s, pair, 0, S, c < 3));
        sheet_close(&s);
    }
}

static bool is_bf16(double x)
{
    const float narrow = (float)x;
    uint32_t bits;

    memcpy(&bits, &narrow, sizeof bits);
    return (double)narrow == x && (bits & 0xffff) == 0;
}

/* How far a number may be from x in units of the scale: to the nearest of its type; of i8, where 3
 * times a power of two leaves bf16 even numbers alone, to the nearest of these up to 126. */
static double half_step(ls_dtype type, double x, double scale)
{
    int exponent;

    if (type == LS_E4M3) return fmax(ldexp(fabs(x), -4), ldexp(1, -10));
    return fabs(x) > 85 && frexp(scale, &exponent) != 0.5 ? 1 : 0.5;
}

/* A number is the nearest of those that bf16 holds times the scale, and that the least of few
 * digits that is enough. */
static void check_row(const struct sheet *s, const struct ls_tensor *out, int64_t pair, int64_t row,
                      double most, bool less)
{
    const char *numbers = element_at(out, pair / H, row, pair % H);
    const double largest = out->type == LS_I8 ? 127 : 448;
    float scale;
    int exponent;

    memcpy(&scale, numbers + D, sizeof scale);
    if (!is_finite(pair, row)) {
        cr_expect(isnan(scale), "scale of what is no number: %g", (double)scale);
        return;
    }
    cr_expect(largest * (double)scale >= most * (1 - 1e-6) &&
                  largest * (double)scale <= most * (out->type == LS_I8 ? 1.5 : 1.125) * (1 + 1e-6),
              "scale %g for %g", (double)scale, most);
    const double digits = ldexp(frexp((double)scale, &exponent), out->type == LS_I8 ? 2 : 4);

    cr_expect_eq(digits, floor(digits), "scale %a", (double)scale);
    for (int64_t e = 0; e < D; e++) {
        const double x = at(s, pair, row, e, less) / (double)scale;
        const double number = ls_dtype_load(out->type, numbers + e);
        const double half = half_step(out->type, x, (double)scale);

        cr_assert(fabs(x - number) <= half * (1 + 1e-5), "%g became %g", x, number);
        cr_assert(is_bf16(number * (double)scale), "%g times %a", number, (double)scale);
    }
}

static void rows_are_rounded(void)
{
    for (int c = 0; c < 12; c++) {
        const ls_dtype to = narrow[c % 2];
        const bool of_heads = c / 2 % 2, less = c % 3 > 0;
        struct sheet s;
        struct ls_tensor out, there;
        float largest[PAIRS];

        sheet_open(&s, types[c % 3], c / 6, 1 + c % 4);
        out = tensor_over(malloc((size_t)(B * S * H * (D + LS_SCALE_BYTES))), to, B, S, H,
                          D + LS_SCALE_BYTES, c % 5 == 0);
        mirror_output(&there, &s.mirror, &out);
        for (int64_t pair = 0; pair < PAIRS; pair++)
            largest[pair] = (float)largest_of(&s, pair, 0, S, less);
        ls_quantize_round(&s.mirror.device->queue, &there, &s.there, less ? s.mean : NULL,
                          of_heads ? largest : NULL);
        cr_assert_eq(ls_queue_finish(NULL, &s.mirror.device->queue), LS_OK);
        struct ls_device *device = s.mirror.device;

        mirror_read_back(&s.mirror);
        for (int64_t i = 0; i < PAIRS * S; i++) {
            const int64_t pair = i / S, row = i % S;

            check_row(&s, &out, pair, row,
                      of_heads ? (double)largest[pair] : largest_of(&s, pair, row, row + 1, less),
                      less);
        }
        ls_device_close(device);
        free(s.x.data);
        free(out.data);
    }
}

TEST_EACH_DEVICE(quantize, sums_are_exact)
TEST_EACH_DEVICE(quantize, the_largest_is_found)
TEST_EACH_DEVICE(quantize, rows_are_rounded)
