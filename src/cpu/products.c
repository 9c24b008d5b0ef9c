#include "cpu/products.h"

const struct products *products_find(ls_isa isa, ls_dtype storage)
{
    /* the best first; the last fits everything */
    static const struct products *const table[] = {&products_amx, &products_onednn_bf16,
                                                   &products_avx512, &products_onednn_f32};
    int i = 0;

    while (!table[i]->fits(isa, storage)) i++;
    return table[i];
}
