#include "cli/progress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/profile.h"
#include "comm/comm.h"

#define FIRST_AFTER 2.0        /* seconds until a bar appears by itself */
#define REDRAW_NANO 200000000L /* between two drawings */
#define BAR_WIDTH 30
#define MOST_BY_CLOCK 0.99 /* an estimate never says that it is finished */

struct cli_progress {
    const struct cli_world *world;
    bool drawing; /* there is a thread, and what follows */
    pthread_t thread;
    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t wake;
    bool stop, drawn;
    const char *phase;       /* NULL between phases */
    double since, appear_at; /* ls_now: of this phase; when the bar may first be drawn */
    double fraction;
    double expected; /* seconds; 0: the phase tells its fraction itself */
};

static void draw(struct cli_progress *p, double now)
{
    char bar[BAR_WIDTH + 1];
    const double elapsed = now - p->since;
    double fraction = p->fraction;

    if (p->expected > 0) fraction = elapsed / p->expected;
    if (p->expected > 0 && fraction > MOST_BY_CLOCK) fraction = MOST_BY_CLOCK;
    const int full = (int)(fraction * BAR_WIDTH);

    memset(bar, '.', BAR_WIDTH);
    memset(bar, '#', (size_t)full);
    bar[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r%-10s [%s] %s%3.0f %%  %.0f s\033[K", p->phase, bar,
            p->expected > 0 ? "about " : "", 100 * fraction, elapsed);
    fflush(stderr);
    p->drawn = true;
}

static void clear(struct cli_progress *p)
{
    if (p->drawn) fprintf(stderr, "\r\033[K");
    p->drawn = false;
}

static void *draw_until_stopped(void *argument)
{
    struct cli_progress *p = argument;
    struct timespec next;

    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        const double now = ls_now();

        if (p->phase && now >= p->appear_at) draw(p, now);
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_nsec += REDRAW_NANO;
        next.tv_sec += next.tv_nsec / 1000000000L;
        next.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&p->wake, &p->lock, &next);
    }
    clear(p);
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void cli_progress_create(struct cli_progress **out, const struct cli_world *world,
                         cli_progress_mode mode, bool quiet)
{
    const bool automatic = mode == CLI_PROGRESS_AUTO && !quiet && isatty(STDERR_FILENO);

    struct cli_progress *p = calloc(1, sizeof(*p));

    *out = p;
    if (!p) return; /* a bar is not worth a failure */
    p->world = world;
    if (world->rank != 0 || !(automatic || mode == CLI_PROGRESS_ALWAYS)) return;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->appear_at = ls_now() + (automatic ? FIRST_AFTER : 0);
    p->drawing = pthread_create(&p->thread, NULL, draw_until_stopped, p) == 0;
}

static void stop_drawing(struct cli_progress *progress)
{
    pthread_mutex_lock(&progress->lock);
    progress->stop = true;
    pthread_cond_signal(&progress->wake);
    pthread_mutex_unlock(&progress->lock);
    pthread_join(progress->thread, NULL);
    pthread_cond_destroy(&progress->wake);
    pthread_mutex_destroy(&progress->lock);
}

void cli_progress_destroy(struct cli_progress *progress)
{
    if (progress && progress->drawing) stop_drawing(progress);
    free(progress);
}

static _Atomic(const char *) running;

const char *cli_progress_phase(void)
{
    return running;
}

void cli_progress_begin_timed(struct cli_progress *progress, const char *phase, double seconds)
{
    running = phase;
    if (!progress) return;
    ls_comm_place(progress->world->comm, phase, "");
    if (!progress->drawing) return;
    pthread_mutex_lock(&progress->lock);
    progress->phase = phase;
    progress->since = ls_now();
    progress->fraction = 0;
    progress->expected = seconds;
    if (progress->since >= progress->appear_at) draw(progress, progress->since);
    pthread_mutex_unlock(&progress->lock);
}

void cli_progress_begin(struct cli_progress *progress, const char *phase)
{
    cli_progress_begin_timed(progress, phase, 0);
}

void cli_progress_set(struct cli_progress *progress, int64_t done, int64_t of)
{
    if (!progress) return;
    cli_world_beat(progress->world);
    if (!progress->drawing) return;
    pthread_mutex_lock(&progress->lock);
    progress->fraction = of > 0 ? (double)done / (double)of : 1;
    pthread_mutex_unlock(&progress->lock);
}

void cli_progress_end(struct cli_progress *progress)
{
    running = NULL;
    if (!progress) return;
    ls_comm_place(progress->world->comm, "", "");
    if (!progress->drawing) return;
    pthread_mutex_lock(&progress->lock);
    clear(progress);
    progress->phase = NULL;
    pthread_mutex_unlock(&progress->lock);
}

static void take(void *progress, const char *phase, int64_t done, int64_t of)
{
    const char *last = running;

    if (!phase) {
        cli_progress_end(progress);
        return;
    }
    if (!last || strcmp(last, phase) != 0) cli_progress_begin(progress, phase);
    cli_progress_set(progress, done, of);
}

struct ls_progress_callback cli_progress_callback(struct cli_progress *progress)
{
    return (struct ls_progress_callback){.call = take, .context = progress};
}
