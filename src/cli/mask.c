#include "cli/mask.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/options.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "longspan/store.h"
#include "tensor/dtype.h"
#include "tensor/file.h"

#define FARTHEST (INT64_C(1) << 60)

/* ---- options */

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
    case CLI_KEY_PADDING:
        return set_padding(attention, value);
    case CLI_KEY_SLICES:
        out->slices = value;
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
    default:
        return set_dropout(attention, value);
    }
}

bool cli_mask_given(const struct cli_mask_options *options,
                    const struct ls_attention_options *attention)
{
    return options->documents || options->cu_seqlens_q || options->cu_seqlens_k ||
           options->q_lengths || options->k_lengths || options->slices || options->sinks ||
           options->alibi || attention->causal || attention->align_start || attention->has_window ||
           attention->has_query_offset || attention->prefix > 0 || attention->soft_cap > 0 ||
           attention->dropout > 0;
}

/* ---- arrays */

/* Whether a value is the numbers themselves: its first one ends with a comma or the value. */
static bool is_list(const char *value)
{
    char *end;

    strtod(value, &end);
    return end > value && (*end == ',' || *end == '\0');
}

static ls_status list_integers(struct ls_integers *out, const char *option, const char *list)
{
    int room = 1, listed = 0;

    for (const char *c = list; *c; c++) room += *c == ',';
    out->number = malloc((size_t)room * sizeof(*out->number));
    if (!out->number) return ls_fail(LS_ENOMEM, "%s: out of memory", option);
    LS_TRY(cli_value_list(out->number, &listed, option, list, 1, room, 0, INT64_MAX));
    out->rows = 1;
    out->columns = listed;
    return LS_OK;
}

/* Of a list or a file. */
static ls_status load_integers(struct ls_integers *out, const char *option, const char *value)
{
    return is_list(value) ? list_integers(out, option, value) : ls_integers_load(out, value);
}

/* One list for all entries of the batch, or one for each. */
static ls_status load_documents(struct ls_integers *out, const char *option, const char *value,
                                int64_t b)
{
    LS_TRY(load_integers(out, option, value));
    if (out->rows != 1 && out->rows != b)
        return ls_fail(LS_ESHAPE,
                       "%s %s: %" PRId64 " lists, must be one, or one for each of the %" PRId64
                       " entries of the batch",
                       option, value, out->rows, b);
    if (out->columns >= 2) return LS_OK;
    return ls_fail(LS_EVALUE,
                   "%s %s: %" PRId64 " numbers; the lengths of documents, added up, begin with 0 "
                   "and end with the number of %s",
                   option, value, out->columns, strstr(option, "-q") ? "queries" : "keys");
}

static ls_status load_key_documents(struct cli_mask_arrays *out,
                                    struct ls_attention_options *attention,
                                    const struct cli_mask_options *options, int64_t b)
{
    const bool varlen = options->cu_seqlens_k != NULL;

    if (varlen && options->documents)
        return ls_fail(LS_EVALUE, "--documents and --cu-seqlens-k exclude each other: both say "
                                  "where documents of keys begin");
    if (!varlen && !options->documents) return LS_OK;
    LS_TRY(load_documents(&out->documents, varlen ? "--cu-seqlens-k" : "--documents",
                          varlen ? options->cu_seqlens_k : options->documents, b));
    attention->documents = out->documents.number;
    attention->document_count = out->documents.columns - 1;
    attention->documents_per_entry = out->documents.rows > 1;
    return LS_OK;
}

static ls_status load_query_documents(struct cli_mask_arrays *out,
                                      struct ls_attention_options *attention,
                                      const struct cli_mask_options *options, int64_t b)
{
    const struct ls_integers *q = &out->q_documents, *k = &out->documents;

    if (!options->cu_seqlens_q != !options->cu_seqlens_k)
        return ls_fail(LS_EVALUE,
                       "--cu-seqlens-q and --cu-seqlens-k belong together: %s is missing",
                       options->cu_seqlens_q ? "--cu-seqlens-k" : "--cu-seqlens-q");
    if (!options->cu_seqlens_q) return LS_OK;
    LS_TRY(load_documents(&out->q_documents, "--cu-seqlens-q", options->cu_seqlens_q, b));
    attention->q_documents = q->number;
    if (q->rows == k->rows && q->columns == k->columns) return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "--cu-seqlens-q is [%" PRId64 ", %" PRId64 "], --cu-seqlens-k [%" PRId64
                   ", %" PRId64 "]: each document of queries sees the one of keys of its number",
                   q->rows, q->columns, k->rows, k->columns);
}

static ls_status load_lengths(struct ls_integers *out, const int64_t **lengths, const char *option,
                              const char *value, int64_t b)
{
    if (!value) return LS_OK;
    LS_TRY(load_integers(out, option, value));
    *lengths = out->number;
    if (out->rows == 1 && out->columns == b) return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "%s %s: %" PRId64 " numbers, must be one for each of the %" PRId64
                   " entries of the batch",
                   option, value, out->rows * out->columns, b);
}

