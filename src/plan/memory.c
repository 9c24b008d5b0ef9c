#include "plan/memory.h"

#include "plan/model_widths.h"
#include "plan/pieces.h"
#include "tensor/dtype.h"

/* ---- activations */

static int64_t statistics_bytes(const struct ls_model_shape *model)
{
    return model->norm == LS_NORM_LAYER ? 2 * sizeof(float) : sizeof(float);
}

/* A row each; statistics of norms and LSE are our own. */
const struct ls_kept_about *ls_kept_about(ls_kept_kind kind)
{
    enum {
        CORE = LS_PIECE_CORE | LS_PIECE_LAYER,
        SOFTMAX = LS_PIECE_SOFTMAX | CORE,
        NORM = LS_PIECE_NORM | LS_PIECE_LAYER,
        QKV = LS_PIECE_QKV | LS_PIECE_LAYER,
        DROPOUT = LS_PIECE_DROPOUT | LS_PIECE_LAYER,
        MLP = LS_PIECE_MLP | LS_PIECE_LAYER,
    };
    static const struct ls_kept_about rows[] = {
        [LS_KEPT_INPUT] = {"input", true, 0}, /* all else comes from it */
        [LS_KEPT_NORM1] = {"norm 1", true, NORM},
        [LS_KEPT_STATISTICS1] = {"statistics of norm 1", false, LS_PIECE_LAYER},
        [LS_KEPT_QKV] = {"q, k, v", true, QKV},
        [LS_KEPT_SOFTMAX] = {"softmax", true, SOFTMAX},
        [LS_KEPT_SOFTMAX_MASK] = {"mask of softmax", true, SOFTMAX},
        [LS_KEPT_DROPPED] = {"dropped softmax", true, SOFTMAX},
        [LS_KEPT_LSE] = {"LSE", false, CORE},
        [LS_KEPT_ATTENTION] = {"attention", true, CORE},
        [LS_KEPT_MASK1] = {"mask behind attention", true, DROPOUT},
        [LS_KEPT_SUM1] = {"sum behind attention", true, LS_PIECE_LAYER},
        [LS_KEPT_NORM2] = {"norm 2", true, NORM},
        [LS_KEPT_STATISTICS2] = {"statistics of norm 2", false, LS_PIECE_LAYER},
        [LS_KEPT_UP] = {"first linear of MLP", true, MLP},
        [LS_KEPT_ACTIVATION] = {"activation of MLP", true, LS_PIECE_ACTIVATION | MLP},
        [LS_KEPT_MASK2] = {"mask behind MLP", true, DROPOUT},
        [LS_KEPT_SUM2] = {"sum behind MLP", true, LS_PIECE_LAYER},
    };

    return &rows[kind];
}

bool ls_kept_is_discarded(ls_kept_kind kind, unsigned pieces)
{
    return ls_kept_about(kind)->pieces & pieces;
}

bool ls_kept_is_made_again(ls_kept_kind kind, unsigned pieces)
{
    return ls_kept_is_discarded(kind, pieces) && kind != LS_KEPT_MASK1 && kind != LS_KEPT_MASK2;
}

unsigned ls_kept_discarded(unsigned pieces)
{
    unsigned kinds = 0;

    for (int kind = 0; kind < LS_KEPT_KINDS; kind++)
        if (ls_kept_is_discarded(kind, pieces)) kinds |= 1U << kind;
    return kinds;
}

struct list {
    struct ls_kept *kept;
    int count;
};

static void keep(struct list *list, ls_kept_kind kind, int64_t rows, int64_t bytes_of_row)
{
    list->kept[list->count++] = (struct ls_kept){kind, times(rows, bytes_of_row)};
}

/* A norm's output, and what backward needs of its rows. */
static void keep_norm(struct list *list, ls_kept_kind kind, const struct ls_model_shape *model,
                      const struct ls_model_run *run)
{
    const int64_t outer = outer_rows(run);

    keep(list, kind, outer, times(model->h, ls_dtype_size(run->type)));
    keep(list, kind + 1, outer, statistics_bytes(model));
}

/* Between q, k and v and the attention's output: 5as^2b of the paper, or 4asb of our own. */
static void keep_core(struct list *list, const struct ls_model_shape *model,
                      const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type);
    const int64_t rows = times(inner_rows(run), model->a / run->t); /* of every head */

    if (run->core == LS_CORE_FUSED) {
        keep(list, LS_KEPT_LSE, rows, sizeof(float));
        return;
    }
    keep(list, LS_KEPT_SOFTMAX, rows, times(run->s, element));
    if (!run->dropout) return;
    keep(list, LS_KEPT_SOFTMAX_MASK, rows, run->s);
    keep(list, LS_KEPT_DROPPED, rows, times(run->s, element));
}

/* 11sbh of the paper, and the input of the norm. */
static void keep_attention(struct list *list, const struct ls_model_shape *model,
                           const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), inner = inner_rows(run);

    keep(list, LS_KEPT_INPUT, outer_rows(run), times(model->h, element));
    if (!model->post_norm) keep_norm(list, LS_KEPT_NORM1, model, run);
    keep(list, LS_KEPT_QKV, inner, times(qkv_width(model, run->t), element));
    keep_core(list, model, run);
    keep(list, LS_KEPT_ATTENTION, inner, times(model->a / run->t * model->d, element));
    if (run->dropout) keep(list, LS_KEPT_MASK1, outer_rows(run), model->h);
}

/* 19sbh of the paper, and the input of the norm. */
static void keep_mlp(struct list *list, const struct ls_model_shape *model,
                     const struct ls_model_run *run)
{
    const int64_t element = ls_dtype_size(run->type), row = times(model->h, element);
    const int64_t inner = inner_rows(run), outer = outer_rows(run);

    if (!model->parallel) {
        keep(list, LS_KEPT_SUM1, outer, row);
        keep_norm(list, model->post_norm ? LS_KEPT_NORM1 : LS_KEPT_NORM2, model, run);
    }
    keep(list, LS_KEPT_UP, inner, times(mlp_width(model, run->t), element));
    keep(list, LS_KEPT_ACTIVATION, inner, times(model->f / run->t, element));
    if (run->dropout) keep(list, LS_KEPT_MASK2, outer, model->h);
    if (!model->post_norm) return;
    keep(list, LS_KEPT_SUM2, outer, row);
    keep(list, LS_KEPT_STATISTICS2, outer, statistics_bytes(model));
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
        int64_t *sum = ls_kept_about(kept[i].kind)->paper ? &bytes.paper : &bytes.own;

        if (!ls_kept_is_discarded(kept[i].kind, run->pieces)) *sum = plus(*sum, kept[i].bytes);
    }
    return bytes;
}

int64_t ls_layer_again_bytes(const struct ls_model_shape *model, const struct ls_model_run *run)
{
    struct ls_kept kept[LS_KEPT_KINDS];
    const int n = ls_layer_keeps(kept, model, run);
    int64_t bytes = 0;

    for (int i = 0; i < n; i++)
        if (ls_kept_is_made_again(kept[i].kind, run->pieces)) bytes = plus(bytes, kept[i].bytes);
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
