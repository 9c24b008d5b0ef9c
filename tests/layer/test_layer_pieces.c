/* Whatever of a layer is computed again: its bits stay, and what it keeps is what the planner says.
 */
#include "../mpi/harness.h"
#include "layer/as_model.h"
#include "plan/layer_traffic.h"
#include "plan/layer_work.h"
#include "plan/memory.h"
#include "plan/pieces.h"
#include "side.h"

MPI_SUITE(layer_pieces)

/* ---- bits */

static bool same(const struct ls_tensor *a, const struct ls_tensor *b)
{
    size_t bytes = (size_t)ls_dtype_size(a->type);

    for (int i = 0; i < a->ndim; i++) bytes *= (size_t)a->dim[i];
    return a->ndim == 0 || memcmp(a->data, b->data, bytes) == 0;
}

static bool same_results(const struct side *a, const struct side *b)
{
    bool all = same(&a->y, &b->y) && same(&a->dx, &b->dx);

    for (int i = 0; i < PARAMETERS; i++) all = all && same(&a->gradient[i], &b->gradient[i]);
    return all;
}

/* Of a core that sends nothing but through the layer's own transport. */
static void check_sent(const struct side *s)
{
    const struct ls_layer_plan *plan = s->plan;
    const struct ls_model_shape model = ls_layer_as_model(&plan->shape, &plan->options);
    const struct ls_model_run run = ls_layer_plan_as_run(plan, plan->pieces);
    const struct ls_layer_traffic planned =
        ls_layer_traffic_of(&model, &run,
                            &(struct ls_layer_place){plan->grid.tensor, plan->outer.most,
                                                     plan->inner.most, plan->weights.most});
    const int64_t bytes = planned.rows + planned.weights + planned.vectors + planned.keys;

    if (run.core == LS_CORE_MATERIALIZED)
        MPI_CHECK(ls_layer_bytes_sent(plan) == bytes, "%lld bytes are sent, planned %lld",
                  (long long)ls_layer_bytes_sent(plan), (long long)bytes);
}

/* Whatever is computed again, the bits are those of what is kept. */
static void check_pieces(struct whole *w, int t, bool sp)
{
    static const char *const sets[] = {"selective", "core", "norm",    "activation",
                                       "mlp",       "qkv",  "dropout", "core,norm,mlp,qkv,dropout",
                                       "full"};
    struct ls_layer_options o = w->options;
    struct side plain;

    o.tp = t;
    o.cp = size / t;
    o.sp = sp;
    open_side(&plain, world, w, &o);
    run_side(&plain);
    for (int i = 0; i < COUNT(sets); i++) {
        struct side s;

        o.recompute = sets[i];
        open_side(&s, world, w, &o);
        run_side(&s);
        MPI_CHECK(same_results(&s, &plain), "t %d sp %d: %s", t, sp, sets[i]);
        check_sent(&s);
        close_side(&s);
    }
    close_side(&plain);
}

MPI_TEST(layer_pieces, has_the_same_bits_whatever_is_computed_again)
{
    check_all(check_pieces);
}

MPI_TEST(layer_pieces, ranks_without_rows_take_part)
{
    check_ranks_without_rows(check_pieces);
}

/* ---- memory */

static size_t live(const struct side *s, ls_tag tag)
{
    return ls_ledger_live(ls_device_ledger(s->device), tag);
}

/* Each further layer keeps what the planner says of this rank's rows, to the byte, and nothing
 * hides elsewhere; what is computed again has room once. */
static void check_kept(const struct ls_layer_shape *n, struct ls_layer_options o)
{
    const struct ls_model_shape model = ls_layer_as_model(n, &o);
    struct ls_layer_state *state[4];
    struct side s = {.device = NULL};

    MPI_CHECK_OK(ls_device_open(&s.device, "cpu", 0, 1));
    o.device = s.device;
    MPI_CHECK_OK(ls_layer_plan_create(&s.plan, world, n, &o));
    struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
    const struct ls_kept_bytes planned = ls_layer_kept_bytes(&model, &run);
    const struct ls_ledger *ledger = ls_device_ledger(s.device);
    const size_t before = ls_ledger_live_total(ledger), kept = live(&s, LS_TAG_ACTIVATION);
    MPI_CHECK((int64_t)live(&s, LS_TAG_RECOMPUTE) == ls_layer_again_bytes(&model, &run),
              "t %d c %d sp %d %s: %zu bytes to compute again", o.tp, o.cp, o.sp, o.recompute,
              live(&s, LS_TAG_RECOMPUTE));
    for (size_t layers = 1; layers <= COUNT(state); layers++) {
        const size_t more = layers * (size_t)(planned.paper + planned.own);

        MPI_CHECK_OK(ls_layer_state_create(&state[layers - 1], s.plan, NULL));
        MPI_CHECK(live(&s, LS_TAG_ACTIVATION) - kept == more,
                  "t %d c %d sp %d %s: %zu layers keep %zu bytes, planned %zu", o.tp, o.cp, o.sp,
                  o.recompute, layers, live(&s, LS_TAG_ACTIVATION) - kept, more);
        MPI_CHECK(ls_ledger_live_total(ledger) - before == more, "of all tags");
    }
    double most = (double)(planned.paper + planned.own);
    run.has_rows = false;
    const struct ls_kept_bytes of_most = ls_layer_kept_bytes(&model, &run);
    MPI_CHECK_OK(ls_comm_reduce(&most, world, 1, LS_REDUCE_MAX));
    MPI_CHECK(most == (double)(of_most.paper + of_most.own), "of the rank that has most");
    for (int i = 0; i < COUNT(state); i++) ls_layer_state_destroy(state[i]);
    ls_layer_plan_destroy(s.plan);
    ls_device_close(s.device);
}

