/* A device: what computes, and the memory that it computes in. */
#ifndef LONGSPAN_DEVICE_H
#define LONGSPAN_DEVICE_H

#include "longspan/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ls_device;

/* Opens a device of this process: "cpu", ordinal 0, whose kernels run on so many OpenMP threads; 0:
 * as many as OpenMP would use, and as a control group has processor time for. What it computes with
 * is the best instruction set of this machine, or LONGSPAN_ISA. The caller closes it after the last
 * plan that was made with it. Not collective. Errors: LS_EVALUE (no such device or ordinal, the
 * message names those there are; threads below 0 or above 4096; a bad LONGSPAN_ISA), LS_ENOMEM. */
LS_API ls_status ls_device_open(struct ls_device **out, const char *name, int ordinal, int threads);

/* Accepts NULL. */
LS_API void ls_device_close(struct ls_device *device);

#ifdef __cplusplus
}
#endif
#endif
