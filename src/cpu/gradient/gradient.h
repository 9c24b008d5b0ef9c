/* The gradient kernel of the CPU: what its files share. A tile, one leaf of queries against one
 * leaf of keys of one query head, gives its part of dq, dk and dv from nothing. A work item is a
 * chunk of leaves of keys of one head: it meets all leaves of queries in turn, keeps the sums of dk
 * and dv to itself, and hands dq, summed over the chunk, to the leaf of queries. */
#ifndef LS_CPU_GRADIENT_GRADIENT_H
#define LS_CPU_GRADIENT_GRADIENT_H

#include <stdatomic.h>

#include "cpu/attention/leaf.h"
#include "cpu/attention/places.h"
#include "cpu/device.h"
#include "cpu/gradient/products.h"
#include "cpu/team.h"

/* The most leaves of keys of a work item. */
#define GRADIENT_CHUNK 2

/* Packed leaves, both tensors of each, and whether both are free of NaN and infinity. */
struct gradient_packed {
    char *leaf;
    uint8_t *clean;
};

/* One leaf of queries of one head. */
struct gradient_queries {
    struct sum_forest dq; /* node 0 is the caller's memory */
    _Atomic int64_t turn; /* the chunk whose dq comes next; behind the last one: none */
    float *lse, *delta;   /* [LS_LEAF], as struct gradient_tile wants them */
};

/* What a thread has of its own. */
struct gradient_worker {
    void *own; /* the products' */
    char *raw; /* [LS_LEAF][pad.d], then [LS_LEAF][pad.d_v], a leaf on its way into packed form */
    struct ls_leaf_keys *visible; /* [LS_LEAF] what rows of a leaf of queries see of one of keys */
    struct ls_leaf_keys *kept;    /* [LS_LEAF] what dropout leaves them, where there is any */
    int64_t *place;   /* [LS_LEAF] of the rows among the keys, where something goes by distance */
    double *distance; /* [distances] gradients of biases of a tile, zeros between tiles */
    struct sum_forest dk[GRADIENT_CHUNK], dv[GRADIENT_CHUNK]; /* of each leaf of a chunk */
    struct sum_forest dq; /* of one leaf of queries, over a chunk */
    struct sums whole_dk[GRADIENT_CHUNK], whole_dv[GRADIENT_CHUNK], whole_dq; /* to be rounded */
    char *mended_keys, *mended_queries;       /* packed leaves without NaN and infinity */
    float *mended_lse;                        /* [LS_LEAF] */
    float *mended_dq, *mended_dk, *mended_dv; /* [LS_LEAF][pad.d], pad.d_v of dv */
    struct progress_clock *clock;             /* of the first thread, else NULL */
    struct ls_profile profile;
    int64_t tiles;
} __attribute__((aligned(64)));

struct ls_gradient_kernel {
    struct ls_gradient_shape shape;
    struct cpu cpu;
    const struct gradient_products *products;
    struct ls_distance_sums distances; /* of the call */
    struct head_dims pad;
    int64_t chunk; /* leaves of keys of a work item; a power of two: a node of the tree */
    int64_t group; /* query heads per kv head */
    int64_t waves; /* that are under way at once: one of all threads, or one of each thread */
    int64_t wave;  /* query heads whose leaves are packed at once: some of one group, or groups */
    int64_t wave_groups;
    size_t keys_bytes, queries_bytes;
    struct gradient_packed keys;      /* [waves][wave_groups][k_leaves] */
    struct gradient_packed packed;    /* [waves][wave][q_leaves] */
    struct gradient_queries *queries; /* [waves][wave][q_leaves] */
    struct gradient_worker *worker;   /* [threads] */
    void *memory;
};

/* What the phases of one wave share. */
struct gradient_job {
    struct ls_gradient_kernel *kernel;
    const struct ls_gradient_call *call;
    struct team *team;    /* of the call */
    int64_t wave;         /* of those under way at once */
    int64_t first, heads; /* query heads of the wave, batch x h + head */
    _Atomic int64_t next_pack, next_item;
};

static inline int64_t gradient_chunks(const struct gradient_job *job)
{
    return (job->call->k_leaves.count + job->kernel->chunk - 1) / job->kernel->chunk;
}

/* Rows of a leaf of queries of the call. */
static inline int gradient_rows(const struct gradient_job *job, int64_t q_leaf)
{
    return leaf_rows(job->call->q_leaves.leaf[q_leaf].number,
                     job->kernel->shape.attention.global.s_q);
}

/* What queries of a head, batch x h + head, see. */
static inline const struct ls_mask *gradient_mask(const struct ls_gradient_kernel *kernel,
                                                  int64_t head)
{
    const struct ls_kernel_shape *shape = &kernel->shape.attention;

    return ls_masks_of(&shape->masks, head / shape->global.h,
                       shape->scores.first_head + head % shape->global.h);
}

