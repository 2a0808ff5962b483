// SPDX-License-Identifier: Apache-2.0
/* crowd.c: the parent's side of a crowd: forking, handing out shares, adding up reports. */
#include "samples.h"
#include "worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process says within seconds that its server is silent; this is for one that does not say anything. */
#define REPORT_SECONDS_MAX 150

struct member {
    pid_t pid;
    int channel;
};

struct crowd {
    uint32_t count;
    uint32_t connected_count; /* or under way, over all members */
    struct member members[];
};

static uint32_t share(uint32_t total, uint32_t index, uint32_t count) {
    return total / count + (index < total % count ? 1 : 0);
}

/* In the new process. Descriptors of the parent, such as the other members' channels, would keep them from seeing
 * that the parent closed them, and count against the limit. */
static _Noreturn void become_worker(int channel, const struct crowd_options *options, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(0);
    if (channel > 3)
        close_range(3, (unsigned)channel - 1, 0);
    close_range((unsigned)channel + 1, ~0u, 0);
    worker_main(channel, options);
}

static int start_member(struct member *member, const struct crowd_options *options) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become_worker(ends[1], options, parent);
    int error = errno;
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return -error;
    }
    struct timeval patience = {.tv_sec = REPORT_SECONDS_MAX};
    setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    *member = (struct member){.pid = pid, .channel = ends[0]};
    return 0;
}

int crowd_start(struct crowd **crowd, const struct crowd_options *options) {
    uint32_t count = options->process_count;
    if (count == 0 || count > options->connection_count_max)
        return -EINVAL;
    struct crowd *made = calloc(1, sizeof *made + count * sizeof made->members[0]);
    if (made == NULL)
        return -ENOMEM;
    for (uint32_t index = 0; index < count; index++) {
        struct crowd_options own = *options;
        own.connection_count_max = share(options->connection_count_max, index, count);
        int result = start_member(&made->members[index], &own);
        if (result < 0) {
            crowd_end(made);
            return result;
        }
        made->count++;
    }
    *crowd = made;
    return 0;
}

/* Shares of connections are what is missing to the share of all of them: remainders of many small tasks, each given to
 * the first member, would make it exceed its room. */
static uint32_t share_of_task(const struct crowd *crowd, const struct crowd_task *task, uint32_t index) {
    if (task->work != CROWD_CONNECT)
        return share(task->count, index, crowd->count);
    uint32_t before = share(crowd->connected_count, index, crowd->count);
    return share(crowd->connected_count + task->count, index, crowd->count) - before;
}

int crowd_begin(struct crowd *crowd, const struct crowd_task *task) {
    for (uint32_t index = 0; index < crowd->count; index++) {
        struct crowd_task own = *task;
        own.count = share_of_task(crowd, task, index);
        int result = channel_write(crowd->members[index].channel, &own, sizeof own);
        if (result < 0)
            return result;
    }
    if (task->work == CROWD_CONNECT)
        crowd->connected_count += task->count;
    return 0;
}

static int read_samples(int channel, uint64_t count, struct load_samples *samples) {
    uint32_t block[1024];
    while (count > 0) {
        size_t piece = count < 1024 ? (size_t)count : 1024;
        int result = channel_read(channel, block, piece * sizeof block[0]);
        for (size_t index = 0; result == 0 && index < piece; index++)
            result = samples_append(samples, block[index]);
        if (result < 0)
            return result;
        count -= piece;
    }
    return 0;
}

static void add(struct load_result *sum, const struct load_result *part) {
    sum->echo_count += part->echo_count;
    sum->byte_count += part->byte_count;
    sum->mismatch_count += part->mismatch_count;
    if (part->measured_ns > sum->measured_ns)
        sum->measured_ns = part->measured_ns;
}

int crowd_finish(struct crowd *crowd, struct load_samples *samples, struct load_result *result) {
    *result = (struct load_result){0};
    samples->count = 0;
    int outcome = 0;
    for (uint32_t index = 0; index < crowd->count; index++) {
        struct worker_report report = {0};
        int channel = crowd->members[index].channel;
        int lost = channel_read(channel, &report, sizeof report);
        if (lost == 0)
            lost = read_samples(channel, report.sample_count, samples);
        add(result, &report.result);
        if (outcome < 0)
            continue;
        if (lost < 0)
            snprintf(result->error, sizeof result->error, "a generator process went missing: %s", strerror(-lost));
        else if (report.outcome < 0)
            memcpy(result->error, report.result.error, sizeof result->error);
        outcome = lost < 0 ? lost : report.outcome;
    }
    return outcome;
}

void crowd_end(struct crowd *crowd) {
    /* First all of them, so that they close their connections at the same time. A member between two tasks ends by
     * itself; one that still works, because a task failed elsewhere, is told. */
    for (uint32_t index = 0; index < crowd->count; index++)
        close(crowd->members[index].channel);
    for (uint32_t index = 0; index < crowd->count; index++) {
        while (waitpid(crowd->members[index].pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    free(crowd);
}
