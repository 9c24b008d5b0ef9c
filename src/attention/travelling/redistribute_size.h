/* How pieces and parts lie to each other, and what it takes and costs to bring one to the other,
 * exactly. */
#ifndef LS_ATTENTION_TRAVELLING_REDISTRIBUTE_SIZE_H
#define LS_ATTENTION_TRAVELLING_REDISTRIBUTE_SIZE_H

#include "attention/method.h"
#include "attention/travelling/travel.h"
#include "tensor/layout.h"

/* Where pieces begin, the same on every rank: rank r has positions [first[r], first[r + 1]). */
struct ls_pieces {
    const int64_t *q_first, *k_first; /* [p + 1] */
};

/* A sequence as it is cut into pieces and into parts. */
struct ls_cuts {
    const int64_t *first;
    const struct ls_layout *layout;
};

struct ls_cuts ls_cuts_of(const struct ls_problem *problem, const struct ls_pieces *pieces,
                          enum ls_traveller which);

struct ls_run {
    int64_t first, count;
};

/* The rows of one rank's part that stand in another's piece. */
struct ls_run ls_cuts_shared_rows(const struct ls_cuts *cuts, int piece, int part);

bool ls_cuts_piece_is_part(const struct ls_cuts *cuts, int rank);

int64_t ls_traveller_heads(const struct ls_problem *problem, enum ls_traveller which);
size_t ls_traveller_row_bytes(const struct ls_problem *problem, enum ls_traveller which);

/* Whether a plan ever moves it. */
bool ls_traveller_is_used(const struct ls_problem *problem, enum ls_traveller which);

/* Bytes of one rank. */
struct ls_volume {
    size_t parts;       /* of its parts where they are not its pieces */
    size_t delta;       /* of its piece of the queries, likewise */
    size_t forth, back; /* packed: of its pieces to other ranks' parts, and their results */
    size_t residual;    /* the same of o_lo */
    size_t backward_forth, backward_back;
};

struct ls_volume ls_volume_of(const struct ls_problem *problem, const struct ls_pieces *pieces,
                              int rank);

/* The most that is packed at once. */
size_t ls_volume_packed(const struct ls_volume *volume);

/* Adds what bringing all tensors of an execution to the parts and back costs, and of one backward
 * if the problem is for it. */
void ls_redistribution_cost(struct ls_cost *cost, const struct ls_problem *problem,
                            const struct ls_pieces *pieces);

#endif
