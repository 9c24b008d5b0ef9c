#include "device/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/backend.h"
#include "longspan/attention.h"

static ls_status check_ordinal(const struct ls_device_ops *ops, int ordinal)
{
    const int count = ops->ordinals();

    if (ordinal >= 0 && ordinal < count) return LS_OK;
    return ls_fail(LS_EVALUE, "device %s %d: there %s %d, numbered from 0", ops->name, ordinal,
                   count == 1 ? "is" : "are", count);
}

ls_status ls_device_open_backend(struct ls_device **out, const struct ls_device_ops *ops,
                                 int ordinal, int threads)
{
    struct ls_device *device;
    void *self;

    LS_TRY(check_ordinal(ops, ordinal));
    if (threads < 0 || threads > LS_MOST_THREADS)
        return ls_fail(
            LS_EVALUE,
            "threads is %d, must be 1 to %d, as each has memory of its own, or 0: as many as "
            "OpenMP would use",
            threads, LS_MOST_THREADS);
    LS_TRY(ops->open(&self, ordinal, threads));
    device = calloc(1, sizeof *device);
    if (!device) {
        ops->close(self);
        return ls_fail(LS_ENOMEM, "no memory for a device");
    }
    device->ops = ops;
    device->self = self;
    device->queue.device = device;
    ops->facts(&device->facts, self);
    *out = device;
    return LS_OK;
}

ls_status ls_device_open(struct ls_device **out, const char *name, int ordinal, int threads)
{
    char names[128] = "";
    size_t used = 0;

    for (int i = 0; ls_device_backends[i]; i++) {
        const struct ls_device_ops *ops = ls_device_backends[i];

        if (strcmp(ops->name, name) == 0) return ls_device_open_backend(out, ops, ordinal, threads);
        if (used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                     ops->name);
    }
    return ls_fail(LS_EVALUE, "no device \"%s\" in this build; there is: %s", name, names);
}

void ls_device_close(struct ls_device *device)
{
    if (!device) return;
    device->ops->close(device->self);
    free(device);
}

/* ---- memory */

ls_status ls_device_alloc(void **out, struct ls_device *device, ls_tag tag, size_t bytes)
{
    return device->ops->memory->alloc(out, device->self, tag, bytes);
}

void ls_device_free(struct ls_device *device, void *memory)
{
    if (memory) device->ops->memory->free(device->self, memory);
}

void ls_device_write(struct ls_device *device, void *to, const void *host, size_t bytes)
{
    device->ops->memory->write(device->self, to, host, bytes);
}

void ls_device_read(struct ls_device *device, void *host, const void *from, size_t bytes)
{
    device->ops->memory->read(device->self, host, from, bytes);
}

struct ls_ledger *ls_device_ledger(struct ls_device *device)
{
    return device->ops->memory->ledger(device->self);
}

bool ls_device_holds(const struct ls_device *device, const void *memory)
{
    const struct ls_memory_ops *ops = device->ops->memory;

    return !ops->holds || ops->holds(device->self, memory);
}

/* ---- queue */

bool ls_queue_is_open(const struct ls_queue *queue)
{
    return queue->status == LS_OK;
}

void ls_queue_note(struct ls_queue *queue, ls_status status)
{
    if (status == LS_OK || queue->status != LS_OK) return;
    queue->status = status;
    snprintf(queue->message, sizeof queue->message, "%s", ls_message());
}

ls_status ls_queue_finish(struct ls_work *out, struct ls_queue *queue)
{
    ls_queue_note(queue, queue->device->ops->queue->finish(queue));
    const ls_status status = queue->status;

    if (out) {
        out->tiles += queue->work.tiles;
        ls_profile_merge(&out->profile, &queue->work.profile);
    }
    queue->work = (struct ls_work){0};
    queue->status = LS_OK;
    return status == LS_OK ? LS_OK : ls_fail(status, "%s", queue->message);
}

/* ---- rates */

ls_status ls_device_gemm_rate(double *gflops, struct ls_device *device, ls_dtype type, int m, int n,
                              int k)
{
    return device->ops->rates->gemm(gflops, device->self, type, m, n, k);
}

ls_status ls_device_read_rate(double *gbs, struct ls_device *device, size_t bytes)
{
    return device->ops->rates->read(gbs, device->self, bytes);
}
