#include "tensor/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tensor/npy.h"
#include "tensor/safetensors.h"
#include "tensor/transfer.h"

#define LABEL_LENGTH 4224 /* of a path and a quoted name */

struct ls_tensor_file {
    char *path;
    int fd;
    int readers;
    int count;
    struct ls_file_tensor *tensors;
};

/* A pipe or device is refused: its size is unknown, and nobody could read it twice. */
static ls_status open_regular(struct ls_source *out, const char *path)
{
    struct stat about = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* never waits for a pipe */

    if (fd < 0) return ls_fail(LS_EFILE, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
        *out = (struct ls_source){.path = path, .fd = fd, .bytes = about.st_size};
        return LS_OK;
    }
    close(fd);
    return ls_fail(LS_EFILE, "%s: is %s, not a file of tensors", path,
                   S_ISDIR(about.st_mode) ? "a folder" : "a pipe or device");
}

static ls_status fail_unknown(const struct ls_source *source, const char *start, size_t length)
{
    static const struct {
        const char *magic, *what;
    } others[] = {
        {"PK\003\004", "a zip archive, as .npz and PyTorch files are"},
        {"\x80", "a Python pickle"},
        {"GGUF", "a GGUF model"},
        {"\x89HDF", "an HDF5 file"},
    };
    const char *what = length <= LS_SAFETENSORS_PREFIX ? "truncated" : "of an unknown format";

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        const size_t n = strlen(others[i].magic);

        if (length >= n && memcmp(start, others[i].magic, n) == 0) what = others[i].what;
    }
    return ls_fail(LS_EFORMAT,
                   "%s: is %s (%lld bytes), neither .npy nor .safetensors: save its arrays as one "
                   "of these",
                   source->path, what, (long long)source->bytes);
}

static ls_status parse_npy(struct ls_file_tensor **out, int *count, const struct ls_source *source)
{
    struct ls_file_tensor *const tensor = malloc(sizeof *tensor);

    if (tensor == NULL) return ls_fail(LS_ENOMEM, "%s: no memory for its header", source->path);
    const ls_status status = ls_npy_parse(tensor, source);
    if (status != LS_OK) {
        free(tensor);
        return status;
    }
    *out = tensor;
    *count = 1;
    return LS_OK;
}

static ls_status parse(struct ls_file_tensor **out, int *count, const struct ls_source *source)
{
    char start[LS_SAFETENSORS_PREFIX + 1] = {0};
    const size_t length =
        source->bytes < (int64_t)sizeof start ? (size_t)source->bytes : sizeof start;

    if (length == 0) return ls_fail(LS_EFORMAT, "%s: is empty", source->path);
    LS_TRY(ls_read_at(start, source->fd, source->path, (int64_t)length, 0));
    if (memcmp(start, LS_NPY_MAGIC, LS_NPY_MAGIC_LENGTH) == 0) return parse_npy(out, count, source);
    if (start[LS_SAFETENSORS_PREFIX] == '{') return ls_safetensors_parse(out, count, source);
    return fail_unknown(source, start, length);
}

static ls_status take(struct ls_tensor_file **out, const struct ls_source *source)
{
    struct ls_tensor_file *file;
    ls_status status;

    file = calloc(1, sizeof *file);
    if (file != NULL) file->path = strdup(source->path);
    if (file == NULL || file->path == NULL) {
        status = ls_fail(LS_ENOMEM, "%s: no memory to open it", source->path);
        goto fail;
    }
    LS_TRY_GOTO(status, parse(&file->tensors, &file->count, source), fail);
    file->fd = source->fd;
    file->readers = 1;
    *out = file;
    return LS_OK;
fail:
    close(source->fd);
    if (file != NULL) free(file->path);
    free(file);
    return status;
}

ls_status ls_tensor_file_open(struct ls_tensor_file **out, const char *path)
{
    struct ls_source source;

    LS_TRY(open_regular(&source, path));
    return take(out, &source);
}

ls_status ls_tensor_file_take(struct ls_tensor_file **out, int fd, const char *path)
{
    struct stat about = {0};

    fstat(fd, &about);
    return take(out, &(struct ls_source){.path = path, .fd = fd, .bytes = about.st_size});
}

/* From 4 bytes each, in the first half of the memory, to 8; the last one first. */
static void widen(int64_t *numbers, int64_t n)
{
    for (int64_t i = n - 1; i >= 0; i--) {
        int32_t narrow;

        memcpy(&narrow, (const char *)numbers + i * (int64_t)sizeof narrow, sizeof narrow);
        numbers[i] = narrow;
    }
}

