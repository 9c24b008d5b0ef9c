/* What the tests of the attention kernel share: a problem with its tensors, one execution of it
 * on one rank, and the oracle's verdict. */
#ifndef TESTS_DEVICE_HARNESS_H
#define TESTS_DEVICE_HARNESS_H

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tensor/masks.h"
#include "../tensor/quantized.h"
#include "attention/options.h"
#include "base/random.h"
#include "calls.h"
#include "longspan/longspan.h"
#include "reference/contract.h"
#include "tensor/dtype.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

struct problem {
    struct ls_attention_shape shape;
    struct ls_attention_options options; /* threads 0: 1 */
    uint64_t bands; /* not 0: its mask is drawn by this seed; for kernels, as no option says it */
    uint64_t pairs; /* not 0: bits of pairs, drawn by this seed; of each entry if it is odd, and of
                     * each head if half of it is */
    bool bhsd;      /* heads before positions in memory */
    bool in_place;  /* the device computes where the tensors are */
    bool has_mean;  /* one was taken out of quantized keys */
    struct ls_tensor q, k, v, o, lse; /* on the heap, as are the bits */
    uint8_t *bits;
    float *mean;                       /* [b, h_kv, d] */
    struct ls_attention_report report; /* of the last run; its strings are gone */
};

/* [b, s, h, d], or a view of [b, h, s, d]. */
static inline struct ls_tensor tensor_over(void *data, ls_dtype type, int64_t b, int64_t s,
                                           int64_t h, int64_t d, bool bhsd)
{
    struct ls_tensor t = ls_tensor_view(data, type, 4, (const int64_t[]){b, s, h, d});

    if (bhsd) {
        t.stride[1] = d;
        t.stride[2] = s * d;
    }
    return t;
}

static inline int64_t elements(const struct ls_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}

static inline size_t tensor_bytes(const struct ls_tensor *t)
{
    return (size_t)elements(t) * (size_t)ls_dtype_size(t->type);
}

static inline void *element_at(const struct ls_tensor *t, int64_t i, int64_t j, int64_t k)
{
    return (char *)t->data +
           (i * t->stride[0] + j * t->stride[1] + k * t->stride[2]) * ls_dtype_size(t->type);
}

static inline double load_at(const struct ls_tensor *t, int64_t i, int64_t j, int64_t k, int64_t e)
{
    return ls_dtype_load(t->type,
                         (char *)element_at(t, i, j, k) + e * (int64_t)ls_dtype_size(t->type));
}

static inline void store_at(struct ls_tensor *t, int64_t i, int64_t j, int64_t k, int64_t e,
                            double value)
{
    ls_dtype_store(t->type, (char *)element_at(t, i, j, k) + e * (int64_t)ls_dtype_size(t->type),
                   value);
}

/* factor x N(0,1), by stream and place in memory. */
static inline void fill_normal(struct ls_tensor *t, uint32_t stream, float factor)
{
    const int64_t n = elements(t);
    float *value = malloc((size_t)n * sizeof *value + 1);

    ls_random_normal(value, 5, stream, 0, n);
    for (int64_t i = 0; i < n; i++) value[i] *= factor;
    ls_dtype_convert(t->data, t->type, value, LS_F32, n);
    free(value);
}

static inline void fill_constant(struct ls_tensor *t, double value)
{
    for (int64_t i = 0; i < elements(t); i++)
        ls_dtype_store(t->type, (char *)t->data + i * ls_dtype_size(t->type), value);
}

static inline void problem_draw_pairs(struct problem *p)
{
    const struct ls_attention_shape *s = &p->shape;
    const size_t matrix = pair_bytes(s->s_q, s->s_k);
    struct ls_attention_options *o = &p->options;

    o->pairs_per_entry = p->pairs % 2;
    o->pairs_per_head = p->pairs / 2 % 2;
    const int64_t n = (o->pairs_per_entry ? s->b : 1) * (o->pairs_per_head ? s->h : 1);

    p->bits = malloc((size_t)n * matrix + 1);
    for (int64_t i = 0; i < n; i++)
        draw_pairs(p->bits + (size_t)i * matrix, s->s_q, s->s_k, p->pairs + 100 * (uint64_t)i);
    o->pair_bits = p->bits;
}

