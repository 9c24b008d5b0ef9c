#include "layer/vectors.h"

#include <stdlib.h>

/* ---- the tree */

/* The nodes of all ranks, those of rank r at slots r most, r most + 1, ..; nodes: room for them. */
static ls_status gather_nodes(struct ls_row_node *nodes, int64_t *count, const struct ls_vectors *v,
                              struct ls_comm *comm, const int64_t *counts)
{
    const size_t bytes = (size_t)v->most * sizeof *nodes;

    LS_TRY(ls_comm_gather(nodes, comm, v->node, bytes));
    *count = 0;
    for (int r = 0; r < v->ranks; r++)
        for (int64_t i = 0; i < counts[r]; i++) {
            nodes[*count] = nodes[r * v->most + i];
            nodes[(*count)++].slot += r * v->most;
        }
    return LS_OK;
}

static ls_status plan_sum(struct ls_vectors *v, struct ls_comm *comm, const int64_t *counts,
                          int64_t rows)
{
    const size_t room = (size_t)(v->ranks * v->most) + 1;
    struct ls_row_node *nodes = calloc(room, sizeof *nodes);
    int64_t count = 0;

    v->add = calloc(room, sizeof *v->add);
    ls_status status = nodes && v->add ? LS_OK : ls_fail(LS_ENOMEM, "layer: out of memory");
    status = ls_comm_agree(comm, status);
    if (status == LS_OK) status = gather_nodes(nodes, &count, v, comm, counts);
    if (status == LS_OK) {
        v->adds = ls_row_nodes_merge(v->add, nodes, &count, rows);
        v->whole = nodes[0].slot;
    }
    free(nodes);
    return status;
}

/* Every rank's number of nodes, and its own, in room for the most. */
static ls_status list_nodes(struct ls_vectors *v, int64_t *counts, struct ls_comm *comm,
                            const struct ls_row_runs *runs, int64_t b)
{
    const int64_t own = ls_row_nodes_list(NULL, runs, b);

    LS_TRY(ls_comm_gather(counts, comm, &own, sizeof own));
    for (int r = 0; r < v->ranks; r++)
        if (counts[r] > v->most) v->most = counts[r];
    v->node = calloc((size_t)v->most + 1, sizeof *v->node);
    LS_TRY(ls_comm_agree(comm, v->node ? LS_OK : ls_fail(LS_ENOMEM, "layer: out of memory")));
    ls_row_nodes_list(v->node, runs, b);
    v->order = (struct ls_row_order){.runs = runs, .node = v->node, .count = own};
    return LS_OK;
}

/* Of all vectors together. */
static int64_t width(const struct ls_vectors *v)
{
    return v->first[LS_MOST_VECTORS];
}

static int64_t block(const struct ls_vectors *v)
{
    return v->most * width(v);
}

static ls_status create_memory(struct ls_vectors *v, const struct ls_transport *transport,
                               size_t scratch_bytes)
{
    void *memory;

    if (width(v) == 0) return LS_OK;
    if (v->ranks > 1) LS_TRY(ls_batch_init_collective(&v->batch, transport));
    LS_TRY(ls_device_alloc(&v->scratch, v->device, LS_TAG_WORKSPACE, scratch_bytes));
    LS_TRY(ls_device_alloc(&memory, v->device, LS_TAG_GRADIENT,
                           (size_t)(v->ranks * block(v)) * sizeof(float)));
    v->blocks = memory;
    return LS_OK;
}

ls_status ls_vectors_init(struct ls_vectors *out, struct ls_comm *comm,
                          const struct ls_transport *transport, struct ls_device *device,
                          const struct ls_row_runs *runs, int64_t b, const int64_t *widths,
                          int count, size_t scratch_bytes)
{
    int64_t *counts = calloc((size_t)ls_comm_size(comm), sizeof *counts);
    ls_status status = counts ? LS_OK : ls_fail(LS_ENOMEM, "layer: out of memory");

    *out = (struct ls_vectors){
        .device = device, .ranks = ls_comm_size(comm), .rank = ls_comm_rank(comm)};
    for (int i = 0; i < LS_MOST_VECTORS; i++)
        out->first[i + 1] = out->first[i] + (i < count ? widths[i] : 0);
    status = ls_comm_agree(comm, status);
    if (status == LS_OK) status = list_nodes(out, counts, comm, runs, b);
    if (status == LS_OK) status = plan_sum(out, comm, counts, b * runs->s);
    free(counts);
    if (status != LS_OK) return status;
    return ls_comm_agree(comm, create_memory(out, transport, scratch_bytes));
}

void ls_vectors_fini(struct ls_vectors *v)
{
    if (!v->device) return;
    ls_batch_fini(&v->batch);
    ls_device_free(v->device, v->blocks);
    ls_device_free(v->device, v->scratch);
    free(v->add);
    free(v->node);
}

/* ---- a backward */

static int64_t width_of(const struct ls_vectors *v, int vector)
{
    return v->first[vector + 1] - v->first[vector];
}

float *ls_vectors_place(const struct ls_vectors *v, int vector)
{
    if (width_of(v, vector) == 0) return NULL;
    return v->blocks + v->rank * block(v) + v->most * v->first[vector];
}

static float *sum_at(const struct ls_vectors *v, int vector, int64_t slot)
{
    return v->blocks + slot / v->most * block(v) + v->most * v->first[vector] +
           slot % v->most * width_of(v, vector);
}

ls_status ls_vectors_sum(struct ls_vectors *v)
{
    if (width(v) == 0) return LS_OK;
    if (v->ranks > 1) {
        ls_batch_all_gather(&v->batch, v->blocks, (size_t)block(v) * sizeof *v->blocks);
        LS_TRY(ls_batch_run(&v->batch));
    }
    for (int i = 0; i < LS_MOST_VECTORS; i++)
        for (int64_t k = 0; k < v->adds && width_of(v, i) > 0; k++)
            ls_add(&v->device->queue, sum_at(v, i, v->add[k].into), sum_at(v, i, v->add[k].from),
                   width_of(v, i));
    return LS_OK;
}

float *ls_vectors_whole(const struct ls_vectors *v, int vector)
{
    return width_of(v, vector) > 0 ? sum_at(v, vector, v->whole) : NULL;
}
