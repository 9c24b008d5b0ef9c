/* The two sides of a problem whose rows are judged. */
#ifndef LS_JUDGE_SIDES_H
#define LS_JUDGE_SIDES_H

#include "judge/batch.h"

/* Add the errors of o, lse and dq, and of dk and dv, as far as they are there, to those of the
 * judge. Collective; the same on every rank. Errors: LS_ENOMEM, LS_ECOMM. */
ls_status ls_judge_queries(struct ls_judge *judge);
ls_status ls_judge_keys(struct ls_judge *judge);

#endif
