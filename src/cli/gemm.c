#include "cli/gemm.h"

#include <stdlib.h>

#include "comm/comm.h"
#include "device/device.h"

struct cli_gemm {
    const struct cli_world *world;
    struct ls_device device;
    ls_dtype type;
    int m, n, k, threads;
};

static ls_status create(struct cli_gemm **out, const struct cli_world *world, ls_dtype type,
                        int threads)
{
    struct cli_gemm *gemm = malloc(sizeof(*gemm));

    if (!gemm) return ls_fail(LS_ENOMEM, "no memory for a measurement");
    *gemm = (struct cli_gemm){
        .world = world, .type = type, .m = 256, .n = 512, .k = 128, .threads = threads};
    const ls_status status = ls_device_find(&gemm->device, "cpu");

    if (status != LS_OK) {
        free(gemm);
        return status;
    }
    *out = gemm;
    return LS_OK;
}

ls_status cli_gemm_create(struct cli_gemm **out, const struct cli_world *world, ls_dtype type,
                          int threads)
{
    *out = NULL;
    const ls_status status = ls_comm_agree(world->comm, create(out, world, type, threads));

    if (status != LS_OK) {
        cli_gemm_destroy(*out);
        *out = NULL;
    }
    return status;
}

void cli_gemm_destroy(struct cli_gemm *gemm)
{
    free(gemm);
}

void cli_gemm_resize(struct cli_gemm *gemm, int m, int n, int k)
{
    gemm->m = m;
    gemm->n = n;
    gemm->k = k;
}

ls_dtype cli_gemm_type(const struct cli_gemm *gemm)
{
    return gemm->type;
}

const char *cli_gemm_isa(const struct cli_gemm *gemm)
{
    return ls_device_isa(&gemm->device);
}

static ls_status rate(double *gflops, struct cli_gemm *g)
{
    ls_status status =
        ls_device_gemm_rate(gflops, &g->device, g->type, g->m, g->n, g->k, g->threads);

    if (status != LS_ETYPE || g->type == LS_F32) return status;
    g->type = LS_F32;
    return ls_device_gemm_rate(gflops, &g->device, g->type, g->m, g->n, g->k, g->threads);
}

ls_status cli_gemm_measure(double *best, struct cli_gemm *gemm)
{
    struct ls_comm *comm = gemm->world->comm;
    double sum = 0;

    LS_TRY(ls_comm_barrier(comm));
    LS_TRY(ls_comm_agree(comm, rate(&sum, gemm)));
    LS_TRY(ls_comm_reduce(&sum, comm, 1, LS_REDUCE_SUM));
    const double per_thread = sum / ((double)gemm->world->size * gemm->threads);

    if (per_thread > *best) *best = per_thread;
    return LS_OK;
}
