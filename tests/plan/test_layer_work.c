/* What bringing back costs: the operations that a layer runs again, each once whatever pieces ask
 * for it. */
#include <criterion/criterion.h>

#include "longspan/layout.h"
#include "model/presets.h"
#include "plan/layer_traffic.h"
#include "plan/layer_work.h"
#include "plan/model_size.h"
#include "plan/pieces.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static struct ls_model_shape model_of(const char *name)
{
    const struct ls_preset *preset;

    cr_assert_eq(ls_preset_find(&preset, name), LS_OK);
    return preset->model;
}

static struct ls_model_run run_of(int64_t t, int64_t c, bool sp, ls_core_kind core)
{
    return (struct ls_model_run){.type = LS_BF16,
                                 .b = 2,
                                 .s = 2048,
                                 .t = t,
                                 .c = c,
                                 .p = 1,
                                 .m = 1,
                                 .sp = sp,
                                 .dropout = true,
                                 .core = core};
}

static struct ls_layer_work again(const struct ls_model_shape *model,
                                  const struct ls_model_run *run, const char *pieces)
{
    struct ls_model_run with = *run;

    cr_assert_eq(ls_pieces_parse(&with.pieces, pieces), LS_OK);
    return ls_layer_again(model, &with);
}

static void expect(const char *pieces, struct ls_layer_work work, double flops, double memory,
                   double exchanged)
{
    cr_expect_float_eq(work.flops, flops, 1e-12 * flops, "%s: %.17g flops, not %.17g", pieces,
                       work.flops, flops);
    cr_expect_float_eq(work.memory, memory, 1e-12 * memory, "%s: %.17g bytes, not %.17g", pieces,
                       work.memory, memory);
    cr_expect_float_eq(work.exchanged, exchanged, 1e-12 * exchanged,
                       "%s: %.17g bytes exchanged, not %.17g", pieces, work.exchanged, exchanged);
}

/* Of GPT's 4h MLP with tanh-GELU, on one rank. n: elements of a tensor of width h; w: of h x h
 * weights. */
Test(layer_work, one_rank_runs_again_what_a_piece_needs)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    const struct ls_model_run run = run_of(1, 1, false, LS_CORE_FUSED);
    const double s = 2048, h = (double)model.h, n = 2 * s * h, w = h * h, a = (double)model.a;
    const double statistics = 2 * s * 8, lse = 4 * 2 * s * a;
    const struct {
        const char *pieces;
        double flops, memory;
    } cases[] = {
        {"none", 0, 0},
        {"selective", 0, 0}, /* a fused core keeps nothing that it could discard */
        {"core", 4 * s * n, 8 * n + lse},
        {"norm", 0, 2 * (4 * n + statistics)},
        {"activation", 0, 16 * n},                      /* read and written */
        {"mlp", 2 * n * 4 * h, 2 * n + 8 * w + 16 * n}, /* GELU comes with the linear */
        {"qkv", 2 * n * 3 * h, 2 * n + 6 * w + 6 * n},
        {"dropout", 0, 2 * 4 * n},
        {"full", 4 * s * n + 2 * n * 8 * h,
         8 * n + lse + 2 * (4 * n + statistics) + 2 * n + 8 * w + 16 * n + 2 * n + 6 * w + 6 * n +
             2 * 4 * n + 2 * n + 2 * w + 2 * n + 6 * n + 4 * n},
    };

    for (int i = 0; i < COUNT(cases); i++)
        expect(cases[i].pieces, again(&model, &run, cases[i].pieces), cases[i].flops,
               cases[i].memory, 0);
}

/* The paper's selective makes the scores again, and what softmax and dropout make of them; the
 * whole core both products. */
