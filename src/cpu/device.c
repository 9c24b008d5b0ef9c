#include "cpu/device.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/cgroup.h"
#include "cpu/attention/attention.h"
#include "cpu/gemm.h"
#include "cpu/gradient/kernel.h"
#include "cpu/linear/linear.h"
#include "cpu/materialized/materialized.h"
#include "cpu/norm/norm.h"
#include "cpu/pointwise/pointwise.h"
#include "cpu/quantize/quantize.h"
#include "cpu/rates.h"
#include "cpu/rows/rows.h"

static int ordinals(void)
{
    return 1;
}

/* OpenMP counts processors, of whose time a control group may give less. Who has set a number means
 * it. */
static int default_threads(void)
{
    const int threads = omp_get_max_threads();
    struct ls_cgroup_limit processors;

    if (getenv("OMP_NUM_THREADS") || threads != omp_get_num_procs()) return threads;
    ls_cgroup_processors(&processors, "");
    return (int)fmin(threads, fmax(1, ceil(processors.limit)));
}

static ls_status open_cpu(void **self, int ordinal, int threads)
{
    struct cpu cpu = {.threads = threads > 0 ? threads : default_threads()};

    (void)ordinal;
    LS_TRY(ls_cpu_isa(&cpu.isa));
    *self = malloc(sizeof cpu);
    if (!*self) return ls_fail(LS_ENOMEM, "no memory for a device");
    memcpy(*self, &cpu, sizeof cpu);
    return LS_OK;
}

static void facts(struct ls_device_facts *out, void *self)
{
    const struct cpu *cpu = self;

    *out = (struct ls_device_facts){.threads = cpu->threads, .isa = ls_isa_name(cpu->isa)};
    cpu_gemm_library(out->library, sizeof out->library);
}

/* ---- memory: the host's */

static ls_status alloc_host(void **out, void *self, ls_tag tag, size_t bytes)
{
    (void)self;
    return ls_alloc(out, tag, bytes);
}

static void free_host(void *self, void *memory)
{
    (void)self;
    ls_free(memory);
}

static void copy_host(void *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    if (bytes > 0) memcpy(to, from, bytes);
}

static struct ls_ledger *ledger(void *self)
{
    (void)self;
    return &ls_host_ledger;
}

static const struct ls_memory_ops memory = {.alloc = alloc_host,
                                            .free = free_host,
                                            .write = copy_host,
                                            .read = copy_host,
                                            .ledger = ledger};

/* ---- queue: what is put in is done at once */

static ls_status finish(struct ls_queue *queue)
{
    (void)queue;
    return LS_OK;
}

static const struct ls_queue_ops queue = {.finish = finish};

const struct ls_device_ops ls_cpu_device_ops = {
    .name = "cpu",
    .ordinals = ordinals,
    .open = open_cpu,
    .close = free,
    .facts = facts,
    .memory = &memory,
    .queue = &queue,
    .attention = &cpu_attention_ops,
    .gradient = &cpu_gradient_ops,
    .bias_gradient = &cpu_bias_gradient_ops,
    .linear = &cpu_linear_ops,
    .materialized = &cpu_materialized_ops,
    .rows = &cpu_row_ops,
    .norm = &cpu_norm_ops,
    .pointwise = &cpu_pointwise_ops,
    .quantize = &cpu_quantize_ops,
    .rates = &cpu_rate_ops,
};
