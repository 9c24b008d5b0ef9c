#include "attention/merging/states.h"

#include <stdlib.h>

#include "base/ledger.h"
#include "plan/attention_size.h"

int64_t ls_state_count(const struct ls_attention_shape *shape, int64_t rows)
{
    return (int64_t)(ls_row_state_bytes(shape, rows) / sizeof(float));
}

struct ls_row_states ls_states_in(float *memory, const struct ls_attention_shape *shape,
                                  int64_t rows)
{
    const int64_t all = shape->b * shape->h * rows;
    float *m = memory + all * ls_value_dim(shape);

    return (struct ls_row_states){.acc = memory, .m = m, .l = m + all};
}

ls_status ls_states_create(struct ls_row_states **out, void **memory,
                           const struct ls_problem *problem, int64_t count, int64_t rows)
{
    const struct ls_attention_shape *s = &problem->shape;

    *out = calloc((size_t)count + 1, sizeof **out);
    if (!*out) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    LS_TRY(ls_problem_alloc(memory, problem, LS_TAG_WORKSPACE,
                            (size_t)count * ls_row_state_bytes(s, rows)));
    for (int64_t i = 0; i < count; i++)
        (*out)[i] = ls_states_in((float *)*memory + i * ls_state_count(s, rows), s, rows);
    return LS_OK;
}

void ls_states_take(float *out, const struct ls_row_states *states,
                    const struct ls_problem *problem, struct ls_row_range rows)
{
    const struct ls_attention_shape *s = &problem->shape;
    const struct ls_row_states to = ls_states_in(out, s, rows.count);
    const int64_t heads = s->b * s->h, d = ls_value_dim(s);

    ls_problem_copy_floats(problem, to.acc, rows.count * d, states->acc + rows.first * d,
                           rows.of * d, heads, rows.count * d);
    ls_problem_copy_floats(problem, to.m, rows.count, states->m + rows.first, rows.of, heads,
                           rows.count);
    ls_problem_copy_floats(problem, to.l, rows.count, states->l + rows.first, rows.of, heads,
                           rows.count);
}
