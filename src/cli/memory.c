#include "cli/memory.h"

#include <math.h>
#include <stdio.h>

#include "cli/format.h"
#include "comm/comm.h"

/* Libraries, stacks and buffers, which no ledger counts: up to 13 MiB were seen. */
#define PROCESS_BYTES ((double)(16 << 20))

/* What the system calls available. */
static double system_bytes(void)
{
    char line[256];
    double kib = INFINITY;
    FILE *file = fopen("/proc/meminfo", "r");

    if (!file) return INFINITY;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "MemAvailable: %lf", &kib) == 1) break;
    fclose(file);
    return kib * 1024;
}

void cli_memory_find(struct cli_memory *out)
{
    *out = (struct cli_memory){.available = system_bytes()};
    ls_cgroup_memory(&out->group, "");
    if (out->group.left >= out->available) {
        out->group.limit = INFINITY;
        return;
    }
    out->available = out->group.left;
    snprintf(out->reason, sizeof out->reason, " (limit of cgroup %s: %s)", out->group.group,
             cli_bytes(out->group.limit).s);
}

/* VmHWM; what getrusage says goes back to before the program was started. */
double cli_memory_resident_peak(void)
{
    char line[256];
    double kib = 0;
    FILE *file = fopen("/proc/self/status", "r");

    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lf", &kib) == 1) break;
    fclose(file);
    return kib * 1024;
}

ls_status cli_memory_check(const struct cli_world *world, double bytes)
{
    const int ranks = ls_comm_node_size(world->comm);
    struct cli_memory memory;
    ls_status status = LS_OK;

    bytes += PROCESS_BYTES;
    cli_memory_find(&memory);
    if (bytes * ranks > memory.available)
        status = ls_fail(
            LS_ENOMEM, "not enough memory: %d rank%s on this node need%s %s%s, %s are available%s",
            ranks, ranks == 1 ? "" : "s", ranks == 1 ? "s" : "", cli_bytes(bytes).s,
            ranks == 1 ? "" : " each", cli_bytes(memory.available).s, memory.reason);
    return ls_comm_agree(world->comm, status);
}
