/* A layer is planned as the model that it is of: whatever pieces are computed again, the same bytes
 * and the same work. */
#include <criterion/criterion.h>

#include "layer/as_model.h"
#include "model/presets.h"
#include "plan/recompute.h"

static struct ls_layer_shape shape_of(const struct ls_model_shape *model)
{
    return (struct ls_layer_shape){.b = 2,
                                   .s = 1024,
                                   .e = model->h,
                                   .h = model->a,
                                   .h_kv = model->a_kv,
                                   .d = model->d,
                                   .f = model->f,
                                   .type = LS_BF16};
}

static void check_sets(const struct ls_model_shape *model, const struct ls_layer_options *o,
                       const char *name)
{
    const struct ls_layer_shape shape = shape_of(model);
    const struct ls_model_shape layer = ls_layer_as_model(&shape, o);
    const struct ls_model_run run = ls_layer_as_run(&shape, o);
    const struct ls_rates rates = {1e12, 1e10, 1e9};

    for (unsigned pieces = 0; pieces < LS_RECOMPUTE_SETS; pieces++) {
        const struct ls_recompute_set a = ls_recompute_set_of(model, &run, pieces, &rates);
        const struct ls_recompute_set b = ls_recompute_set_of(&layer, &run, pieces, &rates);

        cr_expect_eq(a.kept, b.kept, "%s, pieces %#x: keeps", name, pieces);
        cr_expect_eq(a.again, b.again, "%s, pieces %#x: brings back", name, pieces);
        cr_expect_eq(a.seconds, b.seconds, "%s, pieces %#x: takes", name, pieces);
    }
}

Test(as_model, a_layer_is_planned_as_its_model)
{
    static const struct {
        const char *name;
        struct ls_layer_options options;
    } layers[] = {
        {"gpt-22b", {.tp = 4, .cp = 2, .sp = true, .dropout = 0.1F}},
        {"gpt-22b", {.tp = 1, .cp = 1, .core = LS_CORE_MATERIALIZED, .causal = true}},
        {"opt-175b", {.tp = 8, .cp = 1, .activation = LS_ACTIVATION_RELU}},
        {"llama3-8b",
         {.tp = 2,
          .cp = 2,
          .sp = true,
          .norm = LS_NORM_RMS,
          .activation = LS_ACTIVATION_SWIGLU,
          .no_bias = true,
          .rope_theta = 5e5F}},
    };

    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        const struct ls_preset *preset;

        cr_assert_eq(ls_preset_find(&preset, layers[i].name), LS_OK);
        check_sets(&preset->model, &layers[i].options, layers[i].name);
    }
}
