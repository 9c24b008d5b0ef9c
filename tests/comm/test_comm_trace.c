/* What the first thread sends, receives and waits for is in the trace. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/trace.h"
#include "comm/comm.h"

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

/* One of everything; 24 bytes to itself with tag 5. */
static void communicate(void)
{
    char in[24] = {0}, out[24];
    struct ls_request request[2];
    double value = 1;
    float values[2] = {1, 2}, sums[2];

    cr_assert_eq(ls_comm_receive(&request[0], comm, out, sizeof out, 0, 5), LS_OK);
    cr_assert_eq(ls_comm_send(&request[1], comm, in, sizeof in, 0, 5), LS_OK);
    cr_assert_eq(ls_comm_wait(comm, request, 2), LS_OK);
    cr_assert_eq(ls_comm_barrier(comm), LS_OK);
    cr_assert_eq(ls_comm_reduce(&value, comm, 1, LS_REDUCE_SUM), LS_OK);
    cr_assert_eq(ls_comm_all_reduce(values, comm, 2, LS_REDUCE_SUM), LS_OK);
    cr_assert_eq(ls_comm_reduce_scatter(sums, comm, values, 2), LS_OK);
    cr_assert_eq(ls_comm_all_to_all(sums, comm, values, sizeof values), LS_OK);
}

Test(comm_trace, each_call_is_an_event_of_the_first_thread)
{
    static const struct {
        const char *name, *number;
        int64_t value;
    } wanted[] = {
        {"receive", "tag", 5},          {"send", "tag", 5},         {"wait", "messages", 2},
        {"barrier", NULL, 0},           {"reduce", "values", 1},    {"all-reduce", "bytes", 0},
        {"reduce-scatter", "bytes", 0}, {"all-to-all", "bytes", 0},
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
        const int last = kind->number[2] ? 2 : 0;

        cr_expect_str_eq(kind->name, wanted[i].name);
        cr_expect_leq(event[i].begin, event[i].end, "%s", kind->name);
        if (i > 0) cr_expect_leq(event[i - 1].end, event[i].begin, "%s", kind->name);
        if (!wanted[i].number) continue;
        cr_expect_str_eq(kind->number[last], wanted[i].number);
        cr_expect_eq(event[i].number[last], wanted[i].value, "%s", kind->name);
    }
    for (int i = 0; i < 2; i++) {
        cr_expect_str_eq(event[i].kind->number[0], "bytes");
        cr_expect_eq(event[i].number[0], 24);
        cr_expect_eq(event[i].number[1], 0, "the peer is this rank");
    }
}

Test(comm_trace, nothing_is_recorded_before_the_start)
{
    const struct ls_trace_event *event;

    communicate();
    cr_expect_eq(ls_trace_events(&event, 0), 0);
}
