#define _GNU_SOURCE 1 /* pthread_getattr_np */

#include "cpu/threads.h"

#include <ctype.h>
#include <omp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of stack that a kernel may use. The tile of f32 gradients has a frame of 37 KiB, the
 * largest; the rest is for what it calls, oneDNN, and compilers that do not optimise. */
#define LEAST_STACK ((size_t)192 << 10)

/* ---- whether the system lets so many live at once */

/* OMP_STACKSIZE as OpenMP reads it, in KiB unless it says otherwise; 0: the system's default. */
static size_t stack_asked_for(void)
{
    static const char units[] = "bkmg";
    const char *const text = getenv("OMP_STACKSIZE");
    char *rest;

    if (text == NULL) return 0;
    const size_t number = strtoull(text, &rest, 10);
    while (isspace((unsigned char)*rest)) rest++;
    const char *const unit = *rest ? strchr(units, tolower((unsigned char)*rest)) : units + 1;

    return unit != NULL ? number << 10 * (unit - units) : 0;
}

/* Each waits for the gate to open. */
static void *wait_at(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

static ls_status try_threads(int threads)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *const thread = calloc((size_t)threads, sizeof *thread);
    pthread_attr_t attributes;
    int started = 1, error = 0; /* the calling one is there */

    if (thread == NULL) return ls_fail(LS_ENOMEM, "no memory for %d threads", threads);
    pthread_attr_init(&attributes);
    if (stack_asked_for() > 0) pthread_attr_setstacksize(&attributes, stack_asked_for());
    pthread_mutex_lock(&gate);
    while (started < threads && error == 0) {
        error = pthread_create(&thread[started], &attributes, wait_at, &gate);
        started += error == 0;
    }
    pthread_mutex_unlock(&gate);
    for (int i = 1; i < started; i++) pthread_join(thread[i], NULL);
    pthread_attr_destroy(&attributes);
    free(thread);
    if (error == 0) return LS_OK;
    return ls_fail(
        LS_ENOMEM,
        "cannot start %d threads, only %d (%s): choose fewer, a smaller OMP_STACKSIZE, or "
        "raise the limit of processes (ulimit -u) or of memory (ulimit -v)",
        threads, started, strerror(error));
}

/* ---- whether they can be used */

/* What is left of the calling thread's stack; SIZE_MAX where that cannot be known. */
static size_t stack_left(void)
{
    pthread_attr_t attributes;
    void *lowest;
    size_t size;

    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return SIZE_MAX;
    const int error = pthread_attr_getstack(&attributes, &lowest, &size);

    pthread_attr_destroy(&attributes);
    return error == 0 ? (size_t)((char *)__builtin_frame_address(0) - (char *)lowest) : SIZE_MAX;
}

ls_status cpu_threads_start(int threads)
{
    static _Thread_local int running;
    const int most = omp_get_thread_limit();
    size_t least = SIZE_MAX;

    if (threads == running) return LS_OK;
    LS_TRY(try_threads(threads < most ? threads : most));
#pragma omp parallel num_threads(threads) reduction(min : least)
    least = stack_left();
    if (least < LEAST_STACK)
        return ls_fail(
            LS_EVALUE,
            "threads have a stack of %zu KiB, kernels need %zu: set OMP_STACKSIZE=1M (the "
            "first thread's is ulimit -s)",
            least >> 10, LEAST_STACK >> 10);
    running = threads;
    return LS_OK;
}
