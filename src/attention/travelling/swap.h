/* The all-to-alls that swap the sequence for heads. Here a rank has its positions of all heads;
 * there, after the first of them, all positions of its own heads, row after row (travel.h). What
 * leaves in the first one makes room for what comes back in the second. */
#ifndef LS_ATTENTION_TRAVELLING_SWAP_H
#define LS_ATTENTION_TRAVELLING_SWAP_H

#include "attention/travelling/travel.h"
#include "comm/transport.h"
#include "plan/head_share.h"

/* Where a traveller lies in the buffers. */
struct ls_swap_place {
    struct ls_tensor all;    /* [b, s, heads of this rank, d or d_v] */
    struct ls_tensor *rows;  /* [p] views of all: rank r's part of the sequence */
    struct ls_tensor *heads; /* [p] rank r's heads of this rank's part; its own are its own rows */
};

/* All leaves of queries or keys as the buffers hold them: part after part. */
struct ls_swap_sequence {
    int64_t *first_row; /* [p + 1] where a rank's part begins */
    struct ls_leaf *leaf;
    struct ls_leaf_list leaves;
};

struct ls_swap {
    const struct ls_problem *problem; /* borrowed: of the ranks that swap */
    int rank, p;
    struct ls_head_share *share; /* [p] */
    struct ls_swap_sequence queries, keys;
    struct ls_swap_place forward[LS_TRAVELLERS], backward[LS_TRAVELLERS];
    struct ls_tensor *views; /* storage of the places' */
    struct ls_batch batch;   /* one all-to-all */
    void *outgoing, *incoming;
};

/* Adds what an execution of each kind sends, and the buffers. Where kv heads have copies
 * (ls_head_share_copies), without what comes back of dk and dv. */
void ls_swap_cost(struct ls_cost *cost, const struct ls_problem *problem);

/* fini accepts what init left when it failed. Errors: LS_ENOMEM. */
ls_status ls_swap_init(struct ls_swap *out, const struct ls_problem *problem,
                       const struct ls_transport *transport);
void ls_swap_fini(struct ls_swap *swap);

/* part[which]: this rank's positions, where the caller has them, [b, rows, heads, d]; NULL: does
 * not move. place: those of the execution's kind. Collective. Errors: LS_ECOMM. */
ls_status ls_swap_there(struct ls_swap *swap, struct ls_swap_place *place,
                        const struct ls_tensor *const part[LS_TRAVELLERS]);
ls_status ls_swap_back(const struct ls_tensor *const part[LS_TRAVELLERS], struct ls_swap *swap,
                       struct ls_swap_place *place);

#endif
