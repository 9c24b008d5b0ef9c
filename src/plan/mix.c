/* If each could be cut into fractions, all would take one of two options, those between which the
 * budget lies on the lower convex hull: `a`, which takes less, and `b`, which costs less. So most
 * will. What is searched are the others: `point`s are sums of bytes and costs that so many others
 * can have, to which option after option is added. Of points of as many others only those stay that
 * no other beats in both, and from which, with the rest in fractions, something as cheap as what is
 * known could still come. Every point gives an answer, with as many of b as fit, and the rest of a.
 */
#include "plan/mix.h"

#include <math.h>
#include <stdlib.h>

#include "plan/saturate.h"

struct option {
    int64_t bytes, cost;
    int which; /* of the problem's */
};

struct point {
    int64_t bytes, cost;
    int node;
};

/* Of some number of others; bytes rise, costs fall. */
struct points {
    struct point *list;
    int count;
};

/* How a point came about: one more than another. */
struct node {
    int from, option; /* from -1: none */
};

struct answer {
    int64_t bytes, cost;
    int node;
    int64_t of_a, of_b; /* besides those of the node */
};

/* Options that may be worth it, and what they would make in fractions. */
struct choices {
    int64_t many, budget;
    struct option option[LS_MIX_OPTIONS]; /* bytes rise, costs fall */
    int options;
    int hull[LS_MIX_OPTIONS]; /* options, from the first to the last */
    int hulls;
};

struct search {
    struct choices choices;
    const struct option *a, *b;
    struct answer known;   /* bytes 2^63 - 1: only a cost */
    struct points *others; /* [many + 1] */
    struct node *node;
    int nodes, room;
};

/* ---- options */

static int compare_options(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->cost > y->cost) - (x->cost < y->cost);
}

/* Without those that another beats in both. */
static void list_options(struct choices *c, const struct ls_mix_problem *problem)
{
    struct option *o = c->option;

    for (int i = 0; i < problem->n; i++)
        o[i] = (struct option){problem->option[i].bytes, problem->option[i].cost, i};
    qsort(o, (size_t)problem->n, sizeof *o, compare_options);
    c->options = 0;
    for (int i = 0; i < problem->n; i++)
        if (c->options == 0 || o[i].cost < o[c->options - 1].cost) o[c->options++] = o[i];
}

/* Cost that a byte more saves, from one option to another. */
static double slope(const struct option *a, const struct option *b)
{
    return ((double)a->cost - (double)b->cost) / ((double)b->bytes - (double)a->bytes);
}

static void find_hull(struct choices *c)
{
    const struct option *o = c->option;

    c->hulls = 0;
    for (int i = 0; i < c->options; i++) {
        while (c->hulls > 1 && slope(&o[c->hull[c->hulls - 2]], &o[c->hull[c->hulls - 1]]) <=
                                   slope(&o[c->hull[c->hulls - 1]], &o[i]))
            c->hulls--;
        c->hull[c->hulls++] = i;
    }
}

/* Whether any mix fits. */
static bool set_up(struct choices *c, const struct ls_mix_problem *problem)
{
    c->many = problem->many;
    c->budget = problem->budget;
    list_options(c, problem);
    find_hull(c);
    return c->options > 0 && times(c->many, c->option[0].bytes) <= c->budget;
}

/* ---- bounds */

/* The end of the hull's piece in which so many bytes a layer lie, or its last. */
static int hull_piece(const struct choices *c, double bytes)
{
    int i = 1;

    while (i < c->hulls - 1 && (double)c->option[c->hull[i]].bytes <= bytes) i++;
    return i;
}

/* No mix of so many with so many bytes costs less. */
static double least_cost(const struct choices *c, int64_t many, int64_t bytes)
{
    const double each = many > 0 ? (double)bytes / (double)many : 0;
    const struct option *last = &c->option[c->hull[c->hulls - 1]];

    if (many == 0) return 0;
    if (c->hulls == 1 || each >= (double)last->bytes) return (double)many * (double)last->cost;
    const int i = hull_piece(c, each);
    const struct option *a = &c->option[c->hull[i - 1]], *b = &c->option[c->hull[i]];
    return (double)many * ((double)a->cost - slope(a, b) * (each - (double)a->bytes));
}

/* Whether what so many more make of a point may be as good as what is known; rounding errs
 * towards yes. */
static bool is_worth_it(const struct search *s, const struct point *p, int64_t more)
{
    if (plus(p->bytes, times(more, s->choices.option[0].bytes)) > s->choices.budget) return false;
    const double bound =
        (double)p->cost + least_cost(&s->choices, more, s->choices.budget - p->bytes);

    return bound * (1 - 1e-12) - 1 <= (double)s->known.cost;
}

/* The two options between which the budget lies; one and the same at an end. */
static void find_pair(struct search *s)
{
    const double each = (double)s->choices.budget / (double)s->choices.many;
    const struct option *last = &s->choices.option[s->choices.hull[s->choices.hulls - 1]];

    s->a = s->b = last;
    if (s->choices.hulls == 1 || each >= (double)last->bytes) return;
    const int i = hull_piece(&s->choices, each);
    s->a = &s->choices.option[s->choices.hull[i - 1]];
    s->b = &s->choices.option[s->choices.hull[i]];
}

/* ---- points */

