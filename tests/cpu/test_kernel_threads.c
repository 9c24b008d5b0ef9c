/* What kernels do with the threads they have: all have work, fewer may come than were asked for,
 * and the first moves messages. */
#include <omp.h>

#include "../device/gradient_harness.h"

/* The keys of a single tile are cut so that every thread can have several pieces. */
Test(kernel_threads, one_query_is_work_for_all)
{
    for (int threads = 1; threads <= 4; threads++) {
        struct problem p = {.shape = {1, 1, 1, 1, 20000, 16, LS_BF16, 0}};
        struct ls_leaf leaf[79], query = {0, 0};
        struct ls_device *device = open_device(threads);
        struct ls_attention_kernel *kernel;
        struct ls_work result = {0};

        problem_open(&p);
        for (int i = 0; i < LENGTH(leaf); i++) leaf[i] = (struct ls_leaf){i, i * LS_LEAF};
        const struct ls_mask mask = full_mask(p.shape.s_q, p.shape.s_k);
        const struct ls_kernel_shape shape = {
            .global = p.shape,
            .masks = {&mask, 1, 1, 0},
            .scores = {.scale = (float)problem_scale(&p), .heads = p.shape.h},
            .k_leaves = LENGTH(leaf)};
        const struct ls_kernel_call call = {.o = &p.o,
                                            .lse = &p.lse,
                                            .q = &p.q,
                                            .k = &p.k,
                                            .v = &p.v,
                                            .q_leaves = {&query, 1},
                                            .k_leaves = {leaf, LENGTH(leaf)}};

        cr_assert_eq(ls_attention_kernel_create(&kernel, device, shape), LS_OK, "%s", ls_message());
        cr_assert_eq(run_attention(&result, device, kernel, &call), LS_OK);
        const int64_t pieces = result.profile.count[LS_EVENT_TILE];
        cr_expect(threads == 1 ? pieces == 1 : pieces >= 2 * threads, "%d threads, %ld pieces",
                  threads, (long)pieces);
        cr_expect_eq(result.tiles, LENGTH(leaf));
        expect_oracle(&p, 1);
        ls_attention_kernel_destroy(device, kernel);
        problem_close(&p);
    }
}

static struct meeting causal_meeting(int64_t h, int64_t s, int64_t d)
{
    return (struct meeting){.shape = {1, h, 1, s, s, d, LS_F32, 0}, .rule = causal_rule(s, s)};
}

/* OpenMP may give fewer than the kernel was made for. */
Test(kernel_threads, fewer_than_asked_for)
{
    struct meeting one = causal_meeting(2, 1500, 16), m = one;
    const size_t bytes = 2 * 1500 * 16 * sizeof *m.dq;

    m.threads = 3;
    meeting_open(&one);
    meeting_open(&m);
    meeting_run(&one);
    omp_set_max_active_levels(0);
    meeting_run(&m);
    omp_set_max_active_levels(1);
    cr_expect_eq(memcmp(m.dq, one.dq, bytes), 0, "dq");
    cr_expect_eq(memcmp(m.dk, one.dk, bytes), 0, "dk");
    cr_expect_eq(memcmp(m.dv, one.dv, bytes), 0, "dv");
    meeting_close(&one);
    meeting_close(&m);
}

static void beat(void *context)
{
    ++*(int64_t *)context;
}

/* A tile of this size takes longer than a millisecond on any of today's cores. */
static void messages_move(void)
{
    struct ls_device *device = open_device(1);
    struct meeting m = causal_meeting(1, 600, 256);
    struct ls_gradient_kernel *kernel;
    struct ls_work result = {0};
    int64_t beats = 0;

    meeting_open(&m);
    cr_assert_eq(ls_gradient_kernel_create(&kernel, device, meeting_shape(&m)), LS_OK);
    const struct ls_gradient_call call = meeting_call(&m);
    device->queue.progress = (struct ls_progress){beat, &beats};
    cr_assert_eq(run_gradient(&result, device, kernel, &call), LS_OK);
    cr_expect_geq(beats, 3 * result.tiles, "%ld in %ld tiles", (long)beats, (long)result.tiles);
    ls_gradient_kernel_destroy(device, kernel);
    meeting_close(&m);
}

TestSuite(kernel_threads, .timeout = 600);
TEST_EACH_ISA(kernel_threads, messages_move)
