/* What an all-to-all carries: tensors seen as [b, rows, heads, d] and laid row after row, so that
 * any run of rows is one piece of memory and can be one message. */
#ifndef LS_ATTENTION_TRAVEL_H
#define LS_ATTENTION_TRAVEL_H

#include "attention/method.h"

/* To the ranks that compute, and from them. K and V have kv heads, the others query heads; LSE is
 * seen as [b, s, h, 1] and stands before O to be aligned. */
enum ls_traveller { LS_Q, LS_K, LS_V, LS_LSE, LS_O, LS_TRAVELLERS };

/* Whether its rows are keys, not queries. */
bool ls_traveller_is_keys(enum ls_traveller which);

/* A view of the next free bytes: [rows][b][heads][d]. */
struct ls_tensor ls_travel_carve(char **free_bytes, const struct ls_problem *problem,
                                 enum ls_traveller which, int64_t rows, int64_t heads);

/* Rows [first, first + rows) of a tensor. */
struct ls_tensor ls_travel_rows(const struct ls_tensor *t, int64_t first, int64_t rows);

size_t ls_travel_bytes(const struct ls_tensor *t);

/* lse [b, h, s] as a traveller, [b, s, h, 1], and back. */
struct ls_tensor ls_travel_transposed(const struct ls_tensor *t);

#endif