Test(layer_work, a_materialized_core_makes_its_probabilities_again)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    struct ls_model_run run = run_of(1, 1, false, LS_CORE_MATERIALIZED);
    const double s = 2048, n = 2 * s * (double)model.h, scores = 2 * (double)model.a * s * s;

    expect("selective", again(&model, &run, "selective"), 2 * s * n,
           4 * n + 6 * scores + 9 * scores, 0);
    expect("core", again(&model, &run, "core"), 4 * s * n,
           4 * n + 6 * scores + 9 * scores + 2 * scores + 4 * n, 0);
    run.dropout = false;
    expect("selective", again(&model, &run, "selective"), 2 * s * n, 4 * n + 6 * scores, 0);
    run.causal = true;
    expect("selective", again(&model, &run, "selective"), (s + 1) * n, 4 * n + 6 * scores, 0);
}

/* SwiGLU's linear gives two halves and is no part of the activation; q and k are turned. */
Test(layer_work, llama_runs_again_what_it_has)
{
    const struct ls_model_shape model = model_of("llama3-8b");
    struct ls_model_run run = run_of(1, 1, false, LS_CORE_FUSED);
    const double tokens = 2 * 2048, h = 4096, f = 14336, qkv = 4096 + 2 * 1024;

    run.dropout = false;
    expect("mlp", again(&model, &run, "mlp"), 2 * tokens * h * 2 * f,
           tokens * h * 2 + h * 2 * f * 2 + tokens * 2 * f * 2 + tokens * 2 * f * 2 +
               tokens * f * 2,
           0);
    expect("qkv", again(&model, &run, "qkv"), 2 * tokens * h * qkv,
           tokens * h * 2 + h * qkv * 2 + tokens * qkv * 2 + 2 * tokens * (4096 + 1024) * 2, 0);
    expect("dropout", again(&model, &run, "dropout"), 0, 0, 0);
}

/* With sequence parallelism the inputs of column-parallel linears are gathered once more; keys and
 * values come from other context-parallel ranks once more; without, only a whole layer sums. */
Test(layer_work, pieces_exchange_what_they_need)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    const double sbh = 2 * 2048 * (double)model.h;
    struct ls_model_run run = run_of(4, 1, false, LS_CORE_FUSED);

    cr_expect_eq(again(&model, &run, "core,norm,mlp,qkv,dropout").exchanged, 0);
    cr_expect_float_eq(again(&model, &run, "full").exchanged, 2 * 2 * sbh * 3 / 4, 1e-6 * sbh);
    run.sp = true;
    cr_expect_float_eq(again(&model, &run, "norm,activation,core").exchanged, 0, 1e-6 * sbh);
    cr_expect_float_eq(again(&model, &run, "qkv,mlp").exchanged, 2 * 2 * sbh * 3 / 4, 1e-6 * sbh);
    cr_expect_float_eq(again(&model, &run, "full").exchanged, 3 * 2 * sbh * 3 / 4, 1e-6 * sbh);
    run.t = 2;
    run.c = 4;
    cr_expect_float_eq(again(&model, &run, "core").exchanged, 2 * 2 * sbh / 2 * 3 / 4, 1e-6 * sbh);
}

/* Forward and backward of a layer by tensor parallelism: 16 sbh (t - 1) / t bytes, and with
 * sequence parallelism two gathered inputs more (arXiv 2205.05198, section 4.2.2). */
Test(layer_work, a_step_exchanges_what_the_paper_says)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    const double sbh = 2 * 2048 * (double)model.h;

    for (int64_t t = 1; t <= 8; t *= 2)
        for (int sp = 0; sp < 2; sp++) {
            const struct ls_model_run run = run_of(t, 1, sp == 1, LS_CORE_FUSED);
            const double part = (double)(t - 1) / (double)t;

            cr_expect_float_eq(ls_layer_step(&model, &run).exchanged, (16 + 4 * sp) * sbh * part,
                               1e-6 * sbh, "t %d, sp %d", (int)t, sp);
        }
}