/* Gives p its tensors, drawn from N(0,1). */
static inline void problem_open(struct problem *p)
{
    const struct ls_attention_shape *s = &p->shape;

    need_family(open_device(1)->ops->attention, "attention");
    p->options.size = sizeof p->options;
    p->options.method = "local";
    if (p->options.threads == 0) p->options.threads = 1;
    p->bits = NULL;
    if (p->pairs) problem_draw_pairs(p);
    p->q = tensor_over(NULL, s->type, s->b, s->s_q, s->h, s->d, p->bhsd);
    p->k = tensor_over(NULL, ls_key_type(s), s->b, s->s_k, s->h_kv, ls_key_width(s), p->bhsd);
    p->v = tensor_over(NULL, ls_key_type(s), s->b, s->s_k, s->h_kv, ls_value_width(s), p->bhsd);
    p->o = tensor_over(NULL, s->type, s->b, s->s_q, s->h, ls_value_dim(s), p->bhsd);
    p->lse = ls_tensor_view(NULL, LS_F32, 3, (const int64_t[]){s->b, s->h, s->s_q});

    struct ls_tensor *all[] = {&p->q, &p->k, &p->v, &p->o, &p->lse};
    for (int i = 0; i < LENGTH(all); i++) {
        all[i]->data = malloc(tensor_bytes(all[i]) + 1);
        cr_assert_not_null(all[i]->data);
        if (i > 0 && i < 3 && ls_keys_are_quantized(s))
            draw_quantized(all[i], 5, (uint32_t)i);
        else if (i < 3)
            fill_normal(all[i], (uint32_t)i, 1);
    }
    p->mean = malloc((size_t)(s->b * s->h_kv * s->d) * sizeof *p->mean);
    draw_mean(p->mean, s->b * s->h_kv * s->d);
}

static inline void problem_close(struct problem *p)
{
    void *all[] = {p->q.data, p->k.data, p->v.data, p->o.data, p->lse.data, p->bits, p->mean};

    for (int i = 0; i < LENGTH(all); i++) free(all[i]);
}

/* What a query sees and how it is weighed, beyond causal; after `name`. */
static inline void append_mask_name(char *name, size_t length, const struct ls_attention_options *o)
{
    name += strlen(name);
    if (o->has_window)
        name +=
            snprintf(name, length, ", window %ld %ld", (long)o->window_left, (long)o->window_right);
    if (o->prefix) name += snprintf(name, length, ", prefix %ld", (long)o->prefix);
    if (o->documents) name += snprintf(name, length, ", documents %ld", (long)o->document_count);
    if (o->has_query_offset) name += snprintf(name, length, ", offset %ld", (long)o->query_offset);
    snprintf(name, length, "%s%s%s%s%s", o->align_start ? ", align start" : "",
             o->soft_cap > 0 ? ", soft cap" : "", o->alibi ? ", alibi" : "",
             o->sinks ? ", sinks" : "", o->dropout > 0 ? ", dropout" : "");
}

/* Few rows have a kernel of their own, which gives other bits. */
static inline bool has_few_rows(const struct problem *p)
{
    return p->shape.h / p->shape.h_kv * p->shape.s_q <= LS_FEW_ROWS;
}

/* The problem in words, for messages. Static. */
static inline const char *problem_name(const struct problem *p)
{
    static char name[600];
    const struct ls_attention_shape *s = &p->shape;

    snprintf(
        name, sizeof name,
        "%s %s%s%s%s b %ld h %ld/%ld s %ld x %ld d %ld/%ld %s%s, scale %s%g, pairs %ld, threads %d",
        variant->name, ls_dtype_name(s->type), ls_keys_are_quantized(s) ? "/" : "",
        ls_keys_are_quantized(s) ? ls_dtype_name(s->kv_type) : "", p->has_mean ? " mean" : "",
        (long)s->b, (long)s->h, (long)s->h_kv, (long)s->s_q, (long)s->s_k, (long)s->d,
        (long)ls_value_dim(s), p->options.causal ? "causal" : "full", p->bhsd ? " bhsd" : "",
        p->options.has_scale ? "" : "default ", (double)p->options.scale, (long)p->pairs,
        p->options.threads);
    append_mask_name(name, 100, &p->options);
    return name;
}

