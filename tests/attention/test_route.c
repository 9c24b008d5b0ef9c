/* How parts travel round one ring or two: played without any data. */
#include <criterion/criterion.h>

#include "attention/travelling/route.h"

#define MOST 24

/* Every number of places and every size of run that divides it. */
#define FOR_EACH_ROUTE(places, node)                                                               \
    for (int places = 1; places <= MOST; places++)                                                 \
        for (int node = 1; node <= places; node++)                                                 \
            if (places % node == 0)

Test(route, brings_every_part_to_every_place_once)
{
    FOR_EACH_ROUTE(places, node)
    {
        for (int place = 0; place < places; place++) {
            const struct ls_route route = ls_route_of(places, node, place);
            bool seen[MOST] = {false};

            cr_expect_eq(ls_route_owner(&route, 0), place, "the first part is one's own");
            for (int step = 0; step < places; step++) {
                const int owner = ls_route_owner(&route, step);
                const struct ls_route theirs = ls_route_of(places, node, owner);

                cr_assert(owner >= 0 && owner < places);
                cr_expect_eq(ls_route_holder(&theirs, step), place);
                cr_expect_not(seen[owner], "%d places of %d: %d is at %d again", places, node,
                              owner, place);
                seen[owner] = true;
            }
        }
    }
}

/* Whoever a part is said to come from sends it here, in the same step, and has it then. */
static void check_hop(const struct ls_route *route, int step,
                      bool (*hop_of)(struct ls_hop *, const struct ls_route *, int))
{
    struct ls_hop here, there;

    if (!hop_of(&here, route, step)) return;
    const struct ls_route from = ls_route_of(route->places, route->node, here.from);
    cr_assert(hop_of(&there, &from, step));
    cr_expect_eq(there.to, route->place, "%d places of %d, step %d", route->places, route->node,
                 step);
    cr_expect_eq(ls_route_owner(&from, step), ls_route_owner(route, here.next));
}

Test(route, messages_have_two_sides)
{
    FOR_EACH_ROUTE(places, node)
    {
        for (int at = 0; at < places * places; at++) {
            const struct ls_route route = ls_route_of(places, node, at / places);

            check_hop(&route, at % places, ls_route_inner_hop);
            check_hop(&route, at % places, ls_route_outer_hop);
        }
    }
}

/* Inner messages stay in their run, outer ones keep the place in it. */
Test(route, only_outer_messages_leave_a_node)
{
    FOR_EACH_ROUTE(places, node)
    {
        for (int at = 0; at < places * places; at++) {
            const int place = at / places;
            const struct ls_route route = ls_route_of(places, node, place);
            struct ls_hop hop;

            if (ls_route_inner_hop(&hop, &route, at % places))
                cr_expect(hop.to / node == place / node && hop.from / node == place / node);
            if (node < places && ls_route_outer_hop(&hop, &route, at % places))
                cr_expect(hop.to % node == place % node && hop.to / node != place / node);
        }
    }
}

/* A message that goes on while steps compute. */
struct flight {
    int begin, end; /* steps */
    int from, into; /* buffers */
};

/* Every step's part comes by one message, which has arrived when the step begins; a buffer that is
 * sent from or received into is not received into by another message meanwhile. */
static void check_buffers(const struct ls_route *route)
{
    struct flight flight[2 * MOST];
    bool comes[MOST] = {true};
    int flights = 0;

    for (int step = 0; step < route->places; step++) {
        struct ls_hop hop;
        int end = step;

        cr_expect(comes[step], "%d places of %d: step %d has no part", route->places, route->node,
                  step);
        cr_expect(route->places == 1 || ls_route_buffer(route, step) < ls_route_buffers(route));
        if (ls_route_inner_hop(&hop, route, step)) {
            flight[flights++] = (struct flight){step, step, ls_route_buffer(route, step),
                                                ls_route_buffer(route, hop.next)};
            cr_expect_eq(hop.next, step + 1);
            comes[hop.next] = true;
        }
        if (!ls_route_outer_hop(&hop, route, step)) continue;
        while (!ls_route_ends_outer(route, end)) end++;
        flight[flights++] = (struct flight){step, end, ls_route_buffer(route, step),
                                            ls_route_buffer(route, hop.next)};
        cr_expect_eq(hop.next, end + 1);
        comes[hop.next] = true;
    }
    for (int i = 0; i < flights; i++) {
        for (int step = flight[i].begin; step <= flight[i].end; step++)
            cr_expect_neq(flight[i].into, ls_route_buffer(route, step), "read while it is written");
        for (int j = 0; j < flights; j++)
            if (j != i && flight[j].begin <= flight[i].end && flight[i].begin <= flight[j].end)
                cr_expect(flight[i].into != flight[j].from && flight[i].into != flight[j].into,
                          "%d places of %d: messages of steps %d and %d", route->places,
                          route->node, flight[i].begin, flight[j].begin);
    }
}

Test(route, buffers_hold_what_they_have_to)
{
    FOR_EACH_ROUTE(places, node)
    {
        const struct ls_route route = ls_route_of(places, node, places - 1);

        check_buffers(&route);
    }
}

Test(route, one_run_of_all_places_is_one_ring)
{
    const struct ls_route all = ls_route_of(6, 6, 2), single = ls_route_of(6, 1, 2);

    for (int step = 0; step < 6; step++)
        cr_expect_eq(ls_route_owner(&all, step), ls_route_owner(&single, step));
    cr_expect_eq(ls_route_buffers(&all), 2);
}
