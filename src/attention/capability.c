#include "attention/capability.h"

/* A problem that every method can do, if it can do anything on so many ranks. */
#define KEYS 16384
#define QUERIES 1024
#define RANKS 4

static const struct ls_attention_shape few_queries = {
    .b = 1, .h = 8, .h_kv = 8, .s_q = QUERIES, .s_k = KEYS, .d = 64, .type = LS_BF16};

static const struct ls_attention_options usual = {
    .size = sizeof usual, .has_window = true, .window_left = 100, .causal = true, .node_size = 2};

struct question {
    struct ls_attention_shape shape;
    struct ls_attention_options options;
};

static void ask_full(struct question *q)
{
    q->options.has_window = q->options.causal = false;
}

static void ask_causal(struct question *q)
{
    q->options.has_window = false;
}

static void ask_window(struct question *q)
{
    q->options.causal = false;
    q->options.window_right = 100;
}

static void ask_documents(struct question *q)
{
    static const int64_t lengths[] = {0, 500, KEYS};

    ask_full(q);
    q->options.documents = lengths;
    q->options.document_count = 2;
}

static void ask_contiguous(struct question *q)
{
    q->options.layout = LS_LAYOUT_CONTIGUOUS;
}

static void ask_zigzag(struct question *q)
{
    q->options.layout = LS_LAYOUT_ZIGZAG;
}

static void ask_striped(struct question *q)
{
    q->options.layout = LS_LAYOUT_STRIPED;
}

static void ask_balanced(struct question *q)
{
    q->options.layout = LS_LAYOUT_BALANCED;
}

static void ask_strict(struct question *q)
{
    q->options.strict = true;
}

static void ask_backward(struct question *q)
{
    q->options.backward = true;
}

static void ask_long(struct question *q)
{
    q->shape.s_q = KEYS;
}

static const struct capability {
    const char *name;
    void (*ask)(struct question *question);
} capabilities[] = {
    {"full", ask_full},
    {"causal", ask_causal},
    {"window", ask_window},
    {"documents", ask_documents},
    {"contiguous", ask_contiguous},
    {"zigzag", ask_zigzag},
    {"striped", ask_striped},
    {"balanced", ask_balanced},
    {"strict", ask_strict},
    {"backward", ask_backward},
    {"long", ask_long},
};

int ls_capability_count(void)
{
    return (int)(sizeof capabilities / sizeof *capabilities);
}

const char *ls_capability_name(int i)
{
    return capabilities[i].name;
}

static bool answer(const struct ls_method *method, const struct question *q, int p)
{
    struct ls_problem problem;

    if (ls_problem_init(&problem, &q->shape, &q->options, p, method->layout) != LS_OK) return false;
    const bool fits = !ls_method_misfit(method, &problem);
    ls_problem_fini(&problem);
    return fits;
}

bool ls_method_takes_ranks(const struct ls_method *method)
{
    return answer(method, &(struct question){few_queries, usual}, RANKS);
}

bool ls_method_is_capable(const struct ls_method *method, int i)
{
    struct question question = {few_queries, usual};

    capabilities[i].ask(&question);
    return answer(method, &question, ls_method_takes_ranks(method) ? RANKS : 1);
}
