/* Models that are known by name. */
#ifndef LS_MODEL_PRESETS_H
#define LS_MODEL_PRESETS_H

#include "base/status.h"
#include "plan/model.h"

struct ls_preset {
    const char *name, *source;
    int64_t s;
    struct {
        int64_t b, t, p, m;
    } run; /* as its source trained it; else ones */
    struct ls_model_shape model;
};

/* Errors: LS_EVALUE, with the nearest name. */
ls_status ls_preset_find(const struct ls_preset **out, const char *name);

/* NULL behind the last. */
const struct ls_preset *ls_preset_at(int i);

#endif
