#include "attention/options.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "tensor/slices.h"

#define FARTHEST ((int64_t)1 << 60)

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

ls_status ls_documents_check(const int64_t *documents, int64_t count, int64_t s_k)
{
    if (!documents) return LS_OK;
    if (count < 1)
        return ls_fail(LS_EVALUE, "documents: there are %lld, must be 1 or more", (long long)count);
    if (documents[0] != 0)
        return ls_fail(LS_EVALUE, "documents: the first begins at %lld, must begin at 0",
                       (long long)documents[0]);
    for (int64_t i = 0; i < count; i++)
        if (documents[i + 1] < documents[i])
            return ls_fail(LS_EVALUE,
                           "documents: %lld is followed by %lld; lengths add up, and never fall",
                           (long long)documents[i], (long long)documents[i + 1]);
    if (documents[count] != s_k)
        return ls_fail(LS_EVALUE, "documents: they end at %lld, the keys at %lld",
                       (long long)documents[count], (long long)s_k);
    return LS_OK;
}

static ls_status place_queries(int64_t *shift, const struct ls_attention_shape *shape,
                               const struct ls_attention_options *o)
{
    if (o->has_query_offset && o->align_start)
        return ls_fail(LS_EVALUE, "queries are placed twice: by an offset of %lld and at the start",
                       (long long)o->query_offset);
    if (o->has_query_offset && (o->query_offset < -FARTHEST || o->query_offset > FARTHEST))
        return ls_fail(LS_EVALUE, "query offset is %lld, must be -2^60 to 2^60",
                       (long long)o->query_offset);
    *shift = o->has_query_offset ? o->query_offset : o->align_start ? 0 : shape->s_k - shape->s_q;
    return LS_OK;
}

ls_status ls_options_mask(struct ls_mask_rule *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options)
{
    struct ls_mask_rule rule = ls_mask_rule_full(shape->s_q, shape->s_k);

    LS_TRY(place_queries(&rule.shift, shape, options));
    if (options->has_window) {
        LS_TRY(check_window(options));
        rule.left = options->window_left;
        rule.right = options->window_right;
    }
    if (options->causal) rule.right = 0;
    if (options->prefix < 0 || options->prefix > shape->s_k)
        return ls_fail(LS_EVALUE, "prefix is %lld, must be 0 to the %lld keys",
                       (long long)options->prefix, (long long)shape->s_k);
    rule.prefix = options->prefix;
    LS_TRY(ls_documents_check(options->documents, options->document_count, shape->s_k));
    rule.documents = options->documents;
    rule.document_count = options->documents ? options->document_count : 0;
    LS_TRY(ls_slices_check(options->slices, options->slice_count, shape->s_q, shape->s_k));
    rule.slices = options->slices;
    rule.slice_count = options->slices ? options->slice_count : 0;
    *out = rule;
    return LS_OK;
}

static int64_t total_heads(const struct ls_attention_shape *shape,
                           const struct ls_attention_options *o)
{
    return o->total_heads ? o->total_heads : shape->h;
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
    *out = (struct ls_scores){
        .scale = o->has_scale ? o->scale : (float)(1 / sqrt((double)shape->d)),
        .soft_cap = o->soft_cap,
        .alibi = o->alibi,
        .sinks = o->sinks,
        .dropout = o->dropout,
        .seed = o->dropout_seed,
        .heads = total_heads(shape, o),
        .first_head = o->first_head,
    };
    return LS_OK;
}
