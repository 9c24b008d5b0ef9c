/* Operations on rows of tensors: copies, sums of gradients, and what stands before them. */
#ifndef LS_DEVICE_ROWS_H
#define LS_DEVICE_ROWS_H

#include "device/device.h"
#include "tensor/row_nodes.h"

/* Rows [b, h, s] whose sums are wanted by sink: of the leaves at first [leaves], rows [leaves] of
 * each. */
struct ls_sink_rows {
    const float *lse, *delta; /* [b, h, s] */
    int64_t b, h, s;
    const int64_t *first, *rows; /* [leaves] of the host */
    int64_t leaves;
};

/* In which order rows of a tensor [b, s_loc, ..] are added (tensor/row_nodes.h). Of the host, until
 * the queue is finished. */
struct ls_row_order {
    const struct ls_row_runs *runs; /* where its s_loc rows stand */
    const struct ls_row_node *node;
    int64_t count; /* of all nodes that ls_row_nodes_list gives for them */
};

struct ls_row_ops {
    void (*copy)(void *self, struct ls_tensor *to, const struct ls_tensor *from);
    void (*zero)(void *self, struct ls_tensor *t);
    void (*add)(void *self, float *into, const float *from, int64_t n);
    void (*round_sums)(void *self, struct ls_tensor *out, const float *a, const float *b,
                       int64_t group);
    void (*delta)(void *self, float *delta, const struct ls_tensor *d_o, const struct ls_tensor *o,
                  const struct ls_tensor *o_lo, const struct ls_tensor *dlse);
    void (*sinks)(void *self, double *out, const float *sinks, const struct ls_sink_rows *rows);
    size_t (*sum_bytes)(void *self, int64_t rows, int64_t e);
    void (*sum)(void *self, float *out, const struct ls_tensor *x, const struct ls_row_order *order,
                void *scratch);
};

/* to = from, two tensors of one shape and type that do not overlap, and t = 0. Any strides of all
 * dimensions but the last, whose elements follow each other. */
void ls_copy(struct ls_queue *queue, struct ls_tensor *to, const struct ls_tensor *from);
void ls_zero(struct ls_queue *queue, struct ls_tensor *t);

/* into [n] += from [n] */
void ls_add(struct ls_queue *queue, float *into, const float *from, int64_t n);

/* out [b, s, heads, d], rounded once = a + b, both [b, heads x group, s, d], each group of heads
 * added by the binary tree over its heads; zeroes are positive. b may be NULL. */
void ls_round_sums(struct ls_queue *queue, struct ls_tensor *out, const float *a, const float *b,
                   int64_t group);

/* delta [b, h, s] = sum_e d_o (o + o_lo) - dlse; o_lo and dlse may be NULL. */
void ls_delta(struct ls_queue *queue, float *delta, const struct ls_tensor *d_o,
              const struct ls_tensor *o, const struct ls_tensor *o_lo,
              const struct ls_tensor *dlse);

/* out [h, leaves] of the host, when the queue is finished: - sum of exp(sink - lse) delta over the
 * rows of each leaf, of all batches one after the other. sinks [h] of the host. */
void ls_sink_sums(struct ls_queue *queue, double *out, const float *sinks,
                  const struct ls_sink_rows *rows);

/* out [nodes, e] = the sum of the rows of each node, at its slot; x [b, s_loc, e] f32 or bf16. The
 * bits depend on nothing but these rows' elements. scratch: ls_row_sums_bytes of at least b s_loc
 * rows, aligned to 64 bytes. */
size_t ls_row_sums_bytes(const struct ls_device *device, int64_t rows, int64_t e);
void ls_row_sums(struct ls_queue *queue, float *out, const struct ls_tensor *x,
                 const struct ls_row_order *order, void *scratch);

#endif
