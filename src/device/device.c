#include "device/device.h"

#include <string.h>

#include "device/backend.h"

ls_status ls_device_find(struct ls_device *out, const char *name)
{
    for (int i = 0; ls_device_backends[i]; i++) {
        if (strcmp(ls_device_backends[i]->name, name) != 0) continue;
        struct ls_device device = {.ops = ls_device_backends[i]};
        LS_TRY(ls_cpu_isa(&device.isa));
        *out = device;
        return LS_OK;
    }
    return ls_fail(LS_EVALUE, "no device \"%s\" in this build; there is: cpu", name);
}

const char *ls_device_isa(const struct ls_device *device)
{
    return ls_isa_name(device->isa);
}

void ls_device_library(char *out, size_t length, const struct ls_device *device)
{
    device->ops->library(out, length);
}

int ls_device_threads(const struct ls_device *device)
{
    return device->ops->threads();
}

ls_status ls_device_gemm_rate(double *gflops, const struct ls_device *device, ls_dtype type, int m,
                              int n, int k, int threads)
{
    return device->ops->gemm_rate(gflops, device->isa, type, m, n, k, threads);
}

ls_status ls_device_read_rate(double *gbs, const struct ls_device *device, size_t bytes,
                              int threads)
{
    return device->ops->read_rate(gbs, bytes, threads);
}

size_t ls_device_kernel_bytes(const struct ls_device *device, struct ls_kernel_shape shape)
{
    shape.isa = device->isa;
    return device->ops->kernel_bytes(&shape);
}

const char *ls_device_kernel_name(const struct ls_device *device, struct ls_kernel_shape shape)
{
    shape.isa = device->isa;
    return device->ops->kernel_name(&shape);
}

const char *ls_device_gradient_name(const struct ls_device *device, struct ls_kernel_shape shape)
{
    shape.isa = device->isa;
    return device->ops->gradient_name(&shape);
}

ls_status ls_attention_kernel_create(struct ls_attention_kernel **out,
                                     const struct ls_device *device, struct ls_kernel_shape shape)
{
    shape.isa = device->isa;
    return device->ops->kernel_create(out, &shape);
}

void ls_attention_kernel_destroy(const struct ls_device *device, struct ls_attention_kernel *kernel)
{
    if (kernel) device->ops->kernel_destroy(kernel);
}

ls_status ls_attention_kernel_attend(struct ls_kernel_result *result,
                                     const struct ls_device *device,
                                     struct ls_attention_kernel *kernel,
                                     const struct ls_kernel_call *call)
{
    return device->ops->attend(result, kernel, call);
}

void ls_attention_kernel_merge(const struct ls_device *device, struct ls_attention_kernel *kernel,
                               struct ls_row_states into, struct ls_row_states from, int64_t rows)
{
    device->ops->merge(kernel, into, from, rows);
}

bool ls_attention_kernel_is_canonical(const struct ls_device *device,
                                      const struct ls_attention_kernel *kernel)
{
    return device->ops->canonical(kernel);
}

size_t ls_device_gradient_bytes(const struct ls_device *device, struct ls_gradient_shape shape)
{
    shape.attention.isa = device->isa;
    return device->ops->gradient_bytes(&shape);
}

ls_status ls_gradient_kernel_create(struct ls_gradient_kernel **out, const struct ls_device *device,
                                    struct ls_gradient_shape shape)
{
    shape.attention.isa = device->isa;
    return device->ops->gradient_create(out, &shape);
}

void ls_gradient_kernel_destroy(const struct ls_device *device, struct ls_gradient_kernel *kernel)
{
    if (kernel) device->ops->gradient_destroy(kernel);
}

ls_status ls_gradient_kernel_compute(struct ls_kernel_result *result,
                                     const struct ls_device *device,
                                     struct ls_gradient_kernel *kernel,
                                     const struct ls_gradient_call *call)
{
    return device->ops->gradient(result, kernel, call);
}

void ls_device_delta(const struct ls_device *device, float *delta, const struct ls_tensor *d_o,
                     const struct ls_tensor *o, const struct ls_tensor *o_lo,
                     const struct ls_tensor *dlse, int threads)
{
    device->ops->delta(delta, d_o, o, o_lo, dlse, threads);
}

void ls_device_copy(const struct ls_device *device, struct ls_tensor *to,
                    const struct ls_tensor *from, int threads)
{
    device->ops->copy(to, from, threads);
}

void ls_device_zero(const struct ls_device *device, struct ls_tensor *t, int threads)
{
    device->ops->zero(t, threads);
}

void ls_device_add(const struct ls_device *device, float *into, const float *from, int64_t n,
                   int threads)
{
    device->ops->add(into, from, n, threads);
}

void ls_device_round_sums(const struct ls_device *device, struct ls_tensor *out, const float *a,
                          const float *b, int64_t group, int threads)
{
    device->ops->round_sums(out, a, b, group, threads);
}
