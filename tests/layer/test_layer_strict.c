/* Strict mode of a layer: at one number of tensor-parallel ranks, outputs and gradients have the
 * bits that a single context-parallel rank finds, however the sequence is cut. Every group of
 * tensor-parallel ranks also computes the whole sequence alone, and compares its rows. */
#include "base/cpu.h"
#include "forms.h"
#include "side.h"

MPI_SUITE(layer_strict)

/* ---- the verdict */

/* Rows of each sequence, those of `whole` in order. */
static bool has_same_rows(const struct side *s, const struct side *whole, int which)
{
    const struct ls_tensor *t = &s->got[which];
    const size_t bytes = (size_t)(t->dim[2] * ls_dtype_size(t->type));
    char *own = read_bytes(s->device, t), *all = read_bytes(whole->device, &whole->got[which]);
    bool same = true;

    for (int64_t i = 0; i < t->dim[0] * t->dim[1]; i++) {
        const int64_t at = row_index(s, i * t->dim[2]) / t->dim[2];

        same &= memcmp(own + (size_t)i * bytes, all + (size_t)at * bytes, bytes) == 0;
    }
    free(own);
    free(all);
    return same;
}

static void compare(const struct side *s, const struct side *whole)
{
    for (int i = 0; i < TENSORS; i++) {
        const bool same = i < PARAMETERS
                              ? has_same_bits(s->device, &s->got[i], whole->device, &whole->got[i])
                              : has_same_rows(s, whole, i);

        MPI_CHECK(same, "%s: %s", text_of(s), name_of(i));
    }
}

/* ---- cases */

/* Several leaves a rank and fewer than ranks, lengths that nothing divides, a last leaf of one row;
 * each method of attention that merges results, and those that bring all keys. */
static const struct form cases[] = {
    {"s 1041",
     {.b = 2, .s = 1041, .e = 20, .h = 4, .h_kv = 2, .d = 6, .f = 26, .type = LS_F32},
     {OPTIONS, .strict = true, .causal = true, .dropout = 0.2F}},
    {"s 1290",
     {.b = 1, .s = 1290, .e = 40, .h = 6, .h_kv = 2, .d = 8, .f = 36, .type = LS_BF16},
     {OPTIONS, .strict = true, RMS, SWIGLU, .no_bias = true, .rope_theta = 1e4F}},
    {"s 513",
     {.b = 3, .s = 513, .e = 9, .h = 2, .h_kv = 2, .d = 8, .f = 70, .type = LS_F32},
     {OPTIONS, .strict = true, .post_norm = true, .causal = true}},
    {"s 100",
     {.b = 1, .s = 100, .e = 33, .h = 2, .h_kv = 2, .d = 16, .f = 6, .type = LS_BF16},
     {OPTIONS, .strict = true, .causal = true, .dropout = 0.2F}},
};

static const char *const methods[] = {"ring", "allreduce", "ulysses", "allgather", NULL};
static const char *const pieces[] = {NULL, "core,norm", "full", "mlp,qkv,dropout", "selective"};

static const ls_layout_kind layouts[] = {LS_LAYOUT_CONTIGUOUS, LS_LAYOUT_ZIGZAG, LS_LAYOUT_STRIPED};

/* Methods and layouts of a core: which of all there are are tried in a turn. A materialized one has
 * no method. */
struct ways {
    int first, step, end;
};

/* One alone where the sequence is not cut. */
static struct ways ways_of(ls_core_kind core, bool cut, int turn)
{
    const bool fused = core == LS_CORE_FUSED;
    const int all = fused ? COUNT(methods) * COUNT(layouts) : COUNT(layouts);
    const int step = fused ? COUNT(cases) : 1;

    return (struct ways){turn % step, cut ? step : all, all};
}

static void check_grid(const struct side *whole, int t, bool sp, int turn)
{
    const ls_core_kind core = whole->options.core;
    const struct ways ways = ways_of(core, size > t, turn);

    for (int i = ways.first; i < ways.end; i += ways.step) {
        struct side s = side_of(whole->form, t, sp);

        s.options.core = core;
        s.options.layout = layouts[i % COUNT(layouts)];
        s.options.method = core == LS_CORE_FUSED ? methods[i / COUNT(layouts)] : NULL;
        s.options.recompute = pieces[(i + turn) % COUNT(pieces)];
        MPI_CHECK_OK(ls_device_open(&s.device, "cpu", 0, 1 + (i + rank) % 2));
        if (!try_to_open(&s)) continue;
        run_side(&s);
        compare(&s, whole);
        check_sent(&s);
        close_side(&s);
    }
}

/* All groups of t ranks find the same. */
static void check_case(int which, int t, ls_core_kind core)
{
    struct side whole = side_of(&cases[which], t, false);
    int ranks[2];

    for (int i = 0; i < t; i++) ranks[i] = rank / t * t + i;
    MPI_CHECK_OK(ls_comm_split(&whole.comm, world, ranks, t));
    MPI_CHECK_OK(ls_device_open(&whole.device, "cpu", 0, 2));
    whole.options.cp = 1;
    whole.options.core = core;
    open_side(&whole);
    run_side(&whole);
    for (int sp = 0; sp < t; sp++) check_grid(&whole, t, sp, which);
    close_side(&whole);
    ls_comm_destroy(whole.comm);
}

MPI_TEST(layer_strict, any_cut_of_the_sequence_has_the_bits_of_none)
{
    for (int t = 1; t <= 2 && size % t == 0; t++)
        for (int i = 0; i < COUNT(cases); i++) check_case(i, t, LS_CORE_FUSED);
}

