/* What `bench comm` calls wrong: held against exchanges done by hand among pretended ranks, and
 * against a communication that spoils what it moves. */
#include "cli/exchange.h"

#include <criterion/criterion.h>
#include <string.h>

#include "cli/command.h"

enum { P = 3, COUNT = 50, SIDE = P * COUNT };

/* ---- ranks that do not communicate */

static ls_status pretend_reduce(double *values, void *self, int n, ls_reduction how)
{
    (void)values, (void)self, (void)n, (void)how;
    return LS_OK;
}

static ls_status pretend_barrier(void *self)
{
    (void)self;
    return LS_OK;
}

static void spoiling_copy(void *self, void *to, const void *from, size_t bytes)
{
    (void)self;
    memcpy(to, from, bytes);
    ((float *)to)[0] += 1;
}

static int alone(void *self)
{
    (void)self;
    return 1;
}

static void nothing(void *self)
{
    (void)self;
}

static const struct ls_transport_ops pretend_transport = {
    .name = "pretend", .copy = spoiling_copy, .alloc = ls_alloc_on_host, .free = ls_free_on_host};

static const struct ls_control_ops pretend_ops = {
    .name = "pretend",
    .destroy = nothing,
    .barrier = pretend_barrier,
    .reduce = pretend_reduce,
    .node_size = alone,
    .transport = &pretend_transport,
};

static struct ls_comm *comms[P];
static float in[P][SIDE], out[P][SIDE];

static void up(void)
{
    for (int r = 0; r < P; r++)
        cr_assert_eq(ls_comm_create(&comms[r], &pretend_ops, NULL, r, P), LS_OK);
}

static void down(void)
{
    for (int r = 0; r < P; r++) ls_comm_destroy(comms[r]);
}

TestSuite(cli_exchange, .init = up, .fini = down, .timeout = 10);

/* ---- exchanges done by hand */

static void sum_all(float *into, int64_t offset)
{
    for (int i = 0; i < COUNT; i++)
        into[i] = in[0][offset + i] + in[1][offset + i] + in[2][offset + i];
}

static void sendrecv(int r)
{
    memcpy(out[r], in[(r + 2) % P], sizeof(float) * COUNT);
}

static void broadcast(int r)
{
    memcpy(out[r], in[0], sizeof(float) * COUNT);
}

static void all_reduce(int r)
{
    sum_all(out[r], 0);
}

static void reduce_scatter(int r)
{
    sum_all(out[r], (int64_t)r * COUNT);
}

static void all_gather(int r)
{
    for (int of = 0; of < P; of++)
        memcpy(out[r] + of * COUNT, in[of] + of * COUNT, sizeof(float) * COUNT);
}

static void all_to_all(int r)
{
    for (int of = 0; of < P; of++)
        memcpy(out[r] + of * COUNT, in[of] + r * COUNT, sizeof(float) * COUNT);
}

static const struct {
    const char *name;
    void (*by_hand)(int r);
    int parts; /* of the output */
    double bus_factor;
} cases[CLI_EXCHANGES] = {
    /* in the order of cli_exchanges */
    {"sendrecv", sendrecv, 1, 1},          {"broadcast", broadcast, 1, 1},
    {"all-reduce", all_reduce, 1, 4. / 3}, {"reduce-scatter", reduce_scatter, 1, 2. / 3},
    {"all-gather", all_gather, P, 2. / 3}, {"all-to-all", all_to_all, P, 2. / 3},
};

static void fill_all(const struct cli_exchange *x)
{
    for (int r = 0; r < P; r++) {
        cli_exchange_fill(out[r], in[r], x, comms[r], COUNT);
        if (x->in_place) memcpy(in[r], out[r], sizeof(in[r]));
    }
}

Test(cli_exchange, what_an_exchange_gives_is_right_and_any_other_value_is_counted)
{
    for (int k = 0; k < CLI_EXCHANGES; k++) {
        const struct cli_exchange *x = &cli_exchanges[k];
        const int n = cases[k].parts * COUNT;

        fill_all(x);
        for (int r = 0; r < P; r++) {
            cases[k].by_hand(r);
            cr_expect_eq(cli_exchange_wrong(out[r], x, comms[r], COUNT), 0, "%s", x->name);
            out[r][n - 1] += 1;
            out[r][0] = 0.0F / 0.0F;
            cr_expect_eq(cli_exchange_wrong(out[r], x, comms[r], COUNT), 2, "%s", x->name);
        }
    }
}

Test(cli_exchange, what_was_not_moved_or_moved_elsewhere_is_wrong)
{
    for (int k = 0; k < CLI_EXCHANGES; k++) {
        const struct cli_exchange *x = &cli_exchanges[k];
        const int n = cases[k].parts * COUNT;
        const int own = x->in_place && cases[k].parts > 1 ? COUNT : 0; /* is there already */

        fill_all(x);
        cr_expect_gt(cli_exchange_wrong(out[1], x, comms[1], COUNT), (n - own) * 9 / 10, "%s: kept",
                     x->name);
        cases[k].by_hand(1);
        memmove(out[1] + 1, out[1], sizeof(float) * (size_t)(n - 1));
        cr_expect_gt(cli_exchange_wrong(out[1], x, comms[1], COUNT), n * 9 / 10, "%s: shifted",
                     x->name);
    }
}

Test(cli_exchange, a_size_is_that_of_the_larger_side_in_whole_parts)
{
    for (int k = 0; k < CLI_EXCHANGES; k++) {
        const struct cli_exchange *x = &cli_exchanges[k];
        const int parts = x->parted ? P : cases[k].parts;

        for (int64_t bytes = 1; bytes < 100; bytes++) {
            const int64_t count = cli_exchange_count(x, bytes, P);
            const int64_t rounded = cli_exchange_bytes(x, count, P);

            cr_expect(count > 0 && rounded >= bytes && rounded < bytes + 4 * parts, "%s, %ld",
                      x->name, (long)bytes);
            cr_expect_eq(rounded, 4 * parts * count, "%s, %ld", x->name, (long)bytes);
        }
        cr_expect_float_eq(cli_exchange_bus_bytes(x, 3000, P), 3000 * cases[k].bus_factor, 1e-9,
                           "%s", x->name);
    }
}

Test(cli_exchange, a_wrong_value_is_a_check_that_did_not_hold)
{
    struct cli_world world = {.size = 1, .program = "longspan bench comm"};
    char *arguments[] = {"comm", "--quiet", "--largest", "8", "--op", "all-to-all"};
    bool held = true;

    cr_assert_eq(ls_comm_create(&world.comm, &pretend_ops, NULL, 0, 1), LS_OK);
    cr_assert_eq(cli_bench_comm(&held, &world, 6, arguments), LS_OK, "%s", ls_message());
    cr_expect_not(held);
    ls_comm_destroy(world.comm);
}
