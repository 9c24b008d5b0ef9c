/* A layer on any grid of ranks, with and without sequence parallelism, against the same layer in
 * double precision; and what it refuses. */
#include "answer.h"
#include "forms.h"

MPI_SUITE(layer)

/* Tensor-parallel ranks of one key/value head, and those of all contexts, have the same gradients
 * of its weights, the last of qkv. */
static void check_shared_heads(const struct side *s)
{
    const struct ls_layer_shape *n = &s->form->shape;
    const struct ls_tensor *gradient = &s->got[LS_PARAMETER_QKV];
    const int t = s->options.tp, copies = t / (int)n->h_kv;
    const size_t bytes = (size_t)(2 * n->d * n->e) * sizeof(float);

    if (copies < 2) return;
    char *all = malloc((size_t)size * bytes), *own = read_bytes(s->device, gradient);
    memmove(own, own + bytes_of(gradient) - bytes, bytes);
    MPI_CHECK_OK(ls_comm_gather(all, world, own, bytes));
    bool same = true;
    for (int r = 0; r < size; r++)
        if (r % t / copies == s->plan->grid.tensor / copies)
            same &= memcmp(all + (size_t)r * bytes, own, bytes) == 0;
    MPI_CHECK(same, "%s: shared heads", text_of(s));
    free(own);
    free(all);
}

static void check_contract(const struct form *form, int t, bool sp)
{
    struct side s = side_of(form, t, sp);

    open_side(&s);
    run_side(&s);
    judge_side(&s);
    check_shared_heads(&s);
    close_side(&s);
}

MPI_TEST(layer, keeps_the_contract_on_any_grid)
{
    check_forms(check_contract);
}

MPI_TEST(layer, a_rank_may_have_no_rows_outside)
{
    check_ranks_without_rows(check_contract);
}

/* Biases that there are not take no memory. */
MPI_TEST(layer, without_biases_has_no_room_for_them)
{
    const struct ls_layer_shape n = {1, 256 * size, 24, 4, 2, 8, 16, LS_F32};
    const struct form with = {"biases", n, {OPTIONS, RMS}};
    const struct form without = {"no biases", n, {OPTIONS, RMS, .no_bias = true}};
    const struct form *const both[] = {&with, &without};
    int64_t taken[2], most = 0;

    for (int i = 0; i < COUNT(both); i++) {
        struct side s = side_of(both[i], 1, false);

        open_side(&s);
        taken[i] = (int64_t)ls_ledger_live(ls_device_ledger(s.device), LS_TAG_GRADIENT);
        most = s.plan->outer.most;
        close_side(&s);
    }
    const int64_t numbers = most * (2 * n.e + (n.h + 2 * n.h_kv) * n.d + n.f);
    MPI_CHECK(taken[0] - taken[1] == size * numbers * (int64_t)sizeof(float), "%lld bytes",
              (long long)(taken[0] - taken[1]));
}

/* ---- what is refused */

MPI_TEST(layer, what_does_not_fit_is_refused)
{
    static const struct {
        struct ls_layer_shape shape;
        struct ls_layer_options options;
        ls_status status;
        const char *says;
    } cases[] = {
        {{1, 256, 8, 3, 3, 4, 8, LS_F32}, {.tp = 2}, LS_ESHAPE, "3 heads cannot be shared"},
        {{1, 256, 8, 6, 2, 4, 6, LS_F32}, {.tp = 3}, LS_ESHAPE, "2 key/value heads and 3"},
        {{1, 256, 8, 4, 4, 4, 9, LS_F32}, {.tp = 2}, LS_ESHAPE, "9 columns of the MLP cannot"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F16}, {.tp = 1}, LS_ETYPE, "not f16"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.dropout = 1}, LS_EVALUE, "dropout is 1"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.recompute = "coer"}, LS_EVALUE, "(core?)"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.core = 7}, LS_EVALUE, "core is 7"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32},
         {.core = LS_CORE_MATERIALIZED, .method = "ring"},
         LS_EVALUE,
         "method ring is for a fused core"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32},
         {.core = LS_CORE_MATERIALIZED, .layout = LS_LAYOUT_BALANCED},
         LS_EVALUE,
         "layout balanced is for a fused core"},
        {{1, 256, 8, 4, 3, 4, 8, LS_F32},
         {.core = LS_CORE_MATERIALIZED},
         LS_ESHAPE,
         "4 heads are not a multiple of 3"},
        {{1, 256, 8, 4, 4, 600, 8, LS_F32},
         {.core = LS_CORE_MATERIALIZED},
         LS_ESHAPE,
         "head dim is 600"},
        {{1, 256, 8, 4, 4, 5, 8, LS_F32}, {.rope_theta = 1e4F}, LS_ESHAPE, "head dim is 5"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.tp = 1, .cp = 7}, LS_EVALUE, "are not the"},
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
        if (o.tp == 0 && o.cp == 0) o.cp = size;
        check_failure(ls_layer_plan_create(&plan, world, &cases[i].shape, &o), cases[i].status,
                      cases[i].says, cases[i].says);
    }
    ls_device_close(device);
}

MPI_TEST(layer, a_bad_tensor_on_one_rank_fails_on_all)
{
    const struct form *form = &forms[1];
    const int t = most_tensor_ranks(&form->shape);

    if (t == 0) MPI_SKIP("more ranks than leaves");
    struct side s = side_of(form, t, false);
    open_side(&s);
    if (rank == size - 1) s.weights.qkv = NULL;
    check_failure(run_forward(&s, 1), LS_EVALUE, "qkv is missing", "no weights");
    s.weights.qkv = &s.given[LS_PARAMETER_QKV];
    if (rank == 0) s.given[X].dim[1]++;
    check_failure(run_forward(&s, 1), LS_ESHAPE, "x: dimension 1", "rows");
    if (rank == 0) s.given[X].dim[1]--;
    s.weights.norm2 = s.weights.norm1;
    check_failure(run_forward(&s, 1), LS_EVALUE, "norm2 is given, but the layer has none", "norm2");
    s.weights.norm2 = NULL;
    run_side(&s);
    judge_side(&s);
    close_side(&s);
}
