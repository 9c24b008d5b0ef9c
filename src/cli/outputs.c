#include "cli/outputs.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "comm/comm.h"

static void describe(struct ls_file_tensor tensors[2], const struct cli_inputs *in)
{
    const struct ls_attention_shape *n = &in->shape;
    const bool bshd = in->order == CLI_BSHD;

    tensors[0] = (struct ls_file_tensor){
        .name = "o",
        .type = n->type,
        .ndim = 4,
        .dim = {n->b, bshd ? n->s_q : n->h, bshd ? n->h : n->s_q, n->d},
    };
    tensors[1] = (struct ls_file_tensor){
        .name = "lse", .type = LS_F32, .ndim = 3, .dim = {n->b, n->h, n->s_q}};
}

/* Rank 0's temporary file is known to all by its name. */
static ls_status join(struct cli_output *out, const struct cli_world *world,
                      const struct ls_file_tensor tensors[2])
{
    char temporary[PATH_MAX] = "";

    if (world->rank == 0)
        snprintf(temporary, sizeof(temporary), "%s", ls_tensor_writer_temporary(out->writer));
    LS_TRY(ls_comm_broadcast(temporary, world->comm, sizeof(temporary), 0));
    if (world->rank == 0) return LS_OK;
    return ls_tensor_writer_join(&out->writer, temporary, tensors, 2);
}

ls_status cli_output_create(struct cli_output *out, const struct cli_world *world, const char *path,
                            const struct cli_inputs *inputs)
{
    const struct ls_attention_shape *n = &inputs->shape;
    struct ls_file_tensor tensors[2];
    ls_status status = LS_OK;

    *out = (struct cli_output){.writer = NULL};
    if (!path) return LS_OK;
    describe(tensors, inputs);
    out->o_blocks = cli_blocks_of(inputs->order, n->b, n->s_q, n->h, n->d);
    out->lse_blocks = (struct cli_blocks){.outer = n->b * n->h, .s = n->s_q, .row = 1};
    if (world->rank == 0) status = ls_tensor_writer_create(&out->writer, path, tensors, 2);
    LS_TRY(ls_comm_agree(world->comm, status));
    return ls_comm_agree(world->comm, join(out, world, tensors));
}

static ls_status write_part(struct ls_tensor_writer *writer, int index,
                            const struct cli_blocks *blocks, const struct ls_layout *layout,
                            int rank, const struct ls_tensor *part)
{
    const int64_t runs = cli_runs(blocks, layout, rank);

    for (int64_t i = 0; i < runs; i++) {
        const struct cli_run run = cli_run_at(blocks, layout, rank, i);
        const char *from = (const char *)part->data + run.local * ls_dtype_size(part->type);

        LS_TRY(ls_tensor_writer_write(writer, index, run.global, run.n, from));
    }
    return LS_OK;
}

static ls_status write_parts(const struct cli_output *out, int rank, const struct ls_layout *layout,
                             const struct ls_tensor *o, const struct ls_tensor *lse)
{
    LS_TRY(write_part(out->writer, 0, &out->o_blocks, layout, rank, o));
    return write_part(out->writer, 1, &out->lse_blocks, layout, rank, lse);
}

ls_status cli_output_commit(struct cli_output *out, const struct cli_world *world,
                            const struct ls_layout *layout, const struct ls_tensor *o,
                            const struct ls_tensor *lse)
{
    ls_status status = LS_OK;

    if (!out->writer) return LS_OK;
    LS_TRY(ls_comm_agree(world->comm, write_parts(out, world->rank, layout, o, lse)));
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
