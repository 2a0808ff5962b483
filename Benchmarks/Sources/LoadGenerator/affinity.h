// SPDX-License-Identifier: Apache-2.0
/* affinity.h: keeping the calling thread on one CPU for a while. */
#ifndef LOAD_AFFINITY_H
#define LOAD_AFFINITY_H

#include <sched.h>
#include <stdbool.h>

struct affinity {
    cpu_set_t allowed; /* what it was before */
    bool changed;
};

/* Pins to `cpu`, remembering what was allowed before; a negative `cpu` changes nothing.
 * Returns 0 or a negated errno. */
int affinity_pin(struct affinity *before, int cpu);

void affinity_restore(const struct affinity *before);

#endif
