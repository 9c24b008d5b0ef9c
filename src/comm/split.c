/* Sub-groups: whether the lists that name them fit together, and that all ranks get theirs or none.
 */
#include <stdlib.h>

#include "comm/comm.h"

/* *place: of this rank in the list. */
static ls_status check_members(int *place, const struct ls_comm *comm, const int *ranks, int n)
{
    bool *named = calloc((size_t)ls_comm_size(comm), sizeof *named);
    ls_status status =
        named ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a list of %d ranks", ls_comm_size(comm));

    *place = -1;
    for (int i = 0; i < n && status == LS_OK; i++) {
        if (ranks[i] < 0 || ranks[i] >= ls_comm_size(comm))
            status = ls_fail(LS_EVALUE, "sub-group: rank %d, the ranks are 0 to %d", ranks[i],
                             ls_comm_size(comm) - 1);
        else if (named[ranks[i]])
            status = ls_fail(LS_EVALUE, "sub-group: rank %d is named twice", ranks[i]);
        else
            named[ranks[i]] = true;
        if (ranks[i] == ls_comm_rank(comm)) *place = i;
    }
    free(named);
    if (status == LS_OK && *place < 0)
        status = ls_fail(LS_EVALUE,
                         "sub-group: rank %d is not among its %d ranks: each rank names those of "
                         "its own sub-group",
                         ls_comm_rank(comm), n);
    return status;
}

/* Every rank that this one names must have named the same, in the same order. */
static ls_status compare_members(struct ls_comm *comm, const int *ranks, int n)
{
    const size_t p = (size_t)ls_comm_size(comm);
    int *own = calloc(p, sizeof *own), *all = calloc(p * p, sizeof *all);
    ls_status status =
        own && all ? LS_OK
                   : ls_fail(LS_ENOMEM, "no memory for lists of %d ranks", ls_comm_size(comm));

    LS_TRY_GOTO(status, ls_comm_agree(comm, status), free_all);
    for (int i = 0; i < ls_comm_size(comm); i++) own[i] = i < n ? ranks[i] : -1;
    LS_TRY_GOTO(status, ls_comm_gather(all, comm, own, p * sizeof *own), free_all);
    for (int i = 0; i < n && status == LS_OK; i++)
        for (size_t k = 0; k < p && status == LS_OK; k++)
            if (all[(size_t)ranks[i] * p + k] != own[k])
                status = ls_fail(
                    LS_EVALUE, "sub-group: rank %d names other ranks than rank %d, which names it",
                    ranks[i], ls_comm_rank(comm));
    status = ls_comm_agree(comm, status);
free_all:
    free(all);
    free(own);
    return status;
}

/* Those of one sub-group have agreed; here all of them do. */
static ls_status agree_on_split(struct ls_comm **out, struct ls_comm *comm, struct ls_comm *some,
                                ls_status status)
{
    const ls_status agreed = status == LS_ECOMM ? status : ls_comm_agree(comm, status);

    if (agreed == LS_OK)
        *out = some;
    else if (status == LS_OK)
        ls_comm_destroy(some);
    return agreed;
}

ls_status ls_comm_split(struct ls_comm **out, struct ls_comm *comm, const int *ranks, int n)
{
    struct ls_comm *some = NULL;
    int place;

    LS_TRY(ls_comm_agree(comm, check_members(&place, comm, ranks, n)));
    LS_TRY(compare_members(comm, ranks, n));
    const ls_status status = ls_comm_split_off(&some, comm, ranks, n, place);

    return agree_on_split(out, comm, some, status);
}
