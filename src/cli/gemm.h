/* The GEMM rate of this machine, measured by all ranks and threads at once: the practical ceiling
 * that attention is held to. */
#ifndef LS_CLI_GEMM_H
#define LS_CLI_GEMM_H

#include "cli/world.h"
#include "device/device.h"

struct cli_gemm {
    struct ls_device *device;
    ls_dtype type;
    int m, n, k; /* of each product; may be set before measuring */
    int threads; /* of each rank */
    double best; /* GF/s a thread, the mean over all of them; 0 before it was measured */
};

/* For products of 256 x 512 x 128. Agreed by all ranks; fini accepts one of zeros. Errors:
 * LS_EVALUE (LONGSPAN_ISA), LS_ENOMEM. */
ls_status cli_gemm_init(struct cli_gemm *out, const struct cli_world *world, ls_dtype type,
                        int threads);
void cli_gemm_fini(struct cli_gemm *gemm);

/* Measures for about 0.2 s and keeps the best; type becomes f32 where the device cannot multiply
 * what it was. Agreed by all ranks. */
ls_status cli_gemm_measure(struct cli_gemm *gemm, const struct cli_world *world);

#endif
