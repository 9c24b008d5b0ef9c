/* The file of a trace: whatever was recorded is there, as a program that reads JSON sees it. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/trace.h"
#include "longspan/timeline.h"

static const struct ls_trace_kind outer = {"outer", "test", {NULL}},
                                  inner = {"inner", "test", {"first", "second", "third"}};
static struct ls_comm *self;
static char folder[] = "/tmp/longspan-trace-XXXXXX";
static char path[sizeof folder + sizeof "/trace.json"];

static void up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/trace.json", folder);
    cr_assert_eq(ls_comm_create_self(&self), LS_OK);
}

static void down(void)
{
    unlink(path);
    cr_expect_eq(rmdir(folder), 0, "something is left in %s", folder);
    ls_comm_destroy(self);
}

TestSuite(timeline, .init = up, .fini = down, .timeout = 30);

/* Writes the trace that `record` records on so many threads; the file's object. */
static json_t *written(int threads, void (*record)(void))
{
    struct ls_timeline *timeline;
    int64_t events, dropped;
    json_error_t error;

    cr_assert_eq(ls_timeline_create(&timeline, self, path, threads), LS_OK, "%s", ls_message());
    cr_expect_neq(access(path, F_OK), 0, "the file is there before it is whole");
    ls_timeline_start(timeline);
    record();
    ls_timeline_stop(timeline);
    cr_assert_eq(ls_timeline_commit(&events, &dropped, timeline), LS_OK, "%s", ls_message());
    ls_timeline_destroy(timeline);
    cr_expect_not(ls_trace_on);

    json_t *object = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(object, "line %d: %s", error.line, error.text);
    return object;
}

static const char *text_of(const json_t *event, const char *name)
{
    return json_string_value(json_object_get(event, name));
}

static double number_of(const json_t *event, const char *name)
{
    return json_number_value(json_object_get(event, name));
}

static int64_t argument(const json_t *event, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(event, "args"), name));
}

static void record_nested(void)
{
    ls_trace_add(&inner, 1, 1000.5, 1000.50001, (const int64_t[]){1, INT64_MAX, INT64_MIN});
    ls_trace_add(&outer, 1, 1000.25, 1001, (const int64_t[]){0, 0, 0});
    ls_trace_add(&inner, 0, 1002, 1003, (const int64_t[]){2, 0, -1});
}

Test(timeline, events_are_in_the_file_with_their_times_and_numbers)
{
    static const struct {
        const char *name;
        int thread;
        double ts, dur;
        size_t arguments;
        int64_t first, third;
    } wanted[] = {
        {"inner", 0, 1.75e6, 1e6, 3, 2, -1},
        {"outer", 1, 0, 0.75e6, 0, 0, 0},
        {"inner", 1, 0.25e6, 10, 3, 1, INT64_MIN},
    };
    json_t *object = written(2, record_nested);
    json_t *event;
    size_t i, n = 0;

    json_array_foreach(json_object_get(object, "traceEvents"), i, event)
    {
        if (strcmp(text_of(event, "ph"), "M") == 0) continue;
        cr_expect_str_eq(text_of(event, "ph"), "X");
        cr_assert_lt(n, sizeof wanted / sizeof *wanted);
        cr_expect_str_eq(text_of(event, "name"), wanted[n].name);
        cr_expect_str_eq(text_of(event, "cat"), "test");
        cr_expect_eq(number_of(event, "pid"), 0);
        cr_expect_eq(number_of(event, "tid"), wanted[n].thread);
        cr_expect_lt(fabs(number_of(event, "ts") - wanted[n].ts), 0.0015, "event %zu", n);
        cr_expect_lt(fabs(number_of(event, "dur") - wanted[n].dur), 0.0015, "event %zu", n);
        cr_expect_eq(json_object_size(json_object_get(event, "args")), wanted[n].arguments);
        cr_expect_eq(argument(event, "first"), wanted[n].first);
        cr_expect_eq(argument(event, "third"), wanted[n].third);
        n++;
    }
    cr_expect_eq(n, 3);
    cr_expect_eq(number_of(json_object_get(object, "otherData"), "events"), 3);
    cr_expect_eq(number_of(json_object_get(object, "otherData"), "dropped"), 0);
    json_decref(object);
}

