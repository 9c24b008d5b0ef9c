#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ledger.h"
#include "base/nearest.h"
#include "base/random.h"
#include "base/tell.h"
#include "comm/comm.h"
#include "store/elements.h"
#include "store/order.h"
#include "store/shared.h"
#include "tensor/dtype.h"
#include "tensor/file.h"
#include "tensor/header.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* The tensor of the file that was probably meant; NULL: none. */
static const char *nearest_in(const struct ls_tensor_file *file, const char *name)
{
    const int count = ls_tensor_file_count(file);
    const char **names = malloc((size_t)count * sizeof(*names)), *nearest = NULL;

    for (int i = 0; names && i < count; i++) names[i] = ls_tensor_file_at(file, i)->name;
    if (names) nearest = ls_nearest(name, names, count);
    free(names);
    return nearest;
}

/* Says what there is instead, as far as it fits. */
static ls_status fail_missing(const struct ls_tensor_file *file, const char *name)
{
    const int count = ls_tensor_file_count(file);
    const char *nearest = nearest_in(file, name);
    char names[4 * LS_QUOTE_LENGTH] = "", quote[LS_QUOTE_LENGTH];
    size_t used = 0;
    int i = 0;

    for (; i < count && used + LS_QUOTE_LENGTH + 4 < sizeof(names); i++) {
        const char *have = ls_tensor_file_at(file, i)->name;

        used += (size_t)snprintf(names + used, sizeof(names) - used, "%s'%s'", i > 0 ? ", " : "",
                                 ls_quote(quote, have, strlen(have)));
    }
    if (nearest)
        return ls_fail(LS_EVALUE, "%s: holds no tensor '%s'; is '%s' meant?",
                       ls_tensor_file_path(file), name, ls_quote(quote, nearest, strlen(nearest)));
    return ls_fail(LS_EVALUE, "%s: holds no tensor '%s'; it holds %s%s", ls_tensor_file_path(file),
                   name, count > 0 ? names : "none", i < count ? ", ..." : "");
}

static ls_status find_tensor(struct ls_input *s, const char *name, bool lone)
{
    s->tensor = ls_tensor_file_find(s->file, name);
    if (!s->tensor && lone && ls_tensor_file_count(s->file) == 1)
        s->tensor = ls_tensor_file_at(s->file, 0);
    if (!s->tensor) return fail_missing(s->file, name);
    return ls_tensor_file_check(s->file, s->tensor);
}

/* A source of the file, which it closes. */
static ls_status open_tensor(struct ls_input *out, struct ls_tensor_file *file, const char *name,
                             bool lone)
{
    const char *path = ls_tensor_file_path(file);
    struct ls_input s = {.file = file};
    ls_status status;

    LS_TRY_GOTO(status, find_tensor(&s, name, lone), close_file);
    s.type = s.tensor->type;
    s.ndim = s.tensor->ndim;
    memcpy(s.dim, s.tensor->dim, sizeof(s.dim));
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
    ls_tensor_file_close(file);
    return status;
}

ls_status ls_input_open(struct ls_input *out, struct ls_comm *comm, const char *path,
                        const char *name, bool lone)
{
    struct ls_tensor_file *file;

    *out = (struct ls_input){.file = NULL};
    LS_TRY(ls_shared_open(&file, comm, path));
    const ls_status status = ls_comm_agree(comm, open_tensor(out, file, name, lone));

    if (status != LS_OK) ls_input_close(out);
    return status;
}

ls_status ls_input_open_beside(struct ls_input *out, const struct ls_input *beside,
                               const char *name)
{
    *out = (struct ls_input){.file = NULL};
    if (!beside->file)
        return ls_fail(LS_EVALUE, "%s: is not open, and no tensor beside it can be", beside->label);
    return open_tensor(out, ls_tensor_file_share(beside->file), name, false);
}

void ls_input_take_heads(struct ls_input *source, const struct ls_packed_heads *heads,
                         const int64_t dim[4])
{
    source->packed = *heads;
    source->ndim = 4;
    memcpy(source->dim, dim, 4 * sizeof(*dim));
}

