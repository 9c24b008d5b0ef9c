/* Forms of a layer: blocks in parallel, and more tensor-parallel ranks than key/value heads.
 * Against the same layer in double precision, on any grid of ranks. */
#include "answer.h"
#include "layer/as_model.h"
#include "plan/layer_traffic.h"
#include "plan/model_size.h"
#include "plan/pieces.h"

MPI_SUITE(layer_forms)

/* ---- the layers */

#define OPTIONS .size = sizeof(struct ls_layer_options)

static const struct form forms[] = {
    {"parallel, f32",
     {.b = 2, .s = 300, .e = 24, .h = 4, .h_kv = 4, .d = 8, .f = 48, .type = LS_F32},
     {OPTIONS, .parallel = true, .causal = true, .dropout = 0.25F}},
    {"parallel, of one kv head, bf16",
     {.b = 1, .s = 530, .e = 120, .h = 4, .h_kv = 1, .d = 24, .f = 160, .type = LS_BF16},
     {OPTIONS, .parallel = true, .norm = LS_NORM_RMS, .activation = LS_ACTIVATION_SWIGLU,
      .no_bias = true, .rope_theta = 1e4F, .causal = true}},
    {"of one kv head, f32",
     {.b = 2, .s = 300, .e = 24, .h = 12, .h_kv = 1, .d = 8, .f = 48, .type = LS_F32},
     {OPTIONS, .causal = true, .dropout = 0.25F}},
    {"of two kv heads, norms behind, bf16",
     {.b = 1, .s = 530, .e = 120, .h = 4, .h_kv = 2, .d = 24, .f = 160, .type = LS_BF16},
     {OPTIONS, .post_norm = true, .rope_theta = 1e4F, .activation = LS_ACTIVATION_GELU_ERF}},
};

static void check_forms(void (*check)(const struct form *, struct ls_device *, int t, bool sp))
{
    struct ls_device *device;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1 + rank % 2));
    for (const struct form *form = forms; form < forms + COUNT(forms); form++)
        for (int t = 1; t <= size && t <= 4; t++)
            for (int sp = 0; sp < (t > 1 ? 2 : 1) && is_grid(&form->shape, t); sp++)
                check(form, device, t, sp);
    MPI_CHECK(ls_ledger_live_total(ls_device_ledger(device)) == 0, "all is freed");
    ls_device_close(device);
}

static const char *text_of(const struct form *form, int t, bool sp)
{
    static char text[96];

    snprintf(text, sizeof text, "%s, t %d c %d%s", form->name, t, size / t, sp ? " sp" : "");
    return text;
}

static void check_contract(const struct form *form, struct ls_device *device, int t, bool sp)
{
    const char *text = text_of(form, t, sp);
    const struct answer *truth = find_answer(form, LS_F64, 1), *twin = truth;
    struct side s;

    if (form->shape.type == LS_BF16) twin = find_answer(form, LS_BF16, t);
    open_side(&s, device, &form->shape, &form->options, t, sp);
    run_side(&s);
    judge_rows(&s, form, &s.y, twin->y, truth->y, text, "y");
    judge_rows(&s, form, &s.dx, twin->dx, truth->dx, text, "dx");
    for (int i = 0; i < PARAMETERS; i++)
        if (ls_parameter_exists(i, &form->options)) judge_gradient(&s, form, i, twin, truth, text);
    close_side(&s);
}

MPI_TEST(layer_forms, keep_the_contract_on_any_grid)
{
    check_forms(check_contract);
}

/* ---- heads that several ranks have */

/* Ranks of one key/value head, and of all sequences, have the same gradients of it. */
static void check_copies(const struct form *form, struct ls_device *device, int t, bool sp)
{
    const int64_t d = form->shape.d, e = form->shape.e, n = 2 * d * e;
    const int copies = t / (int)form->shape.h_kv;
    struct side s;

    if (copies < 2) return;
    open_side(&s, device, &form->shape, &form->options, t, sp);
    run_side(&s);
    const int64_t first = numbers_of(&s.gradient[LS_PARAMETER_QKV]) - n;
    float *all = malloc((size_t)(size * n) * sizeof *all), *own;
    char *host = host_copy(&s, &s.gradient[LS_PARAMETER_QKV]);

    own = (float *)host + first;
    MPI_CHECK_OK(ls_comm_gather(all, world, own, (size_t)n * sizeof *all));
    bool same = true;
    for (int r = 0; r < size; r++)
        if (r % t / copies == s.plan->grid.tensor / copies)
            same &= memcmp(all + r * n, own, (size_t)n * sizeof *all) == 0;
    MPI_CHECK(same, "%s", text_of(form, t, sp));
    free(host);
    free(all);
    close_side(&s);
}

