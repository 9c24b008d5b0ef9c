/* The GEMM rate of this machine, measured by all ranks and threads at once: the practical ceiling
 * that attention is held to. */
#ifndef LS_CLI_GEMM_H
#define LS_CLI_GEMM_H

#include "cli/world.h"
#include "longspan/tensor.h"

struct cli_gemm;

/* For products of type, or f32 where the device cannot multiply it; 256 x 512 x 128 until
 * cli_gemm_resize. Agreed by all ranks; the caller destroys it. */
ls_status cli_gemm_create(struct cli_gemm **out, const struct cli_world *world, ls_dtype type,
                          int threads);

/* Accepts NULL. */
void cli_gemm_destroy(struct cli_gemm *gemm);

void cli_gemm_resize(struct cli_gemm *gemm, int m, int n, int k);
ls_dtype cli_gemm_type(const struct cli_gemm *gemm);
const char *cli_gemm_isa(const struct cli_gemm *gemm);

/* *best becomes the GF/s a thread, the mean over all of them, if it was less. Agreed by all ranks;
 * about 0.2 s. */
ls_status cli_gemm_measure(double *best, struct cli_gemm *gemm);

#endif