MPI_TEST(layer_pieces, keeps_what_is_planned_to_the_byte)
{
    static const char *const sets[] = {"none",          "selective", "core", "norm",
                                       "activation",    "mlp",       "qkv",  "dropout",
                                       "core,norm,mlp", "full"};

    for (int t = 1; t <= size && t <= 4; t++)
        for (int i = 0; i < COUNT(sets) * COUNT(kinds) * COUNT(shapes) && size % t == 0; i++) {
            struct ls_layer_shape n = shapes[i % COUNT(shapes)];
            struct ls_layer_options o = kinds[i / COUNT(shapes) % COUNT(kinds)];

            o.tp = t;
            o.cp = size / t;
            o.sp = t > 1 && i % 2;
            o.recompute = sets[i / COUNT(shapes) / COUNT(kinds)];
            if (n.h_kv % t == 0 && (o.cp - 1) * LS_LEAF < n.s) check_kept(&n, o);
        }
}

static void clear(const struct ls_tensor *t)
{
    memset(t->data, 0, (size_t)(t->dim[0] * (t->ndim > 1 ? t->dim[1] : 1)) * sizeof(float));
}

/* States of one plan may differ: what they bring back is in one place, as large as the most of them
 * want, and what comes out has the bits of states that keep all. */
MPI_TEST(layer_pieces, states_share_the_memory_of_what_they_bring_back)
{
    static const char *const sets[] = {"mlp", "core,norm", "full", "none", "norm,activation"};
    const struct ls_layer_options *kind = &kinds[0];
    const struct ls_layer_shape *n = &shapes[0];
    struct ls_layer_options o = *kind;
    struct side plain, s;
    struct whole w;

    create_whole(&w, n, kind);
    o.tp = 1;
    o.cp = size;
    open_side(&plain, world, &w, &o);
    run_side(&plain);
    open_side(&s, world, &w, &o);
    const struct ls_model_shape model = ls_layer_as_model(n, &o);
    struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
    int64_t most = 0;
    for (int i = 0; i < COUNT(sets); i++) {
        ls_layer_state_destroy(s.state);
        MPI_CHECK_OK(ls_layer_state_create(&s.state, s.plan, sets[i]));
        MPI_CHECK_OK(ls_pieces_parse(&run.pieces, sets[i]));
        const int64_t again = ls_layer_again_bytes(&model, &run);
        if (again > most) most = again;
        MPI_CHECK((int64_t)live(&s, LS_TAG_RECOMPUTE) == most, "%s: %zu bytes to compute again",
                  sets[i], live(&s, LS_TAG_RECOMPUTE));
        for (int k = 0; k < PARAMETERS; k++)
            if (s.gradient[k].data) clear(&s.gradient[k]);
        run_side(&s);
        MPI_CHECK(same_results(&s, &plain), "%s", sets[i]);
    }
    struct ls_layer_state *none;
    MPI_CHECK(ls_layer_state_create(&none, s.plan, "coer") == LS_EVALUE, "a piece misspelt");
    close_side(&s);
    close_side(&plain);
    destroy_whole(&w);
}

/* Bytes that all ranks send in a backward. */
static double backward_bytes(struct whole *w, const struct ls_layer_options *o)
{
    struct side s;

    open_side(&s, world, w, o);
    MPI_CHECK_OK(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 11));
    double sent = -(double)s.plan->traffic.bytes_sent;
    MPI_CHECK_OK(ls_layer_backward(&s.dx, &s.gradients, s.plan, s.state, &s.weights, &s.dy));
    sent += (double)s.plan->traffic.bytes_sent;
    close_side(&s);
    MPI_CHECK_OK(ls_comm_reduce(&sent, world, 1, LS_REDUCE_SUM));
    return sent;
}

MPI_TEST(layer_pieces, bringing_back_exchanges_what_is_planned)
{
    static const char *const sets[] = {"norm,activation,core", "qkv", "qkv,mlp", "full"};
    const struct ls_layer_shape *n = &shapes[0];
    struct whole w;

    if (4 % size != 0) MPI_SKIP("4 heads");
    create_whole(&w, n, &kinds[0]);
    for (int i = 0; i < 2 * COUNT(sets); i++) {
        struct ls_layer_options o = kinds[0];

        o.tp = size;
        o.cp = 1;
        o.sp = i % 2;
        const double none = backward_bytes(&w, &o);
        o.recompute = sets[i / 2];
        const struct ls_model_shape model = ls_layer_as_model(n, &o);
        struct ls_model_run run = ls_layer_as_run(n, &o);
        MPI_CHECK_OK(ls_pieces_parse(&run.pieces, o.recompute));
        const double more = backward_bytes(&w, &o) - none;
        const double planned = size * ls_layer_again(&model, &run).exchanged;

        MPI_CHECK(more == planned, "t %d sp %d %s: %.0f bytes more, planned %.0f", o.tp, o.sp,
                  o.recompute, more, planned);
    }
    destroy_whole(&w);
}
