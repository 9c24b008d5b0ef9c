#include "base/ledger.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void *allocate(ls_tag tag, size_t bytes)
{
    void *memory = NULL;

    cr_assert_eq(ls_alloc(&memory, tag, bytes), LS_OK, "%zu bytes: %s", bytes, ls_message());
    return memory;
}

Test(ledger, blocks_are_aligned_writable_and_counted_as_asked_for)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 1000003, (2 << 21) + 1};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *const memory = allocate(LS_TAG_COMM, sizes[i]);

        cr_expect_eq((uintptr_t)memory % 64, 0, "%zu bytes", sizes[i]);
        memset(memory, 0xff, sizes[i]);
        cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM), sizes[i]);
        cr_expect_eq(ls_ledger_live_total(&ls_host_ledger), sizes[i]);
        ls_free(memory);
        cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM), 0, "%zu bytes", sizes[i]);
    }
    ls_free(NULL);
    cr_expect_eq(ls_ledger_live_total(&ls_host_ledger), 0);
}

Test(ledger, the_peak_of_all_tags_is_not_the_sum_of_their_peaks)
{
    void *const a = allocate(LS_TAG_ACTIVATION, 100);
    ls_free(a);
    void *const w = allocate(LS_TAG_WORKSPACE, 70);
    void *const c = allocate(LS_TAG_COMM, 50);

    cr_expect_eq(ls_ledger_peak(&ls_host_ledger, LS_TAG_ACTIVATION), 100);
    cr_expect_eq(ls_ledger_peak(&ls_host_ledger, LS_TAG_WORKSPACE), 70);
    cr_expect_eq(ls_ledger_peak(&ls_host_ledger, LS_TAG_COMM), 50);
    cr_expect_eq(ls_ledger_peak_total(&ls_host_ledger), 120);
    ls_free(w);
    ls_free(c);
    cr_expect_eq(ls_ledger_peak_total(&ls_host_ledger), 120, "freeing lowers no peak");
}

Test(ledger, a_reset_lowers_peaks_to_what_is_live)
{
    void *const kept = allocate(LS_TAG_WORKSPACE, 30);

    ls_free(allocate(LS_TAG_WORKSPACE, 500));
    cr_expect_eq(ls_ledger_peak(&ls_host_ledger, LS_TAG_WORKSPACE), 530);
    ls_ledger_reset_peaks(&ls_host_ledger);
    cr_expect_eq(ls_ledger_peak(&ls_host_ledger, LS_TAG_WORKSPACE), 30);
    cr_expect_eq(ls_ledger_peak_total(&ls_host_ledger), 30);
    ls_free(kept);
}

Test(ledger, a_failure_names_bytes_and_tag_and_changes_nothing)
{
    static const size_t sizes[] = {PTRDIFF_MAX, SIZE_MAX - 64, SIZE_MAX};
    char text[64];

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *memory = text;

        cr_expect_eq(ls_alloc(&memory, LS_TAG_WORKSPACE, sizes[i]), LS_ENOMEM);
        cr_expect_eq(memory, text, "the output is set on success only");
        snprintf(text, sizeof text, "%zu", sizes[i]);
        cr_expect_neq(strstr(ls_message(), text), NULL, "%s", ls_message());
        cr_expect_neq(strstr(ls_message(), "workspace"), NULL, "%s", ls_message());
        cr_expect_eq(ls_ledger_live_total(&ls_host_ledger), 0);
        cr_expect_eq(ls_ledger_peak_total(&ls_host_ledger), 0);
    }
}

enum { THREADS = 4, ROUNDS = 2000 };

static void *allocates_and_frees(void *unused)
{
    for (size_t i = 1; i <= ROUNDS; i++) {
        void *const a = allocate(LS_TAG_COMM, i), *const b = allocate(LS_TAG_WORKSPACE, 7);

        ls_free(a);
        ls_free(b);
    }
    return unused;
}

Test(ledger, threads_lose_no_count)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, allocates_and_frees, NULL), 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_COMM), 0);
    cr_expect_eq(ls_ledger_live(&ls_host_ledger, LS_TAG_WORKSPACE), 0);
    cr_expect_eq(ls_ledger_live_total(&ls_host_ledger), 0);
    cr_expect_geq(ls_ledger_peak(&ls_host_ledger, LS_TAG_COMM), ROUNDS);
    cr_expect_leq(ls_ledger_peak(&ls_host_ledger, LS_TAG_COMM), THREADS * ROUNDS);
    cr_expect_leq(ls_ledger_peak(&ls_host_ledger, LS_TAG_WORKSPACE), THREADS * 7);
}

Test(ledger, every_tag_has_its_own_name)
{
    for (int a = 0; a < LS_TAG_COUNT; a++)
        for (int b = 0; b < a; b++)
            cr_expect_str_neq(ls_tag_name((ls_tag)a), ls_tag_name((ls_tag)b));
}
