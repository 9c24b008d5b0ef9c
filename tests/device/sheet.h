/* What tests of operations on rows share: tensors [b, s, e] of any strides in memory that shows
 * what was written beside them, and parts of a sequence cut in many ways. */
#ifndef TESTS_DEVICE_SHEET_H
#define TESTS_DEVICE_SHEET_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "mirror.h"
#include "tensor/row_runs.h"
#include "variants.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

enum { SHEET_FILL = 0xa5, SHEET_AROUND = 64 };

struct sheet {
    struct ls_tensor t; /* [b, s, e] */
    unsigned char *memory;
    size_t bytes;
};

/* `gap` elements lie between rows, and between entries of the batch. */
static inline struct sheet sheet_create(ls_dtype type, int64_t b, int64_t s, int64_t e, int64_t gap)
{
    struct sheet x = {.t = ls_tensor_view(NULL, type, 3, (const int64_t[]){b, s, e})};

    x.t.stride[1] = e + gap;
    x.t.stride[0] = s * (e + gap) + gap;
    x.bytes = (size_t)(b * x.t.stride[0]) * (size_t)ls_dtype_size(type) + 2 * SHEET_AROUND;
    x.memory = malloc(x.bytes);
    cr_assert_not_null(x.memory);
    memset(x.memory, SHEET_FILL, x.bytes);
    x.t.data = x.memory + SHEET_AROUND;
    return x;
}

static inline void *sheet_at(const struct sheet *x, int64_t i, int64_t j, int64_t k)
{
    return (char *)x->t.data +
           (i * x->t.stride[0] + j * x->t.stride[1] + k) * (int64_t)ls_dtype_size(x->t.type);
}

static inline double sheet_load(const struct sheet *x, int64_t i, int64_t j, int64_t k)
{
    return ls_dtype_load(x->t.type, sheet_at(x, i, j, k));
}

static inline void sheet_store(struct sheet *x, int64_t i, int64_t j, int64_t k, double value)
{
    ls_dtype_store(x->t.type, sheet_at(x, i, j, k), value);
}

static inline size_t sheet_row_bytes(const struct sheet *x)
{
    return (size_t)x->t.dim[2] * (size_t)ls_dtype_size(x->t.type);
}

/* offset + factor x N(0,1). */
static inline void sheet_fill(struct sheet *x, uint32_t stream, float factor, float offset)
{
    const int64_t e = x->t.dim[2], rows = x->t.dim[0] * x->t.dim[1];
    float *const value = malloc((size_t)e * sizeof *value + 1);

    for (int64_t i = 0; i < rows; i++) {
        ls_random_normal(value, 5, stream, (uint64_t)(i * e), e);
        for (int64_t k = 0; k < e; k++)
            sheet_store(x, i / x->t.dim[1], i % x->t.dim[1], k,
                        (double)(value[k] * factor + offset));
    }
    free(value);
}

/* The tensor on the device, with all that lies around it. */
static inline struct ls_tensor *sheet_result(struct ls_tensor *there, struct mirror *m,
                                             const struct sheet *x)
{
    mirror_result(m, x->memory, x->bytes);
    return mirror_output(there, m, &x->t);
}

static inline void sheet_expect_untouched_around(const struct sheet *x, const char *what)
{
    unsigned char *const is_inside = calloc(x->bytes, 1);

    for (int64_t i = 0; i < x->t.dim[0]; i++)
        for (int64_t j = 0; j < x->t.dim[1]; j++)
            memset(is_inside + ((unsigned char *)sheet_at(x, i, j, 0) - x->memory), 1,
                   sheet_row_bytes(x));
    for (size_t i = 0; i < x->bytes; i++)
        cr_assert(is_inside[i] || x->memory[i] == SHEET_FILL, "%s: byte %zu was written", what, i);
    free(is_inside);
}

static inline void sheet_expect_equal(const struct sheet *x, const struct sheet *other,
                                      const char *what)
{
    for (int64_t i = 0; i < x->t.dim[0]; i++)
        for (int64_t j = 0; j < x->t.dim[1]; j++)
            cr_assert_eq(memcmp(sheet_at(x, i, j, 0), sheet_at(other, i, j, 0), sheet_row_bytes(x)),
                         0, "%s: row %ld %ld differs", what, (long)i, (long)j);
}

/* ---- parts of a sequence */

enum { MOST_RUNS = 64, CUTS = 4, MOST_PARTS = 5 };

struct part {
    struct ls_row_run run[MOST_RUNS];
    struct ls_row_runs runs;
    int64_t rows;
};

static inline void part_add(struct part *p, int64_t from, int64_t to)
{
    p->run[p->runs.count++] = (struct ls_row_run){p->rows, to - from, from};
    p->rows += to - from;
}

/* One part of `parts`: blocks one after the other, uneven between runs of nothing, all in the last
 * one, or dealt. */
static inline void part_init(struct part *p, int64_t s, int cut, int part, int parts)
{
    const int64_t block = s / 29 + 1;

    *p = (struct part){.runs = {.s = s}};
    p->runs.run = p->run;
    if (cut == 0) {
        part_add(p, s * part / parts, s * (part + 1) / parts);
    } else if (cut == 1) {
        const int64_t first = s * part * part / (parts * parts);
        const int64_t end = s * (part + 1) * (part + 1) / (parts * parts);

        part_add(p, first, first);
        part_add(p, first, end);
        part_add(p, first, first);
    } else if (cut == 2) {
        if (part == parts - 1) part_add(p, 0, s);
    } else {
        for (int64_t i = 0; i * block < s; i++)
            if (i % parts == part)
                part_add(p, i * block, (i + 1) * block < s ? (i + 1) * block : s);
    }
}

/* The part's rows of a whole tensor; strides are the part's own. */
static inline struct sheet part_of_sheet(const struct sheet *whole, const struct part *p,
                                         int64_t gap)
{
    struct sheet x = sheet_create(whole->t.type, whole->t.dim[0], p->rows, whole->t.dim[2], gap);

    for (int64_t i = 0; i < whole->t.dim[0]; i++)
        for (int64_t r = 0; r < p->runs.count; r++)
            for (int64_t j = 0; j < p->run[r].count; j++)
                memcpy(sheet_at(&x, i, p->run[r].row + j, 0),
                       sheet_at(whole, i, p->run[r].position + j, 0), sheet_row_bytes(whole));
    return x;
}

/* Back into the whole tensor. */
static inline void part_into_sheet(struct sheet *whole, const struct part *p, const struct sheet *x)
{
    for (int64_t i = 0; i < whole->t.dim[0]; i++)
        for (int64_t r = 0; r < p->runs.count; r++)
            for (int64_t j = 0; j < p->run[r].count; j++)
                memcpy(sheet_at(whole, i, p->run[r].position + j, 0),
                       sheet_at(x, i, p->run[r].row + j, 0), sheet_row_bytes(whole));
}

#endif
