#include "attention/merging/states.h"

#include <string.h>

#include "plan/attention_size.h"

int64_t ls_state_count(const struct ls_attention_shape *shape, int64_t rows)
{
    return (int64_t)(ls_row_state_bytes(shape, rows) / sizeof(float));
}

struct ls_row_states ls_states_in(float *memory, const struct ls_attention_shape *shape,
                                  int64_t rows)
{
    const int64_t all = shape->b * shape->h * rows;
    float *m = memory + all * shape->d;

    return (struct ls_row_states){.acc = memory, .m = m, .l = m + all};
}

void ls_states_take(float *out, const struct ls_row_states *states,
                    const struct ls_attention_shape *shape, struct ls_row_range rows)
{
    const struct ls_row_states to = ls_states_in(out, shape, rows.count);
    const size_t n = (size_t)rows.count * sizeof(float);

    for (int64_t head = 0; head < shape->b * shape->h; head++) {
        const int64_t from = head * rows.of + rows.first, at = head * rows.count;

        memcpy(to.acc + at * shape->d, states->acc + from * shape->d, (size_t)shape->d * n);
        memcpy(to.m + at, states->m + from, n);
        memcpy(to.l + at, states->l + from, n);
    }
}
