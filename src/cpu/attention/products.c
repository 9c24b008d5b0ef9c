#include "cpu/attention/products.h"

#include <stdlib.h>

#include "base/status.h"

const struct products *cpu_products_find(ls_isa isa, ls_dtype storage)
{
    /* the best first; the last fits everything */
    static const struct products *const table[] = {&cpu_products_amx, &cpu_products_gemm_bf16,
                                                   &cpu_products_avx512, &cpu_products_gemm_f32};
    int i = 0;

    while (!table[i]->fits(isa, storage)) i++;
    return table[i];
}

ls_status cpu_plain_worker_create(void **out, ls_isa isa, struct head_dims pad, void *scratch)
{
    struct plain_worker *w = malloc(sizeof *w);

    (void)isa;
    (void)scratch;
    if (!w) return ls_fail(LS_ENOMEM, "attention kernel: out of memory");
    w->pad = pad;
    *out = w;
    return LS_OK;
}

size_t cpu_no_scratch(void)
{
    return 0;
}

bool cpu_fits_never(ls_isa isa, ls_dtype storage)
{
    (void)isa;
    (void)storage;
    return false;
}
