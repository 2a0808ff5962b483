// SPDX-License-Identifier: Apache-2.0
/* LoopMutants: plays cases one after another until one fails, for .ci/mutants.sh.
 *
 *   LoopMutants --list       every case: its name, and how long it took, or why it failed
 *   LoopMutants              the cases on standard input, one on each line: kind, number, backend, tiny, milliseconds
 *
 * A case is a scenario, a seed of the model on the simulated kernel, or one of the model's found cases over 50 seeds.
 * A case that takes many times as long ends the process, so a hang is a failure like another. */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "loop_core.h"
#include "loop_core_scenarios.h"
#include "loop_model.h"

enum { SEEDS_LISTED = 60, SEEDS_FOUND = 50, STEPS = 1500, LIMIT_MS = 3000, LIMIT_TIMES = 20, LIST_LIMIT_MS = 600000 };

typedef enum play_kind { PLAY_SCENARIO, PLAY_SEED, PLAY_FOUND } play_kind;

typedef struct play {
    play_kind kind;
    unsigned number, backend, tiny;
} play;

static _Atomic uint64_t ends_ms; /* the latest for the case at hand; 0: none */

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void *watch(void *unused) {
    for (;;) {
        uint64_t ends = atomic_load(&ends_ms);
        if (ends != 0 && now_ms() > ends) {
            static const char text[] = "hang\n";
            ssize_t written = write(STDOUT_FILENO, text, sizeof text - 1);
            _exit(written < 0 ? 4 : 3);
        }
        usleep(50000);
    }
    return unused;
}

static int play_seed(const play *which, char *failure, size_t size) {
    model_report report;
    model_config config = {.seed = which->number, .steps = STEPS, .backend = which->backend};
    config.tiny = which->tiny;
    config.simulated = true;
    int result = model_run(&config, &report);
    if (result < 0)
        snprintf(failure, size, "%s", report.failure);
    return result;
}

static int play_found(const play *which, char *failure, size_t size) {
    static int (*const bodies[])(uint64_t, uint32_t, char *, size_t) = {model_found_connect_error,
                                                                        model_found_cut_short, model_found_left_early};
    for (uint64_t seed = 1; which->number < 3 && seed <= SEEDS_FOUND; seed++)
        if (bodies[which->number](seed, which->backend, failure, size) < 0)
            return -1;
    return 0;
}

static int play_one(const play *which, uint64_t limit_ms, char *failure, size_t size) {
    failure[0] = '\0';
    atomic_store(&ends_ms, now_ms() + limit_ms);
    int result;
    switch (which->kind) {
    case PLAY_SCENARIO:
        result = which->number < loop_core_scenario_count()
                     ? loop_core_scenario_at(which->number)->run(which->backend, which->tiny, failure, size)
                     : -1;
        break;
    case PLAY_SEED:
        result = play_seed(which, failure, size);
        break;
    default:
        result = play_found(which, failure, size);
    }
    atomic_store(&ends_ms, 0);
    return result;
}

static void print_name(const play *which) {
    static const char *const kinds[] = {"", "seed", "found"};
    printf("%d %u %u %u\t", which->kind, which->number, which->backend, which->tiny);
    if (which->kind == PLAY_SCENARIO)
        printf("%s", loop_core_scenario_at(which->number)->name);
    else
        printf("%s %u", kinds[which->kind], which->number);
    printf(" [%s%s]", which->backend == LC_BACKEND_PROACTOR ? "proactor" : "selector", which->tiny ? ", tiny" : "");
}

static void list_one(play which) {
    char failure[1024];
    print_name(&which);
    fflush(stdout);
    uint64_t before = now_ms();
    int result = play_one(&which, LIST_LIMIT_MS, failure, sizeof failure);
    printf("\t%" PRIu64 "\t%s\n", now_ms() - before, result == 0 ? "" : failure);
}

static int list(void) {
    for (unsigned backend = LC_BACKEND_SELECTOR; backend <= LC_BACKEND_PROACTOR; backend++) {
        for (unsigned index = 0; index < loop_core_scenario_count(); index++)
            for (unsigned tiny = 0; tiny <= 1; tiny++)
                list_one((play){PLAY_SCENARIO, index, backend, tiny});
        for (unsigned seed = 1; seed <= SEEDS_LISTED; seed++)
            list_one((play){PLAY_SEED, seed, backend, seed % 4 == 0});
        for (unsigned found = 0; found < 3; found++)
            list_one((play){PLAY_FOUND, found, backend, 0});
    }
    return 0;
}

int main(int argc, char **argv) {
    pthread_t watcher;
    if (pthread_create(&watcher, NULL, watch, NULL) != 0)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && !strcmp(argv[1], "--list"))
        return list();
    char failure[1024];
    unsigned kind, took_ms;
    play which;
    while (scanf("%u %u %u %u %u", &kind, &which.number, &which.backend, &which.tiny, &took_ms) == 5) {
        which.kind = (play_kind)kind;
        print_name(&which);
        printf("\n");
        if (play_one(&which, LIMIT_MS + LIMIT_TIMES * took_ms, failure, sizeof failure) < 0) {
            printf("failed: %s\n", failure);
            return 1;
        }
    }
    return 0;
}
