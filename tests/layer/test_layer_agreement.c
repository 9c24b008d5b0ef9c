/* Ranks that ask for different layers are told so, each of all; and layers that run one after the
 * other may agree once, at the end of their step. */
#include "forms.h"
#include "layer/operands.h"
#include "layer/pass.h"
#include "side.h"

MPI_SUITE(layer_agreement)

static const struct ls_layer_shape shape = {1, 256, 16, 4, 4, 8, 16, LS_F32};

/* ---- plans */

/* What the last rank asks for, and the others do not; of it, what the message says. */
static const struct difference {
    const char *says;
    struct ls_layer_shape shape;
    struct ls_layer_options options;
} differences[] = {
    {"the batch: from 1 to 2", {2, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS}},
    {"the length of sequences: from 256 to 257", {1, 257, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS}},
    {"the width: from 16 to 17", {1, 256, 17, 4, 4, 8, 16, LS_F32}, {OPTIONS}},
    {"the heads: from 4 to 8", {1, 256, 16, 8, 4, 8, 16, LS_F32}, {OPTIONS}},
    {"the key/value heads: from 2 to 4", {1, 256, 16, 4, 2, 8, 16, LS_F32}, {OPTIONS}},
    {"the head dim: from 8 to 9", {1, 256, 16, 4, 4, 9, 16, LS_F32}, {OPTIONS}},
    {"the width of the MLP: from 16 to 17", {1, 256, 16, 4, 4, 8, 17, LS_F32}, {OPTIONS}},
    {"the type", {1, 256, 16, 4, 4, 8, 16, LS_BF16}, {OPTIONS}},
    {"the norm", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .norm = LS_NORM_RMS}},
    {"the activation",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .activation = LS_ACTIVATION_RELU}},
    {"the place of norms", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .post_norm = true}},
    {"the blocks (parallel or not)",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .parallel = true}},
    {"the biases of linears", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .no_bias = true}},
    {"the mask", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .causal = true}},
    {"the epsilon", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .epsilon = 1e-6F}},
    {"the base of rotary positions: from 0 to 10000",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .rope_theta = 1e4F}},
    {"the dropout: from 0 to 0.5", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .dropout = 0.5F}},
    {"the tensor-parallel ranks: from 1 to 2",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .tp = 2}},
    {"the context-parallel ranks", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .cp = 99}},
    {"the sequence parallelism", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .sp = true}},
    {"the method of attention",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .method = "allgather"}},
    {"the layout", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .layout = LS_LAYOUT_STRIPED}},
    {"the mode (strict or fast)", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .strict = true}},
    {"the core (fused or materialized)",
     {1, 256, 16, 4, 4, 8, 16, LS_F32},
     {OPTIONS, .core = LS_CORE_MATERIALIZED}},
    {"the pieces to recompute", {1, 256, 16, 4, 4, 8, 16, LS_F32}, {OPTIONS, .recompute = "core"}},
};

MPI_TEST(layer_agreement, ranks_that_differ_are_told_about_what)
{
    struct ls_device *device;

    if (size == 1) MPI_SKIP("one rank agrees with itself");
    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1 + rank % 2));
    for (int i = 0; i < COUNT(differences); i++) {
        const struct difference *d = &differences[i];
        const bool differs = rank == size - 1;
        struct ls_layer_options o = LS_LAYER_OPTIONS;
        struct ls_layer_plan *plan;

        if (differs) o = d->options;
        o.device = device;
        check_failure(ls_layer_plan_create(&plan, world, differs ? &d->shape : &shape, &o),
                      LS_ESHAPE, d->says, d->says);
    }
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(device)) == 0, "nothing is left");
    ls_device_close(device);
}

/* ---- calls */

static const struct form whole = {
    "8 heads", {1, 530, 16, 8, 2, 8, 16, LS_BF16}, {OPTIONS, .dropout = 0.25F}};

MPI_TEST(layer_agreement, seeds_that_differ_are_refused)
{
    const int t = most_tensor_ranks(&whole.shape);

    if (size == 1 || t == 0) MPI_SKIP("no grid of several ranks");
    struct side s = side_of(&whole, t, true);
    open_side(&s);
    check_failure(run_forward(&s, rank == size - 1 ? 12 : 11), LS_ESHAPE,
                  "ranks disagree about the seed of dropout", "seeds");
    run_side(&s);
    close_side(&s);
}

