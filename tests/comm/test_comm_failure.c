/* A message that fails while it is moved along: the wait for it says so, once, even if the backend
 * has forgotten. */
#include <criterion/criterion.h>
#include <string.h>

#include "comm/comm.h"

static bool broken;

static void destroy(void *self)
{
    (void)self;
}

static ls_status test(bool *done, void *self, struct ls_request *requests, int n)
{
    (void)self, (void)requests, (void)n;
    *done = true;
    return broken ? ls_fail(LS_ECOMM, "the cable is out") : LS_OK;
}

static ls_status wait(void *self, struct ls_request *requests, int n)
{
    (void)self, (void)requests, (void)n;
    return LS_OK;
}

static ls_status reduce(double *values, void *self, int n, ls_reduction how)
{
    (void)values, (void)self, (void)n, (void)how;
    return LS_OK;
}

static const struct ls_comm_ops forgetful = {
    .name = "forgetful", .destroy = destroy, .test = test, .wait = wait, .reduce = reduce};

Test(comm_failure, progress_that_fails_fails_the_wait)
{
    struct ls_request request = {0};
    struct ls_comm *comm;
    bool done;

    cr_assert_eq(ls_comm_create(&comm, &forgetful, NULL, 0, 1), LS_OK);
    cr_expect_eq(ls_comm_progress(&done, comm, &request, 1), LS_OK);
    cr_expect_eq(ls_comm_wait(comm, &request, 1), LS_OK);
    broken = true;
    cr_expect_eq(ls_comm_progress(&done, comm, &request, 1), LS_ECOMM);
    broken = false;
    cr_expect_eq(ls_comm_progress(&done, comm, &request, 1), LS_OK);
    ls_fail(LS_EVALUE, "something else in between");
    cr_expect_eq(ls_comm_wait(comm, &request, 1), LS_ECOMM);
    cr_expect(strstr(ls_message(), "the cable is out"), "%s", ls_message());
    cr_expect_eq(ls_comm_wait(comm, &request, 1), LS_OK);
    ls_comm_destroy(comm);
}
