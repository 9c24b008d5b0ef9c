/* A file of tensors that all ranks open, though it be a pipe. */
#ifndef LS_STORE_SHARED_H
#define LS_STORE_SHARED_H

#include "comm/comm.h"
#include "tensor/file.h"

/* As ls_tensor_file_open, on every rank. A pipe has its bytes once: the first rank reads it to its
 * end into a file without a name in $TMPDIR (/tmp), which the others, who are to share its node,
 * open as well. Collective. Errors: also LS_EIO; the same on every rank. */
ls_status ls_shared_open(struct ls_tensor_file **out, struct ls_comm *comm, const char *path);

#endif
