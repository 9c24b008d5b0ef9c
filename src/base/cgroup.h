/* What the control groups around this process (a container, a SLURM job) let it use. */
#ifndef LS_BASE_CGROUP_H
#define LS_BASE_CGROUP_H

/* The tightest limit of this process's group and of all groups around it. */
struct ls_cgroup_limit {
    double limit;    /* INFINITY: there is none */
    double left;     /* of it, where what is used counts; else limit */
    char group[256]; /* that sets it, as /proc/self/cgroup would name it: "/slurm/job_1/step_0" */
};

/* Bytes, of which files that are only cached use none. `root` is "", or in tests a folder that
 * stands for /. */
void ls_cgroup_memory(struct ls_cgroup_limit *out, const char *root);

/* Processors: the time of so many. */
void ls_cgroup_processors(struct ls_cgroup_limit *out, const char *root);

#endif
