/* Whatever of a layer is computed again: its bits stay, and what it keeps is what the planner says.
 */
#include "forms.h"
#include "layer/as_model.h"
#include "plan/layer_work.h"
#include "plan/model_size.h"
#include "plan/pieces.h"
#include "side.h"

MPI_SUITE(layer_pieces)

/* ---- bits and bytes sent */

static size_t live(const struct side *s, ls_tag tag)
{
    return ls_ledger_live(ls_device_ledger(s->device), tag);
}

/* As planned, for what these pieces bring back. */
static int64_t again_bytes(const struct side *s, unsigned pieces)
{
    const struct ls_model_shape model = ls_layer_as_model(&s->form->shape, &s->options);
    struct ls_model_run run = ls_layer_plan_as_run(s->plan, s->plan->pieces);

    run.pieces = pieces;
    return ls_layer_again_bytes(&model, &run);
}

/* Whatever is computed again, the bits are those of what is kept: of each layer and grid a third of
 * the sets of pieces, of all layers all. */
static void check_pieces(const struct form *form, int t, bool sp)
{
    static const char *const sets[] = {"selective", "core", "norm",    "activation",
                                       "mlp",       "qkv",  "dropout", "core,norm,mlp,qkv,dropout",
                                       "full"};
    struct side plain = side_of(form, t, sp);

    open_side(&plain);
    run_side(&plain);
    check_sent(&plain);
    for (int i = (form->shape.b + form - forms + t + sp) % 3; i < COUNT(sets); i += 3) {
        struct side s = side_of(form, t, sp);

        s.options.recompute = sets[i];
        open_side(&s);
        MPI_CHECK((int64_t)live(&s, LS_TAG_RECOMPUTE) == again_bytes(&s, s.plan->pieces),
                  "%s: %zu bytes to compute again", text_of(&s), live(&s, LS_TAG_RECOMPUTE));
        run_side(&s);
        MPI_CHECK(has_same_results(&s, &plain), "%s", text_of(&s));
        check_sent(&s);
        close_side(&s);
    }
    close_side(&plain);
}

MPI_TEST(layer_pieces, has_the_same_bits_whatever_is_computed_again)
{
    check_forms(check_pieces);
}

MPI_TEST(layer_pieces, ranks_without_rows_take_part)
{
    check_ranks_without_rows(check_pieces);
}

/* ---- memory */

enum { SETS = LS_PIECE_LAYER << 1 }; /* of pieces */

/* Of each set a further layer, beside up to three others. */
static void measure_kept(double kept[SETS], struct side *s)
{
    const struct ls_ledger *ledger = ls_device_ledger(s->device);
    struct ls_layer_state *state[4] = {NULL};

    for (unsigned pieces = 0; pieces < SETS; pieces++) {
        struct ls_layer_state **further = &state[pieces % COUNT(state)];

        ls_layer_state_destroy(*further);
        const size_t before = ls_ledger_live_total(ledger), of_tag = live(s, LS_TAG_ACTIVATION);
        const ls_status status = ls_layer_state_create(further, s->plan, ls_pieces_name(pieces).s);
        kept[pieces] = (double)(ls_ledger_live_total(ledger) - before);
        if (status != LS_OK || kept[pieces] != (double)(live(s, LS_TAG_ACTIVATION) - of_tag))
            kept[pieces] = NAN;
    }
    for (int i = 0; i < COUNT(state); i++) ls_layer_state_destroy(state[i]);
}

/* Whether they are what the planner says of this rank's rows, or of those of the rank that has
 * most.
 */
static void compare_kept(const double kept[SETS], const struct side *s, bool has_rows)
{
    const struct ls_model_shape model = ls_layer_as_model(&s->form->shape, &s->options);
    struct ls_model_run run = ls_layer_plan_as_run(s->plan, s->plan->pieces);
    unsigned wrong = SETS;

    run.has_rows = has_rows;
    for (unsigned pieces = 0; pieces < SETS; pieces++) {
        run.pieces = pieces;
        const struct ls_kept_bytes planned = ls_layer_kept_bytes(&model, &run);
        if (kept[pieces] != (double)(planned.paper + planned.own)) wrong = pieces;
    }
    MPI_CHECK(wrong == SETS, "%s: of the most %d: %.0f bytes without %s", text_of(s), !has_rows,
              kept[wrong % SETS], ls_pieces_name(wrong % SETS).s);
}

