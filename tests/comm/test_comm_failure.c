/* A message that fails while it is moved along: the wait for it says so, once, even if the backend
 * has forgotten. */
#include <criterion/criterion.h>
#include <string.h>

#include "comm/transport.h"

static bool broken;

static ls_status start(void *self, struct ls_message *message, int n)
{
    (void)self, (void)message, (void)n;
    return LS_OK;
}

static ls_status test(bool *done, void *self, struct ls_message *message, int n)
{
    (void)self, (void)message, (void)n;
    *done = true;
    return broken ? ls_fail(LS_ECOMM, "the cable is out") : LS_OK;
}

static bool breaks_waiting;

static ls_status wait(void *self, struct ls_message *message, int n)
{
    (void)self, (void)message, (void)n;
    return breaks_waiting ? ls_fail(LS_ECOMM, "nobody answers") : LS_OK;
}

static const struct ls_transport_ops forgetful = {
    .name = "forgetful", .start = start, .test = test, .wait = wait};

Test(comm_failure, moving_that_fails_fails_the_wait)
{
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = {.ops = &forgetful, .size = 1, .traffic = &traffic};
    struct ls_batch batch;
    char byte = 0;

    cr_assert_eq(ls_batch_init(&batch, &transport, 1), LS_OK);
    for (int time = 0; time < 3; time++) {
        ls_batch_send(&batch, &byte, 1, 0);
        cr_assert_eq(ls_batch_start(&batch), LS_OK);
        broken = time == 1;
        ls_traffic_move(&traffic);
        broken = false;
        ls_traffic_move(&traffic);
        ls_fail(LS_EVALUE, "something else in between");
        cr_expect_eq(ls_batch_wait(&batch), time == 1 ? LS_ECOMM : LS_OK);
        if (time == 1) cr_expect(strstr(ls_message(), "the cable is out"), "%s", ls_message());
    }
    ls_batch_fini(&batch);
}

/* Whatever happened to it, a batch can be filled again. */
Test(comm_failure, a_batch_that_failed_is_empty)
{
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = {.ops = &forgetful, .size = 1, .traffic = &traffic};
    struct ls_batch batch;
    char byte = 0;

    cr_assert_eq(ls_batch_init(&batch, &transport, 1), LS_OK);
    ls_batch_send(&batch, &byte, 1, 5);
    cr_expect_eq(ls_batch_start(&batch), LS_ECOMM, "there is no rank 5");
    for (int time = 0; time < 3; time++) {
        ls_batch_send(&batch, &byte, 1, 0);
        breaks_waiting = time == 1;
        cr_expect_eq(ls_batch_run(&batch), time == 1 ? LS_ECOMM : LS_OK);
    }
    cr_expect_null(traffic.under_way);
    ls_batch_fini(&batch);
}
