// SPDX-License-Identifier: Apache-2.0
/* other.c: the other thread, which acts strictly in turn, and which kernel a run is on. */
#include <dirent.h>
#include <sys/syscall.h>
#include <linux/close_range.h>
#include "model.h"

#if defined(__SANITIZE_THREAD__)
#define MODEL_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MODEL_TSAN 1
#endif
#endif
#ifndef MODEL_TSAN
#define MODEL_TSAN 0
#endif

/* The model links with the kernel in memory and without it. */
#pragma weak sim_begin
#pragma weak sim_end
#pragma weak sim_current
#pragma weak sim_join
#pragma weak sim_leave
#pragma weak sim_finding

bool model_simulator_is_linked(void) { return sim_begin != NULL; }

/* ---- the other thread ---- */

static void *other_main(void *argument) {
    model *m = argument;
    pthread_mutex_lock(&m->lock);
    for (;;) {
        while (!m->errand_open && !m->other_ends)
            pthread_cond_wait(&m->turn, &m->lock);
        if (m->other_ends)
            break;
        if (m->kernel)
            sim_join(m->kernel);
        m->errand(m, m->errand_argument);
        if (m->kernel)
            sim_leave();
        m->errand_open = false;
        pthread_cond_broadcast(&m->turn);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

int model_other_start(model *m) {
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->turn, NULL);
    RULE(pthread_create(&m->other, NULL, other_main, m) == 0, "no other thread");
    return 0;
}

void model_other_end(model *m) {
    pthread_mutex_lock(&m->lock);
    m->other_ends = true;
    pthread_cond_broadcast(&m->turn);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->other, NULL);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->turn);
}

void model_elsewhere(model *m, void (*errand)(model *m, void *argument), void *argument) {
    pthread_mutex_lock(&m->lock);
    m->errand = errand;
    m->errand_argument = argument;
    m->errand_open = true;
    pthread_cond_broadcast(&m->turn);
    while (m->errand_open)
        pthread_cond_wait(&m->turn, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

/* ---- descriptors ---- */

/* A descriptor table of this thread's own, which threads made from here share. ThreadSanitizer tracks descriptors by
 * number for the whole process, so there it stays one table, and nothing is counted. */
bool model_isolate(void) { return !MODEL_TSAN && syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_UNSHARE) == 0; }

int model_descriptors(void) {
    DIR *directory = opendir("/proc/thread-self/fd");
    if (!directory)
        return -1;
    int count = -1; /* the directory's own */
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* ---- the kernel in memory ---- */

/* The loop would sleep, and nothing is on its way: what is owed now will never come. */
static bool idle(void *context) {
    model *m = context;
    m->report->idles++;
    char text[96];
    if (m->failed)
        return false;
    if (m->entered && model_owes(m, text, sizeof text)) { /* a loop that closes ends its waits */
        model_fail(m, "asleep, and %s is owed", text);
        return false;
    }
    if (m->entered && m->stop_asked) {
        model_fail(m, "asleep, and a stop was asked for");
        return false;
    }
    bool acted;
    if (model_outside_acts(m, &acted) != 0)
        return false;
    return acted || model_post_from_outside(m);
}

static void draw_odds(model *m) {
    uint16_t *all[] = {&m->odds.short_read,   &m->odds.short_write,   &m->odds.interrupted, &m->odds.false_ready,
                       &m->odds.held_back,    &m->odds.reordered,     &m->odds.no_buffers,  &m->odds.multishot_ends,
                       &m->odds.cancel_late,  &m->odds.short_submit,  &m->odds.enter_fails, &m->odds.slow_connect,
                       &m->odds.accept_fails, &m->odds.connect_fails, &m->odds.reset};
    static const uint16_t often[] = {0, 0, 20, 100, 400};
    size_t count = sizeof all / sizeof *all;
    for (size_t index = 0; index < count; index++)
        *all[index] = often[below(m, 5)];
    /* What takes the edge off the rules is rare, and often left out. */
    for (size_t index = count - 3; index < count; index++)
        *all[index] = chance(m, 700) ? 0 : 20;
}

int model_kernel_begin(model *m) {
    if (!m->config->simulated)
        return 0;
    RULE(model_simulator_is_linked(), "there is no kernel in memory here");
    if (m->config->odds)
        m->odds = *m->config->odds;
    else if (!m->config->calm)
        draw_odds(m);
    static const uint32_t buffers[] = {0, 0, 1, 100, 4096};
    sim_config config = {.seed = m->config->seed, .odds = m->odds, .idle = idle, .context = m};
    config.socket_buffer = buffers[below(m, 5)];
    /* An older kernel now and then: it lacks whatever came after some point, or something in between. */
    if (!m->config->calm && chance(m, 300))
        config.lacks = (uint32_t)below(m, SIM_LACKS_IO_URING);
    sim_begin(&config);
    m->kernel = sim_current();
    return 0;
}

/* How many descriptors were still open. */
int model_kernel_end(model *m) {
    if (!m->kernel)
        return 0;
    m->kernel = NULL;
    return sim_end();
}

const char *model_kernel_finding(const model *m) { return m->kernel ? sim_finding() : NULL; }
