#include "attention/travelling/route.h"

struct ls_route ls_route_of(int places, int node, int place)
{
    return (struct ls_route){.places = places, .node = node == places ? 1 : node, .place = place};
}

/* The place so many behind another in a ring of n. */
static int behind(int place, int by, int n)
{
    return (place - by % n + n) % n;
}

int ls_route_owner(const struct ls_route *route, int step)
{
    const int n = route->node, run = behind(route->place / n, step / n, route->places / n);

    return run * n + behind(route->place % n, step % n, n);
}

int ls_route_holder(const struct ls_route *route, int step)
{
    const int n = route->node, runs = route->places / n;

    return (route->place / n + step / n) % runs * n + (route->place % n + step % n) % n;
}

bool ls_route_inner_hop(struct ls_hop *out, const struct ls_route *route, int step)
{
    const int n = route->node, at = route->place % n, first = route->place - at;

    if (step % n == n - 1) return false;
    *out = (struct ls_hop){
        .from = first + behind(at, 1, n), .to = first + (at + 1) % n, .next = step + 1};
    return true;
}

bool ls_route_outer_hop(struct ls_hop *out, const struct ls_route *route, int step)
{
    const int n = route->node, p = route->places;

    if (step % n != 0 || step + n >= p) return false;
    *out = (struct ls_hop){
        .from = behind(route->place, n, p), .to = (route->place + n) % p, .next = step + n};
    return true;
}

bool ls_route_ends_outer(const struct ls_route *route, int step)
{
    return step % route->node == route->node - 1;
}

/* Two for parts of the outer ring, which stay for as many steps as a run has places, and up to two
 * for parts of the inner one. */
int ls_route_buffer(const struct ls_route *route, int step)
{
    const int inner = step % route->node;

    return inner == 0 ? step / route->node % 2 : 2 + (inner - 1) % 2;
}

int ls_route_buffers(const struct ls_route *route)
{
    if (route->places == 1) return 0;
    return 2 + (route->node > 2 ? 2 : route->node - 1);
}