void ls_input_draw(struct ls_input *out, uint64_t seed, uint32_t stream, const char *name)
{
    *out = (struct ls_input){.type = LS_F32, .drawn = true, .seed = seed, .stream = stream};
    snprintf(out->label, sizeof(out->label), "%s", name);
    snprintf(out->name, sizeof(out->name), "%s", name);
}

void ls_input_close(struct ls_input *source)
{
    if (source->file) ls_tensor_file_close(source->file);
    *source = (struct ls_input){.file = NULL};
}

static ls_status fetch(void *out, const struct ls_input *source, int64_t first, int64_t n)
{
    if (source->file) return ls_tensor_file_read(out, source->file, source->tensor, first, n);
    ls_random_normal(out, source->seed, source->stream, (uint64_t)first, n);
    return LS_OK;
}

/* What is read stands at the end of out, and is widened from its beginning. */
ls_status ls_input_read(double *out, const struct ls_input *source, int64_t first, int64_t n)
{
    const int64_t size = ls_dtype_size(source->type);
    const char *narrow = (const char *)(out + n) - n * size;

    LS_TRY(fetch((char *)(out + n) - n * size, source, first, n));
    for (int64_t i = 0; i < n; i++) out[i] = ls_dtype_load(source->type, narrow + i * size);
    return LS_OK;
}

ls_status ls_input_read_floats(float *out, const struct ls_input *source, int64_t first, int64_t n)
{
    enum { CHUNK = 1024 };
    double raw[CHUNK]; /* of any type */

    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;

        LS_TRY(fetch(raw, source, first + i, count));
        ls_dtype_convert(out + i, LS_F32, raw, source->type, count);
    }
    return LS_OK;
}

/* A loading: what goes where. */
struct loading {
    const struct ls_tensor *out;
    const struct ls_input *source;
    ls_order order;
    int64_t s;
    double limit;
    void *staging; /* one run as it comes */
    void *packed;  /* and, where it comes packed, all heads of its positions */
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
    const struct ls_blocks blocks = ls_blocks_of(l->order, l->out->dim[0], l->s, h, d);
    const int64_t outer = element / (blocks.row * l->s), position = element / blocks.row % l->s;
    const bool bshd = l->order == LS_ORDER_BSHD;
    char what[64];

    describe(what, sizeof(what), l, value, original);
    return ls_fail(LS_EVALUE,
                   "%s: %s at batch %" PRId64 ", position %" PRId64 ", head %" PRId64
                   ", element %" PRId64,
                   l->source->label, what, bshd ? outer : outer / h, position,
                   bshd ? element / d % h : outer % h, element % d);
}

/* The heads of the source among all of `rows` positions. */
static void pick_heads(const struct loading *l, int64_t rows)
{
    const struct ls_packed_heads *p = &l->source->packed;
    const int64_t heads = l->out->dim[2];
    const size_t head = (size_t)(l->out->dim[3] * ls_dtype_size(l->source->type));
    const char *from = l->packed;
    char *to = l->staging;

    for (int64_t row = 0; row < rows; row++, from += (size_t)p->all * head)
        for (int64_t i = 0, at = p->first; i < heads; i += p->run, at += p->apart) {
            memcpy(to, from + (size_t)at * head, (size_t)p->run * head);
            to += (size_t)p->run * head;
        }
}

static ls_status fetch_run(const struct loading *l, const struct ls_run *run)
{
    const int64_t all = l->source->packed.all * l->out->dim[3],
                  row = l->out->dim[2] * l->out->dim[3];

    if (all == 0) return fetch(l->staging, l->source, run->global, run->n);
    LS_TRY(fetch(l->packed, l->source, run->global / row * all, run->n / row * all));
    pick_heads(l, run->n / row);
    return LS_OK;
}

static ls_status load_run(const struct loading *l, const struct ls_run *run)
{
    const struct ls_input *source = l->source;
    char *into = (char *)l->out->data + run->local * ls_dtype_size(l->out->type);

    LS_TRY(fetch_run(l, run));
    ls_dtype_convert(into, l->out->type, l->staging, source->type, run->n);
    if (isnan(l->limit)) return LS_OK;
    const int64_t bad = ls_dtype_find_large(into, l->out->type, run->n, l->limit);
    if (bad < 0) return LS_OK;
    const char *original = (char *)l->staging + bad * ls_dtype_size(source->type);

    return fail_value(l, run->global + bad,
                      ls_dtype_load(l->out->type, into + bad * ls_dtype_size(l->out->type)),
                      ls_dtype_load(source->type, original));
}

