#include "attention/distances.h"

#include <stdlib.h>

#include "attention/exact_total.h"
#include "attention/plan.h"
#include "base/exact_sum.h"
#include "device/rows.h"

static int64_t sums(const struct ls_problem *problem)
{
    return problem->shape.h * problem->scores.distances;
}

size_t ls_distances_bytes(const struct ls_problem *problem)
{
    return problem->backward ? (size_t)sums(problem) * LS_EXACT_LIMBS * sizeof(int64_t) : 0;
}

ls_status ls_distances_create(struct ls_attention_plan *plan)
{
    const size_t bytes = ls_distances_bytes(&plan->problem);
    const size_t distances = (size_t)plan->problem.scores.distances;
    struct ls_gradients *g = &plan->gradients;
    void *memory;

    if (bytes == 0) return LS_OK;
    g->limbs = malloc(distances * LS_EXACT_LIMBS * sizeof *g->limbs);
    g->of_ranks = malloc(ls_exact_total_bytes(plan->problem.p));
    g->biases = malloc(distances * sizeof *g->biases);
    if (!g->limbs || !g->of_ranks || !g->biases)
        return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    LS_TRY(ls_problem_alloc(&memory, &plan->problem, LS_TAG_GRADIENT, bytes));
    g->distance = memory;
    return LS_OK;
}

void ls_distances_destroy(struct ls_attention_plan *plan)
{
    struct ls_gradients *g = &plan->gradients;

    ls_problem_free(&plan->problem, g->distance);
    free(g->limbs);
    free(g->of_ranks);
    free(g->biases);
}

void ls_distances_begin(struct ls_attention_plan *plan)
{
    const int64_t n = sums(&plan->problem) * LS_EXACT_LIMBS;
    struct ls_tensor all = ls_tensor_view(plan->gradients.distance, LS_F64, 1, &n);

    ls_zero(ls_plan_queue(plan), &all);
    plan->now.distances = (struct ls_distance_sums){.limb = plan->gradients.distance,
                                                    .first_head = plan->problem.scores.first_head};
}

static ls_status add_ranks(float *out, struct ls_attention_plan *plan, int64_t head)
{
    const struct ls_gradients *g = &plan->gradients;
    const int64_t distances = plan->problem.scores.distances, limbs = distances * LS_EXACT_LIMBS;

    ls_device_read(plan->problem.device, g->limbs, g->distance + head * limbs,
                   (size_t)limbs * sizeof *g->limbs);
    LS_TRY(ls_exact_total(g->limbs, distances, plan->comm, g->of_ranks));
    for (int64_t i = 0; i < distances; i++)
        g->biases[i] = (float)ls_exact_value(g->limbs + i * LS_EXACT_LIMBS);
    ls_device_write(plan->problem.device, out, g->biases, (size_t)distances * sizeof *out);
    return LS_OK;
}

ls_status ls_distances_end(struct ls_tensor *out, struct ls_attention_plan *plan)
{
    const ls_status computed = ls_queue_finish(&plan->work, ls_plan_queue(plan));

    for (int64_t head = 0; head < out->dim[0]; head++)
        LS_TRY(add_ranks((float *)out->data + head * out->stride[0], plan, head));
    return computed;
}
