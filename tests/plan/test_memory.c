/* What a layer keeps is what Korthikanti et al. 2022 (arXiv 2205.05198) count, to the byte, and
 * what they leave out by name; their figures come out of it. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "longspan/layout.h"
#include "model/presets.h"
#include "plan/memory.h"
#include "plan/model_size.h"
#include "plan/pieces.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static const unsigned schemes[] = {0, LS_PIECE_SOFTMAX, LS_PIECE_LAYER};

static struct ls_model_shape model_of(const char *name)
{
    const struct ls_preset *preset;

    cr_assert_eq(ls_preset_find(&preset, name), LS_OK);
    return preset->model;
}

/* As the paper has it: 16 bits, dropout, a core that keeps its probabilities. */
static struct ls_model_run run_of(int64_t b, int64_t t, bool sp, unsigned pieces)
{
    return (struct ls_model_run){.type = LS_BF16,
                                 .b = b,
                                 .s = 2048,
                                 .t = t,
                                 .c = 1,
                                 .p = 1,
                                 .m = 1,
                                 .sp = sp,
                                 .dropout = true,
                                 .core = LS_CORE_MATERIALIZED,
                                 .pieces = pieces};
}

Test(memory, a_layer_keeps_what_the_paper_counts)
{
    static const char *const names[] = {"gpt-22b", "gpt-175b", "gpt-530b", "gpt-1t"};

    for (int i = 0; i < COUNT(names); i++)
        for (int j = 0; j < COUNT(schemes) * 2 * 4; j++) {
            const struct ls_model_shape model = model_of(names[i]);
            struct ls_model_run run = run_of(1 + i, 1 << j / 6, j / 3 % 2 == 1, schemes[j % 3]);
            const struct ls_kept_bytes bytes = ls_layer_kept_bytes(&model, &run);
            const double paper = ls_paper_layer_bytes(&run, model.a, model.h);

            cr_expect_eq((double)bytes.paper, paper, "%s t=%d sp=%d %s: %lld, the paper %.1f",
                         names[i], 1 << j / 6, run.sp, ls_pieces_name(run.pieces).s,
                         (long long)bytes.paper, paper);
        }
}

/* sbh (10 + 24/t + 5as/(ht)) over (sbh/t) 34: the abstract's factor of five. */
Test(memory, both_techniques_together_save_what_the_paper_says)
{
    static const struct {
        const char *name;
        int64_t t;
        double ratio;
    } cases[] = {{"gpt-22b", 8, 6.20},
                 {"gpt-22b", 4, 5.02},
                 {"gpt-175b", 8, 5.41},
                 {"gpt-530b", 8, 4.94},
                 {"gpt-1t", 8, 4.94}};

    for (int i = 0; i < COUNT(cases); i++) {
        const struct ls_model_shape model = model_of(cases[i].name);
        const struct ls_model_run before = run_of(1, cases[i].t, false, 0);
        const struct ls_model_run after = run_of(1, cases[i].t, true, LS_PIECE_SOFTMAX);
        const double ratio = (double)ls_layer_kept_bytes(&model, &before).paper /
                             (double)ls_layer_kept_bytes(&model, &after).paper;

        cr_expect_float_eq(ratio, cases[i].ratio, 0.005, "%s, t %d: %.4f", cases[i].name,
                           (int)cases[i].t, ratio);
    }
}

/* Section 5: "70 % and 65 %" of the activations of GPT-3 and MT-NLG are the core's. */
Test(memory, the_core_has_the_share_that_the_paper_says)
{
    static const struct {
        const char *name;
        double share;
    } cases[] = {{"gpt-175b", 0.70}, {"mt-nlg-530b", 0.65}};

    for (int i = 0; i < COUNT(cases); i++) {
        const struct ls_model_shape model = model_of(cases[i].name);
        const struct ls_model_run all = run_of(1, 8, true, 0);
        const struct ls_model_run less = run_of(1, 8, true, LS_PIECE_SOFTMAX);
        const double share = 1 - (double)ls_layer_kept_bytes(&model, &less).paper /
                                     (double)ls_layer_kept_bytes(&model, &all).paper;

        cr_expect_float_eq(share, cases[i].share, 0.005, "%s: %.4f", cases[i].name, share);
    }
}

