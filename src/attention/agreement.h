/* Whether all ranks ask for the same. */
#ifndef LS_ATTENTION_AGREEMENT_H
#define LS_ATTENTION_AGREEMENT_H

#include "comm/comm.h"

/* Something that all ranks have to ask for alike. */
struct ls_topic {
    const char *name; /* static: "head dim" */
    double value;
    bool number; /* that says something to a reader */
};

/* ls_comm_agree and, if all ranks are well, whether they bring the same values: one reduction, at
 * most LS_MOST_TOPICS of them. Collective. Errors: those of ls_comm_agree; LS_ESHAPE, with the name
 * of the first topic that they disagree about, and its values if it is a number. */
ls_status ls_agree_about(struct ls_comm *comm, ls_status status, const struct ls_topic *topics,
                         int count);

#define LS_MOST_TOPICS 48

/* A number that tells arrays apart, exact as a double; 0 for NULL. */
double ls_digest(const void *array, size_t bytes);

#endif
