/* The tightest limit is found in folders that stand for a system with control groups of version 1,
 * 2 and both at once: own group, those around it, a container's view, words and nonsense. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cgroup.h"

static char root[64];

static void make_root(void)
{
    strcpy(root, "/tmp/longspan-cgroup.XXXXXX");
    cr_assert_not_null(mkdtemp(root));
}

static void remove_root(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf '%s'", root);
    cr_expect_eq(system(command), 0);
}

TestSuite(cgroup, .init = make_root, .fini = remove_root);

/* A file below the root, with the folders that it needs. */
static void put(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(const char *path, const char *format, ...)
{
    char name[512], command[1024];
    va_list values;

    snprintf(name, sizeof name, "%s%s", root, path);
    snprintf(command, sizeof command, "mkdir -p \"$(dirname '%s')\"", name);
    cr_assert_eq(system(command), 0);
    FILE *file = fopen(name, "w");

    cr_assert_not_null(file, "%s: %m", name);
    va_start(values, format);
    vfprintf(file, format, values);
    va_end(values);
    fclose(file);
}

#define MOUNT_2 "/sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"

/* A system of version 2 whose process is in that group. */
static void put_version_2(const char *group)
{
    put("/proc/self/cgroup", "0::%s\n", group);
    put("/proc/self/mountinfo",
        "22 1 254:1 / / rw shared:1 - ext4 /dev/vda rw\n31 23 0:26 / " MOUNT_2);
}

static void put_version_1(const char *group, const char *mounted)
{
    put("/proc/self/cgroup", "7:name=systemd:/else\n4:memory:%s\n2:cpu,cpuacct:%s\n", group, group);
    put("/proc/self/mountinfo",
        "31 23 0:29 %s /cg/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "32 23 0:30 %s /cg/mem\\040ory rw master:9 - cgroup cgroup rw,memory\n"
        "33 23 0:31 / /cg/systemd rw - cgroup cgroup rw,name=systemd\n",
        mounted, mounted);
}

static void expect(const struct ls_cgroup_limit *found, double limit, double left,
                   const char *group)
{
    cr_expect_eq(found->limit, limit, "limit %g, not %g", found->limit, limit);
    cr_expect_eq(found->left, left, "left %g, not %g", found->left, left);
    cr_expect_str_eq(found->group, group);
}

static void expect_memory(double limit, double left, const char *group)
{
    struct ls_cgroup_limit found;

    ls_cgroup_memory(&found, root);
    expect(&found, limit, left, group);
}

static void expect_processors(double limit, const char *group)
{
    struct ls_cgroup_limit found;

    ls_cgroup_processors(&found, root);
    expect(&found, limit, limit, group);
}

Test(cgroup, no_groups_no_limit)
{
    expect_memory(INFINITY, INFINITY, "");
    expect_processors(INFINITY, "");
    put_version_2("/");
    expect_memory(INFINITY, INFINITY, "");
    expect_processors(INFINITY, "");
}

Test(cgroup, version_2_own_group_and_those_around_it)
{
    put_version_2("/slurm/job_1/step_0");
    put("/sys/fs/cgroup/slurm/job_1/step_0/memory.max", "max\n");
    put("/sys/fs/cgroup/slurm/job_1/step_0/cpu.max", "max 100000\n");
    expect_memory(INFINITY, INFINITY, "");
    expect_processors(INFINITY, "");
    put("/sys/fs/cgroup/slurm/job_1/memory.max", "157286400\n");
    put("/sys/fs/cgroup/slurm/job_1/cpu.max", "150000 100000\n");
    expect_memory(157286400, 157286400, "/slurm/job_1");
    expect_processors(1.5, "/slurm/job_1");
    put("/sys/fs/cgroup/slurm/job_1/step_0/memory.max", "1000\n");
    put("/sys/fs/cgroup/slurm/memory.max", "2000\n");
    put("/sys/fs/cgroup/slurm/cpu.max", "50000 100000\n");
    expect_memory(1000, 1000, "/slurm/job_1/step_0");
    expect_processors(0.5, "/slurm");
}

Test(cgroup, what_is_used_is_gone_but_not_what_is_cached)
{
    put_version_2("/a/b");
    put("/sys/fs/cgroup/a/memory.max", "1000\n");
    put("/sys/fs/cgroup/a/memory.current", "900\n");
    put("/sys/fs/cgroup/a/memory.stat", "anon 500\nfile 400\ninactive_file 250\nactive_file 50\n");
    put("/sys/fs/cgroup/a/b/memory.max", "450\n");
    put("/sys/fs/cgroup/a/b/memory.current", "10\n");
    expect_memory(1000, 400, "/a");
    put("/sys/fs/cgroup/a/memory.current", "1400\n"); /* for a moment this can be */
    expect_memory(1000, 0, "/a");
}

Test(cgroup, version_1)
{
    put_version_1("/job", "/");
    put("/cg/mem ory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/cg/mem ory/job/memory.limit_in_bytes", "4096000\n");
    put("/cg/mem ory/job/memory.usage_in_bytes", "96000\n");
    put("/cg/mem ory/job/memory.stat",
        "inactive_file 7\ntotal_inactive_file 10000\ntotal_active_file 6000\n");
    put("/cg/cpu/cpu.cfs_quota_us", "-1\n");
    put("/cg/cpu/cpu.cfs_period_us", "100000\n");
    expect_memory(4096000, 4016000, "/job");
    expect_processors(INFINITY, "");
    put("/cg/cpu/job/cpu.cfs_quota_us", "250000\n");
    put("/cg/cpu/job/cpu.cfs_period_us", "100000\n");
    expect_processors(2.5, "/job");
}

Test(cgroup, both_versions_at_once)
{
    put_version_1("/job", "/");
    put("/proc/self/cgroup", "4:memory:/job\n2:cpu:/job\n0::/unified\n");
    put("/proc/self/mountinfo",
        "31 23 0:29 / /cg/memory rw - cgroup cgroup rw,memory\n31 23 0:26 / " MOUNT_2);
    put("/cg/memory/job/memory.limit_in_bytes", "5000\n");
    put("/cg/memory/unified/memory.limit_in_bytes", "10\n");
    put("/sys/fs/cgroup/unified/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/job/cpu.max", "100000 100000\n");
    expect_memory(5000, 5000, "/job");
    expect_processors(3, "/unified");
}

/* In a container the mount shows a group of the host as if it were the root. */
Test(cgroup, what_a_container_sees)
{
    const char *const inside[] = {"/docker/1", "/docker/1\\134x2d", "/docker/12", "/", "/../other"};
    const char *const seen[] = {"/docker/1", "/docker/1\\x2d", "/docker/12", "/", "/../other"};

    for (int i = 0; i < 5; i++) {
        put_version_1(i < 4 ? seen[i] : "/", inside[i]);
        put("/cg/mem ory/memory.limit_in_bytes", "3000\n");
        expect_memory(3000, 3000, seen[i]);
    }
    put_version_1("/docker/1/inner", "/docker/1");
    put("/cg/mem ory/inner/memory.limit_in_bytes", "2000\n");
    expect_memory(2000, 2000, "/docker/1/inner");
    put_version_1("/docker/1/inner",
                  "/docker/12"); /* not its own: the mount point is the best guess */
    expect_memory(3000, 3000, "/docker/12");
    put_version_1("/../inner", "/");
    expect_memory(3000, 3000, "/");
}

Test(cgroup, nonsense_is_no_limit)
{
    const char *const texts[] = {"",           "\n",         "many",     "-5\n",
                                 "x 100000\n", "100000 0\n", "100000\n", "-1 -1\n"};

    put_version_2("/a");
    for (int i = 0; i < 8; i++) {
        put("/sys/fs/cgroup/a/cpu.max", "%s", texts[i]);
        expect_processors(INFINITY, "");
    }
    for (int i = 0; i < 5; i++) {
        put("/sys/fs/cgroup/a/memory.max", "%s", texts[i]);
        expect_memory(INFINITY, INFINITY, "");
    }
    put("/proc/self/cgroup", "nothing\n\n0:\n:\n0::\n");
    put("/proc/self/mountinfo", "31 23\n\n - cgroup2\n31 23 0:26 / /sys/fs/cgroup rw - cgroup2\n");
    expect_memory(INFINITY, INFINITY, "");
}
