#include "cli/biases.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/status.h"
#include "cli/values.h"
#include "store/elements.h"

ls_status cli_biases_read(float **out, struct ls_attention_options *attention,
                          const struct ls_input *source, int64_t heads)
{
    const int64_t distances = source->dim[1];

    if (source->ndim != 2 || source->dim[0] != heads || distances % 2 == 0)
        return ls_fail(LS_ESHAPE,
                       "%s: must be [%" PRId64 ", n], an odd number of biases for each head, the "
                       "one of distance 0 in the middle",
                       source->label, heads);
    const int64_t n = heads * distances;

    *out = malloc((size_t)n * sizeof(**out));
    if (!*out) return ls_fail(LS_ENOMEM, "%s: out of memory", source->label);
    attention->distance_bias = *out;
    attention->distances = distances;
    LS_TRY(ls_input_read_floats(*out, source, 0, n));
    for (int64_t i = 0; i < n; i++)
        if (!cli_is_logit((*out)[i]))
            return ls_fail(
                LS_EVALUE,
                "%s: the bias of head %" PRId64 " by distance %" PRId64 " is %g, beyond 2^126",
                source->label, i / distances, i % distances - distances / 2, (double)(*out)[i]);
    return LS_OK;
}
