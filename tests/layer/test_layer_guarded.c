/* A layer computes on a device whose memory the host must not touch (guarded.h), and gets the bits
 * of the CPU: what a GPU asks of src/layer. */
#include "../mpi/guarded.h"
#include "forms.h"
#include "side.h"

MPI_SUITE(layer_guarded)

/* Between them all operations of a fused core, and every piece made again. */
static void check_guarded(const struct form *form, int t, bool sp)
{
    static const char *const sets[] = {"none", "core,norm,mlp,qkv", "full", "activation,dropout"};
    struct side plain = side_of(form, t, sp), apart = plain;

    if (form->options.core == LS_CORE_MATERIALIZED) return;
    MPI_CHECK_OK(ls_device_open(&plain.device, "cpu", 0, 2));
    apart.device = guarded_device(2);
    MPI_CHECK(apart.device != NULL, "%s", ls_message());
    plain.options.recompute = apart.options.recompute = sets[(form - forms + t + sp) % COUNT(sets)];
    open_side(&plain);
    open_side(&apart);
    run_side(&plain);
    run_side(&apart);
    MPI_CHECK(has_same_results(&plain, &apart), "%s", text_of(&apart));
    close_side(&apart);
    close_side(&plain);
}

MPI_TEST(layer_guarded, computes_there_on_any_grid)
{
    check_forms(check_guarded);
}
