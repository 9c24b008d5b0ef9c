/* Rows that are judged: which, their elements, and the threads that share the work on them. */
#ifndef LS_CLI_VERIFY_ROWS_H
#define LS_CLI_VERIFY_ROWS_H

#include <pthread.h>
#include <stddef.h>

#include "base/status.h"
#include "cli/progress.h"
#include "longspan/layout.h"
#include "longspan/tensor.h"

/* Rows of one head that are judged together. */
#define CLI_BATCH_ROWS 64

/* The most rows of a head that are judged. */
int64_t cli_rows_most(const struct ls_layout *layout, int64_t rows);

/* Some rows of the i-th head of all batches. */
typedef ls_status cli_rows_judge(void *context, int64_t i, const int64_t *position, int n);

/* Calls judge for the rows that are judged of each head, rising, at most CLI_BATCH_ROWS at a time:
 * the first and last of every part and others by chance, the same ones on every rank; all for rows
 * 0. position: room for cli_rows_most. The first failure ends it. */
ls_status cli_rows_each(int64_t *position, const struct ls_layout *layout, int64_t rows,
                        int64_t heads, struct cli_progress *progress, cli_rows_judge *judge,
                        void *context);

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
