/* Tensors in files, of which each rank reads and writes its own rows: .npy and .safetensors are
 * read, .safetensors is written. */
#ifndef LONGSPAN_STORE_H
#define LONGSPAN_STORE_H

#include <math.h>
#include <stdbool.h>

#include "longspan/comm.h"
#include "longspan/layout.h"
#include "longspan/progress.h"
#include "longspan/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Order of an attention tensor's dimensions, the same in a file and of a rank's part in memory. */
typedef enum { LS_ORDER_BSHD, LS_ORDER_BHSD } ls_order;

/* "bshd" */
LS_API const char *ls_order_name(ls_order order);

/* View [b, s, h, d] of contiguous memory in this order. */
LS_API struct ls_tensor ls_order_view(void *data, ls_dtype type, ls_order order, int64_t b,
                                      int64_t s, int64_t h, int64_t d);

/* ---- reading */

struct ls_tensor_file;
struct ls_file_tensor;

/* Heads of a tensor among `all` of a position: `run` from `first` on, as many `apart` further on,
 * and so on. */
struct ls_packed_heads {
    int64_t all, first, run, apart;
};

/* A tensor somewhere else, in a file or drawn at random. The first fields are to be read. */
struct ls_input {
    ls_dtype type; /* of its elements */
    int ndim;      /* 0: drawn at random, in any shape */
    int64_t dim[LS_FILE_DIMS];
    char label[96];              /* for messages: "k.npy", "qkv.safetensors: k" */
    char name[96];               /* the same where a message has said which file: "k.npy", "k" */
    struct ls_tensor_file *file; /* NULL: drawn at random, or not open */
    const struct ls_file_tensor *tensor;
    struct ls_packed_heads packed; /* all 0: it is alone in the file's tensor */
    bool drawn;
    uint64_t seed;
    uint32_t stream;
};

/* Opens the file of one tensor; reads no elements, but of a pipe all there are: the first rank,
 * into a file without a name in $TMPDIR (/tmp). `name` is looked for in a .safetensors file; with
 * `lone` one that holds a single tensor may call it as it likes. Collective. The caller closes it.
 * Errors: LS_EFILE, also for a pipe if there are ranks of several nodes, LS_EFORMAT, LS_ETYPE,
 * LS_EIO; LS_EVALUE if there is no such tensor; the same on every rank. */
LS_API ls_status ls_input_open(struct ls_input *out, struct ls_comm *comm, const char *path,
                               const char *name, bool lone);

/* Another tensor of the file that `beside` has open, without opening it again. Not collective. The
 * caller closes it, before `beside` or after. Errors: LS_ETYPE; LS_EVALUE if there is no such
 * tensor. */
LS_API ls_status ls_input_open_beside(struct ls_input *out, const struct ls_input *beside,
                                      const char *name);

/* Makes of an open source, whose tensor has q, k and v beside each other, one of them, of shape
 * [b, s, heads, d]: to be loaded in order bshd. The file's has b s all d elements. */
LS_API void ls_input_take_heads(struct ls_input *source, const struct ls_packed_heads *heads,
                                const int64_t dim[4]);

/* Standard normal numbers by seed, stream and place in the whole tensor: the same for any number of
 * ranks. */
LS_API void ls_input_draw(struct ls_input *out, uint64_t seed, uint32_t stream, const char *name);

/* Accepts one of zeros. */
LS_API void ls_input_close(struct ls_input *source);

/* Elements of any value, and those that are numbers. */
#define LS_ANY_VALUE ((double)NAN)
#define LS_FINITE ((double)INFINITY)

/* Reads this rank's part of the layout.
 *   out   [b, s_loc, h, d], a view that ls_order_view makes; of the source's type or rounded once.
 *         A source of three dimensions [b, h, s], such as lse, has d = 1 and the order bhsd.
 *   limit elements must be below it in size, after rounding: what sums of them in f32 need
 * Collective over comm. Tells progress "reading" or "drawing"; NULL: nobody.
 * Errors: LS_EIO, LS_ENOMEM; LS_ESHAPE; LS_EVALUE for an element that is not below the limit, with
 * its place, and for a source that is not open; the same on every rank. */
LS_API ls_status ls_input_load(struct ls_tensor *out, struct ls_comm *comm,
                               const struct ls_input *source, ls_order order,
                               const struct ls_layout *layout, double limit,
                               const struct ls_progress_callback *progress);

/* ---- writing */

/* A whole tensor of a file: [b, s, h, d] or [b, h, s, d] by its order. d 0: [b, h, s], order bhsd.
 * b 0: [h], a number for each head, or, with d, [h, d]. single: of b 1 sequence, which the shape
 * does not say. */
struct ls_output_tensor {
    const char *name; /* at most 63 characters */
    ls_dtype type;
    ls_order order;
    int64_t b, s, h, d;
    bool single;
};

struct ls_output;

/* Makes the temporary file of a .safetensors file, of its final size beside it, so that a folder
 * that cannot be written and a full disk are known before anything is computed. "-" is standard
 * output. Ranks share the file system. Collective; comm lives until the output is destroyed. The
 * caller destroys it. Errors: LS_EVALUE, LS_EFILE, LS_EIO, LS_ENOMEM; the same on every rank. */
LS_API ls_status ls_output_create(struct ls_output **out, struct ls_comm *comm, const char *path,
                                  const struct ls_output_tensor *tensors, int count);

/* Writes this rank's part of tensor i, [b, s_loc, h, d] as ls_order_view makes it, or contiguous
 * [b, h, s_loc]. The file has all rows in global order, whatever the layout. A tensor of
 * b 0 all ranks have whole, and that of rank 0 is written; layout is not read. Collective. Tells
 * progress "writing"; NULL: nobody. Errors: LS_ESHAPE, LS_ETYPE, LS_EVALUE, LS_EIO; the same on
 * every rank. */
LS_API ls_status ls_output_write(struct ls_output *output, int i, const struct ls_layout *layout,
                                 const struct ls_tensor *part,
                                 const struct ls_progress_callback *progress);

/* Makes the file appear, whole; once, and nothing is written afterwards. Collective. Errors:
 * LS_EIO; the same on every rank, and nothing is left behind. */
LS_API ls_status ls_output_commit(struct ls_output *output);

/* Leaves nothing behind but what was committed. Not collective. Accepts NULL. */
LS_API void ls_output_destroy(struct ls_output *output);

#ifdef __cplusplus
}
#endif
#endif
