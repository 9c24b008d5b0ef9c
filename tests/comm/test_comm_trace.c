/* What the first thread sends, receives and waits for is in the trace. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/trace.h"
#include "comm/transport.h"

static struct ls_comm *comm;

static void up(void)
{
    cr_assert_eq(ls_comm_create_self(&comm), LS_OK);
    cr_assert_eq(ls_trace_create(2, 100), LS_OK);
}

static void down(void)
{
    ls_trace_destroy();
    ls_comm_destroy(comm);
}

TestSuite(comm_trace, .init = up, .fini = down, .timeout = 10);

/* One of everything; 24 bytes to itself. */
static void communicate(void)
{
    struct ls_traffic traffic = {0};
    const struct ls_transport transport = ls_transport_of(comm, &traffic);
    char in[24] = {0}, out[24];
    struct ls_batch batch;
    double value = 1;

    cr_assert_eq(ls_batch_init(&batch, &transport, 2), LS_OK);
    ls_batch_receive(&batch, out, sizeof out, 0);
    ls_batch_send(&batch, in, sizeof in, 0);
    cr_assert_eq(ls_batch_run(&batch), LS_OK);
    cr_assert_eq(ls_comm_barrier(comm), LS_OK);
    cr_assert_eq(ls_comm_reduce(&value, comm, 1, LS_REDUCE_SUM), LS_OK);
    ls_batch_fini(&batch);
}

Test(comm_trace, each_call_is_an_event_of_the_first_thread)
{
    static const struct {
        const char *name, *number;
        int64_t value;
    } wanted[] = {
        {"receive", "bytes", 24}, {"send", "bytes", 24},   {"wait", "messages", 2},
        {"barrier", NULL, 0},     {"reduce", "values", 1},
    };
    const int calls = sizeof wanted / sizeof *wanted;
    const struct ls_trace_event *event;

    ls_trace_start();
    communicate();
    ls_trace_stop();
    cr_expect_eq(ls_trace_events(&event, 1), 0);
    cr_assert_eq(ls_trace_events(&event, 0), calls);
    for (int i = 0; i < calls; i++) {
        const struct ls_trace_kind *kind = event[i].kind;

        cr_expect_str_eq(kind->name, wanted[i].name);
        cr_expect_leq(event[i].begin, event[i].end, "%s", kind->name);
        if (i > 1) cr_expect_leq(event[i - 1].end, event[i].begin, "%s", kind->name);
        if (!wanted[i].number) continue;
        cr_expect_str_eq(kind->number[0], wanted[i].number);
        cr_expect_eq(event[i].number[0], wanted[i].value, "%s", kind->name);
    }
    for (int i = 0; i < 2; i++) cr_expect_eq(event[i].number[1], 0, "the peer is this rank");
}

Test(comm_trace, nothing_is_recorded_before_the_start)
{
    const struct ls_trace_event *event;

    communicate();
    cr_expect_eq(ls_trace_events(&event, 0), 0);
}
