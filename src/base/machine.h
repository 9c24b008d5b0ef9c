/* What this machine is made of, as hwloc sees it. */
#ifndef LS_BASE_MACHINE_H
#define LS_BASE_MACHINE_H

#include <stddef.h>

#include "base/status.h"

struct ls_machine {
    char model[128]; /* such as "AMD EPYC 9R14"; "unknown CPU" where the system does not say */
    int packages, cores, processors, numa_nodes;
    size_t l1d_bytes, l2_bytes, l3_bytes; /* of one cache; 0 if there is none */
};

/* Takes some milliseconds. Errors: LS_EINTERNAL. */
ls_status ls_machine_describe(struct ls_machine *out);

#endif
