/* A written file appears whole or not at all, and nothing else is left behind. */
#define _GNU_SOURCE 1 /* unshare */

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "files.h"

/* Files that are copied into a device or pipe wait in $TMPDIR, so that leftovers would be seen. */
static void init(void)
{
    make_folder();
    setenv("TMPDIR", folder, 1);
}

static void fini(void)
{
    umount2(folder, MNT_DETACH); /* of the few tests that mount something there */
    remove_folder();
}

/* Criterion calls no .fini after a skip. */
static void skip(const char *why)
{
    fini();
    cr_skip_test("%s", why);
}

TestSuite(writer, .init = init, .fini = fini, .timeout = 20);

#define LENGTH(array) (sizeof(array) / sizeof *(array))

static const struct ls_file_tensor tensors[] = {
    TENSOR("o", LS_BF16, 4, {2, 3, 1, 5}), TENSOR("none", LS_F64, 2, {0, 4}),
    TENSOR("half", LS_F16, 1, {7}),        TENSOR("lse", LS_F32, 3, {2, 1, 3}),
    TENSOR("scalar", LS_F64, 0, {0}),
};
static const int64_t elements[] = {30, 0, 7, 6, 1};

#define COUNT ((int)LENGTH(tensors))
#define MOST_BYTES 64

/* The bytes that tensor i is to have. */
static const char *pattern(int i)
{
    static char bytes[MOST_BYTES];

    for (int j = 0; j < MOST_BYTES; j++) bytes[j] = (char)(i * 61 + j * 7 + 3);
    return bytes;
}

/* Elements [first * n / parts, (first + 1) * n / parts) of every tensor. */
static void write_part(struct ls_tensor_writer *writer, int part, int parts)
{
    for (int i = 0; i < COUNT; i++) {
        const int64_t first = part * elements[i] / parts;
        const int64_t n = (part + 1) * elements[i] / parts - first;
        const char *const bytes = pattern(i) + first * ls_dtype_size(tensors[i].type);

        cr_assert_eq(ls_tensor_writer_write(writer, i, first, n, bytes), LS_OK, "%s", ls_message());
    }
}

static struct ls_tensor_writer *create(const char *path)
{
    struct ls_tensor_writer *writer = NULL;

    cr_assert_eq(ls_tensor_writer_create(&writer, path, tensors, COUNT), LS_OK, "%s", ls_message());
    return writer;
}

static void write_whole(const char *path)
{
    struct ls_tensor_writer *const writer = create(path);

    write_part(writer, 0, 1);
    cr_assert_eq(ls_tensor_writer_commit(writer), LS_OK, "%s", ls_message());
}

static void expect_whole(const char *path)
{
    struct ls_tensor_file *file;
    char got[MOST_BYTES];

    cr_assert_eq(ls_tensor_file_open(&file, path), LS_OK, "%s", ls_message());
    cr_assert_eq(ls_tensor_file_count(file), COUNT);
    for (int i = 0; i < COUNT; i++) {
        const struct ls_file_tensor *const tensor = ls_tensor_file_find(file, tensors[i].name);

        cr_assert_not_null(tensor);
        cr_expect_eq(tensor->type, tensors[i].type);
        cr_expect_arr_eq(tensor->dim, tensors[i].dim, sizeof tensor->dim);
        cr_expect_eq(ls_tensor_file_read(got, file, tensor, 0, elements[i]), LS_OK);
        cr_expect_arr_eq(got, pattern(i), (size_t)(elements[i] * ls_dtype_size(tensor->type)), "%s",
                         tensor->name);
    }
    ls_tensor_file_close(file);
}

Test(writer, writes_what_is_read_back)
{
    write_whole(in_folder("a.safetensors"));
    expect_whole(in_folder("a.safetensors"));
    cr_expect_eq(count_entries(NULL), 1);
}

