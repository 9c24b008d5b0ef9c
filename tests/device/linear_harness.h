/* What the tests of linear layers share: matrices with something around them, a layer, its calls,
 * and its results in double. */
#ifndef TESTS_DEVICE_LINEAR_HARNESS_H
#define TESTS_DEVICE_LINEAR_HARNESS_H

#include <math.h>

#include "base/random.h"
#include "device/linear.h"
#include "mirror.h"
#include "reference/linear.h"
#include "tensor/dtype.h"
#include "variants.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

enum { AROUND = 64, MARK = 0xa5 }; /* bytes on either side, and what outputs are marked with */

/* Rows with a gap behind each. Around inputs there is NaN, which nobody may read. */
struct matrix {
    struct ls_tensor t;
    unsigned char *memory;
    size_t bytes;
};

static inline struct matrix matrix_open(ls_dtype type, int64_t rows, int64_t columns, int64_t gap,
                                        int fill)
{
    struct matrix m = {.t = ls_tensor_view(NULL, type, 2, (const int64_t[]){rows, columns})};

    m.t.stride[0] = columns + gap;
    m.bytes = (size_t)(rows * m.t.stride[0]) * (size_t)ls_dtype_size(type) + 2 * AROUND;
    m.bytes = (m.bytes + 63) / 64 * 64;
    m.memory = aligned_alloc(64, m.bytes);
    m.t.data = m.memory + AROUND;
    memset(m.memory, fill, m.bytes);
    return m;
}

static inline unsigned char *row_of(const struct matrix *m, int64_t row)
{
    return (unsigned char *)m->t.data + row * m->t.stride[0] * (int64_t)ls_dtype_size(m->t.type);
}

static inline size_t row_bytes(const struct matrix *m)
{
    return (size_t)m->t.dim[1] * (size_t)ls_dtype_size(m->t.type);
}

static inline struct matrix matrix_draw(ls_dtype type, int64_t rows, int64_t columns, int64_t gap,
                                        uint32_t stream)
{
    struct matrix m = matrix_open(type, rows, columns, gap, 0xff);
    float *value = malloc((size_t)columns * sizeof *value);

    for (int64_t r = 0; r < rows; r++) {
        ls_random_normal(value, 11, stream, (uint64_t)(r * columns), columns);
        ls_dtype_convert(row_of(&m, r), type, value, LS_F32, columns);
    }
    free(value);
    return m;
}

/* [rows][columns]; the caller frees it. */
static inline double *matrix_widen(const struct matrix *m)
{
    double *out = malloc((size_t)(m->t.dim[0] * m->t.dim[1]) * sizeof *out + 1);

    for (int64_t r = 0; r < m->t.dim[0]; r++)
        ls_dtype_convert(out + r * m->t.dim[1], LS_F64, row_of(m, r), m->t.type, m->t.dim[1]);
    return out;
}

static inline void expect_marks_around(const struct matrix *m, const char *what)
{
    unsigned char *copy = malloc(m->bytes);
    const struct matrix cleared = {m->t, copy, m->bytes};
    struct matrix c = cleared;

    memcpy(copy, m->memory, m->bytes);
    c.t.data = copy + AROUND;
    for (int64_t r = 0; r < m->t.dim[0]; r++) memset(row_of(&c, r), MARK, row_bytes(m));
    for (size_t i = 0; i < m->bytes; i++)
        cr_assert_eq(copy[i], MARK, "%s of %ld x %ld: byte %ld beside it was written", what,
                     (long)m->t.dim[0], (long)m->t.dim[1], (long)i - AROUND);
    free(copy);
}

static inline void expect_same_rows(const struct matrix *a, const struct matrix *b,
                                    const char *what)
{
    for (int64_t r = 0; r < a->t.dim[0]; r++)
        cr_assert_eq(memcmp(row_of(a, r), row_of(b, r), row_bytes(a)), 0, "%s %s: row %ld differs",
                     variant->name, what, (long)r);
}

/* A layer, its operands and results. */
struct layer {
    struct ls_linear_shape shape;
    struct matrix x, w, bias, dy, y, z, dx, dw;
    bool packed; /* calls say that w is that of the call before */
};

static inline void layer_open(struct layer *l, int64_t gap)
{
    const struct ls_linear_shape *s = &l->shape;

    l->x = matrix_draw(s->type, s->rows, s->in, gap, 0);
    l->w = matrix_draw(s->type, s->out, s->in, gap, 1);
    l->bias = matrix_draw(s->type, 1, s->out, 0, 2);
    l->dy = matrix_draw(s->type, s->rows, s->out, gap, 3);
    l->y = matrix_open(s->type, s->rows, s->out, gap, MARK);
    l->z = matrix_open(s->type, s->rows, s->out, gap, MARK);
    l->dx = matrix_open(s->type, s->rows, s->in, gap, MARK);
    l->dw = matrix_open(LS_F32, s->out, s->in, gap, MARK);
}

