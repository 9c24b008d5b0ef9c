/* Every mask, alone and with others: the oracle's attention, tiles that somebody sees and no other,
 * rows that depend on nothing but what they see. */
#include "harness.h"

enum { KEYS = 700 };

static const int64_t documents[] = {0, 130, 256, 256, 257, 600, KEYS};

static const struct ls_attention_options masks[] = {
    {.causal = true},
    {.has_window = true, .window_left = 100, .window_right = LS_NO_LIMIT},
    {.has_window = true, .window_left = 300, .window_right = 0},
    {.has_window = true, .window_left = 20, .window_right = 20},
    {.has_window = true},
    {.has_window = true, .window_left = LS_NO_LIMIT, .window_right = 50},
    {.has_window = true, .window_left = 513, .window_right = 3, .align_start = true},
    {.prefix = 5, .causal = true},
    {.prefix = 300, .has_window = true, .window_left = 40},
    {.prefix = 40, .has_window = true, .window_left = 9, .window_right = 1},
    {.documents = documents, .document_count = 6},
    {.documents = documents, .document_count = 6, .causal = true},
    {.documents = documents, .document_count = 6, .has_window = true, .window_left = 64},
    {.documents = documents,
     .document_count = 6,
     .has_window = true,
     .window_left = 100,
     .prefix = 10,
     .causal = true},
    {.has_query_offset = true, .query_offset = 100, .causal = true},
    {.has_query_offset = true, .query_offset = -200, .causal = true},
    {.has_query_offset = true, .query_offset = 1000, .has_window = true, .window_left = 600},
    {.has_query_offset = true, .query_offset = -200, .documents = documents, .document_count = 6},
    {.align_start = true, .causal = true},
    {.prefix = KEYS, .has_window = true},
};

static const ls_dtype types[] = {LS_BF16, LS_F32, LS_F16};

/* More queries than keys, fewer, a group that does not divide a tile, one row. */
static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = 2, .h_kv = 2, .s_q = 700, .s_k = KEYS, .d = 64},
    {.b = 2, .h = 3, .h_kv = 1, .s_q = 300, .s_k = KEYS, .d = 40},
    {.b = 1, .h = 4, .h_kv = 2, .s_q = 900, .s_k = KEYS, .d = 16},
    {.b = 1, .h = 2, .h_kv = 1, .s_q = 260, .s_k = KEYS, .d = 24},
    {.b = 1, .h = 1, .h_kv = 1, .s_q = 1, .s_k = KEYS, .d = 128},
};

/* Calls test with a problem of each mask and of the last so many shapes; the type changes. It is
 * closed afterwards. */
static void each_problem(void (*test)(struct problem *p), int last)
{
    for (int i = (LENGTH(shapes) - last) * LENGTH(masks); i < LENGTH(shapes) * LENGTH(masks); i++) {
        struct problem p = {.shape = shapes[i / LENGTH(masks)],
                            .options = masks[i % LENGTH(masks)]};

        p.shape.type = types[(i + i / LENGTH(masks)) % LENGTH(types)];
        p.options.threads = 1 + i % 2;
        problem_open(&p);
        test(&p);
        problem_close(&p);
    }
}

static void check_oracle(struct problem *p)
{
    problem_run(p);
    expect_oracle(p, 20);
}

static bool leaf_sees(const struct problem *p, const struct ls_mask *mask, int64_t q_leaf,
                      int64_t k_leaf)
{
    for (int64_t i = q_leaf * LS_LEAF; i < (q_leaf + 1) * LS_LEAF && i < p->shape.s_q; i++)
        if (ls_mask_count(mask, i, k_leaf * LS_LEAF, LS_LEAF) > 0) return true;
    return false;
}

/* Of so many heads whose rows lie together. */
static int64_t tiles_of(const struct problem *p, const struct ls_mask *mask, int64_t heads)
{
    const struct ls_attention_shape *s = &p->shape;
    int64_t tiles = 0;

    for (int64_t q_leaf = 0; q_leaf * LS_LEAF < s->s_q; q_leaf++) {
        const int64_t left = s->s_q - q_leaf * LS_LEAF, rows = left < LS_LEAF ? left : LS_LEAF;

        for (int64_t k_leaf = 0; k_leaf * LS_LEAF < s->s_k; k_leaf++)
            if (leaf_sees(p, mask, q_leaf, k_leaf)) tiles += (heads * rows + LS_LEAF - 1) / LS_LEAF;
    }
    return tiles;
}

