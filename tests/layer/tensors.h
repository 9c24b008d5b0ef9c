/* Tensors wherever a device has them: made, written, read, compared. */
#ifndef TESTS_LAYER_TENSORS_H
#define TESTS_LAYER_TENSORS_H

#include "../mpi/harness.h"
#include "device/device.h"
#include "tensor/dtype.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* 0: there is none. */
static inline int64_t numbers_of(const struct ls_tensor *t)
{
    int64_t n = t->ndim > 0;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

static inline size_t bytes_of(const struct ls_tensor *t)
{
    return (size_t)numbers_of(t) * (size_t)ls_dtype_size(t->type);
}

static inline struct ls_tensor create_tensor(struct ls_device *device, ls_dtype type, int ndim,
                                             const int64_t *dim)
{
    struct ls_tensor t = ls_tensor_view(NULL, type, ndim, dim);

    MPI_CHECK_OK(ls_device_alloc(&t.data, device, LS_TAG_PARAMETER, bytes_of(&t)));
    return t;
}

static inline void write_numbers(struct ls_device *device, const struct ls_tensor *t,
                                 const double *numbers)
{
    char *host = malloc(bytes_of(t) + 1);

    for (int64_t i = 0; i < numbers_of(t); i++)
        ls_dtype_store(t->type, host + i * ls_dtype_size(t->type), numbers[i]);
    ls_device_write(device, t->data, host, bytes_of(t));
    free(host);
}

static inline void write_everywhere(struct ls_device *device, const struct ls_tensor *t,
                                    double number)
{
    double *numbers = malloc((size_t)numbers_of(t) * sizeof *numbers + 1);

    for (int64_t i = 0; i < numbers_of(t); i++) numbers[i] = number;
    write_numbers(device, t, numbers);
    free(numbers);
}

/* The caller frees them. */
static inline char *read_bytes(struct ls_device *device, const struct ls_tensor *t)
{
    char *host = malloc(bytes_of(t) + 1);

    ls_device_read(device, host, t->data, bytes_of(t));
    return host;
}

static inline double *read_numbers(struct ls_device *device, const struct ls_tensor *t)
{
    char *host = read_bytes(device, t);
    double *numbers = malloc((size_t)numbers_of(t) * sizeof *numbers + 1);

    for (int64_t i = 0; i < numbers_of(t); i++)
        numbers[i] = ls_dtype_load(t->type, host + i * ls_dtype_size(t->type));
    free(host);
    return numbers;
}

static inline bool has_same_bits(struct ls_device *of_a, const struct ls_tensor *a,
                                 struct ls_device *of_b, const struct ls_tensor *b)
{
    char *one = read_bytes(of_a, a), *other = read_bytes(of_b, b);
    const bool same = memcmp(one, other, bytes_of(a)) == 0;

    free(one);
    free(other);
    return same;
}

#endif
