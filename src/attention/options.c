#include "attention/options.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tensor/slices.h"

#define FARTHEST ((int64_t)1 << 60)
#define MOST_DISTANCES (1 << 24)

ls_status ls_options_read(struct ls_attention_options *out, const struct ls_attention_options *in)
{
    if (in->size < offsetof(struct ls_attention_options, threads) || in->size > sizeof *out)
        return ls_fail(LS_EVALUE,
                       "options of %zu bytes, this library knows %zu: start from "
                       "LS_ATTENTION_OPTIONS",
                       in->size, sizeof *out);
    *out = (struct ls_attention_options)LS_ATTENTION_OPTIONS;
    memcpy(out, in, in->size);
    return LS_OK;
}

static ls_status check_window(const struct ls_attention_options *o)
{
    const int64_t side[] = {o->window_left, o->window_right};

    for (int i = 0; i < 2; i++)
        if (side[i] != LS_NO_LIMIT && (side[i] < 0 || side[i] > FARTHEST))
            return ls_fail(LS_EVALUE, "window: the %s side is %lld, must be 0 to 2^60, or no limit",
                           i ? "right" : "left", (long long)side[i]);
    return LS_OK;
}

/* Cumulative lengths of the documents of what is called so, of which there are s. */
static ls_status check_list(const char *of, const int64_t *documents, int64_t count, int64_t s,
                            bool all)
{
    if (documents[0] != 0)
        return ls_fail(LS_EVALUE, "documents%s: the first begins at %lld, must begin at 0", of,
                       (long long)documents[0]);
    for (int64_t i = 0; i < count; i++)
        if (documents[i + 1] < documents[i])
            return ls_fail(LS_EVALUE,
                           "documents%s: %lld is followed by %lld; lengths add up, and never fall",
                           of, (long long)documents[i], (long long)documents[i + 1]);
    if (documents[count] != s && all)
        return ls_fail(LS_EVALUE, "documents%s: they end at %lld, the keys at %lld", of,
                       (long long)documents[count], (long long)s);
    if (documents[count] > s)
        return ls_fail(LS_EVALUE, "documents%s: they end at %lld, and there are %lld", of,
                       (long long)documents[count], (long long)s);
    return LS_OK;
}

ls_status ls_documents_check(const int64_t *documents, int64_t count, int64_t s_k)
{
    if (!documents) return LS_OK;
    if (count < 1)
        return ls_fail(LS_EVALUE, "documents: there are %lld, must be 1 or more", (long long)count);
    return check_list("", documents, count, s_k, true);
}

/* Where query 0 stands among the keys if the sequence is in one piece. */
static int64_t shift_of(const struct ls_mask_rule *rule, const struct ls_attention_options *o)
{
    const int64_t offset = o->has_query_offset ? o->query_offset : 0;

    if (o->has_query_offset || o->align_start) return rule->k_first - rule->q_first + offset;
    return rule->s_k - rule->s_q;
}

/* Of an entry: which queries, or keys, are there. lengths NULL: all. */
static ls_status take_length(struct ls_range *out, const char *of, const int64_t *lengths,
                             int64_t entry, int64_t s, bool pad_left)
{
    *out = (struct ls_range){0, s};
    if (!lengths) return LS_OK;
    if (lengths[entry] < 0 || lengths[entry] > s)
        return ls_fail(LS_EVALUE, "%s length of entry %lld is %lld, must be 0 to %lld", of,
                       (long long)entry, (long long)lengths[entry], (long long)s);
    *out =
        pad_left ? (struct ls_range){s - lengths[entry], s} : (struct ls_range){0, lengths[entry]};
    return LS_OK;
}

static ls_status take_lengths(struct ls_mask_rule *rule, const struct ls_attention_shape *shape,
                              const struct ls_attention_options *o, int64_t entry)
{
    struct ls_range queries, keys;

    LS_TRY(take_length(&queries, "query", o->q_lengths, entry, shape->s_q, o->pad_left));
    LS_TRY(take_length(&keys, "key", o->k_lengths, entry, shape->s_k, o->pad_left));
    rule->q_first = queries.from;
    rule->s_q = queries.to;
    rule->k_first = keys.from;
    rule->s_k = keys.to;
    rule->shift = shift_of(rule, o);
    return LS_OK;
}

