/* Rows that are judged: which, their elements, and the threads that share the work on them. */
#ifndef LS_CLI_VERIFY_ROWS_H
#define LS_CLI_VERIFY_ROWS_H

#include <pthread.h>
#include <stddef.h>

#include "base/status.h"
#include "longspan/layout.h"
#include "longspan/tensor.h"

/* Rows of one head that are judged together. */
#define CLI_BATCH_ROWS 64

/* Positions of a head's rows that are judged, rising: the first and last of every part and others
 * by chance, the same ones on every rank; all for rows 0. Returns how many. */
int64_t cli_rows_choose(int64_t *out, const struct ls_layout *layout, int64_t rows, int64_t head);

/* The most that it can be. */
int64_t cli_rows_most(const struct ls_layout *layout, int64_t rows);

/* Local row of a position, -1 if another rank holds it. */
int64_t cli_rows_find(const struct ls_layout *layout, int rank, int64_t position);

/* out [n, d] = rows [first, first + n) of one head of t. */
void cli_rows_load(double *out, const struct ls_tensor *t, int64_t b, int64_t first, int64_t n,
                   int64_t head);

/* Points *slot, a pointer to any type, to fresh memory on the ledger. Errors: LS_ENOMEM. */
ls_status cli_rows_room(void *slot, size_t bytes);

/* Calls work with each of `count` shares of so many bytes, each in a thread; threads [count]. */
void cli_rows_share(void *(*work)(void *), void *shares, size_t size, int count,
                    pthread_t *threads);

#endif
