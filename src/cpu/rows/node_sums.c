#include "cpu/rows/node_sums.h"

#include <omp.h>
#include <string.h>

#include "cpu/carve.h"
#include "cpu/float_mode.h"
#include "cpu/gradient/sum_forest.h"

/* A node of many rows is cut into pieces, smaller nodes, so that there are several for each thread;
 * their sums wait in scratch and are then added up the tree. */
#define PIECES 8 /* a thread, at most */
#define LEAST_LEVEL 3
#define COLUMNS 256 /* that one thread adds at once in the end */

struct workspace {
    float *piece; /* [pieces, width] */
    float *stack; /* [threads, levels + 1, width] */
    int levels;   /* of sums that wait for their right half, and room for one under way */
};

static int levels_for(int64_t rows)
{
    int levels = 1;

    while (rows >> levels > 0) levels++;
    return levels;
}

static size_t lay_out(struct workspace *w, void *scratch, int64_t rows, int64_t width, int threads)
{
    struct cursor cursor = {.base = scratch};
    const size_t vector = (size_t)width * sizeof(float), n = (size_t)threads;

    w->levels = levels_for(rows);
    w->piece = carve(&cursor, (PIECES * n + 1) * vector);
    w->stack = carve(&cursor, n * (size_t)(w->levels + 1) * vector);
    return cursor.used;
}

size_t cpu_node_sums_bytes(int64_t rows, int64_t width, int threads)
{
    struct workspace w;

    return lay_out(&w, NULL, rows, width, threads);
}

/* ---- rows in the order of their numbers */

struct row_cursor {
    const struct ls_row_runs *runs;
    int64_t batch, run, at; /* at: which row of the run */
};

static void skip_ended_runs(struct row_cursor *c)
{
    while (c->run < c->runs->count && c->at == c->runs->run[c->run].count) {
        c->run++;
        c->at = 0;
    }
}

/* `row` of the whole problem, which is there. */
static struct row_cursor find_row(const struct ls_row_runs *runs, int64_t row)
{
    const int64_t position = row % runs->s;
    int64_t low = 0, high = runs->count - 1;

    while (low < high) { /* the last run that begins no later */
        const int64_t middle = low + (high - low + 1) / 2;

        if (runs->run[middle].position <= position)
            low = middle;
        else
            high = middle - 1;
    }
    while (runs->run[low].count == 0) low--;
    return (struct row_cursor){runs, row / runs->s, low, position - runs->run[low].position};
}

static struct row_place next_row(struct row_cursor *c)
{
    skip_ended_runs(c);
    if (c->run == c->runs->count) {
        c->batch++;
        c->run = 0;
        skip_ended_runs(c);
    }
    return (struct row_place){c->batch, c->runs->run[c->run].row + c->at++};
}

/* ---- one piece */

/* What is added from the left: bit i of `rows` is set if the sum of 2^i rows waits at level i. */
struct stack {
    float *memory;
    int64_t rows, width;
    int levels;
};

static float *level_of(const struct stack *s, int level)
{
    return s->memory + level * s->width;
}

/* Where the sum of the next 2^level rows is to be written. */
static float *next_sum(const struct stack *s, int level)
{
    return level_of(s, s->rows >> level & 1 ? s->levels : level);
}

/* It has been written. */
static void push(struct stack *s, int level)
{
    float *const sum = next_sum(s, level);
    int next = level;

    for (; s->rows >> next & 1; next++) {
        float *const left = level_of(s, next);
        const bool last = !(s->rows >> (next + 1) & 1);

        cpu_add_floats(last ? level_of(s, next + 1) : sum, left, sum, s->width);
    }
    s->rows += INT64_C(1) << level;
}

/* out = the sum of all, those that lack a right half as they are. */
static void pop_all(float *const out[], const struct stack *s, const struct node_sums *sums)
{
    int level = 0;

    while (!(s->rows >> level & 1)) level++;
    float *sum = level_of(s, level++);
    for (; s->rows >> level > 0; level++) {
        if (!(s->rows >> level & 1)) continue;
        cpu_add_floats(sum, level_of(s, level), sum, s->width);
    }
    for (int i = 0; i < sums->vectors; i++)
        memcpy(out[i], sum + i * sums->e, (size_t)sums->e * sizeof *sum);
}

struct piece {
    int64_t first, end; /* rows of the whole problem */
    float *out[MOST_VECTORS];
};

static void sum_piece(const struct piece *piece, const struct node_sums *sums,
                      const struct workspace *w)
{
    const int64_t width = sums->vectors * sums->e;
    struct stack stack = {.width = width, .levels = w->levels};
    struct row_cursor cursor = find_row(sums->order->runs, piece->first);
    int64_t left = piece->end - piece->first;

    stack.memory = w->stack + omp_get_thread_num() * (w->levels + 1) * width;
    while (left > 0) {
        const int n = left >= ROW_GROUP ? ROW_GROUP : 1, level = n == 1 ? 0 : LEAST_LEVEL;
        struct row_place row[ROW_GROUP];

        for (int i = 0; i < n; i++) row[i] = next_row(&cursor);
        sums->add_group(next_sum(&stack, level), sums->what, row, n);
        push(&stack, level);
        left -= n;
    }
    pop_all(piece->out, &stack, sums);
}

