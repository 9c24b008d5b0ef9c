#include "plan/memory.h"

#include "plan/attention_size.h"
#include "plan/model_widths.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- rows and heads of the rank that has most: the first */

/* Rows of a sequence that attention and MLP work on. */
static int64_t part_rows(const struct ls_model_run *run)
{
    struct ls_layout layout = {.kind = run->layout, .s = run->s, .p = (int)run->c};

    if (layout.kind == LS_LAYOUT_AUTO)
        layout.kind = run->causal && run->c > 1 ? LS_LAYOUT_ZIGZAG : LS_LAYOUT_CONTIGUOUS;
    return ls_layout_most_rows(&layout);
}

static int64_t inner_rows(const struct ls_model_run *run)
{
    return times(run->b, part_rows(run));
}

static int64_t outer_rows(const struct ls_model_run *run)
{
    return times(run->b, share(part_rows(run), run->sp ? run->t : 1));
}

/* ---- activations */

static int64_t statistics_bytes(const struct ls_model_shape *model)
{
    return model->norm == LS_NORM_LAYER ? 2 * sizeof(float) : sizeof(float);
}

const char *ls_kept_name(ls_kept_kind kind)
{
    static const char *const names[] = {
        [LS_KEPT_INPUT] = "input",
        [LS_KEPT_NORM1] = "norm 1",
        [LS_KEPT_STATISTICS1] = "statistics of norm 1",
        [LS_KEPT_QKV] = "q, k, v",
        [LS_KEPT_SOFTMAX] = "softmax",
        [LS_KEPT_SOFTMAX_MASK] = "mask of softmax",
        [LS_KEPT_DROPPED] = "dropped softmax",
        [LS_KEPT_LSE] = "LSE",
        [LS_KEPT_ATTENTION] = "attention",
        [LS_KEPT_MASK1] = "mask behind attention",
        [LS_KEPT_SUM1] = "sum behind attention",
        [LS_KEPT_NORM2] = "norm 2",
        [LS_KEPT_STATISTICS2] = "statistics of norm 2",
        [LS_KEPT_UP] = "first linear of MLP",
        [LS_KEPT_ACTIVATION] = "activation of MLP",
        [LS_KEPT_MASK2] = "mask behind MLP",
        [LS_KEPT_SUM2] = "sum behind MLP",
    };

    return names[kind];
}

struct list {
    struct ls_kept *kept;
    int count;
};

/* The layer's input alone is never discarded: all else comes from it. */
static void keep(struct list *list, ls_kept_kind kind, int64_t rows, int64_t bytes_of_row,
                 unsigned pieces)
{
    if (kind != LS_KEPT_INPUT) pieces |= LS_PIECE_LAYER;
    list->kept[list->count++] = (struct ls_kept){kind, times(rows, bytes_of_row), true, pieces};
}

static void keep_own(struct list *list, ls_kept_kind kind, int64_t rows, int64_t bytes_of_row,
                     unsigned pieces)
{
    keep(list, kind, rows, bytes_of_row, pieces);
    list->kept[list->count - 1].paper = false;
}

/* A norm's output, and what backward needs of its rows. */
static void keep_norm(struct list *list, ls_kept_kind kind, const struct ls_model_shape *model,
                      const struct ls_model_run *run)
{
    const int64_t outer = outer_rows(run);

    keep(list, kind, outer, times(model->h, ls_dtype_size(run->type)), LS_PIECE_NORM);
    keep_own(list, kind + 1, outer, statistics_bytes(model), 0);
}

/* Between q, k and v and the attention's output: 5as^2b of the paper, or 4asb of our own. */
static void keep_core(struct list *list, const struct ls_model_shape *model,
                      const struct ls_model_run *run)
{
    const unsigned pieces = LS_PIECE_SOFTMAX | LS_PIECE_CORE;
    const int64_t element = ls_dtype_size(run->type);
    const int64_t rows = times(inner_rows(run), model->a / run->t); /* of every head */

    if (run->core == LS_CORE_FUSED) {
        keep_own(list, LS_KEPT_LSE, rows, sizeof(float), LS_PIECE_CORE);
        return;
    }
    keep(list, LS_KEPT_SOFTMAX, rows, times(run->s, element), pieces);
    if (!run->dropout) return;
    keep(list, LS_KEPT_SOFTMAX_MASK, rows, run->s, pieces);
    keep(list, LS_KEPT_DROPPED, rows, times(run->s, element), pieces);
}

