/* A layer on any grid of ranks, with and without sequence parallelism, against the same layer in
 * double precision; and what it refuses. */
#include "../mpi/harness.h"
#include "side.h"

MPI_SUITE(layer)

static void check_contract(struct whole *w, int t, bool sp)
{
    struct ls_layer_options o = w->options;
    struct side s;
    char text[80];

    o.tp = t;
    o.cp = size / t;
    o.sp = sp;
    snprintf(text, sizeof text, "%s%s%s, t %d c %d%s", ls_dtype_name(w->shape.type),
             o.post_norm ? " post-norm"
             : o.no_bias ? " llama"
                         : "",
             o.core == LS_CORE_MATERIALIZED ? " materialized" : "", t, o.cp, sp ? " sp" : "");
    open_side(&s, world, w, &o);
    run_side(&s);
    judge_side(&s, w, t, text);
    close_side(&s);
}

MPI_TEST(layer, keeps_the_contract_on_any_grid)
{
    check_all(check_contract);
}

MPI_TEST(layer, a_rank_may_have_no_rows_outside)
{
    check_ranks_without_rows(check_contract);
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
        {{1, 256, 8, 4, 4, 300, 8, LS_F32},
         {.core = LS_CORE_MATERIALIZED},
         LS_ESHAPE,
         "head dim is 300"},
        {{1, 256, 8, 4, 4, 5, 8, LS_F32}, {.rope_theta = 1e4F}, LS_ESHAPE, "head dim is 5"},
        {{1, 256, 8, 4, 4, 4, 8, LS_F32}, {.tp = 1, .cp = 7}, LS_EVALUE, "are not the"},
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

MPI_TEST(layer, a_materialized_core_is_strict_on_one_context_alone)
{
    const struct ls_layer_shape shape = {1, 256, 8, 4, 4, 4, 8, LS_F32};
    struct ls_layer_options o = LS_LAYER_OPTIONS;
    struct ls_layer_plan *plan;

    if (size == 1) MPI_SKIP("one rank");
    MPI_CHECK_OK(ls_device_open(&o.device, "cpu", 0, 1));
    o.core = LS_CORE_MATERIALIZED;
    o.strict = true;
    o.cp = size;
    check_failure(ls_layer_plan_create(&plan, world, &shape, &o), LS_EVALUE,
                  "is not strict over several context-parallel ranks", "several contexts");
    ls_device_close(o.device);
}

MPI_TEST(layer, a_bad_tensor_on_one_rank_fails_on_all)
{
    struct ls_layer_options o = kinds[0];
    struct whole w;
    struct side s;

    o.tp = size <= 4 && 4 % size == 0 ? size : 1;
    o.cp = size / o.tp;
    if ((o.cp - 1) * LS_LEAF >= shapes[0].s) MPI_SKIP("more ranks than leaves");
    create_whole(&w, &shapes[0], &kinds[0]);
    open_side(&s, world, &w, &o);
    if (rank == size - 1) s.weights.qkv = NULL;
    check_failure(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 1), LS_EVALUE,
                  "qkv is missing", "no weights");
    s.weights.qkv = &s.weight[QKV];
    if (rank == 0) s.x.dim[1]++;
    check_failure(ls_layer_forward(&s.y, s.plan, s.state, &s.weights, &s.x, 1), LS_ESHAPE,
                  "x: dimension 1", "rows");
    if (rank == 0) s.x.dim[1]--;
    run_side(&s);
    judge_side(&s, &w, o.tp, "after failures");
    close_side(&s);
    destroy_whole(&w);
}
