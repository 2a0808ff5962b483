// SPDX-License-Identifier: Apache-2.0
/* loop_core_scenarios.h: what the core promises, played through its C API with nothing else in between.
 *
 * Each scenario makes a loop of the backend it is given, uses it, and ends at zero: no operation, lease, timer, stream
 * or descriptor is left over. Any thread may call run(); it waits until the scenario is over. */
#ifndef LOOP_CORE_SCENARIOS_H
#define LOOP_CORE_SCENARIOS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct loop_core_scenario {
    const char *name;
    const char *needs_real; /* why it cannot be played on a simulated kernel; NULL: it can */
    /* 0, or -1 with the failed expectation, its values and its place in the source in `failure`.
     * backend: lc_backend. tiny: rings, groups and batches so small that overflow is the ordinary path. */
    int (*run)(uint32_t backend, bool tiny, char *failure, size_t size);
} loop_core_scenario;

size_t loop_core_scenario_count(void);
const loop_core_scenario *loop_core_scenario_at(size_t index);

#endif
