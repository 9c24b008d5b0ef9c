#include "base/trace.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct ls_trace_kind kind = {"kind", "test", {"first", "second"}};

static void add(int thread, double begin, double end, int64_t number)
{
    ls_trace_add(&kind, thread, begin, end, (const int64_t[]){number, -number, 0});
}

TestSuite(trace, .fini = ls_trace_destroy);

Test(trace, records_between_start_and_stop_only)
{
    cr_expect_not(ls_trace_on, "before there is a trace");
    ls_trace_start();
    cr_expect_not(ls_trace_on, "nothing can be recorded without room");
    cr_assert_eq(ls_trace_create(1, 4), LS_OK);
    cr_expect_not(ls_trace_on, "made, but not started");
    for (int i = 0; i < 2; i++) {
        ls_trace_start();
        cr_expect(ls_trace_on);
        ls_trace_stop();
        cr_expect_not(ls_trace_on);
    }
    ls_trace_start();
    ls_trace_destroy();
    cr_expect_not(ls_trace_on, "after the trace");
}

Test(trace, events_come_back_with_what_they_say_each_to_its_thread)
{
    const struct ls_trace_event *event;

    cr_assert_eq(ls_trace_create(3, 4), LS_OK);
    ls_trace_start();
    add(2, 1.5, 2.5, 7);
    add(0, 1, 3, 8);
    ls_trace_stop();

    cr_assert_eq(ls_trace_events(&event, 2), 1);
    cr_expect_eq(event->kind, &kind);
    cr_expect_eq(event->begin, 1.5);
    cr_expect_eq(event->end, 2.5);
    cr_expect_eq(event->number[0], 7);
    cr_expect_eq(event->number[1], -7);
    cr_assert_eq(ls_trace_events(&event, 0), 1);
    cr_expect_eq(event->number[0], 8);
    cr_expect_eq(ls_trace_events(&event, 1), 0);
}

/* An outer event is recorded after those within it, whose beginnings it may share. */
Test(trace, events_are_in_the_order_in_which_they_began)
{
    static const struct {
        double begin, end;
    } recorded[] = {{2, 3}, {3, 4}, {1, 5}, {6, 7}, {6, 8}, {6, 9}, {5, 10}, {0, 11}};
    static const double wanted[][2] = {{0, 11}, {1, 5}, {2, 3}, {3, 4},
                                       {5, 10}, {6, 9}, {6, 8}, {6, 7}};
    const struct ls_trace_event *event;

    cr_assert_eq(ls_trace_create(1, 100), LS_OK);
    for (int i = 0; i < 8; i++) { /* starting again keeps what there is */
        ls_trace_start();
        add(0, recorded[i].begin, recorded[i].end, i);
        ls_trace_stop();
    }
    cr_assert_eq(ls_trace_events(&event, 0), 8);
    for (int i = 0; i < 8; i++)
        cr_expect(event[i].begin == wanted[i][0] && event[i].end == wanted[i][1],
                  "event %d is [%g, %g]", i, event[i].begin, event[i].end);
}

Test(trace, what_comes_after_the_limit_of_a_thread_is_counted)
{
    const struct ls_trace_event *event;

    cr_assert_eq(ls_trace_create(2, 10), LS_OK);
    ls_trace_start();
    for (int i = 0; i < 13; i++) add(1, i, i + 1, i);
    for (int i = 0; i < 10; i++) add(0, i, i + 1, i);
    ls_trace_stop();
    for (int t = 0; t < 2; t++) {
        cr_assert_eq(ls_trace_events(&event, t), 10);
        for (int i = 0; i < 10; i++) cr_expect_eq(event[i].number[0], i, "thread %d", t);
        cr_expect_eq(ls_trace_dropped(t), t == 0 ? 0 : 3);
    }
}

Test(trace, too_much_is_no_memory)
{
    cr_expect_eq(ls_trace_create(2, INT64_MAX / 2), LS_ENOMEM);
    cr_expect_not_null(strstr(ls_message(), "trace"), "%s", ls_message());
    cr_expect_eq(ls_trace_create(2, 10), LS_OK, "nothing is left of the failure");
}
