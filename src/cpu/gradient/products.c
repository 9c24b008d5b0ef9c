#include "cpu/gradient/products.h"

const struct gradient_products *cpu_gradient_products_find(ls_isa isa, ls_dtype storage,
                                                           const struct ls_scores *scores)
{
    /* the best first; the last fits everything */
    static const struct gradient_products *const table[] = {
        &cpu_gradient_amx, &cpu_gradient_avx512bf16, &cpu_gradient_avx512,
        &cpu_gradient_portable_bf16, &cpu_gradient_portable_f32};
    int i = 0;

    while (!table[i]->fits(isa, storage, scores)) i++;
    return table[i];
}

bool cpu_gradient_fits_never(ls_isa isa, ls_dtype storage, const struct ls_scores *scores)
{
    (void)isa;
    (void)storage;
    (void)scores;
    return false;
}
