/* A sum of numbers that f32 or sums of it can be, kept exactly: it does not depend on the order in
 * which they come, nor on who adds them. It is an integer times 2^-160, in limbs of 32 bits each of
 * which has room for 2^31 additions before it is carried.
 * Source: Kulisch 1971 (long accumulators); Collange, Defour, Graillat, Iakymchuk 2015. */
#ifndef LS_BASE_EXACT_SUM_H
#define LS_BASE_EXACT_SUM_H

#include <stdint.h>

/* The last one counts numbers that are none, and those beyond 2^159. */
#define LS_EXACT_LIMBS 11

/* limb [LS_EXACT_LIMBS], zeros at first. x: a multiple of 2^-160, or its lowest bits are lost. Any
 * threads may add to the same sum. */
void ls_exact_add(int64_t *limb, double x);

/* Carries, so that limbs but the last two are 0 to 2^32 - 1: 2^31 such sums may then be added limb
 * by limb. */
void ls_exact_carry(int64_t *limb);

/* The sum, rounded; NaN if one was no number. */
double ls_exact_value(const int64_t *limb);

#endif
