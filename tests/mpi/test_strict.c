/* Strict mode: the bits of one rank on any number of ranks. Every rank also computes the whole
 * alone, with two threads, and compares its rows. */
#include "attention.h"

#include <xmmintrin.h>

#include "base/cpu.h"

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

/* With tails and without, few rows, a group, more ranks than leaves, so few rows that they have a
 * kernel of their own, as few if a rank has but one of the heads, no keys. */
static const struct ls_attention_shape shapes[] = {
    {.b = 1, .h = 2, .h_kv = 1, .s_q = 1030, .s_k = 1500, .d = 40},
    {.b = 2, .h = 2, .h_kv = 2, .s_q = 512, .s_k = 1024, .d = 64, .d_v = 80},
    {.b = 1, .h = 4, .h_kv = 2, .s_q = 300, .s_k = 2900, .d = 17},
    {.b = 1, .h = 3, .h_kv = 1, .s_q = 70, .s_k = 700, .d = 128},
    {.b = 1, .h = 6, .h_kv = 2, .s_q = 2, .s_k = 2900, .d = 64, .d_v = 40},
    {.b = 1, .h = 3, .h_kv = 1, .s_q = 5, .s_k = 1100, .d = 48},
    {.b = 1, .h = 1, .h_kv = 1, .s_q = 5, .s_k = 0, .d = 16},
    {.b = 2, .h = 4, .h_kv = 2, .s_q = 300, .s_k = 1500, .d = 40, .d_v = 24, .kv_type = LS_I8},
    {.b = 1, .h = 6, .h_kv = 2, .s_q = 2, .s_k = 2900, .d = 64, .kv_type = LS_E4M3},
};

/* Every method against one rank, in two of the four layouts: which, turns with the problem. */
static void check_problem(int number, ls_dtype type)
{
    const struct ls_attention_shape *shape = &shapes[number % LENGTH(shapes)];
    struct job alone = {.shape = *shape, .options = LS_ATTENTION_OPTIONS};
    struct ls_comm *self;
    float mean[2 * 2 * 64];

    draw_mean(mean, LENGTH(mean));
    if (ls_keys_are_quantized(shape)) alone.mean = mean;
    alone.shape.type = type;
    alone.options.strict = true;
    alone.options.causal = number % 2;
    MPI_CHECK_OK(ls_comm_create_self(&self));
    job_run_alone(&alone, self, 31);
    for (int i = 0; i < ls_method_count() * 2; i++) {
        struct job job = {.shape = alone.shape, .options = alone.options, .mean = alone.mean};

        memcpy(job.whole, alone.whole, sizeof job.whole);
        job.options.layout =
            (ls_layout_kind)(LS_LAYOUT_CONTIGUOUS + ((i + number) / 2 + 2 * i) % 4);
        job.options.threads = 1 + i % 2;
        if (!job_take_method(&job, i / 2, size)) continue;
        job_create_plan(&job, world);
        job_run(&job);
        MPI_CHECK(same_bits(&job, &alone), "%s, %s", job_text(&job),
                  ls_attention_kernel_name(job.plan->problem.device,
                                           ls_problem_kernel_shape(&job.plan->problem, 0)));
        job_destroy_plan(&job);
    }
    job_destroy(&alone);
    ls_comm_destroy(self);
}

static void any_ranks_have_the_bits_of_one(const char *isa_name)
{
    static const ls_dtype types[] = {LS_BF16, LS_F32, LS_F16};
    ls_isa isa;

    if (ls_isa_choose(&isa, isa_name, ls_cpu_isa_best()) != LS_OK)
        MPI_SKIP("this CPU has no %s", isa_name);
    setenv("LONGSPAN_ISA", isa_name, 1);
    for (int i = 0; i < LENGTH(shapes) + 3; i++) check_problem(i, types[i % LENGTH(types)]);
}

MPI_SUITE_APART(strict);

Test(strict, generic)
{
    any_ranks_have_the_bits_of_one("generic");
}

Test(strict, avx2)
{
    any_ranks_have_the_bits_of_one("avx2");
}

/* oneDNN limited to AVX2 computes by another implementation. */
Test(strict, avx2_in_onednn)
{
    setenv("DNNL_MAX_CPU_ISA", "AVX2", 1);
    any_ranks_have_the_bits_of_one("avx2");
}

Test(strict, avx512)
{
    any_ranks_have_the_bits_of_one("avx512");
}

Test(strict, avx512bf16)
{
    any_ranks_have_the_bits_of_one("avx512bf16");
}

Test(strict, amx)
{
    any_ranks_have_the_bits_of_one("amx");
}

/* The caller's rounding mode and flushing of subnormals are the caller's alone. */
Test(strict, float_mode_of_the_caller)
{
    const struct ls_attention_shape shape = {
        .b = 1, .h = 1, .h_kv = 1, .s_q = 300, .s_k = 600, .d = 32};
    const unsigned mode = _mm_getcsr(), odd = (mode & ~0x6000u) | 0x4000u | 0x8040u;
    struct job job = {.shape = shape, .options = LS_ATTENTION_OPTIONS}, other;
    struct ls_comm *self;

    job.shape.type = LS_F32;
    job.options.strict = true;
    other = job;
    MPI_CHECK_OK(ls_comm_create_self(&self));
    job_run_alone(&job, self, 31);
    other.options.method = "local";
    other.options.threads = 1; /* the caller's, whose mode it is */
    memcpy(other.whole, job.whole, sizeof other.whole);
    job_create_plan(&other, self);
    job_load(&other);
    _mm_setcsr(odd);
    const ls_status status = job_forward(&other);
    const bool kept = (_mm_getcsr() & ~0x3fu) == (odd & ~0x3fu);
    _mm_setcsr(mode);
    MPI_CHECK(status == LS_OK && kept, "the mode is the caller's again");
    for (int64_t i = 0; i < shape.s_q; i++)
        MPI_CHECK(rows_equal(&job, i, &other, i), "row %ld", (long)i);
    job_destroy_plan(&other);
    job_destroy(&job);
    ls_comm_destroy(self);
}

/* Ranks with different instruction sets are refused, each by its name. */
Test(strict, ranks_must_compute_alike)
{
    struct job job = {.shape = shapes[1], .options = LS_ATTENTION_OPTIONS};
    struct ls_attention_plan *plan;
    ls_isa isa;

    if (size == 1 || ls_isa_choose(&isa, "avx2", ls_cpu_isa_best()) != LS_OK)
        MPI_SKIP("it takes two ranks and AVX2");
    setenv("LONGSPAN_ISA", rank == size - 1 ? "generic" : "avx2", 1);
    job.shape.type = LS_F32;
    job.options.strict = true;
    MPI_CHECK(ls_attention_plan_create(&plan, world, &job.shape, &job.options) == LS_EFIT, "%s",
              ls_message());
    char last[32];
    snprintf(last, sizeof last, "rank %d", size - 1);
    MPI_CHECK(strstr(ls_message(), last) && strstr(ls_message(), "generic") &&
                  strstr(ls_message(), "avx2"),
              "%s", ls_message());
    job.options.strict = false;
    MPI_CHECK_OK(ls_attention_plan_create(&plan, world, &job.shape, &job.options));
    ls_attention_plan_destroy(plan);
}
