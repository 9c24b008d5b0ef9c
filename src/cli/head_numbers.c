#include "cli/head_numbers.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/status.h"
#include "cli/values.h"
#include "store/elements.h"

static ls_status read_heads(float *out, const struct ls_input *source, int64_t heads)
{
    if (source->ndim != 1 || source->dim[0] != heads)
        return ls_fail(LS_ESHAPE, "%s: must be one number for each of the %" PRId64 " heads",
                       source->label, heads);
    LS_TRY(ls_input_read_floats(out, source, 0, heads));
    for (int64_t i = 0; i < heads; i++) {
        if (!cli_is_logit(out[i]))
            return ls_fail(LS_EVALUE, "%s: the number of head %" PRId64 " is %g, beyond 2^126",
                           source->label, i, (double)out[i]);
    }
    return LS_OK;
}

static ls_status list_heads(float *out, const char *name, const char *list, int64_t heads)
{
    const char *rest = list;

    for (int64_t i = 0; i < heads; i++) {
        const char after = i + 1 < heads ? ',' : '\0';
        char *end;

        out[i] = strtof(rest, &end);
        if (end == rest || *end != after || !cli_is_logit(out[i]))
            return ls_fail(LS_EVALUE,
                           "--%s: '%s' must be one finite number for each of the %" PRId64 " heads",
                           name, list, heads);
        rest = end + 1;
    }
    return LS_OK;
}

ls_status cli_heads_make(float **out, const char *name, int64_t heads)
{
    *out = malloc((size_t)heads * sizeof(**out));
    return *out ? LS_OK : ls_fail(LS_ENOMEM, "--%s: out of memory", name);
}

ls_status cli_heads_load(float **out, const char *name, const char *value,
                         const struct ls_input *source, int64_t heads)
{
    LS_TRY(cli_heads_make(out, name, heads));
    return source->file ? read_heads(*out, source, heads) : list_heads(*out, name, value, heads);
}
