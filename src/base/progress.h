/* What a thread that works for long calls now and then, so that something else moves along. */
#ifndef LS_BASE_PROGRESS_H
#define LS_BASE_PROGRESS_H

/* Kernels call it on their first thread, at least every half millisecond. */
struct ls_progress {
    void (*call)(void *context); /* NULL: nobody wants to be called */
    void *context;
};

#endif
