#include "cpu/linear/products.h"

const struct linear_products *cpu_linear_products_find(ls_isa isa, ls_dtype storage)
{
    /* the best first; the last fits everything */
    static const struct linear_products *const table[] = {&cpu_linear_amx, &cpu_linear_avx512bf16,
                                                          &cpu_linear_avx512, &cpu_linear_avx2,
                                                          &cpu_linear_generic};
    int i = 0;

    while (!table[i]->fits(isa, storage)) i++;
    return table[i];
}

bool cpu_linear_fits_never(ls_isa isa, ls_dtype storage)
{
    (void)isa;
    (void)storage;
    return false;
}
