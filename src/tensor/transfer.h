/* Bytes in and out of a file at a given place, all of them or an error. */
#ifndef LS_TENSOR_TRANSFER_H
#define LS_TENSOR_TRANSFER_H

#include <stdint.h>

#include "base/status.h"

/* path is for the message only. Errors: LS_EIO. */
ls_status ls_read_at(void *out, int fd, const char *path, int64_t bytes, int64_t offset);
ls_status ls_write_at(int fd, const char *path, int64_t bytes, int64_t offset, const void *in);

#endif
