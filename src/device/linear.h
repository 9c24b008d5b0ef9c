/* Linear layers, y = x w^T + bias, and their gradients. Tensors are of two dimensions, tokens and
 * features, and may have any stride between rows: x [rows, in], y [rows, out], w [out, in]. What a
 * row of y or dx becomes depends on that row and on w, not on where it stands or what stands beside
 * it, nor on threads. */
#ifndef LS_DEVICE_LINEAR_H
#define LS_DEVICE_LINEAR_H

#include "device/attention.h"
#include "device/device.h"

/* Sums of more terms than this are cut into parts of so many, which are added one after the other.
 */
#define LS_LINEAR_CHUNK 1024

/* What a kernel of a linear layer is made for. */
struct ls_linear_shape {
    ls_dtype type; /* LS_BF16 or LS_F32, of everything but dw; results may be f32 in any case */
    int64_t rows;  /* the most tokens of one call */
    int64_t in, out;
    bool backward; /* gradients too; then, of the whole problem: */
    int64_t b, s;  /* sequences, whose leaves are numbered one sequence after the other, and the
                    * tokens of each */
};

struct ls_linear_call {
    struct ls_tensor *y;
    struct ls_tensor *z; /* of y's type. With gelu: what it was applied to, NULL: not wanted; else
                          * NULL */
    const struct ls_tensor *x, *w;
    const struct ls_tensor *bias; /* [out]; NULL: none */
    bool gelu;                    /* its tanh form, of z as z is stored */
    bool packed;                  /* w is that of the call before, of ls_linear too */
};

/* dx [rows, in] = dy w */
struct ls_linear_input_gradient {
    struct ls_tensor *dx;
    const struct ls_tensor *dy, *w;
    bool packed; /* w is that of the call before, of ls_linear_dx too */
};

/* dw [out, in] f32 = sum of dy^T x over these leaves of tokens, by the tree over their numbers.
 * Their rows in dy and x are the same; `number` is batch x leaves of a sequence + leaf. */
struct ls_linear_sum {
    struct ls_tensor *dw;
    bool add; /* to what dw holds */
    const struct ls_tensor *dy, *x;
    struct ls_leaf_list leaves; /* of the host */
};

struct ls_linear_kernel;

struct ls_linear_ops {
    const char *(*name)(void *self, ls_dtype type);
    size_t (*bytes)(void *self, const struct ls_linear_shape *shape);
    ls_status (*create)(struct ls_linear_kernel **out, void *self,
                        const struct ls_linear_shape *shape);
    void (*destroy)(struct ls_linear_kernel *kernel);
    void (*forward)(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                    const struct ls_linear_call *call);
    void (*dx)(struct ls_queue *queue, struct ls_linear_kernel *kernel,
               const struct ls_linear_input_gradient *call);
    void (*dw)(struct ls_queue *queue, struct ls_linear_kernel *kernel,
               const struct ls_linear_sum *sum);
};

/* What kernels of this type multiply with on this machine; static. */
const char *ls_linear_kernel_name(const struct ls_device *device, ls_dtype type);

/* Bytes of workspace that a kernel of this shape takes from the ledger; exact. */
size_t ls_linear_kernel_bytes(const struct ls_device *device, const struct ls_linear_shape *shape);

/* The caller destroys the kernel; destroy accepts NULL. Errors: LS_ENOMEM; LS_ETYPE for a type that
 * is neither bf16 nor f32. */
ls_status ls_linear_kernel_create(struct ls_linear_kernel **out, const struct ls_device *device,
                                  const struct ls_linear_shape *shape);
void ls_linear_kernel_destroy(const struct ls_device *device, struct ls_linear_kernel *kernel);

/* y = x w^T + bias, or gelu of it, rounded once (twice with gelu: z, and y), or left in f32, as
 * sums over ranks want it. Outputs overlap nothing. Allocates nothing. 2 rows in out flop; the
 * weights are packed in each call, unless it says that they are: so rows may come in pieces. */
void ls_linear(struct ls_queue *queue, struct ls_linear_kernel *kernel,
               const struct ls_linear_call *call);

/* dx is rounded once or left in f32; weights as above. */
void ls_linear_dx(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                  const struct ls_linear_input_gradient *call);

void ls_linear_dw(struct ls_queue *queue, struct ls_linear_kernel *kernel,
                  const struct ls_linear_sum *sum);

#endif
