/* Nothing outside of a tensor or an array is touched: all lie directly before or behind a page that
 * cannot be read. */
#include <sys/mman.h>
#include <unistd.h>

#include "../device/gradient_harness.h"

/* Moves memory against a page behind (at_end) or before it. */
static void *fence_in(void *memory, size_t bytes, bool at_end)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (bytes + page - 1) / page * page;
    char *pages = mmap(NULL, inside + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert_neq(pages, MAP_FAILED);
    cr_assert_eq(mprotect(pages + page, inside, PROT_READ | PROT_WRITE), 0);
    char *to = pages + page + (at_end ? inside - bytes : 0);
    memcpy(to, memory, bytes);
    free(memory);
    return to;
}

static void run_fenced(struct meeting m, bool at_end)
{
    m.in_place = true;
    meeting_open(&m);
    struct ls_tensor *tensors[] = {&m.q, &m.k, &m.v, &m.d_o};
    const size_t rows = (size_t)(m.shape.b * m.shape.h) * sizeof(float);
    const size_t q = rows * (size_t)m.s_q_loc, k = rows * (size_t)m.s_k_loc;
    const size_t d = (size_t)m.shape.d;

    for (int i = 0; i < LENGTH(tensors); i++)
        tensors[i]->data = fence_in(tensors[i]->data, tensor_bytes(tensors[i]), at_end);
    m.lse = fence_in(m.lse, q, at_end);
    m.delta = fence_in(m.delta, q, at_end);
    m.dq = fence_in(m.dq, q * d, at_end);
    m.dk = fence_in(m.dk, k * d, at_end);
    m.dv = fence_in(m.dv, k * d, at_end);
    meeting_run(&m);
}

static void nothing_outside_is_touched(void)
{
    static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
    static const int64_t dims[] = {1, 3, 16, 40, 96, 200, 256};
    static const struct {
        int64_t s_q, s_k;
    } lengths[] = {{1, 1}, {17, 300}, {255, 257}, {300, 31}};

    for (int i = 0; i < LENGTH(types) * LENGTH(dims); i++) {
        const int len = i % LENGTH(lengths);
        struct meeting m = {.shape = {.b = 1 + i / 2 % 2,
                                      .h = 2,
                                      .h_kv = 1 + i % 2,
                                      .s_q = lengths[len].s_q,
                                      .s_k = lengths[len].s_k,
                                      .d = dims[i / 3 % LENGTH(dims)],
                                      .type = types[i % 3]},
                            .threads = 1 + i % 2,
                            .bhsd = i / 8 % 2};

        m.rule = i / 4 % 2 ? causal_rule(m.shape.s_q, m.shape.s_k)
                           : ls_mask_rule_full(m.shape.s_q, m.shape.s_k);
        run_fenced(m, true);
        run_fenced(m, false);
    }
}

TestSuite(gradient_memory, .timeout = 600);
TEST_EACH_ISA(gradient_memory, nothing_outside_is_touched)
