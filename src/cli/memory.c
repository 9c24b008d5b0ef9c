#include "cli/memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "cli/format.h"
#include "comm/comm.h"

/* First line of `path` that `format` reads a number from; -1 if there is none. */
static double read_number(const char *path, const char *format)
{
    char line[512];
    double value = -1;
    FILE *file = fopen(path, "r");

    if (!file) return -1;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, format, &value) == 1) break;
    fclose(file);
    return value;
}

static double smaller_known(double a, double b)
{
    if (a < 0) return b;
    return b >= 0 && b < a ? b : a;
}

/* The limits of this process's own group and of all groups around it. */
static double group_limit(void)
{
    char path[4096 + 32], group[4096] = "";
    double limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes", "%lf");
    FILE *file = fopen("/proc/self/cgroup", "r");

    if (!file) return limit;
    while (fgets(group, sizeof(group), file) && strncmp(group, "0::", 3) != 0) group[0] = '\0';
    fclose(file);
    group[strcspn(group, "\n")] = '\0';
    for (char *slash = group + strlen(group); slash; slash = strrchr(group, '/')) {
        *slash = '\0';
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max",
                 group[0] ? group + strlen("0::") : "");
        limit = smaller_known(limit, read_number(path, "%lf"));
    }
    return limit;
}

double cli_memory_available(void)
{
    const double kib = read_number("/proc/meminfo", "MemAvailable: %lf");
    const double bytes = smaller_known(kib < 0 ? kib : kib * 1024, group_limit());

    return bytes < 0 ? 0 : bytes;
}

double cli_memory_resident_peak(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024;
}

ls_status cli_memory_check(const struct cli_world *world, double bytes)
{
    const int ranks = ls_comm_node_size(world->comm);
    const double available = cli_memory_available();
    ls_status status = LS_OK;

    if (available > 0 && bytes * ranks > available)
        status = ls_fail(LS_ENOMEM,
                         "not enough memory: %d rank%s on this node need%s %s%s, %s are available",
                         ranks, ranks == 1 ? "" : "s", ranks == 1 ? "s" : "", cli_bytes(bytes).s,
                         ranks == 1 ? "" : " each", cli_bytes(available).s);
    return ls_comm_agree(world->comm, status);
}
