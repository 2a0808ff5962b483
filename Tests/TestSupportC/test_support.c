// SPDX-License-Identifier: Apache-2.0
#include "test_support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { PATIENCE_MS = 60 * 1000, ENTRIES_MAX = 4096 };

/* Shared with another process, hence the real kernel's even where the tests run on a simulated one. */
static int real_pipe(int ends[2]) { return (int)syscall(SYS_pipe2, ends, O_CLOEXEC); }

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads until the last copy of the pipe's other end is closed, which is when the child has ended, or patience has. */
static int read_to_end(int fd, char *output, size_t capacity) {
    int64_t deadline = now_ms() + PATIENCE_MS;
    size_t length = 0;
    char overflow[512];
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&poll_fd, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return ready == 0 ? -ETIMEDOUT : -errno;
        size_t room = length + 1 < capacity ? capacity - 1 - length : 0;
        ssize_t count = room ? read(fd, output + length, room) : read(fd, overflow, sizeof overflow);
        if (count < 0 && errno != EINTR)
            return -errno;
        if (count == 0)
            return 0;
        if (room && count > 0) {
            length += (size_t)count;
            output[length] = '\0';
        }
    }
}

/* The child's exit status; it is killed first if the pipe could not be read to its end. */
static int reap(pid_t pid, int pipe_result) {
    if (pipe_result < 0)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    if (pipe_result < 0)
        return pipe_result;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The compiler's, where coverage is measured: writes the counters, which _exit would not. */
extern int __llvm_profile_write_file(void) __attribute__((weak));

int test_fork_run(int (*child)(void *), void *context) {
    int ends[2];
    if (real_pipe(ends) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        int status = child(context);
        if (__llvm_profile_write_file)
            __llvm_profile_write_file();
        _exit(status);
    }
    int error = errno;
    close(ends[1]);
    int result = pid < 0 ? -error : reap(pid, read_to_end(ends[0], NULL, 0));
    close(ends[0]);
    return result;
}

struct thread_run {
    const char *name;
    int (*body)(void *);
    void *context;
    int result;
};

static void *thread_main(void *argument) {
    struct thread_run *run = argument;
    pthread_setname_np(pthread_self(), run->name);
    run->result = run->body(run->context);
    return NULL;
}

int test_thread_run(const char *name, int (*body)(void *), void *context) {
    struct thread_run run = {.name = name, .body = body, .context = context};
    pthread_t thread;
    int error = pthread_create(&thread, NULL, thread_main, &run);
    if (error)
        return -error;
    pthread_join(thread, NULL);
    return run.result;
}

static size_t name_length(const char *entry) { return strcspn(entry, "="); }

static int same_name(const char *left, const char *right) {
    size_t length = name_length(left);
    return length == name_length(right) && memcmp(left, right, length) == 0;
}

/* The process's environment with the changes. The strings stay where they are; the list is the caller's to free. */
static char **merged(const char *const *changes) {
    char **merged = calloc(ENTRIES_MAX + 1, sizeof *merged);
    size_t count = 0;
    for (char **entry = environ; merged && *entry && count < ENTRIES_MAX; entry++) {
        size_t change = 0;
        while (changes[change] && !same_name(changes[change], *entry))
            change++;
        if (!changes[change])
            merged[count++] = *entry;
    }
    for (size_t change = 0; merged && changes[change] && count < ENTRIES_MAX; change++)
        if (strchr(changes[change], '='))
            merged[count++] = (char *)changes[change];
    return merged;
}

int test_spawn(const char *path, const char *const *arguments, const char *const *environment, char *output,
               size_t capacity) {
    output[0] = '\0';
    char **variables = merged(environment);
    if (!variables)
        return -ENOMEM;
    int ends[2];
    if (real_pipe(ends) < 0) {
        free(variables);
        return -errno;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
    pid_t pid = 0;
    int error = posix_spawn(&pid, path, &actions, NULL, (char *const *)arguments, variables);
    posix_spawn_file_actions_destroy(&actions);
    free(variables);
    close(ends[1]);
    int result = error ? -error : reap(pid, read_to_end(ends[0], output, capacity));
    close(ends[0]);
    return result;
}

int test_eventfd(unsigned value) { return eventfd(value, EFD_CLOEXEC); }

/* Two numbers, as some calls come in an old and a new form; -1 for one that this machine does not have. */
static int deny(long first, long second, int error) {
#if defined(__x86_64__)
    const uint32_t architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
    const uint32_t architecture = AUDIT_ARCH_AARCH64;
#elif defined(__riscv) && __riscv_xlen == 64
    const uint32_t architecture = AUDIT_ARCH_RISCV64;
#else
#error "Which AUDIT_ARCH_* is this machine?"
#endif
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, architecture, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)first, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)second, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA)),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    return result == 0 ? 0 : result < 0 ? -errno : -EBUSY;
}

int test_deny_io_uring_setup(int error) { return deny(SYS_io_uring_setup, -1, error); }

int test_deny_epoll_create(int error) {
#ifdef SYS_epoll_create
    return deny(SYS_epoll_create, SYS_epoll_create1, error);
#else
    return deny(-1, SYS_epoll_create1, error);
#endif
}

int test_signal_own(int index) {
    int number = SIGRTMIN + index;
    signal(number, SIG_IGN);
    test_signal_block(number, 0);
    return number;
}

int test_signal_disposition(int number) {
    struct sigaction action;
    if (sigaction(number, NULL, &action) < 0)
        return -errno;
    return action.sa_handler == SIG_DFL ? 0 : action.sa_handler == SIG_IGN ? 1 : 2;
}

void test_signal_block(int number, int blocked) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL);
}

/* In the child nothing but system calls: its memory is a copy of whatever the other threads were at. */
int test_signal_in_bare_child(int number) {
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        syscall(SYS_kill, syscall(SYS_getpid), number);
        syscall(SYS_exit_group, 0);
    }
    return reap(pid, 0);
}
