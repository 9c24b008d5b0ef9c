/* The lists of a plan's options that say what is visible, as the plan keeps them: the caller's may
 * be gone when it is executed. */
#ifndef LS_ATTENTION_LISTS_H
#define LS_ATTENTION_LISTS_H

#include <stddef.h>

#include "base/status.h"
#include "longspan/attention.h"

enum ls_list {
    LS_LIST_DOCUMENTS,
    LS_LIST_Q_DOCUMENTS,
    LS_LIST_Q_LENGTHS,
    LS_LIST_K_LENGTHS,
    LS_LIST_SLICES,
    LS_LISTS
};

struct ls_lists {
    void *list[LS_LISTS]; /* NULL: not given */
    size_t bytes[LS_LISTS];
    bool pad_left; /* how the lengths are meant */
};

/* Copies the options' lists, to whose copies the options then refer. The caller calls
 * ls_lists_free, also after an error. Errors: LS_ENOMEM. */
ls_status ls_lists_keep(struct ls_lists *out, const struct ls_attention_shape *shape,
                        struct ls_attention_options *options);
void ls_lists_free(struct ls_lists *lists);

#endif
