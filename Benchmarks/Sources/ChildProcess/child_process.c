// SPDX-License-Identifier: Apache-2.0
/* child_process.c: fork, pin, exec; and the bounded ways back. */
#include "child_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* Ours without the names in `additions`, then the additions. Strings are borrowed, only the array is new. */
static char **merged_environment(char *const *additions) {
    size_t ours = 0, added = 0, count = 0;
    while (environ[ours] != NULL)
        ours++;
    while (additions[added] != NULL)
        added++;
    char **merged = calloc(ours + added + 1, sizeof *merged);
    if (merged == NULL)
        return NULL;

    for (size_t index = 0; index < ours; index++) {
        size_t name = strcspn(environ[index], "=") + 1;
        size_t match = 0;
        while (match < added && strncmp(environ[index], additions[match], name) != 0)
            match++;
        if (match == added)
            merged[count++] = environ[index];
    }
    for (size_t index = 0; index < added; index++)
        merged[count++] = additions[index];
    return merged;
}

static _Noreturn void become(char *const *arguments, char **environment, int output, int errors, int cpu,
                             pid_t parent) {
    /* Nobody is left to end the server when the benchmark is killed; the second line covers a parent that went
     * before the first took effect. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);

    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= 0) {
        CPU_SET((size_t)cpu, &set);
        sched_setaffinity(0, sizeof set, &set);
    }

    dup2(output, STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    execvpe(arguments[0], arguments, environment);

    const char *reason = strerror(errno);
    (void)!write(STDERR_FILENO, arguments[0], strlen(arguments[0]));
    (void)!write(STDERR_FILENO, ": ", 2);
    (void)!write(STDERR_FILENO, reason, strlen(reason));
    _exit(127);
}

int child_start(struct child *child, char *const *arguments, char *const *environment, int cpu) {
    *child = (struct child){.pid = 0, .output = -1, .errors = -1};
    int ends[2] = {-1, -1};
    int result = 0;

    char **merged = merged_environment(environment);
    if (merged == NULL)
        return -ENOMEM;
    child->errors = memfd_create("standard-error", MFD_CLOEXEC);
    if (child->errors < 0 || pipe2(ends, O_CLOEXEC) < 0) {
        result = -errno;
    } else {
        child->output = ends[0];
        pid_t parent = getpid();
        child->pid = fork();
        if (child->pid == 0)
            become(arguments, merged, ends[1], child->errors, cpu, parent);
        if (child->pid < 0)
            result = -errno;
    }

    if (ends[1] >= 0)
        close(ends[1]);
    free(merged);
    if (result < 0) {
        child->pid = 0;
        child_close(child);
    }
    return result;
}

static int64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* 1 when readable, 0 when the time is over, or a negated errno. */
static int wait_readable(int fd, int64_t deadline_ms) {
    for (;;) {
        int64_t left = deadline_ms - clock_ms();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait, 1, left > 0 ? (int)left : 0);
        if (ready >= 0)
            return ready;
        if (errno != EINTR)
            return -errno;
    }
}

int child_read_line(int output, char *line, size_t capacity, int wait_ms_max) {
    int64_t deadline_ms = clock_ms() + wait_ms_max;
    size_t length = 0;
    while (length + 1 < capacity) {
        int ready = wait_readable(output, deadline_ms);
        if (ready < 0)
            return ready;
        if (ready == 0)
            return -ETIMEDOUT;
        /* One byte at a time leaves later lines in the pipe; it is one short line per process. */
        ssize_t got = read(output, line + length, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return -EPIPE;
        if (line[length] == '\n')
            break;
        length++;
    }
    line[length] = '\0';
    return (int)length;
}

int child_await_end(const struct child *child, int wait_ms_max) {
    if (child->pid <= 0)
        return 1;
    int handle = pidfd_open(child->pid, 0);
    if (handle < 0)
        return -errno;
    int ended = wait_readable(handle, clock_ms() + wait_ms_max);
    close(handle);
    return ended;
}

int child_stop(struct child *child, int grace_ms) {
    if (child->pid <= 0)
        return 0;
    pid_t pid = child->pid;
    child->pid = 0;

    /* It is our child and not reaped yet, so the number cannot belong to anybody else. */
    int handle = pidfd_open(pid, 0);
    kill(pid, SIGTERM);
    int ended = handle < 0 ? 0 : wait_readable(handle, clock_ms() + grace_ms);
    if (ended <= 0)
        kill(pid, SIGKILL);
    if (handle >= 0)
        close(handle);

    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return status;
}

size_t child_read_errors(int errors, char *text, size_t capacity) {
    ssize_t got = pread(errors, text, capacity - 1, 0);
    size_t length = got > 0 ? (size_t)got : 0;
    text[length] = '\0';
    return length;
}

void child_close(struct child *child) {
    if (child->output >= 0)
        close(child->output);
    if (child->errors >= 0)
        close(child->errors);
    child->output = -1;
    child->errors = -1;
}
