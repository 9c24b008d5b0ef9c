#include "attention/travelling/redistribute.h"

#include <stdlib.h>

#include "attention/plan.h"
#include "base/ledger.h"
#include "tensor/layout.h"

struct ls_redistribution {
    struct ls_comm *comm;
    const struct ls_problem *problem;
    int64_t *q_first, *k_first;           /* storage of the pieces */
    struct ls_tensor part[LS_TRAVELLERS]; /* this rank's; without data where its piece serves */
    struct ls_tensor delta;               /* [b, h, s] of this rank's piece, if that is no part */
    void *packed;                         /* rows of its pieces that are of other ranks' parts */
    struct ls_tensor *views;              /* [2][LS_TRAVELLERS][p], see part_rows, packed_rows */
    struct ls_batch batch;                /* one all-to-all */
};

/* ---- creation */

/* first [p + 1]: each rank says how many rows it has. */
static ls_status gather_pieces(int64_t *first, struct ls_comm *comm, int64_t rows, int64_t s,
                               const char *what)
{
    const int p = ls_comm_size(comm);
    int64_t least = s, most = 0;

    LS_TRY(ls_comm_gather(first + 1, comm, &rows, sizeof rows));
    first[0] = 0;
    for (int r = 1; r <= p; r++) {
        if (first[r] < least) least = first[r];
        if (first[r] > most) most = first[r];
        first[r] += first[r - 1];
    }
    if (first[p] == s) return LS_OK;
    return ls_fail(LS_ESHAPE,
                   "the ranks' own rows are %ld %s (%ld to %ld each), the sequence has %ld",
                   (long)first[p], what, (long)least, (long)most, (long)s);
}

struct ls_pieces ls_redistribution_pieces(const struct ls_redistribution *r)
{
    return (struct ls_pieces){.q_first = r->q_first, .k_first = r->k_first};
}

static struct ls_cuts own_cuts(const struct ls_redistribution *r, enum ls_traveller which)
{
    const struct ls_pieces pieces = ls_redistribution_pieces(r);

    return ls_cuts_of(r->problem, &pieces, which);
}

/* Whether this rank's piece is its part. */
static bool stays(const struct ls_redistribution *r, enum ls_traveller which)
{
    return r->part[which].data == NULL;
}

/* [p] the runs of this rank's part, by the rank in whose piece they stand. */
static struct ls_tensor *part_rows(const struct ls_redistribution *r, enum ls_traveller which)
{
    return r->views + which * r->problem->p;
}

/* [p] the rows of this rank's piece by the rank of whose part they are: its own where they are in
 * its part, the others packed. */
static struct ls_tensor *packed_rows(const struct ls_redistribution *r, enum ls_traveller which)
{
    return r->views + (LS_TRAVELLERS + which) * r->problem->p;
}

static ls_status create_part(struct ls_redistribution *r, enum ls_traveller which)
{
    const struct ls_cuts cuts = own_cuts(r, which);
    const int rank = ls_comm_rank(r->comm);
    const int64_t rows = ls_layout_part_rows(cuts.layout, rank);
    void *memory;

    if (!ls_traveller_is_used(r->problem, which) || ls_cuts_piece_is_part(&cuts, rank))
        return LS_OK;
    LS_TRY(ls_problem_alloc(&memory, r->problem, LS_TAG_ACTIVATION,
                            ls_traveller_row_bytes(r->problem, which) * (size_t)rows));
    char *end = memory;
    r->part[which] =
        ls_travel_carve(&end, r->problem, which, rows, ls_traveller_heads(r->problem, which));
    for (int peer = 0; peer < r->problem->p; peer++) {
        const struct ls_run run = ls_cuts_shared_rows(&cuts, peer, rank);
        part_rows(r, which)[peer] = ls_range_of(&r->part[which], 1, run.first, run.count);
    }
    return LS_OK;
}

