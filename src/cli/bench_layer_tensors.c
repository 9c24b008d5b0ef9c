#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench_layer.h"
#include "cli/format.h"
#include "comm/comm.h"
#include "tensor/dtype.h"

#define CHUNK 4096
#define SEED 0

/* Streams of random numbers: parameters have theirs by number. */
enum { X_STREAM = LS_LAYER_PARAMETERS, DY_STREAM };

/* Before there is a plan: the first rank's. */
static struct ls_parameter_part part_of(const struct cli_layer_run *run, int parameter)
{
    const int t = run->layer.tp;

    return ls_parameter_part(parameter, &run->shape, &run->layer, t,
                             run->plan ? run->plan->grid.tensor : 0);
}

/* ---- sources */

static ls_status check_shape(const struct ls_input *source, const int64_t *dim, int ndim)
{
    if (source->ndim == ndim && memcmp(source->dim, dim, (size_t)ndim * sizeof *dim) == 0)
        return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: shape is %s, the layer has %s", source->label,
                   cli_dims(source->dim, source->ndim).s, cli_dims(dim, ndim).s);
}

static ls_status open_parameter(struct cli_layer_run *run, int i)
{
    const char *path = run->options.weights, *name = ls_parameter_name(i);
    const struct ls_parameter_part part = part_of(run, i);

    if (!path) {
        ls_input_draw(&run->source[i], SEED, (uint32_t)i, name);
        return LS_OK;
    }
    if (i == LS_PARAMETER_QKV)
        LS_TRY(ls_input_open(&run->source[i], run->world->comm, path, name, false));
    else
        LS_TRY(ls_input_open_beside(&run->source[i], &run->source[LS_PARAMETER_QKV], name));
    return check_shape(&run->source[i], part.dim, part.ndim);
}

/* x or dy, of the file if it is there. */
static ls_status open_rows(struct ls_input *out, const struct cli_layer_run *run, const char *name,
                           uint32_t stream)
{
    const struct ls_layer_shape *n = &run->shape;
    const struct ls_tensor_file *file = run->source[LS_PARAMETER_QKV].file;
    const int64_t dim[] = {n->b, n->s, n->e};

    if (!file || !ls_tensor_file_find(file, name)) {
        ls_input_draw(out, SEED, stream, name);
        return LS_OK;
    }
    LS_TRY(ls_input_open_beside(out, &run->source[LS_PARAMETER_QKV], name));
    return check_shape(out, dim, 3);
}

/* The parameter that every layer has opens the file, to which all else belongs. */
static ls_status open_all(struct cli_layer_run *run)
{
    LS_TRY(open_parameter(run, LS_PARAMETER_QKV));
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (i != LS_PARAMETER_QKV && ls_parameter_exists(i, &run->layer))
            LS_TRY(open_parameter(run, i));
    const struct ls_tensor_file *file = run->source[LS_PARAMETER_QKV].file;
    for (int i = 0; file && i < LS_LAYER_PARAMETERS; i++)
        if (!ls_parameter_exists(i, &run->layer) && ls_tensor_file_find(file, ls_parameter_name(i)))
            return ls_fail(LS_EVALUE, "%s: holds %s, but the layer has none",
                           ls_tensor_file_path(file), ls_parameter_name(i));
    LS_TRY(open_rows(&run->x_source, run, "x", X_STREAM));
    return open_rows(&run->dy_source, run, "dy", DY_STREAM);
}

ls_status cli_layer_open_sources(struct cli_layer_run *run)
{
    return ls_comm_agree(run->world->comm, open_all(run));
}

void cli_layer_close_sources(struct cli_layer_run *run)
{
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) ls_input_close(&run->source[i]);
    ls_input_close(&run->x_source);
    ls_input_close(&run->dy_source);
}

/* ---- elements */

/* Drawn weights keep the size of what goes through a linear, and norms are near 1. */
static void shape_drawn(double *values, int64_t n, const struct cli_layer_run *run, int parameter)
{
    const struct ls_parameter_part part = part_of(run, parameter);
    const bool norm = parameter == LS_PARAMETER_NORM1 || parameter == LS_PARAMETER_NORM2;
    const double factor = part.ndim == 1 ? 0.2 : 1 / sqrt((double)part.dim[1]);

    for (int64_t i = 0; i < n; i++) values[i] = values[i] * factor + norm;
}

ls_status cli_layer_read(double *out, const struct cli_layer_run *run,
                         const struct ls_input *source, int parameter, int64_t first, int64_t n)
{
    const ls_dtype type = run->shape.type;
    double rounded;

    LS_TRY(ls_input_read(out, source, first, n));
    if (source->drawn && parameter >= 0) shape_drawn(out, n, run, parameter);
    for (int64_t i = 0; i < n; i++) {
        ls_dtype_store(type, &rounded, out[i]);
        rounded = ls_dtype_load(type, &rounded);
        if (!isfinite(rounded))
            return ls_fail(LS_EVALUE, "%s: element %lld is %g, no number that %s has",
                           source->label, (long long)(first + i), out[i], ls_dtype_name(type));
        out[i] = rounded;
    }
    return LS_OK;
}

