/* The core that keeps its probabilities, on the CPU: what its files share. Keys and queries of a
 * few heads are packed at once. A thread takes a strip of 32 queries and has the scores of all
 * their keys before it takes their softmax; for dk and dv, it takes 32 keys. Products are those of
 * linear layers. */
#ifndef LS_CPU_MATERIALIZED_MATERIALIZED_H
#define LS_CPU_MATERIALIZED_MATERIALIZED_H

#include <stdatomic.h>

#include "cpu/device.h"
#include "cpu/draw.h"
#include "cpu/gradient/sum_forest.h"
#include "cpu/linear/linear.h"
#include "cpu/team.h"
#include "device/materialized.h"
#include "longspan/layout.h"

#define STRIP LINEAR_SIDE /* queries, or keys, that a thread takes at once */

/* What a thread has of its own. */
struct materialized_worker {
    char *left;                   /* packed: rows of q or d_o, or a leaf of probabilities */
    float *strip;                 /* [panels of keys][32][32] scores, or gradients, of 32 queries */
    float *block;                 /* [32][32] */
    struct sum_forest sums;       /* over leaves, of 32 rows: [panels of d][32][32] */
    struct progress_clock *clock; /* of the first thread, else NULL */
    struct ls_profile profile;
    int64_t tiles;
} __attribute__((aligned(64)));

/* Phases of a head: packing, strips of queries, and backward panels of keys. */
#define PHASES 3

/* Where right operands of a head are, and what is between its two steps backward; then those of
 * another one. */
struct materialized_slot {
    char *lines;                  /* keys (backward: values), 32 of them a panel */
    char *leaves;                 /* values (backward: keys), leaf by leaf as deep as it has rows */
    char *q, *d_o;                /* leaf by leaf */
    char *ds;                     /* [rows][s] of the storage type */
    _Atomic int64_t done[PHASES]; /* items, of all heads so far */
};

struct ls_materialized_kernel {
    struct ls_materialized_shape shape;
    struct cpu cpu;
    const struct linear_products *products;
    int64_t slots;
    struct materialized_slot *slot;     /* [slots] */
    struct materialized_worker *worker; /* [threads] */
    void *memory;
};

/* A call. What one direction does not have is NULL. */
struct materialized_job {
    struct ls_materialized_kernel *kernel;
    const struct ls_row_runs *runs;
    struct ls_probabilities kept;
    const struct ls_tensor *q, *k, *v, *d_o, *o, *dq;
    float *dk, *dv;
    const int64_t *first; /* of the runs of each dk and dv */
    uint64_t seed;
    int phases;
    _Atomic int64_t next; /* of the items of all heads */
};

/* What is done with item i of a head, whose number is batch h + head. */
struct materialized_phase {
    int64_t items; /* of each head */
    void (*take)(const struct materialized_job *job, struct materialized_worker *w, int64_t head,
                 int64_t i);
};

/* crew.c: packs each head, and then does one or two phases, one after the other. */
void cpu_materialized_call(struct ls_queue *queue, struct materialized_job *job,
                           const struct materialized_phase *phase, int phases);

/* Queries that one thread takes, of one leaf: their first row and its position. */
struct materialized_strip {
    int64_t batch, head;
    const struct materialized_slot *slot;
    int64_t row, position;
    int rows;
    int64_t keys; /* that any of them sees: the first ones */
};

/* strips.c: of a head; false if that number is not taken as its leaf is short. */
int64_t cpu_materialized_strips(const struct ls_row_runs *runs);
bool cpu_materialized_find_strip(struct materialized_strip *out, const struct materialized_job *job,
                                 int64_t head, int64_t i);

/* w->strip = 32 rows of `of` against all keys that they see. */
void cpu_materialized_score(const struct materialized_job *job, struct materialized_worker *w,
                            const struct materialized_strip *strip, const struct ls_tensor *of);

