/* The description of this machine is complete and agrees with what the system says. */
#include <criterion/criterion.h>
#include <unistd.h>

#include "base/machine.h"

Test(machine, has_processors_cores_and_caches)
{
    struct ls_machine machine;

    cr_assert_eq(ls_machine_describe(&machine), LS_OK, "%s", ls_message());
    cr_expect_geq(machine.processors, machine.cores);
    cr_expect_geq(machine.cores, machine.packages);
    cr_expect_geq(machine.packages, 1);
    cr_expect_geq(machine.numa_nodes, 1);
    cr_expect_leq(machine.l1d_bytes, machine.l2_bytes);
    cr_expect_geq(machine.processors, (int)sysconf(_SC_NPROCESSORS_ONLN));
    cr_expect_neq(machine.model[0], '\0');
}
