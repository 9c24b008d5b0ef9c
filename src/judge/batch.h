/* Rows of one head of queries, or of keys, that are judged together and that every rank knows. To
 * them come, leaf by leaf and shared by threads, the rows of the other side that a rank holds; what
 * these add up to is gathered from all ranks. */
#ifndef LS_JUDGE_BATCH_H
#define LS_JUDGE_BATCH_H

#include <pthread.h>

#include "judge/judge.h"
#include "judge/rows.h"

#define LS_JUDGE_BIT(tensor) (1u << (tensor))

/* Rows of several tensors in double precision, a tensor [n, d] after the other. */
struct ls_columns {
    const struct ls_judge *judge;
    unsigned set; /* LS_JUDGE_BIT of those that are wanted and there */
    int64_t offset[LS_JUDGE_TENSORS], length;
    int64_t n; /* rows now */
    double *data;
};

static inline bool ls_columns_have(const struct ls_columns *columns, int tensor)
{
    return columns->set & LS_JUDGE_BIT(tensor);
}

/* The tensor's rows from i on. */
static inline double *ls_column(const struct ls_columns *columns, int tensor, int64_t i)
{
    return columns->data + columns->offset[tensor] * columns->n +
           i * columns->judge->tensor[tensor].dim[3];
}

/* Room for `most` rows of the wanted tensors (LS_JUDGE_BIT) that are there; the caller frees data.
 * Errors: LS_ENOMEM. */
ls_status ls_columns_init(struct ls_columns *out, const struct ls_judge *judge, unsigned wanted,
                          int64_t most);

/* `rows` rows of a head of all tensors, from `first` of the part, become those from `at` on. */
void ls_columns_load(const struct ls_columns *columns, int64_t at, int64_t b, int64_t first,
                     int64_t rows, int64_t head);

/* o has twice its digits where forward kept what rounding took from it. */
void ls_columns_add_residual(const struct ls_columns *columns);

struct ls_judge_batch {
    struct ls_judge *judge;
    bool of_keys;
    int64_t b, head;
    const int64_t *position; /* [rows.n] */
    struct ls_columns rows;  /* complete on every rank */
    void *context;
    struct ls_share *shares; /* [threads] */
    pthread_t *threads;
    int64_t *positions; /* of the head */
};

/* What one thread adds: one leaf of one head of the other side to some rows of the batch. */
struct ls_share {
    const struct ls_judge_batch *batch;
    void (*add)(const struct ls_share *share);
    int first, step; /* rows first, first + step, ... */
    struct ls_columns leaf;
    int64_t position, head; /* of the leaf's first row */
};

/* Rows that are judged together. */
#define LS_JUDGE_BATCH 64

/* rows and leaf: LS_JUDGE_BIT of the tensors that are to be at hand. The caller calls fini, also
 * after an error. Errors: LS_ENOMEM. */
ls_status ls_judge_batch_init(struct ls_judge_batch *out, struct ls_judge *judge, bool of_keys,
                              unsigned rows, unsigned leaf, void *context);
void ls_judge_batch_fini(struct ls_judge_batch *batch);

/* Points *slot, a pointer to any type, to fresh memory on the ledger. Errors: LS_ENOMEM. */
ls_status ls_judge_room(void *slot, size_t bytes);

/* Calls judge with the context for one batch after the other, of one head those of all entries,
 * until one fails. Collective. */
ls_status ls_judge_batch_each(struct ls_judge_batch *batch, const char *phase,
                              ls_status (*judge)(void *));

/* Brings the rows of the batch's head and positions to all ranks. Collective. Errors: LS_ECOMM. */
ls_status ls_judge_batch_load(struct ls_judge_batch *batch);

/* Calls add for each leaf that this rank holds and a row of the batch may meet, in threads. */
void ls_judge_batch_meet(struct ls_judge_batch *batch, void (*add)(const struct ls_share *));

/* Holds rows of dq, dk or dv against the sums of all ranks. partial [n]; all: room for [p, n].
 * Collective. Errors: LS_ECOMM. */
ls_status ls_judge_batch_judge_gradient(const struct ls_judge_batch *batch, int tensor,
                                        const struct ls_reference_sum *partial,
                                        struct ls_reference_sum *all);

/* The i-th of a tensor's queries, which are of one head and stand at `position`. */
struct ls_reference_query ls_judge_query(const struct ls_columns *columns, int64_t i, int64_t batch,
                                         int64_t head, int64_t position);

/* The same on its way back, from o and lse. */
struct ls_reference_backward ls_judge_backward(const struct ls_columns *columns, int64_t i,
                                               const struct ls_reference_query *query,
                                               const double *o, double lse);

/* From the o and lse that are judged, which stand beside the query. */
struct ls_reference_backward ls_judge_own_backward(const struct ls_columns *columns, int64_t i,
                                                   int64_t batch, int64_t head, int64_t position);

#endif