/* ---- pieces of nodes */

struct cutting {
    int level;      /* pieces are no larger */
    int64_t pieces; /* of all nodes */
    int64_t all_rows;
};

static int64_t pieces_of(const struct ls_row_node *node, const struct cutting *c)
{
    const int64_t rows = ls_row_node_end(node, c->all_rows) - ls_row_node_first(node);

    return ((rows - 1) >> c->level) + 1;
}

static struct cutting cut_nodes(const struct node_sums *sums)
{
    const int64_t rows = sums->b * sums->s_loc;
    struct cutting c = {.level = LEAST_LEVEL, .all_rows = sums->b * sums->order->runs->s};

    while (rows >> c.level > PIECES * sums->threads) c.level++;
    for (int64_t i = 0; i < sums->order->count; i++)
        c.pieces += pieces_of(&sums->order->node[i], &c);
    return c;
}

/* A node and its first piece; `waiting` counts pieces that go to scratch. */
struct node_cursor {
    int64_t node, first, waiting;
};

/* To the node that has piece number i, which is not before the one it stands at. */
static void seek(struct node_cursor *at, int64_t i, const struct node_sums *sums,
                 const struct cutting *c)
{
    for (;;) {
        const int64_t n = pieces_of(&sums->order->node[at->node], c);

        if (i < at->first + n) return;
        at->waiting += n > 1 ? n : 0;
        at->first += n;
        at->node++;
    }
}

static struct piece piece_of(const struct node_cursor *at, int64_t i, const struct node_sums *sums,
                             const struct cutting *c, const struct workspace *w)
{
    const struct ls_row_node *const node = &sums->order->node[at->node];
    const int64_t end = ls_row_node_end(node, c->all_rows);
    const bool whole = pieces_of(node, c) == 1;
    struct piece p = {.first = ls_row_node_first(node) + ((i - at->first) << c->level), .end = end};

    if (!whole && end - p.first > INT64_C(1) << c->level)
        p.end = p.first + (INT64_C(1) << c->level);
    for (int v = 0; v < sums->vectors; v++)
        p.out[v] = whole ? sums->out[v] + node->slot * sums->e
                         : w->piece + ((at->waiting + i - at->first) * sums->vectors + v) * sums->e;
    return p;
}

/* out [n] = `count` vectors, so far apart, added by the tree. */
static void add_pieces(float *out, const float *piece, int64_t apart, int64_t count, int64_t n)
{
    float right[COLUMNS];
    int64_t half = 1;

    if (count == 1) {
        memcpy(out, piece, (size_t)n * sizeof *out);
        return;
    }
    while (2 * half < count) half *= 2;
    add_pieces(out, piece, apart, half, n);
    add_pieces(right, piece + half * apart, apart, count - half, n);
    cpu_add_floats(out, out, right, n);
}

/* Columns [first, first + COLUMNS) of the sums of all nodes that have several pieces. */
static void finish_columns(int64_t first, const struct node_sums *sums, const struct cutting *c,
                           const struct workspace *w)
{
    const int64_t blocks = (sums->e + COLUMNS - 1) / COLUMNS, vector = first / blocks;
    const int64_t column = first % blocks * COLUMNS;
    const int64_t n = sums->e - column < COLUMNS ? sums->e - column : COLUMNS;
    const float *piece = w->piece + vector * sums->e + column;
    const int64_t apart = sums->vectors * sums->e;

    for (int64_t i = 0; i < sums->order->count; i++) {
        const struct ls_row_node *const node = &sums->order->node[i];
        const int64_t count = pieces_of(node, c);

        if (count == 1) continue;
        add_pieces(sums->out[vector] + node->slot * sums->e + column, piece, apart, count, n);
        piece += count * apart;
    }
}

void cpu_node_sums(const struct node_sums *sums)
{
    const struct cutting cutting = cut_nodes(sums);
    const int64_t blocks = (sums->e + COLUMNS - 1) / COLUMNS;
    struct workspace w;

    lay_out(&w, sums->scratch, sums->b * sums->s_loc, sums->vectors * sums->e, sums->threads);
#pragma omp parallel num_threads(sums->threads)
    {
        const fenv_t callers = cpu_float_mode_enter();
        struct node_cursor at = {0};

#pragma omp for schedule(monotonic : dynamic)
        for (int64_t i = 0; i < cutting.pieces; i++) {
            seek(&at, i, sums, &cutting);
            const struct piece piece = piece_of(&at, i, sums, &cutting, &w);

            sum_piece(&piece, sums, &w);
        }
#pragma omp for
        for (int64_t i = 0; i < sums->vectors * blocks; i++) finish_columns(i, sums, &cutting, &w);
        fesetenv(&callers);
    }
}
