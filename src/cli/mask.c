#include "cli/mask.h"

#include <inttypes.h>
#include <string.h>

#include "base/nearest.h"
#include "base/status.h"
#include "cli/values.h"

#define FARTHEST (INT64_C(1) << 60)

static ls_status set_align(struct ls_attention_options *out, const char *value)
{
    static const char *const names[] = {"end", "start"};
    int i;

    LS_TRY(cli_value_name(&i, "--align", value, names, 2));
    out->align_start = i == 1;
    return LS_OK;
}

static ls_status set_padding(struct ls_attention_options *out, const char *value)
{
    static const char *const names[] = {"right", "left"};
    int i;

    LS_TRY(cli_value_name(&i, "--padding", value, names, 2));
    out->pad_left = i == 1;
    return LS_OK;
}

/* One side of a window, up to `end` of the value. */
static ls_status read_side(int64_t *out, const char *value, const char *end)
{
    char side[32] = "";

    if (end - value < (int)sizeof(side)) memcpy(side, value, (size_t)(end - value));
    if (strcmp(side, "inf") == 0) {
        *out = LS_NO_LIMIT;
        return LS_OK;
    }
    if (cli_value_integer(out, "--window", side, 0, FARTHEST) == LS_OK) return LS_OK;
    return ls_fail(LS_EVALUE, "--window: a side is '%s'; it can be 0 to 2^60, or inf", side);
}

static ls_status set_window(struct ls_attention_options *out, const char *value)
{
    const char *comma = strchr(value, ',');

    if (!comma || strchr(comma + 1, ','))
        return ls_fail(LS_EVALUE, "--window: '%s' is not two sides L,R", value);
    LS_TRY(read_side(&out->window_left, value, comma));
    LS_TRY(read_side(&out->window_right, comma + 1, value + strlen(value)));
    out->has_window = true;
    return LS_OK;
}

static ls_status set_query_offset(struct ls_attention_options *out, const char *value)
{
    out->has_query_offset = true;
    return cli_value_integer(&out->query_offset, "--query-offset", value, -FARTHEST, FARTHEST);
}

static ls_status set_soft_cap(struct ls_attention_options *out, const char *value)
{
    LS_TRY(cli_value_float(&out->soft_cap, "--soft-cap", value));
    if (out->soft_cap > 0) return LS_OK;
    return ls_fail(LS_EVALUE, "--soft-cap: %s is not more than 0", value);
}

/* P or P,SEED */
static ls_status set_dropout(struct ls_attention_options *out, const char *value)
{
    const char *comma = strchr(value, ',');
    const size_t length = comma ? (size_t)(comma - value) : strlen(value);
    char part[32] = "";
    int64_t seed = 0;

    if (length >= sizeof(part))
        return ls_fail(LS_EVALUE, "--dropout: '%s' is more than a number needs", value);
    memcpy(part, value, length);
    LS_TRY(cli_value_float(&out->dropout, "--dropout", part));
    if (!(out->dropout >= 0 && out->dropout < 1))
        return ls_fail(LS_EVALUE, "--dropout: %s is not from 0 to below 1", part);
    if (comma) LS_TRY(cli_value_integer(&seed, "--dropout (SEED)", comma + 1, 0, INT64_MAX));
    out->dropout_seed = (uint64_t)seed;
    return LS_OK;
}

const char *const cli_mask_tensors[CLI_MASK_TENSORS] = {
    "q_lengths", "k_lengths", "cu_seqlens_q", "cu_seqlens_k", "sinks", "distance_bias", "bias"};

static ls_status ignore(struct cli_mask_options *out, const char *value)
{
    for (int i = 0; i < CLI_MASK_TENSORS; i++)
        if (strcmp(cli_mask_tensors[i], value) == 0) {
            out->ignored[i] = true;
            return LS_OK;
        }
    const char *nearest = ls_nearest(value, cli_mask_tensors, CLI_MASK_TENSORS);

    return ls_fail(LS_EVALUE,
                   "--ignore: '%s' is used by no file without being asked for%s%s; q_lengths, "
                   "k_lengths, cu_seqlens_q, cu_seqlens_k, sinks, distance_bias and bias are",
                   value, nearest ? ", did you mean " : "", nearest ? nearest : "");
}

ls_status cli_mask_set(struct cli_mask_options *out, struct ls_attention_options *attention,
                       int key, const char *value)
{
    switch (key) {
    case CLI_KEY_CAUSAL:
        attention->causal = true;
        return LS_OK;
    case CLI_KEY_ALIGN:
        return set_align(attention, value);
    case CLI_KEY_WINDOW:
        return set_window(attention, value);
    case CLI_KEY_DOCUMENTS:
        out->documents = value;
        return LS_OK;
    case CLI_KEY_CU_SEQLENS_Q:
        out->cu_seqlens_q = value;
        return LS_OK;
    case CLI_KEY_CU_SEQLENS_K:
        out->cu_seqlens_k = value;
        return LS_OK;
    case CLI_KEY_Q_LENGTHS:
        out->q_lengths = value;
        return LS_OK;
    case CLI_KEY_K_LENGTHS:
        out->k_lengths = value;
        return LS_OK;
    case CLI_KEY_IGNORE:
        return ignore(out, value);
    case CLI_KEY_PADDING:
        return set_padding(attention, value);
    case CLI_KEY_SLICES:
        out->slices = value;
        return LS_OK;
    case CLI_KEY_PAIRS:
        out->pairs = value;
        return LS_OK;
    case CLI_KEY_PREFIX:
        return cli_value_integer(&attention->prefix, "--prefix", value, 0, INT64_MAX);
    case CLI_KEY_QUERY_OFFSET:
        return set_query_offset(attention, value);
    case CLI_KEY_ALIBI:
        out->alibi = true;
        out->slopes = value;
        return LS_OK;
    case CLI_KEY_SOFT_CAP:
        return set_soft_cap(attention, value);
    case CLI_KEY_SINKS:
        out->sinks = value;
        return LS_OK;
    case CLI_KEY_DISTANCE_BIAS:
        out->distance_bias = value;
        return LS_OK;
    case CLI_KEY_BIAS:
        out->bias = value;
        return LS_OK;
    default:
        return set_dropout(attention, value);
    }
}

bool cli_mask_given(const struct cli_mask_options *options,
                    const struct ls_attention_options *attention)
{
    return options->documents || options->cu_seqlens_q || options->cu_seqlens_k ||
           options->q_lengths || options->k_lengths || options->slices || options->pairs ||
           options->sinks || options->distance_bias || options->bias || options->alibi ||
           attention->causal || attention->align_start || attention->has_window ||
           attention->has_query_offset || attention->prefix > 0 || attention->soft_cap > 0 ||
           attention->dropout > 0;
}