/* In parallel one input less is gathered in each direction, and one gradient less is summed. */
Test(layer_work, parallel_blocks_exchange_less)
{
    struct ls_model_shape model = model_of("gpt-22b");
    struct ls_model_run run = run_of(4, 1, false, LS_CORE_FUSED);
    const double unit = 2 * 2048 * (double)model.h * 3 / 4;

    model.parallel = true;
    cr_expect_float_eq(ls_layer_step(&model, &run).exchanged, 12 * unit, 1e-6 * unit);
    run.sp = true;
    cr_expect_float_eq(ls_layer_step(&model, &run).exchanged, 14 * unit, 1e-6 * unit);
    cr_expect_float_eq(again(&model, &run, "mlp").exchanged, 2 * unit, 1e-6 * unit);
    cr_expect_float_eq(again(&model, &run, "qkv,mlp").exchanged, 2 * unit, 1e-6 * unit);
    cr_expect_float_eq(again(&model, &run, "full").exchanged, 2 * unit, 1e-6 * unit);
}

static void check_sent(const struct ls_model_shape *model, struct ls_model_run run)
{
    const struct ls_layer_place place = {.key_sums = model->a_kv / run.t};

    run.has_rows = true;
    run.rows = run.s / run.c;
    run.outer_rows = run.rows / (run.sp ? run.t : 1);
    for (run.pieces = 0; run.pieces < LS_PIECE_LAYER << 1; run.pieces++) {
        const struct ls_layer_traffic traffic = ls_layer_traffic_of(model, &run, &place);
        const double came =
            ls_layer_step(model, &run).exchanged + ls_layer_again(model, &run).exchanged;

        cr_expect_float_eq(came, (double)(traffic.rows + traffic.keys), 1e-9 * came,
                           "t %d c %d sp %d %s%s: %.17g bytes come, %.17g go", (int)run.t,
                           (int)run.c, run.sp, model->parallel ? "parallel, " : "",
                           ls_pieces_name(run.pieces).s, came,
                           (double)(traffic.rows + traffic.keys));
    }
}

/* Of ranks that have equal parts each brings as much as it sends. */
Test(layer_work, what_comes_is_what_others_send)
{
    struct ls_model_shape model = model_of("gpt-22b");

    for (int i = 0; i < 16; i++) {
        model.parallel = i & 1;
        model.post_norm = !model.parallel && i & 2;
        check_sent(&model,
                   run_of(i & 4 ? 4 : 1, i & 8 ? 2 : 1, i & 4 && i & 8, LS_CORE_MATERIALIZED));
        check_sent(&model, run_of(4, 1, i & 8, LS_CORE_FUSED));
    }
}

/* Forward's bytes three times: n, w as above; nothing of it is what only recomputation does. */
Test(layer_work, a_step_moves_what_its_operations_do)
{
    const struct ls_model_shape model = model_of("gpt-22b");
    const struct ls_model_run run = run_of(1, 1, false, LS_CORE_FUSED);
    const double s = 2048, h = (double)model.h, n = 2 * s * h, w = h * h;
    const double norms = 2 * (4 * n + 2 * s * 8), core = 8 * n + 4 * 2 * s * (double)model.a;
    const double columns = 2 * n + 6 * w + 6 * n + 2 * n + 8 * w + 16 * n;
    const double rows = 2 * n + 2 * w + 2 * n + 8 * n + 8 * w + 2 * n, behind = 2 * (6 * n + 4 * n);
    const double memory = ls_layer_step(&model, &run).memory;

    cr_expect_float_eq(memory, 3 * (norms + core + columns + rows + behind), 1e-6 * n, "%.17g",
                       memory);
}

/* All ranks together do what ls_model_flops counts; the last linear is nothing that a full
 * recomputation needs. */
