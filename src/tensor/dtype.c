#include "tensor/dtype.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/cpu.h"
#include "tensor/bf16.h"

#define TYPE_COUNT (LS_E4M3 + 1)

static const struct {
    const char *name;
    int size;
    double unit, smallest;
} types[TYPE_COUNT] = {
    [LS_F32] = {"f32", 4, 0x1p-24, 0x1p-149}, [LS_BF16] = {"bf16", 2, 0x1p-8, 0x1p-133},
    [LS_F16] = {"f16", 2, 0x1p-11, 0x1p-24},  [LS_F64] = {"f64", 8, 0x1p-53, 0x1p-1074},
    [LS_I8] = {"i8", 1, 0x1p-1, 1},           [LS_E4M3] = {"e4m3", 1, 0x1p-4, 0x1p-9},
};

int ls_dtype_size(ls_dtype type)
{
    assert(type < TYPE_COUNT);
    return types[type].size;
}

const char *ls_dtype_name(ls_dtype type)
{
    return type < TYPE_COUNT ? types[type].name : "unknown";
}

double ls_dtype_unit(ls_dtype type)
{
    assert(type < TYPE_COUNT);
    return types[type].unit;
}

double ls_dtype_smallest(ls_dtype type)
{
    assert(type < TYPE_COUNT);
    return types[type].smallest;
}

ls_status ls_dtype_find(ls_dtype *out, const char *name)
{
    for (ls_dtype type = LS_F32; type < TYPE_COUNT; type++) {
        if (strcmp(name, types[type].name) != 0) continue;
        *out = type;
        return LS_OK;
    }
    return ls_fail(LS_ETYPE, "unknown number type '%s' (there are f32, bf16, f16, f64, i8, e4m3)",
                   name);
}

/* A normal number needs another exponent bias (112 more). A subnormal one is a fraction of 2^-14:
 * put behind a leading 1 of that size, which is then subtracted. */
static inline float f16_to_f32(uint16_t in)
{
    const uint32_t sign = (uint32_t)(in & 0x8000) << 16, magnitude = (uint32_t)(in & 0x7fff) << 13;
    const uint32_t exponent = magnitude & 0x0f800000, bias = UINT32_C(112) << 23;
    const float subnormal = f32_of_bits(magnitude + bias + 0x00800000) - 0x1p-14F;
    const uint32_t normal = magnitude + bias + choose_bits(exponent == 0x0f800000, bias, 0);

    return f32_of_bits(sign | (choose_bits(exponent == 0, bits_of_f32(subnormal), normal)));
}

/* Normal results: as for bf16. Below 2^-14 the last place is 2^-24, which is that of f32 numbers
 * in [1/2, 1): adding 1/2 rounds there, and leaves the result in the low bits. */
static inline uint16_t f32_to_f16(float in)
{
    const uint32_t bits = bits_of_f32(in), magnitude = bits & 0x7fffffff;
    const uint32_t bias = UINT32_C(112) << 23, infinity = 0x7c00, quiet = 0x0200;
    const uint32_t normal = (magnitude - bias + 0x0fff + ((bits >> 13) & 1)) >> 13;
    const uint32_t subnormal = bits_of_f32(f32_of_bits(magnitude) + 0.5F) - bits_of_f32(0.5F);
    const uint32_t nan = infinity | quiet | ((bits >> 13) & 0x01ff);
    uint32_t out = choose_bits(magnitude < bits_of_f32(0x1p-14F), subnormal, normal);

    out = choose_bits(magnitude >= bits_of_f32(0x1p16F), infinity,
                      out); /* below, the carry does it */
    out = choose_bits(in != in, nan, out);
    return (uint16_t)((bits >> 16 & 0x8000) | out);
}

/* The same number 2^8 times smaller is an f16. */
static inline float e4m3_to_f32(uint8_t in)
{
    const uint32_t magnitude = in & 0x7f;
    const float value = f16_to_f32((uint16_t)((in & 0x80) << 8 | magnitude << 7)) * 0x1p8F;

    return f32_of_bits(choose_bits(magnitude == 0x7f, 0x7fc00000, bits_of_f32(value)));
}

/* What is too large becomes 448. As for f16: normal results, and those below 2^-6, whose last place
 * is 2^-9. */