static ls_status create_delta(struct ls_redistribution *r, size_t bytes)
{
    const struct ls_attention_shape *s = &r->problem->shape;
    const int rank = ls_comm_rank(r->comm);
    const int64_t dim[] = {s->b, s->h, r->q_first[rank + 1] - r->q_first[rank]};

    r->delta = ls_tensor_view(NULL, LS_F32, 3, dim);
    if (stays(r, LS_DELTA)) return LS_OK;
    return ls_problem_alloc(&r->delta.data, r->problem, LS_TAG_ACTIVATION, bytes);
}

static ls_status create_buffers(struct ls_redistribution *r)
{
    const struct ls_pieces pieces = ls_redistribution_pieces(r);
    const struct ls_volume v = ls_volume_of(r->problem, &pieces, ls_comm_rank(r->comm));

    for (int which = 0; which < LS_TRAVELLERS; which++) LS_TRY(create_part(r, which));
    LS_TRY(create_delta(r, v.delta));
    return ls_problem_alloc(&r->packed, r->problem, LS_TAG_ACTIVATION, ls_volume_packed(&v));
}

static ls_status create_lists(struct ls_redistribution *r, struct ls_comm *comm,
                              const struct ls_transport *transport,
                              const struct ls_problem *problem)
{
    const size_t p = (size_t)problem->p;

    r->comm = comm;
    r->problem = problem;
    r->q_first = calloc(p + 1, sizeof *r->q_first);
    r->k_first = calloc(p + 1, sizeof *r->k_first);
    r->views = calloc(2 * LS_TRAVELLERS * p, sizeof *r->views);
    if (!r->q_first || !r->k_first || !r->views)
        return ls_fail(LS_ENOMEM, "redistribution: out of memory");
    return ls_batch_init(&r->batch, transport, 2 * LS_TRAVELLERS * problem->p);
}

ls_status ls_redistribution_create(struct ls_redistribution **out, struct ls_comm *comm,
                                   const struct ls_transport *transport,
                                   const struct ls_problem *problem, int64_t q_rows, int64_t k_rows)
{
    struct ls_redistribution *r = calloc(1, sizeof *r);
    ls_status status = r ? create_lists(r, comm, transport, problem)
                         : ls_fail(LS_ENOMEM, "redistribution: out of memory");

    LS_TRY_GOTO(status, ls_comm_agree(comm, status), destroy);
    LS_TRY_GOTO(status, gather_pieces(r->q_first, comm, q_rows, problem->shape.s_q, "queries"),
                destroy);
    LS_TRY_GOTO(status, gather_pieces(r->k_first, comm, k_rows, problem->shape.s_k, "keys"),
                destroy);
    LS_TRY_GOTO(status, ls_comm_agree(comm, create_buffers(r)), destroy);
    *out = r;
    return LS_OK;
destroy:
    ls_redistribution_destroy(r);
    return status;
}

void ls_redistribution_destroy(struct ls_redistribution *r)
{
    if (!r) return;
    for (int which = 0; which < LS_TRAVELLERS; which++)
        ls_problem_free(r->problem, r->part[which].data);
    ls_problem_free(r->problem, r->delta.data);
    ls_problem_free(r->problem, r->packed);
    ls_batch_fini(&r->batch);
    free(r->views);
    free(r->k_first);
    free(r->q_first);
    free(r);
}

/* ---- execution */

void ls_redistribution_part(struct ls_tensor *part, const struct ls_redistribution *r,
                            enum ls_traveller which, const struct ls_tensor *piece)
{
    if (stays(r, which))
        *part = *piece;
    else
        *part =
            ls_traveller_is_number(which) ? ls_travel_transposed(&r->part[which]) : r->part[which];
}

struct ls_tensor ls_redistribution_delta(const struct ls_redistribution *r, float *part)
{
    struct ls_tensor delta = r->delta;

    if (stays(r, LS_DELTA)) delta.data = part;
    return delta;
}

/* Whether a traveller takes part in an exchange. */
static bool moves(const struct ls_redistribution *r, enum ls_traveller which,
                  const struct ls_tensor *const piece[LS_TRAVELLERS])
{
    return piece[which] && !stays(r, which);
}

