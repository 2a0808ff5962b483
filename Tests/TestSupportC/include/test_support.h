// SPDX-License-Identifier: Apache-2.0
/* test_support.h: what tests need of the system and Swift cannot call: fork, spawn, seccomp. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <stddef.h>

/* Forks, runs child(context) in the child and ends that with its result, without any of the parent's exit handlers.
 * Returns the result, 128 + the signal that ended the child, or a negated errno: -ETIMEDOUT when the child took more
 * than a minute and was killed. */
int test_fork_run(int (*child)(void *), void *context);

/* Runs body(context) on a new thread of that name (15 bytes at most), waits until the thread has ended, and returns the
 * result, or a negated errno. */
int test_thread_run(const char *name, int (*body)(void *), void *context);

/* Runs a program with a NULL-terminated list of arguments, and of environment entries "NAME=value" beside this
 * process's own; an entry without '=' takes a name away. What it writes to standard output and standard error goes to
 * output, zero-terminated. Returns as test_fork_run does. */
int test_spawn(const char *path, const char *const *arguments, const char *const *environment, char *output,
               size_t capacity);

/* eventfd(2), closed on exec. */
int test_eventfd(unsigned value);

/* From here on, every thread of this process gets -1 and this errno from the system call. For good. 0 or a negated
 * errno. */
int test_deny_io_uring_setup(int error);
int test_deny_epoll_create(int error);

#endif