/* Whether some query of a leaf of the head sees a key of another. */
static inline bool gradient_leaf_is_seen(const struct gradient_job *job, int64_t head,
                                         int64_t q_leaf, int64_t k_leaf)
{
    return ls_mask_meets(
        gradient_mask(job->kernel, head), job->call->q_leaves.leaf[q_leaf].number * LS_LEAF,
        gradient_rows(job, q_leaf), job->call->k_leaves.leaf[k_leaf].number * LS_LEAF, LS_LEAF);
}

/* The first chunk, of `from` and those behind it, of which the leaf of queries of the head sees
 * some; none: gradient_chunks. */
static inline int64_t gradient_next_chunk(const struct gradient_job *job, int64_t head,
                                          int64_t q_leaf, int64_t from)
{
    const struct ls_range seen = cpu_seen_places(
        gradient_mask(job->kernel, head), &job->call->q_leaves.leaf[q_leaf],
        gradient_rows(job, q_leaf), &job->call->k_leaves, from * job->kernel->chunk);

    return seen.from < seen.to ? seen.from / job->kernel->chunk : gradient_chunks(job);
}

/* Place of a leaf of queries in the kernel's arrays, and of a leaf of keys that this head sees. */
static inline int64_t queries_slot(const struct gradient_job *job, int64_t head, int64_t leaf)
{
    const int64_t n = job->wave * job->kernel->wave + head - job->first;

    return n * job->call->q_leaves.count + leaf;
}

static inline int64_t keys_slot(const struct gradient_job *job, int64_t head, int64_t leaf)
{
    const int64_t group = job->kernel->group;
    const int64_t n = job->wave * job->kernel->wave_groups + head / group - job->first / group;

    return n * job->call->k_leaves.count + leaf;
}

/* dq of a leaf of queries is whole: rounded, if the caller wants it so. */
static inline void gradient_finish_dq(const struct gradient_job *job, int64_t head, int64_t q_leaf,
                                      struct sums dq)
{
    const int64_t h = job->kernel->shape.attention.global.h;

    if (job->call->rounded.dq)
        cpu_round_rows(job->call->rounded.dq, head / h, job->call->q_leaves.leaf[q_leaf].row,
                       head % h, dq, gradient_rows(job, q_leaf));
}

/* pack.c */

/* Bytes of operand rows of so many elements. */
static inline size_t gradient_row_bytes(const struct ls_gradient_kernel *kernel, int d_pad)
{
    return (size_t)d_pad * (size_t)ls_dtype_size(kernel->products->type);
}

/* A leaf of two tensors of one head in the products' type into w->raw; returns where the second
 * begins there. */
char *cpu_gather_gradient_leaf(struct gradient_worker *w, const struct ls_gradient_kernel *kernel,
                               const struct ls_tensor *first, const struct ls_tensor *second,
                               const struct ls_leaf *leaf, int64_t s, int64_t batch, int64_t head);
/* Leaf number i of the wave's. */
ls_status cpu_pack_gradient_keys(struct gradient_job *job, struct gradient_worker *w, int64_t i);
ls_status cpu_pack_gradient_queries(struct gradient_job *job, struct gradient_worker *w, int64_t i);
/* Whether the leaves of queries that the last call packed are those of this one. */
bool cpu_gradient_queries_are_packed(const struct gradient_job *job);

/* tile.c */

/* Where the parts of one tile, of a leaf of queries and one of keys, go. */
struct gradient_paths {
    struct sum_path dq, dk, dv;
};
ls_status cpu_gradient_tile(const struct gradient_paths *to, struct gradient_job *job,
                            struct gradient_worker *w, int64_t head, int64_t q_leaf,
                            int64_t k_leaf);

/* Keys of a leaf that queries [first, first + rows) see, where they stand among the keys, and which
 * pairs of a tile dropout keeps: out [LS_LEAF], or NULL if each sees all of LS_LEAF keys, if
 * nothing goes by distance, if all are kept. */
const struct ls_leaf_keys *cpu_gradient_visible(struct ls_leaf_keys *out,
                                                const struct ls_mask *mask, int64_t first, int rows,
                                                int64_t k_leaf);
const int64_t *cpu_gradient_places(int64_t *out, const struct ls_scores *scores,
                                   const struct ls_mask *mask, int64_t first, int rows);
const struct ls_leaf_keys *cpu_gradient_kept(struct ls_leaf_keys *out,
                                             const struct gradient_tile *tile, ls_isa isa);

/* bias [keys][LS_LEAF] = what the rows' logits with keys [first, first + keys) of a tile get behind
 * the soft cap, whether they see them or not; 0 where there is no row or no key. */
void cpu_gradient_biases(float *bias, const struct gradient_tile *tile, int first, int keys);

/* mend.c: the same where a row that has NaN or infinity must not be seen by others. */
ls_status cpu_gradient_mended_tile(struct gradient_job *job, struct gradient_worker *w,
                                   const struct gradient_tile *tile, const struct ls_leaf *q_leaf,
                                   const struct ls_leaf *k_leaf);

#endif
