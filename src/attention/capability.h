/* What a method can do, found out by asking it about a problem of each kind. What it can do it can
 * do in any combination (tests/mpi/test_matrix.c). */
#ifndef LS_ATTENTION_CAPABILITY_H
#define LS_ATTENTION_CAPABILITY_H

#include "attention/method.h"

int ls_capability_count(void);

/* One word: a kind of mask, the name of a layout, `strict`, `backward`, `long` (many queries). */
const char *ls_capability_name(int i);

bool ls_method_is_capable(const struct ls_method *method, int i);

/* Ranks that it is for: several, or one alone. */
bool ls_method_takes_ranks(const struct ls_method *method);

#endif
