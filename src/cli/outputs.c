#include "cli/outputs.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "comm/comm.h"

static bool is_of_keys(int which)
{
    return which == CLI_OUT_DK || which == CLI_OUT_DV;
}

/* One tensor of the file, and how it lies there. */
static void describe(struct ls_file_tensor *tensor, struct cli_blocks *blocks, int which,
                     const struct cli_inputs *in)
{
    static const char *const names[CLI_OUT_MOST] = {"o", "lse", "dq", "dk", "dv"};
    const struct ls_attention_shape *n = &in->shape;
    const int64_t s = is_of_keys(which) ? n->s_k : n->s_q, h = is_of_keys(which) ? n->h_kv : n->h;
    const bool bshd = in->order == CLI_BSHD;

    *tensor = (struct ls_file_tensor){
        .type = n->type, .ndim = 4, .dim = {n->b, bshd ? s : h, bshd ? h : s, n->d}};
    *blocks = cli_blocks_of(in->order, n->b, s, h, n->d);
    if (which == CLI_OUT_LSE) {
        *tensor = (struct ls_file_tensor){.type = LS_F32, .ndim = 3, .dim = {n->b, h, s}};
        *blocks = (struct cli_blocks){.outer = n->b * h, .s = s, .row = 1};
    }
    snprintf(tensor->name, sizeof(tensor->name), "%s", names[which]);
}

/* Rank 0's temporary file becomes known to all by its name. */
static ls_status join(struct cli_output *out, const struct cli_world *world,
                      const struct ls_file_tensor *tensors)
{
    char temporary[PATH_MAX] = "";
    const char *name = "";
    ls_status status = LS_OK;

    if (world->size == 1) return LS_OK;
    if (world->rank == 0) status = ls_tensor_writer_share(&name, out->writer);
    LS_TRY(ls_comm_agree(world->comm, status));
    snprintf(temporary, sizeof(temporary), "%s", name);
    LS_TRY(ls_comm_broadcast(temporary, world->comm, sizeof(temporary), 0));
    if (world->rank > 0)
        status = ls_tensor_writer_join(&out->writer, temporary, tensors, out->count);
    return ls_comm_agree(world->comm, status);
}

ls_status cli_output_create(struct cli_output *out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs, bool gradients)
{
    struct ls_file_tensor tensors[CLI_OUT_MOST];
    ls_status status = LS_OK;

    *out = (struct cli_output){.count = gradients ? CLI_OUT_MOST : CLI_OUT_FORWARD};
    if (!path) return LS_OK;
    for (int i = 0; i < out->count; i++) describe(&tensors[i], &out->blocks[i], i, inputs);
    if (world->rank == 0) status = ls_tensor_writer_create(&out->writer, path, tensors, out->count);
    LS_TRY(ls_comm_agree(world->comm, status));
    return join(out, world, tensors);
}

static ls_status write_part(const struct cli_output *out, int which, const struct ls_layout *layout,
                            const struct cli_world *world, const struct ls_tensor *part)
{
    const struct cli_blocks *blocks = &out->blocks[which];
    const int64_t runs = cli_runs(blocks, layout, world->rank);

    for (int64_t i = 0; i < runs; i++) {
        const struct cli_run run = cli_run_at(blocks, layout, world->rank, i);
        const char *from = (const char *)part->data + run.local * ls_dtype_size(part->type);

        cli_world_beat(world);
        LS_TRY(ls_tensor_writer_write(out->writer, which, run.global, run.n, from));
    }
    return LS_OK;
}

static ls_status write_parts(const struct cli_output *out, const struct cli_world *world,
                             const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                             const struct ls_tensor *const part[CLI_OUT_MOST])
{
    for (int i = 0; i < out->count; i++)
        LS_TRY(write_part(out, i, is_of_keys(i) ? k_layout : q_layout, world, part[i]));
    return LS_OK;
}

ls_status cli_output_commit(struct cli_output *out, const struct cli_world *world,
                            const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                            const struct ls_tensor *const part[CLI_OUT_MOST])
{
    ls_status status = LS_OK;

    if (!out->writer) return LS_OK;
    LS_TRY(ls_comm_agree(world->comm, write_parts(out, world, q_layout, k_layout, part)));
    if (world->rank == 0) {
        status = ls_tensor_writer_commit(out->writer);
        out->writer = NULL;
    }
    return ls_comm_agree(world->comm, status);
}

void cli_output_fini(struct cli_output *out)
{
    ls_tensor_writer_abort(out->writer);
    out->writer = NULL;
}
