#include "base/cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/machine.h"
#include "base/nearest.h"

#if defined __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define ISA_COUNT (LS_ISA_AMX + 1)

static const char *const isa_names[ISA_COUNT] = {
    [LS_ISA_GENERIC] = "generic",       [LS_ISA_AVX2] = "avx2", [LS_ISA_AVX512] = "avx512",
    [LS_ISA_AVX512BF16] = "avx512bf16", [LS_ISA_AMX] = "amx",
};

const char *ls_isa_name(ls_isa isa)
{
    return isa < ISA_COUNT ? isa_names[isa] : "unknown";
}

#if defined __x86_64__

/* __builtin_cpu_supports asks the system as well as the CPU whether wide registers may be used;
 * F16C it does not know everywhere, but that needs no more than AVX does. */
static bool has_avx2(void)
{
    unsigned eax, ebx, ecx, edx;

    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* The CPU has tiles with bf16 products in the first palette, and Linux lets this process use them:
 * their 8 KiB of state (XSAVE component 18) are granted on request only. */
static bool has_amx(void)
{
    enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, REQUEST_STATE = 0x1023, TILE_DATA = 18 };
    unsigned eax, ebx, ecx, edx;

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
    if (!(edx & AMX_BF16) || !(edx & AMX_TILE)) return false;
    if (!__get_cpuid_count(0x1d, 0, &eax, &ebx, &ecx, &edx) || eax < 1) return false;
    return syscall(SYS_arch_prctl, REQUEST_STATE, TILE_DATA) == 0;
}

static ls_isa find_best(void)
{
    __builtin_cpu_init();
    if (!has_avx2()) return LS_ISA_GENERIC;
    if (!has_avx512()) return LS_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512bf16")) return LS_ISA_AVX512;
    return has_amx() ? LS_ISA_AMX : LS_ISA_AVX512BF16;
}

#else

static ls_isa find_best(void)
{
    return LS_ISA_GENERIC;
}

#endif

/* Found once: a virtual machine takes long to answer what its CPU is. */
ls_isa ls_cpu_isa_best(void)
{
    enum { UNKNOWN = -1 };
    static _Atomic int best = UNKNOWN;

    if (best == UNKNOWN) best = (int)find_best();
    return (ls_isa)best;
}

bool ls_cpu_bf16_pays(ls_isa isa)
{
#if defined(__x86_64__)
    return isa == LS_ISA_AMX || (isa == LS_ISA_AVX512BF16 && __builtin_cpu_is("amd"));
#else
    (void)isa;
    return false;
#endif
}

static ls_status fail_unknown(const char *name)
{
    const char *const near = ls_nearest(name, isa_names, ISA_COUNT);

    return ls_fail(LS_EVALUE,
                   "LONGSPAN_ISA: unknown instruction set '%s'%s%s%s (there are generic, avx2, "
                   "avx512, avx512bf16, amx)",
                   name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

ls_status ls_isa_choose(ls_isa *out, const char *name, ls_isa best)
{
    for (ls_isa isa = LS_ISA_GENERIC; isa < ISA_COUNT; isa++) {
        if (strcmp(name, isa_names[isa]) != 0) continue;
        if (isa > best)
            return ls_fail(LS_EVALUE, "LONGSPAN_ISA: this CPU (%s) has no %s; its best is %s",
                           ls_cpu_model(), name, isa_names[best]);
        *out = isa;
        return LS_OK;
    }
    return fail_unknown(name);
}

ls_status ls_cpu_isa(ls_isa *out)
{
    const char *const name = getenv("LONGSPAN_ISA");
    const ls_isa best = ls_cpu_isa_best();

    if (name != NULL && *name != '\0') return ls_isa_choose(out, name, best);
    *out = best;
    return LS_OK;
}

const char *ls_cpu_model(void)
{
    static _Thread_local struct ls_machine machine;

    if (machine.model[0] == '\0' && ls_machine_describe(&machine) != LS_OK) return "unknown CPU";
    return machine.model;
}
