// SPDX-License-Identifier: Apache-2.0
/* LoopFuzz: plays fresh seeds of the model until the time is over, and says how to play one again.
 *
 *   LoopFuzz [--seconds N] [--seed S] [--steps N] [--backend selector|proactor|both] [--kernel real|simulated]
 *            [--focus any|cancels|timers] [--tiny] [--calm] [--trace]
 *
 * With --seed it plays that seed, once on each backend. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "loop_core.h"
#include "loop_model.h"

typedef struct fuzz_arguments {
    uint64_t seconds, seed, steps;
    bool seed_given, selector, proactor;
    model_config config;
} fuzz_arguments;

static int usage(void) {
    fprintf(stderr,
            "usage: LoopFuzz [--seconds N] [--seed S] [--steps N] [--backend selector|proactor|both]\n"
            "                [--kernel real|simulated] [--focus any|cancels|timers] [--tiny] [--calm] [--trace]\n");
    return 2;
}

static bool number(const char *text, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return errno == 0 && *text && !*end;
}

static bool read_choice(fuzz_arguments *arguments, const char *name, const char *value) {
    if (!strcmp(name, "--backend")) {
        arguments->selector = strcmp(value, "proactor") != 0;
        arguments->proactor = strcmp(value, "selector") != 0;
        return !strcmp(value, "both") || arguments->selector != arguments->proactor;
    }
    if (!strcmp(name, "--kernel")) {
        arguments->config.simulated = !strcmp(value, "simulated");
        return arguments->config.simulated || !strcmp(value, "real");
    }
    if (!strcmp(name, "--focus")) {
        arguments->config.focus = !strcmp(value, "cancels")  ? MODEL_FOCUS_CANCELS
                                  : !strcmp(value, "timers") ? MODEL_FOCUS_TIMERS
                                                             : MODEL_FOCUS_ANY;
        return arguments->config.focus != MODEL_FOCUS_ANY || !strcmp(value, "any");
    }
    if (!strcmp(name, "--seed"))
        return arguments->seed_given = number(value, &arguments->seed);
    if (!strcmp(name, "--seconds"))
        return number(value, &arguments->seconds);
    return !strcmp(name, "--steps") && number(value, &arguments->steps);
}

static bool read_arguments(fuzz_arguments *arguments, int count, char **values) {
    for (int index = 1; index < count; index++) {
        if (!strcmp(values[index], "--tiny"))
            arguments->config.tiny = true;
        else if (!strcmp(values[index], "--calm"))
            arguments->config.calm = true;
        else if (!strcmp(values[index], "--trace"))
            arguments->config.trace = true;
        else if (index + 1 >= count || !read_choice(arguments, values[index], values[index + 1]))
            return false;
        else
            index++;
    }
    return true;
}

static const char *name_of(uint32_t backend) { return backend == LC_BACKEND_PROACTOR ? "proactor" : "selector"; }

static void print_replay(const model_config *config) {
    static const char *focuses[] = {"any", "cancels", "timers"};
    printf("Play it again:\n  make fuzz SEED=%" PRIu64 " STEPS=%u BACKEND=%s KERNEL=%s%s%s%s%s\n", config->seed,
           config->steps, name_of(config->backend), config->simulated ? "simulated" : "real",
           config->focus ? " FOCUS=" : "", config->focus ? focuses[config->focus] : "", config->tiny ? " TINY=1" : "",
           config->calm ? " CALM=1" : "");
}

static bool play(const model_config *config) {
    model_report report;
    /* Before it, since a run may end the process. */
    printf("seed %" PRIu64 ", %u steps, %s%s, %s: ", config->seed, config->steps, name_of(config->backend),
           config->tiny ? ", tiny" : "", config->simulated ? "simulated" : "real");
    fflush(stdout);
    if (model_run(config, &report) == 0) {
        printf("%" PRIu64 " passes, %" PRIu64 " deliveries, %" PRIu64 " loops, %" PRIu64 "+%" PRIu64 " bytes\n",
               report.passes, report.deliveries, report.loops, report.bytes_in, report.bytes_out);
        return true;
    }
    printf("FAILED\n  %s\n", report.failure);
    print_replay(config);
    return false;
}

int main(int argc, char **argv) {
    fuzz_arguments arguments = {.seconds = 10, .steps = 1500, .selector = true, .proactor = true};
    if (!read_arguments(&arguments, argc, argv))
        return usage();
    model_config config = arguments.config;
    config.steps = (uint32_t)arguments.steps;
    if (config.simulated && !model_simulator_is_linked()) {
        fprintf(stderr, "LoopFuzz: there is no kernel in memory in this build\n");
        return 2;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    time_t end = now.tv_sec + (time_t)arguments.seconds;
    uint64_t seed = arguments.seed_given ? arguments.seed : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    setvbuf(stdout, NULL, _IOLBF, 0);
    do {
        config.seed = seed++;
        /* Without a seed of one's own, every fourth run is tiny. */
        config.tiny = arguments.config.tiny || (!arguments.seed_given && config.seed % 4 == 0);
        for (uint32_t backend = LC_BACKEND_SELECTOR; backend <= LC_BACKEND_PROACTOR; backend++) {
            config.backend = backend;
            bool wanted = backend == LC_BACKEND_SELECTOR ? arguments.selector : arguments.proactor;
            if (wanted && !play(&config))
                return 1;
        }
    } while (!arguments.seed_given && time(NULL) < end);
    return 0;
}
