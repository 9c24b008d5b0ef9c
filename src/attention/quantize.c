/* Keys and values in 8 bits, with scales and a mean that do not depend on how they are split. */
#include "longspan/quantize.h"

#include <stdlib.h>

#include "attention/agreement.h"
#include "attention/exact_total.h"
#include "attention/operands.h"
#include "attention/plan.h"
#include "base/exact_sum.h"
#include "device/quantize.h"

/* What is found out about all keys, or values; of the host. */
struct findings {
    int64_t *limb, *rows, *of_ranks; /* of the mean: [b, h_kv, d][limbs], [b, h_kv] */
    float *largest;                  /* [b, h_kv] */
    double *numbers;                 /* [b, h_kv], to be reduced */
};

static ls_status check(const struct ls_attention_plan *plan, const struct ls_tensor *k_out,
                       const struct ls_tensor *v_out, const struct ls_tensor *k,
                       const struct ls_tensor *v)
{
    const struct ls_attention_shape *s = &plan->problem.shape;
    const struct ls_part_dims out = ls_plan_part_dims(plan);
    const int64_t k_dim[] = {s->b, plan->k_rows, s->h_kv, s->d};
    const int64_t v_dim[] = {s->b, plan->k_rows, s->h_kv, ls_value_dim(s)};
    const struct ls_operand list[] = {{"8-bit k", k_out, s->kv_type, 4, out.k, false},
                                      {"8-bit v", v_out, s->kv_type, 4, out.v, false},
                                      {"k", k, s->type, 4, k_dim, false},
                                      {"v", v, s->type, 4, v_dim, false}};

    if (!ls_keys_are_quantized(s))
        return ls_fail(LS_EVALUE, "the plan takes keys of type %s: its shape has no kv_type",
                       ls_dtype_name(s->type));
    return ls_operands_check(list, sizeof list / sizeof *list, 2, plan->problem.device);
}

static int64_t pairs(const struct ls_attention_plan *plan)
{
    return plan->problem.shape.b * plan->problem.shape.h_kv;
}

static ls_status create(struct findings *out, const struct ls_attention_plan *plan)
{
    const size_t n = (size_t)pairs(plan), d = (size_t)plan->problem.shape.d;

    out->limb = calloc(n * d * LS_EXACT_LIMBS, sizeof *out->limb);
    out->rows = calloc(n, sizeof *out->rows);
    out->of_ranks = malloc(ls_exact_total_bytes(plan->problem.p));
    out->largest = calloc(n, sizeof *out->largest);
    out->numbers = calloc(n, sizeof *out->numbers);
    if (out->limb && out->rows && out->of_ranks && out->largest && out->numbers) return LS_OK;
    return ls_fail(LS_ENOMEM, "keys and values of 8 bits: out of memory");
}

static void destroy(struct findings *f)
{
    free(f->limb);
    free(f->rows);
    free(f->of_ranks);
    free(f->largest);
    free(f->numbers);
}

/* Collective: whether what was put into the queue went well on all ranks. */
static ls_status finish(struct ls_attention_plan *plan)
{
    return ls_comm_agree(plan->comm, ls_queue_finish(NULL, ls_plan_queue(plan)));
}

static ls_status find_mean(float *mean, struct findings *f, struct ls_attention_plan *plan,
                           const struct ls_tensor *k)
{
    const int64_t d = plan->problem.shape.d, n = pairs(plan);

    ls_quantize_sum(ls_plan_queue(plan), f->limb, f->rows, k);
    LS_TRY(finish(plan));
    LS_TRY(ls_exact_total(f->limb, n * d, plan->comm, f->of_ranks));
    for (int64_t i = 0; i < n; i++) f->numbers[i] = (double)f->rows[i];
    LS_TRY(ls_comm_reduce(f->numbers, plan->comm, (int)n, LS_REDUCE_SUM));
    for (int64_t i = 0; i < n * d; i++) {
        const double rows = f->numbers[i / d];

        mean[i] = rows > 0 ? (float)(ls_exact_value(f->limb + i * LS_EXACT_LIMBS) / rows) : 0;
    }
    return LS_OK;
}

static ls_status find_largest(struct findings *f, struct ls_attention_plan *plan,
                              const struct ls_tensor *x, const float *mean)
{
    const int64_t n = pairs(plan);

    ls_quantize_largest(ls_plan_queue(plan), f->largest, x, mean);
    LS_TRY(finish(plan));
    for (int64_t i = 0; i < n; i++) f->numbers[i] = (double)f->largest[i];
    LS_TRY(ls_comm_reduce(f->numbers, plan->comm, (int)n, LS_REDUCE_MAX));
    for (int64_t i = 0; i < n; i++) f->largest[i] = (float)f->numbers[i];
    return LS_OK;
}

static ls_status round_rows(struct ls_tensor *out, struct findings *f,
                            struct ls_attention_plan *plan, const struct ls_tensor *x,
                            const float *mean)
{
    const bool of_heads = out->type == LS_E4M3;

    if (of_heads) LS_TRY(find_largest(f, plan, x, mean));
    ls_quantize_round(ls_plan_queue(plan), out, x, mean, of_heads ? f->largest : NULL);
    return finish(plan);
}

ls_status ls_attention_quantize(struct ls_tensor *k_out, struct ls_tensor *v_out, float *key_mean,
                                struct ls_attention_plan *plan, const struct ls_tensor *k,
                                const struct ls_tensor *v)
{
    const struct ls_topic topics[] = {{"wish for a mean of keys", key_mean != NULL, false}};
    struct findings f = {0};

    LS_TRY(ls_agree_about(plan->comm, check(plan, k_out, v_out, k, v), topics, 1));
    ls_status status = ls_comm_agree(plan->comm, create(&f, plan));

    if (status == LS_OK && key_mean) status = find_mean(key_mean, &f, plan, k);
    if (status == LS_OK) status = round_rows(k_out, &f, plan, k, key_mean);
    if (status == LS_OK) status = round_rows(v_out, &f, plan, v, NULL);
    destroy(&f);
    return status;
}
