#include "base/profile.h"

#include <criterion/criterion.h>

#include "base/trace.h"

Test(profile, an_event_counts_once_and_takes_the_time_since_it_began)
{
    struct ls_profile profile = {0};
    const double began = ls_now();

    ls_profile_add(&profile, LS_EVENT_TILE, began - 2, (struct ls_event_scope){0});
    ls_profile_add(&profile, LS_EVENT_TILE, began, (struct ls_event_scope){0});
    const double passed = ls_now() - began;

    cr_expect_geq(passed, 0);
    cr_expect_eq(profile.count[LS_EVENT_TILE], 2);
    cr_expect_geq(profile.seconds[LS_EVENT_TILE], 2 - 1e-6);
    cr_expect_leq(profile.seconds[LS_EVENT_TILE], 2 + 2 * passed + 1e-6);
    cr_expect_eq(profile.count[LS_EVENT_PACK], 0);
    cr_expect_eq(profile.seconds[LS_EVENT_PACK], 0);
}

Test(profile, an_event_is_in_the_trace_while_there_is_one)
{
    struct ls_profile profile = {.thread = 1};
    const struct ls_event_scope scope = {.pair = 3, .amount = 5, .query_leaf = 7};
    const struct ls_trace_event *event;
    const double began = ls_now();

    cr_assert_eq(ls_trace_create(2, LS_EVENT_COUNT + 2), LS_OK);
    ls_profile_add(&profile, LS_EVENT_TILE, began, scope);
    ls_trace_start();
    for (int i = 0; i < LS_EVENT_COUNT; i++)
        ls_profile_add(&profile, (ls_event)i, began + i, scope);
    ls_trace_stop();
    ls_profile_add(&profile, LS_EVENT_TILE, began, scope);

    cr_expect_eq(ls_trace_events(&event, 0), 0);
    cr_assert_eq(ls_trace_events(&event, 1), LS_EVENT_COUNT);
    for (int i = 0; i < LS_EVENT_COUNT; i++) {
        cr_expect_str_eq(event[i].kind->name, ls_event_name((ls_event)i));
        cr_expect_eq(event[i].begin, began + i);
        cr_expect_str_eq(event[i].kind->number[0], "pair");
        cr_expect_eq(event[i].number[0], 3);
        cr_expect_eq(event[i].number[1], 5);
        cr_expect_eq(event[i].number[2], 7);
    }
    cr_expect_geq(event[0].end, began);
    cr_expect_leq(event[0].end, ls_now());
    ls_trace_destroy();
}

Test(profile, merging_adds_every_event)
{
    struct ls_profile into = {0}, from = {0};

    for (int event = 0; event < LS_EVENT_COUNT; event++) {
        into.seconds[event] = event;
        into.count[event] = 10 * event;
        from.seconds[event] = 0.5;
        from.count[event] = 3;
    }
    ls_profile_merge(&into, &from);
    for (int event = 0; event < LS_EVENT_COUNT; event++) {
        cr_expect_eq(into.seconds[event], event + 0.5, "%s", ls_event_name((ls_event)event));
        cr_expect_eq(into.count[event], 10 * event + 3, "%s", ls_event_name((ls_event)event));
    }
}
