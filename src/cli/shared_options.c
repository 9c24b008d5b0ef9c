#include "cli/shared_options.h"

#include <stdio.h>
#include <string.h>

#include "cli/values.h"

#define MOST_SECONDS 1000000
#define MOST_HEADS (1 << 20)

enum {
    KEY_JSON = 256,
    KEY_QUIET,
    KEY_THREADS,
    KEY_TIMEOUT,
    KEY_PROGRESS,
    KEY_TRACE,
    KEY_INPUT,
    KEY_Q,
    KEY_K,
    KEY_V,
    KEY_NAMES,
    KEY_PACKED,
    KEY_HEADS,
    KEY_KV_HEADS,
    KEY_RANDOM,
    KEY_ORDER,
    KEY_DTYPE,
    KEY_KV_DTYPE,
    KEY_ALLOW_NONFINITE,
    KEY_STRICT,
    KEY_SCALE,
    KEY_LAYOUT,
    KEY_NODE_SIZE,
    KEY_GRID,
    KEY_PLACEMENT,
};

static const struct {
    unsigned of; /* 0: everybody's */
    struct argp_option option;
} shared_options[] = {
    {CLI_TAKES_INPUT,
     {"input", KEY_INPUT, "FILE", 0, "A .safetensors file with q, k and v", CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT, {"q", KEY_Q, "FILE", 0, "Queries, .npy or .safetensors", CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT, {"k", KEY_K, "FILE", 0, "Keys", CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT, {"v", KEY_V, "FILE", 0, "Values", CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"names", KEY_NAMES, "NAMES", 0,
      "What the files call their tensors, as in q=query,k=key: q, k, v, qkv, do and those of "
      "masks and biases; of results o, lse, dq, dk, dv, dsinks, ddistance_bias and dbias",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"packed", KEY_PACKED, "HOW", 0,
      "q, k and v lie in one tensor qkv: s3hd (all heads of q, then of k, of v), sh3d (q, k, v of "
      "each head) or sgd (of each head of k its queries, k and v)",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT, {"heads", KEY_HEADS, "H", 0, "Heads of q, of --packed", CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"kv-heads", KEY_KV_HEADS, "K", 0, "Heads of k and v, of --packed; default H",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"random", KEY_RANDOM, "B,H,HKV,SQ,SK,D[/DV][,SEED]", 0,
      "Standard normal numbers, the same for any number of ranks; seed 0 unless given",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"order", KEY_ORDER, "ORDER", 0,
      "Order of the files' dimensions, bshd or bhsd (batch, sequence, heads, head dim); without it "
      "the one that their shapes fit",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_INPUT,
     {"dtype", KEY_DTYPE, "TYPE", 0,
      "Compute in bf16, f16 or f32, rounding the input once; default the files' own, bf16 for "
      "--random",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_LAYOUT,
     {"kv-dtype", KEY_KV_DTYPE, "TYPE", 0,
      "Keep and send keys and values in 8 bits: i8, with a scale for each row and the mean of keys "
      "taken out first, or e4m3, with a scale for each head; forward alone",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_ELEMENTS,
     {"allow-nonfinite", KEY_ALLOW_NONFINITE, NULL, 0, "Accept NaN and infinity in the input",
      CLI_SECTION_INPUT}},
    {CLI_TAKES_MASK,
     {"causal", CLI_KEY_CAUSAL, NULL, 0,
      "Query i sees key j iff j <= i', its place among the keys; i' = i + SK - SQ",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"align", CLI_KEY_ALIGN, "SIDE", 0,
      "Whether the last query stands at the last key (end, the default) or i' = i (start)",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"query-offset", CLI_KEY_QUERY_OFFSET, "N", 0, "i' = i + N", CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"window", CLI_KEY_WINDOW, "L,R", 0, "Query i sees keys i' - L to i' + R; inf is no limit",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"documents", CLI_KEY_DOCUMENTS, "LIST|FILE", 0,
      "A query sees its own document; their lengths added up, from 0 to SK, or a .npy file of "
      "int64",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"cu-seqlens-q", CLI_KEY_CU_SEQLENS_Q, "LIST|FILE", 0,
      "Documents of queries, each of which sees the one of keys of its number and is aligned with "
      "it; [n + 1], or [b, n + 1] for each entry of the batch",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"cu-seqlens-k", CLI_KEY_CU_SEQLENS_K, "LIST|FILE", 0, "Documents of keys for --cu-seqlens-q",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"q-lengths", CLI_KEY_Q_LENGTHS, "LIST|FILE", 0,
      "Queries of each entry of the batch that are there, the others are padding",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"k-lengths", CLI_KEY_K_LENGTHS, "LIST|FILE", 0, "The same of keys", CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"ignore", CLI_KEY_IGNORE, "NAME", 0,
      "Leave out a tensor of --input that would be used without an option: q_lengths, k_lengths, "
      "cu_seqlens_q, cu_seqlens_k, sinks, distance_bias or bias; may be given several times",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"padding", CLI_KEY_PADDING, "SIDE", 0,
      "Where padding is: right (behind what is there, the default) or left",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"slices", CLI_KEY_SLICES, "LIST|FILE", 0,
      "Of all that only pairs of these rectangles are seen: q0,q1,k0,k1,TYPE of each, TYPE 0 full, "
      "1 "
      "causal, 2 inverse causal, 3 both; or a .npy file of int64 [n, 5]",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"mask", CLI_KEY_PAIRS, "FILE", 0,
      "Of these pairs only those are seen that FILE marks: bool [SQ, SK] or [B or 1, H or 1, SQ, "
      "SK], or bits, uint8 [.., ceil(SK / 8)], lowest first; .npy, or tensor mask of .safetensors",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"prefix", CLI_KEY_PREFIX, "N", 0, "Everybody sees the first N keys",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"alibi", CLI_KEY_ALIBI, "LIST", OPTION_ARG_OPTIONAL,
      "Take slope |i' - j| off the logits, by the standard slopes of the heads or those of a list, "
      ".npy, or tensor alibi of .safetensors",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"soft-cap", CLI_KEY_SOFT_CAP, "X", 0, "Logits x become X tanh(x / X)",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"sinks", CLI_KEY_SINKS, "LIST|FILE", 0,
      "One more logit of each head in the denominator; or .npy, or tensor sinks of .safetensors",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"distance-bias", CLI_KEY_DISTANCE_BIAS, "FILE", 0,
      "Add to each logit the bias of its distance j - i': [H, n], n odd, that of distance 0 in the "
      "middle, the outer ones also of those beyond; .npy, or tensor distance_bias of .safetensors",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"bias", CLI_KEY_BIAS, "FILE", 0,
      "Add to the logit of each pair its own bias, -inf: not seen; [SQ, SK] or [B or 1, H or 1, "
      "SQ, "
      "SK]; .npy, or tensor bias of .safetensors",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_MASK,
     {"dropout", CLI_KEY_DROPOUT, "P[,SEED]", 0,
      "Drop this part of the probabilities, the same ones for any number of ranks; seed 0 unless "
      "given",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_SCALE,
     {"scale", KEY_SCALE, "X", 0, "Factor of q.k; default 1/sqrt(D)", CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_STRICT,
     {"strict", KEY_STRICT, NULL, 0,
      "The same bits for any number of ranks, threads, method and layout",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_LAYOUT,
     {"layout", KEY_LAYOUT, "NAME", 0,
      "Which positions a rank holds: contiguous, zigzag, striped or balanced (by the work under "
      "the mask); default auto, the best for method and mask",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_LAYOUT,
     {"node-size", KEY_NODE_SIZE, "N", 0,
      "Ranks of a node, N after each other, for methods that care; default those that share one",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_LAYOUT,
     {"grid", KEY_GRID, "UxR", 0,
      "Of the method usp: U ranks swap the sequence for heads, R make a ring",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_LAYOUT,
     {"placement", KEY_PLACEMENT, "WHICH", 0,
      "Of the method usp: ranks that follow each other swap heads (heads) or are a ring (ring)",
      CLI_SECTION_COMPUTATION}},
    {CLI_TAKES_THREADS,
     {"threads", KEY_THREADS, "N", 0, "Threads of each rank; default what OpenMP would use",
      CLI_SECTION_COMMON}},
    {CLI_TAKES_PROGRESS,
     {"progress", KEY_PROGRESS, "WHEN", 0,
      "Draw a progress bar: auto (on a terminal, after two seconds), always or never",
      CLI_SECTION_COMMON}},
    {CLI_TAKES_TRACE,
     {"trace", KEY_TRACE, "FILE", CLI_WRITES,
      "Write what every thread of every rank did, and when, for chrome://tracing or Perfetto "
      "(-: to standard output)",
      CLI_SECTION_COMMON}},
    {0,
     {"timeout", KEY_TIMEOUT, "SECONDS", 0,
      "Give up, with status 3, when a rank that is waited for is not heard of for so long; 0, the "
      "default: never",
      CLI_SECTION_COMMON}},
    {0,
     {"json", KEY_JSON, "FILE", CLI_WRITES,
      "Write the results as a JSON object (-: to standard output, the text to standard error)",
      CLI_SECTION_COMMON}},
    {0, {"quiet", KEY_QUIET, NULL, 0, "Print no text", CLI_SECTION_COMMON}},
    {0, {"help", CLI_KEY_HELP, NULL, 0, "Print this help", CLI_SECTION_COMMON}},
};

#define SHARED_OPTIONS ((int)(sizeof(shared_options) / sizeof(shared_options[0])))

const struct argp_option *cli_shared_option(unsigned *of, int i)
{
    if (i >= SHARED_OPTIONS) return NULL;
    *of = shared_options[i].of;
    return &shared_options[i].option;
}

/* ---- their values */

static ls_status set_threads(struct cli_options *o, const char *value)
{
    int64_t threads;

    LS_TRY(cli_value_integer(&threads, "--threads", value, 1, LS_MOST_THREADS));
    o->threads = (int)threads;
    return LS_OK;
}

static ls_status set_timeout(struct cli_options *o, const char *value)
{
    int64_t seconds;

    LS_TRY(cli_value_integer(&seconds, "--timeout", value, 0, MOST_SECONDS));
    o->timeout = (int)seconds;
    return LS_OK;
}

static ls_status set_progress(struct cli_options *o, const char *value)
{
    static const char *const names[] = {"auto", "always", "never"};
    int i;

    LS_TRY(cli_value_name(&i, "--progress", value, names, 3));
    o->progress = (cli_progress_mode)i;
    return LS_OK;
}

static ls_status set_order(struct cli_input_options *o, const char *value)
{
    const char *const names[] = {ls_order_name(LS_ORDER_BSHD), ls_order_name(LS_ORDER_BHSD)};
    int i;

    LS_TRY(cli_value_name(&i, "--order", value, names, 2));
    o->has_order = true;
    o->order = (ls_order)i;
    return LS_OK;
}

static ls_status set_kv_dtype(ls_dtype *out, const char *value)
{
    const ls_dtype types[] = {LS_I8, LS_E4M3};
    const char *const names[] = {ls_dtype_name(types[0]), ls_dtype_name(types[1])};
    int i = 0;

    LS_TRY(cli_value_name(&i, "--kv-dtype", value, names, 2));
    *out = types[i];
    return LS_OK;
}

static ls_status set_scale(struct ls_attention_options *o, const char *value)
{
    LS_TRY(cli_value_float(&o->scale, "--scale", value));
    o->has_scale = true;
    return LS_OK;
}

static ls_status set_layout(struct ls_attention_options *o, const char *value)
{
    const char *names[LS_LAYOUT_BALANCED + 1];
    int i;

    for (i = LS_LAYOUT_AUTO; i <= LS_LAYOUT_BALANCED; i++)
        names[i] = ls_layout_name((ls_layout_kind)i);
    LS_TRY(cli_value_name(&i, "--layout", value, names, LS_LAYOUT_BALANCED + 1));
    o->layout = (ls_layout_kind)i;
    return LS_OK;
}

static ls_status set_node_size(struct ls_attention_options *o, const char *value)
{
    int64_t ranks;

    LS_TRY(cli_value_integer(&ranks, "--node-size", value, 1, CLI_MOST_RANKS));
    o->node_size = (int)ranks;
    return LS_OK;
}

static ls_status set_grid(struct ls_attention_options *o, const char *value)
{
    int heads, ring, used = 0;

    if (value[strspn(value, "0123456789x")] ||
        sscanf(value, "%6dx%6d%n", &heads, &ring, &used) != 2 || value[used] || heads < 1 ||
        ring < 1)
        return ls_fail(LS_EVALUE, "--grid: '%s' is no grid of ranks, like 2x4", value);
    o->grid_heads = heads;
    o->grid_ring = ring;
    return LS_OK;
}

static ls_status set_placement(struct ls_attention_options *o, const char *value)
{
    static const char *const names[] = {"heads", "ring"};
    int i;

    LS_TRY(cli_value_name(&i, "--placement", value, names, 2));
    o->ring_inside = i == 1;
    return LS_OK;
}

ls_status cli_shared_set(struct cli_options *o, int key, const char *value)
{
    if (key >= CLI_KEY_CAUSAL && key < CLI_KEY_MASK_END)
        return cli_mask_set(&o->mask, &o->attention, key, value);
    switch (key) {
    case KEY_JSON:
        o->json = value;
        return LS_OK;
    case KEY_QUIET:
        o->quiet = true;
        return LS_OK;
    case KEY_THREADS:
        return set_threads(o, value);
    case KEY_TIMEOUT:
        return set_timeout(o, value);
    case KEY_PROGRESS:
        return set_progress(o, value);
    case KEY_TRACE:
        o->trace = value;
        return LS_OK;
    case KEY_INPUT:
        o->input.input = value;
        return LS_OK;
    case KEY_Q:
    case KEY_K:
    case KEY_V:
        o->input.single[key - KEY_Q] = value;
        return LS_OK;
    case KEY_NAMES:
        return cli_names_set(&o->input.names, value);
    case KEY_PACKED:
        return cli_packed_set(&o->input.packed, value);
    case KEY_HEADS:
        return cli_value_integer(&o->input.packed.heads, "--heads", value, 1, MOST_HEADS);
    case KEY_KV_HEADS:
        return cli_value_integer(&o->input.packed.kv_heads, "--kv-heads", value, 1, MOST_HEADS);
    case KEY_RANDOM:
        return cli_random_set(&o->input.random, value);
    case KEY_ORDER:
        return set_order(&o->input, value);
    case KEY_DTYPE:
        o->input.has_dtype = true;
        return cli_value_dtype(&o->input.dtype, "--dtype", value);
    case KEY_KV_DTYPE:
        return set_kv_dtype(&o->input.kv_dtype, value);
    case KEY_ALLOW_NONFINITE:
        o->input.allow_nonfinite = true;
        return LS_OK;
    case KEY_STRICT:
        o->attention.strict = true;
        return LS_OK;
    case KEY_SCALE:
        return set_scale(&o->attention, value);
    case KEY_NODE_SIZE:
        return set_node_size(&o->attention, value);
    case KEY_GRID:
        return set_grid(&o->attention, value);
    case KEY_PLACEMENT:
        return set_placement(&o->attention, value);
    default:
        return set_layout(&o->attention, value);
    }
}
