#include "tensor/transfer.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* One call moves at most 2 GiB less a page on Linux, and may move less at any time. */
ls_status ls_read_at(void *out, int fd, const char *path, int64_t bytes, int64_t offset)
{
    char *at = out;

    while (bytes > 0) {
        const ssize_t got = pread(fd, at, (size_t)bytes, offset);

        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return ls_fail(LS_EIO, "%s: cannot read at byte %lld: %s", path, (long long)offset,
                           strerror(errno));
        if (got == 0)
            return ls_fail(LS_EIO, "%s: ends at byte %lld, %lld more were expected: it shrank",
                           path, (long long)offset, (long long)bytes);
        at += got;
        offset += got;
        bytes -= got;
    }
    return LS_OK;
}

ls_status ls_write_at(int fd, const char *path, int64_t bytes, int64_t offset, const void *in)
{
    const char *at = in;

    while (bytes > 0) {
        const ssize_t put = pwrite(fd, at, (size_t)bytes, offset);

        if (put < 0 && errno == EINTR) continue;
        if (put < 0)
            return ls_fail(LS_EIO, "%s: cannot write at byte %lld: %s", path, (long long)offset,
                           strerror(errno));
        at += put;
        offset += put;
        bytes -= put;
    }
    return LS_OK;
}
