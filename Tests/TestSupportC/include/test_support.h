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

/* A real-time signal, unblocked on this thread and otherwise ignored, so that it does no harm to a process that has no
 * handler for it. index: 0 to 29, one for each test. Returns its number. */
int test_signal_own(int index);
/* What the process does about a signal: 0: the default, 1: it ignores it, 2: it has a handler. */
int test_signal_disposition(int number);
/* Blocks or unblocks it on this thread. */
void test_signal_block(int number, int blocked);
/* Sends the signal to a child of this process that knows of no fork hooks, where it is not blocked. Returns the child's
 * exit status, 128 + the signal that ended it, or a negated errno. */
int test_signal_in_bare_child(int number);

/* From here on, every thread of this process gets -1 and this errno from the system call. For good. 0 or a negated
 * errno. */
int test_deny_io_uring_setup(int error);
int test_deny_epoll_create(int error);

#endif