/* 11sbh of the paper, and the input of the norm. */
static void keep_attention(struct list *list, const struct ls_model_shape *model,
                           const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), inner = inner_rows(run);

    keep(list, LS_KEPT_INPUT, outer_rows(run), times(model->h, element), 0);
    if (!model->post_norm) keep_norm(list, LS_KEPT_NORM1, model, run);
    keep(list, LS_KEPT_QKV, inner, times(qkv_width(model, run->t), element), LS_PIECE_QKV);
    keep_core(list, model, run);
    keep(list, LS_KEPT_ATTENTION, inner, times(model->a / run->t * model->d, element),
         LS_PIECE_CORE);
    if (run->dropout) keep(list, LS_KEPT_MASK1, outer_rows(run), model->h, LS_PIECE_DROPOUT);
}

/* 19sbh of the paper, and the input of the norm. */
static void keep_mlp(struct list *list, const struct ls_model_shape *model,
                     const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), row = times(model->h, element);
    const int64_t inner = inner_rows(run), outer = outer_rows(run);

    if (!model->parallel) {
        keep(list, LS_KEPT_SUM1, outer, row, 0);
        keep_norm(list, model->post_norm ? LS_KEPT_NORM1 : LS_KEPT_NORM2, model, run);
    }
    keep(list, LS_KEPT_UP, inner, times(mlp_width(model, run->t), element), LS_PIECE_MLP);
    keep(list, LS_KEPT_ACTIVATION, inner, times(model->f / run->t, element),
         LS_PIECE_ACTIVATION | LS_PIECE_MLP);
    if (run->dropout) keep(list, LS_KEPT_MASK2, outer, model->h, LS_PIECE_DROPOUT);
    if (!model->post_norm) return;
    keep(list, LS_KEPT_SUM2, outer, row, 0);
    keep_own(list, LS_KEPT_STATISTICS2, outer, statistics_bytes(model), 0);
}

int ls_layer_keeps(struct ls_kept out[LS_KEPT_KINDS], const struct ls_model_shape *model,
                   const struct ls_model_run *run)
{
    struct list list = {out, 0};

    keep_attention(&list, model, run);
    keep_mlp(&list, model, run);
    return list.count;
}

struct ls_kept_bytes ls_layer_kept_bytes(const struct ls_model_shape *model,
                                         const struct ls_model_run *run)
{
    struct ls_kept kept[LS_KEPT_KINDS];
    struct ls_kept_bytes bytes = {0, 0};
    const int n = ls_layer_keeps(kept, model, run);

    for (int i = 0; i < n; i++) {
        int64_t *sum = kept[i].paper ? &bytes.paper : &bytes.own;

        if (!(kept[i].pieces & run->pieces)) *sum = plus(*sum, kept[i].bytes);
    }
    return bytes;
}

double ls_paper_layer_bytes(const struct ls_model_run *run, int64_t a, int64_t h)
{
    const double s = (double)run->s, b = (double)run->b, t = (double)run->t;
    const double rows = s * b / (double)run->c, sbh = rows * (double)h;
    const double core = run->pieces & LS_PIECE_SOFTMAX ? 0 : 5 * (double)a * s * rows;

    if (run->pieces & LS_PIECE_LAYER) return 2 * sbh / (run->sp ? t : 1);
    return run->sp ? (34 * sbh + core) / t : 10 * sbh + (24 * sbh + core) / t;
}

/* ---- outside of the layers */

struct ls_kept_bytes ls_ends_kept_bytes(const struct ls_model_shape *model,
                                        const struct ls_model_run *run)
{
    const int64_t outer = outer_rows(run), row = times(model->h, ls_dtype_size(run->type));
    struct ls_kept_bytes bytes = {0, 0};

    if (run->dropout) bytes.paper = times(times(outer, model->h), run->p);
    if (run->p > 1) return bytes;
    bytes.paper = plus(bytes.paper, times(outer, 2 * row)); /* the last norm's input and output */
    bytes.paper = plus(bytes.paper, times(times(inner_rows(run), share(model->v, run->t)),
                                          sizeof(float))); /* logits */
    bytes.own = times(outer, statistics_bytes(model));
    return bytes;
}
