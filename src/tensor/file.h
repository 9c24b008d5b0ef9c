/* Tensors in files: .npy (one tensor) and .safetensors (several, named), of f16, bf16, f32, f64, i8
 * and e4m3. Opening checks everything a header can say; elements are then read and written in place
 * by any number of ranks at once (pread, pwrite). Nothing is trusted: every size is checked against
 * the file before it is used. */
#ifndef LS_TENSOR_FILE_H
#define LS_TENSOR_FILE_H

#include <stddef.h>

#include "base/status.h"
#include "longspan/tensor.h"

#define LS_NAME_LENGTH 64
#define LS_FOREIGN_LENGTH 96

struct ls_file_tensor {
    char name[LS_NAME_LENGTH]; /* "" in a .npy file; a longer one is cut */
    ls_dtype type;
    int ndim;
    int64_t dim[LS_FILE_DIMS];
    int64_t offset; /* of the first element, bytes from the start of the file */
    int64_t bytes;  /* of all elements */
    /* "": it can be read; else what it has that cannot, such as "elements of type I64", and type
     * and dimensions are not known */
    char foreign[LS_FOREIGN_LENGTH];
    int integer; /* bytes of each of the whole numbers that it has, with dimensions; else 0 */
    bool truth;  /* these are 0 or 1, and are meant as false or true */
};

/* Bytes of an element of a tensor that is not foreign, or has whole numbers. */
int ls_element_bytes(const struct ls_file_tensor *tensor);

/* Room for a type and the longest shape, as in "bf16 [2, 4096, 8, 64]". */
#define LS_EXTENT_TEXT 128

/* Writes that text, or what is foreign about the tensor, and returns out. */
const char *ls_extent_text(char out[LS_EXTENT_TEXT], const struct ls_file_tensor *tensor);

struct ls_tensor_file;

/* Reads and checks the header; the format is known by content (magic), not by name. A
 * tensor with more than LS_FILE_DIMS dimensions, or of a type that is not in ls_dtype nor whole
 * numbers, is refused in a .npy file, and foreign among those of a .safetensors file, as whole
 * numbers are in both. The caller closes it. Errors: LS_EFILE
 * (cannot be opened), LS_EFORMAT, LS_ETYPE; the message names the file. Not collective. */
ls_status ls_tensor_file_open(struct ls_tensor_file **out, const char *path);

/* The same of a regular file that is open for reading; path is for messages. fd is the file's from
 * here on, also if this fails. */
ls_status ls_tensor_file_take(struct ls_tensor_file **out, int fd, const char *path);

/* One more who reads it, and closes it; returns file. */
struct ls_tensor_file *ls_tensor_file_share(struct ls_tensor_file *file);

/* The last one who does frees it. */
void ls_tensor_file_close(struct ls_tensor_file *file);

int ls_tensor_file_count(const struct ls_tensor_file *file);
const struct ls_file_tensor *ls_tensor_file_at(const struct ls_tensor_file *file, int i);
const char *ls_tensor_file_path(const struct ls_tensor_file *file);

/* NULL if there is none of that name. */
const struct ls_file_tensor *ls_tensor_file_find(const struct ls_tensor_file *file,
                                                 const char *name);

/* Whether a tensor of the file can be read. Errors: LS_ETYPE for a foreign one. */
ls_status ls_tensor_file_check(const struct ls_tensor_file *file,
                               const struct ls_file_tensor *tensor);

/* Elements [first, first + n) of the tensor's contiguous data, in its own type.
 * It can be read, or has whole numbers. Errors: LS_EIO. */
ls_status ls_tensor_file_read(void *out, const struct ls_tensor_file *file,
                              const struct ls_file_tensor *tensor, int64_t first, int64_t n);

/* A tensor where it lies in its file: read when it is touched, by all processes of a node once. */
struct ls_mapping {
    const void *data;
    void *pages;
    size_t length; /* of these */
};

/* False if the elements of this one have no place that memory could have, or there is none for it.
 * The file is to stay as it is until the caller ends it, which accepts one of zeros. */
bool ls_tensor_file_map(struct ls_mapping *out, const struct ls_tensor_file *file,
                        const struct ls_file_tensor *tensor);
void ls_mapping_end(struct ls_mapping *mapping);

/* Whole numbers, [rows][columns]. */
struct ls_integers {
    int64_t *number;
    int64_t rows, columns;
};

/* A .npy file with int32 or int64, of shape [columns], which is one row, or [rows, columns]. The
 * caller frees out->number, which is never NULL then.
 * Errors: LS_EFILE, LS_EFORMAT, LS_ETYPE, LS_EIO, LS_ENOMEM. Not collective. */
ls_status ls_integers_load(struct ls_integers *out, const char *path);

/* The same of a tensor, of type I32 or I64, of a file that is open. Errors: LS_EVALUE (there is
 * none), LS_EFORMAT, LS_ETYPE, LS_EIO, LS_ENOMEM. */
ls_status ls_tensor_file_integers(struct ls_integers *out, const struct ls_tensor_file *file,
                                  const char *name);

/* Writing: a .safetensors file appears under its name whole or not at all. One process creates the
 * writer, which makes a temporary file of the final size beside the target (in $TMPDIR, or /tmp,
 * where the target is standard output, "-", or exists and is no regular file); others may join it
 * by its temporary name. */
struct ls_tensor_writer;

/* tensors[i].offset and bytes are ignored and computed. Not collective. The caller commits or
 * aborts it. Errors: LS_EFILE: the folder is missing or not writable, said with both names; LS_EIO:
 * disk full (space is reserved here, before anybody computes). */
ls_status ls_tensor_writer_create(struct ls_tensor_writer **out, const char *path,
                                  const struct ls_file_tensor *tensors, int count);

/* Opens the temporary file of a writer that another process created with the same arguments. Such
 * a writer may write; neither commit nor abort removes or renames anything. Errors: LS_EFILE. */
ls_status ls_tensor_writer_join(struct ls_tensor_writer **out, const char *temporary,
                                const struct ls_file_tensor *tensors, int count);

/* The name of the temporary file, by which others may join; borrowed. Errors: LS_EFILE, LS_EIO. */
ls_status ls_tensor_writer_share(const char **out, struct ls_tensor_writer *writer);

/* Elements [first, first + n) of tensor i, given in its type. Errors: LS_EIO. */
ls_status ls_tensor_writer_write(struct ls_tensor_writer *writer, int i, int64_t first, int64_t n,
                                 const void *in);

/* Makes the file appear: fsync and rename, or, where the target is no regular file, copies the
 * bytes into it. Frees the writer, also on failure (nothing is left behind then). A joined writer
 * only makes sure that its own bytes have arrived: where ranks share a network file system they
 * commit before the creator does. Errors: LS_EIO. */
ls_status ls_tensor_writer_commit(struct ls_tensor_writer *writer);

/* Removes the temporary file (its creator only) and frees the writer. Accepts NULL. */
void ls_tensor_writer_abort(struct ls_tensor_writer *writer);

#endif
