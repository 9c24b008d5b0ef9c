/* What callers may do with the memory of their tensors; what they may not is refused on every rank
 * before anything is written. */
#include "harness.h"

#include "base/random.h"
#include "longspan/attention.h"

MPI_SUITE(operands)

#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { B = 2, H = 4, H_KV = 2, S = 2100, D = 16 }; /* rows for 8 ranks */
enum { DQ, DK, DV, DSINKS, DDISTANCES, DBIAS, Q, K, V, O, LSE, DO, O_LO, DLSE, OPERANDS };

static const char *const names[OPERANDS] = {"dq",    "dk", "dv",   "dsinks", "ddistance_bias",
                                            "dbias", "q",  "k",    "v",      "o",
                                            "lse",   "do", "o_lo", "dlse"};
static const float sinks[H] = {0.5f, -1, 0, 2}, distances[H * 3] = {1};
static float biases[S * S];

/* ---- the tensors, each in a place of its own of one piece of memory, dbias behind the others */

static struct ls_attention_plan *plan;
static int64_t rows, place, floats; /* of this rank; floats of one tensor, of all */
static float *memory;
static struct ls_tensor own[OPERANDS];

static void view(int which, int ndim, const int64_t *dim)
{
    own[which] = ls_tensor_view(memory + which * place, LS_F32, ndim, dim);
}

/* Filled with anything. */
static void create(void)
{
    const struct ls_attention_shape shape = {B, H, H_KV, S, S, D, LS_F32, 0};
    struct ls_attention_options options = LS_ATTENTION_OPTIONS;

    options.backward = true;
    options.sinks = sinks;
    options.distance_bias = distances;
    options.bias = biases;
    options.distances = 3;
    MPI_CHECK_OK(ls_attention_plan_create(&plan, world, &shape, &options));
    const struct ls_layout layout = ls_attention_plan_query_layout(plan);
    rows = ls_layout_part_rows(&layout, rank);
    place = B * rows * H * D;
    floats = OPERANDS * place + rows * S;
    memory = malloc((size_t)floats * sizeof *memory);
    memset(memory, 0x3f, (size_t)floats * sizeof *memory);
    ls_random_normal(memory, 1, (uint32_t)rank, 0, OPERANDS * place);

    const int64_t q[] = {B, rows, H, D}, k[] = {B, rows, H_KV, D}, lse[] = {B, H, rows},
                  h[] = {H, 3}, dbias[] = {1, 1, rows, S};
    for (int i = 0; i < OPERANDS; i++) view(i, 4, q);
    view(K, 4, k);
    view(V, 4, k);
    view(DK, 4, k);
    view(DV, 4, k);
    view(LSE, 3, lse);
    view(DLSE, 3, lse);
    view(DSINKS, 1, h);
    view(DDISTANCES, 2, h);
    view(DBIAS, 4, dbias);
    own[DBIAS].data = memory + OPERANDS * place;
}

static void destroy(void)
{
    ls_attention_plan_destroy(plan);
    free(memory);
}

/* ---- the calls */

static ls_status forward(struct ls_tensor *const t[OPERANDS])
{
    return ls_attention_forward_residual(t[O], t[O_LO], t[LSE], plan, t[Q], t[K], t[V], NULL);
}

static ls_status backward(struct ls_tensor *const t[OPERANDS])
{
    return ls_attention_backward(
        &(struct ls_attention_gradients){t[DQ], t[DK], t[DV], t[DSINKS], t[DDISTANCES], t[DBIAS]},
        plan, &(struct ls_attention_saved){t[Q], t[K], t[V], t[O], t[LSE], t[DO], t[O_LO], t[DLSE]},
        NULL);
}

/* Operands as messages name them, those that are written first. */
static const struct call {
    ls_status (*run)(struct ls_tensor *const t[OPERANDS]);
    int outputs, count;
    int operand[OPERANDS];
} calls[] = {
    {forward, 3, 6, {O, O_LO, LSE, Q, K, V}},
    {backward,
     6,
     OPERANDS,
     {DQ, DK, DV, DSINKS, DDISTANCES, DBIAS, Q, K, V, O, LSE, DO, O_LO, DLSE}},
};

/* A call with one tensor replaced on the last rank; NULL: by none. */
static void check_refused(const struct call *call, int which, struct ls_tensor *bad,
                          const char *says)
{
    struct ls_tensor *t[OPERANDS];
    const size_t bytes = (size_t)floats * sizeof *memory;
    float *const before = malloc(bytes);

    for (int i = 0; i < OPERANDS; i++) t[i] = rank == size - 1 && i == which ? bad : &own[i];
    memcpy(before, memory, bytes);
    check_failure(call->run(t), LS_EVALUE, says, says);
    MPI_CHECK(memcmp(before, memory, bytes) == 0, "%s: something was written", says);
    free(before);
}