Test(layer_work, operations_are_the_whole_layer)
{
    static const char *const names[] = {"gpt-175b", "llama3-70b", "opt-175b"};
    static const struct {
        int64_t t, c;
    } grids[] = {{1, 1}, {8, 1}, {4, 3}};

    for (int i = 0; i < COUNT(names) * COUNT(grids) * 2; i++) {
        const struct ls_model_shape model = model_of(names[i % COUNT(names)]);
        const int64_t t = grids[i / 3 % 3].t, c = grids[i / 3 % 3].c;
        struct ls_model_run run = run_of(t, c, true, i < 9 ? LS_CORE_FUSED : LS_CORE_MATERIALIZED);
        const struct ls_step_flops flops = ls_model_flops(&model, &run);
        const double tokens = 2 * 2048, logits = 2 * tokens * (double)(model.h * model.v);
        const double layers = (double)(model.L * t * c),
                     last = 2 * tokens * (double)(model.h * model.f);

        cr_expect_float_eq(ls_layer_step(&model, &run).flops * layers,
                           flops.forward + flops.backward - 3 * logits, 1e-9 * flops.forward,
                           "%s, t %d, c %d", names[i % 3], (int)t, (int)c);
        run.pieces = LS_PIECE_LAYER;
        cr_expect_float_eq(ls_model_flops(&model, &run).again,
                           flops.forward - logits - (double)model.L * last, 1e-9 * flops.forward,
                           "%s, t %d, c %d", names[i % 3], (int)t, (int)c);
    }
}

/* Sets are unions: what pieces have in common is run once, what they have not is added. */
Test(layer_work, what_pieces_share_runs_once)
{
    const struct ls_model_shape model = model_of("gpt-175b");
    const struct ls_model_run run = run_of(8, 2, true, LS_CORE_MATERIALIZED);
    static const char *const same[][2] = {
        {"mlp,activation", "mlp"}, {"core,selective", "core"}, {"full,norm,mlp,dropout", "full"}};
    static const char *const apart[][3] = {{"norm,qkv", "norm", "qkv"},
                                           {"core,mlp", "core", "mlp"},
                                           {"dropout,activation", "dropout", "activation"}};

    for (int i = 0; i < 3; i++) {
        const struct ls_layer_work a = again(&model, &run, same[i][1]);
        const struct ls_layer_work b = again(&model, &run, apart[i][1]);
        const struct ls_layer_work c = again(&model, &run, apart[i][2]),
                                   sum = ls_layer_work_sum(&b, &c);

        expect(same[i][0], again(&model, &run, same[i][0]), a.flops, a.memory, a.exchanged);
        expect(apart[i][0], again(&model, &run, apart[i][0]), sum.flops, sum.memory, sum.exchanged);
    }
}

/* Norms behind the blocks: the MLP's input is a norm's output that comes from what was kept. */
Test(layer_work, other_layers_run_again_what_they_discard)
{
    struct ls_model_shape model = model_of("gpt-22b");
    const struct ls_model_run run = run_of(1, 1, false, LS_CORE_FUSED);
    const double n = 2 * 2048 * (double)model.h, statistics = 2 * 2048 * 8;
    const double before = again(&model, &run, "full").flops;

    model.post_norm = true;
    expect("norm", again(&model, &run, "norm"), 0, 4 * n + statistics, 0);
    cr_expect_float_eq(again(&model, &run, "full").flops - before, 2 * n * 4 * (double)model.h,
                       1e-9 * before, "the second norm's input is behind the last linear");
    model.post_norm = false;
    model.parallel = true;
    cr_expect_float_eq(before - again(&model, &run, "full").flops, 2 * n * (double)model.h,
                       1e-9 * before, "nothing needs what is behind attention");
}

Test(layer_work, time_is_at_the_rates_there_are)
{
    const struct ls_layer_work work = {6e12, 4e9, 1e9};

    cr_expect_float_eq(ls_layer_work_seconds(&work, &(struct ls_rates){3e12, 2e9, 1e9}), 5, 1e-12);
    cr_expect_float_eq(ls_layer_work_seconds(&work, &(struct ls_rates){3e12, 2e9, 0}), 4, 1e-12);
}
