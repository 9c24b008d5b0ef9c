#define _GNU_SOURCE 1 /* O_TMPFILE, asprintf */

#include "tensor/temporary.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Of the target's name: with the others, 64 of the host, 10 and 8 digits, the most a name has. */
enum { TARGET_KEPT = 169, ATTEMPTS = 100 };

/* ---- names that are in use, and what a signal handler may see of them */

enum { MOST_NAMES = 16 };

static atomic_flag busy = ATOMIC_FLAG_INIT;
static const char *names[MOST_NAMES];
static bool published;
static atomic_bool abandoned; /* the lock is kept: nothing is to come */

static void block_signals(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

/* No signal is handled by the thread that has the lock: a handler can wait for it. */
static void lock(sigset_t *before)
{
    block_signals(before);
    while (atomic_flag_test_and_set(&busy)) sched_yield();
}

static void unlock(const sigset_t *before)
{
    atomic_flag_clear(&busy);
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void put_name(const char *old, const char *new)
{
    int i = 0;

    while (i < MOST_NAMES && names[i] != old) i++;
    assert(i < MOST_NAMES); /* a run writes three files */
    names[i] = new;
}

/* Of two signals the handlers may run one after the other. */
bool ls_temporary_abandon(void)
{
    block_signals(NULL);
    while (atomic_flag_test_and_set(&busy)) {
        if (abandoned) return published;
        sched_yield();
    }
    for (int i = 0; i < MOST_NAMES; i++)
        if (names[i] != NULL) unlink(names[i]);
    abandoned = true;
    return published;
}

/* ---- a name, which says whose it is */

static int describe(char *out, size_t length, const char *target)
{
    struct utsname host;

    uname(&host);
    return snprintf(out, length, ".%.*s.%s.", TARGET_KEPT, target, host.nodename);
}

static char *choose_name(const char *folder, const char *target)
{
    char start[NAME_MAX + 1], *name;
    unsigned random;

    describe(start, sizeof start, target);
    if (getentropy(&random, sizeof random) != 0 ||
        asprintf(&name, "%s/%s%d.%08x", folder, start, (int)getpid(), random) < 0)
        return NULL;
    return name;
}

static bool is_dead(const char *rest)
{
    unsigned random;
    int pid, length = 0;

    return sscanf(rest, "%d.%8x%n", &pid, &random, &length) == 2 && rest[length] == '\0' &&
           kill(pid, 0) != 0 && errno == ESRCH;
}

/* What writers of this target on this host, where they can be asked for, left when they died. */
static void sweep(const char *folder, const char *target)
{
    char start[NAME_MAX + 1];
    const size_t length = (size_t)describe(start, sizeof start, target);
    DIR *const all = opendir(folder);

    if (all == NULL) return;
    for (const struct dirent *entry; (entry = readdir(all)) != NULL;)
        if (strncmp(entry->d_name, start, length) == 0 && is_dead(entry->d_name + length))
            unlinkat(dirfd(all), entry->d_name, 0);
    closedir(all);
}

/* ---- a file */

static bool link_name(int fd, const char *name)
{
    char nameless[32];

    snprintf(nameless, sizeof nameless, "/proc/self/fd/%d", fd);
    return linkat(AT_FDCWD, nameless, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
}

/* Without a name, or -1. Whether it can have one in the end is tried first, with another file. */
static int create_nameless(const char *folder, const char *name, mode_t mode)
{
    const int trial = open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);

    if (trial < 0) return -1;
    const bool linked = link_name(trial, name);

    if (linked) unlink(name);
    close(trial);
    return linked ? open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, mode) : -1;
}

static void create(struct ls_temporary *out, const char *folder, mode_t mode)
{
    sigset_t before;

    lock(&before);
    out->fd = create_nameless(folder, out->name, mode);
    if (out->fd < 0) {
        out->fd = open(out->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        out->named = out->fd >= 0;
        if (out->named) put_name(NULL, out->name);
    }
    unlock(&before);
}

bool ls_temporary_create(struct ls_temporary *out, const char *folder, const char *target,
                         mode_t mode)
{
    sweep(folder, target);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct ls_temporary made = {.fd = -1, .name = choose_name(folder, target)};

        if (made.name == NULL) return false;
        create(&made, folder, mode);
        if (made.fd >= 0) {
            *out = made;
            return true;
        }
        const int error = errno;

        free(made.name);
        errno = error;
        if (error != EEXIST) return false;
    }
    return false;
}

bool ls_temporary_name(struct ls_temporary *temporary)
{
    sigset_t before;

    lock(&before);
    if (!temporary->named && link_name(temporary->fd, temporary->name)) {
        temporary->named = true;
        put_name(NULL, temporary->name);
    }
    unlock(&before);
    return temporary->named;
}

static void drop_name(struct ls_temporary *temporary)
{
    if (!temporary->named) return;
    unlink(temporary->name); /* nothing, once it is called otherwise */
    put_name(temporary->name, NULL);
    temporary->named = false;
}

bool ls_temporary_publish(struct ls_temporary *temporary, const char *path)
{
    sigset_t before;
    bool done;

    if (!ls_temporary_name(temporary)) return false;
    lock(&before);
    done = rename(temporary->name, path) == 0;
    if (done) drop_name(temporary);
    published |= done;
    unlock(&before);
    return done;
}

void ls_temporary_hide(struct ls_temporary *temporary)
{
    sigset_t before;

    lock(&before);
    drop_name(temporary);
    published = true;
    unlock(&before);
}

void ls_temporary_close(struct ls_temporary *temporary)
{
    sigset_t before;

    if (temporary->fd < 0) return;
    lock(&before);
    drop_name(temporary);
    unlock(&before);
    close(temporary->fd);
    free(temporary->name);
    temporary->fd = -1;
}
