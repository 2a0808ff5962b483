// SPDX-License-Identifier: Apache-2.0
/* run.c: the phases of a run: connect, warm up, measure, drain.
 *
 * Draining waits for what is still in flight, so that those bytes are compared too and the server sees orderly
 * closes. With a fixed number of echoes there is no warm-up and the measured time ends with the last echo. */
#include "affinity.h"
#include "lockstep.h"
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define EVENT_COUNT_MAX 1024

uint64_t run_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

int run_fail(struct run *run, int error, const char *what) {
    const char *hint = error == EMFILE ? " (raise the descriptor limit: ulimit -n)" : "";
    snprintf(run->result->error, sizeof run->result->error, "%s: %s%s", what, strerror(error), hint);
    return -error;
}

uint64_t run_server_cpu_ns(const struct run *run) {
    clockid_t clock;
    struct timespec used;
    if (run->options->server_pid <= 0)
        return 0;
    if (clock_getcpuclockid(run->options->server_pid, &clock) != 0)
        return 0;
    if (clock_gettime(clock, &used) < 0)
        return 0;
    return (uint64_t)used.tv_sec * 1000000000ull + (uint64_t)used.tv_nsec;
}

static void enter_phase(struct run *run, enum phase phase) {
    uint64_t cpu_ns = run_server_cpu_ns(run);
    if (run->phase == PHASE_MEASURE) {
        run->result->measured_ns = run->now_ns - run->phase_ns;
        run->result->server_cpu_ns = cpu_ns - run->result->server_cpu_ns;
    }
    if (phase == PHASE_MEASURE)
        run->result->server_cpu_ns = cpu_ns;
    run->phase = phase;
    run->phase_ns = run->now_ns;
}

/* When the present phase ends by the clock; UINT64_MAX when it ends by events. */
static uint64_t phase_end_ns(const struct run *run) {
    if (run->options->echo_count_each > 0)
        return UINT64_MAX;
    if (run->phase == PHASE_WARMUP)
        return run->phase_ns + run->options->warmup_ns;
    if (run->phase == PHASE_MEASURE)
        return run->phase_ns + run->options->measure_ns;
    return UINT64_MAX;
}

static void advance_phase(struct run *run) {
    if (run->phase == PHASE_WARMUP && run->now_ns >= phase_end_ns(run))
        enter_phase(run, PHASE_MEASURE);
    if (run->phase == PHASE_MEASURE && run->now_ns >= phase_end_ns(run))
        enter_phase(run, PHASE_DRAIN);
    if (run->phase == PHASE_MEASURE && run->options->echo_count_each > 0 && run->in_flight_count == 0) {
        enter_phase(run, PHASE_DRAIN);
    }
}

/* Milliseconds until the clock matters next, rounded up so that it has really passed. */
static int wait_ms(const struct run *run) {
    uint64_t until = run->progress_ns + SILENCE_NS_MAX;
    uint64_t phase_end = phase_end_ns(run);
    if (phase_end < until)
        until = phase_end;
    return until <= run->now_ns ? 0 : (int)((until - run->now_ns + 999999) / 1000000);
}

static int handle(struct run *run, const struct epoll_event *event) {
    struct stream *stream = event->data.ptr;
    if (event->events & EPOLLOUT) {
        int result = stream_send(run, stream);
        if (result < 0)
            return result;
    }
    if (event->events & ~(uint32_t)EPOLLOUT)
        return stream_receive(run, stream);
    return 0;
}

static int exchange(struct run *run) {
    struct epoll_event events[EVENT_COUNT_MAX];
    while (run->phase != PHASE_DRAIN || run->in_flight_count > 0) {
        int count = epoll_wait(run->epoll, events, EVENT_COUNT_MAX, wait_ms(run));
        if (count < 0 && errno != EINTR)
            return run_fail(run, errno, "epoll_wait");
        for (int index = 0; index < count; index++) {
            int result = handle(run, &events[index]);
            if (result < 0)
                return result;
        }
        if (count <= 0)
            run->now_ns = run_clock_ns();
        advance_phase(run);
        if (run->now_ns - run->progress_ns >= SILENCE_NS_MAX) {
            return run_fail(run, ETIMEDOUT, "the server did not answer");
        }
    }
    return 0;
}