MPI_TEST(layer_forms, have_the_same_gradients_of_shared_heads)
{
    check_forms(check_copies);
}

/* ---- recomputation and memory */

/* Whatever set of pieces. */
static void check_kept(const struct form *form, struct ls_device *device, int t, bool sp)
{
    const struct ls_model_shape model = ls_layer_as_model(&form->shape, &form->options);
    struct side s;

    open_side(&s, device, &form->shape, &form->options, t, sp);
    ls_layer_state_destroy(s.state);
    MPI_CHECK_OK(ls_layer_reserve(s.plan, LS_PIECE_LAYER)); /* as much as any set wants */
    for (unsigned pieces = 0; pieces < LS_PIECE_LAYER << 1; pieces++) {
        struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
        run.pieces = pieces;
        const struct ls_kept_bytes planned = ls_layer_kept_bytes(&model, &run);
        const int64_t before = (int64_t)ls_ledger_live_total(ls_device_ledger(device));
        const ls_status status = ls_layer_state_create(&s.state, s.plan, ls_pieces_name(pieces).s);
        const int64_t kept = (int64_t)ls_ledger_live_total(ls_device_ledger(device)) - before;

        MPI_CHECK(status == LS_OK && kept == planned.paper + planned.own,
                  "%s, %s: kept %lld bytes, planned %lld", text_of(form, t, sp),
                  ls_pieces_name(pieces).s, (long long)kept,
                  (long long)(planned.paper + planned.own));
        ls_layer_state_destroy(s.state);
    }
    s.state = NULL;
    close_side(&s);
}

MPI_TEST(layer_forms, keep_what_is_planned_to_the_byte)
{
    check_forms(check_kept);
}

static void check_pieces(const struct form *form, struct ls_device *device, int t, bool sp)
{
    static const char *const sets[] = {"norm,activation,dropout", "core,mlp", "qkv", "full"};
    struct side plain, s;

    open_side(&plain, device, &form->shape, &form->options, t, sp);
    run_side(&plain);
    for (int i = 0; i < COUNT(sets); i++) {
        struct ls_layer_options o = form->options;

        o.recompute = sets[i];
        open_side(&s, device, &form->shape, &o, t, sp);
        run_side(&s);
        MPI_CHECK(has_same_results(&s, &plain), "%s: %s", text_of(form, t, sp), sets[i]);
        close_side(&s);
    }
    close_side(&plain);
}

MPI_TEST(layer_forms, have_the_same_bits_whatever_is_computed_again)
{
    check_forms(check_pieces);
}

static void check_parameters(const struct form *form, struct ls_device *device, int t, bool sp)
{
    struct ls_model_shape model = ls_layer_as_model(&form->shape, &form->options);
    int64_t count = 0;
    struct side s;

    open_side(&s, device, &form->shape, &form->options, t, sp);
    const struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
    const int64_t one = ls_rank_parameters(&model, &run);

    model.L = 2;
    for (int i = 0; i < PARAMETERS; i++) count += numbers_of(&s.weight[i]);
    MPI_CHECK(count == ls_rank_parameters(&model, &run) - one, "%s: %lld parameters, planned %lld",
              text_of(form, t, sp), (long long)count,
              (long long)(ls_rank_parameters(&model, &run) - one));
    close_side(&s);
}

MPI_TEST(layer_forms, have_the_parameters_that_are_planned)
{
    check_forms(check_parameters);
}

/* ---- traffic */