/* ---- a rank's parts */

static ls_status create_part(struct cli_layer_part *out, int64_t most)
{
    *out = (struct cli_layer_part){.run = malloc((size_t)most * sizeof *out->run + 1)};
    return out->run ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a list of runs");
}

/* The next n elements, which are `global` in the whole. */
static void add_run(struct cli_layer_part *part, int64_t global, int64_t n)
{
    const struct ls_run *last = part->run + part->count - 1;
    const int64_t local = part->count > 0 ? last->local + last->n : 0;

    part->run[part->count++] = (struct ls_run){global, local, n};
}

ls_status cli_layer_part_of(struct cli_layer_part *out, const struct cli_layer_run *run,
                            int parameter)
{
    const struct ls_parameter_part part = part_of(run, parameter);
    const struct ls_span columns = part.columns;
    const bool whole = columns.count == part.dim[1];

    LS_TRY(create_part(out, part.dim[0]));
    for (int i = 0; i < part.runs; i++) {
        const struct ls_span rows = part.rows[i];

        if (whole) add_run(out, rows.first * columns.count, rows.count * columns.count);
        for (int64_t r = rows.first; r < rows.first + rows.count && !whole; r++)
            add_run(out, r * part.dim[1] + columns.first, columns.count);
    }
    return LS_OK;
}

ls_status cli_layer_rows_of(struct cli_layer_part *out, const struct cli_layer_run *run)
{
    const struct ls_layer_shape *n = &run->shape;
    const int64_t rows = ls_layer_rows(run->plan);

    LS_TRY(create_part(out, n->b * rows));
    for (int64_t b = 0; b < n->b; b++)
        for (int64_t i = 0; i < rows; i++)
            add_run(out, (b * n->s + ls_layer_position(run->plan, i)) * n->e, n->e);
    return LS_OK;
}

static int64_t elements_of(const struct ls_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

static ls_status create(struct ls_tensor *out, const struct cli_layer_run *run, ls_tag tag,
                        ls_dtype type, int ndim, const int64_t *dim)
{
    *out = ls_tensor_view(NULL, type, ndim, dim);
    return ls_device_alloc(&out->data, run->gemm.device, tag,
                           (size_t)elements_of(out) * (size_t)ls_dtype_size(type));
}

/* The elements of a run, which its part has one behind the other. */
static ls_status load_run(const struct ls_tensor *out, const struct cli_layer_run *run,
                          const struct ls_input *source, int parameter, const struct ls_run *r)
{
    const int64_t size = ls_dtype_size(out->type);
    double value[CHUNK];

    for (int64_t at = 0; at < r->n; at += CHUNK) {
        const int64_t n = r->n - at < CHUNK ? r->n - at : CHUNK;
        char stored[CHUNK * sizeof(double)];

        LS_TRY(cli_layer_read(value, run, source, parameter, r->global + at, n));
        ls_dtype_convert(stored, out->type, value, LS_F64, n);
        ls_device_write(run->gemm.device, (char *)out->data + (r->local + at) * size, stored,
                        (size_t)(n * size));
    }
    return LS_OK;
}

static ls_status load(const struct ls_tensor *out, const struct cli_layer_run *run,
                      const struct ls_input *source, int parameter)
{
    struct cli_layer_part part;
    ls_status status = LS_OK;

    LS_TRY(parameter < 0 ? cli_layer_rows_of(&part, run)
                         : cli_layer_part_of(&part, run, parameter));
    for (int64_t i = 0; i < part.count && status == LS_OK; i++) {
        cli_world_beat(run->world);
        status = load_run(out, run, source, parameter, &part.run[i]);
    }
    free(part.run);
    return status;
}

static ls_status create_parameter(struct cli_layer_run *run, int i)
{
    struct cli_layer_tensors *t = &run->tensors;
    const struct ls_parameter_part part = part_of(run, i);
    int64_t dim[2];
    const int ndim = ls_parameter_share(dim, &part);

    LS_TRY(create(&t->weight[i], run, LS_TAG_PARAMETER, run->shape.type, ndim, dim));
    LS_TRY(create(&t->gradient[i], run, LS_TAG_GRADIENT, LS_F32, ndim, dim));
    *ls_parameter_in(&t->weights, i) = &t->weight[i];
    *ls_parameter_in(&t->gradients, i) = &t->gradient[i];
    return load(&t->weight[i], run, &run->source[i], i);
}

static ls_status create_all(struct cli_layer_run *run)
{
    struct cli_layer_tensors *t = &run->tensors;
    struct ls_tensor *const rows[] = {&t->x,          &t->dy,           &t->between[0],
                                      &t->between[1], &t->d_between[0], &t->d_between[1]};
    const int64_t dim[] = {run->shape.b, ls_layer_rows(run->plan), run->shape.e};

    for (int i = 0; i < LS_LAYER_PARAMETERS; i++)
        if (ls_parameter_exists(i, &run->layer)) LS_TRY(create_parameter(run, i));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        LS_TRY(create(rows[i], run, LS_TAG_ACTIVATION, run->shape.type, 3, dim));
    LS_TRY(load(&t->x, run, &run->x_source, -1));
    return load(&t->dy, run, &run->dy_source, -1);
}

ls_status cli_layer_create_tensors(struct cli_layer_run *run)
{
    return ls_comm_agree(run->world->comm, create_all(run));
}

void cli_layer_free_tensors(struct cli_layer_run *run)
{
    struct cli_layer_tensors *t = &run->tensors;
    struct ls_device *device = run->gemm.device;

    if (!device) return;
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) {
        ls_device_free(device, t->weight[i].data);
        ls_device_free(device, t->gradient[i].data);
    }
    ls_device_free(device, t->x.data);
    ls_device_free(device, t->dy.data);
    for (int i = 0; i < 2; i++) {
        ls_device_free(device, t->between[i].data);
        ls_device_free(device, t->d_between[i].data);
    }
}

