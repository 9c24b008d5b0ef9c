#include "cli/source.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/ledger.h"
#include "base/random.h"
#include "tensor/dtype.h"
#include "tensor/header.h"

const char *cli_order_name(cli_order order)
{
    return order == CLI_BSHD ? "bshd" : "bhsd";
}

struct cli_blocks cli_blocks_of(cli_order order, int64_t b, int64_t s, int64_t h, int64_t d)
{
    if (order == CLI_BSHD) return (struct cli_blocks){.outer = b, .s = s, .row = h * d};
    return (struct cli_blocks){.outer = b * h, .s = s, .row = d};
}

int64_t cli_runs(const struct cli_blocks *blocks, const struct ls_layout *layout, int rank)
{
    return blocks->outer * ls_layout_part_leaves(layout, rank);
}

struct cli_run cli_run_at(const struct cli_blocks *blocks, const struct ls_layout *layout, int rank,
                          int64_t i)
{
    const int64_t leaves = ls_layout_part_leaves(layout, rank);
    const int64_t outer = i / leaves, leaf = ls_layout_part_leaf(layout, rank, i % leaves);
    const int64_t local_rows = ls_layout_part_rows(layout, rank);

    return (struct cli_run){
        .global = (outer * blocks->s + leaf * LS_LEAF) * blocks->row,
        .local = (outer * local_rows + i % leaves * LS_LEAF) * blocks->row,
        .n = ls_layout_leaf_rows(layout, leaf) * blocks->row,
    };
}

ls_status cli_tensor_create(struct ls_tensor *out, ls_dtype type, cli_order order, int64_t b,
                            int64_t rows, int64_t h, int64_t d)
{
    struct ls_tensor view = {
        .type = type,
        .ndim = 4,
        .dim = {b, rows, h, d},
        .stride = {rows * h * d, h * d, d, 1},
    };

    if (order == CLI_BHSD) {
        view.stride[1] = d;
        view.stride[2] = rows * d;
    }
    LS_TRY(ls_alloc(&view.data, LS_TAG_ACTIVATION,
                    (size_t)(b * rows * h * d) * (size_t)ls_dtype_size(type)));
    *out = view;
    return LS_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Says what there is instead, as far as it fits. */
static ls_status fail_missing(const struct ls_tensor_file *file, const char *name)
{
    const int count = ls_tensor_file_count(file);
    char names[4 * LS_QUOTE_LENGTH] = "", quote[LS_QUOTE_LENGTH];
    size_t used = 0;
    int i = 0;

    for (; i < count && used + LS_QUOTE_LENGTH + 4 < sizeof(names); i++) {
        const char *have = ls_tensor_file_at(file, i)->name;

        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s'%s'", i > 0 ? ", " : "",
                                 ls_quote(quote, have, strlen(have)));
    }
    return ls_fail(LS_EVALUE, "%s: holds no tensor '%s'; it holds %s%s", ls_tensor_file_path(file),
                   name, count > 0 ? names : "none", i < count ? ", ..." : "");
}

static ls_status find_tensor(struct cli_source *s, const char *name, bool lone)
{
    s->tensor = ls_tensor_file_find(s->file, name);
    if (!s->tensor && lone && ls_tensor_file_count(s->file) == 1)
        s->tensor = ls_tensor_file_at(s->file, 0);
    if (!s->tensor) return fail_missing(s->file, name);
    return ls_tensor_file_check(s->file, s->tensor);
}

ls_status cli_source_open(struct cli_source *out, const char *path, const char *name, bool lone)
{
    struct cli_source s = {.file = NULL};
    ls_status status;

    LS_TRY(ls_tensor_file_open(&s.file, path));
    LS_TRY_GOTO(status, find_tensor(&s, name, lone), close_file);
    s.type = s.tensor->type;
    if (lone) {
        snprintf(s.label, sizeof(s.label), "%s", base_name(path));
        memcpy(s.name, s.label, sizeof(s.name));
    } else {
        snprintf(s.label, sizeof(s.label), "%.80s: %s", base_name(path), name);
        snprintf(s.name, sizeof(s.name), "%s", name);
    }
    *out = s;
    return LS_OK;
close_file:
    ls_tensor_file_close(s.file);
    return status;
}

