#include "attention/options.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

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

static ls_status check_documents(const struct ls_attention_options *o, int64_t s_k)
{
    const int64_t n = o->document_count;

    if (!o->documents) return LS_OK;
    if (n < 1)
        return ls_fail(LS_EVALUE, "documents: there are %lld, must be 1 or more", (long long)n);
    if (o->documents[0] != 0)
        return ls_fail(LS_EVALUE, "documents: the first begins at %lld, must begin at 0",
                       (long long)o->documents[0]);
    for (int64_t i = 0; i < n; i++)
        if (o->documents[i + 1] < o->documents[i])
            return ls_fail(LS_EVALUE,
                           "documents: %lld is followed by %lld; lengths add up, and never fall",
                           (long long)o->documents[i], (long long)o->documents[i + 1]);
    if (o->documents[n] != s_k)
        return ls_fail(LS_EVALUE, "documents: they end at %lld, the keys at %lld",
                       (long long)o->documents[n], (long long)s_k);
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

ls_status ls_options_mask(struct ls_mask *out, const struct ls_attention_shape *shape,
                          const struct ls_attention_options *options)
{
    struct ls_mask mask = ls_mask_full(shape->s_q, shape->s_k);

    LS_TRY(place_queries(&mask.shift, shape, options));
    if (options->has_window) {
        LS_TRY(check_window(options));
        mask.left = options->window_left;
        mask.right = options->window_right;
    }
    if (options->causal) mask.right = 0;
    if (options->prefix < 0 || options->prefix > shape->s_k)
        return ls_fail(LS_EVALUE, "prefix is %lld, must be 0 to the %lld keys",
                       (long long)options->prefix, (long long)shape->s_k);
    mask.prefix = options->prefix;
    LS_TRY(check_documents(options, shape->s_k));
    mask.documents = options->documents;
    mask.document_count = options->documents ? options->document_count : 0;
    *out = mask;
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
    for (int64_t i = 0; o->alibi && i < shape->h; i++)
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
        .heads = shape->h,
    };
    return LS_OK;
}
