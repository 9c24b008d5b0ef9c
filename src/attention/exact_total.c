#include "attention/exact_total.h"

#include "base/exact_sum.h"

size_t ls_exact_total_bytes(int ranks)
{
    return (size_t)ranks * LS_EXACT_PIECE * LS_EXACT_LIMBS * sizeof(int64_t);
}

/* n: at most LS_EXACT_PIECE. */
static ls_status add_ranks(int64_t *limb, int64_t n, struct ls_comm *comm, int64_t *all)
{
    const int64_t limbs = n * LS_EXACT_LIMBS;

    for (int64_t i = 0; i < n; i++) ls_exact_carry(limb + i * LS_EXACT_LIMBS);
    LS_TRY(ls_comm_gather(all, comm, limb, (size_t)limbs * sizeof *limb));
    for (int64_t i = 0; i < limbs; i++) limb[i] = all[i];
    for (int r = 1; r < ls_comm_size(comm); r++)
        for (int64_t i = 0; i < limbs; i++) limb[i] += all[r * limbs + i];
    return LS_OK;
}

ls_status ls_exact_total(int64_t *limb, int64_t n, struct ls_comm *comm, int64_t *room)
{
    for (int64_t first = 0; first < n; first += LS_EXACT_PIECE) {
        const int64_t left = n - first;

        LS_TRY(add_ranks(limb + first * LS_EXACT_LIMBS,
                         left < LS_EXACT_PIECE ? left : LS_EXACT_PIECE, comm, room));
    }
    return LS_OK;
}
