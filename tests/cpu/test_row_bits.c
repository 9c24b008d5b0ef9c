/* Strict kernels: products whose rows depend on their place are found out, and a kernel that keeps
 * rows in place computes the same attention, and the same bits whatever else it computes. */
#include "../device/harness.h"

#include <omp.h>

#include "cpu/attention/kernel.h"

static const struct products *honest;

/* Errs by a bit in the last place in every row but the first of a strip. */
static ls_status misplaced_scores(float *out, void *worker, const void *q, struct operand k,
                                  int rows, struct key_span keys)
{
    LS_TRY(honest->scores(out, worker, q, k, rows, keys));
    for (int r = 1; r < rows; r++)
        out[r * honest->score_stride + 100] =
            nextafterf(out[r * honest->score_stride + 100], INFINITY);
    return LS_OK;
}

/* The same in strips of more than 20 rows. */
static ls_status misplaced_output(float *acc, void *worker, const void *p, struct operand v,
                                  int rows, struct key_span keys)
{
    LS_TRY(honest->output(acc, worker, p, v, rows, keys));
    for (int i = 0; rows > 20 && i < rows * 16; i++) acc[i] = nextafterf(acc[i], INFINITY);
    return LS_OK;
}

static bool keeps_bits(const struct products *products)
{
    const struct head_dims pad = {32, 64};
    struct strip_worker w;
    char *scratch;
    bool same;
    ls_isa isa;

    cr_assert_eq(ls_cpu_isa(&isa), LS_OK);
    scratch = aligned_alloc(64, cpu_strip_scratch_bytes(products, pad));
    cr_assert_eq(cpu_strip_worker_init(&w, products, isa, pad, scratch), LS_OK, "%s", ls_message());
    cr_assert_eq(cpu_rows_keep_bits(&same, &w), LS_OK, "%s", ls_message());
    cpu_strip_worker_fini(&w);
    free(scratch);
    return same;
}

static void place_is_found_out(void)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16};
    ls_isa isa;

    omp_set_num_threads(1);
    cr_assert_eq(ls_cpu_isa(&isa), LS_OK);
    for (int i = 0; i < LENGTH(types); i++) {
        honest = cpu_products_find(isa, types[i]);
        struct products scores = *honest, output = *honest;

        scores.scores = misplaced_scores;
        output.output = misplaced_output;
        cr_expect_not(keeps_bits(&scores), "%s: scores", honest->name);
        cr_expect_not(keeps_bits(&output), "%s: output", honest->name);
        if (isa >= LS_ISA_AVX512) cr_expect(keeps_bits(honest), "%s", honest->name);
    }
}

/* One kernel over all leaves of both sides; with rows in place if asked for; products NULL: its
 * own. */
static void attend_in_place(struct problem *p, bool in_place, const struct products *products)
{
    struct ls_attention_kernel *kernel;
    struct ls_work result = {0};
    struct ls_device *device = open_device(p->options.threads);
    struct ls_leaf q_leaf[8], k_leaf[8];
    struct ls_kernel_call call = {.o = &p->o,
                                  .lse = &p->lse,
                                  .q = &p->q,
                                  .k = &p->k,
                                  .v = &p->v,
                                  .q_leaves = {q_leaf, (p->shape.s_q + LS_LEAF - 1) / LS_LEAF},
                                  .k_leaves = {k_leaf, (p->shape.s_k + LS_LEAF - 1) / LS_LEAF}};

    const struct ls_mask mask = p->options.causal ? causal_mask(p->shape.s_q, p->shape.s_k)
                                                  : full_mask(p->shape.s_q, p->shape.s_k);

    for (int i = 0; i < 8; i++) q_leaf[i] = k_leaf[i] = (struct ls_leaf){i, i * LS_LEAF};
    memset(p->o.data, 0x5a, tensor_bytes(&p->o));
    cr_assert_eq(ls_attention_kernel_create(
                     &kernel, device,
                     (struct ls_kernel_shape){
                         .global = p->shape,
                         .masks = {&mask, 1, 1, 0},
                         .scores = {.scale = (float)problem_scale(p), .heads = p->shape.h},
                         .k_leaves = call.k_leaves.count,
                         .strict = true,
                     }),
                 LS_OK, "%s", ls_message());
    kernel->canonical = in_place;
    if (products) kernel->products = products;
    for (int t = 0; t < p->options.threads; t++) {
        kernel->worker[t].strip.full = in_place;
        kernel->worker[t].strip.products = kernel->products;
    }
    cr_expect_eq(ls_attention_kernel_is_canonical(device, kernel), in_place);
    cr_assert_eq(run_attention(&result, device, kernel, &call), LS_OK);
    ls_attention_kernel_destroy(device, kernel);
}