/* Numbers of a slice, as they stand in a file and in struct ls_slice. */
enum { SLICE_NUMBERS = 5 };

static ls_status load_slices(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                             const char *value)
{
    const struct ls_integers *got = &out->slices;

    if (!value) return LS_OK;
    LS_TRY(load_integers(&out->slices, "--slices", value));
    attention->slices = (const struct ls_slice *)(const void *)got->number;
    attention->slice_count = got->rows * got->columns / SLICE_NUMBERS;
    if (is_list(value) ? got->columns % SLICE_NUMBERS == 0 : got->columns == SLICE_NUMBERS)
        return LS_OK;
    return ls_fail(LS_EVALUE,
                   "--slices %s: %" PRId64 " numbers, must be five for each: q0,q1,k0,k1,type",
                   value, got->columns);
}

/* Larger ones are no numbers in units of log2. */
static bool is_logit(float x)
{
    return fabsf(x) <= 0x1p126f;
}

static ls_status read_heads(float *out, const struct ls_input *source, int64_t heads)
{
    double raw; /* of any type */

    if (source->ndim != 1 || source->dim[0] != heads)
        return ls_fail(LS_ESHAPE, "%s: must be one number for each of the %" PRId64 " heads",
                       source->label, heads);
    for (int64_t i = 0; i < heads; i++) {
        LS_TRY(ls_tensor_file_read(&raw, source->file, source->tensor, i, 1));
        ls_dtype_convert(&out[i], LS_F32, &raw, source->type, 1);
        if (!is_logit(out[i]))
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
        if (end == rest || *end != after || !is_logit(out[i]))
            return ls_fail(LS_EVALUE,
                           "--%s: '%s' must be one finite number for each of the %" PRId64 " heads",
                           name, list, heads);
        rest = end + 1;
    }
    return LS_OK;
}

static ls_status make_room(float **out, const char *name, int64_t heads)
{
    *out = malloc((size_t)heads * sizeof(**out));
    return *out ? LS_OK : ls_fail(LS_ENOMEM, "--%s: out of memory", name);
}

/* A number for each head, of the option and tensor of this name. */
static ls_status load_heads(float *out, const char *name, const char *value,
                            const struct cli_names *names, const struct cli_world *world,
                            int64_t heads)
{
    struct ls_input source;

    if (is_list(value)) return list_heads(out, name, value, heads);
    LS_TRY(cli_names_open(&source, names, name, world, value, true));
    const ls_status status = read_heads(out, &source, heads);

    ls_input_close(&source);
    return ls_comm_agree(world->comm, status);
}

static ls_status load_sinks(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                            const char *value, const struct cli_names *names,
                            const struct cli_world *world, int64_t heads)
{
    LS_TRY(make_room(&out->sinks, "sinks", heads));
    attention->sinks = out->sinks;
    return load_heads(out->sinks, "sinks", value, names, world, heads);
}

static ls_status load_slopes(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                             const char *value, const struct cli_names *names,
                             const struct cli_world *world, int64_t heads)
{
    LS_TRY(make_room(&out->alibi, "alibi", heads));
    attention->alibi = out->alibi;
    if (value) return load_heads(out->alibi, "alibi", value, names, world, heads);
    ls_alibi_slopes(out->alibi, heads);
    return LS_OK;
}

static ls_status load(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                      const struct cli_mask_options *options, const struct cli_names *names,
                      const struct cli_world *world, const struct ls_attention_shape *shape)
{
    struct ls_scores scores;

    LS_TRY(load_key_documents(out, attention, options, shape->b));
    LS_TRY(load_query_documents(out, attention, options, shape->b));
    LS_TRY(load_lengths(&out->q_lengths, &attention->q_lengths, "--q-lengths", options->q_lengths,
                        shape->b));
    LS_TRY(load_lengths(&out->k_lengths, &attention->k_lengths, "--k-lengths", options->k_lengths,
                        shape->b));
    if (attention->pad_left && !options->q_lengths && !options->k_lengths)
        return ls_fail(LS_EVALUE,
                       "--padding is of --q-lengths or --k-lengths, and neither is given");
    LS_TRY(load_slices(out, attention, options->slices));
    if (options->alibi)
        LS_TRY(load_slopes(out, attention, options->slopes, names, world, shape->h));
    if (options->sinks) LS_TRY(load_sinks(out, attention, options->sinks, names, world, shape->h));
    LS_TRY(ls_options_mask(NULL, shape, attention));
    return ls_options_scores(&scores, shape, attention);
}

ls_status cli_mask_load(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                        const struct cli_mask_options *options, const struct cli_names *names,
                        const struct cli_world *world, const struct ls_attention_shape *shape)
{
    *out = (struct cli_mask_arrays){.alibi = NULL};
    return ls_comm_agree(world->comm, load(out, attention, options, names, world, shape));
}

void cli_mask_free(struct cli_mask_arrays *arrays)
{
    free(arrays->sinks);
    free(arrays->alibi);
    free(arrays->documents.number);
    free(arrays->q_documents.number);
    free(arrays->q_lengths.number);
    free(arrays->k_lengths.number);
    free(arrays->slices.number);
}
