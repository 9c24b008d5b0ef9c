#include "store/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ledger.h"
#include "tensor/temporary.h"
#include "tensor/transfer.h"

enum { CHUNK = 1 << 20, WAIT_MS = 500 };

/* What the first rank tells the others of a path. */
struct note {
    bool pipe;
    char name[48]; /* of what it has kept of the pipe, for processes of its node */
    dev_t device;  /* what is found under that name elsewhere is another file */
    ino_t file;
};

static bool is_pipe(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISFIFO(about.st_mode);
}

/* ---- the first rank */

static ls_status create_kept(int *out, const char *path)
{
    const char *wanted = getenv("TMPDIR"), *folder = wanted && *wanted ? wanted : "/tmp";
    struct ls_temporary temporary = LS_NO_TEMPORARY;
    int fd = -1;

    if (ls_temporary_create(&temporary, folder, "pipe", 0600))
        fd = fcntl(temporary.fd, F_DUPFD_CLOEXEC, 0); /* which outlives the name */
    const int error = errno;

    ls_temporary_close(&temporary);
    if (fd < 0)
        return ls_fail(LS_EIO, "%s: is a pipe, and no file to keep it can be made in %s: %s", path,
                       folder, strerror(error));
    *out = fd;
    return LS_OK;
}

/* Reads up to CHUNK bytes, 0 at the end, and lets the others hear while it waits for who writes:
 * opened without waiting, a pipe that nobody has written to is not at its end. */
static ls_status read_some(ssize_t *out, char *chunk, int pipe, struct ls_comm *comm,
                           const char *path)
{
    struct pollfd waiting = {.fd = pipe, .events = POLLIN};

    for (*out = -1; *out < 0;) {
        ls_comm_beat(comm);
        if (poll(&waiting, 1, WAIT_MS) == 0) continue;
        *out = read(pipe, chunk, CHUNK);
        if (*out < 0 && errno != EINTR && errno != EAGAIN)
            return ls_fail(LS_EIO, "%s: cannot read: %s", path, strerror(errno));
    }
    return LS_OK;
}

static ls_status copy(int to, int pipe, struct ls_comm *comm, const char *path)
{
    ls_status status = LS_OK;
    ssize_t n = 1;
    void *chunk;

    LS_TRY(ls_alloc(&chunk, LS_TAG_WORKSPACE, CHUNK));
    for (int64_t at = 0; status == LS_OK && n > 0; at += n) {
        status = read_some(&n, chunk, pipe, comm, path);
        if (status == LS_OK) status = ls_write_at(to, path, n, at, chunk);
    }
    ls_free(chunk);
    return status;
}

/* *out: what came, and the note says where that is. */
static ls_status keep(int *out, struct note *note, struct ls_comm *comm, const char *path)
{
    const int pipe = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat about;
    ls_status status;
    int fd = -1;

    if (pipe < 0) return ls_fail(LS_EFILE, "%s: cannot open: %s", path, strerror(errno));
    LS_TRY_GOTO(status, create_kept(&fd, path), close_pipe);
    LS_TRY_GOTO(status, copy(fd, pipe, comm, path), close_kept);
    fstat(fd, &about);
    snprintf(note->name, sizeof(note->name), "/proc/%ld/fd/%d", (long)getpid(), fd);
    note->device = about.st_dev;
    note->file = about.st_ino;
    close(pipe);
    *out = fd;
    return LS_OK;
close_kept:
    close(fd);
close_pipe:
    close(pipe);
    return status;
}

/* ---- the others */

static ls_status open_kept(int *out, const struct note *note, const char *path)
{
    const int fd = open(note->name, O_RDONLY | O_CLOEXEC);
    struct stat about;

    if (fd >= 0 && fstat(fd, &about) == 0 && about.st_dev == note->device &&
        about.st_ino == note->file) {
        *out = fd;
        return LS_OK;
    }
    if (fd >= 0) close(fd);
    return ls_fail(LS_EFILE,
                   "%s: is a pipe, and ranks of several nodes cannot share it: name a file that "
                   "all of them see",
                   path);
}

/* ---- all */

static ls_status open_pipe(struct ls_tensor_file **out, struct ls_comm *comm, struct note *note,
                           const char *path)
{
    const bool first = ls_comm_rank(comm) == 0;
    int fd = -1;

    LS_TRY(ls_comm_agree(comm, first ? keep(&fd, note, comm, path) : LS_OK));
    ls_status status = ls_comm_broadcast(note, comm, sizeof(*note), 0);

    if (status == LS_OK && !first) status = open_kept(&fd, note, path);
    status = ls_comm_agree(comm, status); /* nobody closes it before all have it */
    if (status == LS_OK) return ls_tensor_file_take(out, fd, path);
    if (fd >= 0) close(fd);
    return status;
}

ls_status ls_shared_open(struct ls_tensor_file **out, struct ls_comm *comm, const char *path)
{
    struct note note = {.pipe = ls_comm_rank(comm) == 0 && is_pipe(path)};
    struct ls_tensor_file *file = NULL;
    ls_status status;

    LS_TRY(ls_comm_broadcast(&note, comm, sizeof(note), 0));
    status = note.pipe ? open_pipe(&file, comm, &note, path) : ls_tensor_file_open(&file, path);
    status = ls_comm_agree(comm, status);
    if (status == LS_OK)
        *out = file;
    else
        ls_tensor_file_close(file);
    return status;
}
