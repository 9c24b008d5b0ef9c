/* A file that is being filled and may yet come to nothing. It has no name where the file system can
 * do that, so that nothing is left of it however the process ends; elsewhere, and for other
 * processes to join it, it is called .TARGET.HOST.PID.RANDOM, is removed by who ends the process
 * (ls_temporary_abandon), or else by the next that is made for the same target on the same host. */
#ifndef LS_TENSOR_TEMPORARY_H
#define LS_TENSOR_TEMPORARY_H

#include <stdbool.h>
#include <sys/types.h>

struct ls_temporary {
    int fd;     /* for reading and writing; -1: there is no file */
    char *name; /* absolute; what it is called or will be */
    bool named;
};

#define LS_NO_TEMPORARY                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

/* Where these return false, errno says why. */

/* Makes an empty file in folder for a target called so. */
bool ls_temporary_create(struct ls_temporary *out, const char *folder, const char *target,
                         mode_t mode);

/* Gives it its name if it has none. */
bool ls_temporary_name(struct ls_temporary *temporary);

/* It becomes the file at path, replacing what is there. */
bool ls_temporary_publish(struct ls_temporary *temporary, const char *path);

/* Takes its name away: what it holds is about to be written elsewhere. */
void ls_temporary_hide(struct ls_temporary *temporary);

/* Closes and removes it unless it was published. Accepts one without a file. */
void ls_temporary_close(struct ls_temporary *temporary);

/* For a process that is about to end, in a signal handler, too: removes all that have names; from
 * now on none can be made or published. True if any was published or hidden before. */
bool ls_temporary_abandon(void);

#endif