static const struct ls_kept *find(const struct ls_kept *kept, int n, ls_kept_kind kind)
{
    for (int i = 0; i < n; i++)
        if (kept[i].kind == kind) return &kept[i];
    return NULL;
}

static void expect(const struct ls_model_shape *model, const struct ls_model_run *run,
                   ls_kept_kind kind, int64_t bytes)
{
    struct ls_kept kept[LS_KEPT_KINDS];
    const int n = ls_layer_keeps(kept, model, run);
    const struct ls_kept *one = find(kept, n, kind);

    cr_assert(n <= LS_KEPT_KINDS);
    if (bytes < 0)
        cr_expect_null(one, "%s is there", ls_kept_about(kind)->name);
    else
        cr_expect(one && one->bytes == bytes, "%s: %lld, not %lld", ls_kept_about(kind)->name,
                  one ? (long long)one->bytes : -1, (long long)bytes);
}

/* Of 1001 positions on three ranks the first has two leaves, of whose 512 rows two ranks share the
 * outside; of 1003 rows and four, 251. */
Test(memory, rows_are_those_of_the_first_rank)
{
    const struct ls_model_shape model = {.h = 96,
                                         .L = 1,
                                         .v = 10,
                                         .a = 8,
                                         .a_kv = 2,
                                         .d = 12,
                                         .f = 40,
                                         .norm = LS_NORM_RMS,
                                         .activation = LS_ACTIVATION_SWIGLU};
    struct ls_model_run run = {
        .type = LS_F32, .b = 3, .s = 1001, .t = 2, .c = 3, .p = 1, .m = 1, .sp = true};

    expect(&model, &run, LS_KEPT_INPUT, 3 * 256 * 96 * 4);
    expect(&model, &run, LS_KEPT_QKV, 3 * 512 * (8 + 2 * 2) / 2 * 12 * 4);
    expect(&model, &run, LS_KEPT_LSE, 3 * 512 * 4 * 4);
    expect(&model, &run, LS_KEPT_ATTENTION, 3 * 512 * 4 * 12 * 4);
    expect(&model, &run, LS_KEPT_UP, 3 * 512 * 40 * 4);
    expect(&model, &run, LS_KEPT_ACTIVATION, 3 * 512 * 20 * 4);
    expect(&model, &run, LS_KEPT_STATISTICS2, 3 * 256 * 4);
    expect(&model, &run, LS_KEPT_MASK2, -1);
    expect(&model, &run, LS_KEPT_SOFTMAX, -1);
    run.t = 4; /* more ranks than kv heads: copies */
    run.c = 1;
    run.s = 1003;
    expect(&model, &run, LS_KEPT_NORM2, 3 * 251 * 96 * 4);
    expect(&model, &run, LS_KEPT_QKV, 3 * 1003 * (2 + 2) * 12 * 4);
    run.core = LS_CORE_MATERIALIZED;
    run.dropout = true;
    expect(&model, &run, LS_KEPT_SOFTMAX_MASK, (int64_t)3 * 2 * 1003 * 1003);
    expect(&model, &run, LS_KEPT_MASK2, 3 * 251 * 96);
    expect(&model, &run, LS_KEPT_LSE, -1);
}

