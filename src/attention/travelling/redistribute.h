/* Callers' own rows, cut anywhere, brought into the parts of a plan's layouts and back: one
 * all-to-all each way. A rank has a piece of the queries and one of the keys; pieces follow each
 * other in the order of ranks. Rows of a part increase in position, so that what a part gets from
 * one piece is one run of its rows: it is received, and sent back, where it stands, and only the
 * piece's side is packed. A rank whose piece is its part exchanges nothing: its tensors are used
 * where they are. */
#ifndef LS_ATTENTION_TRAVELLING_REDISTRIBUTE_H
#define LS_ATTENTION_TRAVELLING_REDISTRIBUTE_H

#include "attention/travelling/redistribute_size.h"
#include "comm/transport.h"

struct ls_redistribution;

/* This rank has so many rows. problem, comm and transport are borrowed. Collective over comm.
 * Errors: LS_ESHAPE if the ranks' rows are not the sequence; LS_ENOMEM; LS_ECOMM; the same on every
 * rank. The caller destroys it. */
ls_status ls_redistribution_create(struct ls_redistribution **out, struct ls_comm *comm,
                                   const struct ls_transport *transport,
                                   const struct ls_problem *problem, int64_t q_rows,
                                   int64_t k_rows);

/* Accepts NULL. */
void ls_redistribution_destroy(struct ls_redistribution *r);

/* Borrowed. */
struct ls_pieces ls_redistribution_pieces(const struct ls_redistribution *r);

/* *part: where this rank has its part of a traveller whose piece it has in *piece; lse as
 * [b, h, s]. The piece itself if it is the part, else borrowed. */
void ls_redistribution_part(struct ls_tensor *part, const struct ls_redistribution *r,
                            enum ls_traveller which, const struct ls_tensor *piece);

/* [b, h, s] where this rank makes delta of its own queries: in `part` if they are its part. In a
 * plan for backward. */
struct ls_tensor ls_redistribution_delta(const struct ls_redistribution *r, float *part);

/* From pieces to parts, and back; piece[which] NULL: that one stays. Collective; allocates
 * nothing. Errors: LS_ECOMM. */
ls_status ls_redistribute_to_parts(struct ls_redistribution *r,
                                   const struct ls_tensor *const piece[LS_TRAVELLERS]);
ls_status ls_redistribute_to_pieces(const struct ls_tensor *const piece[LS_TRAVELLERS],
                                    struct ls_redistribution *r);

#endif
