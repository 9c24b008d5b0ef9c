#include "layer/grid.h"

#include <stdlib.h>

static ls_status check(const struct ls_comm *comm, int t, int c)
{
    const int size = ls_comm_size(comm);

    if (t >= 1 && c >= 1 && (int64_t)t * c == size) return LS_OK;
    return ls_fail(LS_EVALUE,
                   "%d tensor-parallel x %d context-parallel ranks are not the %d there are", t, c,
                   size);
}

/* The ranks first, first + step, .. of all. */
static ls_status split(struct ls_comm **out, struct ls_comm *all, int first, int step, int n)
{
    int *ranks = calloc((size_t)n, sizeof *ranks);
    ls_status status = ranks ? LS_OK : ls_fail(LS_ENOMEM, "no memory for a list of %d ranks", n);

    LS_TRY_GOTO(status, ls_comm_agree(all, status), end);
    for (int i = 0; i < n; i++) ranks[i] = first + i * step;
    status = ls_comm_split(out, all, ranks, n);
end:
    free(ranks);
    return status;
}

ls_status ls_grid_init(struct ls_grid *out, struct ls_comm *comm, int t, int c, bool sp)
{
    const int rank = ls_comm_rank(comm);

    *out = (struct ls_grid){.t = t, .c = c, .sp = sp && t > 1};
    LS_TRY(ls_comm_agree(comm, check(comm, t, c)));
    out->tensor = rank % t;
    out->context = rank / t;
    LS_TRY(ls_comm_duplicate(&out->all, comm));
    LS_TRY(split(&out->tensor_ranks, out->all, rank - rank % t, 1, t));
    return split(&out->context_ranks, out->all, rank % t, t, c);
}

ls_status ls_grid_split(struct ls_comm **out, const struct ls_grid *grid, int n)
{
    const int rank = ls_comm_rank(grid->all);

    return split(out, grid->all, rank - rank % n, 1, n);
}

void ls_grid_fini(struct ls_grid *grid)
{
    ls_comm_destroy(grid->context_ranks);
    ls_comm_destroy(grid->tensor_ranks);
    ls_comm_destroy(grid->all);
}

struct ls_outer_rows ls_grid_outer_rows(const struct ls_grid *grid, int64_t n, int tensor)
{
    const int64_t base = n / grid->t, more = n % grid->t;

    if (!grid->sp) return (struct ls_outer_rows){0, n};
    return (struct ls_outer_rows){.first = tensor * base + (tensor < more ? tensor : more),
                                  .count = base + (tensor < more)};
}
