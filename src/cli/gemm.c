#include "cli/gemm.h"

#include <math.h>

#include "comm/comm.h"

ls_status cli_gemm_init(struct cli_gemm *out, const struct cli_world *world, ls_dtype type,
                        int threads)
{
    *out = (struct cli_gemm){.type = type, .m = 256, .n = 512, .k = 128, .threads = threads};
    return ls_comm_agree(world->comm, ls_device_open(&out->device, "cpu", 0, threads));
}

void cli_gemm_fini(struct cli_gemm *gemm)
{
    ls_device_close(gemm->device);
}

static ls_status measure(double *gflops, const struct cli_gemm *g)
{
    return ls_device_gemm_rate(gflops, g->device, g->type, g->m, g->n, g->k);
}

ls_status cli_gemm_measure(struct cli_gemm *gemm, const struct cli_world *world)
{
    double sum = 0;

    LS_TRY(ls_comm_barrier(world->comm));
    ls_status status = measure(&sum, gemm);

    if (status == LS_ETYPE && gemm->type != LS_F32) {
        gemm->type = LS_F32;
        status = measure(&sum, gemm);
    }
    LS_TRY(ls_comm_agree(world->comm, status));
    LS_TRY(ls_comm_reduce(&sum, world->comm, 1, LS_REDUCE_SUM));
    gemm->best = fmax(gemm->best, sum / ((double)world->size * gemm->threads));
    return LS_OK;
}