Test(memory, what_pieces_share_goes_once)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    const struct ls_model_run all = run_of(1, 1, false, 0);
    const int64_t none = ls_layer_kept_bytes(&model, &all).paper, sbh = 2048 * model.h;
    static const struct {
        const char *pieces;
        int64_t freed; /* of sbh */
    } cases[] = {
        {"none", 0}, {"norm", 4},    {"activation", 8},   {"mlp", 16}, {"mlp,activation", 16},
        {"qkv", 6},  {"dropout", 2}, {"norm,qkv,mlp", 26}};

    for (int i = 0; i < COUNT(cases); i++) {
        struct ls_model_run run = all;

        cr_assert_eq(ls_pieces_parse(&run.pieces, cases[i].pieces), LS_OK);
        cr_expect_eq(none - ls_layer_kept_bytes(&model, &run).paper, cases[i].freed * sbh, "%s",
                     cases[i].pieces);
    }
}

/* Fused, the core frees what "selective" cannot: 34 sbh become 32. */
Test(memory, under_a_fused_core_only_the_whole_core_frees)
{
    const struct ls_model_shape model = model_of("gpt-175b");
    const int64_t sbh = 2048 * model.h;
    struct ls_model_run run = run_of(1, 1, false, 0);

    run.core = LS_CORE_FUSED;
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).paper, 34 * sbh);
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).own, 4 * 2048 * (model.a + 4));
    run.pieces = LS_PIECE_SOFTMAX;
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).paper, 34 * sbh);
    run.pieces = LS_PIECE_CORE;
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).paper, 32 * sbh);
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).own, 4 * 2048 * 4, "LSE is gone as well");
}

/* Norms behind the blocks keep as much; attention and MLP side by side have one norm. */
Test(memory, other_layers_keep_what_they_need)
{
    struct ls_model_shape model = model_of("gpt-22b");
    const struct ls_model_run run = run_of(1, 8, true, 0);
    const int64_t before = ls_layer_kept_bytes(&model, &run).paper;

    model.post_norm = true;
    cr_expect_eq(ls_layer_kept_bytes(&model, &run).paper, before);
    model.post_norm = false;
    model.parallel = true;
    cr_expect_eq(before - ls_layer_kept_bytes(&model, &run).paper, 4 * 2048 * model.h / 8);
}

/* Section 4.3, and 1 + (p - 1) / (p m) times as many layers where stages are interleaved. */
Test(memory, the_ends_and_the_layers_under_way_are_the_papers)
{
    const struct ls_model_shape model = model_of("gpt-175b");
    struct ls_model_run run = run_of(1, 8, true, 0);
    const int64_t sbh = 2048 * model.h;
    struct ls_rank_bytes bytes;

    cr_expect_eq(ls_ends_kept_bytes(&model, &run).paper,
                 sbh / 8 + 4 * sbh / 8 + 4 * (int64_t)2048 * model.v / 8);
    run.p = 8;
    cr_expect_eq(ls_ends_kept_bytes(&model, &run).paper, sbh * 8 / 8);
    for (run.m = 1; run.m <= 3; run.m += 2) {
        const struct ls_kept_bytes layer = ls_layer_kept_bytes(&model, &run);

        cr_assert_eq(ls_model_bytes(&bytes, &model, &run), LS_OK, "%s", ls_message());
        cr_expect_eq(bytes.layers, (run.m == 1 ? 96 : 124) * (layer.paper + layer.own));
    }
}

/* Equation 7: 72 b L s h^2 (1 + s / (6h) + v / (12hL)) for forward and backward. What "selective"
 * adds is the scores once more, 2 b s^2 h a layer, as the output is kept: the paper's own formula
 * adds s / (6h), six times that. */
Test(memory, work_is_the_papers)
{
    static const char *const names[] = {"gpt-22b", "gpt-175b", "gpt-530b", "gpt-1t"};

    for (int i = 0; i < COUNT(names); i++) {
        const struct ls_model_shape model = model_of(names[i]);
        const struct ls_model_run run = run_of(2, 8, true, LS_PIECE_SOFTMAX);
        const struct ls_step_flops flops = ls_model_flops(&model, &run);
        const double s = 2048, h = (double)model.h, L = (double)model.L, v = (double)model.v;
        const double paper = 72 * 2 * L * s * h * h * (1 + s / (6 * h) + v / (12 * h * L));

        cr_expect_float_eq((flops.forward + flops.backward) / paper, 1, 1e-12, "%s", names[i]);
        cr_expect_float_eq(flops.again, L * 2 * 2 * s * s * h, 1, "%s", names[i]);
    }
}