static inline uint8_t f32_to_e4m3(float in)
{
    const uint32_t bits = bits_of_f32(in), magnitude = bits & 0x7fffffff;
    const uint32_t bias = UINT32_C(120) << 23;
    const uint32_t normal = (magnitude - bias + 0x7ffff + ((bits >> 20) & 1)) >> 20;
    const uint32_t subnormal = bits_of_f32(f32_of_bits(magnitude) + 0x1p14F) - bits_of_f32(0x1p14F);
    uint32_t out = choose_bits(magnitude < bits_of_f32(0x1p-6F), subnormal, normal);

    out = choose_bits(magnitude >= bits_of_f32(448), 0x7e, out);
    out = choose_bits(in != in, 0x7f, out);
    return (uint8_t)((bits >> 24 & 0x80) | out);
}

/* What is too large becomes the largest of its sign, NaN 0. */
static inline int8_t f32_to_i8(float in)
{
    const float low = in > -127 ? in : -127, value = low < 127 ? low : 127;

    return (int8_t)(in != in ? 0 : lrintf(value));
}

/* Rounded to odd: of the two f32 neighbours of a number between them, the one whose last bit is 1.
 * It keeps the side on which the number lies, so that rounding it again, to a type with at least
 * two bits less, is correct. Source: Boldo, Melquiond 2008. */
static float f64_to_f32_odd(double in)
{
    const float near = (float)in;
    uint32_t bits = bits_of_f32(near);

    if (near == in || in != in) return near;
    if (fabs((double)near) > fabs(in)) bits--; /* towards zero */
    return f32_of_bits(bits | 1);
}

double ls_dtype_load(ls_dtype type, const void *element)
{
    switch (type) {
    case LS_F32:
        return *(const float *)element;
    case LS_BF16:
        return f32_of_bf16(*(const uint16_t *)element);
    case LS_F16:
        return f16_to_f32(*(const uint16_t *)element);
    case LS_I8:
        return *(const int8_t *)element;
    case LS_E4M3:
        return e4m3_to_f32(*(const uint8_t *)element);
    case LS_F64:
        break;
    }
    return *(const double *)element;
}

void ls_dtype_store(ls_dtype type, void *element, double value)
{
    switch (type) {
    case LS_F32:
        *(float *)element = (float)value;
        break;
    case LS_BF16:
        *(uint16_t *)element = bf16_of_f32(f64_to_f32_odd(value));
        break;
    case LS_F16:
        *(uint16_t *)element = f32_to_f16(f64_to_f32_odd(value));
        break;
    case LS_I8:
        *(int8_t *)element = f32_to_i8(f64_to_f32_odd(value));
        break;
    case LS_E4M3:
        *(uint8_t *)element = f32_to_e4m3(f64_to_f32_odd(value));
        break;
    case LS_F64:
        *(double *)element = value;
        break;
    }
}

/* Whole blocks of a constant length become vector instructions at any level of optimisation. */
enum { BLOCK = 64 };

/* Converts BLOCK elements. */
typedef void (*block_function)(void *out, const void *in);

LS_CLONED static void block_bf16_to_f32(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = f32_of_bf16(((const uint16_t *)in)[i]);
}

LS_CLONED static void block_f16_to_f32(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = f16_to_f32(((const uint16_t *)in)[i]);
}

LS_CLONED static void block_i8_to_f32(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = ((const int8_t *)in)[i];
}

LS_CLONED static void block_e4m3_to_f32(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = e4m3_to_f32(((const uint8_t *)in)[i]);
}

LS_CLONED static void block_f64_to_f32(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = (float)((const double *)in)[i];
}

LS_CLONED static void block_f64_to_f32_odd(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((float *)out)[i] = f64_to_f32_odd(((const double *)in)[i]);
}

LS_CLONED static void block_f32_to_bf16(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((uint16_t *)out)[i] = bf16_of_f32(((const float *)in)[i]);
}

LS_CLONED static void block_f32_to_f16(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((uint16_t *)out)[i] = f32_to_f16(((const float *)in)[i]);
}

LS_CLONED static void block_f32_to_i8(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((int8_t *)out)[i] = f32_to_i8(((const float *)in)[i]);
}

LS_CLONED static void block_f32_to_e4m3(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((uint8_t *)out)[i] = f32_to_e4m3(((const float *)in)[i]);
}

LS_CLONED static void block_f32_to_f64(void *out, const void *in)
{
    for (int i = 0; i < BLOCK; i++) ((double *)out)[i] = ((const float *)in)[i];
}

/* Every conversion is two steps, to f32 and from f32, of which at most one rounds to nearest.
 * NULL: nothing to do. */
static block_function step_to_f32(ls_dtype from, ls_dtype to)
{
    if (from == LS_BF16) return block_bf16_to_f32;
    if (from == LS_F16) return block_f16_to_f32;
    if (from == LS_I8) return block_i8_to_f32;
    if (from == LS_E4M3) return block_e4m3_to_f32;
    if (from == LS_F64) return to == LS_F32 ? block_f64_to_f32 : block_f64_to_f32_odd;
    return NULL;
}

