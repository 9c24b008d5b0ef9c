#include "plan/memory.h"

#include "plan/attention_size.h"
#include "plan/model_widths.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- rows and heads of the rank that has most: the first */

/* Rows of a sequence that attention and MLP work on. */
static int64_t part_rows(const struct ls_model_run *run)
{
    const struct ls_layout layout = {.kind = run->causal && run->c > 1 ? LS_LAYOUT_ZIGZAG
                                                                       : LS_LAYOUT_CONTIGUOUS,
                                     .s = run->s,
                                     .p = (int)run->c};

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

struct list {
    struct ls_kept *kept;
    int count;
};

static void keep(struct list *list, const char *name, int64_t rows, int64_t bytes_of_row,
                 unsigned pieces)
{
    list->kept[list->count++] =
        (struct ls_kept){name, times(rows, bytes_of_row), true, pieces | LS_PIECE_LAYER};
}

static void keep_own(struct list *list, const char *name, int64_t rows, int64_t bytes_of_row,
                     unsigned pieces)
{
    keep(list, name, rows, bytes_of_row, pieces);
    list->kept[list->count - 1].paper = false;
}

/* Between q, k and v and the attention's output: 5as^2b of the paper, or 4asb of our own. */
static void keep_core(struct list *list, const struct ls_model_shape *model,
                      const struct ls_model_run *run)
{
    const unsigned pieces = LS_PIECE_SOFTMAX | LS_PIECE_CORE;
    const int64_t element = ls_dtype_size(run->type);
    const int64_t rows = times(inner_rows(run), model->a / run->t); /* of every head */

    if (run->core == LS_CORE_FUSED) {
        keep_own(list, "LSE", rows, sizeof(float), LS_PIECE_CORE);
        return;
    }
    keep(list, "softmax", rows, times(run->s, element), pieces);
    if (!run->dropout) return;
    keep(list, "mask of softmax", rows, run->s, pieces);
    keep(list, "dropped softmax", rows, times(run->s, element), pieces);
}

/* 11sbh of the paper, and the input of the norm. */
static void keep_attention(struct list *list, const struct ls_model_shape *model,
                           const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), row = times(model->h, element);
    const int64_t inner = inner_rows(run), outer = outer_rows(run);

    keep(list, "layer's input", outer, row, 0);
    list->kept[list->count - 1].pieces = 0; /* all else comes from it */
    if (!model->post_norm) keep(list, "norm 1", outer, row, LS_PIECE_NORM);
    keep(list, "q, k, v", inner, times(qkv_width(model, run->t), element), LS_PIECE_QKV);
    keep_core(list, model, run);
    keep(list, "attention", inner, times(model->a / run->t * model->d, element), LS_PIECE_CORE);
    if (run->dropout) keep(list, "mask behind attention", outer, model->h, LS_PIECE_DROPOUT);
}

/* 19sbh of the paper, and the input of the norm. */
static void keep_mlp(struct list *list, const struct ls_model_shape *model,
                     const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), row = times(model->h, element);
    const int64_t inner = inner_rows(run), outer = outer_rows(run);

    if (!model->parallel) {
        keep(list, model->post_norm ? "norm 1's input" : "norm 2's input", outer, row, 0);
        keep(list, model->post_norm ? "norm 1" : "norm 2", outer, row, LS_PIECE_NORM);
    }
    keep(list, "MLP's first linear", inner, times(mlp_width(model, run->t), element), LS_PIECE_MLP);
    keep(list, "MLP's activation", inner, times(model->f / run->t, element),
         LS_PIECE_ACTIVATION | LS_PIECE_MLP);
    if (run->dropout) keep(list, "mask behind MLP", outer, model->h, LS_PIECE_DROPOUT);
    if (model->post_norm) keep(list, "norm 2's input", outer, row, 0);
}

static int64_t statistics_bytes(const struct ls_model_shape *model)
{
    return model->norm == LS_NORM_LAYER ? 2 * sizeof(float) : sizeof(float);
}

int ls_layer_keeps(struct ls_kept out[LS_MOST_KEPT], const struct ls_model_shape *model,
                   const struct ls_model_run *run)
{
    struct list list = {out, 0};

    keep_attention(&list, model, run);
    keep_mlp(&list, model, run);
    keep_own(&list, "statistics of norms", outer_rows(run), norms(model) * statistics_bytes(model),
             0);
    return list.count;
}

struct ls_kept_bytes ls_layer_kept_bytes(const struct ls_model_shape *model,
                                         const struct ls_model_run *run)
{
    struct ls_kept kept[LS_MOST_KEPT];
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