Test(memory, what_cannot_be_shared_is_refused)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    static const struct {
        int64_t s, t, c, p, m;
        const char *says;
    } cases[] = {
        {2048, 3, 1, 1, 1, "64 heads cannot be shared evenly by 3 tensor-parallel ranks"},
        {2048, 1, 9, 1, 1, "2048 positions are 8 of them"},
        {2048, 1, 1, 5, 1, "48 layers cannot be shared evenly by 5 parts"},
        {2048, 1, 1, 16, 2, "48 layers cannot be shared evenly by 32 parts"},
        {2048, 1, 1, 1, 2, "nothing to interleave"},
        {(int64_t)1 << 40, 1, 1, 1, 1, "beyond 2^63"},
    };

    for (int i = 0; i < COUNT(cases); i++) {
        struct ls_model_run run = run_of(1, cases[i].t, true, 0);
        struct ls_rank_bytes bytes = {.layers = -1};

        run.s = cases[i].s;
        run.c = cases[i].c;
        run.p = cases[i].p;
        run.m = cases[i].m;
        cr_expect_eq(ls_model_bytes(&bytes, &model, &run), LS_EVALUE);
        cr_expect(strstr(ls_message(), cases[i].says), "%s", ls_message());
        cr_expect_eq(bytes.layers, -1, "nothing is written");
    }
}

Test(memory, pieces_are_named)
{
    unsigned pieces = 77;

    cr_expect_eq(ls_pieces_parse(&pieces, "core,norm"), LS_OK);
    cr_expect_eq(pieces, LS_PIECE_CORE | LS_PIECE_NORM);
    cr_expect_str_eq(ls_pieces_name(pieces).s, "core,norm");
    cr_expect_str_eq(ls_pieces_name(0).s, "none");
    cr_expect_eq(ls_pieces_parse(&pieces, "ful"), LS_EVALUE);
    cr_expect(strstr(ls_message(), "(full?)"), "%s", ls_message());
    cr_expect_eq(ls_pieces_parse(&pieces, "core,,norm"), LS_EVALUE);
    cr_expect_eq(ls_pieces_parse(&pieces, ""), LS_EVALUE);
    cr_expect_eq(ls_pieces_parse(&pieces, "a name that is much longer than any of the pieces"),
                 LS_EVALUE);
    cr_expect_eq(pieces, LS_PIECE_CORE | LS_PIECE_NORM, "nothing is written");
}

/* Where something may choose them, its word is known, too; but it is no piece. */
Test(memory, pieces_or_auto)
{
    bool chooses = false;
    unsigned pieces = 77;

    cr_assert_eq(ls_pieces_parse_or_auto(&chooses, &pieces, "auto"), LS_OK);
    cr_expect(chooses && pieces == 0);
    cr_assert_eq(ls_pieces_parse_or_auto(&chooses, &pieces, "core,norm"), LS_OK);
    cr_expect(!chooses && pieces == (LS_PIECE_CORE | LS_PIECE_NORM));
    cr_expect_eq(ls_pieces_parse_or_auto(&chooses, &pieces, "atuo"), LS_EVALUE);
    cr_expect(strstr(ls_message(), "(auto?)"), "%s", ls_message());
    cr_expect_eq(ls_pieces_parse_or_auto(&chooses, &pieces, "atuo,norm"), LS_EVALUE);
    cr_expect_not(strstr(ls_message(), "auto"), "%s", ls_message());
    cr_expect_eq(ls_pieces_parse(&pieces, "auto"), LS_EVALUE);
    cr_expect_not(strstr(ls_message(), "auto?"), "%s", ls_message());
    cr_expect(!chooses && pieces == (LS_PIECE_CORE | LS_PIECE_NORM), "nothing is written");
}