/* Each further layer keeps what the planner says, to the byte, and nothing hides elsewhere. */
static void check_kept(const struct form *form, int t, bool sp)
{
    struct side s = side_of(form, t, sp);
    double kept[SETS];

    open_side(&s);
    MPI_CHECK_OK(ls_layer_reserve(s.plan, LS_PIECE_LAYER)); /* as much as any set wants */
    measure_kept(kept, &s);
    compare_kept(kept, &s, true);
    MPI_CHECK_OK(ls_comm_reduce(kept, world, SETS, LS_REDUCE_MAX));
    compare_kept(kept, &s, false);
    close_side(&s);
}

MPI_TEST(layer_pieces, keeps_what_is_planned_to_the_byte)
{
    check_forms(check_kept);
}

/* States of one plan may differ: what they bring back is in one place, as large as the most of them
 * want, and what comes out has the bits of states that keep all. */
MPI_TEST(layer_pieces, states_share_the_memory_of_what_they_bring_back)
{
    static const char *const sets[] = {"mlp", "core,norm", "full", "none", "norm,activation"};
    struct side plain = side_of(&forms[0], 1, false), s = plain;
    int64_t most = 0;

    open_side(&plain);
    run_side(&plain);
    open_side(&s);
    for (int i = 0; i < COUNT(sets); i++) {
        unsigned pieces;

        ls_layer_state_destroy(s.state);
        MPI_CHECK_OK(ls_layer_state_create(&s.state, s.plan, sets[i]));
        MPI_CHECK_OK(ls_pieces_parse(&pieces, sets[i]));
        const int64_t again = again_bytes(&s, pieces);
        if (again > most) most = again;
        MPI_CHECK((int64_t)live(&s, LS_TAG_RECOMPUTE) == most, "%s: %zu bytes to compute again",
                  sets[i], live(&s, LS_TAG_RECOMPUTE));
        clear_gradients(&s);
        run_side(&s);
        MPI_CHECK(has_same_results(&s, &plain), "%s", sets[i]);
    }
    struct ls_layer_state *none;
    MPI_CHECK(ls_layer_state_create(&none, s.plan, "coer") == LS_EVALUE, "a piece misspelt");
    close_side(&s);
    close_side(&plain);
}

/* ---- bytes sent again */

/* Bytes that all ranks send in a backward. */
static double backward_bytes(struct side *s)
{
    open_side(s);
    MPI_CHECK_OK(run_forward(s, SEED));
    double sent = -(double)s->plan->traffic.bytes_sent;
    MPI_CHECK_OK(run_backward(s));
    sent += (double)s->plan->traffic.bytes_sent;
    close_side(s);
    MPI_CHECK_OK(ls_comm_reduce(&sent, world, 1, LS_REDUCE_SUM));
    return sent;
}

MPI_TEST(layer_pieces, bringing_back_exchanges_what_is_planned)
{
    static const struct form form = {"f32", F32_ALL, {OPTIONS, .causal = true}};
    static const char *const sets[] = {"norm,activation,core", "qkv", "qkv,mlp", "full"};

    if (4 % size != 0) MPI_SKIP("4 heads");
    for (int i = 0; i < 2 * COUNT(sets); i++) {
        struct side plain = side_of(&form, size, i % 2), s = plain;

        s.options.recompute = sets[i / 2];
        const struct ls_model_shape model = ls_layer_as_model(&form.shape, &s.options);
        struct ls_model_run run = ls_layer_as_run(&form.shape, &s.options);
        MPI_CHECK_OK(ls_pieces_parse(&run.pieces, s.options.recompute));
        const double planned = size * ls_layer_again(&model, &run).exchanged;
        const double more = -backward_bytes(&plain) + backward_bytes(&s);

        MPI_CHECK(more == planned, "%s: %.0f bytes more, planned %.0f", text_of(&s), more, planned);
    }
}

/* ---- parameters */

static void check_parameters(const struct form *form, int t, bool sp)
{
    struct ls_model_shape model = ls_layer_as_model(&form->shape, &form->options);
    struct side s = side_of(form, t, sp);
    int64_t count = 0;

    open_side(&s);
    const struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
    const int64_t one = ls_rank_parameters(&model, &run);
    model.L = 2;
    const int64_t planned = ls_rank_parameters(&model, &run) - one;
    for (int i = 0; i < PARAMETERS; i++) count += numbers_of(&s.given[i]);
    MPI_CHECK(count == planned, "%s: %lld parameters, planned %lld", text_of(&s), (long long)count,
              (long long)planned);
    close_side(&s);
}

MPI_TEST(layer_pieces, has_the_parameters_that_are_planned)
{
    check_forms(check_parameters);
}
