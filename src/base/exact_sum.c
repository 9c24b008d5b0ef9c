#include "base/exact_sum.h"

#include <math.h>
#include <string.h>

#define BITS 32
#define LOWEST (-160) /* exponent of the first limb's unit */
#define NUMBERS (LS_EXACT_LIMBS - 1)
#define MANTISSA 53
#define BEYOND 0x1p159

static void add_to(int64_t *limb, int64_t x)
{
    if (x != 0) __atomic_fetch_add(limb, x, __ATOMIC_RELAXED);
}

void ls_exact_add(int64_t *limb, double x)
{
    int exponent;

    if (x == 0) return;
    if (!(fabs(x) < BEYOND)) {
        add_to(&limb[NUMBERS], 1);
        return;
    }
    const double fraction = frexp(x, &exponent);
    int place = exponent - MANTISSA - LOWEST;
    uint64_t mantissa = (uint64_t)ldexp(fabs(fraction), MANTISSA);

    if (place < 0) {
        mantissa = place > -64 ? mantissa >> -place : 0;
        place = 0;
    }
    /* three limbs from this one on */
    const int64_t sign = x < 0 ? -1 : 1;
    const unsigned __int128 shifted = (unsigned __int128)mantissa << place % BITS;

    for (int i = 0; i < 3 && place / BITS + i < NUMBERS; i++)
        add_to(&limb[place / BITS + i], sign * (int64_t)(uint32_t)(shifted >> BITS * i));
}

void ls_exact_carry(int64_t *limb)
{
    for (int i = 0; i < NUMBERS - 1; i++) {
        const int64_t low = limb[i] & UINT32_MAX;

        limb[i + 1] += (limb[i] - low) / (INT64_C(1) << BITS);
        limb[i] = low;
    }
}

double ls_exact_value(const int64_t *limb)
{
    int64_t sum[LS_EXACT_LIMBS];
    double value = 0;

    memcpy(sum, limb, sizeof sum);
    ls_exact_carry(sum);
    const int64_t sign = sum[NUMBERS - 1] < 0 ? -1 : 1;

    for (int i = 0; i < NUMBERS; i++) sum[i] *= sign;
    ls_exact_carry(sum);
    for (int i = NUMBERS - 1; i >= 0; i--) value += ldexp((double)sum[i], BITS * i + LOWEST);
    return sum[NUMBERS] != 0 ? NAN : (double)sign * value;
}
