/* What bringing callers' rows to a plan's parts costs, counted position by position. (tests/mpi
 * has it done.) */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "attention/travelling/redistribute.h"
#include "base/random.h"

enum { MAX_P = 6, B = 2, H = 6, H_KV = 2, D = 5 };

/* Positions that one rank has in its piece and another in its part. */
struct flow {
    int64_t rows[MAX_P][MAX_P];
};

static struct flow count_flow(const struct ls_layout *layout, const int64_t *first)
{
    struct flow flow = {0};

    for (int part = 0; part < layout->p; part++) {
        for (int64_t i = 0; i < ls_layout_part_rows(layout, part); i++) {
            const int64_t position = ls_layout_position(layout, part, i);
            int piece = 0;

            while (first[piece + 1] <= position) piece++;
            flow.rows[piece][part]++;
        }
    }
    return flow;
}

/* Rows of rank's piece that move, and of its part if it is not the piece. */
static int64_t away(const struct flow *flow, int p, int rank)
{
    int64_t rows = 0;

    for (int r = 0; r < p; r++) rows += r == rank ? 0 : flow->rows[rank][r];
    return rows;
}

static int64_t new_rows(const struct flow *flow, int p, int rank)
{
    int64_t rows = 0, moved = away(flow, p, rank);

    for (int r = 0; r < p; r++) {
        rows += flow->rows[r][rank];
        moved += r == rank ? 0 : flow->rows[r][rank];
    }
    return moved > 0 ? rows : 0;
}

static int64_t count_pairs(const struct flow *flow, int p)
{
    int64_t pairs = 0;

    for (int a = 0; a < p; a++)
        for (int b = 0; b < p; b++) pairs += a != b && flow->rows[a][b] > 0;
    return pairs;
}

static void check(const struct ls_problem *problem, const struct ls_pieces *pieces)
{
    enum { Q_ROW = B * H * D * 2, KV_ROW = 2 * B * H_KV * D * 2, O_ROW = Q_ROW + B * H * 4 };
    const struct flow q = count_flow(&problem->q_layout, pieces->q_first);
    const struct flow k = count_flow(&problem->k_layout, pieces->k_first);
    const int p = problem->p;
    struct ls_cost cost = {0};
    int64_t bytes = 0, most = 0;

    for (int r = 0; r < p; r++) {
        const int64_t q_away = away(&q, p, r), k_away = away(&k, p, r);
        const int64_t forth = Q_ROW * q_away + KV_ROW * k_away, back = O_ROW * q_away;
        const int64_t memory = (Q_ROW + O_ROW) * new_rows(&q, p, r) + KV_ROW * new_rows(&k, p, r) +
                               (forth > back ? forth : back);

        bytes += forth + back;
        if (memory > most) most = memory;
    }
    ls_redistribution_cost(&cost, problem, pieces);
    cr_expect_eq(cost.bytes_sent, bytes, "p %d, %s: %ld bytes, counted %ld", p,
                 ls_layout_name(problem->q_layout.kind), (long)cost.bytes_sent, (long)bytes);
    cr_expect_eq(cost.messages, 3 * count_pairs(&q, p) + 2 * count_pairs(&k, p));
    cr_expect_eq(cost.activation_bytes, (size_t)most, "p %d, %s: %zu bytes, counted %ld", p,
                 ls_layout_name(problem->q_layout.kind), cost.activation_bytes, (long)most);
}

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* Cuts anywhere, some of them at leaves so that pieces can be parts, some at one place. */
static void draw_cuts(int64_t *first, int64_t s, int p, uint32_t stream)
{
    for (int r = 1; r < p; r++) {
        const int64_t at = (int64_t)ls_random_below(1, stream, (uint64_t)(2 * r), (uint64_t)s + 1);
        const uint64_t how = ls_random_below(1, stream, (uint64_t)(2 * r + 1), 3);

        first[r] = how == 0 ? at : how == 1 ? at / LS_LEAF * LS_LEAF : at / 1000 * 1000;
    }
    first[0] = 0;
    first[p] = s;
    qsort(first, (size_t)p + 1, sizeof *first, by_size);
}

Test(redistribute, cost_is_what_a_count_of_positions_says)
{
    static const int64_t lengths[] = {0, 1, 256, 700, 1536, 3001};

    for (uint32_t i = 0; i < 6 * 6 * 3 * MAX_P; i++) {
        const struct ls_attention_shape shape = {
            B, H, H_KV, lengths[i % 6], lengths[i / 6 % 6], D, LS_BF16, 0};
        struct ls_attention_options options = LS_ATTENTION_OPTIONS;
        const int p = 1 + (int)i / (6 * 6 * 3);
        int64_t q_first[MAX_P + 1], k_first[MAX_P + 1];
        struct ls_problem problem;

        options.layout = (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + i / 36 % 3);
        cr_assert_eq(ls_problem_init(&problem, &shape, &options, p, NULL), LS_OK);
        for (uint32_t draw = 0; draw < 8; draw++) {
            draw_cuts(q_first, shape.s_q, p, 2 * (8 * i + draw));
            draw_cuts(k_first, shape.s_k, p, 2 * (8 * i + draw) + 1);
            check(&problem, &(struct ls_pieces){q_first, k_first});
        }
    }
}

/* One rank has the whole whatever it says, and pays nothing for it. */
Test(redistribute, parts_cost_nothing)
{
    for (int p = 1; p <= MAX_P; p++) {
        const struct ls_attention_shape shape = {B, H, H_KV, 2000, 3001, D, LS_BF16, 0};
        struct ls_attention_options options = LS_ATTENTION_OPTIONS;
        int64_t q_first[MAX_P + 1] = {0}, k_first[MAX_P + 1] = {0};
        struct ls_cost cost = {0}, none = {0};
        struct ls_problem problem;

        options.layout = LS_LAYOUT_CONTIGUOUS;
        cr_assert_eq(ls_problem_init(&problem, &shape, &options, p, NULL), LS_OK);
        for (int r = 0; r < p; r++) {
            q_first[r + 1] = q_first[r] + ls_layout_part_rows(&problem.q_layout, r);
            k_first[r + 1] = k_first[r] + ls_layout_part_rows(&problem.k_layout, r);
        }
        ls_redistribution_cost(&cost, &problem, &(struct ls_pieces){q_first, k_first});
        cr_expect_eq(memcmp(&cost, &none, sizeof cost), 0, "p %d", p);
    }
}
