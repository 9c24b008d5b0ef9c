#include "cli/mask_arrays.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attention/options.h"
#include "cli/biases.h"
#include "cli/head_numbers.h"
#include "cli/memory.h"
#include "cli/pairs.h"
#include "cli/values.h"
#include "comm/comm.h"
#include "store/shared.h"

/* What is loaded, and from where. */
struct loading {
    struct cli_mask_arrays *out;
    struct ls_attention_options *attention;
    const struct cli_mask_options *options;
    const struct cli_names *names;
    const struct ls_input *beside;         /* of --input; NULL: there is none */
    struct ls_input sinks, slopes, biases; /* open where options name files */
    struct cli_pairs pairs;                /* likewise */
    struct ls_input pair_biases;           /* likewise, or of the input */
    int64_t b, h;
};

/* Where numbers come from, for messages: "--q-lengths 1,2", "tensor q_lengths". */
struct origin {
    char text[96];
};

static struct origin origin(const char *option, const char *value, const char *tensor)
{
    struct origin out;

    if (value)
        snprintf(out.text, sizeof(out.text), "%s %.60s", option, value);
    else
        snprintf(out.text, sizeof(out.text), "tensor %s", tensor);
    return out;
}

/* Whether --input has this tensor, and nobody said that it is not meant. */
static bool is_brought(const struct loading *l, int tensor)
{
    return l->beside && !l->options->ignored[tensor] &&
           cli_names_expect(l->names, cli_mask_tensors[tensor], l->beside->file);
}

static void tell(struct cli_mask_arrays *out, const char *tensor)
{
    const size_t used = strlen(out->used);

    snprintf(out->used + used, sizeof(out->used) - used, "%s%s", used > 0 ? ", " : "", tensor);
}

/* ---- whole numbers */

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

/* Of a tensor that --input brings. */
static ls_status take_integers(struct ls_integers *out, const struct loading *l, int tensor)
{
    const char *name = cli_mask_tensors[tensor];

    LS_TRY(ls_tensor_file_integers(out, l->beside->file, cli_names_of(l->names, name)));
    tell(l->out, name);
    return LS_OK;
}

/* Of the option or, without it, of the tensor; whether either is there. */
static ls_status load_any(bool *there, struct ls_integers *out, const struct loading *l, int tensor,
                          const char *option, const char *value)
{
    *there = value || is_brought(l, tensor);
    if (!*there) return LS_OK;
    return value ? load_integers(out, option, value) : take_integers(out, l, tensor);
}

/* One list for all entries of the batch, or one for each. */
static ls_status check_documents(const struct ls_integers *lists, struct origin of,
                                 const char *what, int64_t b)
{
    if (lists->rows != 1 && lists->rows != b)
        return ls_fail(LS_ESHAPE,
                       "%s: %" PRId64 " lists, must be one, or one for each of the %" PRId64
                       " entries of the batch",
                       of.text, lists->rows, b);
    if (lists->columns >= 2) return LS_OK;
    return ls_fail(LS_EVALUE,
                   "%s: %" PRId64 " numbers; the lengths of documents, added up, begin with 0 and "
                   "end with the number of %s",
                   of.text, lists->columns, what);
}

static void refer_to_documents(struct ls_attention_options *attention,
                               const struct ls_integers *lists)
{
    attention->documents = lists->number;
    attention->document_count = lists->columns - 1;
    attention->documents_per_entry = lists->rows > 1;
}

static ls_status load_documents(const struct loading *l)
{
    const char *value = l->options->documents;
    struct ls_integers *lists = &l->out->documents;

    LS_TRY(load_integers(lists, "--documents", value));
    LS_TRY(check_documents(lists, origin("--documents", value, NULL), "keys", l->b));
    refer_to_documents(l->attention, lists);
    return LS_OK;
}

/* Documents of queries or of keys that go in pairs; false if neither option nor tensor is there. */
static ls_status load_side(bool *there, struct ls_integers *lists, const struct loading *l,
                           int tensor, const char *option, const char *value, const char *what)
{
    LS_TRY(load_any(there, lists, l, tensor, option, value));
    if (!*there) return LS_OK;
    return check_documents(lists, origin(option, value, cli_mask_tensors[tensor]), what, l->b);
}