/* The shape that the source has to have. */
static ls_status check_source(const struct ls_input *source, ls_order order,
                              const struct ls_tensor *out, int64_t s)
{
    const bool bshd = order == LS_ORDER_BSHD;
    const int64_t *n = out->dim, dim[] = {n[0], bshd ? s : n[2], bshd ? n[2] : s, n[3]};
    const int ndim = source->ndim == 3 && !bshd && n[3] == 1 ? 3 : 4;

    if (!source->file && !source->drawn)
        return ls_fail(LS_EVALUE, "a source that is not open cannot be read");
    if (source->packed.all > 0 && !bshd)
        return ls_fail(LS_EVALUE, "%s: packed heads can be read in order bshd alone",
                       source->label);
    if (source->drawn ||
        (source->ndim == ndim && memcmp(source->dim, dim, (size_t)ndim * sizeof(*dim)) == 0))
        return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "%s: is not [%" PRId64 ", %" PRId64 ", %" PRId64 ", %" PRId64 "], as the part "
                   "and its layout have it",
                   source->label, dim[0], dim[1], dim[2], dim[3]);
}

static ls_status check_load(const struct loading *l, const struct ls_layout *layout,
                            const struct ls_comm *comm)
{
    const int64_t *n = l->out->dim;

    LS_TRY(ls_part_layout_check(layout, comm));
    if (l->out->ndim != 4)
        return ls_fail(LS_ESHAPE, "%s: the part has %d dimensions, must have 4", l->source->label,
                       l->out->ndim);
    const struct ls_tensor wanted =
        ls_order_view(NULL, l->out->type, l->order, n[0],
                      ls_layout_part_rows(layout, ls_comm_rank(comm)), n[2], n[3]);

    LS_TRY(check_source(l->source, l->order, l->out, layout->s));
    return ls_part_check(l->out, &wanted, l->source->label);
}

/* For a leaf of rows of so many elements. */
static ls_status create_staging(struct loading *l, int64_t row)
{
    const int64_t size = LS_LEAF * ls_dtype_size(l->source->type);
    const int64_t packed = l->source->packed.all * l->out->dim[3];
    ls_status status;

    LS_TRY(ls_alloc(&l->staging, LS_TAG_WORKSPACE, (size_t)(size * row)));
    if (packed == 0) return LS_OK;
    status = ls_alloc(&l->packed, LS_TAG_WORKSPACE, (size_t)(size * packed));
    if (status != LS_OK) ls_free(l->staging);
    return status;
}

static ls_status load_runs(struct loading *l, const struct ls_layout *layout, struct ls_comm *comm,
                           const struct ls_progress_callback *progress)
{
    const int rank = ls_comm_rank(comm);
    const struct ls_blocks blocks =
        ls_blocks_of(l->order, l->out->dim[0], l->s, l->out->dim[2], l->out->dim[3]);
    const int64_t runs = ls_blocks_runs(&blocks, layout, rank);
    ls_status status = LS_OK;

    LS_TRY(create_staging(l, blocks.row));
    for (int64_t i = 0; i < runs && status == LS_OK; i++) {
        const struct ls_run run = ls_blocks_run(&blocks, layout, rank, i);

        ls_tell(progress, l->source->file ? "reading" : "drawing", i, runs);
        ls_comm_beat(comm); /* so that others hear of this rank */
        status = load_run(l, &run);
    }
    ls_free(l->packed);
    ls_free(l->staging);
    return status;
}

ls_status ls_input_load(struct ls_tensor *out, struct ls_comm *comm, const struct ls_input *source,
                        ls_order order, const struct ls_layout *layout, double limit,
                        const struct ls_progress_callback *progress)
{
    struct loading l = {
        .out = out, .source = source, .order = order, .s = layout->s, .limit = limit};
    ls_status status = check_load(&l, layout, comm);

    if (status == LS_OK) status = load_runs(&l, layout, comm, progress);
    ls_tell_end(progress);
    return ls_comm_agree(comm, status);
}