/* Those that move share the packed memory. */
static void place_packed(struct ls_redistribution *r,
                         const struct ls_tensor *const piece[LS_TRAVELLERS])
{
    const int rank = ls_comm_rank(r->comm);
    char *end = r->packed;

    for (int which = 0; which < LS_TRAVELLERS; which++) {
        const struct ls_cuts cuts = own_cuts(r, which);
        const int64_t heads = ls_traveller_heads(r->problem, which);

        for (int owner = 0; owner < r->problem->p && moves(r, which, piece); owner++) {
            const int64_t rows = ls_cuts_shared_rows(&cuts, rank, owner).count;

            packed_rows(r, which)[owner] =
                owner == rank ? part_rows(r, which)[rank]
                              : ls_travel_carve(&end, r->problem, which, rows, heads);
        }
    }
}

enum direction { FROM_PIECE, INTO_PIECE };

/* Leaf by leaf: rows of a part are together in a piece as far as a leaf goes. */
static void copy_piece(const struct ls_redistribution *r, enum ls_traveller which,
                       const struct ls_tensor *piece, enum direction direction)
{
    const struct ls_cuts cuts = own_cuts(r, which);
    const int rank = ls_comm_rank(r->comm);
    const struct ls_tensor whole =
        ls_traveller_is_number(which) ? ls_travel_transposed(piece) : *piece;

    for (int owner = 0; owner < r->problem->p; owner++) {
        const struct ls_run run = ls_cuts_shared_rows(&cuts, rank, owner);

        for (int64_t i = 0, n; i < run.count; i += n) {
            const int64_t row = run.first + i, to_leaf_end = LS_LEAF - row % LS_LEAF;
            const int64_t position = ls_layout_position(cuts.layout, owner, row);

            n = to_leaf_end < run.count - i ? to_leaf_end : run.count - i;
            struct ls_tensor here = ls_range_of(&whole, 1, position - cuts.first[rank], n);
            struct ls_tensor there = ls_range_of(&packed_rows(r, which)[owner], 1, i, n);
            if (direction == FROM_PIECE)
                ls_problem_copy(r->problem, &there, &here);
            else
                ls_problem_copy(r->problem, &here, &there);
        }
    }
}

/* [p] each: of every other rank, and for it. */
static void add_exchange(struct ls_redistribution *r, const struct ls_tensor *into,
                         const struct ls_tensor *from)
{
    for (int peer = 0; peer < r->problem->p; peer++) {
        if (peer == ls_comm_rank(r->comm)) continue;
        if (into[peer].dim[1] > 0)
            ls_batch_receive(&r->batch, into[peer].data, ls_travel_bytes(&into[peer]), peer);
        if (from[peer].dim[1] > 0)
            ls_batch_send(&r->batch, from[peer].data, ls_travel_bytes(&from[peer]), peer);
    }
}

ls_status ls_redistribute_to_parts(struct ls_redistribution *r,
                                   const struct ls_tensor *const piece[LS_TRAVELLERS])
{
    place_packed(r, piece);
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        if (!moves(r, which, piece)) continue;
        copy_piece(r, which, piece[which], FROM_PIECE);
        add_exchange(r, part_rows(r, which), packed_rows(r, which));
    }
    return ls_batch_run(&r->batch);
}

ls_status ls_redistribute_to_pieces(const struct ls_tensor *const piece[LS_TRAVELLERS],
                                    struct ls_redistribution *r)
{
    place_packed(r, piece);
    for (int which = 0; which < LS_TRAVELLERS; which++)
        if (moves(r, which, piece)) add_exchange(r, packed_rows(r, which), part_rows(r, which));
    LS_TRY(ls_batch_run(&r->batch));
    for (int which = 0; which < LS_TRAVELLERS; which++)
        if (moves(r, which, piece)) copy_piece(r, which, piece[which], INTO_PIECE);
    return LS_OK;
}
