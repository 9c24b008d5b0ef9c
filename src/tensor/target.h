/* Where a written file goes: what its path means, and the temporary file that is filled first. */
#ifndef LS_TENSOR_TARGET_H
#define LS_TENSOR_TARGET_H

#include "base/status.h"
#include "tensor/temporary.h"

#define LS_NO_SINK (-1)

struct ls_target {
    char *path; /* the file that will appear, links followed; as given if it is a sink */
    struct ls_temporary temporary;
    int sink;    /* open for writing if the target exists and is no regular file */
    mode_t mode; /* of the file that is replaced; 0: there is none */
    bool joined; /* the temporary file is another process's, and for writing only */
};

#define LS_NO_TARGET ((struct ls_target){.temporary = LS_NO_TEMPORARY, .sink = LS_NO_SINK})

/* Creates the temporary file: beside the target, so that it can be renamed, or in $TMPDIR (/tmp)
 * if the target is a sink; path "-" is standard output, which is one. A file that is replaced
 * leaves its mode to the new one. Errors: LS_EFILE, LS_EIO (disk full), LS_ENOMEM. */
ls_status ls_target_open(struct ls_target *out, const char *path);

/* The name of the temporary file, by which other processes may open it; borrowed. Until then it may
 * have none. Errors: LS_EFILE, LS_EIO. */
ls_status ls_target_share(const char **out, struct ls_target *target);

/* Opens the temporary file of another process. Errors: LS_EFILE, LS_ENOMEM. */
ls_status ls_target_join(struct ls_target *out, const char *temporary);

/* Makes the temporary file appear as the target: syncs and renames it, or empties it into the
 * sink. A joined one is synced only. The target is still to be closed. Errors: LS_EIO. */
ls_status ls_target_publish(struct ls_target *target);

/* Closes what is open and removes the temporary file if it is ours and still there. Accepts
 * LS_NO_TARGET. */
void ls_target_close(struct ls_target *target);

#endif
