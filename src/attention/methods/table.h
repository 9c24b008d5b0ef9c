/* The table of methods, and the choice among them. */
#ifndef LS_ATTENTION_METHODS_TABLE_H
#define LS_ATTENTION_METHODS_TABLE_H

#include "attention/method.h"

extern const struct ls_method ls_method_local, ls_method_ring, ls_method_ring2, ls_method_halo,
    ls_method_ulysses, ls_method_usp, ls_method_allreduce, ls_method_tree, ls_method_allgather;

int ls_method_count(void);
const struct ls_method *ls_method_at(int i);

/* Errors: LS_EVALUE for an unknown name; the message gives the nearest one. */
ls_status ls_method_find(const struct ls_method **out, const char *name);

/* `auto`: of the methods that fit, those that share the work evenly, about as well as can be; of
 * these the one that sends the fewest bytes; the first of equals.
 * *why (static) says so. Errors: LS_EFIT with every method's reason; LS_ENOMEM. */
ls_status ls_method_choose(const struct ls_method **out, const char **why,
                           const struct ls_attention_shape *shape,
                           const struct ls_attention_options *options, int p);

#endif
