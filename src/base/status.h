/* How a failure is recorded and handed up: the first function that sees it writes the message. */
#ifndef LS_BASE_STATUS_H
#define LS_BASE_STATUS_H

#include <stdbool.h>

#include "longspan/status.h"

/* Records the message for this thread and returns code, so that callers can `return ls_fail(...)`.
 */
ls_status ls_fail(ls_status code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* True if the caller's input is at fault (exit status 2), false for a failure while running (3). */
bool ls_status_is_input(ls_status status);

#define LS_TRY(call)                                                                               \
    do {                                                                                           \
        const ls_status ls_try_status_ = (call);                                                   \
        if (ls_try_status_ != LS_OK) return ls_try_status_;                                        \
    } while (0)

/* For functions that own something: stores the failure in `status` and goes to the clean-up. */
#define LS_TRY_GOTO(status, call, label)                                                           \
    do {                                                                                           \
        (status) = (call);                                                                         \
        if ((status) != LS_OK) goto label;                                                         \
    } while (0)

#endif
