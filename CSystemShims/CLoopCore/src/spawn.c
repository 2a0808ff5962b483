// SPDX-License-Identifier: Apache-2.0
/* spawn.c: child processes: start one, learn of its end, send it signals. No loop here.
 *
 * The child borrows this process's memory until it executes its program, and the calling thread sleeps until then
 * (CLONE_VM and CLONE_VFORK, as posix_spawn does it). So a start costs the same however large this process is; no hooks
 * of pthread_atfork run; and how it went is told through memory, not through a pipe that a fork elsewhere could hold
 * open. The process descriptor comes with the child: a number that was given out again meanwhile cannot be meant. */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "internal.h"
#include "lc_spawn.h"

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum {
    LC__P_PIDFD = 3,
    LC__CLOSE_RANGE_CLOEXEC = 1u << 2,
    LC__SIGNAL_SET_BYTES = 8, /* the kernel's, which knows no more signals than these */
    LC__SIGNAL_COUNT = 64,
    LC__CHILD_STACK = 64 * 1024,
    LC__GUARD = 64 * 1024, /* a page, whatever its size here */
};

/* A sanitizer must not take what the child does for what this thread did. ThreadSanitizer also has a clone of its own,
 * which prepares for a copy of the memory. */
#if defined(__clang__) || defined(__GNUC__)
#define LC__IN_CHILD __attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"), noinline))
#else
#define LC__IN_CHILD
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
int __clone(int (*body)(void *), void *stack, int flags, void *argument, ...);
#define clone __clone
#endif
#endif

extern char **environ;

struct lc__start {
    const lc_spawn *spawn;
    int *moved; /* room for each descriptor */
    int beyond; /* above all targets */
    lc_spawn_step step;
    int error;
};

/* What the kernel takes for an action: all zero is the default one. Larger than any of them. */
static const unsigned char lc__default_action[64];

/* Runs in the child, on a stack of its own but in the parent's memory: system calls alone, and no function of the C
 * library that could keep something for later. */
LC__IN_CHILD static bool lc__place_descriptors(struct lc__start *start) {
    const lc_spawn *spawn = start->spawn;
    /* First away from all targets, so that none is overwritten before it was used. */
    for (uint32_t i = 0; i < spawn->descriptor_count; i++) {
        long moved = syscall(SYS_fcntl, spawn->descriptors[i].source, F_DUPFD_CLOEXEC, start->beyond);
        if (moved < 0)
            return false;
        start->moved[i] = (int)moved;
    }
    /* A kernel before 5.11 does not know this. All descriptors of this library are closed on exec anyway. */
    if (!spawn->keep_others)
        syscall(SYS_close_range, 3u, ~0u, LC__CLOSE_RANGE_CLOEXEC);
    for (uint32_t i = 0; i < spawn->descriptor_count; i++)
        if (syscall(SYS_dup3, start->moved[i], spawn->descriptors[i].target, 0) < 0)
            return false;
    return true;
}

LC__IN_CHILD static bool lc__execute(struct lc__start *start) {
    const lc_spawn *spawn = start->spawn;
    int error = ENOENT;
    for (const char *const *path = spawn->paths; *path; path++) {
        syscall(SYS_execve, *path, spawn->arguments, spawn->environment);
        if (errno == EACCES) /* there may be a better one further on */
            error = EACCES;
        else if (errno != ENOENT && errno != ENOTDIR)
            return false;
    }
    errno = error;
    return false;
}

LC__IN_CHILD static int lc__child(void *argument) {
    struct lc__start *start = argument;
    const lc_spawn *spawn = start->spawn;
    /* Until here everything was blocked. A handler of this process must not run in that one. */
    for (int number = 1; number <= LC__SIGNAL_COUNT; number++)
        syscall(SYS_rt_sigaction, number, lc__default_action, NULL, LC__SIGNAL_SET_BYTES);
    uint64_t none = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, LC__SIGNAL_SET_BYTES);
    start->step = LC_SPAWN_GROUP;
    bool good = true;
    if (spawn->new_session)
        good = syscall(SYS_setsid) >= 0;
    else if (spawn->process_group >= 0)
        good = syscall(SYS_setpgid, 0, spawn->process_group) >= 0;
    if (good) {
        start->step = LC_SPAWN_DESCRIPTORS;
        good = lc__place_descriptors(start);
    }
    if (good && spawn->directory) {
        start->step = LC_SPAWN_DIRECTORY;
        good = syscall(SYS_chdir, spawn->directory) >= 0;
    }
    if (good) {
        start->step = LC_SPAWN_EXECUTE;
        lc__execute(start);
    }
    start->error = errno;
    syscall(SYS_exit_group, 127);
    __builtin_unreachable();
}

static int lc__start(struct lc__start *start, lc_child *out) {
    size_t size = LC__GUARD + LC__CHILD_STACK;
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED)
        return -errno;
    mprotect(stack, LC__GUARD, PROT_NONE);
    uint64_t all = ~(uint64_t)0, before;
    int pidfd = -1;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, LC__SIGNAL_SET_BYTES);
    int pid = clone(lc__child, stack + size, CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, start, &pidfd);
    int error = errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, LC__SIGNAL_SET_BYTES);
    munmap(stack, size);
    if (pid < 0)
        return -error;
    *out = (lc_child){.pid = pid, .pidfd = pidfd};
    return 0;
}

int lc_spawn_start(const lc_spawn *spawn, lc_child *out, lc_spawn_step *step) {
    struct lc__start start = {.spawn = spawn, .beyond = 3};
    for (uint32_t i = 0; i < spawn->descriptor_count; i++)
        if (spawn->descriptors[i].target >= start.beyond)
            start.beyond = spawn->descriptors[i].target + 1;
    *step = LC_SPAWN_PREPARE;
    start.moved = calloc(spawn->descriptor_count + 1, sizeof *start.moved);
    if (!start.moved)
        return -ENOMEM;
    int result = lc__start(&start, out);
    free(start.moved);
    if (result == 0 && start.error) {
        /* It has ended already, or is about to. */
        *step = start.step;
        result = -start.error;
        siginfo_t info;
        while (waitid((idtype_t)LC__P_PIDFD, (id_t)out->pidfd, &info, WEXITED) < 0 && errno == EINTR)
            ;
        close(out->pidfd);
    }
    return result;
}

int lc_child_reap(int pidfd, lc_child_end *out) {
    siginfo_t info;
    int result;
    info.si_pid = 0;
    do
        result = waitid((idtype_t)LC__P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        return -errno;
    if (info.si_pid == 0)
        return 0;
    *out = (lc_child_end){0};
    *(info.si_code == CLD_EXITED ? &out->code : &out->signal) = info.si_status;
    return 1;
}

int lc_child_reap_within(int pidfd, int milliseconds, lc_child_end *out) {
    struct pollfd look = {.fd = pidfd, .events = POLLIN};
    uint64_t limit = lc_now_ns() + (uint64_t)milliseconds * 1000000;
    while (true) {
        uint64_t now = lc_now_ns();
        int left = now < limit ? (int)((limit - now + 999999) / 1000000) : 0;
        int result = poll(&look, 1, left);
        if (result >= 0 || errno != EINTR)
            return lc_child_reap(pidfd, out);
    }
}

int lc_child_signal(int pidfd, int signal) {
    if (syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0) == 0 || errno == ESRCH)
        return 0;
    return -errno;
}

const char *const *lc_environment(void) {
    static const char *const none[] = {NULL};
    return environ ? (const char *const *)environ : none;
}
