/* Few query rows against many keys: nothing is packed, K and V are read where the caller has them,
 * each of their rows once for all query rows of a group. It takes the time that they need to come
 * from memory. */
#ifndef LS_CPU_ATTENTION_DECODE_H
#define LS_CPU_ATTENTION_DECODE_H

#include "cpu/attention/strip.h"

/* As a row of the table of products: it packs nothing and has `decode`. */
const struct products *cpu_decode_find(ls_isa isa);

/* The same of all rows of a chunk, which fit a strip, with one leaf of its keys, from w->scores on
 * to the probabilities that take their place. What a row does not see does not reach acc, whatever
 * it holds. */
void cpu_decode_scores(struct strip_worker *w, const struct chunk *chunk, int leaf,
                       struct key_span keys);
void cpu_decode_output(float *acc, const struct strip_worker *w, const struct chunk *chunk,
                       int leaf);

#endif
