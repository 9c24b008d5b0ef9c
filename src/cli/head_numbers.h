/* A number for each head, as --sinks and --alibi have them. */
#ifndef LS_CLI_HEAD_NUMBERS_H
#define LS_CLI_HEAD_NUMBERS_H

#include "longspan/store.h"

/* Room for as many; the caller frees it. Errors: LS_ENOMEM. */
ls_status cli_heads_make(float **out, const char *name, int64_t heads);

/* Of the source, if it is open, else of the list `value`, of the option that is called so. The
 * caller frees *out, also after an error. Not collective. Errors: LS_ESHAPE, LS_EVALUE for what is
 * no logit, LS_ENOMEM, LS_EIO. */
ls_status cli_heads_load(float **out, const char *name, const char *value,
                         const struct ls_input *source, int64_t heads);

#endif
