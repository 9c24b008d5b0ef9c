#include "base/cpu.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void expect_message_has(const char *word)
{
    cr_expect_neq(strstr(ls_message(), word), NULL, "no '%s' in: %s", word, ls_message());
}

Test(cpu, every_set_up_to_the_best_can_be_chosen_and_none_above)
{
    for (ls_isa best = LS_ISA_GENERIC; best <= LS_ISA_AMX; best++)
        for (ls_isa asked = LS_ISA_GENERIC; asked <= LS_ISA_AMX; asked++) {
            const char *const name = ls_isa_name(asked);
            ls_isa chosen = LS_ISA_GENERIC;
            const ls_status status = ls_isa_choose(&chosen, name, best);

            if (asked <= best) {
                cr_expect_eq(status, LS_OK, "%s: %s", name, ls_message());
                cr_expect_eq(chosen, asked, "asked for %s, got %s", name, ls_isa_name(chosen));
            } else {
                cr_expect_eq(status, LS_EVALUE, "%s above %s", name, ls_isa_name(best));
                expect_message_has(name);
                expect_message_has(ls_isa_name(best));
                expect_message_has(ls_cpu_model());
            }
        }
}

Test(cpu, an_unknown_name_is_told_the_nearest_and_all_there_are)
{
    ls_isa isa = LS_ISA_AVX2;

    cr_expect_eq(ls_isa_choose(&isa, "avx513", LS_ISA_AMX), LS_EVALUE);
    cr_expect_eq(isa, LS_ISA_AVX2, "the output is set on success only");
    expect_message_has("'avx513'");
    expect_message_has("mean 'avx512'?");
    for (ls_isa each = LS_ISA_GENERIC; each <= LS_ISA_AMX; each++)
        expect_message_has(ls_isa_name(each));
    cr_expect_eq(ls_isa_choose(&isa, "altivec", LS_ISA_AMX), LS_EVALUE);
    cr_expect_eq(strstr(ls_message(), "mean"), NULL, "%s", ls_message());
}

Test(cpu, the_environment_chooses)
{
    ls_isa isa;

    setenv("LONGSPAN_ISA", "generic", 1);
    cr_expect_eq(ls_cpu_isa(&isa), LS_OK);
    cr_expect_eq(isa, LS_ISA_GENERIC);
    setenv("LONGSPAN_ISA", "AVX2", 1);
    cr_expect_eq(ls_cpu_isa(&isa), LS_EVALUE);
    expect_message_has("LONGSPAN_ISA");

    setenv("LONGSPAN_ISA", "", 1);
    cr_expect_eq(ls_cpu_isa(&isa), LS_OK);
    cr_expect_eq(isa, ls_cpu_isa_best());
    unsetenv("LONGSPAN_ISA");
    cr_expect_eq(ls_cpu_isa(&isa), LS_OK);
    cr_expect_eq(isa, ls_cpu_isa_best());
}

/* The flags line of Linux is another witness of what CPU and system can do together. */
static bool system_lists(const char *flag)
{
    FILE *const file = fopen("/proc/cpuinfo", "r");
    static char line[16384];
    char word[32];
    bool found = false;

    if (file == NULL) cr_skip_test("no /proc/cpuinfo here");
    snprintf(word, sizeof word, " %s ", flag);
    while (!found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = ' ';
        found = strncmp(line, "flags", 5) == 0 && strstr(line, word) != NULL;
    }
    fclose(file);
    return found;
}

Test(cpu, the_best_set_is_what_the_system_lists)
{
#if defined __x86_64__
    const bool avx2 = system_lists("avx2") && system_lists("fma") && system_lists("f16c");
    const bool avx512 = avx2 && system_lists("avx512f") && system_lists("avx512bw") &&
                        system_lists("avx512dq") && system_lists("avx512vl");
    const bool bf16 = avx512 && system_lists("avx512_bf16");
    const ls_isa best = ls_cpu_isa_best();

    cr_expect_eq(best >= LS_ISA_AVX2, avx2, "%s", ls_isa_name(best));
    cr_expect_eq(best >= LS_ISA_AVX512, avx512, "%s", ls_isa_name(best));
    cr_expect_eq(best >= LS_ISA_AVX512BF16, bf16, "%s", ls_isa_name(best));
    if (best == LS_ISA_AMX) cr_expect(system_lists("amx_tile") && system_lists("amx_bf16"));
#else
    cr_expect_eq(ls_cpu_isa_best(), LS_ISA_GENERIC);
#endif
}

Test(cpu, the_model_is_one_line_and_stays_the_same)
{
    const char *const model = ls_cpu_model();

    cr_expect_gt(strlen(model), 0);
    cr_expect_eq(strchr(model, '\n'), NULL);
    cr_expect_str_eq(ls_cpu_model(), model);
}
