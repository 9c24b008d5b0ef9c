/* The layers that tests go through, and the grids of ranks on which they try them. */
#ifndef TESTS_LAYER_FORMS_H
#define TESTS_LAYER_FORMS_H

#include "longspan/layer.h"
#include "whole.h"

#define OPTIONS .size = sizeof(struct ls_layer_options)
#define MATERIALIZED .core = LS_CORE_MATERIALIZED
#define RMS .norm = LS_NORM_RMS
#define ERF .activation = LS_ACTIVATION_GELU_ERF
#define SWIGLU .activation = LS_ACTIVATION_SWIGLU
#define ZIGZAG .layout = LS_LAYOUT_ZIGZAG
#define STRIPED .layout = LS_LAYOUT_STRIPED

/* Lengths that nothing divides, of two or three leaves; as many heads as there are key/value heads,
 * some of them, or one. */
#define F32_ALL                                                                                    \
    {                                                                                              \
        .b = 2, .s = 520, .e = 24, .h = 4, .h_kv = 4, .d = 8, .f = 48, .type = LS_F32              \
    }
#define F32_SOME                                                                                   \
    {                                                                                              \
        .b = 1, .s = 270, .e = 16, .h = 4, .h_kv = 2, .d = 8, .f = 32, .type = LS_F32              \
    }
#define F32_ONE                                                                                    \
    {                                                                                              \
        .b = 2, .s = 300, .e = 24, .h = 12, .h_kv = 1, .d = 8, .f = 48, .type = LS_F32             \
    }
#define BF16(heads)                                                                                \
    {                                                                                              \
        .b = 1, .s = 530, .e = 120, .h = 4, .h_kv = (heads), .d = 24, .f = 160, .type = LS_BF16    \
    }

/* Of type, key/value heads, norm, activation, biases, rotary positions, mask, place of norms,
 * dropout, core and layout, each value meets each of each other. */
static const struct form forms[] = {
    {"0: f32",
     F32_ALL,
     {OPTIONS, RMS, ERF, .no_bias = true, .rope_theta = 1e4F, .causal = true, .dropout = 0.25F}},
    {"1: f32 in parallel",
     F32_ALL,
     {OPTIONS, ERF, .rope_theta = 1e4F, .causal = true, .parallel = true}},
    {"2: f32 norms behind, materialized",
     F32_ALL,
     {OPTIONS, RMS, .rope_theta = 1e4F, .causal = true, .post_norm = true, MATERIALIZED, STRIPED}},
    {"3: bf16 in parallel, materialized",
     BF16(4),
     {OPTIONS, RMS, ERF, .no_bias = true, .parallel = true, .dropout = 0.25F, MATERIALIZED,
      STRIPED}},
    {"4: f32 in parallel, materialized",
     F32_ONE,
     {OPTIONS, RMS, SWIGLU, .causal = true, .parallel = true, MATERIALIZED, ZIGZAG}},
    {"5: bf16 in parallel",
     BF16(1),
     {OPTIONS, RMS, .no_bias = true, .causal = true, .parallel = true, .dropout = 0.25F}},
    {"6: bf16 norms behind, materialized",
     BF16(2),
     {OPTIONS, .post_norm = true, .dropout = 0.25F, MATERIALIZED, ZIGZAG}},
    {"7: bf16 materialized", BF16(1), {OPTIONS, .dropout = 0.25F, MATERIALIZED, STRIPED}},
    {"8: bf16", BF16(4), {OPTIONS, SWIGLU, .no_bias = true, .causal = true, ZIGZAG}},
    {"9: f32 in parallel", F32_SOME, {OPTIONS, RMS, SWIGLU, .parallel = true, STRIPED}},
    {"10: bf16 norms behind",
     BF16(1),
     {OPTIONS, ERF, .no_bias = true, .rope_theta = 1e4F, .causal = true, .post_norm = true,
      .dropout = 0.25F, ZIGZAG}},
    {"11: f32 norms behind, materialized",
     F32_ONE,
     {OPTIONS, RMS, SWIGLU, .rope_theta = 1e4F, .causal = true, .post_norm = true, .dropout = 0.25F,
      MATERIALIZED}},
};

/* Whether all ranks can be such a grid for a layer; a sequence has a leaf for each context. */
static inline bool is_grid(const struct ls_layer_shape *n, int t)
{
    return size % t == 0 && n->h % t == 0 && n->f % t == 0 &&
           (n->h_kv % t == 0 || t % n->h_kv == 0) && (size / t - 1) * LS_LEAF < n->s;
}

/* The most tensor-parallel ranks of such a grid; 0: there is none. */
static inline int most_tensor_ranks(const struct ls_layer_shape *n)
{
    int t = size;

    while (t > 0 && !is_grid(n, t)) t--;
    return t;
}

typedef void (*check_form)(const struct form *form, int t, bool sp);

static inline void check_grids(const struct form *form, check_form check)
{
    for (int t = 1; t <= size; t++)
        for (int sp = 0; sp < (t > 1 ? 2 : 1) && is_grid(&form->shape, t); sp++) check(form, t, sp);
}

static inline void check_forms(check_form check)
{
    for (int i = 0; i < COUNT(forms); i++) check_grids(&forms[i], check);
}

/* The last context has one row, of which one rank takes care outside. */
static inline void check_ranks_without_rows(check_form check)
{
    static struct form few[] = {{"few rows, 2 ranks", F32_ALL, {OPTIONS, .causal = true}},
                                {"few rows, 4 ranks", F32_ALL, {OPTIONS, .causal = true}}};

    for (int i = 0; i < COUNT(few); i++) {
        const int t = 2 << i;

        few[i].shape.s = (size / t - 1) * LS_LEAF + 1;
        if (size % t == 0) check(&few[i], t, true);
    }
}

#endif
