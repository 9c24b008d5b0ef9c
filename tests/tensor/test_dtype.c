#include "tensor/dtype.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* IEEE's parameters: digits of the significand, exponent of the smallest normal number, largest
 * number. */
struct format {
    ls_dtype type;
    int digits, min_exponent;
    double largest;
};

static const struct format formats[] = {
    {LS_F32, 24, -126, FLT_MAX},
    {LS_BF16, 8, -126, 0x1.fep127},
    {LS_F16, 11, -14, 65504},
};
enum { FORMATS = sizeof formats / sizeof *formats, PATTERNS = 1 << 16 };

/* The multiple of the spacing at x that is nearest, ties to even: a definition that knows nothing
 * of bits. Every step but the rounding itself is exact in double precision. */
static double rounded(const struct format *format, double x)
{
    int exponent;

    if (!isfinite(x) || x == 0) return x;
    frexp(x, &exponent);
    const int normal = exponent - 1 > format->min_exponent ? exponent - 1 : format->min_exponent;
    const double spacing = ldexp(1, normal - (format->digits - 1));
    const double y = nearbyint(x / spacing) * spacing;

    return fabs(y) > format->largest ? copysign(INFINITY, x) : y;
}

static bool same(double a, double b)
{
    return isnan(a) ? isnan(b) : a == b && signbit(a) == signbit(b);
}

/* x rounded to the format, element by element and in bulk. */
static void expect_rounds(const struct format *format, double x)
{
    const double expected = rounded(format, x);
    double stored_bytes = 0, converted_bytes = 0;

    ls_dtype_store(format->type, &stored_bytes, x);
    ls_dtype_convert(&converted_bytes, format->type, &x, LS_F64, 1);
    const double stored = ls_dtype_load(format->type, &stored_bytes);
    const double converted = ls_dtype_load(format->type, &converted_bytes);

    cr_assert(same(stored, expected), "%s of %a: stored %a, expected %a",
              ls_dtype_name(format->type), x, stored, expected);
    cr_assert(same(converted, expected), "%s of %a: converted to %a, expected %a",
              ls_dtype_name(format->type), x, converted, expected);
}

static void expect_rounds_around(const struct format *format, double x)
{
    expect_rounds(format, x);
    expect_rounds(format, nextafter(x, INFINITY));
    expect_rounds(format, nextafter(x, -INFINITY));
}

static uint16_t bits_of(double value, ls_dtype type)
{
    uint16_t bits;

    ls_dtype_store(type, &bits, value);
    return bits;
}

static bool is_nan_pattern(uint16_t bits, ls_dtype type)
{
    return (bits & 0x7fff) > (type == LS_BF16 ? 0x7f80 : 0x7c00);
}

/* The value of a 16-bit pattern by definition. */
static double value_of(uint16_t bits, const struct format *format)
{
    const int fraction_bits = format->digits - 1;
    const int exponent = (bits & 0x7fff) >> fraction_bits, fraction = bits % (1 << fraction_bits);
    const int all_ones = (1 << (15 - fraction_bits)) - 1;
    const double sign = bits & 0x8000 ? -1 : 1;

    if (exponent == all_ones) return fraction != 0 ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, format->min_exponent - fraction_bits);
    return sign * ldexp((1 << fraction_bits) + fraction,
                        format->min_exponent + exponent - 1 - fraction_bits);
}

Test(dtype, every_16_bit_pattern_has_its_value_and_comes_back)
{
    for (int f = 1; f < FORMATS; f++)
        for (int i = 0; i < PATTERNS; i++) {
            const ls_dtype type = formats[f].type;
            const uint16_t bits = (uint16_t)i;
            const double value = ls_dtype_load(type, &bits);

            cr_assert(same(value, value_of(bits, &formats[f])), "%s %04x is %a",
                      ls_dtype_name(type), bits, value);
            if (is_nan_pattern(bits, type))
                cr_assert(is_nan_pattern(bits_of(value, type), type), "%04x", bits);
            else
                cr_assert_eq(bits_of(value, type), bits, "%s %04x comes back as %04x",
                             ls_dtype_name(type), bits, bits_of(value, type));
        }
}

