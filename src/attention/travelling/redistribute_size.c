#include "attention/travelling/redistribute_size.h"

struct ls_cuts ls_cuts_of(const struct ls_problem *problem, const struct ls_pieces *pieces,
                          enum ls_traveller which)
{
    if (ls_traveller_is_keys(which))
        return (struct ls_cuts){.first = pieces->k_first, .layout = &problem->k_layout};
    return (struct ls_cuts){.first = pieces->q_first, .layout = &problem->q_layout};
}

struct ls_run ls_cuts_shared_rows(const struct ls_cuts *cuts, int piece, int part)
{
    const int64_t first = ls_layout_rows_before(cuts->layout, part, cuts->first[piece]);
    const int64_t end = ls_layout_rows_before(cuts->layout, part, cuts->first[piece + 1]);

    return (struct ls_run){.first = first, .count = end - first};
}

/* Rows of rank's piece that are of other ranks' parts. */
static int64_t rows_away(const struct ls_cuts *cuts, int rank)
{
    return cuts->first[rank + 1] - cuts->first[rank] - ls_cuts_shared_rows(cuts, rank, rank).count;
}

bool ls_cuts_piece_is_part(const struct ls_cuts *cuts, int rank)
{
    return rows_away(cuts, rank) == 0 &&
           ls_cuts_shared_rows(cuts, rank, rank).count == ls_layout_part_rows(cuts->layout, rank);
}

int64_t ls_traveller_heads(const struct ls_problem *problem, enum ls_traveller which)
{
    return ls_traveller_is_keys(which) ? problem->shape.h_kv : problem->shape.h;
}

size_t ls_traveller_row_bytes(const struct ls_problem *problem, enum ls_traveller which)
{
    const struct ls_attention_shape *s = &problem->shape;

    return (size_t)s->b * (size_t)ls_traveller_heads(problem, which) *
           ls_traveller_head_bytes(s, which);
}

bool ls_traveller_is_used(const struct ls_problem *problem, enum ls_traveller which)
{
    return problem->backward || ls_travels_forward(which) || ls_returns_forward(which, false);
}

struct ls_volume ls_volume_of(const struct ls_problem *problem, const struct ls_pieces *pieces,
                              int rank)
{
    struct ls_volume v = {0};

    for (int which = 0; which < LS_TRAVELLERS; which++) {
        if (!ls_traveller_is_used(problem, which)) continue;
        const struct ls_cuts cuts = ls_cuts_of(problem, pieces, which);
        const size_t row = ls_traveller_row_bytes(problem, which);
        const size_t away = row * (size_t)rows_away(&cuts, rank);

        if (!ls_cuts_piece_is_part(&cuts, rank))
            v.parts += row * (size_t)ls_layout_part_rows(cuts.layout, rank);
        if (which == LS_DELTA && !ls_cuts_piece_is_part(&cuts, rank))
            v.delta = row * (size_t)(cuts.first[rank + 1] - cuts.first[rank]);
        if (ls_travels_forward(which)) v.forth += away;
        if (ls_returns_forward(which, false)) v.back += away;
        if (which == LS_O_LO) v.residual += away;
        if (problem->backward && ls_travels_backward(which)) v.backward_forth += away;
        if (problem->backward && ls_returns_backward(which)) v.backward_back += away;
    }
    return v;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t ls_volume_packed(const struct ls_volume *v)
{
    return larger(larger(v->forth, v->back + v->residual),
                  larger(v->backward_forth, v->backward_back));
}

/* Pairs of ranks one of which has rows of the other's part. */
static int64_t count_messages(const struct ls_cuts *cuts)
{
    int64_t count = 0;

    for (int piece = 0; piece < cuts->layout->p; piece++)
        for (int part = 0; part < cuts->layout->p; part++)
            count += piece != part && ls_cuts_shared_rows(cuts, piece, part).count > 0;
    return count;
}

static void add_messages(struct ls_cost *cost, const struct ls_problem *problem,
                         const struct ls_cuts *cuts, enum ls_traveller which)
{
    const int64_t count = count_messages(cuts);

    if (ls_travels_forward(which) || ls_returns_forward(which, false)) cost->messages += count;
    if (which == LS_O_LO) cost->residual_messages += count;
    if (problem->backward)
        cost->backward_messages +=
            count * (ls_travels_backward(which) + ls_returns_backward(which));
}

void ls_redistribution_cost(struct ls_cost *cost, const struct ls_problem *problem,
                            const struct ls_pieces *pieces)
{
    for (int rank = 0; rank < problem->p; rank++) {
        const struct ls_volume v = ls_volume_of(problem, pieces, rank);

        cost->bytes_sent += (int64_t)(v.forth + v.back);
        cost->residual_bytes_sent += (int64_t)v.residual;
        cost->backward_bytes_sent += (int64_t)(v.backward_forth + v.backward_back);
        cost->activation_bytes =
            larger(cost->activation_bytes, v.parts + v.delta + ls_volume_packed(&v));
    }
    for (int which = 0; which < LS_TRAVELLERS; which++) {
        const struct ls_cuts cuts = ls_cuts_of(problem, pieces, which);
        if (ls_traveller_is_used(problem, which)) add_messages(cost, problem, &cuts, which);
    }
}
