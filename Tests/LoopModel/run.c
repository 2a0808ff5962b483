// SPDX-License-Identifier: Apache-2.0
/* run.c: the frame around a run: threads of its own, a time limit, steps, and every descriptor back at the end. */
#include <sched.h>
#include <time.h>
#include "model.h"

enum { RUN_LIMIT_S = 120, DESCRIPTORS_LIMIT_MS = 10000 };

/* Draws of a step are its own, so that steps stay alike when an earlier one changes. */
enum { PART_RUN = 1, PART_FINISH = 2, PART_STEPS = 1000 };

static void begin_part(model *m, uint64_t part) {
    m->random = model_random_part(m->config->seed, part);
    m->random.choices = &m->choices;
}

static int play(model *m) {
    begin_part(m, PART_RUN);
    model_draw_weights(m);
    TRY(model_kernel_begin(m));
    /* From here on: what is above gives later choices their meaning, and should not change with each of them. */
    m->choices = (model_choices){m->config->choices, m->config->choices_count};
    TRY(model_open(m));
    uint64_t end_ns = lc_now_ns() + (uint64_t)m->config->stop_after_ms * 1000000u;
    for (m->step = 0; m->step < m->config->steps; m->step++) {
        if (m->config->choices && m->choices.left == 0)
            break;
        begin_part(m, PART_STEPS + m->step);
        m->report->steps = m->step + 1;
        TRY(model_act(m, false));
        if (m->config->stop_after_ms && !m->config->simulated && lc_now_ns() > end_ns)
            break;
    }
    begin_part(m, PART_FINISH);
    return model_finish(m);
}

/* The kernel takes a ring apart in its own time, and with it the files its operations held. */
static int check_descriptors(model *m, int before) {
    uint64_t until_ns = lc_now_ns() + (uint64_t)DESCRIPTORS_LIMIT_MS * 1000000u;
    while (model_descriptors() != before && lc_now_ns() < until_ns)
        sched_yield();
    RULE(model_descriptors() == before, "%d descriptors were open before, %d are open after", before,
         model_descriptors());
    return 0;
}

static void *run_main(void *argument) {
    model *m = argument;
    /* On the kernel in memory descriptors are counted there, and a table of its own would keep a sanitizer's report from
     * reaching the symbolizer. */
    m->isolated = !m->config->simulated && model_isolate();
    if (model_other_start(m) != 0)
        return NULL;
    int before = model_descriptors();
    if (play(m) != 0)
        model_abandon(m);
    int open = model_kernel_end(m);
    if (open != 0)
        model_fail(m, "%d descriptors were left open", open);
    if (!m->failed && m->isolated)
        check_descriptors(m, before);
    model_other_end(m);
    return NULL;
}

int model_run(const model_config *config, model_report *report) {
    *report = (model_report){0};
    model *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(report->failure, sizeof report->failure, "out of memory");
        return -1;
    }
    m->config = config;
    m->report = report;
    pthread_t thread;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RUN_LIMIT_S;
    if (pthread_create(&thread, NULL, run_main, m) != 0) {
        model_fail(m, "no thread for the run");
    } else if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        fprintf(stderr, "LoopModel: the run of seed %llu (%u steps, backend %u) hangs at step %u\n",
                (unsigned long long)config->seed, config->steps, config->backend, m->step);
        abort();
    }
    int result = m->failed ? -1 : 0;
    free(m);
    return result;
}
