#include "model/config.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/nearest.h"

#define MOST ((int64_t)1 << 31)

#define LIKE_LLAMA                                                                                 \
    .norm = LS_NORM_RMS, .activation = LS_ACTIVATION_SWIGLU, .positions = LS_POSITIONS_ROTARY

/* What a family of models has that its config.json does not say, or need not. */
static const struct family {
    const char *name; /* model_type */
    struct ls_model_shape model;
    int64_t mlp_of_width; /* where no field says how wide the MLP is; 0: one must */
    int64_t more_positions;
} families[] = {
    {"gpt2",
     {.bias = true,
      .tied = true,
      .positions = LS_POSITIONS_LEARNED,
      .activation = LS_ACTIVATION_GELU_TANH},
     4,
     0},
    {"opt",
     {.bias = true,
      .tied = true,
      .positions = LS_POSITIONS_LEARNED,
      .activation = LS_ACTIVATION_RELU},
     0,
     2},
    {"bloom",
     {.bias = true, .tied = true, .embedding_norm = true, .activation = LS_ACTIVATION_GELU_TANH},
     4,
     0},
    {"llama", {LIKE_LLAMA}, 0, 0},
    {"mistral", {LIKE_LLAMA}, 0, 0},
    {"qwen2", {LIKE_LLAMA, .bias_qkv = true}, 0, 0},
};

enum { FAMILIES = sizeof families / sizeof *families };

/* A file and the object in it. */
struct config {
    const char *path;
    json_t *json;
};

/* The field of the first of these names that is there and not null. */
static const json_t *field(const char **name, const struct config *c, const char *const names[])
{
    for (int i = 0; names[i]; i++) {
        const json_t *value = json_object_get(c->json, names[i]);

        if (!value || json_is_null(value)) continue;
        *name = names[i];
        return value;
    }
    *name = names[0];
    return NULL;
}

/* *out stays `otherwise` where there is none; 0: it is missing. */
static ls_status read_count(int64_t *out, const struct config *c, const char *const names[],
                            int64_t otherwise)
{
    const char *name;
    const json_t *value = field(&name, c, names);

    *out = otherwise;
    if (!value && otherwise == 0)
        return ls_fail(LS_EFORMAT, "%s: there is no \"%s\"", c->path, name);
    if (!value) return LS_OK;
    *out = json_integer_value(value);
    if (json_is_integer(value) && *out >= 1 && *out <= MOST) return LS_OK;
    return ls_fail(LS_EFORMAT, "%s: \"%s\" must be a whole number of 1 to 2^31", c->path, name);
}

static ls_status find_family(const struct family **out, const struct config *c)
{
    const char *names[FAMILIES], *type = json_string_value(json_object_get(c->json, "model_type"));

    if (!type) return ls_fail(LS_EFORMAT, "%s: there is no \"model_type\"", c->path);
    for (int i = 0; i < FAMILIES; i++) {
        names[i] = families[i].name;
        if (strcmp(names[i], type) != 0) continue;
        *out = &families[i];
        return LS_OK;
    }
    const char *near = ls_nearest(type, names, FAMILIES);
    return ls_fail(LS_EFORMAT,
                   "%s: model_type \"%s\" is not known%s%s%s: gpt2, opt, bloom, llama, mistral and "
                   "qwen2 are",
                   c->path, type, near ? " (" : "", near ? near : "", near ? "?)" : "");
}

static ls_status read_activation(ls_activation *out, const struct config *c)
{
    static const char *const names[] = {"hidden_act", "activation_function", NULL};
    static const struct {
        const char *name;
        ls_activation kind;
    } known[] = {{"gelu", LS_ACTIVATION_GELU_ERF},
                 {"gelu_new", LS_ACTIVATION_GELU_TANH},
                 {"gelu_pytorch_tanh", LS_ACTIVATION_GELU_TANH},
                 {"gelu_fast", LS_ACTIVATION_GELU_TANH},
                 {"relu", LS_ACTIVATION_RELU},
                 {"silu", LS_ACTIVATION_SWIGLU}};
    const char *name;
    const json_t *value = field(&name, c, names);
    const char *text = json_string_value(value);

    if (!value) return LS_OK;
    for (size_t i = 0; text && i < sizeof known / sizeof *known; i++) {
        const bool gated = *out == LS_ACTIVATION_SWIGLU;

        if (strcmp(known[i].name, text) != 0 || gated != (known[i].kind == LS_ACTIVATION_SWIGLU))
            continue;
        *out = known[i].kind;
        return LS_OK;
    }
    return ls_fail(LS_EFORMAT, "%s: \"%s\" is \"%s\", which this model_type has not here", c->path,
                   name, text ? text : "no text");
}

