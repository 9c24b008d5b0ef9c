#include "cli/outputs.h"

static bool is_of_keys(int which)
{
    return which == CLI_OUT_DK || which == CLI_OUT_DV;
}

static bool is_of_values(int which)
{
    return which == CLI_OUT_O || which == CLI_OUT_DV;
}

static struct ls_output_tensor describe(int which, const struct cli_inputs *in)
{
    static const char *const names[CLI_OUT_BACKWARD] = {"o", "lse", "dq", "dk", "dv"};
    const struct ls_attention_shape *n = &in->shape;

    if (which == CLI_OUT_DSINKS)
        return (struct ls_output_tensor){.name = "dsinks", .type = LS_F32, .h = n->h};
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
                            const struct cli_inputs *inputs, int count)
{
    struct ls_output_tensor tensors[CLI_OUT_MOST];

    *out = NULL;
    if (!path) return LS_OK;
    for (int i = 0; i < count; i++) tensors[i] = describe(i, inputs);
    return ls_output_create(out, world->comm, path, tensors, count);
}

ls_status cli_output_commit(struct ls_output *output, int count, const struct ls_layout *q_layout,
                            const struct ls_layout *k_layout, const struct ls_tensor *const *part,
                            struct cli_progress *progress)
{
    const struct ls_progress_callback callback = cli_progress_callback(progress);

    if (!output) return LS_OK;
    for (int i = 0; i < count; i++)
        LS_TRY(ls_output_write(output, i, is_of_keys(i) ? k_layout : q_layout, part[i], &callback));
    cli_progress_begin(NULL, "writing");
    return ls_output_commit(output);
}
