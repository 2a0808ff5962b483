// SPDX-License-Identifier: Apache-2.0
/* loop_model.h: random sequences of operations on the core's C API, checked against a model of what it promises.
 *
 * A run plays steps drawn from its seed on one loop after another, with plain sockets, a second thread and eventfds as
 * the outside. Which actions are frequent is drawn per run, so different seeds stress different things. On the kernel
 * in memory (CSimulator) a seed decides everything; on the real one only the timing is not its own. */
#ifndef LOOP_MODEL_H
#define LOOP_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lc_options;
struct sim_odds;

typedef enum model_focus {
    MODEL_FOCUS_ANY = 0,
    MODEL_FOCUS_CANCELS, /* receive waits, bytes from the peer, and cancels that race with them */
    MODEL_FOCUS_TIMERS,  /* timers in any order, half of them cancelled */
} model_focus;

typedef struct model_config {
    uint64_t seed;
    uint32_t steps;
    uint32_t backend; /* lc_backend */
    bool tiny;        /* rings, groups and batches so small that overflow is the ordinary path */
    bool simulated;   /* on the kernel in memory; model_simulator_is_linked() tells whether there is one */
    bool calm;        /* simulated: a kernel that does nothing unusual */
    bool trace;       /* every step to standard error */
    model_focus focus;
    const struct sim_odds *odds; /* simulated: NULL draws them from the seed */
    uint32_t stop_after_ms;      /* real kernel: no step begins later; 0: no limit */
    /* What steps draw from before they draw from the seed; a run of choices ends its steps with them. NULL: none. */
    const uint8_t *choices;
    size_t choices_count;
    const struct lc_options *options; /* of every loop; NULL draws them */
    uint32_t write_max;               /* bytes in one write, at most 100 KiB; 0: that many */
} model_config;

/* What happened, so that a test can ask whether it met what it is about. */
typedef struct model_report {
    char failure[1024]; /* the rule that was broken, in words; empty if none was */
    uint32_t steps;     /* played, and the one that failed is the last */
    uint64_t loops, passes, passes_cut_short, ticks, deliveries;
    uint64_t bytes_in, bytes_out;
    uint64_t waits, waits_answered, waits_released;
    uint64_t cancels, cancels_that_met_data, cancels_too_late;
    uint64_t adopted, accepted, connected, refused;
    uint64_t resets, broken, aborts, polite_closes, whole_deliveries, releases, releases_elsewhere, given_away;
    uint64_t leases_held, leases_returned_elsewhere, leases_sent_back, leases_of_older_loops;
    uint64_t timers_fired, timers_cancelled, calls, posts, stops, polls, polls_cancelled;
    uint64_t closes_with_work, waits_ended_by_close;
    uint64_t starved, overflows, queue_full, stale, copied_out, accept_backoffs;
    uint64_t idles; /* simulated: how often the outside acted because the loop would have slept */
} model_report;

/* 0, or -1 with the rule that was broken in report->failure. Any thread; the run has threads of its own. */
int model_run(const model_config *config, model_report *report);
bool model_simulator_is_linked(void);

/* Single cases on the kernel in memory; 0, or -1 and the failed expectation. Any thread that runs no loop. */
int model_found_connect_error(uint64_t seed, uint32_t backend, char *failure, size_t size);
int model_found_cut_short(uint64_t seed, uint32_t backend, char *failure, size_t size);
int model_found_left_early(uint64_t seed, uint32_t backend, char *failure, size_t size);

#endif
