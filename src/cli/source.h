/* A tensor somewhere else, in a file or drawn at random, and the part of it that a rank holds. */
#ifndef LS_CLI_SOURCE_H
#define LS_CLI_SOURCE_H

#include <math.h>
#include <stdbool.h>

#include "cli/progress.h"
#include "longspan/layout.h"
#include "tensor/file.h"

/* Order of an attention tensor's dimensions in memory; files and local parts share it. */
typedef enum { CLI_BSHD, CLI_BHSD } cli_order;

const char *cli_order_name(cli_order order);

/* A tensor as `outer` blocks of s positions of `row` contiguous elements. */
struct cli_blocks {
    int64_t outer, s, row;
};

struct cli_blocks cli_blocks_of(cli_order order, int64_t b, int64_t s, int64_t h, int64_t d);

/* Contiguous elements that belong to one leaf: where they are in the whole tensor and in the part
 * of a rank. */
struct cli_run {
    int64_t global, local, n;
};

int64_t cli_runs(const struct cli_blocks *blocks, const struct ls_layout *layout, int rank);
struct cli_run cli_run_at(const struct cli_blocks *blocks, const struct ls_layout *layout, int rank,
                          int64_t i);

/* A view [b, rows, h, d] of fresh memory on the ledger in the given order; the caller frees data.
 * Errors: LS_ENOMEM. */
ls_status cli_tensor_create(struct ls_tensor *out, ls_dtype type, cli_order order, int64_t b,
                            int64_t rows, int64_t h, int64_t d);

struct cli_source {
    struct ls_tensor_file *file; /* NULL: random */
    const struct ls_file_tensor *tensor;
    uint64_t seed;
    uint32_t stream;
    ls_dtype type;  /* as it comes */
    char label[96]; /* for messages: "k.npy", "qkv.safetensors: k" */
    char name[96];  /* the same where the message has said which file: "k.npy", "k" */
};

/* Opens the file of one tensor. `name` is looked for in a .safetensors file; one that holds a
 * single tensor may call it as it likes if `lone` is set.
 * Errors: LS_EFILE, LS_EFORMAT, LS_ETYPE; LS_EVALUE if there is no such tensor. */
ls_status cli_source_open(struct cli_source *out, const char *path, const char *name, bool lone);

/* Standard normal numbers by seed and global index, the same for any number of ranks. */
void cli_source_random(struct cli_source *out, uint64_t seed, uint32_t stream, const char *name);

/* Accepts a zeroed source. */
void cli_source_close(struct cli_source *source);

/* Elements of any value, and those that are numbers. */
#define CLI_ANY_VALUE ((double)NAN)
#define CLI_FINITE ((double)INFINITY)

/* Reads this rank's part into `out` (as made by cli_tensor_create, in `order`), rounded once where
 * its type is another. Elements must be below `limit` in size. Not collective. Errors: LS_EIO;
 * LS_EVALUE for one that is not, with its place. */
ls_status cli_source_load(struct ls_tensor *out, const struct cli_source *source, cli_order order,
                          const struct ls_layout *layout, int rank, double limit,
                          struct cli_progress *progress);

#endif
