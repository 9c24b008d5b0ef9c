#include "base/cgroup.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_ROOM 4096

/* ---- the files of one group */

/* The number after `name` (at the start of the file if that is "") in folder/file; `missing` if
 * there is none, or a word: "max". */
static double read_number(const char *folder, const char *file, const char *name, double missing)
{
    const size_t length = strlen(name);
    char path[PATH_ROOM + 64], line[256], *end;
    double value = missing;

    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *stream = fopen(path, "r");

    if (!stream) return missing;
    while (fgets(line, sizeof line, stream)) {
        if (strncmp(line, name, length) != 0) continue;
        const double number = strtod(line + length, &end);

        if (end > line + length && number >= 0) value = number;
        break;
    }
    fclose(stream);
    return value;
}

/* Of a group that has a limit: pages of files can be dropped, as in the system's MemAvailable. */
static double memory_left(double limit, double used, double cached)
{
    return fmax(0, limit - fmax(0, used - cached));
}

static void read_memory(struct ls_cgroup_limit *out, const char *folder)
{
    out->limit = read_number(folder, "memory.max", "", INFINITY);
    out->left = memory_left(out->limit, read_number(folder, "memory.current", "", 0),
                            read_number(folder, "memory.stat", "inactive_file ", 0) +
                                read_number(folder, "memory.stat", "active_file ", 0));
}

static void read_memory_v1(struct ls_cgroup_limit *out, const char *folder)
{
    out->limit = read_number(folder, "memory.limit_in_bytes", "", INFINITY);
    out->left = memory_left(out->limit, read_number(folder, "memory.usage_in_bytes", "", 0),
                            read_number(folder, "memory.stat", "total_inactive_file ", 0) +
                                read_number(folder, "memory.stat", "total_active_file ", 0));
}

static void read_processors(struct ls_cgroup_limit *out, const char *folder)
{
    char path[PATH_ROOM + 64];
    double quota, period;
    FILE *stream;

    snprintf(path, sizeof path, "%s/cpu.max", folder);
    stream = fopen(path, "r");
    if (!stream) return;
    if (fscanf(stream, "%lf %lf", &quota, &period) == 2 && quota > 0 && period > 0)
        out->limit = out->left = quota / period;
    fclose(stream);
}

static void read_processors_v1(struct ls_cgroup_limit *out, const char *folder)
{
    const double quota = read_number(folder, "cpu.cfs_quota_us", "", INFINITY);
    const double period = read_number(folder, "cpu.cfs_period_us", "", 0);

    if (quota > 0 && period > 0) out->limit = out->left = quota / period;
}

/* ---- where they are */

/* A tree of groups, by what its mount says it is, and how to read what is sought there. */
struct hierarchy {
    const char *type, *controller; /* version 2 has one tree, and no controller to name it */
    void (*read)(struct ls_cgroup_limit *out, const char *folder);
};

/* One that is mounted. */
struct mount {
    char root[PATH_ROOM], point[PATH_ROOM]; /* the group that is seen at the mount point */
    char type[32], options[256];
};

/* Whether `word` is in a list with commas between. */
static bool has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);

    for (;;) {
        const size_t end = strcspn(list, ",");

        if (end == length && strncmp(list, word, length) == 0) return true;
        if (list[end] == '\0') return false;
        list += end + 1;
    }
}

/* Spaces and backslashes are "\040" and "\134" in mountinfo. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        unsigned code;

        if (from[0] == '\\' && sscanf(from + 1, "%3o", &code) == 1) {
            *to = (char)code;
            from += 4;
        } else
            *to = *from++;
    }
    *to = '\0';
}

/* Format: proc_pid_mountinfo(5). */
static bool parse_mount(struct mount *out, const char *line)
{
    const char *rest = strstr(line, " - ");

    if (!rest || sscanf(line, "%*d %*d %*s %4095s %4095s", out->root, out->point) != 2 ||
        sscanf(rest, " - %31s %*s %255s", out->type, out->options) != 2)
        return false;
    unescape(out->root);
    unescape(out->point);
    return true;
}

