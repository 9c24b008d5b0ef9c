/* One attention in several calls of the kernel, as the methods make them: parts of the keys, states
 * between the calls, any of the query leaves, progress while it works. */
#include <time.h>

#include "harness.h"

enum { MOST_LEAVES = 8 };

/* A kernel for p, and the states of all of its queries. */
static struct session {
    struct problem *p;
    struct ls_device *device;
    struct ls_attention_kernel *kernel;
    struct ls_row_states states;
    struct ls_masks masks;
    struct mask_room room;
    struct ls_work result;
} session;

static void session_open(struct problem *p, int threads, int64_t k_leaves)
{
    memset(&session, 0, sizeof session);
    session.masks = problem_masks(p, &session.room);
    const struct ls_kernel_shape shape = {
        .global = p->shape,
        .masks = session.masks,
        .scores = {.scale = (float)problem_scale(p), .heads = p->shape.h},
        .k_leaves = k_leaves};
    const int64_t rows = p->shape.b * p->shape.h * p->shape.s_q;

    session.p = p;
    session.device = open_device(threads);
    cr_assert_eq(ls_attention_kernel_create(&session.kernel, session.device, shape), LS_OK, "%s",
                 ls_message());
    session.states.m = malloc((size_t)rows * sizeof(float));
    session.states.l = malloc((size_t)rows * sizeof(float));
    session.states.acc = malloc((size_t)(rows * p->shape.d) * sizeof(float));
}

static void session_close(void)
{
    ls_attention_kernel_destroy(session.device, session.kernel);
    free(session.states.m);
    free(session.states.l);
    free(session.states.acc);
}

/* Rows of some leaves of t, one leaf after the other, in a tensor of their own on the heap. */
static struct ls_tensor gather(const struct ls_tensor *t, struct ls_leaf *leaf, int64_t count)
{
    int64_t dim[] = {t->dim[0], 0, t->dim[2], t->dim[3]};

    for (int64_t i = 0; i < count; i++) {
        const int64_t left = t->dim[1] - leaf[i].number * LS_LEAF;

        leaf[i].row = dim[1];
        dim[1] += left < LS_LEAF ? left : LS_LEAF;
    }
    struct ls_tensor out = ls_tensor_view(NULL, t->type, 4, dim);
    out.data = malloc(tensor_bytes(&out) + 1);
    for (int64_t batch = 0; batch < dim[0]; batch++)
        for (int64_t i = 0; i < count; i++)
            for (int64_t r = 0; r < LS_LEAF && leaf[i].row + r < dim[1]; r++)
                for (int64_t head = 0; head < dim[2]; head++)
                    if (leaf[i].number * LS_LEAF + r < t->dim[1])
                        memcpy(element_at(&out, batch, leaf[i].row + r, head),
                               element_at(t, batch, leaf[i].number * LS_LEAF + r, head),
                               (size_t)(dim[3] * ls_dtype_size(t->type)));
    return out;
}

/* One call: all queries against the key leaves part, part + parts, part + 2 parts, ... */
static void attend_part(int part, int parts, bool first, bool last)
{
    struct problem *p = session.p;
    struct ls_leaf q_leaf[MOST_LEAVES], k_leaf[MOST_LEAVES];
    const struct ls_found earlier = {.states = &session.states};
    struct ls_kernel_call call = {.o = last ? &p->o : NULL,
                                  .lse = last ? &p->lse : NULL,
                                  .states = &session.states,
                                  .found = &earlier,
                                  .found_count = !first,
                                  .q = &p->q,
                                  .q_leaves = {.leaf = q_leaf},
                                  .k_leaves = {.leaf = k_leaf}};

    for (int64_t n = 0; n * LS_LEAF < p->shape.s_q; n++)
        q_leaf[call.q_leaves.count++] = (struct ls_leaf){n, n * LS_LEAF};
    for (int64_t n = part; n * LS_LEAF < p->shape.s_k; n += parts)
        k_leaf[call.k_leaves.count++] = (struct ls_leaf){n, 0};
    struct ls_tensor k = gather(&p->k, k_leaf, call.k_leaves.count);
    struct ls_tensor v = gather(&p->v, k_leaf, call.k_leaves.count);
    call.k = &k;
    call.v = &v;
    cr_assert_eq(run_attention(&session.result, session.device, session.kernel, &call), LS_OK);
    free(k.data);
    free(v.data);
}

