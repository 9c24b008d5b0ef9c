#define _GNU_SOURCE 1 /* fallocate */

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tensor/safetensors.h"
#include "tensor/target.h"
#include "tensor/transfer.h"

struct ls_tensor_writer {
    struct ls_target target;
    int64_t header_bytes, file_bytes;
    char *header;
    struct ls_file_tensor *tensors;
};

/* A writer that knows its file's layout but has no file. */
static ls_status create_layout(struct ls_tensor_writer **out, const struct ls_file_tensor *tensors,
                               int count)
{
    struct ls_tensor_writer *const writer = calloc(1, sizeof *writer);
    const size_t bytes = (size_t)count * sizeof *tensors;
    ls_status status;

    if (writer != NULL) writer->tensors = malloc(bytes);
    if (writer == NULL || writer->tensors == NULL) {
        free(writer);
        return ls_fail(LS_ENOMEM, "no memory to describe %d tensors", count);
    }
    memcpy(writer->tensors, tensors, bytes);
    status = ls_safetensors_header(&writer->header, &writer->header_bytes, &writer->file_bytes,
                                   writer->tensors, count);
    if (status != LS_OK) {
        free(writer->tensors);
        free(writer);
        return status;
    }
    *out = writer;
    return LS_OK;
}

static void destroy_layout(struct ls_tensor_writer *writer)
{
    free(writer->header);
    free(writer->tensors);
    free(writer);
}

/* Takes the room on the disk now; where a file system cannot, only sets the length. */
static ls_status reserve(const struct ls_target *target, int64_t bytes)
{
    struct statvfs disk = {0};
    int result;

    do result = fallocate(target->temporary.fd, 0, 0, bytes);
    while (result != 0 && errno == EINTR);
    if (result != 0 && (errno == EOPNOTSUPP || errno == ENOSYS))
        result = ftruncate(target->temporary.fd, bytes);
    if (result == 0) return LS_OK;
    const int error = errno;
    fstatvfs(target->temporary.fd, &disk);
    return ls_fail(LS_EIO, "%s: cannot reserve %lld bytes as %s, where %llu are free: %s",
                   target->path, (long long)bytes, target->temporary.name,
                   (unsigned long long)disk.f_bavail * disk.f_frsize, strerror(error));
}

ls_status ls_tensor_writer_create(struct ls_tensor_writer **out, const char *path,
                                  const struct ls_file_tensor *tensors, int count)
{
    struct ls_tensor_writer *writer;
    ls_status status;

    LS_TRY(create_layout(&writer, tensors, count));
    LS_TRY_GOTO(status, ls_target_open(&writer->target, path), free_layout);
    LS_TRY_GOTO(status, reserve(&writer->target, writer->file_bytes), close_target);
    LS_TRY_GOTO(
        status,
        ls_write_at(writer->target.temporary.fd, path, writer->header_bytes, 0, writer->header),
        close_target);
    *out = writer;
    return LS_OK;
close_target:
    ls_target_close(&writer->target);
free_layout:
    destroy_layout(writer);
    return status;
}

static ls_status check_length(const struct ls_target *target, int64_t bytes)
{
    struct stat about = {0};

    if (fstat(target->temporary.fd, &about) == 0 && about.st_size == bytes) return LS_OK;
    return ls_fail(LS_EFILE, "%s: has %lld bytes, not the %lld of these tensors", target->path,
                   (long long)about.st_size, (long long)bytes);
}

ls_status ls_tensor_writer_join(struct ls_tensor_writer **out, const char *temporary,
                                const struct ls_file_tensor *tensors, int count)
{
    struct ls_tensor_writer *writer;
    ls_status status;

    LS_TRY(create_layout(&writer, tensors, count));
    LS_TRY_GOTO(status, ls_target_join(&writer->target, temporary), free_layout);
    LS_TRY_GOTO(status, check_length(&writer->target, writer->file_bytes), close_target);
    *out = writer;
    return LS_OK;
close_target:
    ls_target_close(&writer->target);
free_layout:
    destroy_layout(writer);
    return status;
}

ls_status ls_tensor_writer_share(const char **out, struct ls_tensor_writer *writer)
{
    return ls_target_share(out, &writer->target);
}

ls_status ls_tensor_writer_write(struct ls_tensor_writer *writer, int i, int64_t first, int64_t n,
                                 const void *in)
{
    const struct ls_file_tensor *const tensor = &writer->tensors[i];
    const int64_t size = ls_dtype_size(tensor->type);

    assert(ls_extent_holds(tensor, first, n));
    return ls_write_at(writer->target.temporary.fd, writer->target.path, n * size,
                       tensor->offset + first * size, in);
}

ls_status ls_tensor_writer_commit(struct ls_tensor_writer *writer)
{
    const ls_status status = ls_target_publish(&writer->target);

    ls_tensor_writer_abort(writer);
    return status;
}

void ls_tensor_writer_abort(struct ls_tensor_writer *writer)
{
    if (writer == NULL) return;
    ls_target_close(&writer->target);
    destroy_layout(writer);
}
