// SPDX-License-Identifier: Apache-2.0
/* load_crowd.h: the load generator in several processes, for more connections than one process may have descriptors.
 *
 * The connections outlive a task, so that a crowd can connect, echo, be idle, and echo again. Each task is begun on
 * all processes and then waited for; between the two the caller is free to look at the server. */
#ifndef LOAD_CROWD_H
#define LOAD_CROWD_H

#include "load_generator.h"

enum crowd_work {
    CROWD_CONNECT, /* `count` further connections, over all processes together */
    CROWD_ECHO,    /* on every open connection */
    CROWD_CHURN,   /* `count` clients that connect, have one message echoed, and reset the connection */
    CROWD_SLOW,    /* the first process sends up to `bytes_max` and reads nothing until `end_ns`, then everything */
};

struct crowd_options {
    uint16_t port;
    uint32_t connection_count_max;
    uint32_t process_count;
    uint32_t source_count; /* as in load_options */
    uint32_t depth;
    int cpu; /* for all processes; negative: anywhere */
};

struct crowd_task {
    enum crowd_work work;
    uint32_t count;
    uint32_t message_bytes;
    bool mixed_sizes;
    uint64_t echo_count_each; /* CROWD_ECHO: as in load_options */
    uint64_t bytes_max;
    uint64_t begin_ns; /* the measured time on CLOCK_MONOTONIC; what comes before is warm-up */
    uint64_t end_ns;
};

struct crowd;

/* Forks the processes, which wait for tasks and end with the calling thread. Returns 0 or a negated errno. */
int crowd_start(struct crowd **crowd, const struct crowd_options *options);

/* Gives the task to all processes. Returns 0 or a negated errno. */
int crowd_begin(struct crowd *crowd, const struct crowd_task *task);

/* Waits until all are done and adds up what they report; `measured_ns` is the longest of them. Samples are those of
 * all. For CROWD_CHURN an echo is a whole connection, for CROWD_SLOW `byte_count` is what was sent and came back.
 * Returns 0, or a negated errno with the reason of the first that failed in `result->error`. */
int crowd_finish(struct crowd *crowd, struct load_samples *samples, struct load_result *result);

/* Closes all connections and reaps the processes. */
void crowd_end(struct crowd *crowd);

#endif