static ls_status load_document_pairs(const struct loading *l)
{
    struct ls_integers *q = &l->out->q_documents, *k = &l->out->documents;
    bool has_q, has_k;

    LS_TRY(load_side(&has_q, q, l, CLI_MASK_CU_SEQLENS_Q, "--cu-seqlens-q",
                     l->options->cu_seqlens_q, "queries"));
    if (has_q && l->options->documents)
        return ls_fail(LS_EVALUE, "--documents and documents of queries exclude each other; "
                                  "--ignore leaves out tensors cu_seqlens_q and cu_seqlens_k");
    if (l->options->documents) return load_documents(l);
    LS_TRY(load_side(&has_k, k, l, CLI_MASK_CU_SEQLENS_K, "--cu-seqlens-k",
                     l->options->cu_seqlens_k, "keys"));
    if (has_q != has_k)
        return ls_fail(LS_EVALUE,
                       "--cu-seqlens-q and --cu-seqlens-k belong together: %s is missing; --ignore "
                       "leaves out the tensor of the other",
                       has_q ? "--cu-seqlens-k" : "--cu-seqlens-q");
    if (!has_q) return LS_OK;
    refer_to_documents(l->attention, k);
    l->attention->q_documents = q->number;
    if (q->rows == k->rows && q->columns == k->columns) return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "documents of queries are [%" PRId64 ", %" PRId64 "], those of keys [%" PRId64
                   ", %" PRId64 "]: each of queries sees the one of keys of its number",
                   q->rows, q->columns, k->rows, k->columns);
}

static ls_status load_lengths(const int64_t **lengths, struct ls_integers *out,
                              const struct loading *l, int tensor, const char *option,
                              const char *value)
{
    bool there;

    LS_TRY(load_any(&there, out, l, tensor, option, value));
    if (!there) return LS_OK;
    *lengths = out->number;
    if (out->rows == 1 && out->columns == l->b) return LS_OK;
    return ls_fail(
        LS_ESHAPE,
        "%s: %" PRId64 " numbers, must be one for each of the %" PRId64 " entries of the batch",
        origin(option, value, cli_mask_tensors[tensor]).text, out->rows * out->columns, l->b);
}

static ls_status load_all_lengths(const struct loading *l)
{
    struct ls_attention_options *a = l->attention;

    LS_TRY(load_lengths(&a->q_lengths, &l->out->q_lengths, l, CLI_MASK_Q_LENGTHS, "--q-lengths",
                        l->options->q_lengths));
    LS_TRY(load_lengths(&a->k_lengths, &l->out->k_lengths, l, CLI_MASK_K_LENGTHS, "--k-lengths",
                        l->options->k_lengths));
    if (!a->pad_left || a->q_lengths || a->k_lengths) return LS_OK;
    return ls_fail(LS_EVALUE, "--padding is of --q-lengths or --k-lengths, and neither is given");
}

/* Numbers of a slice, as they stand in a file and in struct ls_slice. */
enum { SLICE_NUMBERS = 5 };

static ls_status load_slices(const struct loading *l)
{
    const char *value = l->options->slices;
    struct ls_integers *got = &l->out->slices;

    if (!value) return LS_OK;
    LS_TRY(load_integers(got, "--slices", value));
    l->attention->slices = (const struct ls_slice *)(const void *)got->number;
    l->attention->slice_count = got->rows * got->columns / SLICE_NUMBERS;
    if (is_list(value) ? got->columns % SLICE_NUMBERS == 0 : got->columns == SLICE_NUMBERS)
        return LS_OK;
    return ls_fail(LS_EVALUE,
                   "--slices %s: %" PRId64 " numbers, must be five for each: q0,q1,k0,k1,type",
                   value, got->columns);
}

/* ---- numbers for each head */

static ls_status take_sinks(const struct loading *l)
{
    struct ls_input source;

    LS_TRY(cli_names_open_beside(&source, l->names, "sinks", l->beside));
    const ls_status status = cli_heads_load(&l->out->sinks, "sinks", NULL, &source, l->h);

    ls_input_close(&source);
    tell(l->out, "sinks");
    return status;
}

static ls_status load_sinks(const struct loading *l)
{
    const char *value = l->options->sinks;

    if (value)
        LS_TRY(cli_heads_load(&l->out->sinks, "sinks", value, &l->sinks, l->h));
    else if (is_brought(l, CLI_MASK_SINKS))
        LS_TRY(take_sinks(l));
    l->attention->sinks = l->out->sinks;
    return LS_OK;
}

static ls_status load_slopes(const struct loading *l)
{
    if (!l->options->alibi) return LS_OK;
    if (l->options->slopes) {
        LS_TRY(cli_heads_load(&l->out->alibi, "alibi", l->options->slopes, &l->slopes, l->h));
    } else {
        LS_TRY(cli_heads_make(&l->out->alibi, "alibi", l->h));
        ls_alibi_slopes(l->out->alibi, l->h);
    }
    l->attention->alibi = l->out->alibi;
    return LS_OK;
}

