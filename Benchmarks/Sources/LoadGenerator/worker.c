// SPDX-License-Identifier: Apache-2.0
/* worker.c: one process of a crowd: takes a task, does it, reports, and keeps its connections meanwhile. */
#include "affinity.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int channel_write(int channel, const void *bytes, size_t length) {
    const char *rest = bytes;
    while (length > 0) {
        ssize_t sent = send(channel, rest, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -errno;
        rest += sent;
        length -= (size_t)sent;
    }
    return 0;
}

int channel_read(int channel, void *bytes, size_t length) {
    char *rest = bytes;
    while (length > 0) {
        ssize_t got = recv(channel, rest, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        if (got == 0)
            return -EPIPE;
        rest += got;
        length -= (size_t)got;
    }
    return 0;
}

static int echo(struct run *run, struct load_options *options, const struct crowd_task *task) {
    uint64_t now_ns = run_clock_ns();
    options->message_bytes = task->message_bytes;
    options->mixed_sizes = task->mixed_sizes;
    options->echo_count_each = task->echo_count_each;
    options->warmup_ns = task->begin_ns > now_ns ? task->begin_ns - now_ns : 0;
    options->measure_ns = task->end_ns - task->begin_ns;
    return run->connected_count == 0 ? 0 : run_episode(run);
}

static int perform(struct run *run, struct load_options *options, const struct crowd_task *task) {
    switch (task->work) {
    case CROWD_CONNECT:
        return run_connect(run, task->count);
    case CROWD_ECHO:
        return echo(run, options, task);
    case CROWD_CHURN:
        return churn_run(run, task);
    case CROWD_SLOW:
        return task->count == 0 ? 0 : slow_run(run, task);
    }
    return run_fail(run, EINVAL, "an unknown task");
}

/* Until the other end is closed, which is the ordinary end, or breaks. */
static void serve(int channel, struct run *run, struct load_options *options, int opened) {
    struct crowd_task task;
    while (channel_read(channel, &task, sizeof task) == 0) {
        struct worker_report report = {.outcome = opened};
        /* What opening had to say is kept for the first task, which is the first chance to say it. */
        if (opened == 0)
            *run->result = (struct load_result){0};
        run->samples->count = 0;
        if (opened == 0)
            report.outcome = perform(run, options, &task);
        report.result = *run->result;
        report.sample_count = run->samples->count;
        if (channel_write(channel, &report, sizeof report) < 0)
            return;
        if (channel_write(channel, run->samples->ns, run->samples->count * sizeof *run->samples->ns) < 0)
            return;
    }
}

_Noreturn void worker_main(int channel, const struct crowd_options *crowd) {
    struct load_options options = {
        .port = crowd->port,
        .connection_count = crowd->connection_count_max,
        .source_count = crowd->source_count,
        .message_bytes = 1,
        .depth = crowd->depth,
        .cpu = crowd->cpu,
    };
    struct load_samples samples = {0};
    struct load_result result = {0};
    struct affinity before;
    struct run *run = calloc(1, sizeof *run);
    if (run == NULL)
        _exit(1);
    *run = (struct run){.options = &options, .samples = &samples, .result = &result, .epoll = -1};

    int opened = affinity_pin(&before, options.cpu);
    if (opened < 0)
        run_fail(run, -opened, "pinning the generator");
    if (opened == 0)
        opened = run_open(run);
    serve(channel, run, &options, opened);
    run_close(run);
    _exit(0);
}
