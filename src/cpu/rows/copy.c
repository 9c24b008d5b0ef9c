#include "cpu/rows/rows.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cpu/device.h"
#include "tensor/dtype.h"

#define AXES 3                    /* before the last one */
#define CHUNK ((size_t)256 << 10) /* bytes that one thread copies at once */
#define WORTH_A_TEAM ((size_t)64 << 10)

/* A tensor, or two of one shape, as runs of bytes that lie one after the other in both. */
struct runs {
    int64_t dim[AXES];
    ptrdiff_t to[AXES], from[AXES]; /* bytes */
    size_t bytes, all_bytes;
};

/* Axes join in whatever order they lie in both: a copy has none of its own. */
static struct runs runs_of(const struct ls_tensor *to, const struct ls_tensor *from)
{
    const size_t size = (size_t)ls_dtype_size(to->type);
    const int last = to->ndim - 1;
    struct runs r = {.dim = {1, 1, 1}, .bytes = (size_t)to->dim[last] * size};

    r.all_bytes = r.bytes;
    for (int i = 0; i < last; i++) {
        r.dim[i] = to->dim[i];
        r.to[i] = (ptrdiff_t)size * to->stride[i];
        r.from[i] = (ptrdiff_t)size * from->stride[i];
        r.all_bytes *= (size_t)r.dim[i];
    }
    for (int i = last - 1; i >= 0; i--) {
        if (r.dim[i] == 1 || r.to[i] != (ptrdiff_t)r.bytes || r.from[i] != (ptrdiff_t)r.bytes)
            continue;
        r.bytes *= (size_t)r.dim[i];
        r.dim[i] = 1;
        i = last; /* another may follow now */
    }
    return r;
}

/* from NULL: zeros. */
static void fill(char *to, const char *from, size_t bytes)
{
    if (!from)
        memset(to, 0, bytes);
    else if (bytes == sizeof(float)) /* a number of each row: no call */
        memcpy(to, from, sizeof(float));
    else
        memcpy(to, from, bytes);
}

static void fill_runs(char *to, const char *from, const struct runs *r, int threads)
{
    const int64_t chunks = (int64_t)((r->bytes + CHUNK - 1) / CHUNK);
    const int64_t n = r->dim[0] * r->dim[1] * chunks;

#pragma omp parallel for num_threads(threads) if (r->all_bytes >= WORTH_A_TEAM)
    for (int64_t i = 0; i < n; i++) {
        const int64_t outer = i / chunks / r->dim[1], inner = i / chunks % r->dim[1];
        const size_t first = (size_t)(i % chunks) * CHUNK;
        const size_t bytes = r->bytes - first < CHUNK ? r->bytes - first : CHUNK;
        char *row = to + outer * r->to[0] + inner * r->to[1] + first;
        const char *source = from ? from + outer * r->from[0] + inner * r->from[1] + first : NULL;

        for (int64_t k = 0; k < r->dim[2]; k++)
            fill(row + k * r->to[2], source ? source + k * r->from[2] : NULL, bytes);
    }
}

void cpu_copy(void *self, struct ls_tensor *to, const struct ls_tensor *from)
{
    const struct runs r = runs_of(to, from);

    fill_runs(to->data, from->data, &r, ((const struct cpu *)self)->threads);
}

void cpu_zero(void *self, struct ls_tensor *t)
{
    const struct runs r = runs_of(t, t);

    fill_runs(t->data, NULL, &r, ((const struct cpu *)self)->threads);
}
