/* A config.json gives the model that its weights are; one that does not say all, or contradicts
 * itself, is refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "plan/model_size.h"

static ls_status load(struct ls_model_shape *out, int64_t *s, const char *text)
{
    char path[] = "/tmp/longspan-config-XXXXXX";
    const int file = mkstemp(path);

    cr_assert(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
    close(file);
    const ls_status status = ls_config_load(out, s, path);
    unlink(path);
    return status;
}

Test(config, gives_the_parameters_of_the_weights)
{
    static const struct {
        const char *text;
        int64_t parameters, s;
        ls_position_kind positions;
    } known[] = {
        {"{\"model_type\": \"gpt2\", \"n_embd\": 768, \"n_layer\": 12, \"n_head\": 12, "
         "\"n_inner\": null,"
         " \"vocab_size\": 50257, \"n_positions\": 1024, \"activation_function\": \"gelu_new\"}",
         124439808, 1024, LS_POSITIONS_LEARNED}, /* GPT-2 */
        {"{\"model_type\": \"opt\", \"hidden_size\": 768, \"num_hidden_layers\": 12, \"ffn_dim\": "
         "3072,"
         " \"num_attention_heads\": 12, \"vocab_size\": 50272, \"max_position_embeddings\": 2048}",
         125239296, 2048, LS_POSITIONS_LEARNED}, /* OPT-125M */
        {"{\"model_type\": \"bloom\", \"n_embd\": 1024, \"n_layer\": 24, \"n_head\": 16,"
         " \"vocab_size\": 250880, \"seq_length\": 2048}",
         559214592, 2048, LS_POSITIONS_NONE}, /* BLOOM-560M */
        {"{\"model_type\": \"llama\", \"hidden_size\": 576, \"num_hidden_layers\": 30,"
         " \"num_attention_heads\": 9, \"num_key_value_heads\": 3, \"intermediate_size\": 1536,"
         " \"vocab_size\": 49152, \"max_position_embeddings\": 8192, \"hidden_act\": \"silu\","
         " \"tie_word_embeddings\": true}",
         134515008, 8192, LS_POSITIONS_ROTARY}, /* SmolLM2-135M */
        {"{\"model_type\": \"qwen2\", \"hidden_size\": 896, \"num_hidden_layers\": 24,"
         " \"num_attention_heads\": 14, \"num_key_value_heads\": 2, \"intermediate_size\": 4864,"
         " \"vocab_size\": 151936, \"max_position_embeddings\": 32768,"
         " \"tie_word_embeddings\": true}",
         494032768, 32768, LS_POSITIONS_ROTARY}, /* Qwen2.5-0.5B */
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct ls_model_shape model;
        int64_t s;

        cr_assert_eq(load(&model, &s, known[i].text), LS_OK, "%s", ls_message());
        cr_expect_eq(ls_model_parameters(&model), known[i].parameters, "%s: %lld", known[i].text,
                     (long long)ls_model_parameters(&model));
        cr_expect_eq(s, known[i].s);
        cr_expect_eq(model.positions, known[i].positions, "%s", known[i].text);
    }
}

#define LLAMA(fields)                                                                              \
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"intermediate_size\": 64,"             \
    " \"vocab_size\": 10, \"max_position_embeddings\": 8, " fields "}"

Test(config, what_it_does_not_say_or_contradicts_is_refused)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[]", "holds no object"},
        {"{\"model_type\": \"llama\", ", "line 1"},
        {"{}", "no \"model_type\""},
        {"{\"model_type\": \"lama\"}", "(llama?)"},
        {LLAMA("\"num_attention_heads\": 4"), "no \"hidden_size\""},
        {LLAMA("\"hidden_size\": 64"), "no \"num_attention_heads\""},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": \"4\""), "must be a whole number"},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": 0"), "must be a whole number"},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": 5"), "no multiple of its 5 heads"},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": 4, \"num_key_value_heads\": 3"),
         "no multiple of 3"},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": 4, \"hidden_act\": \"gelu\""),
         "\"hidden_act\" is \"gelu\""},
        {LLAMA("\"hidden_size\": 64, \"num_attention_heads\": 4, \"mlp_bias\": true"),
         "\"mlp_bias\" is true"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ls_model_shape model;
        int64_t s;

        cr_expect_eq(load(&model, &s, cases[i].text), LS_EFORMAT, "%s", cases[i].text);
        cr_expect(strstr(ls_message(), cases[i].says), "%s: %s", cases[i].text, ls_message());
    }
    struct ls_model_shape model;
    int64_t s;
    cr_expect_eq(ls_config_load(&model, &s, "/nowhere/config.json"), LS_EFILE);
}