static int64_t tiles_with_a_visible_pair(const struct problem *p)
{
    static struct mask_room room;
    const struct ls_masks masks = problem_masks(p, &room);
    const int64_t together = masks.heads > 1 ? 1 : p->shape.h / p->shape.h_kv;
    int64_t tiles = 0;

    for (int64_t entry = 0; entry < p->shape.b; entry++)
        for (int64_t head = 0; head < p->shape.h; head += together)
            tiles += tiles_of(p, ls_masks_of(&masks, entry, head), together);
    return tiles;
}

static void check_tiles(struct problem *p)
{
    problem_run(p);
    cr_expect_eq(p->report.forward.tiles_computed, tiles_with_a_visible_pair(p),
                 "%s: %ld tiles, not %ld", problem_name(p), (long)p->report.forward.tiles_computed,
                 (long)tiles_with_a_visible_pair(p));
}

static bool same_number(double a, double b, ls_dtype type, bool bits)
{
    if (bits || a == b) return a == b && signbit(a) == signbit(b);
    return fabs(a - b) <= 4 * (ls_dtype_unit(type) + 1e-6) * fmax(1, fabs(b));
}

/* Row i of p is row j of other. */
static void expect_row(const struct problem *p, int64_t i, const struct problem *other, int64_t j,
                       const char *what)
{
    const bool bits = variant->rows_keep_bits && has_few_rows(p) == has_few_rows(other);

    for (int64_t head = 0; head < p->shape.h; head++) {
        const float *lse = (float *)p->lse.data + head * p->shape.s_q + i;
        const float *want = (float *)other->lse.data + head * other->shape.s_q + j;
        bool same = same_number(*lse, *want, p->shape.type, bits);

        for (int64_t e = 0; e < p->shape.d; e++)
            same &= same_number(load_at(&p->o, 0, i, head, e), load_at(&other->o, 0, j, head, e),
                                p->shape.type, bits);
        cr_expect(same, "%s: row %ld head %ld %s: lse %g, not %g", problem_name(p), (long)i,
                  (long)head, what, *lse, *want);
    }
}

static const int64_t rows_tried[] = {0, 16, 130, 131, 255, 256, 259, 457, 899};

/* A row alone, placed where it stands, is the row among others. */
static void check_rows_alone(struct problem *p)
{
    problem_run(p);
    for (int c = 0; c < LENGTH(rows_tried) && rows_tried[c] < p->shape.s_q; c++) {
        struct problem one = *p;

        one.shape.s_q = 1;
        one.options.align_start = false;
        one.options.has_query_offset = true;
        one.options.query_offset = rows_tried[c] + problem_rule(p).shift;
        problem_open(&one);
        for (int64_t batch = 0; batch < p->shape.b; batch++)
            memcpy(element_at(&one.q, batch, 0, 0), element_at(&p->q, batch, rows_tried[c], 0),
                   tensor_bytes(&one.q) / (size_t)p->shape.b);
        problem_run(&one);
        expect_row(p, rows_tried[c], &one, 0, "is not what it is alone");
        problem_close(&one);
    }
}

/* NaN and infinity in keys and values that a row does not see leave its bits. */
static void check_poison(struct problem *p)
{
    struct problem clean = *p;
    struct ls_band bands[MOST_BANDS];
    const struct ls_mask mask = problem_mask(p, bands);

    problem_open(&clean);
    problem_run(&clean);
    for (int c = 0; c < LENGTH(rows_tried) && rows_tried[c] < p->shape.s_q; c += 3) {
        memcpy(p->k.data, clean.k.data, tensor_bytes(&p->k));
        memcpy(p->v.data, clean.v.data, tensor_bytes(&p->v));
        for (int64_t j = 0; j < KEYS; j++) {
            if (ls_mask_sees(&mask, rows_tried[c], j)) continue;
            for (int64_t head = 0; head < p->shape.h_kv; head++) {
                store_at(&p->k, 0, j, head, j % p->shape.d, NAN);
                store_at(&p->v, 0, j, head, (j + 1) % p->shape.d, j % 2 ? INFINITY : NAN);
            }
        }
        problem_run(p);
        expect_row(p, rows_tried[c], &clean, rows_tried[c], "is changed by what it does not see");
    }
    problem_close(&clean);
}

