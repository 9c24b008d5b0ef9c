#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tell.h"
#include "comm/comm.h"
#include "store/elements.h"
#include "store/order.h"

struct ls_output {
    struct ls_comm *comm;
    struct ls_tensor_writer *writer; /* NULL once committed */
    int count;
    struct ls_output_tensor tensor[]; /* but for their names; zeros where they are of any shape */
};

/* Numbers for each head, and no rows. */
static bool is_of_heads(const struct ls_output_tensor *t)
{
    return t->b == 0;
}

static struct ls_blocks blocks_of(const struct ls_output_tensor *t)
{
    return ls_blocks_of(t->order, t->b, t->s, t->h, t->d > 0 ? t->d : 1);
}

/* As it lies in the file. */
static ls_status describe(struct ls_file_tensor *out, const struct ls_output_tensor *t)
{
    const bool bshd = t->order == LS_ORDER_BSHD;

    if (!t->name || strlen(t->name) >= sizeof(out->name))
        return ls_fail(LS_EVALUE, "the name of a tensor is %s, must have at most %zu characters",
                       t->name ? "longer" : "missing", sizeof(out->name) - 1);
    *out = (struct ls_file_tensor){.type = t->type, .ndim = t->d > 0 ? 2 : 1, .dim = {t->h, t->d}};
    snprintf(out->name, sizeof(out->name), "%s", t->name);
    if (is_of_heads(t)) return LS_OK;
    if (t->d == 0 && bshd)
        return ls_fail(LS_EVALUE, "%s: a tensor [b, h, s] is in order bhsd", t->name);
    const int64_t dim[] = {t->b, bshd ? t->s : t->h, bshd ? t->h : t->s, t->d};

    if (t->single && t->b != 1)
        return ls_fail(LS_EVALUE, "%s: a single sequence has no batch of %lld", t->name,
                       (long long)t->b);
    out->ndim = (t->d > 0 ? 4 : 3) - t->single;
    memcpy(out->dim, dim + t->single, (size_t)out->ndim * sizeof(*dim));
    return LS_OK;
}

/* Rank 0's temporary file becomes known to all by its name. Collective. */
static ls_status join(struct ls_output *output, const struct ls_file_tensor *tensors)
{
    struct ls_comm *comm = output->comm;
    char temporary[PATH_MAX] = "";
    const char *name = "";
    ls_status status = LS_OK;

    if (ls_comm_size(comm) == 1) return LS_OK;
    if (ls_comm_rank(comm) == 0) status = ls_tensor_writer_share(&name, output->writer);
    LS_TRY(ls_comm_agree(comm, status));
    snprintf(temporary, sizeof(temporary), "%s", name);
    LS_TRY(ls_comm_broadcast(temporary, comm, sizeof(temporary), 0));
    if (ls_comm_rank(comm) > 0)
        status = ls_tensor_writer_join(&output->writer, temporary, tensors, output->count);
    return ls_comm_agree(comm, status);
}

/* Rank 0 makes the file. */
static ls_status create(struct ls_output **out, struct ls_comm *comm, const char *path,
                        const struct ls_file_tensor *tensors, int count)
{
    struct ls_output *output;

    *out = output = calloc(1, sizeof(*output) + (size_t)count * sizeof(*output->tensor));
    if (!output) return ls_fail(LS_ENOMEM, "no memory to write %d tensors", count);
    output->comm = comm;
    output->count = count;
    if (ls_comm_rank(comm) > 0) return LS_OK;
    return ls_tensor_writer_create(&output->writer, path, tensors, count);
}

ls_status ls_output_create_any(struct ls_output **out, struct ls_comm *comm, const char *path,
                               const struct ls_file_tensor *tensors, int count)
{
    struct ls_output *output = NULL;
    ls_status status = ls_comm_agree(comm, create(&output, comm, path, tensors, count));

    if (status == LS_OK) status = join(output, tensors);
    if (status == LS_OK)
        *out = output;
    else
        ls_output_destroy(output);
    return status;
}

static ls_status describe_all(struct ls_file_tensor **out, const struct ls_output_tensor *tensors,
                              int count)
{
    if (count < 1) return ls_fail(LS_EVALUE, "%d tensors to write, must be 1 or more", count);
    *out = malloc((size_t)count * sizeof(**out));
    if (!*out) return ls_fail(LS_ENOMEM, "no memory to write %d tensors", count);
    for (int i = 0; i < count; i++) LS_TRY(describe(&(*out)[i], &tensors[i]));
    return LS_OK;
}

ls_status ls_output_create(struct ls_output **out, struct ls_comm *comm, const char *path,
                           const struct ls_output_tensor *tensors, int count)
{
    struct ls_file_tensor *described = NULL;
    ls_status status = ls_comm_agree(comm, describe_all(&described, tensors, count));

    if (status == LS_OK) status = ls_output_create_any(out, comm, path, described, count);
    if (status == LS_OK) memcpy((*out)->tensor, tensors, (size_t)count * sizeof(*tensors));
    free(described);
    return status;
}

