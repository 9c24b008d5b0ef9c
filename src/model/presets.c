#include "model/presets.h"

#include <string.h>

#include "base/nearest.h"

/* GPT-3 and what was built like it: learned positions, biases, an output layer that is the
 * embedding (Brown et al. 2020, "Language models are few-shot learners"). */
#define GPT(heads, width, layers, words)                                                           \
    .h = (width), .L = (layers), .v = (words), .a = (heads), .a_kv = (heads),                      \
    .d = (width) / (heads), .f = 4 * (width), .norm = LS_NORM_LAYER, .bias = true, .tied = true

#define LEARNED(rows) .positions = LS_POSITIONS_LEARNED, .most_positions = (rows)

/* RMSNorm, SwiGLU, rotary positions, no biases (Touvron et al. 2023, "Llama 2"). */
#define LLAMA(heads, kv_heads, width, mlp, layers, words)                                          \
    .h = (width), .L = (layers), .v = (words), .a = (heads), .a_kv = (kv_heads),                   \
    .d = (width) / (heads), .f = (mlp), .norm = LS_NORM_RMS, .activation = LS_ACTIVATION_SWIGLU,   \
    .positions = LS_POSITIONS_ROTARY

#define KORTHIKANTI "Korthikanti et al. 2022, arXiv 2205.05198"
#define LLAMA2 "Touvron et al. 2023, arXiv 2307.09288"
#define LLAMA3 "Grattafiori et al. 2024, arXiv 2407.21783"
#define ALONE                                                                                      \
    {                                                                                              \
        1, 1, 1, 1                                                                                 \
    }

static const struct ls_preset presets[] = {
    {"gpt-22b", KORTHIKANTI, 2048, {4, 8, 1, 1}, {GPT(64, 6144, 48, 51200), LEARNED(2048)}},
    {"gpt-175b", KORTHIKANTI, 2048, {1, 8, 8, 3}, {GPT(96, 12288, 96, 51200), LEARNED(2048)}},
    {"gpt-530b", KORTHIKANTI, 2048, {1, 8, 35, 3}, {GPT(128, 20480, 105, 51200), LEARNED(2048)}},
    {"gpt-1t", KORTHIKANTI, 2048, {1, 8, 64, 1}, {GPT(160, 25600, 128, 51200), LEARNED(2048)}},
    {"opt-175b",
     "Zhang et al. 2022, arXiv 2205.01068",
     2048,
     ALONE,
     {GPT(96, 12288, 96, 50272), LEARNED(2050), .activation = LS_ACTIVATION_RELU}},
    {"bloom-176b",
     "BigScience 2022, arXiv 2211.05100",
     2048,
     ALONE,
     {GPT(112, 14336, 70, 250880), .embedding_norm = true}},
    {"mt-nlg-530b",
     "Smith et al. 2022, arXiv 2201.11990",
     2048,
     {1, 8, 35, 1},
     {GPT(128, 20480, 105, 51200), LEARNED(2048)}},
    {"llama2-7b", LLAMA2, 4096, ALONE, {LLAMA(32, 32, 4096, 11008, 32, 32000)}},
    {"llama2-13b", LLAMA2, 4096, ALONE, {LLAMA(40, 40, 5120, 13824, 40, 32000)}},
    {"llama2-70b", LLAMA2, 4096, ALONE, {LLAMA(64, 8, 8192, 28672, 80, 32000)}},
    {"llama3-8b", LLAMA3, 8192, ALONE, {LLAMA(32, 8, 4096, 14336, 32, 128256)}},
    {"llama3-70b", LLAMA3, 8192, ALONE, {LLAMA(64, 8, 8192, 28672, 80, 128256)}},
    {"llama3-405b", LLAMA3, 8192, ALONE, {LLAMA(128, 8, 16384, 53248, 126, 128256)}},
};

enum { PRESETS = sizeof presets / sizeof *presets };

const struct ls_preset *ls_preset_at(int i)
{
    return i < PRESETS ? &presets[i] : NULL;
}

ls_status ls_preset_find(const struct ls_preset **out, const char *name)
{
    const char *names[PRESETS];

    for (int i = 0; i < PRESETS; i++) {
        names[i] = presets[i].name;
        if (strcmp(names[i], name) != 0) continue;
        *out = &presets[i];
        return LS_OK;
    }
    const char *near = ls_nearest(name, names, PRESETS);
    return ls_fail(LS_EVALUE, "no preset \"%s\"%s%s%s: `longspan plan model --help` lists them",
                   name, near ? " (" : "", near ? near : "", near ? "?)" : "");
}