MPI_TEST(layer_strict, any_cut_has_the_bits_of_none_with_a_materialized_core)
{
    if (size == 1) MPI_SKIP("nothing is cut");
    for (int t = 1; t <= 2 && t < size && size % t == 0; t++)
        for (int i = 0; i < COUNT(cases); i++) check_case(i, t, LS_CORE_MATERIALIZED);
}

/* Ranks with different instruction sets are refused, each by its name. */
MPI_TEST(layer_strict, ranks_must_compute_alike)
{
    struct ls_layer_options o = cases[0].options;
    struct ls_layer_plan *plan;
    char last[32];
    ls_isa isa;

    if (size == 1 || ls_isa_choose(&isa, "avx2", ls_cpu_isa_best()) != LS_OK)
        MPI_SKIP("it takes two ranks and AVX2");
    setenv("LONGSPAN_ISA", rank == size - 1 ? "generic" : "avx2", 1);
    snprintf(last, sizeof last, "rank %d", size - 1);
    MPI_CHECK_OK(ls_device_open(&o.device, "cpu", 0, 1));
    o.cp = size;
    o.core = LS_CORE_MATERIALIZED;
    MPI_CHECK(ls_layer_plan_create(&plan, world, &cases[0].shape, &o) == LS_EFIT, "%s",
              ls_message());
    MPI_CHECK(strstr(ls_message(), last) && strstr(ls_message(), "generic") &&
                  strstr(ls_message(), "avx2"),
              "%s", ls_message());
    o.strict = false;
    MPI_CHECK_OK(ls_layer_plan_create(&plan, world, &cases[0].shape, &o));
    ls_layer_plan_destroy(plan);
    ls_device_close(o.device);
}

/* ---- what sums of weights take */

/* Of one linear alone, on all ranks. */
struct linear {
    struct ls_device *device;
    struct ls_linear_kernel *kernel;
    struct ls_traffic traffic;
    struct ls_weight_sums sums;
    struct ls_leaf leaf[64];
    struct ls_tensor gradient, dy, x;
};

static void open_linear(struct linear *l, const struct ls_layout *layout, int64_t out, int64_t in,
                        bool strict)
{
    const int64_t rows = ls_layout_part_rows(layout, rank);
    const int64_t dims[][2] = {{out, in}, {rows, out}, {rows, in}};
    const struct ls_linear_shape shape = {LS_F32, rows, in, out, true, 1, layout->s};
    const struct ls_transport transport = ls_transport_of(world, &l->traffic);
    struct ls_weight_shape sums = {
        .layout = layout, .b = 1, .most_weights = out * in, .most_columns = in, .strict = strict};
    struct ls_tensor *const list[] = {&l->gradient, &l->dy, &l->x};

    MPI_CHECK_OK(ls_device_open(&l->device, "cpu", 0, 1));
    MPI_CHECK_OK(ls_linear_kernel_create(&l->kernel, l->device, &shape));
    sums.leaves = (struct ls_leaf_list){l->leaf, ls_layout_part_leaves(layout, rank)};
    for (int64_t i = 0; i < sums.leaves.count; i++)
        l->leaf[i] = (struct ls_leaf){ls_layout_part_leaf(layout, rank, i), i * LS_LEAF};
    MPI_CHECK_OK(ls_weight_sums_init(&l->sums, &transport, l->device, &sums));
    for (int i = 0; i < COUNT(list); i++) {
        *list[i] = create_tensor(l->device, LS_F32, 2, dims[i]);
        write_everywhere(l->device, list[i], 0);
    }
}

static void close_linear(struct linear *l)
{
    ls_device_free(l->device, l->gradient.data);
    ls_device_free(l->device, l->dy.data);
    ls_device_free(l->device, l->x.data);
    ls_weight_sums_fini(&l->sums);
    ls_linear_kernel_destroy(l->device, l->kernel);
    ls_device_close(l->device);
}

static void check_linear(const struct ls_layout *layout, int64_t out, int64_t in, bool strict)
{
    const int64_t share = (out + size - 1) / size * in * (int64_t)sizeof(float);
    struct linear l = {.device = NULL};
    char text[120];

    snprintf(text, sizeof text, "%s, s %ld, %ld x %ld, strict %d", ls_layout_name(layout->kind),
             (long)layout->s, (long)out, (long)in, strict);
    open_linear(&l, layout, out, in, strict);
    const int64_t slots = (l.sums.tree.sums + 1) * size * in;
    const int64_t floats = size == 1 ? 0 : slots > out * in ? slots : out * in;
    const size_t taken = ls_ledger_live(ls_device_ledger(l.device), LS_TAG_GRADIENT);

    MPI_CHECK(taken <= (size_t)floats * sizeof(float), "%s: %zu bytes", text, taken);
    MPI_CHECK(strict || l.sums.tree.sums == (size > 1), "%s: %ld sums", text,
              (long)l.sums.tree.sums);
    MPI_CHECK_OK(ls_weight_sums_add(&l.sums, l.kernel, &l.gradient, &l.dy, &l.x));
    MPI_CHECK(l.traffic.bytes_sent == (size - 1) * (l.sums.tree.sums + 1) * share, "%s: %ld sent",
              text, (long)l.traffic.bytes_sent);
    close_linear(&l);
}

/* Memory of the largest gradient, or of one row for each slot; and bytes as weights.h has them. */
MPI_TEST(layer_strict, sums_of_weights_take_and_send_what_is_said)
{
    for (int i = 0; i < 2 * COUNT(layouts); i++)
        for (int64_t s = 200; s < 10000; s *= 6) {
            const struct ls_layout layout = {.kind = layouts[i / 2], .s = s, .p = size};

            for (int64_t out = 7; out < 300; out *= 5) check_linear(&layout, out, 300 / out, i % 2);
        }
}