/* What this rank's part of a tensor is laid out like. */
static struct ls_tensor part_of(const struct ls_output *output, const struct ls_output_tensor *t,
                                const struct ls_layout *layout)
{
    if (is_of_heads(t))
        return ls_tensor_view(NULL, t->type, t->d > 0 ? 2 : 1, (const int64_t[]){t->h, t->d});
    const int64_t rows = ls_layout_part_rows(layout, ls_comm_rank(output->comm));

    if (t->d > 0) return ls_order_view(NULL, t->type, t->order, t->b, rows, t->h, t->d);
    return ls_tensor_view(NULL, t->type, 3, (const int64_t[]){t->b, t->h, rows});
}

static ls_status check_layout(const struct ls_output *output, const struct ls_output_tensor *t,
                              const struct ls_layout *layout, const char *name)
{
    LS_TRY(ls_part_layout_check(layout, output->comm));
    if (layout->s == t->s) return LS_OK;
    return ls_fail(LS_ESHAPE, "%s: the layout has %lld positions, the file %lld", name,
                   (long long)layout->s, (long long)t->s);
}

static ls_status check_part(const struct ls_output *output, const struct ls_output_tensor *t,
                            const struct ls_layout *layout, const struct ls_tensor *part,
                            const char *name)
{
    if (!is_of_heads(t)) LS_TRY(check_layout(output, t, layout, name));
    const struct ls_tensor wanted = part_of(output, t, layout);

    if (part->type != t->type)
        return ls_fail(LS_ETYPE, "%s: the part is %s, the file has %s", name,
                       ls_dtype_name(part->type), ls_dtype_name(t->type));
    return ls_part_check(part, &wanted, name);
}

static ls_status check_write(const struct ls_output *output, int i, const struct ls_layout *layout,
                             const struct ls_tensor *part)
{
    char name[32];

    if (!output->writer || i < 0 || i >= output->count)
        return ls_fail(LS_EVALUE, "tensor %d of %d: there is none, or the file is finished", i,
                       output->count);
    snprintf(name, sizeof(name), "tensor %d", i);
    return check_part(output, &output->tensor[i], layout, part, name);
}

ls_status ls_output_write_elements(struct ls_output *output, int i, int64_t first, int64_t n,
                                   const void *from)
{
    return ls_tensor_writer_write(output->writer, i, first, n, from);
}

static ls_status write_part(struct ls_output *output, int i, const struct ls_layout *layout,
                            const struct ls_tensor *part,
                            const struct ls_progress_callback *progress)
{
    const int rank = ls_comm_rank(output->comm);

    if (is_of_heads(&output->tensor[i])) {
        const int64_t n = part->dim[0] * (part->ndim == 2 ? part->dim[1] : 1);

        return rank > 0 ? LS_OK : ls_output_write_elements(output, i, 0, n, part->data);
    }
    const struct ls_blocks blocks = blocks_of(&output->tensor[i]);
    const int64_t runs = ls_blocks_runs(&blocks, layout, rank);

    for (int64_t j = 0; j < runs; j++) {
        const struct ls_run run = ls_blocks_run(&blocks, layout, rank, j);
        const char *from = (const char *)part->data + run.local * ls_dtype_size(part->type);

        ls_tell(progress, "writing", j, runs);
        ls_comm_beat(output->comm); /* so that others hear of this rank */
        LS_TRY(ls_tensor_writer_write(output->writer, i, run.global, run.n, from));
    }
    return LS_OK;
}

ls_status ls_output_write(struct ls_output *output, int i, const struct ls_layout *layout,
                          const struct ls_tensor *part, const struct ls_progress_callback *progress)
{
    ls_status status = check_write(output, i, layout, part);

    if (status == LS_OK) status = write_part(output, i, layout, part, progress);
    ls_tell_end(progress);
    return ls_comm_agree(output->comm, status);
}

/* Closes what this rank has of the file. */
static ls_status finish(struct ls_output *output)
{
    struct ls_tensor_writer *writer = output->writer;

    if (!writer) return ls_fail(LS_EVALUE, "the file is finished already");
    output->writer = NULL;
    return ls_tensor_writer_commit(writer);
}

/* The creator is last, when the bytes of all have arrived. */
ls_status ls_output_commit(struct ls_output *output)
{
    const bool creator = ls_comm_rank(output->comm) == 0;

    LS_TRY(ls_comm_agree(output->comm, creator ? LS_OK : finish(output)));
    return ls_comm_agree(output->comm, creator ? finish(output) : LS_OK);
}

void ls_output_destroy(struct ls_output *output)
{
    if (!output) return;
    ls_tensor_writer_abort(output->writer);
    free(output);
}
