/* Packing of what a tile meets, out of the tensors of a call. */
#include "cpu/linear/linear.h"

/* Part of a panel: its lines, from `line` on, are at most those before `end`. */
static void pack_part(char *to, const struct linear_products *products, bool right,
                      struct linear_operand operand, int64_t line, int64_t end, int64_t from,
                      int depth)
{
    const struct linear_panel panel = {
        .at = operand.deep ? linear_element(operand.t, from, line)
                           : linear_element(operand.t, line, from),
        .type = operand.t->type,
        .stride = operand.t->stride[0],
        .deep = operand.deep,
        .lines = end - line < LINEAR_SIDE ? (int)(end - line) : LINEAR_SIDE,
        .depth = depth,
    };

    (right ? products->pack_right : products->pack_left)(to, &panel);
}

void cpu_linear_pack_lines(char *to, const struct linear_products *products, bool right,
                           struct linear_operand operand, int64_t first, int64_t lines,
                           int64_t from, int depth)
{
    const size_t bytes = linear_step_bytes(products, linear_steps(depth));
    /* rows of the tensor are read as far as possible before the next ones */
    const int part = operand.deep ? LINEAR_SIDE : depth;

    for (int e = 0; e < depth; e += part)
        for (int64_t i = 0; i < linear_panels(lines); i++)
            pack_part(to + (size_t)i * bytes + linear_step_bytes(products, e / LINEAR_SIDE),
                      products, right, operand, first + i * LINEAR_SIDE, first + lines, from + e,
                      depth - e < part ? depth - e : part);
}
