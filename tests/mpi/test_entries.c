/* Entries of a batch that have lengths and documents of their own: every method, forward and
 * backward, against the oracle, whatever stands where nothing is; strict, each has the bits that it
 * has alone. */
#include "every_method.h"

MPI_SUITE(entries)

#define OPTIONS .size = sizeof(struct ls_attention_options)

enum { ENTRIES = 3, S_Q = 620, S_K = 900 };

static const int64_t q_lengths[ENTRIES] = {620, 300, 0}, k_lengths[ENTRIES] = {900, 257, 30};
static const float sinks[] = {0.5F, -1, 0.25F, 2}, slopes[] = {0.25F, 0.0625F, 0.5F, 0.125F};
static const float biases[4 * 7] = {1, 0,  -1, 2,  0.5F, 3, -2, 0, 0, 1, 2, 3,     4, 5,
                                    2, -1, 2,  -1, 2,    1, 0,  4, 3, 2, 1, -0.5F, 0, 1};
#define BIASES .distance_bias = biases, .distances = 7

/* Of all entries, and of each. */
static const int64_t q_of_all[] = {0, 200, 200, 610}, k_of_all[] = {0, 300, 500, 900};
static const int64_t q_of_each[ENTRIES][4] = {{0, 200, 200, 620}, {0, 100, 290, 300}, {0, 0, 0, 0}},
                     k_of_each[ENTRIES][4] = {{0, 300, 500, 900},
                                              {0, 40, 40, 250},
                                              {0, 10, 30, 30}},
                     documents[ENTRIES][3] = {{0, 500, 900}, {0, 20, 257}, {0, 30, 30}};
static const struct ls_slice slices[] = {{0, 400, 0, 700, LS_SLICE_CAUSAL},
                                         {100, 620, 700, 900, LS_SLICE_FULL}};

#define BY_LENGTHS .q_lengths = q_lengths, .k_lengths = k_lengths
#define PAIRS(q, k) .q_documents = (q), .documents = (k), .document_count = 3

static const struct entry_case {
    const char *name;
    struct ls_attention_options options;
} cases[] = {
    {"padded on the right", {OPTIONS, BY_LENGTHS, .causal = true, .dropout = 0.2F, BIASES}},
    {"padded on the left",
     {OPTIONS, BY_LENGTHS, .pad_left = true, .causal = true, .sinks = sinks, .alibi = slopes}},
    {"padded keys",
     {OPTIONS, .k_lengths = k_lengths, .align_start = true, .has_window = true, .window_left = 200,
      .window_right = 20, .prefix = 5}},
    {"padded queries",
     {OPTIONS, .q_lengths = q_lengths, .pad_left = true, .slices = slices,
      .slice_count = LENGTH(slices)}},
    {"documents of queries and keys",
     {OPTIONS, PAIRS(q_of_all, k_of_all), .causal = true, .alibi = slopes, .sinks = sinks}},
    {"documents of each entry, from their starts",
     {OPTIONS, PAIRS(q_of_each[0], k_of_each[0]), .documents_per_entry = true, BY_LENGTHS,
      .pad_left = true, .has_window = true, .window_left = 150, .window_right = 30,
      .align_start = true, .alibi = slopes, .prefix = 3, BIASES}},
    {"documents of each entry, at an offset",
     {OPTIONS, PAIRS(q_of_each[0], k_of_each[0]), .documents_per_entry = true,
      .has_query_offset = true, .query_offset = 4, .causal = true}},
    {"documents by place",
     {OPTIONS, .documents = documents[0], .document_count = 2, .documents_per_entry = true,
      BY_LENGTHS, .layout = LS_LAYOUT_BALANCED}},
};

static const struct ls_attention_shape shape = {ENTRIES, 4, 2, S_Q, S_K, 12, LS_F32, 7};

/* Which rows of an entry are there, as the cases have them. */
static struct ls_range present(const struct ls_attention_options *o, bool keys, int64_t entry)
{
    const int64_t *lengths = keys ? o->k_lengths : o->q_lengths, s = keys ? S_K : S_Q;

    if (!lengths) return (struct ls_range){0, s};
    return o->pad_left ? (struct ls_range){s - lengths[entry], s}
                       : (struct ls_range){0, lengths[entry]};
}

static void spoil(struct ls_tensor *t, const struct ls_attention_options *o, bool keys)
{
    for (int64_t b = 0; b < t->dim[0]; b++) {
        const struct ls_range there = present(o, keys, b);

        for (int64_t row = 0; row < t->dim[1]; row++)
            for (int64_t head = 0; head < t->dim[2]; head++)
                if (row < there.from || row >= there.to)
                    memset(row_of(t, b, row, head), 0xff, row_bytes(t));
    }
}

static void create(struct descent *g, const struct entry_case *c, bool strict)
{
    *g = (struct descent){.job = {.shape = shape, .options = c->options, .sample = 40},
                          .residual = true};
    g->job.options.strict = strict;
    descent_create_whole(g, 3);
    for (int i = 0; i < 3; i++) spoil(&g->job.whole[i], &c->options, i > 0);
    spoil(&g->whole_d_o, &c->options, false);
}

