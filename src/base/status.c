#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];

ls_status ls_fail(ls_status code, const char *format, ...)
{
    char text[sizeof message]; /* the last message may be one of the values */
    va_list values;

    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    memcpy(message, text, sizeof message);
    return code;
}

const char *ls_message(void)
{
    return message;
}

bool ls_status_is_input(ls_status status)
{
    return status >= LS_EVALUE && status <= LS_EFIT;
}

const char *ls_status_name(ls_status status)
{
    static const char *const names[] = {
        [LS_OK] = "LS_OK",
        [LS_EVALUE] = "LS_EVALUE",
        [LS_ESHAPE] = "LS_ESHAPE",
        [LS_ETYPE] = "LS_ETYPE",
        [LS_EFORMAT] = "LS_EFORMAT",
        [LS_EFILE] = "LS_EFILE",
        [LS_EFIT] = "LS_EFIT",
        [LS_EIO] = "LS_EIO",
        [LS_ENOMEM] = "LS_ENOMEM",
        [LS_ECOMM] = "LS_ECOMM",
        [LS_EINTERNAL] = "LS_EINTERNAL",
    };

    return status <= LS_EINTERNAL ? names[status] : "unknown status";
}