Test(writer, any_number_of_writers_fill_one_file)
{
    for (int parts = 2; parts <= 5; parts++) {
        struct ls_tensor_writer *const first = create(in_folder("a")), *other;

        for (int part = parts - 1; part > 0; part--) {
            const char *const temporary = name_of(first);

            cr_assert_eq(ls_tensor_writer_join(&other, temporary, tensors, COUNT), LS_OK, "%s",
                         ls_message());
            cr_expect_str_eq(name_of(other), temporary);
            write_part(other, part, parts);
            if (part % 2)
                cr_expect_eq(ls_tensor_writer_commit(other), LS_OK);
            else
                ls_tensor_writer_abort(other);
            cr_expect_eq(access(temporary, F_OK), 0, "a joined writer took the file away");
        }
        write_part(first, 0, parts);
        cr_assert_eq(ls_tensor_writer_commit(first), LS_OK);
        expect_whole(in_folder("a"));
        cr_expect_eq(count_entries(remove), 1, "%d parts", parts);
    }
}

Test(writer, join_wants_the_same_file)
{
    struct ls_tensor_writer *const first = create(in_folder("a"));
    struct ls_tensor_writer *other = NULL;

    cr_expect_eq(ls_tensor_writer_join(&other, in_folder("none"), tensors, COUNT), LS_EFILE);
    cr_expect_eq(ls_tensor_writer_join(&other, name_of(first), tensors, 1), LS_EFILE);
    cr_expect_null(other);
    ls_tensor_writer_abort(first);
}

Test(writer, target_changes_at_commit_only)
{
    const char *const old = "what was there before";
    char now[32] = "";

    put_file(in_folder("a"), old, strlen(old));
    struct ls_tensor_writer *writer = create(in_folder("a"));
    write_part(writer, 0, 1);
    ls_tensor_writer_abort(writer);
    ls_tensor_writer_abort(NULL);
    cr_expect_eq(count_entries(NULL), 1);
    FILE *const file = fopen(in_folder("a"), "r");
    cr_expect_eq(fread(now, 1, sizeof now, file), strlen(old));
    fclose(file);
    cr_expect_str_eq(now, old);
    write_whole(in_folder("a"));
    expect_whole(in_folder("a"));
    cr_expect_eq(count_entries(NULL), 1);
}

Test(writer, two_for_one_target_do_not_meet)
{
    struct ls_tensor_writer *const a = create(in_folder("a")), *const b = create(in_folder("a"));

    cr_expect_str_neq(name_of(a), name_of(b));
    write_part(a, 0, 1);
    cr_expect_eq(ls_tensor_writer_commit(a), LS_OK);
    ls_tensor_writer_abort(b);
    expect_whole(in_folder("a"));
    cr_expect_eq(count_entries(NULL), 1);
}

Test(writer, a_relative_name_is_in_the_current_folder)
{
    cr_assert_eq(chdir(folder), 0);
    write_whole("a");
    expect_whole(in_folder("a"));
    cr_assert_eq(chdir("/"), 0);
}

Test(writer, mode_follows_the_umask)
{
    static const mode_t masks[] = {022, 077, 0};

    for (size_t i = 0; i < LENGTH(masks); i++) {
        struct stat about;
        const mode_t before = umask(masks[i]);

        write_whole(in_folder("a"));
        umask(before);
        cr_assert_eq(stat(in_folder("a"), &about), 0);
        cr_expect_eq(about.st_mode & 0777, 0666 & ~masks[i], "%o: %o", masks[i], about.st_mode);
        unlink(in_folder("a"));
    }
}

Test(writer, writes_through_a_link)
{
    struct stat about;

    put_file(in_folder("real"), "old", 3);
    cr_assert_eq(symlink("real", in_folder("link")), 0);
    write_whole(in_folder("link"));
    cr_assert_eq(lstat(in_folder("link"), &about), 0);
    cr_expect(S_ISLNK(about.st_mode), "the link was replaced");
    expect_whole(in_folder("real"));
    cr_expect_eq(count_entries(NULL), 2);
}

Test(writer, a_name_as_long_as_the_system_allows)
{
    char name[256] = "";

    memset(name, 'n', 255);
    write_whole(in_folder(name));
    expect_whole(in_folder(name));
    cr_expect_eq(count_entries(NULL), 1);
}

