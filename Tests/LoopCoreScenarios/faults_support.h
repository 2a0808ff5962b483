// SPDX-License-Identifier: Apache-2.0
/* faults_support.h: what scenarios about faults share: more descriptors, chance that repeats itself, children. */
#ifndef FAULTS_SUPPORT_H
#define FAULTS_SUPPORT_H

#include <sys/types.h>
#include "scenario.h"

/* ThreadSanitizer allows no threads in a child of a process that had several. */
#if defined(__SANITIZE_THREAD__)
#define NO_THREADS_IN_CHILDREN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define NO_THREADS_IN_CHILDREN 1
#endif
#endif
#ifndef NO_THREADS_IN_CHILDREN
#define NO_THREADS_IN_CHILDREN 0
#endif

/* Raises this process's limit of descriptors towards `wanted`; *allowed is what it came to. For child processes. */
int raise_descriptors(scenario *s, uint32_t wanted, uint32_t *allowed);
/* `ordinary`, or `lengthy` with LOOP_LONG=1 in the environment. */
uint32_t rounds_of(uint32_t ordinary, uint32_t lengthy);
/* The same numbers in each run. */
uint32_t random_next(uint64_t *state);

/* ---- eventfds ---- */

int counter_open(scenario *s, int *fd);
int counter_bump(scenario *s, int fd);

/* ---- a child process that lives until it is told to end ---- */

typedef struct child {
    pid_t pid;
    int hold; /* closing it ends the child */
} child;

/* Runs `first` in a forked child, which then waits; returns once `first` has, successfully. `first` is given the end
 * of a pipe that reports, and the one that the child is to wait on, which are all it must not close. */
typedef int (*child_first)(scenario *s, void *context, int report, int hold);
int child_start(scenario *s, child *c, child_first first, void *context);
/* Lets it end, and expects exit status 0. */
int child_end(scenario *s, child *c);
/* Forks, runs `body` and expects its result, an exit status, to be 0. */
int child_returns_zero(scenario *s, int (*body)(scenario *s, void *context), void *context);

/* ---- a listener that takes whatever comes ---- */

enum { ACCEPTOR_MAX = 128 };

typedef struct acceptor {
    lc_listener *listener;
    lc_address address;
    lc_stream *streams[ACCEPTOR_MAX];
    uint32_t count, deliveries, cancels, shutdowns;
    uint64_t last_waiter;
} acceptor;

/* Becomes the listener's word, and s->on.accept its handler. */
int acceptor_open(scenario *s, acceptor *a);
int acceptor_told(scenario *s, lc_listener *listener);
int acceptor_close(scenario *s, acceptor *a);

#endif
