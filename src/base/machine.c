#include "base/machine.h"

#include <hwloc.h>
#include <stdio.h>

static size_t cache_bytes(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const hwloc_obj_t cache = hwloc_get_obj_by_type(topology, type, 0);

    return cache ? (size_t)cache->attr->cache.size : 0;
}

static int count(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const int n = hwloc_get_nbobjs_by_type(topology, type);

    return n > 0 ? n : 0;
}

static const char *model_name(hwloc_topology_t topology)
{
    const hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
    const char *name = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : NULL;

    return name ? name : "unknown CPU";
}

ls_status ls_machine_describe(struct ls_machine *out)
{
    hwloc_topology_t topology;

    if (hwloc_topology_init(&topology) != 0)
        return ls_fail(LS_EINTERNAL, "hwloc cannot be initialised");
    if (hwloc_topology_load(topology) != 0) {
        hwloc_topology_destroy(topology);
        return ls_fail(LS_EINTERNAL, "hwloc cannot read this machine's topology");
    }
    *out = (struct ls_machine){
        .packages = count(topology, HWLOC_OBJ_PACKAGE),
        .cores = count(topology, HWLOC_OBJ_CORE),
        .processors = count(topology, HWLOC_OBJ_PU),
        .numa_nodes = count(topology, HWLOC_OBJ_NUMANODE),
        .l1d_bytes = cache_bytes(topology, HWLOC_OBJ_L1CACHE),
        .l2_bytes = cache_bytes(topology, HWLOC_OBJ_L2CACHE),
        .l3_bytes = cache_bytes(topology, HWLOC_OBJ_L3CACHE),
    };
    snprintf(out->model, sizeof out->model, "%s", model_name(topology));
    hwloc_topology_destroy(topology);
    return LS_OK;
}
