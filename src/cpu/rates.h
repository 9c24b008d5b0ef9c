/* The family of rates (device/device.h). */
#ifndef LS_CPU_RATES_H
#define LS_CPU_RATES_H

#include "device/device.h"

extern const struct ls_rate_ops cpu_rate_ops;

#endif
