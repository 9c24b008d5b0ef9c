/* What a model is, from the config.json of a folder as Hugging Face keeps them. */
#ifndef LS_MODEL_CONFIG_H
#define LS_MODEL_CONFIG_H

#include "base/status.h"
#include "plan/model.h"

/* *s: the most positions that it was made for. Families: model_type gpt2, gpt_neox, opt, bloom,
 * llama, mistral, qwen2. Errors: LS_EFILE, LS_EIO; LS_EFORMAT where it is no JSON, a field is
 * missing or fields contradict each other. */
ls_status ls_config_load(struct ls_model_shape *out, int64_t *s, const char *path);

#endif
