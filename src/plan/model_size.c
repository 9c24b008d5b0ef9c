#include "plan/model_size.h"

#include "longspan/layout.h"
#include "plan/layer_work.h"
#include "plan/model_widths.h"
#include "tensor/dtype.h"

/* ---- parameters */

static int64_t norm_parameters(const struct ls_model_shape *model)
{
    return model->norm == LS_NORM_LAYER ? 2 * model->h : model->h;
}

/* Of one of t ranks; those of norms and behind row-parallel linears are every rank's. */
static int64_t layer_parameters(const struct ls_model_shape *model, int64_t t)
{
    const int64_t h = model->h, qkv = qkv_width(model, t), mlp = mlp_width(model, t);
    int64_t n = times(model->parallel ? 1 : 2, norm_parameters(model));

    n = plus(n, times(h, qkv));
    n = plus(n, times(model->a / t * model->d, h));
    n = plus(n, times(h, plus(mlp, model->f / t)));
    if (model->bias || model->bias_qkv) n = plus(n, qkv);
    if (model->bias) n = plus(n, plus(mlp, 2 * h));
    return n;
}

static int64_t word_parameters(const struct ls_model_shape *model, int64_t t)
{
    return times(share(model->v, t), model->h);
}

static int64_t first_parameters(const struct ls_model_shape *model, int64_t t)
{
    int64_t n = word_parameters(model, t);

    if (model->positions == LS_POSITIONS_LEARNED)
        n = plus(n, times(model->most_positions, model->h));
    return plus(n, model->embedding_norm ? norm_parameters(model) : 0);
}

/* The last norm and the output layer. */
static int64_t last_parameters(const struct ls_model_shape *model, int64_t t)
{
    const int64_t norm = model->post_norm ? 0 : norm_parameters(model);

    return plus(norm, model->tied ? 0 : word_parameters(model, t));
}

int64_t ls_model_parameters(const struct ls_model_shape *model)
{
    return plus(times(model->L, layer_parameters(model, 1)),
                plus(first_parameters(model, 1), last_parameters(model, 1)));
}

int64_t ls_rank_parameters(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const int64_t layers = times(model->L / run->p, layer_parameters(model, run->t));

    return plus(plus(layers, first_parameters(model, run->t)),
                run->p == 1 ? last_parameters(model, run->t) : 0);
}

/* ---- work */

/* Of one product of attention for every head of a batch: q k^T, say. */
static double product_flops(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const double s = (double)run->s, pairs = run->causal ? s * (s + 1) / 2 : s * s;

    return 2 * (double)run->b * (double)(model->a * model->d) * pairs;
}

static double linear_flops(const struct ls_model_shape *model, const struct ls_model_run *run,
                           int64_t out)
{
    return 2 * (double)(run->b * run->s) * (double)model->h * (double)out;
}

struct ls_step_flops ls_model_flops(const struct ls_model_shape *model,
                                    const struct ls_model_run *run)
{
    const double L = (double)model->L, core = 2 * product_flops(model, run);
    const double linears = linear_flops(model, run,
                                        run->t * qkv_width(model, run->t) + model->a * model->d +
                                            mlp_width(model, 1) + model->f);
    const double logits = linear_flops(model, run, model->v);
    /* the fused core has q k^T once more: five products */
    const double core_backward = core * (run->core == LS_CORE_FUSED ? 2.5 : 2);

    return (struct ls_step_flops){
        .forward = L * (linears + core) + logits,
        .backward = L * (2 * linears + core_backward) + 2 * logits,
        .again = L * (double)(run->t * run->c) * ls_layer_again(model, run).flops,
    };
}

/* ---- all of it */

int64_t ls_part_layers(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    return model->L / (run->p * run->m);
}

int64_t ls_part_copies(const struct ls_model_run *run)
{
    return run->m == 1 ? run->p : run->p * run->m + run->p - 1;
}

static ls_status check_division(const char *what, int64_t n, const char *among, int64_t ranks)
{
    if (ranks >= 1 && n % ranks == 0) return LS_OK;
    return ls_fail(LS_EVALUE, "%lld %s cannot be shared evenly by %lld %s", (long long)n, what,
                   (long long)ranks, among);
}

static ls_status check_run(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    const int64_t leaves = share(run->s, LS_LEAF);

    LS_TRY(check_division("heads", model->a, "tensor-parallel ranks", run->t));
    if (run->t % model->a_kv != 0)
        LS_TRY(check_division("key/value heads", model->a_kv, "tensor-parallel ranks", run->t));
    LS_TRY(check_division("columns of the MLP", model->f, "tensor-parallel ranks", run->t));
    LS_TRY(check_division("layers", model->L, "parts of stages of the pipeline", run->p * run->m));
    if (run->c > leaves)
        return ls_fail(LS_EVALUE,
                       "%lld context-parallel ranks share the sequence in leaves of %d, and %lld "
                       "positions are %lld of them",
                       (long long)run->c, LS_LEAF, (long long)run->s, (long long)leaves);
    if (run->m > 1 && run->p == 1)
        return ls_fail(LS_EVALUE, "one stage of the pipeline has nothing to interleave: %lld parts",
                       (long long)run->m);
    return LS_OK;
}

ls_status ls_model_bytes(struct ls_rank_bytes *out, const struct ls_model_shape *model,
                         const struct ls_model_run *run)
{
    LS_TRY(check_run(model, run));
    const int64_t n = ls_rank_parameters(model, run);
    const struct ls_kept_bytes layer = ls_layer_kept_bytes(model, run);
    const struct ls_kept_bytes ends = ls_ends_kept_bytes(model, run);
    const struct ls_rank_bytes bytes = {
        .parameters = times(n, ls_dtype_size(run->type)),
        .gradients = times(n, LS_GRADIENT_BYTES),
        .optimizer = times(n, LS_OPTIMIZER_BYTES),
        .layers = times(times(ls_part_layers(model, run), ls_part_copies(run)),
                        plus(layer.paper, layer.own)),
        .ends = plus(ends.paper, ends.own),
        .recompute = ls_layer_again_bytes(model, run),
    };

    if (ls_rank_bytes_total(&bytes) == INT64_MAX)
        return ls_fail(LS_EVALUE, "the bytes of this model on a rank are beyond 2^63");
    *out = bytes;
    return LS_OK;
}

int64_t ls_rank_bytes_total(const struct ls_rank_bytes *bytes)
{
    return plus(plus(plus(bytes->parameters, bytes->gradients), bytes->optimizer),
                plus(plus(bytes->layers, bytes->ends), bytes->recompute));
}