static void expect_no_writer(const char *path, ls_status status, const char *word)
{
    struct ls_tensor_writer *writer = NULL;
    const ls_status got = ls_tensor_writer_create(&writer, path, tensors, COUNT);

    cr_expect_eq(got, status, "%s: %s: %s", path, ls_status_name(got), ls_message());
    cr_expect_null(writer, "%s", path);
    cr_expect_not_null(strstr(ls_message(), path), "no %s in: %s", path, ls_message());
    cr_expect_not_null(strstr(ls_message(), word), "no \"%s\" in: %s", word, ls_message());
}

Test(writer, refuses_a_target_that_cannot_be)
{
    char long_name[300] = "";

    memset(long_name, 'n', 299);
    put_file(in_folder("file"), "", 0);
    cr_assert_eq(symlink("nowhere", in_folder("dangling")), 0);
    cr_assert_eq(symlink("loop", in_folder("loop")), 0);
    expect_no_writer(in_folder("missing/a"), LS_EFILE, "missing/: No such file");
    expect_no_writer(in_folder("missing/"), LS_EFILE, "names no file");
    expect_no_writer("", LS_EFILE, "names no file");
    expect_no_writer(in_folder("file/a"), LS_EFILE, "Not a directory");
    expect_no_writer(in_folder("dangling"), LS_EFILE, "link");
    expect_no_writer(in_folder("loop"), LS_EFILE, "symbolic links");
    expect_no_writer(in_folder(long_name), LS_EFILE, "name too long");
    expect_no_writer(folder, LS_EFILE, "folder");
    cr_expect_eq(count_entries(NULL), 3);
}

Test(writer, refuses_tensors_before_touching_the_disk)
{
    static const struct ls_file_tensor twice[] = {TENSOR("o", LS_F32, 1, {1}),
                                                  TENSOR("o", LS_F32, 1, {1})};
    struct ls_tensor_writer *writer = NULL;

    cr_expect_eq(ls_tensor_writer_create(&writer, in_folder("a"), twice, 2), LS_EVALUE);
    cr_expect_eq(count_entries(NULL), 0);
}

/* The memory device of this number. Root gets one of its own: a writer that renames where it must
 * not would replace the system's. */
static const char *device(const char *name, unsigned number)
{
    static char path[PATH_LENGTH];

    if (geteuid() != 0) {
        snprintf(path, sizeof path, "/dev/%s", name);
        return path;
    }
    strcpy(path, in_folder(name));
    if (mknod(path, S_IFCHR | 0666, makedev(1, number)) != 0 || access(path, W_OK) != 0)
        skip("needs the right to make a device");
    return path;
}

#define NULL_DEVICE device("null", 3)
#define FULL_DEVICE device("full", 7)

Test(writer, a_full_device_is_an_error)
{
    const char *const full = FULL_DEVICE;
    const int before = count_entries(NULL);
    struct stat about;
    struct ls_tensor_writer *const writer = create(full);

    write_part(writer, 0, 1);
    cr_expect_eq(ls_tensor_writer_commit(writer), LS_EIO);
    cr_expect_not_null(strstr(ls_message(), full), "%s", ls_message());
    cr_expect_not_null(strstr(ls_message(), "No space"), "%s", ls_message());
    cr_assert_eq(stat(full, &about), 0);
    cr_expect(S_ISCHR(about.st_mode), "the device was replaced");
    cr_expect_eq(count_entries(NULL), before, "something is left in TMPDIR");
}

Test(writer, abort_before_a_device_leaves_nothing)
{
    const char *const null = NULL_DEVICE;
    const int before = count_entries(NULL);

    ls_tensor_writer_abort(create(null));
    cr_expect_eq(count_entries(NULL), before);
}

struct drain {
    char from[PATH_LENGTH], into[PATH_LENGTH];
    int entries; /* in the folder when the first bytes came */
};

/* Copies a pipe into a file, as `cat from > into` would. */
static void *run_drain(void *argument)
{
    struct drain *const drain = argument;
    FILE *const in = fopen(drain->from, "rb"), *const out = fopen(drain->into, "wb");
    char bytes[4096];
    size_t n;

    while ((n = fread(bytes, 1, sizeof bytes, in)) > 0) {
        if (drain->entries == 0) drain->entries = count_entries(NULL);
        fwrite(bytes, 1, n, out);
    }
    fclose(out);
    fclose(in);
    return NULL;
}

