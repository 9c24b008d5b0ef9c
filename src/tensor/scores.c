#include "tensor/scores.h"

#include "base/random.h"

bool ls_scores_are_plain(const struct ls_scores *scores)
{
    return scores->soft_cap == 0 && !scores->alibi && scores->dropout == 0;
}

void ls_dropout_kept(bool *kept, const struct ls_scores *scores, int64_t batch, int64_t head,
                     int64_t row, int64_t first, int n)
{
    const uint32_t pair = (uint32_t)(batch * scores->heads + head);
    const double bound = (double)scores->dropout * 0x1p32;
    uint32_t word[4];

    for (int j = 0; j < n; j++) {
        if (j % 4 == 0)
            ls_random_dropout(word, scores->seed, pair, (uint64_t)row, (uint64_t)(first + j) / 4);
        kept[j] = word[j % 4] >= bound;
    }
}
