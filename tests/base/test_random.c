#include "base/random.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The known answers that Random123, the authors' own library, is shipped with. */
Test(random, philox_gives_the_known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], answer[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t words[4];

        ls_philox(words, cases[i].counter, cases[i].key);
        for (int j = 0; j < 4; j++)
            cr_expect_eq(words[j], cases[i].answer[j], "case %zu word %d: %08x", i, j, words[j]);
    }
}

struct polar {
    double radius, value;
};

/* What random.h promises, in double precision with the C library's functions. */
static struct polar normal(uint64_t seed, uint32_t stream, uint64_t index)
{
    const uint64_t block = index / 4;
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), stream, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const double pi = 3.14159265358979323846;
    uint32_t words[4];

    ls_philox(words, counter, key);
    const int pair = (int)(index % 4) / 2 * 2;
    const double radius = sqrt(-2 * log((words[pair] + 0.5) * 0x1p-32));
    const double angle = 2 * pi * words[pair + 1] * 0x1p-32;

    return (struct polar){radius, radius * (index % 2 == 0 ? cos(angle) : sin(angle))};
}

/* f32 rounds the uniform number, by 2^-25 where it is near 1, and the radius inherits that; all
 * other steps have an error relative to the radius, which is below 7. */
Test(random, normal_numbers_are_box_muller_of_philox)
{
    static const struct {
        uint64_t seed, first;
        uint32_t stream;
    } cases[] = {{0, 0, 0}, {UINT64_C(0x123456789abcdef0), 7, 3}, {1, UINT64_C(5) << 33, 0}};
    enum { N = 20000 };
    static float out[N];

    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        ls_random_normal(out, cases[c].seed, cases[c].stream, cases[c].first, N);
        for (int i = 0; i < N; i++) {
            const struct polar exact =
                normal(cases[c].seed, cases[c].stream, cases[c].first + (uint64_t)i);
            const double bound = 2.5e-7 * exact.radius + 0x1p-24 / exact.radius;

            cr_assert_leq(fabs(out[i] - exact.value), bound, "case %zu number %d: %.9g, not %.9g",
                          c, i, out[i], exact.value);
        }
    }
}

Test(random, any_window_gives_the_numbers_of_one_large_call)
{
    enum { N = 40 };
    float all[N], window[N + 1];

    ls_random_normal(all, 42, 1, 1000, N);
    for (int first = 0; first <= N; first++)
        for (int n = 0; first + n <= N; n++) {
            window[n] = 99;
            ls_random_normal(window, 42, 1, 1000 + (uint64_t)first, n);
            cr_expect_arr_eq(window, all + first, (size_t)n * sizeof *all, "[%d, +%d)", first, n);
            cr_expect_eq(window[n], 99, "[%d, +%d) wrote behind its end", first, n);
        }
}

/* Results that were saved with a seed stay comparable: on every compiler, CPU and C library. */
Test(random, the_bits_never_change)
{
    enum { N = 4096 };
    float out[N];
    uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a of the 32-bit patterns */

    ls_random_normal(out, 2024, 5, 0, N);
    for (int i = 0; i < N; i++) {
        uint32_t bits;

        memcpy(&bits, &out[i], sizeof bits);
        hash = (hash ^ bits) * UINT64_C(0x100000001b3);
    }
    cr_expect_eq(hash, UINT64_C(0x973144a95c7ba1dc), "%016llx", (unsigned long long)hash);
    cr_expect_eq(ls_random_below(2024, 5, 17, 1000000), 872666, "%llu",
                 (unsigned long long)ls_random_below(2024, 5, 17, 1000000));
}

Test(random, normal_numbers_have_the_moments_and_tails_of_the_normal_law)
{
    enum { N = 1 << 20 };
    float *const out = malloc(N * sizeof *out);
    double sum = 0, squares = 0, fourth = 0, neighbours = 0;
    int beyond2 = 0, beyond4 = 0;

    cr_assert_neq(out, NULL);
    ls_random_normal(out, 7, 0, 0, N);
    for (int i = 0; i < N; i++) {
        const double x = out[i];

        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
        neighbours += i > 0 ? x * out[i - 1] : 0;
        beyond2 += fabs(x) > 2;
        beyond4 += fabs(x) > 4;
        cr_assert(isfinite(out[i]) && fabs(x) < 6.9, "number %d is %g", i, x);
    }
    free(out);
    /* five standard deviations of each estimate; beyond 2: 4.550 %, beyond 4: 6.33e-5 */
    cr_expect_lt(fabs(sum / N), 5 / sqrt(N));
    cr_expect_lt(fabs(squares / N - 1), 5 * sqrt(2.0 / N));
    cr_expect_lt(fabs(fourth / N - 3), 5 * sqrt(96.0 / N));
    cr_expect_lt(fabs(neighbours / N), 5 / sqrt(N));
    cr_expect_lt(fabs(beyond2 / (double)N - 0.0455003), 5 * sqrt(0.0434 / N));
    cr_expect_lt(fabs(beyond4 - 6.334e-5 * N), 5 * sqrt(6.334e-5 * N));
}

Test(random, seeds_streams_and_high_index_bits_all_matter)
{
    static const struct {
        uint64_t seed, first;
        uint32_t stream;
    } variants[] = {
        {1, 0, 0}, {2, 0, 0}, {UINT64_C(1) << 32 | 1, 0, 0}, {1, 0, 1}, {1, UINT64_C(1) << 34, 0},
    };
    enum { VARIANTS = sizeof variants / sizeof *variants, N = 64 };
    float out[VARIANTS][N];

    for (int v = 0; v < VARIANTS; v++) {
        ls_random_normal(out[v], variants[v].seed, variants[v].stream, variants[v].first, N);
        for (int w = 0; w < v; w++)
            for (int i = 0; i < N; i++)
                cr_expect_neq(out[v][i], out[w][i], "variants %d and %d, number %d", v, w, i);
    }
}

Test(random, integers_are_uniform_below_their_bound)
{
    enum { DRAWS = 30000 };
    static const uint64_t bounds[] = {1, 2, 3, 10, 257};

    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++) {
        const double expected = DRAWS / (double)bounds[b];
        int counts[257] = {0};

        for (uint64_t i = 0; i < DRAWS; i++) {
            const uint64_t x = ls_random_below(11, 2, i, bounds[b]);

            cr_assert_lt(x, bounds[b]);
            counts[x]++;
        }
        for (uint64_t x = 0; x < bounds[b]; x++)
            cr_expect_leq(fabs(counts[x] - expected), 5 * sqrt(expected), "%d of %g are %d of %d",
                          counts[x], expected, (int)x, (int)bounds[b]);
    }
}

Test(random, integers_reach_all_of_64_bits)
{
    const uint64_t bound = UINT64_MAX;
    uint64_t ones = 0, zeros = 0;

    for (uint64_t i = 0; i < 64; i++) {
        ones |= ls_random_below(3, 0, i, bound);
        zeros |= ~ls_random_below(3, 0, i, bound);
    }
    cr_expect_eq(ones, UINT64_MAX);
    cr_expect_eq(zeros, UINT64_MAX);
}
