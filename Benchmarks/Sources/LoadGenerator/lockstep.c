// SPDX-License-Identifier: Apache-2.0
/* lockstep.c: waves. Every connection sends its messages, the server works until it sleeps, everything is received;
 * then again.
 *
 * What a server shares among connections, such as a wait or an entry, depends on how many of them it finds ready. In a
 * closed loop that is a matter of luck; here every wave finds the server asleep and is there in whole when it
 * wakes, so counts repeat. For that the generator shares the server's CPU and has a real-time priority, so that the
 * server runs when the generator sleeps. Where that is refused, the server's threads become SCHED_BATCH, which does
 * not preempt at wake-up; others that want the CPU may still give the server its chance in the middle of a wave, and
 * such waves are reported. */
#include "lockstep.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Between two looks at the server: long enough that looking does not slow it down. */
#define LOOK_NS 100000

/* Keeps the server behind a generator of ordinary priority; still a third of the CPU beside a busy neighbour. */
#define SERVER_NICE 5

/* The letter proc(5) gives a thread, or 'X' when it is gone. */
static char thread_state(int tasks, const char *thread) {
    char path[32], text[512];
    snprintf(path, sizeof path, "%.20s/stat", thread);
    int file = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 'X';
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0)
        return 'X';
    text[length] = '\0';
    /* The name before it is in parentheses and may contain some. */
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && name_end[1] == ' ' ? name_end[2] : 'X';
}

/* Refusals leave counts that repeat less well, not wrong ones. */
static void give_way(const char *thread) {
    pid_t id = (pid_t)strtol(thread, NULL, 10);
    struct sched_param parameter = {.sched_priority = 0};
    (void)sched_setscheduler(id, SCHED_BATCH, &parameter);
    (void)setpriority(PRIO_PROCESS, (id_t)id, SERVER_NICE);
}

/* 1 when all threads of the server sleep, 0 when one runs, or a negated errno. */
static int server_sleeps(struct run *run, bool gives_way) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", run->options->server_pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return run_fail(run, errno, "looking at the server's threads");

    int sleeps = 1;
    for (struct dirent *entry = readdir(tasks); entry != NULL; entry = readdir(tasks)) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        if (gives_way)
            give_way(entry->d_name);
        if (strchr("SXZ", thread_state(dirfd(tasks), entry->d_name)) == NULL)
            sleeps = 0;
    }
    closedir(tasks);
    return sleeps;
}

static int await_sleep(struct run *run, bool gives_way) {
    for (;;) {
        struct timespec pause = {.tv_nsec = LOOK_NS};
        nanosleep(&pause, NULL);
        int sleeps = server_sleeps(run, gives_way);
        if (sleeps != 0)
            return sleeps;
        run->now_ns = run_clock_ns();
        if (run->now_ns - run->progress_ns >= SILENCE_NS_MAX)
            return run_fail(run, ETIMEDOUT, "the server did not come to rest");
    }
}

/* Sends what did not fit before, receives all there is. */
static int exchange_stream(struct run *run, struct stream *stream) {
    int result = stream_send(run, stream);
    uint64_t before;
    do {
        before = stream->received;
        if (result == 0 && stream->finished_count < stream->started_count)
            result = stream_receive(run, stream);
    } while (result == 0 && stream->received != before);
    return result;
}

/* Somebody else may want the CPU in the middle of it, and the server run after that. */
static int send_wave(struct run *run) {
    uint64_t used_ns = run_server_cpu_ns(run);
    for (uint32_t index = 0; index < run->options->connection_count; index++) {
        int result = stream_start(run, &run->streams[index]);
        if (result < 0)
            return result;
    }
    if (run_server_cpu_ns(run) != used_ns)
        run->result->disturbed_count++;
    return 0;
}

static int finish_wave(struct run *run) {
    while (run->in_flight_count > 0) {
        int result = await_sleep(run, false);
        for (uint32_t index = 0; result >= 0 && index < run->options->connection_count; index++)
            result = exchange_stream(run, &run->streams[index]);
        if (result < 0)
            return result;
        run->now_ns = run_clock_ns();
        if (run->now_ns - run->progress_ns >= SILENCE_NS_MAX)
            return run_fail(run, ETIMEDOUT, "the server did not answer");
    }
    return 0;
}

static int exchange_waves(struct run *run, bool gives_way) {
    int result = await_sleep(run, gives_way);
    while (result >= 0 && run->start_limit < run->options->echo_count_each) {
        run->start_limit += run->options->depth;
        if (run->start_limit > run->options->echo_count_each)
            run->start_limit = run->options->echo_count_each;
        if (result >= 0)
            result = send_wave(run);
        if (result >= 0)
            result = finish_wave(run);
        if (result >= 0)
            result = await_sleep(run, false);
    }
    return result < 0 ? result : 0;
}

int lockstep_exchange(struct run *run) { return exchange_waves(run, !run->priority.raised); }

void lockstep_go_first(struct priority *before) {
    struct sched_param first = {.sched_priority = 1};
    before->policy = sched_getscheduler(0);
    sched_getparam(0, &before->parameter);
    before->raised = sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) == 0;
}

void lockstep_step_back(const struct priority *before) {
    if (before->raised)
        sched_setscheduler(0, before->policy, &before->parameter);
}