/* Executes p, whose tensors are the device's. */
static inline void problem_execute(struct problem *p, struct ls_device *device)
{
    struct ls_attention_execution execution = LS_ATTENTION_EXECUTION;
    struct ls_attention_plan *plan;
    struct ls_comm *comm;

    execution.key_mean = p->has_mean ? p->mean : NULL;
    p->options.device = device;
    cr_assert_eq(ls_comm_create_self(&comm), LS_OK);
    cr_assert_eq(ls_attention_plan_create(&plan, comm, &p->shape, &p->options), LS_OK, "%s",
                 ls_message());
    cr_assert_eq(ls_attention_forward(&p->o, &p->lse, plan, &p->q, &p->k, &p->v, &execution), LS_OK,
                 "%s: %s", problem_name(p), ls_message());
    ls_attention_plan_describe(&p->report, plan);
    ls_attention_plan_destroy(plan);
    ls_comm_destroy(comm);
}

/* Fills o and lse. */
static inline void problem_run(struct problem *p)
{
    struct ls_device *device;
    struct problem there = *p;

    cr_assert_eq(ls_device_open(&device, variant->device, 0, p->options.threads), LS_OK, "%s",
                 ls_message());
    struct mirror mirror = {.device = device};
    memset(p->o.data, 0x5a, tensor_bytes(&p->o));
    memset(p->lse.data, 0x5a, tensor_bytes(&p->lse));
    if (!p->in_place) {
        mirror_output(&there.o, &mirror, &p->o);
        mirror_output(&there.lse, &mirror, &p->lse);
        mirror_input(&there.q, &mirror, &p->q);
        mirror_input(&there.k, &mirror, &p->k);
        mirror_input(&there.v, &mirror, &p->v);
    }
    problem_execute(&there, device);
    mirror_read_back(&mirror);
    p->report = there.report;
    ls_device_close(device);
}

static inline double problem_scale(const struct problem *p)
{
    return p->options.has_scale ? p->options.scale : (float)(1 / sqrt((double)p->shape.d));
}

/* Runs p and hands over copies of its results; the caller frees *o and *lse. */
static inline void problem_results(void **o, void **lse, struct problem *p)
{
    problem_run(p);
    *o = malloc(tensor_bytes(&p->o) + 1);
    *lse = malloc(tensor_bytes(&p->lse) + 1);
    memcpy(*o, p->o.data, tensor_bytes(&p->o));
    memcpy(*lse, p->lse.data, tensor_bytes(&p->lse));
}

/* Runs p again and expects the very bits of o and lse. */
static inline void expect_same_bits(struct problem *p, const void *o, const void *lse,
                                    const char *what)
{
    problem_run(p);
    cr_expect_eq(memcmp(p->o.data, o, tensor_bytes(&p->o)), 0, "%s: o differs: %s", problem_name(p),
                 what);
    cr_expect_eq(memcmp(p->lse.data, lse, tensor_bytes(&p->lse)), 0, "%s: lse differs: %s",
                 problem_name(p), what);
}

/* One kv head's rows in double, for the oracle. The caller frees it. */
static inline double *widen_head(const struct ls_tensor *t, int64_t batch, int64_t head,
                                 const float *mean)
{
    const int64_t s = t->dim[1], d = quantized_dim(t);
    double *out = malloc((size_t)(s * d) * sizeof *out + 1);

    for (int64_t j = 0; j < s; j++)
        widen_row(out + j * d, t, element_at(t, batch, j, head),
                  mean ? mean + (batch * t->dim[2] + head) * d : NULL);
    return out;
}

static inline struct ls_mask_rule problem_rule(const struct problem *p)
{
    struct ls_mask_rule rule;

    cr_assert_eq(ls_options_mask(&rule, &p->shape, &p->options), LS_OK, "%s", ls_message());
    return rule;
}

/* What entries of a batch, and heads, may have masks of. */
enum { MOST_ENTRIES = 3, MOST_MASKS = 12 };

struct mask_room {
    struct ls_mask mask[MOST_MASKS];
    struct ls_band band[MOST_MASKS][MOST_BANDS];
};