static void check_traffic(const struct form *form, struct ls_device *device, int t, bool sp)
{
    static const char *const sets[] = {"none", "mlp", "core,qkv,mlp", "full"};
    const struct ls_model_shape model = ls_layer_as_model(&form->shape, &form->options);

    for (int i = 0; i < COUNT(sets); i++) {
        struct ls_layer_options o = form->options;
        struct side s;

        o.recompute = sets[i];
        open_side(&s, device, &form->shape, &o, t, sp);
        const struct ls_model_run run = ls_layer_plan_as_run(s.plan, s.plan->pieces);
        const struct ls_layer_traffic planned =
            ls_layer_traffic_of(&model, &run,
                                &(struct ls_layer_place){.tensor = s.plan->grid.tensor,
                                                         .outer_nodes = s.plan->outer.most,
                                                         .inner_nodes = s.plan->inner.most,
                                                         .weight_sums = s.plan->weights.most});
        const int64_t bytes = planned.rows + planned.weights + planned.vectors;

        run_side(&s);
        MPI_CHECK(s.plan->traffic.bytes_sent == bytes, "%s, %s: sent %lld bytes, planned %lld",
                  text_of(form, t, sp), sets[i], (long long)s.plan->traffic.bytes_sent,
                  (long long)bytes);
        close_side(&s);
    }
}

MPI_TEST(layer_forms, send_what_is_planned)
{
    check_forms(check_traffic);
}

/* Biases that there are not take no memory. */
MPI_TEST(layer_forms, without_biases_have_no_room_for_them)
{
    const struct ls_layer_shape n = {1, 256 * size, 24, 4, 2, 8, 16, LS_F32};
    struct ls_layer_options o = {OPTIONS, .norm = LS_NORM_RMS};
    struct ls_device *device;
    int64_t taken[2], most = 0;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    for (int none = 0; none < 2; none++) {
        struct side s;

        o.no_bias = none;
        open_side(&s, device, &n, &o, 1, false);
        taken[none] = (int64_t)ls_ledger_live(ls_device_ledger(device), LS_TAG_GRADIENT);
        most = s.plan->outer.most;
        close_side(&s);
    }
    const int64_t numbers = most * (2 * n.e + (n.h + 2 * n.h_kv) * n.d + n.f);
    MPI_CHECK(taken[0] - taken[1] == size * numbers * (int64_t)sizeof(float), "%lld bytes",
              (long long)(taken[0] - taken[1]));
    ls_device_close(device);
}

/* ---- what is refused */

MPI_TEST(layer_forms, that_cannot_be_are_refused)
{
    static const struct {
        struct ls_layer_shape shape;
        struct ls_layer_options options;
        ls_status status;
        const char *says;
    } cases[] = {
        {{1, 256, 8, 4, 4, 4, 8, LS_F32},
         {.parallel = true, .post_norm = true},
         LS_EVALUE,
         "parallel goes with post_norm off"},
        {{1, 256, 8, 12, 4, 4, 12, LS_F32},
         {.tp = 6},
         LS_ESHAPE,
         "4 key/value heads and 6 tensor-parallel ranks"},
        {{1, 256, 8, 6, 4, 4, 6, LS_F32}, {.tp = 2}, LS_ESHAPE, "6 heads are not a multiple of 4"},
        {{1, 256, 8, 4, 0, 4, 8, LS_F32}, {.tp = 2}, LS_ESHAPE, "not a multiple of 0 key/value"},
    };
    struct ls_device *device;

    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    for (int i = 0; i < COUNT(cases); i++) {
        struct ls_layer_options o = cases[i].options;
        struct ls_layer_plan *plan;

        o.size = sizeof o;
        o.device = device;
        check_failure(ls_layer_plan_create(&plan, world, &cases[i].shape, &o), cases[i].status,
                      cases[i].says, cases[i].says);
    }
    ls_device_close(device);
}

MPI_TEST(layer_forms, in_parallel_have_no_second_norm)
{
    const struct form *form = &forms[0];
    const int t = most_tensor_ranks(&form->shape);
    struct ls_device *device;
    struct side s;

    if (t == 0) MPI_SKIP("more ranks than leaves");
    MPI_CHECK_OK(ls_device_open(&device, "cpu", 0, 1));
    open_side(&s, device, &form->shape, &form->options, t, false);
    s.weights.norm2 = s.weights.norm1;
    check_failure(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 1), LS_EVALUE,
                  "norm2 is given, but the layer has none", "norm2");
    close_side(&s);
    ls_device_close(device);
}