/* Of the option's file, which is open then, or of the input. */
static ls_status load_biases(const struct loading *l)
{
    float **out = &l->out->distance_bias;
    struct ls_input source;

    if (l->biases.file) return cli_biases_read(out, l->attention, &l->biases, l->h);
    if (!is_brought(l, CLI_MASK_DISTANCE_BIAS)) return LS_OK;
    LS_TRY(cli_names_open_beside(&source, l->names, "distance_bias", l->beside));
    const ls_status status = cli_biases_read(out, l->attention, &source, l->h);

    ls_input_close(&source);
    tell(l->out, "distance_bias");
    return status;
}

static ls_status measure_pair_biases(struct loading *l, const struct ls_attention_shape *shape)
{
    if (!l->options->bias && is_brought(l, CLI_MASK_BIAS)) {
        LS_TRY(cli_names_open_beside(&l->pair_biases, l->names, "bias", l->beside));
        tell(l->out, "bias");
    }
    return l->pair_biases.file ? cli_pair_biases_measure(l->attention, &l->pair_biases, shape)
                               : LS_OK;
}

/* ---- all of it */

/* The file of an option, if it names one. Collective; the same on every rank. */
static ls_status open_file(struct ls_input *out, const struct loading *l, const char *name,
                           const char *value, const struct cli_world *world)
{
    return value && !is_list(value) ? cli_names_open(out, l->names, name, world, value, true)
                                    : LS_OK;
}

static ls_status load(struct loading *l, const struct ls_attention_shape *shape)
{
    struct ls_scores scores;

    LS_TRY(load_document_pairs(l));
    LS_TRY(load_all_lengths(l));
    LS_TRY(load_slices(l));
    if (l->pairs.file) LS_TRY(cli_pairs_measure(&l->pairs, l->names, shape));
    LS_TRY(load_slopes(l));
    LS_TRY(load_sinks(l));
    LS_TRY(load_biases(l));
    LS_TRY(measure_pair_biases(l, shape));
    LS_TRY(ls_options_mask(NULL, shape, l->attention));
    return ls_options_scores(&scores, shape, l->attention);
}

/* A mask of pairs may be larger than all the rest: it has to fit before it is read. Collective. */
static ls_status load_pairs(const struct loading *l, const struct cli_world *world)
{
    if (!l->pairs.file) return LS_OK;
    LS_TRY(cli_memory_check(world, (double)l->pairs.rows * (double)l->pairs.row_bytes));
    return ls_comm_agree(world->comm, cli_pairs_read(&l->out->pairs, l->attention, &l->pairs));
}

ls_status cli_mask_load(struct cli_mask_arrays *out, struct ls_attention_options *attention,
                        const struct cli_mask_options *options,
                        const struct cli_input_options *input, const struct cli_world *world,
                        const struct cli_inputs *inputs)
{
    struct loading l = {.out = out,
                        .attention = attention,
                        .options = options,
                        .names = &input->names,
                        .beside = input->input ? &inputs->source[0] : NULL,
                        .b = inputs->shape.b,
                        .h = inputs->shape.h};

    *out = (struct cli_mask_arrays){.alibi = NULL};
    ls_status status = open_file(&l.sinks, &l, "sinks", options->sinks, world);
    if (status == LS_OK) status = open_file(&l.slopes, &l, "alibi", options->slopes, world);
    if (status == LS_OK && options->distance_bias)
        status = cli_names_open(&l.biases, l.names, "distance_bias", world, options->distance_bias,
                                true);
    if (status == LS_OK && options->bias)
        status = cli_names_open(&l.pair_biases, l.names, "bias", world, options->bias, true);
    if (status == LS_OK && options->pairs)
        status = ls_shared_open(&l.pairs.file, world->comm, options->pairs);
    if (status == LS_OK) status = ls_comm_agree(world->comm, load(&l, &inputs->shape));
    if (status == LS_OK) status = load_pairs(&l, world);
    if (status == LS_OK && l.pair_biases.file)
        status = cli_pair_biases_read(&out->bias, attention, &l.pair_biases, world);
    if (l.pairs.file) ls_tensor_file_close(l.pairs.file);
    ls_input_close(&l.pair_biases);
    ls_input_close(&l.biases);
    ls_input_close(&l.slopes);
    ls_input_close(&l.sinks);
    return status;
}

void cli_mask_report(const struct cli_report *report, const struct cli_mask_arrays *arrays)
{
    if (arrays->used[0])
        cli_report_line(report, "used", "%s of the input; --ignore leaves one out", arrays->used);
}

void cli_mask_free(struct cli_mask_arrays *arrays)
{
    free(arrays->pairs);
    free(arrays->sinks);
    free(arrays->distance_bias);
    cli_pair_biases_free(&arrays->bias);
    free(arrays->alibi);
    free(arrays->documents.number);
    free(arrays->q_documents.number);
    free(arrays->q_lengths.number);
    free(arrays->k_lengths.number);
    free(arrays->slices.number);
}