/* Bulk conversion of 16-bit patterns through the wider types, there and back. */
Test(dtype, conversions_in_bulk_keep_every_16_bit_pattern)
{
    static uint16_t in[PATTERNS], back[PATTERNS];
    static double wide[PATTERNS];
    static const ls_dtype wider[] = {LS_F32, LS_F64};

    for (int i = 0; i < PATTERNS; i++) in[i] = (uint16_t)i;
    for (int f = 1; f < FORMATS; f++)
        for (int w = 0; w < 2; w++) {
            const ls_dtype type = formats[f].type;
            const size_t size = (size_t)ls_dtype_size(wider[w]);

            ls_dtype_convert(wide, wider[w], in, type, PATTERNS);
            ls_dtype_convert(back, type, wide, wider[w], PATTERNS);
            for (size_t i = 0; i < PATTERNS; i++) {
                const double value = ls_dtype_load(wider[w], (const char *)wide + i * size);

                cr_assert(same(value, ls_dtype_load(type, &in[i])), "%s %04x became %a",
                          ls_dtype_name(type), in[i], value);
                cr_assert(back[i] == in[i] || is_nan_pattern(in[i], type), "%s %04x became %04x",
                          ls_dtype_name(type), in[i], back[i]);
                cr_assert_eq(is_nan_pattern(back[i], type), is_nan_pattern(in[i], type));
            }
        }
}

Test(dtype, rounding_is_to_nearest_even_at_and_beside_every_number_and_tie)
{
    for (int f = 1; f < FORMATS; f++)
        for (int i = 0; i < 0x7fff; i++) {
            const double low = value_of((uint16_t)i, &formats[f]);
            const double high = value_of((uint16_t)(i + 1), &formats[f]);

            if (isnan(high)) break;
            const double top = isfinite(high) ? high : 2 * formats[f].largest;

            expect_rounds_around(&formats[f], low);
            expect_rounds_around(&formats[f], (low + top) / 2);
            expect_rounds_around(&formats[f], -(low + top) / 2);
        }
}

Test(dtype, rounding_at_the_ends_of_the_range)
{
    for (int f = 0; f < FORMATS; f++) {
        const struct format *const format = &formats[f];
        const double smallest = ls_dtype_smallest(format->type);
        const double half_spacing =
            ldexp(format->largest, -format->digits) / (2 - ldexp(2, -format->digits));
        const double points[] = {0.0,
                                 -0.0,
                                 smallest,
                                 smallest / 2,
                                 1.5 * smallest,
                                 ldexp(1, format->min_exponent),
                                 ldexp(1, format->min_exponent) - smallest / 2,
                                 format->largest,
                                 format->largest + half_spacing,
                                 1 + ls_dtype_unit(format->type),
                                 1 + 3 * ls_dtype_unit(format->type),
                                 DBL_MIN,
                                 DBL_TRUE_MIN,
                                 FLT_MAX,
                                 0x1.ffffffp127,
                                 DBL_MAX,
                                 INFINITY,
                                 NAN};

        for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
            expect_rounds_around(format, points[i]);
            expect_rounds_around(format, -points[i]);
        }
    }
}

/* The value of an e4m3 pattern by definition: a bias of 7, subnormals, no infinity. */
static double value_of_e4m3(int bits)
{
    const int exponent = bits >> 3 & 15, fraction = bits & 7;
    const double sign = bits & 0x80 ? -1 : 1;

    if ((bits & 0x7f) == 0x7f) return NAN;
    return sign * (exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9));
}

static int e4m3_of(double value)
{
    uint8_t one, bulk;

    ls_dtype_store(LS_E4M3, &one, value);
    ls_dtype_convert(&bulk, LS_E4M3, &value, LS_F64, 1);
    cr_assert_eq(one, bulk, "%a", value);
    return one;
}

Test(dtype, every_e4m3_pattern_has_its_value_and_comes_back)
{
    for (int i = 0; i < 256; i++) {
        const uint8_t bits = (uint8_t)i;
        const double value = ls_dtype_load(LS_E4M3, &bits);

        cr_assert(same(value, value_of_e4m3(i)), "%02x is %a", i, value);
        cr_assert_eq(e4m3_of(value), isnan(value) ? 0x7f : i, "%02x comes back as %02x", i,
                     e4m3_of(value));
    }
}

Test(dtype, e4m3_rounds_to_nearest_even_and_never_beyond_448)
{
    for (int i = 0; i < 0x7e; i++) {
        const double tie = (value_of_e4m3(i) + value_of_e4m3(i + 1)) / 2;

        cr_assert_eq(e4m3_of(tie), i + i % 2, "%a", tie);
        cr_assert_eq(e4m3_of(-tie), 0x80 + i + i % 2, "%a", -tie);
        cr_assert_eq(e4m3_of(nextafter(tie, 0)), i, "below %a", tie);
        cr_assert_eq(e4m3_of(nextafter(tie, 1000)), i + 1, "above %a", tie);
    }
    cr_expect_eq(e4m3_of(460), 0x7e);
    cr_expect_eq(e4m3_of(-DBL_MAX), 0xfe);
    cr_expect_eq(e4m3_of(INFINITY), 0x7e);
    cr_expect_eq(e4m3_of(DBL_TRUE_MIN), 0);
}

