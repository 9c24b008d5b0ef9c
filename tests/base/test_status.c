#include "base/status.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

static ls_status calls_failing(int *reached)
{
    LS_TRY(LS_OK);
    ++*reached;
    LS_TRY(ls_fail(LS_ESHAPE, "head dim: q has %d, k has %d", 64, 80));
    ++*reached;
    return LS_OK;
}

static ls_status cleans_up(int *cleaned, ls_status inner)
{
    ls_status status;

    LS_TRY_GOTO(status, inner, clean);
clean:
    ++*cleaned;
    return status;
}

Test(status, a_failure_carries_its_values_and_stops_the_caller)
{
    int reached = 0;

    cr_expect_eq(calls_failing(&reached), LS_ESHAPE);
    cr_expect_eq(reached, 1);
    cr_expect_str_eq(ls_message(), "head dim: q has 64, k has 80");
}

Test(status, cleaning_up_happens_with_and_without_failure)
{
    int cleaned = 0;

    cr_expect_eq(cleans_up(&cleaned, LS_OK), LS_OK);
    cr_expect_eq(cleans_up(&cleaned, LS_EIO), LS_EIO);
    cr_expect_eq(cleaned, 2);
}

Test(status, the_last_message_may_be_put_into_the_next)
{
    ls_fail(LS_ECOMM, "link down");
    cr_expect_eq(ls_fail(LS_ECOMM, "rank %d: %s", 3, ls_message()), LS_ECOMM);
    cr_expect_str_eq(ls_message(), "rank 3: link down");
}

Test(status, a_message_that_is_too_long_is_cut)
{
    char longer[5000];

    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    ls_fail(LS_EVALUE, "%s", longer);
    cr_expect_gt(strlen(ls_message()), 500);
    cr_expect_eq(strspn(ls_message(), "x"), strlen(ls_message()));
}

static void *fails_elsewhere(void *message)
{
    ls_fail(LS_EIO, "another thread's");
    strcpy(message, ls_message());
    return NULL;
}

Test(status, every_thread_has_its_own_message)
{
    char other[64];
    pthread_t thread;

    ls_fail(LS_EVALUE, "mine");
    cr_assert_eq(pthread_create(&thread, NULL, fails_elsewhere, other), 0);
    pthread_join(thread, NULL);
    cr_expect_str_eq(ls_message(), "mine");
    cr_expect_str_eq(other, "another thread's");
}

Test(status, every_status_has_a_name_and_a_side)
{
    static const struct {
        ls_status status;
        const char *name;
        bool is_input;
    } cases[] = {
        {LS_OK, "LS_OK", false},
        {LS_EVALUE, "LS_EVALUE", true},
        {LS_ESHAPE, "LS_ESHAPE", true},
        {LS_ETYPE, "LS_ETYPE", true},
        {LS_EFORMAT, "LS_EFORMAT", true},
        {LS_EFILE, "LS_EFILE", true},
        {LS_EFIT, "LS_EFIT", true},
        {LS_EIO, "LS_EIO", false},
        {LS_ENOMEM, "LS_ENOMEM", false},
        {LS_ECOMM, "LS_ECOMM", false},
        {LS_EINTERNAL, "LS_EINTERNAL", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_expect_str_eq(ls_status_name(cases[i].status), cases[i].name);
        cr_expect_eq(ls_status_is_input(cases[i].status), cases[i].is_input, "%s", cases[i].name);
    }
    cr_expect_str_eq(ls_status_name(LS_EINTERNAL + 1), "unknown status");
}
