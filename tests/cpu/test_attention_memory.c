/* Nothing outside of a tensor is touched, by compiled code or by what oneDNN generates: tensors lie
 * directly before or behind a page that cannot be read. */
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../device/harness.h"

/* A tensor's pages between two that cannot be touched. */
struct fence {
    char *pages;
    size_t length;
};

/* Moves t's elements against the page behind (at_end) or before them. */
static struct fence fence_in(struct ls_tensor *t, bool at_end)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = tensor_bytes(t);
    const size_t inside = (bytes + page - 1) / page * page;
    struct fence fence = {.length = inside + 2 * page};

    fence.pages = mmap(NULL, fence.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(fence.pages, MAP_FAILED);
    cr_assert_eq(mprotect(fence.pages + page, inside, PROT_READ | PROT_WRITE), 0);

    char *to = fence.pages + page + (at_end ? inside - bytes : 0);
    memcpy(to, t->data, bytes);
    free(t->data);
    t->data = to;
    return fence;
}

static const struct problem *running;

static void name_case(int signal_number)
{
    const char *name = problem_name(running);

    (void)!write(STDERR_FILENO, name, strlen(name));
    (void)!write(STDERR_FILENO, ": outside of a tensor\n", 22);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void run_fenced(struct problem p, bool at_end)
{
    struct ls_tensor *all[] = {&p.q, &p.k, &p.v, &p.o, &p.lse};
    struct fence fence[LENGTH(all)];

    p.in_place = true;
    problem_open(&p);
    running = &p;
    for (int i = 0; i < LENGTH(all); i++) fence[i] = fence_in(all[i], at_end);
    problem_run(&p);
    expect_oracle(&p, 2);
    for (int i = 0; i < LENGTH(all); i++) munmap(fence[i].pages, fence[i].length);
}

static void nothing_outside_is_touched(void)
{
    static const ls_dtype types[] = {LS_BF16, LS_F16, LS_F32};
    static const int64_t dims[] = {1, 3, 16, 40, 80, 96, 200, 256};
    static const struct {
        int64_t s_q, s_k;
    } lengths[] = {{1, 1}, {17, 300}, {255, 257}, {3, 1100}, {300, 31}};

    signal(SIGSEGV, name_case);
    signal(SIGBUS, name_case);
    for (int i = 0; i < LENGTH(types) * LENGTH(dims) * 2; i++) {
        const int len = (i + i / 6) % LENGTH(lengths);
        const struct problem p = {.shape = {.b = 1 + i / 2 % 2,
                                            .h = 3,
                                            .h_kv = i % 5 == 0 ? 3 : 1,
                                            .s_q = lengths[len].s_q,
                                            .s_k = lengths[len].s_k,
                                            .d = dims[i / 3 % LENGTH(dims)],
                                            .type = types[i % 3]},
                                  .options = {.causal = i / 4 % 2, .threads = 1 + i % 2},
                                  .bhsd = i / 8 % 2};

        run_fenced(p, true);
        run_fenced(p, false);
    }
}

TestSuite(attention_memory, .timeout = 600);
TEST_EACH_ISA(attention_memory, nothing_outside_is_touched)