static ls_status take_documents(struct ls_mask_rule *rule, const struct ls_attention_options *o,
                                int64_t entry)
{
    const int64_t at = o->documents_per_entry ? entry * (o->document_count + 1) : 0;
    const int64_t keys = rule->s_k - rule->k_first, queries = rule->s_q - rule->q_first;

    if (!o->documents && !o->q_documents) return LS_OK;
    if (!o->documents)
        return ls_fail(LS_EVALUE,
                       "documents of queries need those of keys: as many, in options.documents");
    if (o->document_count < 1)
        return ls_fail(LS_EVALUE, "documents: there are %lld, must be 1 or more",
                       (long long)o->document_count);
    rule->documents = o->documents + at;
    rule->document_count = o->document_count;
    if (!o->q_documents)
        return check_list("", rule->documents, o->document_count, keys, !o->k_lengths);
    rule->q_documents = o->q_documents + at;
    rule->align_start = o->align_start || o->has_query_offset;
    rule->pair_offset = o->has_query_offset ? o->query_offset : 0;
    LS_TRY(check_list(" of keys", rule->documents, o->document_count, keys, false));
    LS_TRY(check_list(" of queries", rule->q_documents, o->document_count, queries, false));
    rule->s_q = rule->q_first + rule->q_documents[o->document_count]; /* others are padding */
    return LS_OK;
}

/* What is the same for all entries. */
static ls_status read_rule(struct ls_mask_rule *out, const struct ls_attention_shape *shape,
                           const struct ls_attention_options *o)
{
    *out = ls_mask_rule_full(shape->s_q, shape->s_k);
    if (o->has_query_offset && o->align_start)
        return ls_fail(LS_EVALUE, "queries are placed twice: by an offset of %lld and at the start",
                       (long long)o->query_offset);
    if (o->has_query_offset && (o->query_offset < -FARTHEST || o->query_offset > FARTHEST))
        return ls_fail(LS_EVALUE, "query offset is %lld, must be -2^60 to 2^60",
                       (long long)o->query_offset);
    if (o->has_window) {
        LS_TRY(check_window(o));
        out->left = o->window_left;
        out->right = o->window_right;
    }
    if (o->causal) out->right = 0;
    if (o->prefix < 0 || o->prefix > shape->s_k)
        return ls_fail(LS_EVALUE, "prefix is %lld, must be 0 to the %lld keys",
                       (long long)o->prefix, (long long)shape->s_k);
    out->prefix = o->prefix;
    LS_TRY(ls_slices_check(o->slices, o->slice_count, shape->s_q, shape->s_k));
    out->slices = o->slices;
    out->slice_count = o->slices ? o->slice_count : 0;
    return LS_OK;
}

static int64_t total_heads(const struct ls_attention_shape *shape,
                           const struct ls_attention_options *o)
{
    return o->total_heads ? o->total_heads : shape->h;
}

struct ls_masks ls_options_masks(const struct ls_attention_shape *shape,
                                 const struct ls_attention_options *o)
{
    const bool entries = o->q_lengths || o->k_lengths || o->documents_per_entry ||
                         (o->pair_bits && o->pairs_per_entry);

    return (struct ls_masks){.entries = entries ? shape->b : 1,
                             .heads = o->pair_bits && o->pairs_per_head ? shape->h : 1,
                             .first_head = o->first_head};
}

/* Of an entry and one of the plan's heads. */
static struct ls_pair_bits pair_bits(const struct ls_attention_shape *shape,
                                     const struct ls_attention_options *o, int64_t entry,
                                     int64_t head)
{
    const int64_t heads = o->pairs_per_head ? total_heads(shape, o) : 1;
    const int64_t matrix =
        (o->pairs_per_entry ? entry * heads : 0) + (o->pairs_per_head ? o->first_head + head : 0);
    const int64_t row_bytes = (shape->s_k + 7) / 8;

    if (!o->pair_bits) return (struct ls_pair_bits){.first_row = NULL};
    return (struct ls_pair_bits){.first_row = o->pair_bits + matrix * shape->s_q * row_bytes,
                                 .rows = shape->s_q,
                                 .row_bytes = row_bytes};
}

