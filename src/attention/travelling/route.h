/* Which parts of K and V come to a rank in which step, where they travel round a ring, or round
 * two: ranks are places, runs of `node` of them are inner rings. All parts of a run go round in it
 * while each of them is also on its way to the same place of the next run. With runs of one place,
 * all there is is the outer ring. Pure arithmetic. Source: Gu et al. 2024, "LoongTrain", for the
 * double ring. */
#ifndef LS_ATTENTION_TRAVELLING_ROUTE_H
#define LS_ATTENTION_TRAVELLING_ROUTE_H

#include <stdbool.h>

struct ls_route {
    int places, node, place; /* node divides places */
};

/* One run of all places is one ring as well. */
struct ls_route ls_route_of(int places, int node, int place);

/* Whose part is at this place at a step, of which there are as many as places. */
int ls_route_owner(const struct ls_route *route, int step);

/* Who has the part of this place at a step. */
int ls_route_holder(const struct ls_route *route, int step);

/* A message of a step: the part that is here goes on, another comes for a later step. */
struct ls_hop {
    int from, to; /* places */
    int next;     /* step whose part comes */
};

/* The inner ring's of a step, which ends with it; the outer ring's that begins with a step and ends
 * with the one before `next`. False: there is none. */
bool ls_route_inner_hop(struct ls_hop *out, const struct ls_route *route, int step);
bool ls_route_outer_hop(struct ls_hop *out, const struct ls_route *route, int step);

/* Whether outer hops that began in this step or before it end with it. */
bool ls_route_ends_outer(const struct ls_route *route, int step);

/* Which buffer the part of a step is in, and how many there are. */
int ls_route_buffer(const struct ls_route *route, int step);
int ls_route_buffers(const struct ls_route *route);

#endif
