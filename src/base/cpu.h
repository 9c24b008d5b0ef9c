/* Which instruction set the kernels use: what this CPU has, or a lower one that was asked for. */
#ifndef LS_BASE_CPU_H
#define LS_BASE_CPU_H

#include <stdbool.h>

#include "base/status.h"

/* A function of plain loops that is compiled for several instruction sets, of which one is chosen
 * when the program starts; the arithmetic is the same in all of them. No two have one name. */
#if defined(__x86_64__) && defined(__linux__)
#define LS_CLONED __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define LS_CLONED
#endif

typedef enum {
    LS_ISA_GENERIC,    /* plain C */
    LS_ISA_AVX2,       /* with FMA and F16C */
    LS_ISA_AVX512,     /* F, BW, DQ, VL */
    LS_ISA_AVX512BF16, /* the above and AVX512_BF16 */
    LS_ISA_AMX,        /* the above and AMX tiles with bf16, permitted by the system */
} ls_isa;

/* The best of this machine. */
ls_isa ls_cpu_isa_best(void);

/* Whether bf16 products are faster than f32 ones: on AMX, and by VDPBF16PS where it is AMD's.
 * Intel's takes two cycles, and loses to f32 blocks by a third. */
bool ls_cpu_bf16_pays(ls_isa isa);

/* The one of that name. Errors: LS_EVALUE if there is none (the message lists them and says which
 * is nearest), or if it is above `best`. */
ls_status ls_isa_choose(ls_isa *out, const char *name, ls_isa best);

/* The one to use: LONGSPAN_ISA if set and not empty, else the best. Errors: LS_EVALUE if the
 * variable names none of generic, avx2, avx512, avx512bf16, amx, or one that this CPU lacks. */
ls_status ls_cpu_isa(ls_isa *out);

const char *ls_isa_name(ls_isa isa);

/* Model name as the system gives it, such as "AMD EPYC 9R14"; "unknown CPU" where it gives none. */
const char *ls_cpu_model(void);

#endif
