/* What every function of the library that can fail returns. */
#ifndef LONGSPAN_STATUS_H
#define LONGSPAN_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define LS_API __attribute__((visibility("default")))

typedef enum {
    LS_OK = 0,
    /* the caller's input is at fault, nothing was changed */
    LS_EVALUE,  /* an argument or option out of its range, or an unknown name */
    LS_ESHAPE,  /* shapes that do not fit each other */
    LS_ETYPE,   /* a number type that is not supported here */
    LS_EFORMAT, /* the content of a file is not what its format says */
    LS_EFILE,   /* a file that cannot be opened or created */
    LS_EFIT,    /* a method, layout or mask that cannot do what was asked */
    /* something failed while running */
    LS_EIO,       /* reading or writing failed part-way */
    LS_ENOMEM,    /* not enough memory */
    LS_ECOMM,     /* communication between ranks failed */
    LS_EINTERNAL, /* a library underneath reported an error */
} ls_status;

/* One line that says what was wrong, with the values: of this thread's last failure.
 * Borrowed; valid until the next failure in the same thread. */
LS_API const char *ls_message(void);

/* Short name of a status, such as "LS_ESHAPE". */
LS_API const char *ls_status_name(ls_status status);

#ifdef __cplusplus
}
#endif
#endif