static const struct problem cases[] = {
    {.shape = {2, 4, 2, 300, 1100, 40, LS_BF16, 0}, .options = {.causal = true}},
    {.shape = {1, 2, 1, 520, 520, 64, LS_F32, 0}, .options = {.causal = true}},
    {.shape = {1, 1, 1, 700, 300, 16, LS_F16, 0}, .options = {.causal = true}},
    {.shape = {1, 3, 1, 40, 1300, 80, LS_BF16, 0}},
};

/* Parts without a leaf among them, and a part that nobody sees before the one that all see. */
static void keys_may_come_in_parts(void)
{
    for (int c = 0; c < LENGTH(cases); c++) {
        for (int parts = 1; parts <= 7; parts += 2) {
            struct problem p = cases[c];

            problem_open(&p);
            session_open(&p, 1 + parts % 4 / 2, MOST_LEAVES);
            for (int i = 0; i < parts; i++)
                attend_part(parts - 1 - i, parts, i == 0, i == parts - 1);
            expect_oracle(&p, 20);
            session_close();
            problem_close(&p);
        }
    }
}

/* Of leaves of queries and of keys, and heads that share no tile, those that have a pair. */
static int64_t tiles_with_a_pair(const struct problem *p)
{
    int64_t tiles = 0;

    for (int64_t entry = 0; entry < p->shape.b; entry++)
        for (int64_t first = 0; first < p->shape.s_q; first += LS_LEAF)
            for (int64_t key = 0; key < p->shape.s_k; key += LS_LEAF)
                tiles += ls_mask_meets(ls_masks_of(&session.masks, entry, 0), first, LS_LEAF, key,
                                       LS_LEAF);
    return p->shape.h * tiles;
}

/* Unions of bands that no option asks for, others in each entry, whole and in parts. */
static void any_bands_are_exact(void)
{
    static const struct problem shapes[] = {
        {.shape = {1, 2, 2, 600, 1500, 40, LS_BF16, 0}},
        {.shape = {1, 1, 1, 800, 700, 24, LS_F32, 0}},
        {.shape = {2, 1, 1, 30, 1900, 64, LS_BF16, 0}},
        {.shape = {3, 1, 1, 1100, 280, 16, LS_F16, 0}},
    };

    for (int c = 0; c < 12; c++) {
        struct problem p = shapes[c % LENGTH(shapes)];
        const int parts = 1 + c % 3;

        p.bands = 1 + (uint64_t)c;
        problem_open(&p);
        session_open(&p, 1 + c % 2, MOST_LEAVES);
        for (int i = 0; i < parts; i++) attend_part(i, parts, i == 0, i == parts - 1);
        expect_oracle(&p, 40);
        if (parts == 1) cr_expect_eq(session.result.tiles, tiles_with_a_pair(&p));
        session_close();
        problem_close(&p);
    }
}

static void rows_that_saw_no_key_are_empty(void)
{
    struct problem p = {.shape = {1, 2, 2, 600, 600, 24, LS_F32, 0}, .options = {.causal = true}};

    problem_open(&p);
    session_open(&p, 2, MOST_LEAVES);
    attend_part(1, 3, true, false); /* keys from 256 on */
    for (int64_t i = 0; i < 2 * 600; i++) {
        if (i % 600 >= 256) {
            cr_assert_neq(session.states.m[i], -INFINITY, "row %ld", (long)i);
            continue;
        }
        cr_assert_eq(session.states.m[i], -INFINITY, "row %ld", (long)i);
        cr_assert_eq(session.states.l[i], 0, "row %ld", (long)i);
    }
    session_close();
    problem_close(&p);
}