static ls_status read_integers(struct ls_integers *out, const struct ls_tensor_file *file,
                               const struct ls_file_tensor *t)
{
    const int64_t rows = t->ndim == 2 ? t->dim[0] : 1, columns = t->dim[t->ndim - 1];
    const int64_t n = rows * columns;
    int64_t *numbers = malloc((size_t)(n + 1) * sizeof *numbers);

    if (numbers == NULL)
        return ls_fail(LS_ENOMEM, "%s: no memory for %lld numbers", file->path, (long long)n);
    const ls_status status = ls_tensor_file_read(numbers, file, t, 0, n);
    if (status != LS_OK) {
        free(numbers);
        return status;
    }
    if (t->integer == 4) widen(numbers, n);
    *out = (struct ls_integers){numbers, rows, columns};
    return LS_OK;
}

ls_status ls_integers_load(struct ls_integers *out, const char *path)
{
    struct ls_tensor_file *file;

    LS_TRY(ls_tensor_file_open(&file, path));
    const ls_status status = ls_tensor_file_integers(out, file, "");

    ls_tensor_file_close(file);
    return status;
}

/* "k.npy:", or "qkv.safetensors: tensor "k"". */
static const char *label(char out[LABEL_LENGTH], const struct ls_tensor_file *file,
                         const char *name)
{
    char quote[LS_QUOTE_LENGTH];

    if (name[0] == '\0')
        snprintf(out, LABEL_LENGTH, "%s:", file->path);
    else
        snprintf(out, LABEL_LENGTH, "%s: tensor \"%s\"", file->path,
                 ls_quote(quote, name, strlen(name)));
    return out;
}

ls_status ls_tensor_file_integers(struct ls_integers *out, const struct ls_tensor_file *file,
                                  const char *name)
{
    const struct ls_file_tensor *t = ls_tensor_file_find(file, name);
    char text[LABEL_LENGTH], extent[LS_EXTENT_TEXT];

    if (t == NULL && name[0] == '\0') return ls_fail(LS_EFORMAT, "%s: is no .npy file", file->path);
    if (t == NULL) return ls_fail(LS_EVALUE, "%s is not there", label(text, file, name));
    if (t->integer >= 4 && (t->ndim == 1 || t->ndim == 2)) return read_integers(out, file, t);
    return ls_fail(t->integer >= 4 ? LS_EFORMAT : LS_ETYPE,
                   "%s has %s, must be a list or table of int64 or int32", label(text, file, name),
                   ls_extent_text(extent, t));
}

struct ls_tensor_file *ls_tensor_file_share(struct ls_tensor_file *file)
{
    file->readers++;
    return file;
}

void ls_tensor_file_close(struct ls_tensor_file *file)
{
    if (file == NULL || --file->readers > 0) return;
    close(file->fd);
    free(file->tensors);
    free(file->path);
    free(file);
}

int ls_tensor_file_count(const struct ls_tensor_file *file)
{
    return file->count;
}

const struct ls_file_tensor *ls_tensor_file_at(const struct ls_tensor_file *file, int i)
{
    return &file->tensors[i];
}

const char *ls_tensor_file_path(const struct ls_tensor_file *file)
{
    return file->path;
}

const struct ls_file_tensor *ls_tensor_file_find(const struct ls_tensor_file *file,
                                                 const char *name)
{
    for (int i = 0; i < file->count; i++)
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    return NULL;
}

ls_status ls_tensor_file_check(const struct ls_tensor_file *file,
                               const struct ls_file_tensor *tensor)
{
    char text[LABEL_LENGTH];

    if (tensor->foreign[0] == '\0') return LS_OK;
    return ls_fail(LS_ETYPE,
                   "%s has %s; what can be read has at most %d dimensions and elements of type "
                   "F64, F32, F16, BF16, I8 or F8_E4M3",
                   label(text, file, tensor->name), tensor->foreign, LS_FILE_DIMS);
}

ls_status ls_tensor_file_read(void *out, const struct ls_tensor_file *file,
                              const struct ls_file_tensor *tensor, int64_t first, int64_t n)
{
    const int64_t size = ls_element_bytes(tensor);

    assert((tensor->foreign[0] == '\0' || tensor->integer > 0) &&
           ls_extent_holds(tensor, first, n));
    return ls_read_at(out, file->fd, file->path, n * size, tensor->offset + first * size);
}

bool ls_tensor_file_map(struct ls_mapping *out, const struct ls_tensor_file *file,
                        const struct ls_file_tensor *tensor)
{
    const int64_t in_page = tensor->offset % sysconf(_SC_PAGESIZE);
    const size_t length = (size_t)(in_page + tensor->bytes);
    void *pages;

    if (tensor->bytes == 0 || tensor->offset % ls_element_bytes(tensor) != 0) return false;
    pages = mmap(NULL, length, PROT_READ, MAP_SHARED, file->fd, tensor->offset - in_page);
    if (pages == MAP_FAILED) return false;
    *out = (struct ls_mapping){
        .data = (const char *)pages + in_page, .pages = pages, .length = length};
    return true;
}

void ls_mapping_end(struct ls_mapping *mapping)
{
    if (mapping->pages) munmap(mapping->pages, mapping->length);
}
