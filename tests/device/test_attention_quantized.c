/* Keys and values of 8 bits: the oracle's attention over the numbers that they stand for, by every
 * kernel, under masks and whatever else may be done to scores. */
#include "device/device.h"
#include "harness.h"

enum { KEYS = 600, HEADS = 6 };

static const int64_t documents[] = {0, 40, 300, KEYS};
static const float slopes[HEADS] = {0.5F, 0.25F, 0.125F, 0, 1, -0.01F};

static const struct ls_attention_options options[] = {
    {.causal = false},
    {.causal = true},
    {.has_window = true, .window_left = 77, .prefix = 9},
    {.documents = documents, .document_count = 3, .has_scale = true, .scale = -0.2F},
    {.has_scale = true, .scale = 0},
    {.soft_cap = 5, .causal = true},
    {.alibi = slopes, .sinks = slopes, .dropout = 0.3F},
    {.soft_cap = 20, .alibi = slopes, .has_scale = true, .scale = -0.3F},
    {.distance_bias = slopes, .distances = 1},
    {.strict = true, .causal = true},
};

static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = HEADS, .h_kv = 2, .s_q = 300, .s_k = KEYS, .d = 40, .type = LS_BF16},
    {.b = 2, .h = HEADS, .h_kv = 6, .s_q = 40, .s_k = KEYS, .d = 64, .type = LS_F32, .d_v = 33},
    {.b = 1, .h = HEADS, .h_kv = 1, .s_q = 610, .s_k = KEYS, .d = 13, .type = LS_F16, .d_v = 128},
    {.b = 2, .h = HEADS, .h_kv = 3, .s_q = 3, .s_k = KEYS, .d = 70, .type = LS_BF16},
    {.b = 1, .h = HEADS, .h_kv = 6, .s_q = 1, .s_k = KEYS, .d = 128, .type = LS_F32},
};

static const ls_dtype types[] = {LS_I8, LS_E4M3};

static void equals_oracle(void)
{
    for (int i = 0; i < LENGTH(options) * LENGTH(shapes) * LENGTH(types); i++) {
        const int of = i / LENGTH(types);
        struct problem p = {.shape = shapes[of / LENGTH(options)],
                            .options = options[of % LENGTH(options)],
                            .has_mean = i / 3 % 2,
                            .bhsd = i / 5 % 2};

        p.shape.kv_type = types[i % LENGTH(types)];
        p.options.threads = 1 + i % 2;
        problem_open(&p);
        problem_run(&p);
        expect_oracle(&p, 20);
        problem_close(&p);
    }
}

/* A row of keys or values that nobody may take anything from: numbers and scale are NaN, or as near
 * to it as their type comes. */
static void spoil_row(struct ls_tensor *t, int64_t batch, int64_t key, int64_t head)
{
    memset(element_at(t, batch, key, head), 0xff, (size_t)t->dim[3]);
}

/* What keys hold that some rows do not see changes nothing for them. */
static void unseen_keys_may_hold_anything(void)
{
    for (int i = 0; i < LENGTH(shapes) * LENGTH(types); i++) {
        struct problem p = {.shape = shapes[i / LENGTH(types)],
                            .options = {.causal = true,
                                        .has_query_offset = true,
                                        .query_offset = 280,
                                        .dropout = i % 3 ? 0 : 0.25F}};
        const struct ls_attention_shape *s = &p.shape;
        void *o, *lse;

        p.shape.kv_type = types[i % LENGTH(types)];
        problem_open(&p);
        problem_results(&o, &lse, &p);
        for (int64_t key = 281; key < KEYS; key++) {
            spoil_row(&p.k, 0, key, 0);
            spoil_row(&p.v, 0, key, 0);
        }
        problem_run(&p);
        cr_expect_eq(memcmp(p.o.data, o, (size_t)(ls_value_dim(s) * ls_dtype_size(s->type))), 0,
                     "%s: o of the first query", problem_name(&p));
        cr_expect_eq(memcmp(p.lse.data, lse, sizeof(float)), 0, "%s: lse of the first query",
                     problem_name(&p));
        free(o);
        free(lse);
        problem_close(&p);
    }
}

/* Keys whose scales are all 1 and which had no mean are those of the other types. */
static void whole_numbers_are_those_of_other_types(void)
{
    for (int i = 0; i < LENGTH(types); i++) {
        struct problem quantized = {.shape = shapes[1]}, wide = {.shape = shapes[1]};
        const float one = 1;

        quantized.shape.kv_type = types[i];
        problem_open(&quantized);
        problem_open(&wide);
        for (int which = 0; which < 2; which++) {
            struct ls_tensor *from = which ? &quantized.v : &quantized.k,
                             *to = which ? &wide.v : &wide.k;

            for (int64_t r = 0; r < from->dim[0] * from->dim[1] * from->dim[2]; r++) {
                char *row = (char *)from->data + r * from->dim[3];

                memcpy(row + to->dim[3], &one, sizeof one);
                for (int64_t e = 0; e < to->dim[3]; e++)
                    ls_dtype_store(types[i], row + e, (double)((r + 3 * e) % 7 - 3));
                ls_dtype_convert((float *)to->data + r * to->dim[3], LS_F32, row, types[i],
                                 to->dim[3]);
            }
        }
        problem_run(&quantized);
        problem_run(&wide);
        cr_expect_eq(memcmp(quantized.o.data, wide.o.data, tensor_bytes(&wide.o)), 0, "o of %s",
                     ls_dtype_name(types[i]));
        cr_expect_eq(memcmp(quantized.lse.data, wide.lse.data, tensor_bytes(&wide.lse)), 0,
                     "lse of %s", ls_dtype_name(types[i]));
        problem_close(&quantized);
        problem_close(&wide);
    }
}

TEST_EACH_VARIANT(attention_quantized, equals_oracle)
TEST_EACH_VARIANT(attention_quantized, unseen_keys_may_hold_anything)
TEST_EACH_VARIANT(attention_quantized, whole_numbers_are_those_of_other_types)
