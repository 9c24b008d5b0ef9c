/* Tests fill and read memory of the host, a device computes in its own: what a call names is
 * written there before it, and results are read back after it. */
#ifndef TESTS_DEVICE_MIRROR_H
#define TESTS_DEVICE_MIRROR_H

#include <criterion/criterion.h>
#include <stdint.h>

#include "device/device.h"
#include "tensor/dtype.h"

enum { MOST_MIRRORED = 24, ALIGNMENT = 64 };

struct mirrored {
    char *host, *there;
    size_t bytes;
    void *memory; /* of the device, around there */
    bool is_result;
};

struct mirror {
    struct ls_device *device;
    struct mirrored part[MOST_MIRRORED];
    int count;
};

/* The part that holds [host, host + bytes). One that is new is no better aligned than the host's.
 */
static inline struct mirrored *mirror_part(struct mirror *m, const void *host, size_t bytes)
{
    const uintptr_t begin = (uintptr_t)host;
    struct mirrored *part = m->part;

    for (; part < m->part + m->count; part++)
        if (begin >= (uintptr_t)part->host && begin + bytes <= (uintptr_t)part->host + part->bytes)
            return part;
    cr_assert_lt(m->count++, MOST_MIRRORED);
    *part = (struct mirrored){.host = (char *)host, .bytes = bytes};
    cr_assert_eq(ls_device_alloc(&part->memory, m->device, LS_TAG_ACTIVATION, bytes + ALIGNMENT),
                 LS_OK, "%s", ls_message());
    part->there = (char *)part->memory + begin % ALIGNMENT;
    ls_device_write(m->device, part->there, host, bytes);
    return part;
}

/* Where the device has this; NULL has nothing. */
static inline void *mirror_operand(struct mirror *m, const void *host, size_t bytes)
{
    if (!host) return NULL;
    const struct mirrored *part = mirror_part(m, host, bytes);
    return part->there + ((const char *)host - part->host);
}

static inline void *mirror_result(struct mirror *m, void *host, size_t bytes)
{
    if (host) mirror_part(m, host, bytes)->is_result = true;
    return mirror_operand(m, host, bytes);
}

/* From the first element to the last. */
static inline size_t mirror_bytes(const struct ls_tensor *t)
{
    int64_t last = 0;

    for (int i = 0; i < t->ndim; i++) {
        if (t->dim[i] == 0) return 0;
        last += (t->dim[i] - 1) * t->stride[i];
    }
    return (size_t)(last + 1) * (size_t)ls_dtype_size(t->type);
}

/* *there: t on the device. Gives there, or NULL for NULL. */
static inline struct ls_tensor *mirror_input(struct ls_tensor *there, struct mirror *m,
                                             const struct ls_tensor *t)
{
    if (!t) return NULL;
    *there = *t;
    there->data = mirror_operand(m, t->data, mirror_bytes(t));
    return there;
}

static inline struct ls_tensor *mirror_output(struct ls_tensor *there, struct mirror *m,
                                              const struct ls_tensor *t)
{
    if (t) mirror_result(m, t->data, mirror_bytes(t));
    return mirror_input(there, m, t);
}

/* Ends the mirror. */
static inline void mirror_read_back(struct mirror *m)
{
    for (int i = 0; i < m->count; i++) {
        struct mirrored *part = &m->part[i];

        if (part->is_result) ls_device_read(m->device, part->host, part->there, part->bytes);
        ls_device_free(m->device, part->memory);
    }
    m->count = 0;
}

#endif
