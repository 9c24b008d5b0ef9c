/* From what a caller asks for to a method and its problem. */
#ifndef LS_ATTENTION_CHOICE_H
#define LS_ATTENTION_CHOICE_H

#include "attention/method.h"

struct ls_choice {
    struct ls_attention_options options; /* as read */
    const struct ls_method *method;
    const char *why; /* static */
    struct ls_problem problem;
};

/* On p ranks, of whom node_run are a node if the options leave that open. *misfit (static or
 * per-thread): why the method that is asked for cannot, and nothing is out then; else NULL. Errors:
 * LS_EFIT where none fits; those of ls_problem_init; nothing is to be freed then. */
ls_status ls_choose(struct ls_choice *out, const char **misfit,
                    const struct ls_attention_shape *shape,
                    const struct ls_attention_options *options, int p, int node_run);

#endif