static inline void layer_close(struct layer *l)
{
    struct matrix *all[] = {&l->x, &l->w, &l->bias, &l->dy, &l->y, &l->z, &l->dx, &l->dw};

    for (int i = 0; i < LENGTH(all); i++) free(all[i]->memory);
}

static inline struct ls_linear_kernel *open_kernel(const struct ls_device *device,
                                                   const struct ls_linear_shape *shape)
{
    struct ls_linear_kernel *kernel;

    need_family(device->ops->linear, "linear layers");
    cr_assert_eq(ls_linear_kernel_create(&kernel, device, shape), LS_OK, "%s", ls_message());
    return kernel;
}

static inline struct ls_tensor *mirror_matrix(struct ls_tensor *there, struct mirror *mirror,
                                              const struct matrix *m)
{
    if (!m) return NULL;
    mirror_result(mirror, m->memory, m->bytes);
    return mirror_output(there, mirror, &m->t);
}

/* What calls did, since a test has cleared it. */
static struct ls_work linear_work;

static inline void finish_call(struct mirror *mirror)
{
    cr_assert_eq(ls_queue_finish(&linear_work, &mirror->device->queue), LS_OK, "%s", ls_message());
    mirror_read_back(mirror);
}

/* What a call of ls_linear may leave out. */
struct forward {
    bool bias, gelu, z;
};

static inline void run_forward(struct layer *l, struct ls_device *device,
                               struct ls_linear_kernel *kernel, struct forward f)
{
    struct mirror mirror = {.device = device};
    struct ls_tensor y, z, x, w, bias;
    const struct ls_tensor flat =
        ls_tensor_view(l->bias.t.data, l->bias.t.type, 1, &l->bias.t.dim[1]);
    const struct ls_linear_call call = {.y = mirror_matrix(&y, &mirror, &l->y),
                                        .z = mirror_matrix(&z, &mirror, f.z ? &l->z : NULL),
                                        .x = mirror_input(&x, &mirror, &l->x.t),
                                        .w = mirror_input(&w, &mirror, &l->w.t),
                                        .bias = mirror_input(&bias, &mirror, f.bias ? &flat : NULL),
                                        .gelu = f.gelu,
                                        .packed = l->packed};

    ls_linear(&device->queue, kernel, &call);
    finish_call(&mirror);
}

static inline void run_dx(struct layer *l, struct ls_device *device,
                          struct ls_linear_kernel *kernel)
{
    struct mirror mirror = {.device = device};
    struct ls_tensor dx, dy, w;

    mirror_matrix(&dx, &mirror, &l->dx);
    mirror_input(&dy, &mirror, &l->dy.t);
    mirror_input(&w, &mirror, &l->w.t);
    ls_linear_dx(
        &device->queue, kernel,
        &(struct ls_linear_input_gradient){.dx = &dx, .dy = &dy, .w = &w, .packed = l->packed});
    finish_call(&mirror);
}

static inline void run_dw(struct layer *l, struct ls_device *device,
                          struct ls_linear_kernel *kernel, struct ls_leaf_list leaves, bool add)
{
    struct mirror mirror = {.device = device};
    struct ls_tensor dw, dy, x;
    const struct ls_linear_sum sum = {.dw = mirror_matrix(&dw, &mirror, &l->dw),
                                      .add = add,
                                      .dy = mirror_input(&dy, &mirror, &l->dy.t),
                                      .x = mirror_input(&x, &mirror, &l->x.t),
                                      .leaves = leaves};

    ls_linear_dw(&device->queue, kernel, &sum);
    finish_call(&mirror);
}

#define MOST_LEAVES 16

/* All leaves of a layer whose rows are its b sequences, one after the other. */
static inline struct ls_leaf_list all_leaves(struct ls_leaf leaf[MOST_LEAVES],
                                             const struct ls_linear_shape *shape)
{
    const int64_t each = (shape->s + LS_LEAF - 1) / LS_LEAF;

    cr_assert_leq(shape->b * each, MOST_LEAVES);
    for (int64_t i = 0; i < shape->b * each; i++)
        leaf[i] = (struct ls_leaf){i, i / each * shape->s + i % each * LS_LEAF};
    return (struct ls_leaf_list){leaf, shape->b * each};
}

#endif
