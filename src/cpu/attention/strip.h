/* A tile of query rows against a few leaves of keys: strip by strip, scores, softmax in place,
 * output, merged in the tree's order while everything is near the core. */
#ifndef LS_CPU_ATTENTION_STRIP_H
#define LS_CPU_ATTENTION_STRIP_H

#include "base/cpu.h"
#include "cpu/attention/forest.h"
#include "cpu/attention/products.h"
#include "cpu/progress.h"

#define TILE_ROWS 256  /* query rows of a tile, of one or several heads */
#define CHUNK_LEAVES 4 /* leaves that are taken at once */

/* A row of a tile, where scores are not plain. */
struct score_row {
    int64_t head, position; /* of the whole problem */
    int64_t place;          /* among the keys */
};

struct chunk {
    const void *q; /* [TILE_ROWS][pad.d], of which `rows` are in use */
    int rows;
    int leaves;
    struct operand k[CHUNK_LEAVES], v[CHUNK_LEAVES];
    struct key_rows k_rows[CHUNK_LEAVES], v_rows[CHUNK_LEAVES]; /* where nothing is packed */
    bool seen[CHUNK_LEAVES];                          /* by some row; others are left out */
    bool clean[CHUNK_LEAVES];                         /* v is below V_LIMIT, without NaN */
    const struct ls_leaf_keys *visible[CHUNK_LEAVES]; /* [rows] keys that a row sees; NULL: all */
    float scale;                                      /* >= 0, log2(e) folded in */

    /* [LS_LEAF] of a packed leaf's keys and values, what their numbers are multiplied by, and
     * [rows] what each logit of a row gets; NULL: nothing */
    const float *k_scale[CHUNK_LEAVES], *v_scale[CHUNK_LEAVES], *shift;

    const struct ls_scores *scores;
    bool logits, drops;          /* these are more than products; some probabilities become 0 */
    const struct score_row *row; /* [rows]; with batch and the leaves' first keys, for either */
    int64_t batch, first_key[CHUNK_LEAVES];
    struct progress_clock *clock;
};

/* One thread's. */
struct strip_worker {
    const struct products *products;
    const struct simd *simd;
    ls_isa isa;
    struct head_dims pad;
    bool full;            /* products take all rows of a strip, in use or not */
    void *own;            /* the products' */
    bool own_maximum;     /* of each row in each leaf is what exponents are counted from */
    float *scores;        /* [strip][score_stride], probabilities p_offset behind */
    struct forest forest; /* nodes 1 and up; node 0 is the caller's */
};

/* Bytes of scratch that a worker needs, a multiple of 64. */
size_t cpu_strip_scratch_bytes(const struct products *products, struct head_dims pad);

/* scratch is borrowed. Errors: those of products->create. */
ls_status cpu_strip_worker_init(struct strip_worker *w, const struct products *products, ls_isa isa,
                                struct head_dims pad, char *scratch);
void cpu_strip_worker_fini(struct strip_worker *w);

/* out [TILE_ROWS], acc rows pad.d_v apart: the partial result of the whole chunk. Rows beyond
 * chunk->rows are undefined. Errors: LS_EINTERNAL. */
ls_status cpu_strip_attend(struct ls_row_states out, struct strip_worker *w,
                           const struct chunk *chunk);

#endif
