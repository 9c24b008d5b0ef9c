/* The one place that names the backends of floor 4. */
#include "device/backend.h"

#include <stddef.h>

#include "cpu/device.h"

const struct ls_device_ops *const ls_device_backends[] = {&ls_cpu_device_ops, NULL};