Test(writer, a_pipe_gets_the_whole_file)
{
    const int64_t n = 700001; /* 2.7 MiB: more than one piece of the copy */
    const struct ls_file_tensor tensor = TENSOR("a", LS_F32, 1, {n});
    struct drain drain = {.entries = 0};
    struct ls_tensor_writer *writer;
    struct ls_tensor_file *file;
    float *const sent = malloc((size_t)n * 4), *const got = malloc((size_t)n * 4);
    pthread_t thread;

    for (int64_t i = 0; i < n; i++) sent[i] = (float)i;
    strcpy(drain.from, in_folder("pipe"));
    strcpy(drain.into, in_folder("copy"));
    cr_assert_eq(mkfifo(drain.from, 0600), 0);
    cr_assert_eq(pthread_create(&thread, NULL, run_drain, &drain), 0);
    cr_assert_eq(ls_tensor_writer_create(&writer, drain.from, &tensor, 1), LS_OK);
    cr_assert_eq(ls_tensor_writer_write(writer, 0, 0, n, sent), LS_OK);
    cr_assert_eq(ls_tensor_writer_commit(writer), LS_OK, "%s", ls_message());
    pthread_join(thread, NULL);
    cr_assert_eq(ls_tensor_file_open(&file, drain.into), LS_OK, "%s", ls_message());
    cr_assert_eq(ls_tensor_file_read(got, file, ls_tensor_file_at(file, 0), 0, n), LS_OK);
    cr_expect_eq(memcmp(got, sent, (size_t)n * 4), 0);
    ls_tensor_file_close(file);
    cr_expect_eq(drain.entries, 2, "a writer that dies here would leave its temporary file");
    cr_expect_eq(count_entries(NULL), 2, "more than the pipe and its copy");
    free(sent);
    free(got);
}

/* A disk of 64 KiB over the folder, seen by this test's process alone. */
static void mount_small_disk(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", folder, "tmpfs", 0, "size=64k") != 0)
        skip("needs the right to mount a tmpfs");
}

Test(writer, a_full_disk_is_known_before_the_computation)
{
    static const struct ls_file_tensor large[] = {TENSOR("a", LS_F32, 2, {1000, 1000})};
    struct ls_tensor_writer *writer = NULL;

    mount_small_disk();
    cr_expect_eq(ls_tensor_writer_create(&writer, in_folder("a"), large, 1), LS_EIO);
    cr_expect_null(writer);
    cr_expect_not_null(strstr(ls_message(), in_folder("a")), "%s", ls_message());
    cr_expect_not_null(strstr(ls_message(), "cannot reserve 40000"), "%s", ls_message());
    cr_expect_not_null(strstr(ls_message(), "65536 are free"), "%s", ls_message());
    cr_expect_eq(count_entries(NULL), 0);
    cr_expect_eq(ls_tensor_writer_create(&writer, NULL_DEVICE, large, 1), LS_EIO, "the spool");
    cr_expect_eq(count_entries(NULL), 1, "more than the device");
    write_whole(in_folder("a"));
    expect_whole(in_folder("a"));
}

Test(writer, reserved_space_stays_when_others_fill_the_disk)
{
    char block[4096] = "";
    FILE *other;

    mount_small_disk();
    struct ls_tensor_writer *const writer = create(in_folder("a"));
    other = fopen(in_folder("other"), "wb");
    while (fwrite(block, 1, sizeof block, other) == sizeof block && fflush(other) == 0) continue;
    fclose(other);
    write_part(writer, 0, 1);
    cr_expect_eq(ls_tensor_writer_commit(writer), LS_OK, "%s", ls_message());
    expect_whole(in_folder("a"));
}

Test(writer, refuses_a_folder_that_is_read_only)
{
    mount_small_disk();
    cr_assert_eq(mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    expect_no_writer(in_folder("a"), LS_EFILE, "Read-only");
}