/* Positions and message numbers begin anew with each episode; the pattern goes on where it was. */
static void rewind_stream(struct stream *stream) {
    stream->origin += stream->received;
    stream->queued = stream->sent = stream->received = 0;
    stream->started_count = stream->finished_count = stream->finish_at = 0;
}

static int start(struct run *run) {
    run->now_ns = run_clock_ns();
    run->progress_ns = run->now_ns;
    for (uint32_t index = 0; index < run->connected_count; index++)
        rewind_stream(&run->streams[index]);
    enter_phase(run, run->options->echo_count_each > 0 ? PHASE_MEASURE : PHASE_WARMUP);
    if (run->options->lockstep) {
        int result = lockstep_exchange(run);
        advance_phase(run);
        return result;
    }
    run->start_limit = run->options->echo_count_each;
    for (uint32_t index = 0; index < run->connected_count; index++) {
        run->now_ns = run_clock_ns();
        int result = stream_start(run, &run->streams[index]);
        if (result < 0)
            return result;
    }
    return 0;
}

int run_open(struct run *run) {
    uint32_t count = run->options->connection_count;
    uint32_t depth = run->options->depth;
    if (count == 0 || depth == 0 || run->options->message_bytes == 0) {
        return run_fail(run, EINVAL, "connections, depth and message size must be at least 1");
    }
    run->streams = calloc(count, sizeof *run->streams);
    run->started_ns = calloc((size_t)count * depth, sizeof *run->started_ns);
    if (run->streams == NULL || run->started_ns == NULL)
        return run_fail(run, ENOMEM, "preparing connections");
    for (uint32_t index = 0; index < count; index++) {
        run->streams[index].fd = -1;
        run->streams[index].origin = (uint64_t)index * 97;
        run->streams[index].started_ns = run->started_ns + (size_t)index * depth;
    }
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run->epoll < 0)
        return run_fail(run, errno, "epoll_create1");
    pattern_prepare();
    return 0;
}

void run_close(struct run *run) {
    for (uint32_t index = 0; run->streams != NULL && index < run->options->connection_count; index++) {
        if (run->streams[index].fd >= 0)
            close(run->streams[index].fd);
    }
    if (run->epoll >= 0)
        close(run->epoll);
    free(run->streams);
    free(run->started_ns);
}

int run_episode(struct run *run) {
    run->phase = PHASE_CONNECT;
    int result = start(run);
    return result < 0 ? result : exchange(run);
}

static int run_phases(struct run *run) {
    int result = run_open(run);
    if (result == 0)
        result = run_connect(run, run->options->connection_count);
    if (result == 0)
        result = run_episode(run);
    run_close(run);
    return result;
}

int load_run(const struct load_options *options, struct load_samples *samples, struct load_result *result) {
    *result = (struct load_result){0};
    samples->count = 0;

    struct run *run = calloc(1, sizeof *run);
    if (run == NULL) {
        snprintf(result->error, sizeof result->error, "no memory for a run");
        return -ENOMEM;
    }
    *run = (struct run){.options = options, .samples = samples, .result = result, .epoll = -1};

    struct affinity before;
    int outcome = affinity_pin(&before, options->cpu);
    if (outcome < 0)
        run_fail(run, -outcome, "pinning the generator");
    if (options->lockstep)
        lockstep_go_first(&run->priority);
    if (outcome == 0)
        outcome = run_phases(run);
    lockstep_step_back(&run->priority);
    affinity_restore(&before);
    free(run);
    return outcome;
}