static block_function step_from_f32(ls_dtype to)
{
    if (to == LS_BF16) return block_f32_to_bf16;
    if (to == LS_F16) return block_f32_to_f16;
    if (to == LS_I8) return block_f32_to_i8;
    if (to == LS_E4M3) return block_f32_to_e4m3;
    if (to == LS_F64) return block_f32_to_f64;
    return NULL;
}

static void convert_block(void *out, const void *in, block_function first, block_function second)
{
    float between[BLOCK];

    if (first != NULL && second != NULL) {
        first(between, in);
        second(out, between);
    } else {
        (first != NULL ? first : second)(out, in);
    }
}

void ls_dtype_convert(void *out, ls_dtype to, const void *in, ls_dtype from, int64_t n)
{
    if (n == 0) return; /* nothing may have no address */
    const size_t in_size = (size_t)ls_dtype_size(from), out_size = (size_t)ls_dtype_size(to);
    const block_function first = step_to_f32(from, to), second = step_from_f32(to);
    const size_t whole = (size_t)n / BLOCK * BLOCK, rest = (size_t)n % BLOCK;
    const char *const in_bytes = in;
    char *const out_bytes = out;

    if (from == to) {
        memcpy(out, in, (size_t)n * in_size);
        return;
    }
    for (size_t i = 0; i < whole; i += BLOCK)
        convert_block(out_bytes + i * out_size, in_bytes + i * in_size, first, second);
    if (rest > 0) {
        /* large enough for every type */
        _Alignas(double) char padded_in[BLOCK * sizeof(double)] = {0};
        _Alignas(double) char padded_out[BLOCK * sizeof(double)];

        memcpy(padded_in, in_bytes + whole * in_size, rest * in_size);
        convert_block(padded_out, padded_in, first, second);
        memcpy(out_bytes + whole * out_size, padded_out, rest * out_size);
    }
}

/* A magnitude reaches a power of two if the bits of its exponent do. Adding what these lack of the
 * sign's bit then carries into it, which is why a block needs only one test, of all its sums
 * together. */
LS_CLONED static bool block16_is_below(const void *in, uint16_t exponent, uint16_t limit)
{
    const uint16_t *const bits = in;
    uint16_t sums = 0;

    for (int i = 0; i < BLOCK; i++) sums |= (uint16_t)((bits[i] & exponent) + 0x8000 - limit);
    return (sums & 0x8000) == 0;
}

LS_CLONED static bool block32_is_below(const void *in, uint32_t limit)
{
    uint32_t sums = 0;

    for (int i = 0; i < BLOCK; i++)
        sums |= (bits_of_f32(((const float *)in)[i]) & 0x7f800000) + 0x80000000 - limit;
    return (sums & 0x80000000) == 0;
}

LS_CLONED static bool block64_is_below(const void *in, uint64_t limit)
{
    uint64_t sums = 0;

    for (int i = 0; i < BLOCK; i++) {
        uint64_t bits;

        memcpy(&bits, (const double *)in + i, sizeof bits);
        sums |= (bits & UINT64_C(0x7ff) << 52) + (UINT64_C(1) << 63) - limit;
    }
    return sums >> 63 == 0;
}

static bool block_is_below(const void *in, ls_dtype type, const void *limit)
{
    uint64_t bits64;
    uint32_t bits32;
    uint16_t bits16;

    if (type == LS_F32) return memcpy(&bits32, limit, 4), block32_is_below(in, bits32);
    if (type == LS_F64) return memcpy(&bits64, limit, 8), block64_is_below(in, bits64);
    memcpy(&bits16, limit, 2);
    return block16_is_below(in, type == LS_BF16 ? 0x7f80 : 0x7c00, bits16);
}

int64_t ls_dtype_find_large(const void *in, ls_dtype type, int64_t n, double limit)
{
    const size_t size = (size_t)ls_dtype_size(type);
    const char *const bytes = in;
    double stored;
    int64_t i = 0;

    ls_dtype_store(type, &stored, limit);
    while (size > 1 && i + BLOCK <= n && block_is_below(bytes + (size_t)i * size, type, &stored))
        i += BLOCK;
    for (; i < n; i++)
        if (!(fabs(ls_dtype_load(type, bytes + (size_t)i * size)) < limit)) return i;
    return -1;
}

int64_t ls_dtype_find_nonfinite(const void *in, ls_dtype type, int64_t n)
{
    return ls_dtype_find_large(in, type, n, INFINITY);
}