MPI_TEST(entries, see_what_is_there_of_them)
{
    for (int i = 0; i < LENGTH(cases); i++) {
        struct descent exact;

        create(&exact, &cases[i], false);
        check_every_method(&exact, cases[i].name);
        descent_destroy_whole(&exact);
    }
}

/* An entry as a batch of its own. */
static void run_alone(struct descent *alone, const struct descent *all, int64_t entry,
                      struct ls_comm *self)
{
    *alone = (struct descent){.job = {.shape = shape, .options = {OPTIONS}}, .residual = true};
    alone->job.shape.b = 1;
    alone->job.shape.s_q = q_lengths[entry];
    alone->job.shape.s_k = k_lengths[entry];
    alone->job.options.causal = alone->job.options.strict = true;
    alone->job.options.method = "local";
    descent_create_whole(alone, 3);
    for (int i = 0; i < 3; i++)
        memcpy(alone->job.whole[i].data, row_of(&all->job.whole[i], entry, 0, 0),
               (size_t)elements(&alone->job.whole[i]) * sizeof(float));
    memcpy(alone->whole_d_o.data, row_of(&all->whole_d_o, entry, 0, 0),
           (size_t)elements(&alone->whole_d_o) * sizeof(float));
    descent_create_plan(alone, self);
    descent_run(alone);
}

static bool same_rows(const struct ls_tensor *t, const struct job *job, int which,
                      const struct ls_tensor *alone, int64_t entry)
{
    for (int64_t row = 0; row < t->dim[1]; row++) {
        const int64_t position = job_position(job, which, row);

        for (int64_t head = 0; head < t->dim[2] && position < alone->dim[1]; head++)
            if (memcmp(row_of(t, entry, row, head), row_of(alone, 0, position, head),
                       row_bytes(t)) != 0)
                return false;
    }
    return true;
}

MPI_TEST(entries, have_the_bits_that_they_have_alone)
{
    const struct entry_case c = {"alone", {OPTIONS, BY_LENGTHS, .causal = true}};
    struct descent all, alone[2];
    struct ls_comm *self;

    MPI_CHECK_OK(ls_comm_create_self(&self));
    create(&all, &c, true);
    for (int entry = 0; entry < 2; entry++) run_alone(&alone[entry], &all, entry, self);
    for (int m = 0; m < ls_method_count(); m++) {
        struct descent g = all;

        if (!descent_take_method(&g, m)) continue;
        descent_create_plan(&g, world);
        descent_run(&g);
        for (int entry = 0; entry < 2; entry++) {
            const struct descent *a = &alone[entry];

            MPI_CHECK(same_rows(&g.job.o, &g.job, 0, &a->job.o, entry), "%s: o of entry %d",
                      job_text(&g.job), entry);
            for (int i = 0; i < GRADIENTS; i++)
                MPI_CHECK(same_rows(&g.gradient[i], &g.job, i, &a->gradient[i], entry),
                          "%s: %s of entry %d", job_text(&g.job), gradient_names[i], entry);
        }
        descent_destroy_plan(&g);
    }
    for (int entry = 0; entry < 2; entry++) {
        descent_destroy_plan(&alone[entry]);
        descent_destroy_whole(&alone[entry]);
    }
    descent_destroy_whole(&all);
    ls_comm_destroy(self);
}

/* The first entry is as long as there is room, so that its own rule does not tell the side. */
MPI_TEST(entries, ranks_that_disagree_are_told)
{
    static const int64_t others[ENTRIES] = {620, 300, 1};
    static const struct {
        const char *about;
        struct ls_attention_options as_most, as_last;
    } tastes[] = {
        {"side of the padding", {OPTIONS, BY_LENGTHS}, {OPTIONS, BY_LENGTHS, .pad_left = true}},
        {"query lengths",
         {OPTIONS, BY_LENGTHS},
         {OPTIONS, .q_lengths = others, .k_lengths = k_lengths}},
        {"ends at which documents are aligned",
         {OPTIONS, PAIRS(k_of_all, k_of_all)},
         {OPTIONS, PAIRS(k_of_all, k_of_all), .align_start = true}},
        {"lengths of documents of queries",
         {OPTIONS, PAIRS(q_of_all, k_of_all)},
         {OPTIONS, PAIRS(q_of_each[0], k_of_all)}},
        {"pairs of slices",
         {OPTIONS, .slices = slices, .slice_count = 1},
         {OPTIONS, .slices = slices + 1, .slice_count = 1}},
    };

    if (size == 1) MPI_SKIP("one rank cannot disagree");
    for (int i = 0; i < LENGTH(tastes); i++) {
        struct ls_attention_options options =
            rank == size - 1 ? tastes[i].as_last : tastes[i].as_most;
        struct ls_attention_shape s = shape;
        struct ls_attention_plan *plan = NULL;

        if (i == 2) s.s_q = S_K; /* as long as the keys: it is the same place for the whole */
        options.method = "ring";
        MPI_CHECK(ls_attention_plan_create(&plan, world, &s, &options) == LS_ESHAPE &&
                      strstr(ls_message(), tastes[i].about),
                  "%s: %s", tastes[i].about, ls_message());
    }
}
