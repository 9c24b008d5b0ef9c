/* A result of attention over many ranks held against double precision, and judged: what it may err
 * by is the error contract of its storage type (docs/NUMERICS.md). */
#ifndef LONGSPAN_JUDGE_H
#define LONGSPAN_JUDGE_H

#include "longspan/attention.h"
#include "longspan/progress.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is judged, by whatever program it was computed. Everything but the tensors is the same on
 * every rank. */
struct ls_judge_task {
    const struct ls_attention_shape *shape; /* its type does not matter */
    /* Read of it: which keys a query sees, logits, dropout, and threads of this rank. */
    const struct ls_attention_options *options;
    struct ls_layout q_layout, k_layout; /* which rows the tensors hold on each rank */
    /* This rank's parts, each of a type of its own, f64 too, but for lse and dlse. lse NULL: o is
     * judged without; d_o is needed, and o_lo and dlse looked at, for gradients alone. */
    const struct ls_attention_saved *result;
    /* Those that are there, all but dq only with lse: what is exact of them takes lse and o of the
     * result for what they are. dsinks needs options with sinks, ddistance_bias and dbias those
     * with such biases. NULL: none. */
    const struct ls_attention_gradients *gradients;
    ls_dtype contract; /* the storage type whose limits hold; f64 is judged as f32 */
    int64_t rows; /* of each head: the first and last of every part, the rest by chance; 0: all */
};

/* How far one tensor is from the exact one. It is good if no element errs by more than its bound,
 * all together by no more than the limit, all bounds are finite, and a finite element was compared.
 */
struct ls_judged {
    bool judged, ok;       /* not judged: it is not there, or dk, dv or dbias of no keys */
    const char *why;       /* it is not ok, static; NULL */
    double rel, rel_limit; /* Frobenius norm of the error over that of what is exact */
    bool absolute;         /* the exact one is 0, and rel the norm of the error */
    double max_units;      /* largest error over its element's bound: 1 at most */
    int64_t unlimited;     /* elements whose bound is not finite */
    int64_t worst[4]; /* batch, position, head, element of max_units, -1 if none errs; of dsinks
                       * the head alone, of ddistance_bias the distance's number is the sum of
                       * position and element, of dbias the element is the key */
};

enum {
    LS_JUDGED_O,
    LS_JUDGED_DQ,
    LS_JUDGED_DK,
    LS_JUDGED_DV,
    LS_JUDGED_DSINKS,
    LS_JUDGED_DDISTANCE_BIAS,
    LS_JUDGED_DBIAS,
    LS_JUDGED_TENSORS
};

struct ls_judgement {
    bool ok;                  /* all that was judged */
    const char *failed, *why; /* the first that is not good: "lse", "o", "dq", ...; NULL */
    ls_dtype contract;        /* as asked for */
    int64_t rows;             /* of queries, in all heads */
    double kappa;             /* of the rows, the largest |scale| sum_e |q_e k_e| */
    struct ls_judged tensor[LS_JUDGED_TENSORS]; /* o's fields ok and why include lse */
    bool has_lse;                               /* and what follows */
    double abs_lse;                             /* largest error */
    double rel_lse, lse_limit; /* of the row that is worst, divided by max(1, |lse|) */
};

/* Judges rows of o, lse, dq, dk and dv, of dbias as many keys with all queries, and all of dsinks
 * and ddistance_bias, for which every pair is met. Every rank adds what its keys give to a row of
 * o, lse or dq, and its queries to one of the others: nobody needs the whole of any other tensor.
 * Collective over comm; the judgement is the same on every rank. Of all rows it is also the same on
 * any number of ranks, to a rounding of double; which ones are judged of some depends on the parts.
 * Per rank: 1/p of the pairs of a judged row and what it sees; 64 rows of every rank, 10 to 20 KiB
 * each, and, for ddistance_bias, 37 KiB for each thread, each head of a group and each 576 biases;
 * for dbias 5 KiB for each of its queries, and each head of a group if these have biases of their
 * own. Tells progress "verifying", "verifying dk, dv", "verifying dsinks", "verifying
 * ddistance_bias" and "verifying dbias"; NULL: nobody. Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE,
 * LS_ENOMEM, LS_ECOMM; the same on every rank. That a result is not good is none. */
LS_API ls_status ls_judge_attention(struct ls_judgement *out, struct ls_comm *comm,
                                    const struct ls_judge_task *task,
                                    const struct ls_progress_callback *progress);

#ifdef __cplusplus
}
#endif
#endif
