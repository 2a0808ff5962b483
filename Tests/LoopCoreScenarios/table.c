// SPDX-License-Identifier: Apache-2.0
/* table.c: the scenarios as the outside sees them. */
#include "scenario.h"

#define SCENARIO(function, name)                                                                                       \
    static int function##_run(uint32_t backend, bool tiny, char *failure, size_t size) {                               \
        return scenario_run(function, name, backend, tiny, failure, size);                                             \
    }
#include "scenario_list.h"
#undef SCENARIO

#define SCENARIO(function, title) {.name = title, .run = function##_run},
static const loop_core_scenario scenarios[] = {
#include "scenario_list.h"
};
#undef SCENARIO

size_t loop_core_scenario_count(void) { return sizeof scenarios / sizeof *scenarios; }

const loop_core_scenario *loop_core_scenario_at(size_t index) {
    return index < loop_core_scenario_count() ? &scenarios[index] : NULL;
}
