// SPDX-License-Identifier: Apache-2.0
/* faults_support.c: limits, chance, children and a listener, for the scenarios about faults. */
#include "faults_support.h"
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/wait.h>

int raise_descriptors(scenario *s, uint32_t wanted, uint32_t *allowed) {
    struct rlimit limit, raised;
    CHECK_CALL(getrlimit(RLIMIT_NOFILE, &limit));
    raised = limit;
    if (limit.rlim_cur < wanted) {
        raised = (struct rlimit){.rlim_cur = wanted, .rlim_max = limit.rlim_max < wanted ? wanted : limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &raised) < 0) { /* only the privileged may go beyond the hard limit */
            raised = (struct rlimit){.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
            CHECK_CALL(setrlimit(RLIMIT_NOFILE, &raised));
        }
    }
    *allowed = raised.rlim_cur < wanted ? (uint32_t)raised.rlim_cur : wanted;
    return 0;
}

uint32_t rounds_of(uint32_t ordinary, uint32_t lengthy) {
    const char *wish = getenv("LOOP_LONG");
    return wish && strcmp(wish, "1") == 0 ? lengthy : ordinary;
}

uint32_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 16);
}

/* ---- eventfds ---- */

int counter_open(scenario *s, int *fd) {
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_CALL(*fd);
    return 0;
}

int counter_bump(scenario *s, int fd) {
    uint64_t one = 1;
    CHECK_EQ(write(fd, &one, sizeof one), sizeof one);
    return 0;
}

/* ---- children ---- */

static int child_reap(scenario *s, pid_t pid) {
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status))
        return scenario_fail(s, __FILE__, __LINE__, "the child died of signal %d", WTERMSIG(status));
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    return 0;
}

int child_start(scenario *s, child *c, child_first first, void *context) {
    int report[2], hold[2];
    CHECK_CALL(pipe2(report, O_CLOEXEC));
    CHECK_CALL(pipe2(hold, O_CLOEXEC));
    c->pid = fork();
    CHECK_CALL(c->pid);
    if (c->pid == 0) {
        char byte = 0;
        close(report[0]);
        close(hold[1]);
        if (first(s, context, report[1], hold[0]) != 0 || write(report[1], &byte, 1) != 1)
            _exit(1);
        while (read(hold[0], &byte, 1) > 0)
            continue;
        _exit(0);
    }
    CHECK_CALL(close(report[1]));
    CHECK_CALL(close(hold[0]));
    c->hold = hold[1];
    /* A byte, or the end: then it has called exec, or failed, which child_end will tell. */
    char byte;
    CHECK_GE(read(report[0], &byte, 1), 0);
    CHECK_CALL(close(report[0]));
    return 0;
}

int child_end(scenario *s, child *c) {
    CHECK_CALL(close(c->hold));
    return child_reap(s, c->pid);
}

int child_returns_zero(scenario *s, int (*body)(scenario *s, void *context), void *context) {
    pid_t pid = fork();
    CHECK_CALL(pid);
    if (pid == 0)
        _exit(body(s, context));
    return child_reap(s, pid);
}

/* ---- a listener ---- */

int acceptor_told(scenario *s, lc_listener *listener) {
    acceptor *a = (acceptor *)(uintptr_t)lc_listener_word(listener);
    CHECK(listener == a->listener);
    a->deliveries++;
    a->last_waiter = lc_listener_waiter(listener);
    for (;;) {
        lc_stream *stream;
        int result = lc_listener_take(listener, &stream);
        if (result == 1) {
            CHECK_LT(a->count, ACCEPTOR_MAX);
            a->streams[a->count++] = stream;
            continue;
        }
        if (result == -ECANCELED)
            a->cancels++;
        else if (result == -ESHUTDOWN)
            a->shutdowns++;
        else
            CHECK_EQ(result, -EAGAIN);
        break;
    }
    lc_listener_finish_delivery(listener);
    return 0;
}

int acceptor_open(scenario *s, acceptor *a) {
    *a = (acceptor){0};
    int fd;
    TRY(listen_anywhere(s, ACCEPTOR_MAX, &fd, &a->address));
    CHECK_EQ(lc_listener_adopt(s->loop, fd, &a->listener), 0);
    lc_listener_set_word(a->listener, (uint64_t)(uintptr_t)a);
    s->on.accept = acceptor_told;
    return 0;
}

int acceptor_close(scenario *s, acceptor *a) {
    for (uint32_t index = 0; index < a->count; index++)
        lc_stream_release(a->streams[index]);
    a->count = 0;
    lc_listener_release(a->listener);
    return scenario_settle(s);
}
