/* Presets have the parameters that their publishers give, exactly where those are exact. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "model/presets.h"
#include "plan/model_size.h"

Test(presets, have_the_parameters_of_their_weights)
{
    static const struct {
        const char *name;
        int64_t parameters;
    } known[] = {
        {"bloom-176b", 176247271424},  {"llama2-7b", 6738415616},  {"llama2-13b", 13015864320},
        {"llama2-70b", 68976648192},   {"llama3-8b", 8030261248},  {"llama3-70b", 70553706496},
        {"llama3-405b", 405853388800}, {"opt-175b", 174604468224},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct ls_preset *preset;

        cr_assert_eq(ls_preset_find(&preset, known[i].name), LS_OK);
        cr_expect_eq(ls_model_parameters(&preset->model), known[i].parameters, "%s: %lld",
                     known[i].name, (long long)ls_model_parameters(&preset->model));
    }
}

/* Names end in it. */
Test(presets, are_as_large_as_they_are_called)
{
    const struct ls_preset *preset;

    for (int i = 0; (preset = ls_preset_at(i)) != NULL; i++) {
        char unit;
        double size;

        cr_assert_eq(sscanf(strrchr(preset->name, '-') + 1, "%lf%c", &size, &unit), 2);
        size *= unit == 't' ? 1e12 : 1e9;
        cr_expect_float_eq((double)ls_model_parameters(&preset->model) / size, 1, 0.05, "%s",
                           preset->name);
        cr_expect_eq(preset->model.d * preset->model.a, preset->model.h, "%s", preset->name);
        cr_expect_eq(preset->model.L % (preset->run.p * preset->run.m), 0, "%s", preset->name);
    }
    cr_expect_eq(ls_preset_find(&preset, "lama2-7b"), LS_EVALUE);
    cr_expect(strstr(ls_message(), "(llama2-7b?)"), "%s", ls_message());
}
