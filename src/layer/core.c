#include "layer/core.h"

ls_status ls_layer_core_of(const struct ls_layer_core **out, ls_core_kind kind)
{
    static const struct ls_layer_core *const table[] = {[LS_CORE_FUSED] = &ls_layer_core_fused,
                                                        [LS_CORE_MATERIALIZED] =
                                                            &ls_layer_core_materialized};

    if ((unsigned)kind >= sizeof table / sizeof *table)
        return ls_fail(LS_EVALUE, "core is %d, which names none", (int)kind);
    *out = table[kind];
    return LS_OK;
}
