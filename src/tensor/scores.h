/* From the product of a query and a key to the key's logit, and what becomes of its probability:
 *   logit = cap(scale q.k) - slope |i' - j| + bias[j - i'] + bias[i, j]
 *   cap(x) = soft_cap tanh(x / soft_cap)
 * with i' the query's place among the keys (tensor/mask.h). A sink is one more logit of a head in
 * the denominator, without a value; lse includes it. Dropout keeps a probability and divides it by
 * 1 - dropout, or makes it 0, after the denominator is taken.
 * Sources: Press, Smith, Lewis 2021 (ALiBi); Gemma 2 2024 (soft cap); Xiao et al. 2023 (sinks);
 * Raffel et al. 2020 (T5: biases by distance). */
#ifndef LS_TENSOR_SCORES_H
#define LS_TENSOR_SCORES_H

#include <stdbool.h>
#include <stdint.h>

#include "tensor/dropout.h"

struct ls_scores {
    float scale;
    float soft_cap;             /* 0: none */
    const float *alibi;         /* slopes [heads]; NULL: none. Borrowed, as sinks are. */
    const float *sinks;         /* logits [heads]; NULL: none; read in every execution */
    const float *distance_bias; /* [heads][distances], the middle one of 0; NULL: none. Borrowed */
    int64_t distances;          /* odd */
    /* of each query and key, rows of bias_keys; NULL: none. Borrowed, read in every execution */
    const float *bias;
    int64_t bias_keys;
    int64_t bias_entry, bias_head; /* from an entry, or a head, to the next; 0: they share it */
    float dropout;                 /* 0 to below 1 */
    uint64_t seed;                 /* of dropout */
    /* all there are, and which of them is head 0 of a tensor that holds some */
    int64_t heads, first_head;
};

/* Which of a head's biases key j has for a query whose place is i': of j - i' = distance, the first
 * or the last one if that is beyond them. */
static inline int64_t ls_distance_at(const struct ls_scores *scores, int64_t distance)
{
    const int64_t most = scores->distances / 2;

    return most + (distance < -most ? -most : distance > most ? most : distance);
}

static inline const float *ls_distance_biases(const struct ls_scores *scores, int64_t head)
{
    return scores->distance_bias + head * scores->distances;
}

/* Those of a query with each key; batch, head and position of the whole problem. */
static inline const float *ls_pair_biases(const struct ls_scores *scores, int64_t batch,
                                          int64_t head, int64_t position)
{
    return scores->bias + batch * scores->bias_entry + head * scores->bias_head +
           position * scores->bias_keys;
}

/* Whether a logit is nothing but scale q.k; plain: and no probability is dropped. */
bool ls_scores_are_products(const struct ls_scores *scores);
bool ls_scores_are_plain(const struct ls_scores *scores);

/* out [heads] = the standard slopes: 2^(-8 i / h) for the i-th of h heads where h is a power of
 * two; else those of the next lower power, then every other one, from the first on, of the next
 * higher. Source: the code of Press, Smith, Lewis 2021, which BLOOM and others follow. */
void ls_alibi_slopes(float *out, int64_t heads);

/* kept[j] = whether dropout keeps key first + j of this row of a head, j < n; batch, head
 * and positions of the whole problem; first is a multiple of 4. */
void ls_dropout_kept(bool *kept, const struct ls_scores *scores, int64_t batch, int64_t head,
                     int64_t row, int64_t first, int n);

/* The same as one draw: its stream is the head's number among those of all batches. */
struct ls_dropout ls_dropout_of_keys(const struct ls_scores *scores, int64_t batch, int64_t head);

#endif
