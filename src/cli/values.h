/* Values of options: numbers, lists and names, with messages that give the option. */
#ifndef LS_CLI_VALUES_H
#define LS_CLI_VALUES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "longspan/tensor.h"

/* A whole number in [least, most]. Errors (all of them here): LS_EVALUE. */
ls_status cli_value_integer(int64_t *out, const char *option, const char *text, int64_t least,
                            int64_t most);

/* A number of bytes in [least, most]: 8, 64K or 64KiB (of 1024), 64KB (of 1000), up to T. */
ls_status cli_value_bytes(int64_t *out, const char *option, const char *text, int64_t least,
                          int64_t most);

/* A finite number that a float can hold. */
ls_status cli_value_float(float *out, const char *option, const char *text);

/* At least `fewest` and at most `room` whole numbers of [least, most], separated by commas. */
ls_status cli_value_list(int64_t *out, int *count, const char *option, const char *text, int fewest,
                         int room, int64_t least, int64_t most);

/* Index of one of n names; the message lists them, or gives the nearest. */
ls_status cli_value_name(int *out, const char *option, const char *text, const char *const *names,
                         int n);

/* A method of attention; NULL: "auto". */
ls_status cli_value_method(const char **out, const char *option, const char *text);

/* bf16, f16 or f32. */
ls_status cli_value_dtype(ls_dtype *out, const char *option, const char *text);

/* Larger ones are no numbers in units of log2. */
static inline bool cli_is_logit(float x)
{
    return fabsf(x) <= 0x1p126f;
}

#endif