Test(dtype, i8_rounds_to_nearest_even_and_never_beyond_127)
{
    static const struct {
        double from;
        int to;
    } cases[] = {{0.5, 0},     {1.5, 2},      {-2.5, -2},        {2.500001, 3}, {126.4, 126},
                 {1e300, 127}, {-1000, -127}, {-INFINITY, -127}, {-0.6, -1},    {NAN, 0}};

    for (int i = -128; i < 128; i++) {
        const int8_t number = (int8_t)i;

        cr_assert_eq(ls_dtype_load(LS_I8, &number), i);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int8_t one, bulk;

        ls_dtype_store(LS_I8, &one, cases[i].from);
        ls_dtype_convert(&bulk, LS_I8, &cases[i].from, LS_F64, 1);
        cr_assert_eq(one, cases[i].to, "%g became %d", cases[i].from, one);
        cr_assert_eq(bulk, cases[i].to, "%g became %d in bulk", cases[i].from, bulk);
    }
}

Test(dtype, rounding_happens_once)
{
    /* just above a tie of the small type, by less than f32 can tell: up, not to even */
    const double beyond_f32 = 0x1p-40;
    const double bf16 = 1 + 0x1p-8, f16 = 1 + 0x1p-11;

    cr_expect_eq(bits_of(bf16, LS_BF16), 0x3f80);
    cr_expect_eq(bits_of(bf16 + beyond_f32, LS_BF16), 0x3f81);
    cr_expect_eq(bits_of(f16, LS_F16), 0x3c00);
    cr_expect_eq(bits_of(f16 + beyond_f32, LS_F16), 0x3c01);
    cr_expect_eq(bits_of(-(f16 + beyond_f32), LS_F16), 0xbc01);
}

/* All lengths around the block of the fast path: the same as one by one, and nothing behind. */
Test(dtype, every_pair_of_types_converts_any_length_as_one_by_one)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16, LS_F64, LS_I8, LS_E4M3};
    enum { MOST = 200, TYPES = 6 };

    for (int from = 0; from < TYPES; from++)
        for (int to = 0; to < TYPES; to++)
            for (int n = 0; n < MOST; n = n < 70 ? n + 1 : n + 29) {
                const size_t in_size = (size_t)ls_dtype_size(types[from]);
                const size_t out_size = (size_t)ls_dtype_size(types[to]);
                double in[MOST], out[MOST + 1], one;

                for (int i = 0; i < n; i++)
                    ls_dtype_store(types[from], (char *)in + (size_t)i * in_size,
                                   (i % 2 ? -1 : 1) * ldexp(1 + i / 200.0, i % 40 - 30));
                memset(out, 0x5a, sizeof out);
                ls_dtype_convert(out, types[to], in, types[from], n);
                for (int i = 0; i < n; i++) {
                    const double value =
                        ls_dtype_load(types[from], (char *)in + (size_t)i * in_size);

                    ls_dtype_store(types[to], &one, value);
                    cr_assert_arr_eq((char *)out + (size_t)i * out_size, &one, out_size,
                                     "%s to %s, element %d of %d", ls_dtype_name(types[from]),
                                     ls_dtype_name(types[to]), i, n);
                }
                cr_assert_eq(((unsigned char *)out)[(size_t)n * out_size], 0x5a,
                             "%s to %s wrote behind element %d", ls_dtype_name(types[from]),
                             ls_dtype_name(types[to]), n);
            }
}

/* Memory whose last byte stands before a page that nobody may touch. */
static char *end_of_memory(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *const memory =
        mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(memory, MAP_FAILED);
    cr_assert_eq(mprotect(memory + page, page, PROT_NONE), 0);
    return memory + page;
}

Test(dtype, nothing_behind_the_last_element_is_touched)
{
    char *const in_end = end_of_memory(), *const out_end = end_of_memory();

    for (ls_dtype from = LS_F32; from <= LS_E4M3; from++)
        for (int n = 0; n <= 130; n++) {
            const char *const in = in_end - n * ls_dtype_size(from);

            cr_assert_eq(ls_dtype_find_nonfinite(in, from, n), -1);
            for (ls_dtype to = LS_F32; to <= LS_E4M3; to++)
                ls_dtype_convert(out_end - n * ls_dtype_size(to), to, in, from, n);
        }
}

