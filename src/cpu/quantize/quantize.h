/* The family of operations that quantize keys and values (device/quantize.h). */
#ifndef LS_CPU_QUANTIZE_QUANTIZE_H
#define LS_CPU_QUANTIZE_QUANTIZE_H

#include "device/quantize.h"

extern const struct ls_quantize_ops cpu_quantize_ops;

#endif
