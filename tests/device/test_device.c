/* Opening a device, its memory and its queue. */
#include <criterion/criterion.h>
#include <string.h>

#include "device/rows.h"
#include "longspan/attention.h"

static void expect_refused(const char *name, int ordinal, int threads, const char *words)
{
    struct ls_device *device = NULL;

    cr_expect_eq(ls_device_open(&device, name, ordinal, threads), LS_EVALUE, "%s %d, %d threads",
                 name, ordinal, threads);
    cr_expect(strstr(ls_message(), words), "%s", ls_message());
    cr_expect_null(device);
}

Test(device, what_is_not_there_is_refused_and_what_is_there_is_named)
{
    expect_refused("tpu", 0, 1, "no device \"tpu\" in this build; there is: cpu");
    expect_refused("cpu", 1, 1, "device cpu 1: there is 1, numbered from 0");
    expect_refused("cpu", -1, 1, "device cpu -1");
    expect_refused("cpu", 0, -2, "threads is -2");
    expect_refused("cpu", 0, LS_MOST_THREADS + 1, "threads is 4097");
    ls_device_close(NULL);
}

Test(device, says_what_it_is)
{
    struct ls_device *device;

    cr_assert_eq(ls_device_open(&device, "cpu", 0, 3), LS_OK);
    cr_expect_eq(device->facts.threads, 3);
    cr_expect_str_not_empty(device->facts.isa);
    cr_expect_str_not_empty(device->facts.library);
    ls_device_close(device);
    cr_assert_eq(ls_device_open(&device, "cpu", 0, 0), LS_OK);
    cr_expect_gt(device->facts.threads, 0);
    ls_device_close(device);
}

Test(device, memory_is_on_its_ledger)
{
    const char text[] = "to the device and back";
    char back[sizeof text];
    struct ls_device *device;
    void *memory, *none;

    cr_assert_eq(ls_device_open(&device, "cpu", 0, 1), LS_OK);
    const struct ls_ledger *ledger = ls_device_ledger(device);
    const size_t before = ls_ledger_live(ledger, LS_TAG_PARAMETER);

    cr_assert_eq(ls_device_alloc(&memory, device, LS_TAG_PARAMETER, sizeof text), LS_OK);
    cr_assert_eq(ls_device_alloc(&none, device, LS_TAG_PARAMETER, 0), LS_OK);
    cr_expect_eq(ls_ledger_live(ledger, LS_TAG_PARAMETER) - before, sizeof text);
    ls_device_write(device, memory, text, sizeof text);
    ls_device_read(device, back, memory, sizeof text);
    cr_expect_str_eq(back, text);
    ls_device_free(device, memory);
    ls_device_free(device, none);
    ls_device_free(device, NULL);
    cr_expect_eq(ls_ledger_live(ledger, LS_TAG_PARAMETER), before);
    cr_expect_eq(ls_device_alloc(&memory, device, LS_TAG_PARAMETER, (size_t)1 << 62), LS_ENOMEM);
    ls_device_close(device);
}

/* The first failure is what finishing tells, once; what comes behind it is left out. */
Test(device, a_queue_keeps_the_first_failure_until_it_is_finished)
{
    float numbers[2] = {1, 2};
    const float more[2] = {10, 20};
    struct ls_device *device;
    struct ls_work work = {.tiles = 5};

    cr_assert_eq(ls_device_open(&device, "cpu", 0, 1), LS_OK);
    struct ls_queue *queue = &device->queue;

    ls_add(queue, numbers, more, 2);
    cr_expect(numbers[0] == 11 && numbers[1] == 22);
    queue->work.tiles = 3;
    ls_queue_note(queue, ls_fail(LS_EINTERNAL, "the first"));
    ls_queue_note(queue, ls_fail(LS_ENOMEM, "the second"));
    ls_add(queue, numbers, more, 2);
    cr_expect(numbers[0] == 11 && numbers[1] == 22, "done after a failure");
    cr_expect_eq(ls_queue_finish(&work, queue), LS_EINTERNAL);
    cr_expect_str_eq(ls_message(), "the first");
    cr_expect_eq(work.tiles, 8, "added to what was there");
    cr_expect_eq(ls_queue_finish(&work, queue), LS_OK);
    cr_expect_eq(work.tiles, 8);
    ls_add(queue, numbers, more, 2);
    cr_expect(numbers[0] == 21 && numbers[1] == 42);
    ls_device_close(device);
}