/* ---- results */

enum { Y, DX, GRADIENTS };

static struct ls_file_tensor described(const char *prefix, const char *name, ls_dtype type,
                                       int ndim, const int64_t *dim)
{
    struct ls_file_tensor t = {.type = type, .ndim = ndim};

    snprintf(t.name, sizeof t.name, "%s%s", prefix, name);
    memcpy(t.dim, dim, (size_t)ndim * sizeof *dim);
    return t;
}

ls_status cli_layer_create_output(struct cli_layer_run *run)
{
    const struct ls_layer_shape *n = &run->shape;
    const int64_t dim[] = {n->b, n->s, n->e};
    struct ls_file_tensor list[GRADIENTS + LS_LAYER_PARAMETERS] = {
        [Y] = described("", "y", n->type, 3, dim), [DX] = described("", "dx", n->type, 3, dim)};
    int count = GRADIENTS;

    if (!run->options.out) return LS_OK;
    for (int i = 0; i < LS_LAYER_PARAMETERS; i++) {
        const struct ls_parameter_part part = part_of(run, i);

        if (ls_parameter_exists(i, &run->layer))
            list[count++] = described("d", ls_parameter_name(i), LS_F32, part.ndim, part.dim);
    }
    return ls_output_create_any(&run->output, run->world->comm, run->options.out, list, count);
}

static ls_status write_run(const struct cli_layer_run *run, int i, const struct ls_tensor *t,
                           const struct ls_run *r)
{
    const int64_t size = ls_dtype_size(t->type);
    char stored[CHUNK * sizeof(float)];

    for (int64_t at = 0; at < r->n; at += CHUNK) {
        const int64_t n = r->n - at < CHUNK ? r->n - at : CHUNK;

        ls_device_read(run->gemm.device, stored, (char *)t->data + (r->local + at) * size,
                       (size_t)(n * size));
        LS_TRY(ls_output_write_elements(run->output, i, r->global + at, n, stored));
    }
    return LS_OK;
}

/* Frees the part's runs. */
static ls_status write_part(const struct cli_layer_run *run, int i, const struct ls_tensor *t,
                            struct cli_layer_part part)
{
    ls_status status = LS_OK;

    for (int64_t k = 0; k < part.count && status == LS_OK; k++) {
        cli_world_beat(run->world);
        status = write_run(run, i, t, &part.run[k]);
    }
    free(part.run);
    return status;
}

static ls_status write_gradients(const struct cli_layer_run *run)
{
    struct cli_layer_part part;
    int i = GRADIENTS;

    for (int k = 0; k < LS_LAYER_PARAMETERS; k++) {
        if (!ls_parameter_exists(k, &run->layer)) continue;
        LS_TRY(cli_layer_part_of(&part, run, k));
        LS_TRY(write_part(run, i++, &run->tensors.gradient[k], part));
    }
    return LS_OK;
}

static ls_status write_rows(const struct cli_layer_run *run)
{
    struct cli_layer_part part;

    LS_TRY(cli_layer_rows_of(&part, run));
    LS_TRY(write_part(run, Y, cli_layer_y(run), part));
    LS_TRY(cli_layer_rows_of(&part, run));
    return write_part(run, DX, cli_layer_dx(run), part);
}

/* Context-parallel ranks have the same gradients, and without sequence parallelism tensor-parallel
 * ones the same rows: the first of them writes. */
ls_status cli_layer_write_output(struct cli_layer_run *run)
{
    const struct ls_grid *grid = &run->plan->grid;
    ls_status status = LS_OK;

    if (!run->output) return LS_OK;
    if (grid->sp || grid->tensor == 0) status = write_rows(run);
    if (status == LS_OK && grid->context == 0) status = write_gradients(run);
    LS_TRY(ls_comm_agree(run->world->comm, status));
    return ls_output_commit(run->output);
}