/* out = the strip's rows of `probabilities` (of its head, [rows, s]) times what lies leaf by leaf.
 */
void cpu_materialized_gather_rows(const struct materialized_job *job, struct materialized_worker *w,
                                  const struct materialized_strip *strip,
                                  const struct ls_tensor *probabilities,
                                  const struct ls_tensor *out);

/* The sums of one more leaf, of which left is packed into w->left, `steps` deep; right has panels
 * of d, `pitch` bytes apart. */
void cpu_materialized_add_leaf(const struct ls_materialized_kernel *kernel,
                               struct materialized_worker *w, int64_t place, const char *right,
                               size_t pitch, int steps);

/* Begins sums; and ends them: out [rows, d] is written, of any type. */
void cpu_materialized_start_sums(const struct ls_materialized_kernel *kernel,
                                 struct materialized_worker *w);
void cpu_materialized_end_sums(struct materialized_worker *w, const struct ls_tensor *out);

/* softmax.c: a strip's rows on their way from scores to what is kept, and back. */
struct materialized_rows {
    float *values; /* [panels][32][32] */
    int rows;
    int64_t s, keys;  /* all keys, and those that any row sees */
    int64_t position; /* of the first row */
    bool causal;
    ls_dtype type;
    struct ls_probabilities kept;  /* of the first row; rows are s apart */
    void *ds;                      /* likewise */
    float scale, keep;             /* keep: what dropout multiplies by */
    const struct drawing *drawing; /* forward, with dropout; else NULL */
};

/* Those of a strip; ds and drawing are NULL. */
struct materialized_rows cpu_materialized_rows_of(const struct materialized_job *job,
                                                  const struct materialized_worker *w,
                                                  const struct materialized_strip *strip);

/* Scores become what is kept; and gradients of what was dropped become ds. */
void cpu_materialized_softmax(const struct materialized_rows *rows);
void cpu_materialized_slopes(const struct materialized_rows *rows);

/* A head of a tensor [b, rows, h, d], as [rows, d]; and of what is kept, [b, h, rows, s]. */
struct ls_tensor cpu_materialized_head_of(const struct ls_tensor *t, int64_t batch, int64_t head);
struct ls_tensor cpu_materialized_kept_of(const struct materialized_job *job, const void *all,
                                          int64_t batch, int64_t head);

static inline struct materialized_slot *
materialized_slot_of(const struct ls_materialized_kernel *kernel, int64_t head)
{
    return &kernel->slot[head % kernel->slots];
}

static inline int64_t materialized_kv_head(const struct ls_materialized_shape *shape, int64_t head)
{
    return head / (shape->h / shape->h_kv);
}

static inline int64_t materialized_leaves(int64_t rows)
{
    return (rows + LS_LEAF - 1) / LS_LEAF;
}

/* Rows of a leaf of keys. */
static inline int materialized_leaf_keys(const struct ls_materialized_shape *shape, int64_t leaf)
{
    const int64_t left = shape->s - leaf * LS_LEAF;

    return left < LS_LEAF ? (int)left : LS_LEAF;
}

/* Bytes of one leaf of a right operand, and of a panel of it. */
static inline size_t materialized_leaf_bytes(const struct ls_materialized_kernel *kernel)
{
    return linear_step_bytes(kernel->products,
                             LS_LEAF / LINEAR_SIDE * linear_panels(kernel->shape.d));
}

static inline size_t materialized_panel_bytes(const struct ls_materialized_kernel *kernel)
{
    return linear_step_bytes(kernel->products, linear_steps(kernel->shape.d));
}

extern const struct ls_materialized_ops cpu_materialized_ops;

/* forward.c and backward.c: rows of cpu_materialized_ops. */
void cpu_materialized_forward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                              const struct ls_materialized_forward *call);
void cpu_materialized_backward(struct ls_queue *queue, struct ls_materialized_kernel *kernel,
                               const struct ls_materialized_backward *call);

#endif