static void equals_oracle(void)
{
    each_problem(check_oracle, LENGTH(shapes));
}

static void tiles_are_those_that_are_seen(void)
{
    each_problem(check_tiles, LENGTH(shapes));
}

static void rows_depend_on_what_they_see(void)
{
    each_problem(check_rows_alone, 3);
    each_problem(check_poison, 2);
}

/* Bits for each pair: of all, of each entry, of each head, of both; alone and with others. */
static void any_pairs(void)
{
    static const float sinks[] = {0.5F, -1, 2, 0.25F};
    static const struct ls_attention_options others[] = {
        {.strict = false},
        {.causal = true, .sinks = sinks},
        {.documents = documents, .document_count = 6, .dropout = 0.2F},
    };
    static const struct ls_attention_shape few = {2, 4, 2, 2, KEYS, 64, LS_BF16, 0};

    for (int i = 0; i < 4 * LENGTH(others) * 2; i++) {
        struct problem p = {.shape = i % 2 ? shapes[i / 2 % LENGTH(shapes)] : few,
                            .options = others[i / 8],
                            .pairs = 8 + (uint64_t)i / 2};

        p.shape.type = types[i / 2 % LENGTH(types)];
        p.options.threads = 1 + i % 2;
        problem_open(&p);
        check_oracle(&p);
        check_tiles(&p);
        problem_close(&p);
    }
}

TestSuite(attention_masks, .timeout = 600);
TEST_EACH_VARIANT(attention_masks, equals_oracle)
TEST_EACH_VARIANT(attention_masks, any_pairs)
TEST_EACH_VARIANT(attention_masks, rows_depend_on_what_they_see)
TEST_EACH_DEVICE(attention_masks, tiles_are_those_that_are_seen)

/* Few rows and many keys: what is seen is dealt to the threads, the tree stays. */
static void any_number_of_threads(void)
{
    static const struct ls_attention_options some[] = {
        {.has_window = true, .window_left = 6500},
        {.has_window = true, .window_left = 4000},
        {.has_window = true, .window_left = 3000, .prefix = 3000},
        {.has_query_offset = true, .query_offset = 9000, .causal = true},
        {.has_query_offset = true, .query_offset = -9, .causal = true},
    };

    for (int c = 0; c < LENGTH(some); c++) {
        struct problem p = {.shape = {1, 2, 1, 3, 30000, 16, LS_F32, 0}, .options = some[c]};
        void *o, *lse;

        problem_open(&p);
        problem_results(&o, &lse, &p);
        expect_oracle(&p, 3);
        for (p.options.threads = 2; p.options.threads <= 4; p.options.threads++)
            expect_same_bits(&p, o, lse, "threads");
        free(o);
        free(lse);
        problem_close(&p);
    }
}

/* Masks that say the same in other words. */
static void equal_masks_give_equal_bits(void)
{
    static const int64_t one[] = {0, KEYS};
    static const struct ls_attention_options same[][2] = {
        {{.has_window = true, .window_left = LS_NO_LIMIT, .window_right = LS_NO_LIMIT}, {0}},
        {{.has_window = true, .window_left = KEYS, .window_right = 900}, {0}},
        {{.prefix = KEYS, .causal = true}, {0}},
        {{.documents = one, .document_count = 1}, {0}},
        {{.has_window = true, .window_left = 2000}, {.causal = true}},
        {{.has_query_offset = true, .query_offset = KEYS - 600, .causal = true}, {.causal = true}},
    };

    for (int c = 0; c < LENGTH(same); c++) {
        struct problem p = {.shape = {1, 2, 1, 600, KEYS, 64, types[c % 3], 0},
                            .options = same[c][1]};
        struct problem q = {.shape = p.shape, .options = same[c][0]};
        void *o, *lse;

        problem_open(&p);
        problem_open(&q);
        problem_results(&o, &lse, &p);
        expect_same_bits(&q, o, lse, "in other words");
        free(o);
        free(lse);
        problem_close(&p);
        problem_close(&q);
    }
}

TEST_EACH_DEVICE(attention_masks, any_number_of_threads)
TEST_EACH_DEVICE(attention_masks, equal_masks_give_equal_bits)
