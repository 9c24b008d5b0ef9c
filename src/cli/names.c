#include "cli/names.h"

#include <stdio.h>
#include <string.h>

#include "base/nearest.h"
#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/file.h"

/* clang-format off */
static const char *const tensors[] = {
    "q", "k", "v", "qkv", "do", "k_scale", "v_scale", "k_mean",
    "q_lengths", "k_lengths", "cu_seqlens_q", "cu_seqlens_k", "mask", "alibi", "sinks", "distance_bias", "bias",
    "o", "lse", "dq", "dk", "dv", "dsinks", "ddistance_bias", "dbias"};
/* clang-format on */

#define TENSORS ((int)(sizeof tensors / sizeof *tensors))

_Static_assert(TENSORS == CLI_MOST_NAMES, "a name for each");
_Static_assert(LS_NAME_LENGTH == CLI_NAME_ROOM, "as long as those of files");

static int find(const char *tensor)
{
    int i = 0;

    while (i < TENSORS && strcmp(tensors[i], tensor) != 0) i++;
    return i;
}

static ls_status fail_unknown(const char *tensor)
{
    const char *nearest = ls_nearest(tensor, tensors, TENSORS);

    if (nearest)
        return ls_fail(LS_EVALUE, "--names: there is no tensor '%s'; is %s meant?", tensor,
                       nearest);
    return ls_fail(
        LS_EVALUE,
        "--names: there is no tensor '%s'; there are q, k, v, qkv, do, k_scale, v_scale, k_mean, "
        "q_lengths, k_lengths, cu_seqlens_q, cu_seqlens_k, mask, alibi, sinks, distance_bias, "
        "bias, o, "
        "lse, dq, dk, dv, dsinks, ddistance_bias and dbias",
        tensor);
}

/* One "q=query". */
static ls_status set_one(struct cli_names *names, const char *text, size_t length)
{
    const char *equals = memchr(text, '=', length);
    const size_t key = equals ? (size_t)(equals - text) : 0;
    const size_t value = equals ? length - key - 1 : 0;
    char tensor[CLI_NAME_ROOM];

    if (key == 0 || value == 0 || key >= sizeof tensor || value >= CLI_NAME_ROOM)
        return ls_fail(LS_EVALUE,
                       "--names: '%.*s' is not a tensor and what the file calls it, as in q=query",
                       (int)(length < CLI_NAME_ROOM ? length : CLI_NAME_ROOM), text);
    snprintf(tensor, sizeof tensor, "%.*s", (int)key, text);
    const int i = find(tensor);

    if (i == TENSORS) return fail_unknown(tensor);
    snprintf(names->given[i], CLI_NAME_ROOM, "%.*s", (int)value, equals + 1);
    return LS_OK;
}

ls_status cli_names_set(struct cli_names *names, const char *text)
{
    for (bool more = true; more;) {
        const size_t length = strcspn(text, ",");

        LS_TRY(set_one(names, text, length));
        more = text[length] == ',';
        text += length + 1;
    }
    return LS_OK;
}

bool cli_names_given(const struct cli_names *names)
{
    for (int i = 0; i < TENSORS; i++)
        if (names->given[i][0]) return true;
    return false;
}

const char *cli_names_of(const struct cli_names *names, const char *tensor)
{
    const char *given = names->given[find(tensor)];

    return given[0] ? given : tensor;
}

bool cli_names_expect(const struct cli_names *names, const char *tensor,
                      const struct ls_tensor_file *file)
{
    return names->given[find(tensor)][0] || ls_tensor_file_find(file, tensor);
}

/* What has just failed, if a name would have helped with what it is. */
static ls_status explain(ls_status status, const struct cli_names *names, const char *tensor)
{
    if (status != LS_EVALUE || names->given[find(tensor)][0]) return status;
    return ls_fail(LS_EVALUE, "%s; --names %s=NAME says what it is called%s", ls_message(), tensor,
                   strcmp(tensor, "q") == 0 ? ", --packed how q, k and v lie in one" : "");
}

/* Numbers of 8 bits mean something with their scales. */
static ls_status check_type(struct ls_input *source, const char *tensor)
{
    const bool is_of_kv = strcmp(tensor, "k") == 0 || strcmp(tensor, "v") == 0;

    if (!ls_dtype_is_of_8_bits(source->type) || is_of_kv) return LS_OK;
    ls_fail(LS_ETYPE, "%s: type is %s: only k and v can be of 8 bits", source->label,
            ls_dtype_name(source->type));
    ls_input_close(source);
    return LS_ETYPE;
}

ls_status cli_names_open(struct ls_input *out, const struct cli_names *names, const char *tensor,
                         const struct cli_world *world, const char *path, bool lone)
{
    const char *name = cli_names_of(names, tensor);

    LS_TRY(explain(ls_input_open(out, world->comm, path, name, lone), names, tensor));
    return check_type(out, tensor);
}

ls_status cli_names_open_beside(struct ls_input *out, const struct cli_names *names,
                                const char *tensor, const struct ls_input *beside)
{
    const char *name = cli_names_of(names, tensor);

    LS_TRY(explain(ls_input_open_beside(out, beside, name), names, tensor));
    return check_type(out, tensor);
}
