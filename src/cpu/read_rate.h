/* The bandwidth of memory; see device/device.h. */
#ifndef LS_CPU_READ_RATE_H
#define LS_CPU_READ_RATE_H

#include <stddef.h>

#include "base/status.h"

ls_status cpu_read_rate(double *gbs, size_t bytes, int threads);

#endif
