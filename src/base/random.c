#include "base/random.h"

#include <math.h>

#include "base/float_bits.h"
#include "base/philox.h"

void ls_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];

    for (int round = 0; round < 10; round++) {
        const uint64_t product0 = LS_PHILOX_MULTIPLIER_0 * c0;
        const uint64_t product1 = LS_PHILOX_MULTIPLIER_1 * c2;

        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += LS_PHILOX_WEYL_0;
        k1 += LS_PHILOX_WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void draw_words(uint32_t words[4], uint64_t seed, uint32_t stream, enum ls_random_kind kind,
                       uint64_t block)
{
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), stream, kind};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    ls_philox(words, counter, key);
}

/* The functions below are the C library's logf and sincosf for the arguments needed here. They are
 * our own because the library's last bit depends on its version and on the CPU, and a number may
 * depend on its seed and index alone. Plain series: every term is an exact fraction. */

/* -ln of (word + 1/2) / 2^32, which is in (0, 1]. With x = 2^e m and m in [sqrt(1/2), sqrt(2)),
 * ln x = e ln 2 + 2 artanh(r), r = (m - 1) / (m + 1), |r| < 0.172; the first term left out is
 * below 5e-10. */
static float minus_log(uint32_t word)
{
    const uint32_t sqrt_half = 0x3f3504f3, mantissa = 0x007fffff;
    const uint32_t bits = bits_of_f32((float)word + 0.5F) - sqrt_half;
    const int e = (int32_t)bits >> 23;
    const float m = f32_of_bits((bits & mantissa) + sqrt_half);
    const float r = (m - 1) / (m + 1), rr = r * r;
    const float artanh = r + r * rr * (1 / 3.0F + rr * (1 / 5.0F + rr * (1 / 7.0F + rr / 9)));

    return (float)(32 - e) * 0.693147181F - 2 * artanh;
}

/* Sine and cosine of 2 pi word / 2^32: the nearest multiple of a quarter turn is taken off as an
 * integer; for |x| <= pi/4 the first terms left out are below 2e-9 and 3e-8. */
static void sine_cosine(float *sine, float *cosine, uint32_t word)
{
    const uint32_t quarter = (word + (UINT32_C(1) << 29)) >> 30;
    const float x = (float)(int32_t)(word - (quarter << 30)) * (1.57079633F / (1 << 30));
    const float xx = x * x;
    const float s = x - x * xx * (1 / 6.0F - xx * (1 / 120.0F - xx * (1 / 5040.0F - xx / 362880)));
    const float c = 1 - xx * (0.5F - xx * (1 / 24.0F - xx * (1 / 720.0F - xx / 40320)));
    const float swapped_s = quarter & 1 ? c : s, swapped_c = quarter & 1 ? s : c;

    *sine = quarter & 2 ? -swapped_s : swapped_s;
    *cosine = (quarter + 1) & 2 ? -swapped_c : swapped_c;
}

/* Normal numbers 4 block to 4 block + 3. Source: Box, Muller 1958. */
static void normal_block(float out[4], uint64_t seed, uint32_t stream, uint64_t block)
{
    uint32_t words[4];

    draw_words(words, seed, stream, LS_RANDOM_NORMAL, block);
    for (int i = 0; i < 4; i += 2) {
        const float radius = sqrtf(2 * minus_log(words[i]));
        float sine, cosine;

        sine_cosine(&sine, &cosine, words[i + 1]);
        out[i] = radius * cosine;
        out[i + 1] = radius * sine;
    }
}

void ls_random_normal(float *out, uint64_t seed, uint32_t stream, uint64_t first, int64_t n)
{
    int64_t done = 0;

    while (done < n) {
        const uint64_t index = first + (uint64_t)done;
        const int skip = (int)(index % 4);
        float block[4];

        if (skip == 0 && n - done >= 4) {
            normal_block(out + done, seed, stream, index / 4);
            done += 4;
            continue;
        }
        normal_block(block, seed, stream, index / 4);
        for (int i = skip; i < 4 && done < n; i++) out[done++] = block[i];
    }
}

uint64_t ls_random_below(uint64_t seed, uint32_t stream, uint64_t index, uint64_t bound)
{
    uint32_t words[4];

    draw_words(words, seed, stream, LS_RANDOM_BELOW, index);
    const uint64_t fraction = (uint64_t)words[1] << 32 | words[0];

    /* fraction / 2^64 of bound, rounded down: uniform to within bound / 2^64 */
    return (uint64_t)((unsigned __int128)fraction * bound >> 64);
}

void ls_random_dropout(uint32_t *out, uint64_t seed, uint32_t head, uint64_t row, uint64_t block,
                       int n)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};

    for (; n >= LS_PHILOX_WIDE; n -= LS_PHILOX_WIDE, block += LS_PHILOX_WIDE, out += LS_PHILOX_KEYS)
        ls_philox_dropout(out, seed, LS_RANDOM_DROPOUT, head, row, block);
    for (; n > 0; n--, block++, out += 4) {
        uint32_t counter[4];

        ls_dropout_counter(counter, LS_RANDOM_DROPOUT, head, row, block);
        ls_philox(out, counter, key);
    }
}