/* Biases that these families have not, unless somebody changed them. */
static ls_status check_biases(const struct config *c)
{
    static const char *const names[] = {"attention_bias", "mlp_bias"};

    for (int i = 0; i < 2; i++)
        if (json_is_true(json_object_get(c->json, names[i])))
            return ls_fail(LS_EFORMAT, "%s: \"%s\" is true, which this model_type has not here",
                           c->path, names[i]);
    return LS_OK;
}

static ls_status check_heads(const struct ls_model_shape *m, const struct config *c, bool own_width)
{
    if (!own_width && m->h % m->a != 0)
        return ls_fail(LS_EFORMAT, "%s: width %lld is no multiple of its %lld heads", c->path,
                       (long long)m->h, (long long)m->a);
    if (m->a % m->a_kv != 0)
        return ls_fail(LS_EFORMAT, "%s: %lld heads are no multiple of %lld key/value heads",
                       c->path, (long long)m->a, (long long)m->a_kv);
    return LS_OK;
}

static ls_status read_shape(struct ls_model_shape *m, int64_t *s, const struct config *c)
{
    static const char *const
        width[] = {"hidden_size", "n_embd", NULL},
        *const layers[] = {"num_hidden_layers", "n_layer", NULL},
        *const heads[] = {"num_attention_heads", "n_head", NULL},
        *const kv_heads[] = {"num_key_value_heads", NULL}, *const head_dim[] = {"head_dim", NULL},
        *const mlp[] = {"intermediate_size", "n_inner", "ffn_dim", NULL},
        *const words[] = {"vocab_size", NULL},
        *const positions[] = {"max_position_embeddings", "n_positions", "seq_length", NULL};
    const struct family *family = families;

    LS_TRY(find_family(&family, c));
    *m = family->model;
    LS_TRY(read_count(&m->h, c, width, 0));
    LS_TRY(read_count(&m->L, c, layers, 0));
    LS_TRY(read_count(&m->v, c, words, 0));
    LS_TRY(read_count(&m->a, c, heads, 0));
    LS_TRY(read_count(&m->a_kv, c, kv_heads, m->a));
    LS_TRY(check_heads(m, c, json_is_integer(json_object_get(c->json, "head_dim"))));
    LS_TRY(read_count(&m->d, c, head_dim, m->h / m->a ? m->h / m->a : 1));
    LS_TRY(read_count(&m->f, c, mlp, family->mlp_of_width * m->h));
    LS_TRY(read_count(s, c, positions, 0));
    m->most_positions = *s + family->more_positions;
    if (json_is_boolean(json_object_get(c->json, "tie_word_embeddings")))
        m->tied = json_is_true(json_object_get(c->json, "tie_word_embeddings"));
    LS_TRY(check_biases(c));
    return read_activation(&m->activation, c);
}

ls_status ls_config_load(struct ls_model_shape *out, int64_t *s, const char *path)
{
    json_error_t error;
    struct config c = {path, json_load_file(path, JSON_REJECT_DUPLICATES, &error)};

    if (!c.json && json_error_code(&error) == json_error_cannot_open_file)
        return ls_fail(LS_EFILE, "%s: %s", path, strerror(errno));
    if (!c.json) return ls_fail(LS_EFORMAT, "%s: line %d: %s", path, error.line, error.text);
    const ls_status status = json_is_object(c.json)
                                 ? read_shape(out, s, &c)
                                 : ls_fail(LS_EFORMAT, "%s: it holds no object", path);

    json_decref(c.json);
    return status;
}
