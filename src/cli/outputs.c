#include "cli/outputs.h"

static bool is_of_keys(int which)
{
    return which == CLI_OUT_DK || which == CLI_OUT_DV;
}

static bool is_of_values(int which)
{
    return which == CLI_OUT_O || which == CLI_OUT_DV;
}

bool cli_output_has(int which, const struct ls_attention_options *options)
{
    if (which < CLI_OUT_DQ) return true;
    if (which == CLI_OUT_DSINKS) return options->backward && options->sinks;
    if (which == CLI_OUT_DDISTANCE_BIAS) return options->backward && options->distance_bias;
    if (which == CLI_OUT_DBIAS) return options->backward && options->bias;
    return options->backward;
}

static struct ls_output_tensor describe(int which, const struct cli_inputs *in,
                                        const struct ls_attention_options *options)
{
    static const char *const names[CLI_OUT_DSINKS] = {"o", "lse", "dq", "dk", "dv"};
    const struct ls_attention_shape *n = &in->shape;

    if (which == CLI_OUT_DSINKS)
        return (struct ls_output_tensor){.name = "dsinks", .type = LS_F32, .h = n->h};
    if (which == CLI_OUT_DDISTANCE_BIAS)
        return (struct ls_output_tensor){
            .name = "ddistance_bias", .type = LS_F32, .h = n->h, .d = options->distances};
    if (which == CLI_OUT_DBIAS)
        return (struct ls_output_tensor){.name = "dbias",
                                         .type = LS_F32,
                                         .order = LS_ORDER_BHSD,
                                         .b = options->bias_per_entry ? n->b : 1,
                                         .s = n->s_q,
                                         .h = options->bias_per_head ? n->h : 1,
                                         .d = n->s_k};
    if (which == CLI_OUT_LSE)
        return (struct ls_output_tensor){"lse", LS_F32, LS_ORDER_BHSD, n->b, n->s_q,
                                         n->h,  0,      in->single};
    return (struct ls_output_tensor){.name = names[which],
                                     .type = n->type,
                                     .order = in->order,
                                     .b = n->b,
                                     .s = is_of_keys(which) ? n->s_k : n->s_q,
                                     .h = is_of_keys(which) ? n->h_kv : n->h,
                                     .d = is_of_values(which) ? n->d_v : n->d,
                                     .single = in->single};
}

ls_status cli_output_create(struct ls_output **out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs,
                            const struct ls_attention_options *options)
{
    struct ls_output_tensor tensors[CLI_OUT_MOST];
    int count = 0;

    *out = NULL;
    if (!path) return LS_OK;
    for (int i = 0; i < CLI_OUT_MOST; i++)
        if (cli_output_has(i, options)) tensors[count++] = describe(i, inputs, options);
    return ls_output_create(out, world->comm, path, tensors, count);
}

ls_status cli_output_commit(struct ls_output *output, const struct ls_attention_options *options,
                            const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                            const struct ls_tensor *const *part, struct cli_progress *progress)
{
    const struct ls_progress_callback callback = cli_progress_callback(progress);
    int number = 0;

    if (!output) return LS_OK;
    for (int i = 0; i < CLI_OUT_MOST; i++) {
        const struct ls_layout *layout = is_of_keys(i) ? k_layout : q_layout;

        if (cli_output_has(i, options))
            LS_TRY(ls_output_write(output, number++, layout, part[i], &callback));
    }
    cli_progress_begin(NULL, "writing");
    return ls_output_commit(output);
}
