/* Tensors share memory exactly where marking each of their bytes says so. */
#include "tensor/overlap.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- against every byte */

enum { MEMORY = 4096, MIDDLE = MEMORY / 2 };

static char memory[MEMORY];
static uint64_t draws;

static int64_t draw(int64_t least, int64_t most)
{
    return least + (int64_t)ls_random_below(7, 0, draws++, (uint64_t)(most - least + 1));
}

static struct ls_tensor draw_tensor(void)
{
    struct ls_tensor t = {.type = draw(0, 1) ? LS_BF16 : LS_F32, .ndim = (int)draw(1, 4)};

    for (int i = 0; i < t.ndim; i++) {
        t.dim[i] = draw(draw(0, 9) > 0, 4);
        t.stride[i] = draw(-20, 20);
    }
    t.stride[t.ndim - 1] = 1;
    t.data = memory + MIDDLE + 2 * draw(-60, 60);
    return t;
}

/* Adds 1 to the count of each byte of row r; false: there is no such row. */
static bool mark_row(unsigned char *count, const struct ls_tensor *t, int64_t r)
{
    const int size = ls_dtype_size(t->type);
    char *at = t->data;

    for (int i = t->ndim - 2; i >= 0; i--) {
        if (t->dim[i] == 0) return false;
        at += r % t->dim[i] * t->stride[i] * size;
        r /= t->dim[i];
    }
    for (int64_t j = 0; r == 0 && j < t->dim[t->ndim - 1] * size; j++) count[at - memory + j]++;
    return r == 0;
}

static void mark(unsigned char count[MEMORY], const struct ls_tensor *t)
{
    memset(count, 0, MEMORY);
    for (int64_t r = 0; mark_row(count, t, r); r++) continue;
}

static const char *text(const struct ls_tensor *t)
{
    static char out[2][200];
    static int turn;
    char *const to = out[turn++ % 2];
    int used = sprintf(to, "%s at %ld:", ls_dtype_name(t->type), (long)((char *)t->data - memory));

    for (int i = 0; i < t->ndim; i++)
        used += sprintf(to + used, " %ld x %ld", (long)t->dim[i], (long)t->stride[i]);
    return to;
}

Test(overlap, is_what_marking_every_byte_finds, .timeout = 60)
{
    static unsigned char of_a[MEMORY], of_b[MEMORY];
    int shared[2] = {0, 0}, twice[2] = {0, 0};

    for (int turn = 0; turn < 20000; turn++) {
        const struct ls_tensor a = draw_tensor(), b = draw_tensor();
        bool both = false, more = false;

        mark(of_a, &a);
        mark(of_b, &b);
        for (int i = 0; i < MEMORY; i++) {
            both |= of_a[i] && of_b[i];
            more |= of_a[i] > 1;
        }
        cr_assert_eq(ls_tensors_overlap(&a, &b), both, "%s and %s", text(&a), text(&b));
        cr_assert_eq(ls_tensor_rows_overlap(&a), more, "%s", text(&a));
        shared[both]++;
        twice[more]++;
    }
    for (int i = 0; i < 2; i++) cr_expect(shared[i] > 1000 && twice[i] > 1000, "%d: too few", i);
}

/* ---- layouts as people have them, far too long to mark */

enum { B = 3, H = 24, H_KV = 8, D = 128 };

static const int64_t S = 1 << 20;

static struct ls_tensor view(int64_t first, int64_t heads, int64_t b, int64_t s, int64_t h)
{
    return (struct ls_tensor){.type = LS_BF16,
                              .ndim = 4,
                              .dim = {B, S, heads, D},
                              .stride = {b, s, h, 1},
                              .data = (void *)(uintptr_t)(((int64_t)1 << 40) + 2 * first)};
}

Test(overlap, views_of_one_packed_buffer_share_nothing, .timeout = 10)
{
    const int64_t row = (H + 2 * H_KV) * D;
    const struct {
        const char *name;
        struct ls_tensor t[3];
    } cases[] = {
        {"[b, s, h + 2 h_kv, d]",
         {view(0, H, S * row, row, D), view(H * D, H_KV, S * row, row, D),
          view((H + H_KV) * D, H_KV, S * row, row, D)}},
        {"[b, s, h, 3, d]",
         {view(0, H, S * H * 3 * D, H * 3 * D, 3 * D), view(D, H, S * H * 3 * D, H * 3 * D, 3 * D),
          view(2 * D, H, S * H * 3 * D, H * 3 * D, 3 * D)}},
        {"[b, 3, h, s, d]",
         {view(0, H, 3 * H * S * D, D, S * D), view(H * S * D, H, 3 * H * S * D, D, S * D),
          view(2 * H * S * D, H, 3 * H * S * D, D, S * D)}},
        {"[s, b, 3, h, d]",
         {view(0, H, 3 * H * D, B * 3 * H * D, D), view(H * D, H, 3 * H * D, B * 3 * H * D, D),
          view(2 * H * D, H, 3 * H * D, B * 3 * H * D, D)}},
    };

    for (size_t c = 0; c < LENGTH(cases); c++) {
        for (int i = 0; i < 3; i++) {
            struct ls_tensor moved = cases[c].t[i];

            cr_expect_not(ls_tensor_rows_overlap(&cases[c].t[i]), "%s: %d", cases[c].name, i);
            cr_expect_not(ls_tensors_overlap(&cases[c].t[i], &cases[c].t[(i + 1) % 3]), "%s: %d",
                          cases[c].name, i);
            moved.data = (char *)moved.data + 2;
            cr_expect(ls_tensors_overlap(&moved, &cases[c].t[(i + 1) % 3]), "%s: %d, moved",
                      cases[c].name, i);
        }
    }
}

Test(overlap, short_strides_are_found_at_any_length, .timeout = 10)
{
    const struct ls_tensor cases[] = {
        view(0, H, S * H * D, H * D, D - 1),
        view(0, H, S * H * D, (H - 1) * D, D),
        view(0, H, 0, H * D, D),
        view(0, H, S * H * D, 0, D),
        view(0, H, (S - 1) * H * D, H * D, D),
        view(0, H, D, D, D),
        view(0, H, -S * H * D, -H * D, -D + 1),
    };

    for (size_t c = 0; c < LENGTH(cases); c++)
        cr_expect(ls_tensor_rows_overlap(&cases[c]), "case %zu", c);
}
