#include "cli/pair_biases.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/status.h"
#include "cli/format.h"
#include "cli/memory.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "store/elements.h"

#define CHUNK 65536 /* elements that are widened at a time */

ls_status cli_pair_biases_measure(struct ls_attention_options *attention,
                                  const struct ls_input *source,
                                  const struct ls_attention_shape *shape)
{
    const int64_t *dim = source->ndim == 4 ? source->dim + 2 : source->dim;
    const int64_t entries = source->ndim == 4 ? source->dim[0] : 1,
                  heads = source->ndim == 4 ? source->dim[1] : 1;

    attention->bias_per_entry = entries > 1;
    attention->bias_per_head = heads > 1;
    if ((source->ndim == 2 || source->ndim == 4) && dim[0] == shape->s_q && dim[1] == shape->s_k &&
        shape->s_k > 0 && (entries == 1 || entries == shape->b) &&
        (heads == 1 || heads == shape->h))
        return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "%s: biases of pairs are [%s], must be [%" PRId64 ", %" PRId64 "] or [%" PRId64
                   " or 1, %" PRId64 " or 1, %" PRId64 ", %" PRId64 "]",
                   source->label, cli_dims(source->dim, source->ndim).s, shape->s_q, shape->s_k,
                   shape->b, shape->h, shape->s_q, shape->s_k);
}

static ls_status check_value(const struct ls_input *source, int64_t at, double value)
{
    const int64_t *dim = source->dim + source->ndim - 2, matrix = dim[0] * dim[1];
    const int64_t heads = source->ndim == 4 ? source->dim[1] : 1;

    if (fabs(value) <= 0x1p126 || value == -INFINITY) return LS_OK;
    return ls_fail(LS_EVALUE,
                   "%s: the bias of batch %" PRId64 ", head %" PRId64 ", query %" PRId64
                   ", key %" PRId64 " is %g, %s; a key that is not to be seen has -inf",
                   source->label, at / matrix / heads, at / matrix % heads, at % matrix / dim[1],
                   at % dim[1], value, isnan(value) ? "no number" : "beyond 2^126");
}

/* This rank's share of what all ranks have before them. */
static ls_status check_share(const float *bias, const struct ls_input *source, int64_t n,
                             const struct cli_world *world)
{
    const int64_t share = n / world->size + 1, first = share * world->rank;

    for (int64_t i = first; i < n && i < first + share; i++) {
        if ((i - first) % CHUNK == 0) cli_world_beat(world);
        LS_TRY(check_value(source, i, (double)bias[i]));
    }
    return LS_OK;
}

static ls_status read_all(float *out, const struct ls_input *source, int64_t n,
                          const struct cli_world *world)
{
    double *wide = malloc(CHUNK * sizeof(*wide));
    ls_status status = wide ? LS_OK : ls_fail(LS_ENOMEM, "%s: out of memory", source->label);

    for (int64_t first = 0; first < n && status == LS_OK; first += CHUNK) {
        const int64_t count = n - first < CHUNK ? n - first : CHUNK;

        cli_world_beat(world);
        status = ls_input_read(wide, source, first, count);
        for (int64_t i = 0; i < count && status == LS_OK; i++) {
            status = check_value(source, first + i, wide[i]);
            out[first + i] = (float)wide[i];
        }
    }
    free(wide);
    return status;
}

static ls_status read_into_memory(float **out, const struct ls_input *source, int64_t n,
                                  const struct cli_world *world)
{
    *out = malloc((size_t)n * sizeof(**out));
    if (*out) return read_all(*out, source, n, world);
    return ls_fail(LS_ENOMEM, "%s: no memory for %" PRId64 " biases", source->label, n);
}

ls_status cli_pair_biases_read(struct cli_pair_biases *out, struct ls_attention_options *attention,
                               const struct ls_input *source, const struct cli_world *world)
{
    const int64_t n = source->tensor->bytes / ls_dtype_size(source->type);

    if (source->type == LS_F32 && ls_tensor_file_map(&out->mapping, source->file, source->tensor)) {
        attention->bias = out->mapping.data;
        return ls_comm_agree(world->comm, check_share(attention->bias, source, n, world));
    }
    LS_TRY(cli_memory_check(world, (double)n * (double)sizeof(float)));
    const ls_status status = read_into_memory(&out->memory, source, n, world);

    attention->bias = out->memory;
    return ls_comm_agree(world->comm, status);
}

void cli_pair_biases_free(struct cli_pair_biases *biases)
{
    ls_mapping_end(&biases->mapping);
    free(biases->memory);
}