static bool mounts(const struct mount *mount, const struct hierarchy *h)
{
    return strcmp(mount->type, h->type) == 0 &&
           (!h->controller[0] || has_word(mount->options, h->controller));
}

/* This process's group in a tree: lines are "4:cpu,cpuacct:/group", "0::/group" of version 2. */
static bool find_group(char *group, const char *root, const struct hierarchy *h)
{
    char path[PATH_ROOM], *line = NULL;
    size_t room = 0;
    bool found = false;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *stream = fopen(path, "r");

    if (!stream) return false;
    while (!found && getline(&line, &room, stream) > 0) {
        char *list = strchr(line, ':'), *name = list ? strchr(list + 1, ':') : NULL;

        if (!name) continue;
        *name++ = '\0';
        found = has_word(list + 1, h->controller);
        if (found) snprintf(group, PATH_ROOM, "%.*s", (int)strcspn(name, "\n"), name);
    }
    free(line);
    fclose(stream);
    return found;
}

/* The part of `group` below the group that is mounted. A group elsewhere, as seen from inside a
 * container, has none: what is mounted is as near as one gets. */
static const char *below(const struct mount *mount, const char *group)
{
    const size_t length = strcmp(mount->root, "/") == 0 ? 0 : strlen(mount->root);

    if (strncmp(group, mount->root, length) != 0 || group[length] != '/') return "";
    return strncmp(group + length, "/..", 3) == 0 ? "" : group + length;
}

/* ---- the tightest */

static void tighten(struct ls_cgroup_limit *out, const struct hierarchy *h,
                    const struct mount *mount, const char *root)
{
    char folder[3 * PATH_ROOM], group[PATH_ROOM];

    if (!find_group(group, root, h)) return;
    const int top = snprintf(folder, sizeof folder, "%s%s", root, mount->point);

    snprintf(folder + top, sizeof folder - (size_t)top, "%s", below(mount, group));
    for (char *end = strchr(folder, '\0'); end >= folder + top; end = strrchr(folder, '/')) {
        struct ls_cgroup_limit here = {.limit = INFINITY, .left = INFINITY};
        const bool whole = strcmp(mount->root, "/") == 0 && end > folder + top;

        *end = '\0';
        h->read(&here, folder);
        if (here.left >= out->left) continue;
        *out = here;
        const int length =
            snprintf(out->group, sizeof out->group, "%s%s", whole ? "" : mount->root, folder + top);
        if (length >= (int)sizeof out->group) strcpy(out->group + sizeof out->group - 4, "...");
    }
}

static void find_tightest(struct ls_cgroup_limit *out, const struct hierarchy *trees,
                          const char *root)
{
    char path[PATH_ROOM], *line = NULL;
    size_t room = 0;
    struct mount mount;

    *out = (struct ls_cgroup_limit){.limit = INFINITY, .left = INFINITY};
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *stream = fopen(path, "r");

    if (!stream) return;
    while (getline(&line, &room, stream) > 0)
        for (const struct hierarchy *h = trees; h->type; h++)
            if (parse_mount(&mount, line) && mounts(&mount, h)) tighten(out, h, &mount, root);
    free(line);
    fclose(stream);
}

void ls_cgroup_memory(struct ls_cgroup_limit *out, const char *root)
{
    static const struct hierarchy trees[] = {
        {"cgroup2", "", read_memory}, {"cgroup", "memory", read_memory_v1}, {0}};

    find_tightest(out, trees, root);
}

void ls_cgroup_processors(struct ls_cgroup_limit *out, const char *root)
{
    static const struct hierarchy trees[] = {
        {"cgroup2", "", read_processors}, {"cgroup", "cpu", read_processors_v1}, {0}};

    find_tightest(out, trees, root);
}
