/* The CPU as a device: products by gemm.h, own SIMD, OpenMP threads. */
#ifndef LS_CPU_DEVICE_H
#define LS_CPU_DEVICE_H

#include "base/cpu.h"
#include "device/device.h"

extern const struct ls_device_ops ls_cpu_device_ops;

/* One that is open. */
struct cpu {
    ls_isa isa;
    int threads;
};

#endif
