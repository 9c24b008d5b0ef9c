#include "base/profile.h"

#include <criterion/criterion.h>

Test(profile, an_event_counts_once_and_takes_the_time_since_it_began)
{
    struct ls_profile profile = {0};
    const double began = ls_now();

    ls_profile_add(&profile, LS_EVENT_TILE, began - 2);
    ls_profile_add(&profile, LS_EVENT_TILE, began);
    const double passed = ls_now() - began;

    cr_expect_geq(passed, 0);
    cr_expect_eq(profile.count[LS_EVENT_TILE], 2);
    cr_expect_geq(profile.seconds[LS_EVENT_TILE], 2 - 1e-6);
    cr_expect_leq(profile.seconds[LS_EVENT_TILE], 2 + 2 * passed + 1e-6);
    cr_expect_eq(profile.count[LS_EVENT_PACK], 0);
    cr_expect_eq(profile.seconds[LS_EVENT_PACK], 0);
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