Test(timeline, the_process_and_its_threads_have_names)
{
    json_t *object = written(2, record_nested);
    json_t *event;
    size_t i;
    int names = 0;

    json_array_foreach(json_object_get(object, "traceEvents"), i, event)
    {
        const char *name = text_of(json_object_get(event, "args"), "name");

        if (strcmp(text_of(event, "ph"), "M") != 0) continue;
        if (strcmp(text_of(event, "name"), "process_name") == 0)
            cr_expect_str_eq(name, "rank 0");
        else
            cr_expect_str_eq(name, number_of(event, "tid") == 0 ? "thread 0" : "thread 1");
        names++;
    }
    cr_expect_eq(names, 3);
    json_decref(object);
}

#define MANY 140000

/* More than a thread may record; each begins where the one before ended, 0.7 ns later. */
static void record_many(void)
{
    for (int i = 0; i < MANY; i++)
        ls_trace_add(&inner, 0, i * 0.7e-9, (i + 1) * 0.7e-9, (const int64_t[]){i, i, i});
}

Test(timeline, many_events_neither_overlap_nor_get_lost_uncounted)
{
    json_t *object = written(1, record_many);
    json_t *event;
    double end = 0;
    size_t i;
    int64_t n = 0;

    json_array_foreach(json_object_get(object, "traceEvents"), i, event)
    {
        if (strcmp(text_of(event, "ph"), "M") == 0) continue;
        cr_assert_eq(argument(event, "second"), n++);
        cr_assert_lt(fabs(number_of(event, "ts") - end), 1e-6, "event %zu", i);
        end = number_of(event, "ts") + number_of(event, "dur");
    }
    json_t *other = json_object_get(object, "otherData");

    cr_expect_geq(n, 100000);
    cr_expect_eq(number_of(other, "events"), (double)n);
    cr_expect_eq(number_of(other, "dropped"), (double)(MANY - n));
    json_decref(object);
}

static void record_nothing(void)
{
}

Test(timeline, nothing_recorded_is_a_file_as_well)
{
    json_t *object = written(1, record_nothing);

    cr_expect_eq(json_array_size(json_object_get(object, "traceEvents")), 2);
    json_decref(object);
}

Test(timeline, one_that_is_not_committed_leaves_nothing)
{
    struct ls_timeline *timeline;

    cr_assert_eq(ls_timeline_create(&timeline, self, path, 1), LS_OK);
    ls_timeline_start(timeline);
    ls_timeline_destroy(timeline);
    cr_expect_not(ls_trace_on);
}

Test(timeline, there_is_one_at_a_time)
{
    struct ls_timeline *timeline, *other = NULL;

    cr_assert_eq(ls_timeline_create(&timeline, self, path, 1), LS_OK);
    cr_expect_eq(ls_timeline_create(&other, self, path, 1), LS_EVALUE);
    cr_expect_null(other);
    ls_timeline_start(timeline);
    cr_expect(ls_trace_on, "the first one is none the worse");
    ls_timeline_destroy(timeline);
    cr_expect_eq(ls_timeline_create(&other, self, path, 0), LS_EVALUE);
}

static void record_beyond(void)
{
    ls_trace_add(&outer, 0, 1, 2, (const int64_t[]){0, 0, 0});
    ls_trace_add(&outer, 1, 1, 2, (const int64_t[]){0, 0, 0});
}

Test(timeline, threads_beyond_its_own_are_left_out)
{
    json_t *object = written(1, record_beyond);

    cr_expect_eq(number_of(json_object_get(object, "otherData"), "events"), 1);
    json_decref(object);
}

Test(timeline, without_one_nothing_is_recorded)
{
    ls_timeline_start(NULL);
    cr_expect_not(ls_trace_on);
    ls_timeline_stop(NULL);
    ls_timeline_destroy(NULL);
}
