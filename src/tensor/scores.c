#include "tensor/scores.h"

#include <math.h>

#include "base/random.h"

#define BLOCK 256 /* keys */

bool ls_scores_are_products(const struct ls_scores *scores)
{
    return scores->soft_cap == 0 && !scores->alibi && !scores->distance_bias && !scores->bias;
}

bool ls_scores_are_plain(const struct ls_scores *scores)
{
    return ls_scores_are_products(scores) && scores->dropout == 0;
}

void ls_alibi_slopes(float *out, int64_t heads)
{
    int64_t power = 1;

    while (2 * power <= heads) power *= 2;
    for (int64_t i = 0; i < heads; i++) {
        /* the higher power's steps are half as long */
        const double steps = i < power ? (double)(i + 1) : (double)(i - power) + 0.5;

        out[i] = (float)exp2(-8 * steps / (double)power);
    }
}

struct ls_dropout ls_dropout_of_keys(const struct ls_scores *scores, int64_t batch, int64_t head)
{
    return (struct ls_dropout){.rate = scores->dropout,
                               .seed = scores->seed,
                               .stream = (uint32_t)(batch * scores->heads + head)};
}

void ls_dropout_kept(bool *kept, const struct ls_scores *scores, int64_t batch, int64_t head,
                     int64_t row, int64_t first, int n)
{
    const struct ls_dropout dropout = ls_dropout_of_keys(scores, batch, head);
    const uint32_t least = ls_dropout_least_word(&dropout);
    uint32_t word[BLOCK];

    for (; n > 0; n -= BLOCK, first += BLOCK, kept += BLOCK) {
        const int keys = n < BLOCK ? n : BLOCK;

        ls_random_dropout(word, dropout.seed, dropout.stream, (uint64_t)row, (uint64_t)first / 4,
                          (keys + 3) / 4);
        for (int j = 0; j < keys; j++) kept[j] = word[j] >= least;
    }
}
