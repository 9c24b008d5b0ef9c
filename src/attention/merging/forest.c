#include "attention/merging/forest.h"

#include <stdlib.h>

#include "base/status.h"

/* A finished node and where its result is. */
struct node {
    int level;
    int64_t index;
    int slot;
};

/* Those of which the tree is made. */
struct leaves {
    const int64_t *number; /* [count], increasing; NULL: 0 to count - 1 */
    int64_t count;
};

/* A forest in the making. */
struct growth {
    struct ls_forest *forest;
    struct node *waiting; /* [count] */
    int64_t count, room;
    struct leaves leaves;
    bool *taken; /* [slots] */
    bool open;
};

/* Leaves that there are at all with a number below this one. */
static int64_t leaves_below(const struct leaves *leaves, int64_t number)
{
    int64_t low = 0, high = leaves->count;

    if (!leaves->number) return number < leaves->count ? number : leaves->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;

        if (leaves->number[middle] < number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int64_t leaves_of(const struct leaves *leaves, int level, int64_t index)
{
    return leaves_below(leaves, (index + 1) << level) - leaves_below(leaves, index << level);
}

static bool covers_all(const struct leaves *leaves, const struct node *node)
{
    return leaves_of(leaves, node->level, node->index) == leaves->count;
}

/* The largest node that begins at position `first` of a list, has all its leaves there, and of
 * these none but the last ones missing: so many leaves one after the other. */
static struct node largest_node(const struct ls_leaf_list *list, int64_t first,
                                const struct leaves *leaves)
{
    const int64_t number = list->leaf[first].number;
    struct node node = {.index = number};

    while (number % ((int64_t)2 << node.level) == 0 && !covers_all(leaves, &node)) {
        const int64_t count = leaves_of(leaves, node.level + 1, node.index / 2);

        if (first + count > list->count ||
            list->leaf[first + count - 1].number != number + count - 1)
            break;
        node.level++;
        node.index /= 2;
    }
    return node;
}

/* A node whose other half has no leaves is its parent. */
static void rise(struct node *node, const struct leaves *leaves)
{
    while (!covers_all(leaves, node) && leaves_of(leaves, node->level, node->index ^ 1) == 0) {
        node->level++;
        node->index /= 2;
    }
}

static bool is_whole(const struct growth *g, const struct node *node)
{
    return !g->open && covers_all(&g->leaves, node);
}

static ls_status add_step(struct growth *g, struct ls_forest_step step)
{
    if (g->forest->steps == g->room) {
        const int64_t room = 2 * g->room + 8;
        struct ls_forest_step *larger =
            realloc(g->forest->step, (size_t)room * sizeof *g->forest->step);

        if (!larger) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
        g->forest->step = larger;
        g->room = room;
    }
    g->forest->step[g->forest->steps++] = step;
    return LS_OK;
}

/* The waiting other half of a node, taken out; slot -1: not there. */
static struct node take_sibling(struct growth *g, const struct node *node)
{
    for (int64_t i = 0; i < g->count; i++) {
        const struct node found = g->waiting[i];

        if (found.level != node->level || found.index != (node->index ^ 1)) continue;
        g->waiting[i] = g->waiting[--g->count];
        return found;
    }
    return (struct node){.slot = -1};
}

static int take_slot(struct growth *g)
{
    int slot = 0;

    while (g->taken[slot]) slot++;
    g->taken[slot] = true;
    if (slot == g->forest->slots) g->forest->slots++;
    return slot;
}

/* The parent of a node and its other half, which keeps the left one's slot. */
static void go_up(struct growth *g, struct node *node, int slot)
{
    *node = (struct node){.level = node->level + 1, .index = node->index / 2, .slot = slot};
    rise(node, &g->leaves);
}

/* Merges a node in a slot with whatever waits for it. */
static ls_status settle(struct growth *g, struct node node, int part)
{
    for (;;) {
        const struct node other = take_sibling(g, &node);

        if (other.slot < 0) break;
        const bool left = node.index % 2 == 0;
        const int into = left ? node.slot : other.slot, from = left ? other.slot : node.slot;

        LS_TRY(add_step(g, (struct ls_forest_step){
                               .part = part, .slot = into, .from = from, .join = LS_NODE_MERGE}));
        g->taken[from] = false;
        go_up(g, &node, into);
    }
    g->waiting[g->count++] = node;
    return LS_OK;
}

/* Leaves [first, first + count) of a part arrive. */
static ls_status arrive(struct growth *g, struct node node, int part, int64_t first, int64_t count)
{
    struct ls_forest_step step = {.part = part, .first = first, .count = count, .slot = -1};

    rise(&node, &g->leaves);
    const struct node other = take_sibling(g, &node);
    if (other.slot >= 0) {
        step.join = node.index % 2 == 0 ? LS_NODE_BEFORE : LS_NODE_AFTER;
        step.slot = other.slot;
        go_up(g, &node, other.slot);
    } else if (!is_whole(g, &node)) {
        step.slot = node.slot = take_slot(g);
    }
    step.whole = is_whole(g, &node);
    LS_TRY(add_step(g, step));
    return step.whole ? LS_OK : settle(g, node, part);
}

static ls_status grow(struct growth *g, const struct ls_leaf_list *part, int p)
{
    for (int i = 0; i < p; i++) {
        for (int64_t first = 0; first < part[i].count;) {
            const struct node node = largest_node(&part[i], first, &g->leaves);
            const int64_t count = leaves_of(&g->leaves, node.level, node.index);

            LS_TRY(arrive(g, node, i, first, count));
            first += count;
        }
    }
    return LS_OK;
}

/* What waits at the end is everything, or there are no keys at all. */
static ls_status finish(struct growth *g, int p)
{
    struct ls_forest_step step = {.part = p - 1, .slot = -1, .whole = true};

    if (g->forest->steps > 0 && g->forest->step[g->forest->steps - 1].whole) return LS_OK;
    if (g->count > 0) {
        step.slot = g->waiting[0].slot;
        step.join = LS_NODE_AFTER;
    }
    return add_step(g, step);
}

/* Each part is merged with those before it. */
static ls_status chain(struct growth *g, const struct ls_leaf_list *part, int p)
{
    for (int i = 0; i < p; i++)
        LS_TRY(add_step(g, (struct ls_forest_step){.part = i,
                                                   .count = part[i].count,
                                                   .slot = g->open || p > 1 ? 0 : -1,
                                                   .join = i == 0 ? LS_NODE_ALONE : LS_NODE_AFTER,
                                                   .whole = !g->open && i == p - 1}));
    g->forest->slots = g->open || p > 1;
    if (g->open) g->waiting[g->count++] = (struct node){.slot = 0};
    return LS_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct node *x = a, *y = b;
    const int64_t left = x->index << x->level, right = y->index << y->level;

    return (left > right) - (left < right);
}

static ls_status keep(struct growth *g)
{
    struct ls_forest *forest = g->forest;

    forest->kept = calloc((size_t)g->count + 1, sizeof *forest->kept);
    if (!forest->kept) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    qsort(g->waiting, (size_t)g->count, sizeof *g->waiting, by_place);
    for (int64_t i = 0; i < g->count; i++) forest->kept[i] = g->waiting[i].slot;
    forest->kept_count = (int)g->count;
    return LS_OK;
}

static ls_status make(struct growth g, const struct ls_leaf_list *part, int p, bool strict)
{
    ls_status status = LS_OK;

    *g.forest = (struct ls_forest){0};
    g.waiting = malloc((size_t)(g.leaves.count + 1) * sizeof *g.waiting);
    g.taken = calloc((size_t)g.leaves.count + 1, sizeof *g.taken);
    if (!g.waiting || !g.taken)
        status = ls_fail(LS_ENOMEM, "attention plan: out of memory");
    else
        status = strict ? grow(&g, part, p) : chain(&g, part, p);
    if (status == LS_OK) status = g.open ? keep(&g) : finish(&g, p);
    free(g.waiting);
    free(g.taken);
    if (status != LS_OK) ls_forest_fini(g.forest);
    return status;
}

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

ls_status ls_forest_init(struct ls_forest *out, const struct ls_leaf_list *part, int p, bool strict)
{
    int64_t count = 0, *number;

    for (int i = 0; i < p; i++) count += part[i].count;
    number = malloc((size_t)(count + 1) * sizeof *number);
    if (!number) return ls_fail(LS_ENOMEM, "attention plan: out of memory");
    for (int64_t i = 0, at = 0; i < p; at += part[i++].count)
        for (int64_t j = 0; j < part[i].count; j++) number[at + j] = part[i].leaf[j].number;
    qsort(number, (size_t)count, sizeof *number, ascending);
    const ls_status status =
        make((struct growth){.forest = out, .leaves = {number, count}}, part, p, strict);
    free(number);
    return status;
}

ls_status ls_forest_init_open(struct ls_forest *out, const struct ls_leaf_list *part, int p,
                              bool strict, int64_t leaves)
{
    return make((struct growth){.forest = out, .leaves = {.count = leaves}, .open = true}, part, p,
                strict);
}

void ls_forest_fini(struct ls_forest *forest)
{
    free(forest->step);
    free(forest->kept);
    *forest = (struct ls_forest){0};
}

int64_t ls_forest_nodes(const struct ls_leaf_list *list, int64_t leaves)
{
    const struct leaves all = {.count = leaves};
    int64_t nodes = 0;

    for (int64_t first = 0; first < list->count; nodes++) {
        const struct node node = largest_node(list, first, &all);

        first += leaves_of(&all, node.level, node.index);
    }
    return nodes;
}