/* room is borrowed for the masks' life. Bands are others in each entry. */
static inline struct ls_masks problem_masks(const struct problem *p, struct mask_room *room)
{
    const struct ls_attention_shape *s = &p->shape;
    struct ls_masks masks = ls_options_masks(s, &p->options);
    struct ls_mask_rule rules[MOST_MASKS];

    if (p->bands) masks.entries = s->b;
    const int64_t count = ls_masks_count(&masks);

    cr_assert_leq(count, MOST_MASKS);
    cr_assert_eq(ls_options_mask(rules, s, &p->options), LS_OK, "%s", ls_message());
    for (int64_t i = 0; i < count; i++)
        room->mask[i] =
            p->bands ? draw_bands(room->band[i], s->s_q, s->s_k, p->bands + 1000 * (uint64_t)i)
                     : mask_by(&rules[i], room->band[i]);
    masks.mask = room->mask;
    return masks;
}

/* Of the only entry, or of each. */
static inline struct ls_mask problem_mask(const struct problem *p, struct ls_band *room)
{
    struct mask_room all;
    const struct ls_masks masks = problem_masks(p, &all);
    struct ls_mask mask = *masks.mask;

    cr_assert_eq(ls_masks_count(&masks), 1);
    if (mask.band) mask.band = memcpy(room, mask.band, (size_t)mask.count * sizeof *room);
    return mask;
}

static inline void judge_row(struct ls_errors *errors, const struct problem *p, const double *k,
                             const double *v, int64_t batch, int64_t i, int64_t head)
{
    const struct ls_attention_shape *s = &p->shape;
    static struct ls_reference_row exact;
    const int d_v = (int)ls_value_dim(s);
    double q[LS_MAX_HEAD_DIM], o[LS_MAX_HEAD_DIM];
    struct mask_room room;
    const struct ls_masks masks = problem_masks(p, &room);
    struct ls_scores scores;
    const struct ls_reference_query query = {
        q, ls_masks_of(&masks, batch, head), &scores, batch, head, i};

    cr_assert_eq(ls_options_scores(&scores, s, &p->options), LS_OK, "%s", ls_message());
    ls_dtype_convert(q, LS_F64, element_at(&p->q, batch, i, head), s->type, s->d);
    ls_dtype_convert(o, LS_F64, element_at(&p->o, batch, i, head), s->type, d_v);
    ls_reference_row_init(&exact);
    ls_reference_row_add(&exact, &query, k, v, 0, s->s_k, (int)s->d, d_v);
    ls_reference_row_add_sink(&exact, &query, d_v);
    ls_errors_add_row(errors, s->type, o,
                      ((float *)p->lse.data)[(batch * s->h + head) * s->s_q + i], &exact, (int)s->d,
                      d_v, (const int64_t[]){batch, i, head});
}

/* Holds what problem_run left against the oracle: `most` rows a head or more, the first and last
 * of every leaf among them. */
static inline void expect_oracle(const struct problem *p, int64_t most)
{
    const struct ls_attention_shape *s = &p->shape;
    const int64_t step = s->s_q > most ? s->s_q / most : 1, group = s->h / s->h_kv;
    struct ls_errors errors;
    struct ls_verdict verdict;

    ls_errors_init(&errors);
    for (int64_t pair = 0; pair < s->b * s->h_kv; pair++) {
        const int64_t batch = pair / s->h_kv;
        double *k = widen_head(&p->k, batch, pair % s->h_kv, p->has_mean ? p->mean : NULL);
        double *v = widen_head(&p->v, batch, pair % s->h_kv, NULL);

        for (int64_t head = pair % s->h_kv * group; head < (pair % s->h_kv + 1) * group; head++)
            for (int64_t i = 0; i < s->s_q; i++)
                if (i % step == head % step || (i + 1) % LS_LEAF < 2 || i == s->s_q - 1)
                    judge_row(&errors, p, k, v, batch, i, head);
        free(k);
        free(v);
    }
    ls_errors_judge(&verdict, &errors, s->type, 1);
    cr_expect(verdict.ok,
              "%s: rel %g of %g, units %g at b %ld row %ld head %ld element %ld, lse %g of %g",
              problem_name(p), verdict.rel_o, verdict.rel_o_limit, verdict.max_units,
              (long)errors.worst[0], (long)errors.worst[1], (long)errors.worst[2],
              (long)errors.worst[3], verdict.max_lse, verdict.lse_limit);
}

#endif
