/* Nodes have the rows that are there and no others, and whoever holds which rows, what is added up
 * is the one tree over all of them. */
#include "tensor/row_nodes.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 80, MOST_PARTS = 5, MOST_RUNS = MOST_ROWS };

/* What stands for the sum of some rows: equal only if they were added in the same order. */
static uint64_t row_value(int64_t row)
{
    return (uint64_t)(row + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t added(uint64_t left, uint64_t right)
{
    return (left ^ left >> 29) * UINT64_C(0xbf58476d1ce4e5b9) + (right << 7 | right >> 57) + 1;
}

/* Rows [first, first + 2^level) of which there are those below `end`. */
static uint64_t tree(int64_t first, int level, int64_t end)
{
    const int64_t half = first + (INT64_C(1) << level) / 2;

    if (level == 0) return row_value(first);
    if (half >= end) return tree(first, level - 1, end);
    return added(tree(first, level - 1, end), tree(half, level - 1, end));
}

static int levels_of(int64_t rows)
{
    int level = 0;

    while (INT64_C(1) << level < rows) level++;
    return level;
}

/* Which part has which position; a cut is a number. */
static int part_of(int64_t position, int cut, int parts)
{
    const int64_t block = cut / 3 % 9 + 1;

    if (cut % 3 == 0) return (int)(position / block % parts);
    if (cut % 3 == 1) return (int)((position * position + cut) / block % parts);
    return position < cut ? 0 : parts - 1; /* others are empty */
}

struct part {
    struct ls_row_run run[2 * MOST_RUNS];
    struct ls_row_runs runs;
};

/* Every third row begins a run, also where the one before goes on; an empty run after each. */
static void fill_part(struct part *p, int part, int64_t s, int cut, int parts)
{
    int64_t row = 0;

    p->runs = (struct ls_row_runs){p->run, 0, s};
    for (int64_t i = 0; i < s; i++) {
        if (part_of(i, cut, parts) != part) continue;
        struct ls_row_run *const last = p->runs.count > 0 ? &p->run[p->runs.count - 2] : NULL;
        if (last && last->position + last->count == i && last->count < 3) {
            last->count++;
        } else {
            p->run[p->runs.count++] = (struct ls_row_run){row, 1, i};
            p->run[p->runs.count++] = (struct ls_row_run){row, 0, i};
        }
        row++;
    }
}

static bool holds(int64_t row, int64_t s, int part, int cut, int parts)
{
    return part_of(row % s, cut, parts) == part;
}

/* Nodes in the order of their rows have them all once, and none could be larger. */
static void check_list(const struct ls_row_node *node, int64_t count, int64_t b, int64_t s,
                       int part, int cut, int parts)
{
    const int64_t rows = b * s;
    int64_t i = 0;

    for (int64_t row = 0; row < rows; row++) {
        while (i < count && ls_row_node_end(&node[i], rows) <= row) i++;
        const bool is_there = i < count && ls_row_node_first(&node[i]) <= row;
        cr_assert_eq(is_there, holds(row, s, part, cut, parts), "b %ld s %ld cut %d/%d: row %ld",
                     (long)b, (long)s, cut, parts, (long)row);
    }
    for (i = 0; i < count; i++) {
        struct ls_row_node parent = {node[i].level + 1, node[i].index / 2, 0};
        bool all = true;

        cr_assert_eq(node[i].slot, i);
        for (int64_t row = ls_row_node_first(&parent); row < ls_row_node_end(&parent, rows); row++)
            all = all && holds(row, s, part, cut, parts);
        cr_assert(!all || node[i].level == levels_of(rows), "b %ld s %ld cut %d/%d: node %ld",
                  (long)b, (long)s, cut, parts, (long)i);
    }
}

static void execute(uint64_t *value, const struct ls_row_add *add, int64_t adds)
{
    for (int64_t i = 0; i < adds; i++)
        value[add[i].into] = added(value[add[i].into], value[add[i].from]);
}

/* The parts' nodes, those of the last part first, are merged as far as they go after each part. */
static void check_cut(int64_t b, int64_t s, int cut, int parts)
{
    static struct part part;
    const int64_t rows = b * s;
    struct ls_row_node node[2 * MOST_ROWS], listed[MOST_ROWS];
    struct ls_row_add add[2 * MOST_ROWS];
    uint64_t value[MOST_ROWS];
    int64_t count = 0, slots = 0;

    for (int i = parts - 1; i >= 0; i--) {
        fill_part(&part, i, s, cut, parts);
        const int64_t more = ls_row_nodes_list(NULL, &part.runs, b);
        cr_assert_eq(ls_row_nodes_list(listed, &part.runs, b), more);
        check_list(listed, more, b, s, i, cut, parts);
        for (int64_t j = 0; j < more; j++) {
            value[slots] = tree(ls_row_node_first(&listed[j]), listed[j].level, rows);
            node[count] = listed[j];
            node[count++].slot = slots++;
        }
        const int64_t before = count, adds = ls_row_nodes_merge(add, node, &count, rows);
        cr_assert_eq(adds, before - count);
        execute(value, add, adds);
    }
    if (rows == 0) {
        cr_assert_eq(count, 0);
        return;
    }
    cr_assert_eq(count, 1, "b %ld s %ld cut %d/%d: %ld remain", (long)b, (long)s, cut, parts,
                 (long)count);
    cr_assert_eq(value[node[0].slot], tree(0, levels_of(rows), rows), "b %ld s %ld cut %d/%d",
                 (long)b, (long)s, cut, parts);
}

Test(row_nodes, add_up_to_one_tree_however_rows_are_cut)
{
    for (int64_t b = 1; b <= 2; b++)
        for (int64_t s = 0; s <= MOST_ROWS / 2; s++)
            for (int cut = 0; cut < 54; cut++)
                for (int parts = 1; parts <= MOST_PARTS; parts++) check_cut(b, s, cut, parts);
}

/* One stretch has at most two nodes of each size. */
Test(row_nodes, are_few)
{
    const int64_t s = INT64_C(1) << 40;

    for (int i = 0; i < 1000; i++) {
        const int64_t first = i * INT64_C(1000003) * 7919 % s, left = s - first;
        const struct ls_row_run run = {0, left / (i % 13 + 1), first};
        const struct ls_row_runs runs = {&run, 1, s};

        cr_assert_leq(ls_row_nodes_list(NULL, &runs, 1), 80);
    }
}
