/* The devices that this build has; src/backends.c lists them. */
#ifndef LS_DEVICE_BACKEND_H
#define LS_DEVICE_BACKEND_H

#include "device/device.h"

/* NULL-terminated. */
extern const struct ls_device_ops *const ls_device_backends[];

#endif
