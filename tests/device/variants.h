/* The devices that tests of this folder run on, and how a test is declared for each of them. */
#ifndef TESTS_DEVICE_VARIANTS_H
#define TESTS_DEVICE_VARIANTS_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"

struct variant {
    const char *name;    /* as tests end in it */
    const char *device;  /* as ls_device_open knows it */
    char *environment;   /* that makes the variant of it, "NAME=VALUE"; NULL: as it comes */
    bool rows_keep_bits; /* whatever rows are computed with them */
};

static const struct variant variants[] = {
    {"cpu", "cpu", NULL, false},
    {"generic", "cpu", "LONGSPAN_ISA=generic", false},
    {"avx2", "cpu", "LONGSPAN_ISA=avx2", false},
    {"avx512", "cpu", "LONGSPAN_ISA=avx512", true},
    {"avx512bf16", "cpu", "LONGSPAN_ISA=avx512bf16", true},
    {"amx", "cpu", "LONGSPAN_ISA=amx", true},
};

/* Under test; a test that is declared for none has the first. */
static const struct variant *variant = variants;

/* Declares tests of a suite; `body` is a void function of no arguments. Each is a process, as
 * oneDNN can be limited once a process only. A device that comes in one variant is a row of the
 * table and a line of TEST_EACH_DEVICE and TEST_EACH_VARIANT. */
#define TEST_VARIANT(suite, body, name)                                                            \
    Test(suite, body##_##name)                                                                     \
    {                                                                                              \
        use_variant(#name);                                                                        \
        body();                                                                                    \
    }

#define TEST_EACH_DEVICE(suite, body) TEST_VARIANT(suite, body, cpu)

#define TEST_EACH_VARIANT(suite, body) TEST_EACH_ISA(suite, body)

/* Of the CPU alone. */
#define TEST_EACH_ISA(suite, body)                                                                 \
    TEST_VARIANT(suite, body, generic)                                                             \
    TEST_VARIANT(suite, body, avx2)                                                                \
    TEST_VARIANT(suite, body, avx512)                                                              \
    TEST_VARIANT(suite, body, avx512bf16)                                                          \
    TEST_VARIANT(suite, body, amx)

/* Left open, as many as are asked for: a test is a process. */
static inline struct ls_device *open_device(int threads)
{
    struct ls_device *device;

    cr_assert_eq(ls_device_open(&device, variant->device, 0, threads), LS_OK, "%s", ls_message());
    return device;
}

/* The test is skipped where this build has no such device, or this machine. */
static inline void use_variant(const char *name)
{
    struct ls_device *device;

    while (strcmp(variant->name, name) != 0) variant++;
    if (variant->environment) putenv(variant->environment);
    const ls_status status = ls_device_open(&device, variant->device, 0, 1);
    if (status == LS_EVALUE) cr_skip_test("%s", ls_message());
    cr_assert_eq(status, LS_OK, "%s", ls_message());
    ls_device_close(device);
}

/* The test is skipped where the device has not filled in this table. */
static inline void need_family(const void *table, const char *what)
{
    if (!table) cr_skip_test("device %s cannot do this: %s", variant->device, what);
}

#endif
