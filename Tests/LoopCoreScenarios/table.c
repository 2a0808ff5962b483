// SPDX-License-Identifier: Apache-2.0
/* table.c: the scenarios as the outside sees them. */
#include "scenario.h"

#define SCENARIO(function, name)                                                                                       \
    static int function##_run(uint32_t backend, bool tiny, char *failure, size_t size) {                               \
        return scenario_run(function, name, backend, tiny, failure, size);                                             \
    }
#define SCENARIO_REAL(function, name, reason) SCENARIO(function, name)
#include "scenario_list.h"
#undef SCENARIO
#undef SCENARIO_REAL

#define SCENARIO(function, title)              {.name = title, .run = function##_run},
#define SCENARIO_REAL(function, title, reason) {.name = title, .needs_real = reason, .run = function##_run},
static const loop_core_scenario scenarios[] = {
#include "scenario_list.h"
};
#undef SCENARIO
#undef SCENARIO_REAL

size_t loop_core_scenario_count(void) { return sizeof scenarios / sizeof *scenarios; }

const loop_core_scenario *loop_core_scenario_at(size_t index) {
    return index < loop_core_scenario_count() ? &scenarios[index] : NULL;
}