Test(dtype, a_nan_with_the_smallest_payload_stays_one)
{
    const uint32_t f32 = 0x7f800001;
    const uint64_t f64 = UINT64_C(0xfff0000000000001);

    for (int f = 0; f < FORMATS; f++) {
        double out = 0;

        ls_dtype_convert(&out, formats[f].type, &f32, LS_F32, 1);
        cr_expect(isnan(ls_dtype_load(formats[f].type, &out)), "%s",
                  ls_dtype_name(formats[f].type));
        ls_dtype_convert(&out, formats[f].type, &f64, LS_F64, 1);
        cr_expect(isnan(ls_dtype_load(formats[f].type, &out)), "%s",
                  ls_dtype_name(formats[f].type));
    }
}

Test(dtype, the_first_number_that_is_not_finite_is_found)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16, LS_F64};
    static const double largest[] = {-FLT_MAX, -0x1.fep127, -65504, -DBL_MAX};
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    enum { N = 150 };

    for (int t = 0; t < 4; t++) {
        const size_t size = (size_t)ls_dtype_size(types[t]);
        double storage[N];
        char *const in = (char *)storage;

        for (size_t i = 0; i < N; i++)
            ls_dtype_store(types[t], in + i * size,
                           i % 2 ? largest[t] : ls_dtype_smallest(types[t]));
        cr_expect_eq(ls_dtype_find_nonfinite(in, types[t], N), -1, "%s", ls_dtype_name(types[t]));
        for (int64_t at = N - 1; at >= 0; at--) {
            ls_dtype_store(types[t], in + (size_t)at * size, bad[at % 3]);
            cr_assert_eq(ls_dtype_find_nonfinite(in, types[t], N), at, "%s at %d",
                         ls_dtype_name(types[t]), (int)at);
            cr_assert_eq(ls_dtype_find_nonfinite(in, types[t], at), -1, "%s before %d",
                         ls_dtype_name(types[t]), (int)at);
        }
    }
}

Test(dtype, names_sizes_and_units)
{
    static const struct {
        ls_dtype type;
        const char *name;
        int size;
    } cases[] = {{LS_F32, "f32", 4},
                 {LS_BF16, "bf16", 2},
                 {LS_F16, "f16", 2},
                 {LS_F64, "f64", 8},
                 {LS_E4M3, "e4m3", 1}};
    ls_dtype found = LS_F32;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ls_dtype type = cases[i].type;
        const double unit = ls_dtype_unit(type), smallest = ls_dtype_smallest(type);
        double above = 0, zero = 0;

        cr_expect_str_eq(ls_dtype_name(type), cases[i].name);
        cr_expect_eq(ls_dtype_size(type), cases[i].size, "%s", cases[i].name);
        cr_expect_eq(ls_dtype_find(&found, cases[i].name), LS_OK);
        cr_expect_eq(found, type, "%s", cases[i].name);
        ls_dtype_store(type, &above, 1 + 2 * unit);
        cr_expect_eq(ls_dtype_load(type, &above), 1 + 2 * unit, "%s", cases[i].name);
        ls_dtype_store(type, &above, 1 + unit);
        cr_expect_eq(ls_dtype_load(type, &above), 1, "%s", cases[i].name);
        ls_dtype_store(type, &zero, smallest);
        cr_expect_eq(ls_dtype_load(type, &zero), smallest, "%s", cases[i].name);
        ls_dtype_store(type, &zero, smallest / 2);
        cr_expect_eq(ls_dtype_load(type, &zero), 0, "%s", cases[i].name);
    }
    cr_expect_eq(ls_dtype_find(&found, "fp16"), LS_ETYPE);
    cr_expect_neq(strstr(ls_message(), "bf16"), NULL, "%s", ls_message());
}

/* Magnitudes from the limit on, of either sign, and no smaller ones, wherever they are. */
Test(dtype, first_large_element)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16, LS_F64};
    static const double limits[] = {0x1p59, 0x1p7, 1, 0x1p-3};
    enum { N = 150 };

    for (int t = 0; t < 4; t++) {
        for (int l = t == 2 ? 1 : 0; l < 4; l++) {
            const size_t size = (size_t)ls_dtype_size(types[t]);
            const double below = limits[l] * (1 - 2 * ls_dtype_unit(types[t]));
            double storage[N];
            char *const in = (char *)storage;

            for (size_t i = 0; i < N; i++)
                ls_dtype_store(types[t], in + i * size, i % 2 ? below : -below);
            cr_expect_eq(ls_dtype_find_large(in, types[t], N, limits[l]), -1);
            for (int64_t at = N - 1; at >= 0; at--) {
                ls_dtype_store(types[t], in + (size_t)at * size,
                               at % 3 == 0 ? NAN : limits[l] * (at % 3 == 1 ? 1 : -1.5));
                cr_assert_eq(ls_dtype_find_large(in, types[t], N, limits[l]), at, "%s %g at %d",
                             ls_dtype_name(types[t]), limits[l], (int)at);
            }
        }
    }
}
