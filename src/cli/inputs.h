/* Q, K and V of a command line: where they come from, whether they fit each other, and this rank's
 * part of them. */
#ifndef LS_CLI_INPUTS_H
#define LS_CLI_INPUTS_H

#include <math.h>

#include "cli/names.h"
#include "cli/packed.h"
#include "cli/progress.h"
#include "cli/random.h"
#include "longspan/store.h"

/* --input, --q, --k, --v, --names, --packed, --heads, --kv-heads, --random, --order, --dtype,
 * --kv-dtype, --allow-nonfinite */
struct cli_input_options {
    const char *input;     /* a .safetensors file with q, k and v */
    const char *single[3]; /* a file each */
    struct cli_names names;
    struct cli_packed packed;
    struct cli_random random;
    bool has_order;
    ls_order order;
    bool has_dtype;
    ls_dtype dtype;
    ls_dtype kv_dtype; /* i8 or e4m3; 0: not said */
    bool allow_nonfinite;
};

/* Whether one of --input, --q, --k, --v and --random is there. */
bool cli_inputs_given(const struct cli_input_options *options);

struct cli_inputs {
    struct ls_input source[3];       /* q, k, v */
    struct ls_attention_shape shape; /* d_v is set */
    bool brings_quantized;           /* k and v are numbers of 8 bits, which have scales */
    struct ls_input scale[2], mean;  /* open then: k_scale, v_scale and, perhaps, k_mean */
    ls_order order;
    bool single;      /* q came without a batch: its file was [s, h, d] or [h, s, d] */
    char origin[320]; /* for people: "random, seed 0", "q.npy k.npy v.npy in order bshd" */
};

/* A tensor with one dimension less than it should is of a single sequence: the batch, 1, was left
 * out. Returns whether it was. */
bool cli_input_add_batch(struct ls_input *source, int ndim);

/* The order in which q and k of these dimensions must be meant. False if the user has to say: a
 * wrong guess would compute something else without a word. */
bool cli_order_guess(ls_order *out, const int64_t q[4], const int64_t k[4]);

/* Opens the files and checks that they fit each other; reads no elements.
 * keep_f64: f64 files stay f64 where no --dtype is given; otherwise they are refused.
 * Agreed by all ranks; the caller closes it. Errors: LS_EVALUE, LS_ESHAPE, LS_ETYPE and those of
 * ls_input_open. */
ls_status cli_inputs_open(struct cli_inputs *out, const struct cli_world *world,
                          const struct cli_input_options *options, bool keep_f64);
void cli_inputs_close(struct cli_inputs *inputs);

/* The gradient of o: tensor do of --input, else standard normal numbers by the seed of --random, 0
 * for files. Agreed by all ranks; the caller closes it. Errors: LS_ESHAPE and those of
 * ls_input_open. */
ls_status cli_inputs_open_do(struct ls_input *out, const struct cli_inputs *inputs,
                             const struct cli_world *world,
                             const struct cli_input_options *options);

/* Bytes of one rank's parts of q, k, v and o, as attention takes them, and lse, and those that
 * backward adds: do, o_lo, dq, dk, dv and so many numbers for each head, of dsinks and
 * ddistance_bias. Doubles, since the shape may be absurd. */
double cli_tensor_bytes(const struct ls_attention_shape *shape, const struct ls_layout *q_layout,
                        const struct ls_layout *k_layout, int rank);
double cli_gradient_bytes(const struct ls_attention_shape *shape, int64_t numbers,
                          const struct ls_layout *q_layout, const struct ls_layout *k_layout,
                          int rank);

/* Of a rank's rows of dbias, 0 without biases of pairs. */
double cli_bias_gradient_bytes(const struct ls_attention_shape *shape,
                               const struct ls_attention_options *options,
                               const struct ls_layout *q_layout, int rank);

/* A view [b, rows, h, d] of fresh memory on the ledger in the given order; the caller frees data.
 * Errors: LS_ENOMEM. */
ls_status cli_tensor_create(struct ls_tensor *out, ls_dtype type, ls_order order, int64_t b,
                            int64_t rows, int64_t h, int64_t d);

/* As ls_input_load; a message about an element names the option that allows it. */
ls_status cli_input_load(struct ls_tensor *out, const struct cli_world *world,
                         const struct ls_input *source, ls_order order,
                         const struct ls_layout *layout, double limit,
                         struct cli_progress *progress);

/* Allocates and reads this rank's parts of q, k, v, elements of v below v_limit; the caller frees
 * their data, also after an error (what was not allocated is NULL). Agreed by all ranks. */
ls_status cli_inputs_load(struct ls_tensor out[3], const struct cli_inputs *inputs,
                          const struct cli_world *world, const struct ls_layout *q_layout,
                          const struct ls_layout *k_layout, double v_limit,
                          struct cli_progress *progress);

#endif