void cli_source_random(struct cli_source *out, uint64_t seed, uint32_t stream, const char *name)
{
    *out = (struct cli_source){.seed = seed, .stream = stream, .type = LS_F32};
    snprintf(out->label, sizeof(out->label), "--random: %s", name);
    snprintf(out->name, sizeof(out->name), "%s", name);
}

void cli_source_close(struct cli_source *source)
{
    ls_tensor_file_close(source->file);
    *source = (struct cli_source){.file = NULL};
}

static ls_status fetch(void *out, const struct cli_source *source, int64_t first, int64_t n)
{
    if (source->file) return ls_tensor_file_read(out, source->file, source->tensor, first, n);
    ls_random_normal(out, source->seed, source->stream, (uint64_t)first, n);
    return LS_OK;
}

/* A loading: what goes where. */
struct loading {
    const struct ls_tensor *out;
    const struct cli_source *source;
    cli_order order;
    int64_t s;
    double limit;
    void *staging; /* one run as it comes */
};

static void describe(char *out, size_t size, const struct loading *l, double value, double original)
{
    if (isfinite(value))
        snprintf(out, size, "%g, where sums in f32 need less than %g,", original, l->limit);
    else if (isfinite(original))
        snprintf(out, size, "%g is too large for %s", original, ls_dtype_name(l->out->type));
    else
        snprintf(out, size, "%s", isnan(original) ? "NaN" : "infinity");
}

/* Names the place of a bad element, `original` in the source, by its number in the whole tensor. */
static ls_status fail_value(const struct loading *l, int64_t element, double value, double original)
{
    const int64_t h = l->out->dim[2], d = l->out->dim[3];
    const struct cli_blocks blocks = cli_blocks_of(l->order, l->out->dim[0], l->s, h, d);
    const int64_t outer = element / (blocks.row * l->s), position = element / blocks.row % l->s;
    const bool bshd = l->order == CLI_BSHD;
    char what[64];

    describe(what, sizeof(what), l, value, original);
    return ls_fail(LS_EVALUE,
                   "%s: %s at batch %" PRId64 ", position %" PRId64 ", head %" PRId64
                   ", element %" PRId64 "; --allow-nonfinite computes anyway",
                   l->source->label, what, bshd ? outer : outer / h, position,
                   bshd ? element / d % h : outer % h, element % d);
}

static ls_status load_run(const struct loading *l, const struct cli_run *run)
{
    const struct cli_source *source = l->source;
    char *into = (char *)l->out->data + run->local * ls_dtype_size(l->out->type);

    LS_TRY(fetch(l->staging, source, run->global, run->n));
    ls_dtype_convert(into, l->out->type, l->staging, source->type, run->n);
    if (isnan(l->limit)) return LS_OK;
    const int64_t bad = ls_dtype_find_large(into, l->out->type, run->n, l->limit);
    if (bad < 0) return LS_OK;
    const char *original = (char *)l->staging + bad * ls_dtype_size(source->type);

    return fail_value(l, run->global + bad,
                      ls_dtype_load(l->out->type, into + bad * ls_dtype_size(l->out->type)),
                      ls_dtype_load(source->type, original));
}

ls_status cli_source_load(struct ls_tensor *out, const struct cli_source *source, cli_order order,
                          const struct ls_layout *layout, int rank, double limit,
                          struct cli_progress *progress)
{
    const struct cli_blocks blocks =
        cli_blocks_of(order, out->dim[0], layout->s, out->dim[2], out->dim[3]);
    const int64_t runs = cli_runs(&blocks, layout, rank);
    struct loading l = {
        .out = out, .source = source, .order = order, .s = layout->s, .limit = limit};
    ls_status status = LS_OK;

    LS_TRY(ls_alloc(&l.staging, LS_TAG_WORKSPACE,
                    (size_t)(LS_LEAF * blocks.row * ls_dtype_size(source->type))));
    cli_progress_begin(progress, source->file ? "reading" : "drawing");
    for (int64_t i = 0; i < runs && status == LS_OK; i++) {
        const struct cli_run run = cli_run_at(&blocks, layout, rank, i);

        status = load_run(&l, &run);
        cli_progress_set(progress, i + 1, runs);
    }
    cli_progress_end(progress);
    ls_free(l.staging);
    return status;
}