/* Takes what a point gives with so many of a and b, if that is better. */
static void complete(struct search *s, const struct point *p, int64_t more)
{
    const int64_t left = s->choices.budget - plus(p->bytes, times(more, s->a->bytes));

    if (left < 0) return;
    int64_t of_b = s->a == s->b ? 0 : left / (s->b->bytes - s->a->bytes);
    if (of_b > more) of_b = more;
    const struct answer found = {
        .bytes = plus(p->bytes, plus(times(more - of_b, s->a->bytes), times(of_b, s->b->bytes))),
        .cost = plus(p->cost, plus(times(more - of_b, s->a->cost), times(of_b, s->b->cost))),
        .node = p->node,
        .of_a = more - of_b,
        .of_b = of_b};

    if (found.cost < s->known.cost || (found.cost == s->known.cost && found.bytes < s->known.bytes))
        s->known = found;
}

static ls_status add_node(int *out, struct search *s, int from, int option)
{
    if (s->nodes == s->room) {
        const int room = 2 * s->room + 1024;
        struct node *more = realloc(s->node, (size_t)room * sizeof *more);

        if (!more) return ls_fail(LS_ENOMEM, "mix: out of memory");
        s->node = more;
        s->room = room;
    }
    s->node[s->nodes] = (struct node){from, option};
    *out = s->nodes++;
    return LS_OK;
}

static bool is_before(const struct point *a, const struct point *b)
{
    return a->bytes != b->bytes ? a->bytes < b->bytes : a->cost <= b->cost;
}

/* Both, in the order of bytes, without those that another beats; out has room. */
static int merge(struct point *out, const struct points *a, const struct point *b, int count)
{
    int n = 0, i = 0, j = 0;

    while (i < a->count || j < count) {
        const bool first = j == count || (i < a->count && is_before(&a->list[i], &b[j]));
        const struct point *next = first ? &a->list[i++] : &b[j++];

        if (n == 0 || next->cost < out[n - 1].cost) out[n++] = *next;
    }
    return n;
}

/* Come to those of as many others. */
static ls_status join(struct points *to, const struct point *more, int count)
{
    struct point *list = malloc(((size_t)to->count + (size_t)count) * sizeof *list);

    if (!list) return ls_fail(LS_ENOMEM, "mix: out of memory");
    const int n = merge(list, to, more, count);
    free(to->list);
    *to = (struct points){list, n};
    return LS_OK;
}

/* With one more, of an option; out [points of so many others]. */
static ls_status extend(struct point *out, int *count, struct search *s, int64_t others, int option)
{
    const struct points *from = &s->others[others];
    const struct option *o = &s->choices.option[option];
    const int64_t left = s->choices.many - others - 1;
    int n = 0;

    for (int i = 0; i < from->count; i++) {
        struct point next = {plus(from->list[i].bytes, o->bytes), plus(from->list[i].cost, o->cost),
                             -1};

        if (!is_worth_it(s, &next, left)) continue;
        LS_TRY(add_node(&next.node, s, from->list[i].node, option));
        complete(s, &next, left);
        out[n++] = next;
    }
    *count = n;
    return LS_OK;
}

/* As many of an option as are worth it. */
static ls_status add_option(struct search *s, int option)
{
    for (int64_t others = 0; others < s->choices.many; others++) {
        const int room = s->others[others].count;
        int count = 0;

        if (room == 0) continue;
        struct point *more = malloc((size_t)room * sizeof *more);
        ls_status status = more ? extend(more, &count, s, others, option)
                                : ls_fail(LS_ENOMEM, "mix: out of memory");

        if (status == LS_OK && count > 0) status = join(&s->others[others + 1], more, count);
        free(more);
        LS_TRY(status);
    }
    return LS_OK;
}

/* ---- answers */

double ls_mix_bound(const struct ls_mix_problem *problem)
{
    struct choices c;

    return set_up(&c, problem) ? least_cost(&c, c.many, c.budget) : INFINITY;
}

static ls_status search(struct search *s)
{
    const struct point none = {0, 0, -1};

    if (!is_worth_it(s, &none, s->choices.many)) return LS_OK;
    LS_TRY(join(&s->others[0], &none, 1));
    complete(s, &none, s->choices.many);
    for (int i = 0; i < s->choices.options; i++)
        if (&s->choices.option[i] != s->a && &s->choices.option[i] != s->b)
            LS_TRY(add_option(s, i));
    return LS_OK;
}

static void write_answer(struct ls_mix *out, const struct search *s)
{
    const struct answer *known = &s->known;

    *out = (struct ls_mix){.bytes = known->bytes, .cost = known->cost};
    out->count[s->a->which] += known->of_a;
    out->count[s->b->which] += known->of_b;
    for (int node = known->node; node >= 0; node = s->node[node].from)
        out->count[s->choices.option[s->node[node].option].which]++;
}

ls_status ls_mix_find(struct ls_mix *out, bool *found, const struct ls_mix_problem *problem,
                      int64_t most)
{
    struct search s = {.known = {.bytes = INT64_MAX, .cost = most}};
    ls_status status = LS_OK;

    *found = false;
    if (!set_up(&s.choices, problem)) return LS_OK;
    find_pair(&s);
    s.others = calloc((size_t)problem->many + 1, sizeof *s.others);
    if (!s.others) return ls_fail(LS_ENOMEM, "mix: out of memory");
    status = search(&s);
    *found = status == LS_OK && s.known.bytes < INT64_MAX;
    if (*found) write_answer(out, &s);
    for (int64_t i = 0; i <= problem->many; i++) free(s.others[i].list);
    free(s.others);
    free(s.node);
    return status;
}
