/* What an all-to-all carries: tensors seen as [b, rows, heads, d] and laid row after row, so that
 * any run of rows is one piece of memory and can be one message. */
#ifndef LS_ATTENTION_TRAVELLING_TRAVEL_H
#define LS_ATTENTION_TRAVELLING_TRAVEL_H

#include "attention/problem.h"

/* Each has the shape of a tensor of forward: K and V have kv heads, the others query heads; Q and K
 * are d wide, V and O d_v. LSE and DELTA are f32, seen as [b, s, h, 1], and stand before the others
 * to be aligned.
 * To the ranks that compute go, forward, q, k and v; backward, lse, delta, q, k, v and d_o (like
 * o). Back come lse, o and, if wanted, o_lo; dq, dk and dv (like q, k and v). */
enum ls_traveller {
    LS_LSE,
    LS_DELTA,
    LS_LIKE_Q,
    LS_LIKE_K,
    LS_LIKE_V,
    LS_LIKE_O,
    LS_O_LO,
    LS_TRAVELLERS
};

/* Whether a tensor travels there, and back. */
bool ls_travels_forward(enum ls_traveller which);
bool ls_returns_forward(enum ls_traveller which, bool residual);
bool ls_travels_backward(enum ls_traveller which);
bool ls_returns_backward(enum ls_traveller which);

/* Whether its rows are keys, not queries; whether a row of a head is one f32. */
bool ls_traveller_is_keys(enum ls_traveller which);
bool ls_traveller_is_number(enum ls_traveller which);

/* Elements of a row of a head, and its bytes. */
int64_t ls_traveller_dim(const struct ls_attention_shape *shape, enum ls_traveller which);
size_t ls_traveller_head_bytes(const struct ls_attention_shape *shape, enum ls_traveller which);

/* A view of the next free bytes: [rows][b][heads][d or d_v]. */
struct ls_tensor ls_travel_carve(char **free_bytes, const struct ls_problem *problem,
                                 enum ls_traveller which, int64_t rows, int64_t heads);

size_t ls_travel_bytes(const struct ls_tensor *t);

/* lse [b, h, s] as a traveller, [b, s, h, 1], and back. */
struct ls_tensor ls_travel_transposed(const struct ls_tensor *t);

/* The same of numbers [b, h, rows] of all heads, one after the other. */
struct ls_tensor ls_travel_numbers(const struct ls_attention_shape *shape, int64_t rows,
                                   const float *numbers);

/* out [b, h, s] = numbers [b, s, h, 1], unless they lie there already. */
void ls_travel_take_numbers(float *out, const struct ls_problem *problem,
                            const struct ls_tensor *numbers);

#endif