/* A rank that holds leaves 1 and 3 of the queries gets the rows that all ranks together get. */
static void any_of_the_query_leaves(void)
{
    struct problem p = {.shape = {1, 2, 1, 900, 900, 32, LS_BF16, 0}, .options = {.causal = true}};
    struct ls_leaf q_leaf[] = {{1, 0}, {3, 0}};
    struct ls_leaf k_leaf[] = {{0, 0}, {1, 256}, {2, 512}, {3, 768}};

    problem_open(&p);
    problem_run(&p);
    session_open(&p, 2, 4);
    struct ls_tensor q = gather(&p.q, q_leaf, 2), o = gather(&p.o, q_leaf, 2);
    struct ls_tensor lse = ls_tensor_view(calloc(2 * 388, sizeof(float)), LS_F32, 3,
                                          (const int64_t[]){1, 2, q.dim[1]});
    void *want = o.data;
    o.data = calloc(1, tensor_bytes(&o));
    const struct ls_kernel_call call = {.o = &o,
                                        .lse = &lse,
                                        .q = &q,
                                        .k = &p.k,
                                        .v = &p.v,
                                        .q_leaves = {q_leaf, 2},
                                        .k_leaves = {k_leaf, 4}};

    cr_assert_eq(q.dim[1], 388);
    cr_assert_eq(run_attention(&session.result, session.device, session.kernel, &call), LS_OK);
    cr_expect_eq(memcmp(o.data, want, tensor_bytes(&o)), 0, "o differs");
    for (int64_t i = 0; i < 388; i++) {
        const int64_t row = i < 256 ? 256 + i : 768 + i - 256;

        cr_expect_eq(((float *)lse.data)[388 + i], ((float *)p.lse.data)[900 + row], "lse row %ld",
                     (long)row);
    }
    free(want);
    free(q.data);
    free(o.data);
    free(lse.data);
    session_close();
    problem_close(&p);
}

/* Of this thread, so that other programs do not count. */
static double cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* When the callback ran. */
static struct pulse {
    int64_t count;
    double last, longest_gap;
} pulse;

static void beat(void *context)
{
    struct pulse *p = context;
    const double now = cpu_seconds();

    if (now - p->last > p->longest_gap) p->longest_gap = now - p->last;
    p->last = now;
    p->count++;
}

/* Not a measurement: the promise is half a millisecond, the limits are far from it. A machine that
 * is taken away for a while, which counts as time of this thread, has more attempts. */
static void progress_is_made_while_the_kernel_works(void)
{
    static const ls_dtype types[] = {LS_BF16, LS_F32};
    enum { ATTEMPTS = 20 };

    for (int c = 0; c < LENGTH(types); c++) {
        struct problem p = {.shape = {1, 2, 2, 1500, 2000, 128, types[c], 0}};
        struct ls_leaf leaf[MOST_LEAVES];

        problem_open(&p);
        session_open(&p, 1, MOST_LEAVES);
        for (int i = 0; i < MOST_LEAVES; i++) leaf[i] = (struct ls_leaf){i, i * LS_LEAF};
        const struct ls_kernel_call call = {.o = &p.o,
                                            .lse = &p.lse,
                                            .q = &p.q,
                                            .k = &p.k,
                                            .v = &p.v,
                                            .q_leaves = {leaf, 6},
                                            .k_leaves = {leaf, 8}};
        double seconds = 0;
        bool often = false;

        session.device->queue.progress = (struct ls_progress){beat, &pulse};

        for (int attempt = 0; attempt < ATTEMPTS && !often; attempt++) {
            const double begin = cpu_seconds();

            pulse = (struct pulse){.last = begin};
            cr_assert_eq(run_attention(&session.result, session.device, session.kernel, &call),
                         LS_OK);
            seconds = cpu_seconds() - begin;
            often = (double)pulse.count > seconds / 2e-3 && pulse.longest_gap < 10e-3;
        }
        cr_expect(often, "%s: %ld calls in %g s, nothing for %g s", ls_dtype_name(types[c]),
                  (long)pulse.count, seconds, pulse.longest_gap);
        session_close();
        problem_close(&p);
    }
}

/* Results add up over calls until the caller clears them. */
static void tiles_are_counted(void)
{
    struct problem p = {.shape = {1, 1, 1, 520, 520, 16, LS_F32, 0}, .options = {.causal = true}};

    problem_open(&p);
    session_open(&p, 2, MOST_LEAVES);
    attend_part(0, 1, true, true);
    cr_expect_eq(session.result.tiles, 6);
    attend_part(0, 1, true, true);
    cr_expect_eq(session.result.tiles, 12);
    session_close();
    problem_close(&p);
}

TEST_EACH_DEVICE(attention_calls, keys_may_come_in_parts)
TEST_EACH_VARIANT(attention_calls, any_bands_are_exact)
TEST_EACH_DEVICE(attention_calls, rows_that_saw_no_key_are_empty)
TEST_EACH_DEVICE(attention_calls, any_of_the_query_leaves)
TEST_EACH_DEVICE(attention_calls, progress_is_made_while_the_kernel_works)
TEST_EACH_DEVICE(attention_calls, tiles_are_counted)