/* Groups whose heads would share a tile, rows alone, keys that must not be seen. */
static void rows_in_place_are_attention(void)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16, LS_F16};

    for (int i = 0; i < LENGTH(types) * 4; i++) {
        struct problem p = {.shape = {.b = 1,
                                      .h = 6,
                                      .h_kv = 2,
                                      .s_q = i % 2 ? 300 : 40,
                                      .s_k = 520,
                                      .d = 48,
                                      .type = types[i / 4]},
                            .options = {.causal = i / 2 % 2, .threads = 1 + i % 2}};

        problem_open(&p);
        if (i % 3 == 0 && p.options.causal) store_at(&p.v, 0, 515, 0, 3, NAN);
        attend_in_place(&p, true, NULL);
        if (i % 3 != 0) expect_oracle(&p, 20);
        struct problem other = p;
        other.o.data = malloc(tensor_bytes(&p.o));
        other.lse.data = malloc(tensor_bytes(&p.lse));
        attend_in_place(&other, false, NULL);
        for (int64_t row = 0; row < p.shape.s_q; row++)
            for (int64_t head = 0; head < p.shape.h; head++)
                for (int64_t e = 0; e < p.shape.d; e++) {
                    const double a = load_at(&p.o, 0, row, head, e);
                    const double b = load_at(&other.o, 0, row, head, e);

                    cr_assert(fabs(a - b) <= 2 * ls_dtype_unit(p.shape.type) * fmax(1, fabs(b)) ||
                                  (isnan(a) && isnan(b)),
                              "%s: row %ld head %ld: %g, not %g", problem_name(&p), (long)row,
                              (long)head, a, b);
                }
        free(other.o.data);
        free(other.lse.data);
        problem_close(&p);
    }
}

/* A row's place is all too plain in it. */
static ls_status crooked_scores(float *out, void *worker, const void *q, struct operand k, int rows,
                                struct key_span keys)
{
    LS_TRY(honest->scores(out, worker, q, k, rows, keys));
    for (int r = 0; r < rows; r++) out[r * honest->score_stride + 100] += (float)r;
    return LS_OK;
}

/* Whether a head alone, as Ulysses deals them, has the bits that it has beside those of its group,
 * which leave room for each other's rows in a tile. */
static bool heads_have_bits_of_their_own(struct problem *p, bool in_place,
                                         const struct products *products)
{
    const size_t bytes = tensor_bytes(&p->o) / (size_t)p->shape.h;
    char *together = p->o.data;
    struct problem one = *p;
    bool same = true;

    attend_in_place(p, in_place, products);
    one.shape.h = one.q.dim[2] = one.o.dim[2] = one.lse.dim[1] = 1;
    one.o.data = malloc(bytes);
    for (int64_t head = 0; head < p->shape.h; head++) {
        one.q.data = element_at(&p->q, 0, 0, head);
        attend_in_place(&one, in_place, products);
        same &= memcmp(one.o.data, together + (size_t)head * bytes, bytes) == 0;
    }
    free(one.o.data);
    return same;
}

static void rows_keep_their_places(void)
{
    static const ls_dtype types[] = {LS_F32, LS_BF16};
    ls_isa isa;

    cr_assert_eq(ls_cpu_isa(&isa), LS_OK);
    for (int i = 0; i < LENGTH(types); i++) {
        struct problem p = {
            .shape = {.b = 1, .h = 3, .h_kv = 1, .s_q = 40, .s_k = 300, .d = 32, .type = types[i]},
            .bhsd = true};

        honest = cpu_products_find(isa, types[i]);
        struct products crooked = *honest;
        crooked.scores = crooked_scores;
        crooked.probabilities = NULL;
        problem_open(&p);
        cr_expect(heads_have_bits_of_their_own(&p, true, &crooked), "%s", problem_name(&p));
        cr_expect_not(heads_have_bits_of_their_own(&p, false, &crooked), "%s", problem_name(&p));
        problem_close(&p);
    }
}

TEST_EACH_ISA(row_bits, place_is_found_out)
TEST_EACH_ISA(row_bits, rows_keep_their_places)
TEST_EACH_ISA(row_bits, rows_in_place_are_attention)