ls_status ls_options_mask(struct ls_mask_rule *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options)
{
    const struct ls_masks masks = ls_options_masks(shape, options);
    struct ls_mask_rule common;

    LS_TRY(read_rule(&common, shape, options));
    for (int64_t entry = 0; entry < masks.entries; entry++) {
        struct ls_mask_rule rule = common;

        LS_TRY(take_lengths(&rule, shape, options, entry));
        LS_TRY(take_documents(&rule, options, entry));
        for (int64_t head = 0; out && head < masks.heads; head++) {
            rule.bits = pair_bits(shape, options, entry, head);
            *out++ = rule;
        }
    }
    return LS_OK;
}

int64_t ls_options_group(const struct ls_attention_shape *shape,
                         const struct ls_attention_options *o)
{
    return o->total_kv_heads ? total_heads(shape, o) / o->total_kv_heads : shape->h / shape->h_kv;
}

static ls_status check_place(const struct ls_attention_shape *shape,
                             const struct ls_attention_options *o)
{
    const int64_t total = total_heads(shape, o), total_kv = o->total_kv_heads;

    if (total < shape->h || o->first_head < 0 || o->first_head > total - shape->h)
        return ls_fail(LS_EVALUE, "%lld heads from head %lld on are not among %lld in all",
                       (long long)shape->h, (long long)o->first_head, (long long)total);
    if (total_kv < 0 || (total_kv > 0 && total % total_kv != 0) ||
        total % ls_options_group(shape, o) != 0)
        return ls_fail(
            LS_EVALUE,
            "%lld heads in all, of which %lld share a key/value head in the plan, cannot "
            "share %lld (0: as in the plan)",
            (long long)total, (long long)(shape->h / shape->h_kv), (long long)total_kv);
    return LS_OK;
}

static ls_status check_distances(const struct ls_attention_shape *shape,
                                 const struct ls_attention_options *o)
{
    if (!o->distance_bias) return LS_OK;
    if (o->distances < 1 || o->distances > MOST_DISTANCES || o->distances % 2 == 0)
        return ls_fail(
            LS_EVALUE,
            "biases by distance: %lld of them, must be odd, one of distance 0 and as many "
            "before it as behind, and fewer than 2^24",
            (long long)o->distances);
    for (int64_t i = o->first_head * o->distances; i < (o->first_head + shape->h) * o->distances;
         i++)
        if (!isfinite(o->distance_bias[i]))
            return ls_fail(LS_EVALUE, "bias of head %lld by distance %lld is %g, must be finite",
                           (long long)(i / o->distances),
                           (long long)(i % o->distances - o->distances / 2),
                           (double)o->distance_bias[i]);
    return LS_OK;
}

ls_status ls_options_scores(struct ls_scores *out, const struct ls_attention_shape *shape,
                            const struct ls_attention_options *options)
{
    const struct ls_attention_options *o = options;

    if (o->has_scale && !isfinite(o->scale))
        return ls_fail(LS_EVALUE, "scale is %g, must be finite", (double)o->scale);
    if (!isfinite(o->soft_cap) || o->soft_cap < 0)
        return ls_fail(LS_EVALUE, "soft cap is %g, must be finite and more than 0",
                       (double)o->soft_cap);
    if (!(o->dropout >= 0 && o->dropout < 1))
        return ls_fail(LS_EVALUE, "dropout is %g, must be 0 to below 1", (double)o->dropout);
    LS_TRY(check_place(shape, o));
    for (int64_t i = o->first_head; o->alibi && i < o->first_head + shape->h; i++)
        if (!isfinite(o->alibi[i]))
            return ls_fail(LS_EVALUE, "ALiBi slope of head %lld is %g, must be finite",
                           (long long)i, (double)o->alibi[i]);
    LS_TRY(check_distances(shape, o));
    const int64_t matrix = o->bias ? shape->s_q * shape->s_k : 0;

    *out = (struct ls_scores){
        .scale = o->has_scale ? o->scale : (float)(1 / sqrt((double)shape->d)),
        .soft_cap = o->soft_cap,
        .alibi = o->alibi,
        .sinks = o->sinks,
        .distance_bias = o->distance_bias,
        .distances = o->distance_bias ? o->distances : 0,
        .bias = o->bias,
        .bias_keys = o->bias ? shape->s_k : 0,
        .bias_entry =
            o->bias_per_entry ? matrix * (o->bias_per_head ? total_heads(shape, o) : 1) : 0,
        .bias_head = o->bias_per_head ? matrix : 0,
        .dropout = o->dropout,
        .seed = o->dropout_seed,
        .heads = total_heads(shape, o),
        .first_head = o->first_head,
    };
    return LS_OK;
}
