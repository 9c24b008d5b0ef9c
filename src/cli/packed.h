/* --packed: q, k and v in one tensor, their heads beside each other. */
#ifndef LS_CLI_PACKED_H
#define LS_CLI_PACKED_H

#include "longspan/store.h"

typedef enum {
    CLI_NOT_PACKED,
    CLI_PACKED_S3HD, /* of a position all heads of q, then those of k, then those of v */
    CLI_PACKED_SH3D, /* of each head its q, k and v */
    CLI_PACKED_SGD   /* of each head of k those of q that share it, its own, and that of v */
} cli_packing;

struct cli_packed {
    cli_packing how;
    int64_t heads, kv_heads; /* 0: not said */
};

/* Errors: LS_EVALUE. */
ls_status cli_packed_set(struct cli_packed *out, const char *name);

/* "s3hd" */
const char *cli_packed_name(cli_packing how);

/* Whether the options make sense together. Errors: LS_EVALUE. */
ls_status cli_packed_check(const struct cli_packed *packed);

/* Makes q, k and v, [b, s, h, d], of the first source, which is open and holds all of them; the
 * others share its file. *single: its shape says no batch. Errors: LS_ESHAPE for a shape that has
 * no such heads, or that fits two readings. */
ls_status cli_packed_take(struct ls_input qkv[3], bool *single, const struct cli_packed *packed);

#endif
