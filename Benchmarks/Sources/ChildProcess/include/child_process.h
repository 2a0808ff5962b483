// SPDX-License-Identifier: Apache-2.0
/* child_process.h: start a program on a chosen CPU, read its first line, end it within bounded time.
 *
 * Written in C because the way from fork to exec may only use async-signal-safe calls. */
#ifndef CHILD_PROCESS_H
#define CHILD_PROCESS_H

#include <stddef.h>

struct child {
    int pid;
    int output; /* read end of its standard output */
    int errors; /* a memory file with its standard error: a pipe nobody reads could fill up and block it */
};

/* Starts `arguments[0]`, looked up in PATH when it has no slash; both arrays end with NULL. `environment`, each
 * `NAME=value`, is added to ours. A negative `cpu` leaves it free. The child dies with the calling thread.
 * Returns 0 or a negated errno; a program that cannot be executed shows as one that ends with status 127. */
int child_start(struct child *child, char *const *arguments, char *const *environment, int cpu);

/* Reads from `child.output` up to a newline, which is left out, waiting at most `wait_ms_max`.
 * Returns the length, -EPIPE when the output ended first, -ETIMEDOUT, or another negated errno. */
int child_read_line(int output, char *line, size_t capacity, int wait_ms_max);

/* Waits at most `wait_ms_max` for it to end without being asked. Returns 1 when it has, 0 when not, or a negated
 * errno. child_stop() reaps it all the same. */
int child_await_end(const struct child *child, int wait_ms_max);

/* Asks with SIGTERM, insists with SIGKILL after `grace_ms`, reaps. Returns the wait status, or a negated errno.
 * `child->pid` is 0 afterwards; asking again does nothing and returns 0. */
int child_stop(struct child *child, int grace_ms);

/* The beginning of what it wrote to `child.errors`, always terminated. Returns the length. */
size_t child_read_errors(int errors, char *text, size_t capacity);

/* Closes both descriptors. */
void child_close(struct child *child);

#endif