/* ---- steps */

enum { LAYERS = 3 };

/* Layers of one plan, one after the other, with weights in common; h[i] is the input of layer i,
 * h[LAYERS] the last output, whose gradient is dy. */
struct stack {
    struct side *side;
    struct ls_layer_state *state[LAYERS];
    struct ls_tensor h[LAYERS + 1], dh[LAYERS + 1];
};

static void open_stack(struct stack *k, struct side *s)
{
    *k = (struct stack){.side = s};
    k->h[0] = s->given[X];
    k->dh[LAYERS] = s->given[DY];
    for (int i = 0; i < LAYERS; i++) {
        MPI_CHECK_OK(ls_layer_state_create(&k->state[i], s->plan, NULL));
        k->h[i + 1] = create_tensor(s->device, k->h[0].type, 3, k->h[0].dim);
        k->dh[i] = create_tensor(s->device, k->h[0].type, 3, k->h[0].dim);
    }
}

static void close_stack(struct stack *k)
{
    for (int i = 0; i < LAYERS; i++) {
        ls_layer_state_destroy(k->state[i]);
        ls_device_free(k->side->device, k->h[i + 1].data);
        ls_device_free(k->side->device, k->dh[i].data);
    }
}

static ls_status run_stack(struct stack *k)
{
    struct side *s = k->side;

    for (int i = 0; i < LAYERS; i++)
        LS_TRY(ls_layer_run_forward(&k->h[i + 1], s->plan, k->state[i], &s->weights, &k->h[i],
                                    (uint64_t)i));
    for (int i = LAYERS - 1; i >= 0; i--)
        LS_TRY(ls_layer_run_backward(&k->dh[i], &s->gradients, s->plan, k->state[i], &s->weights,
                                     &k->dh[i + 1]));
    return LS_OK;
}

static void run_stack_one_by_one(struct stack *k)
{
    struct side *s = k->side;

    for (int i = 0; i < LAYERS; i++)
        MPI_CHECK_OK(ls_layer_forward(&k->h[i + 1], s->plan, k->state[i], &s->weights, &k->h[i],
                                      (uint64_t)i));
    for (int i = LAYERS - 1; i >= 0; i--)
        MPI_CHECK_OK(ls_layer_backward(&k->dh[i], &s->gradients, s->plan, k->state[i], &s->weights,
                                       &k->dh[i + 1]));
}

static bool has_same_numbers(const struct stack *a, const struct stack *b)
{
    struct ls_device *of_a = a->side->device, *of_b = b->side->device;
    bool same = true;

    for (int i = 0; i < LAYERS; i++)
        same &= has_same_bits(of_a, &a->dh[i], of_b, &b->dh[i]) &&
                has_same_bits(of_a, &a->h[i + 1], of_b, &b->h[i + 1]);
    for (int i = 0; i < PARAMETERS; i++)
        same &= has_same_bits(of_a, &a->side->got[i], of_b, &b->side->got[i]);
    return same;
}

/* A failure on one rank is known to all at the end, and is over then. */
static void fail_one_step(struct stack *k)
{
    struct side *s = k->side;

    if (rank == 0) ls_queue_note(&s->device->queue, ls_fail(LS_EINTERNAL, "an operation failed"));
    check_failure(ls_layer_end(s->plan, run_stack(k)), LS_EINTERNAL, "an operation failed", "step");
    clear_gradients(s);
}

MPI_TEST(layer_agreement, layers_of_a_step_may_end_at_once)
{
    const int t = most_tensor_ranks(&whole.shape);
    struct stack one_by_one, at_once;

    if (t == 0) MPI_SKIP("more ranks than leaves");
    struct side s[] = {side_of(&whole, t, true), side_of(&whole, t, true)};
    for (int i = 0; i < COUNT(s); i++) open_side(&s[i]);
    open_stack(&one_by_one, &s[0]);
    open_stack(&at_once, &s[1]);
    run_stack_one_by_one(&one_by_one);
    fail_one_step(&at_once);
    MPI_CHECK_OK(ls_layer_end(s[1].plan, run_stack(&at_once)));
    MPI_CHECK(has_same_numbers(&one_by_one, &at_once), "%s", text_of(&s[0]));
    close_stack(&at_once);
    close_stack(&one_by_one);
    for (int i = COUNT(s) - 1; i >= 0; i--) close_side(&s[i]);
}
