/* Blocks of linear layers, of each row of the table that this CPU can run, against double, packed
 * from rows and from columns; and the AMX row once more, emulated, for machines without AMX. */
#if defined(__x86_64__)
#define LS_AMX_EMULATED
#include "cpu/linear/amx.c"
#endif

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "cpu/linear/products.h"
#include "tensor/dtype.h"

enum { SIDE = LINEAR_SIDE, MOST_DEPTH = 100, STRIDE = 107, GUARD = 64, MARK = 0x5a };

/* Lines of an operand: as they are packed from, around them NaN, and in double. */
struct operand {
    unsigned char *memory;
    struct linear_panel panel;
    double value[SIDE][MOST_DEPTH];
};

static void draw(struct operand *o, ls_dtype type, int lines, int depth, bool deep, uint32_t stream)
{
    const size_t size = (size_t)ls_dtype_size(type);

    o->memory = malloc(STRIDE * STRIDE * size);
    memset(o->memory, 0xff, STRIDE * STRIDE * size);
    memset(o->value, 0, sizeof o->value);
    o->panel = (struct linear_panel){o->memory, type, STRIDE, deep, lines, depth};
    for (int i = 0; i < lines; i++) {
        for (int e = 0; e < depth; e++) {
            unsigned char *at = o->memory + (size_t)(deep ? e * STRIDE + i : i * STRIDE + e) * size;
            float drawn;

            ls_random_normal(&drawn, 3, stream, (uint64_t)(i * MOST_DEPTH + e), 1);
            ls_dtype_store(type, at, (double)drawn);
            o->value[i][e] = ls_dtype_load(type, at);
        }
    }
}

static void *pack(const struct linear_products *products, struct operand *o, bool right)
{
    const size_t bytes =
        (size_t)linear_steps(o->panel.depth) * LINEAR_AREA * (size_t)ls_dtype_size(products->type);
    unsigned char *packed = aligned_alloc(64, bytes + GUARD);

    memset(packed, MARK, bytes + GUARD);
    (right ? products->pack_right : products->pack_left)(packed, &o->panel);
    for (size_t i = bytes; i < bytes + GUARD; i++)
        cr_assert_eq(packed[i], MARK, "%s: packing wrote behind its steps", products->name);
    free(o->memory);
    return packed;
}

/* left_lines x right_lines, the rest of the block zero. */
static void expect_block(const struct linear_products *products, ls_dtype storage, int left_lines,
                         int right_lines, int depth, bool deep)
{
    static struct operand left, right;
    float *out = aligned_alloc(64, LINEAR_AREA * sizeof *out);

    draw(&left, storage, left_lines, depth, deep, 0);
    draw(&right, storage, right_lines, depth, deep, 1);
    void *a = pack(products, &left, false), *b = pack(products, &right, true);
    if (products->begin) products->begin();
    products->multiply(out, a, b, linear_steps(depth));
    if (products->end) products->end();
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            double exact = 0, size = 0;

            for (int e = 0; e < depth; e++) {
                exact += left.value[i][e] * right.value[j][e];
                size += fabs(left.value[i][e] * right.value[j][e]);
            }
            cr_assert(fabs((double)out[i * SIDE + j] - exact) <= 4 * 0x1p-24 * size,
                      "%s, %s, %d x %d x %d%s: [%d][%d] is %g, not %g", products->name,
                      ls_dtype_name(storage), left_lines, right_lines, depth, deep ? " deep" : "",
                      i, j, (double)out[i * SIDE + j], exact);
        }
    }
    free(b);
    free(a);
    free(out);
}

static void expect_blocks(const struct linear_products *products, ls_isa isa)
{
    static const int sizes[][3] = {{32, 32, 32}, {32, 32, 96}, {1, 32, 1},  {32, 1, 2},
                                   {31, 17, 33}, {5, 20, 100}, {16, 16, 31}};
    static const ls_dtype types[] = {LS_BF16, LS_F32};

    for (int t = 0; t < 2; t++) {
        if (!products->fits(isa, types[t])) continue;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int deep = 0; deep < 2; deep++)
                expect_block(products, types[t], sizes[i][0], sizes[i][1], sizes[i][2], deep == 1);
    }
}

Test(linear_products, blocks_are_exact)
{
    const struct linear_products *const table[] = {&cpu_linear_amx, &cpu_linear_avx512bf16,
                                                   &cpu_linear_avx512, &cpu_linear_avx2,
                                                   &cpu_linear_generic};

    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        expect_blocks(table[i], ls_cpu_isa_best());
}

Test(linear_products, the_best_is_found)
{
    const ls_isa best = ls_cpu_isa_best();

    cr_expect_eq(cpu_linear_products_find(LS_ISA_GENERIC, LS_BF16), &cpu_linear_generic);
    cr_expect_eq(cpu_linear_products_find(LS_ISA_GENERIC, LS_F32), &cpu_linear_generic);
    cr_expect_eq(cpu_linear_products_find(best, LS_BF16)->type,
                 ls_cpu_bf16_pays(best) ? LS_BF16 : LS_F32);
    cr_expect_eq(cpu_linear_products_find(best, LS_F32)->type, LS_F32);
}

#if defined(__x86_64__)
Test(linear_products, emulated_amx_blocks_are_exact)
{
    if (ls_cpu_isa_best() < LS_ISA_AVX512BF16) cr_skip_test("packing needs AVX-512");
    expect_blocks(&linear_amx_emulated, LS_ISA_AMX);
}
#endif