MPI_TEST(operands, none_may_be_missing)
{
    create();
    for (size_t c = 0; c < LENGTH(calls); c++) {
        for (int i = 0; i < calls[c].count; i++) {
            const int which = calls[c].operand[i];
            struct ls_tensor bad = own[which];
            char says[64];

            bad.data = NULL;
            snprintf(says, sizeof says, "%s has no memory", names[which]);
            check_refused(&calls[c], which, &bad, says);
            if (which == O_LO || which == DLSE || which == DSINKS || which == DDISTANCES ||
                which == DBIAS)
                continue; /* may be left out */
            snprintf(says, sizeof says, "%s is missing", names[which]);
            check_refused(&calls[c], which, NULL, says);
        }
    }
    destroy();
}

MPI_TEST(operands, what_is_written_overlaps_nothing)
{
    create();
    for (size_t c = 0; c < LENGTH(calls); c++) {
        const int *const operand = calls[c].operand;

        for (int i = 0; i < calls[c].outputs; i++) {
            struct ls_tensor bad = own[operand[i]];
            char says[64];

            for (int j = 0; j < calls[c].count; j++) {
                if (j == i) continue;
                bad.data = own[operand[j]].data;
                snprintf(says, sizeof says, "%s and %s overlap", names[operand[i < j ? i : j]],
                         names[operand[i < j ? j : i]]);
                check_refused(&calls[c], operand[i], &bad, says);
            }
            if (bad.ndim == 1) continue;
            bad = own[operand[i]];
            bad.stride[bad.ndim - 2]--;
            snprintf(says, sizeof says, "rows of %s overlap", names[operand[i]]);
            check_refused(&calls[c], operand[i], &bad, says);
            bad.stride[bad.ndim - 2] = 0;
            check_refused(&calls[c], operand[i], &bad, says);
        }
    }
    destroy();
}

/* Views into one buffer [b, rows, h + 2 h_kv, d] with what the tensors had. */
static void pack(struct ls_tensor *t[OPERANDS], struct ls_tensor packed[3], float *buffer,
                 const int which[3])
{
    const int64_t step = (H + 2 * H_KV) * D, first[] = {0, H * D, (H + H_KV) * D};

    for (int i = 0; i < 3; i++) {
        const struct ls_tensor *from = &own[which[i]];

        packed[i] = *from;
        packed[i].data = buffer + first[i];
        packed[i].stride[0] = rows * step;
        packed[i].stride[1] = step;
        for (int64_t r = 0; r < B * rows; r++)
            memcpy((float *)packed[i].data + r * step, (float *)from->data + r * from->stride[1],
                   (size_t)from->stride[1] * sizeof(float));
        t[which[i]] = &packed[i];
    }
}

static bool same_rows(const struct ls_tensor *packed, const struct ls_tensor *plain)
{
    bool same = true;

    for (int64_t r = 0; r < B * rows; r++)
        same &= memcmp((float *)packed->data + r * packed->stride[1],
                       (float *)plain->data + r * plain->stride[1],
                       (size_t)plain->stride[1] * sizeof(float)) == 0;
    return same;
}

MPI_TEST(operands, may_be_views_of_one_packed_buffer)
{
    struct ls_tensor *plain[OPERANDS], *t[OPERANDS], input[3], output[3];
    float *buffer[2];

    create();
    for (int i = 0; i < OPERANDS; i++) plain[i] = t[i] = &own[i];
    for (int i = 0; i < 2; i++)
        buffer[i] = malloc((size_t)(B * rows * (H + 2 * H_KV) * D) * sizeof(float));
    pack(t, input, buffer[0], (const int[]){Q, K, V});
    pack(t, output, buffer[1], (const int[]){DQ, DK, DV});
    MPI_CHECK_OK(forward(t));
    MPI_CHECK_OK(backward(t));
    MPI_CHECK_OK(forward(plain));
    MPI_CHECK_OK(backward(plain));
    for (int i = 0; i < 3; i++)
        MPI_CHECK(same_rows(&output[i], &own[DQ + i]), "%s differs", names[DQ + i]);
    for (int i = 0; i < 2; i++) free(buffer[i]);
    destroy();
}

MPI_TEST(operands, inputs_may_share_rows)
{
    struct ls_tensor *t[OPERANDS], k;

    create();
    for (int i = 0; i < OPERANDS; i++) t[i] = &own[i];
    k = own[K];
    k.stride[0] = k.stride[2] = 0; /* one head of one batch for all */
    t[K] = t[V] = &k;
    t[DO] = t[Q];
    MPI_CHECK_OK(forward(t));
    MPI_CHECK_OK(backward(t));
    destroy();
}
