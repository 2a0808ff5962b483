// SPDX-License-Identifier: Apache-2.0
/* worker.h: what one process of a crowd does, and how it reports. */
#ifndef LOAD_WORKER_H
#define LOAD_WORKER_H

#include "load_crowd.h"
#include "run.h"

/* Goes before `sample_count` latencies, each a uint32_t, down the process's socket. */
struct worker_report {
    int outcome;
    struct load_result result;
    uint64_t sample_count;
};

/* Serves tasks until the other end of `channel` is closed. Counts in a task are this process's own share. */
_Noreturn void worker_main(int channel, const struct crowd_options *options);

/* Both move all bytes or say -EPIPE or another negated errno. */
int channel_write(int channel, const void *bytes, size_t length);
int channel_read(int channel, void *bytes, size_t length);

int churn_run(struct run *run, const struct crowd_task *task);
int slow_run(struct run *run, const struct crowd_task *task);

#endif
