// SPDX-License-Identifier: Apache-2.0
/* affinity.c: CPU sets. A generator and a server that share a CPU measure the scheduler. */
#include "affinity.h"
#include "load_generator.h"

#include <errno.h>

int affinity_pin(struct affinity *before, int cpu) {
    before->changed = false;
    if (cpu < 0)
        return 0;
    if (sched_getaffinity(0, sizeof before->allowed, &before->allowed) < 0)
        return -errno;

    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) < 0)
        return -errno;
    before->changed = true;
    return 0;
}

void affinity_restore(const struct affinity *before) {
    if (before->changed)
        sched_setaffinity(0, sizeof before->allowed, &before->allowed);
}

size_t load_allowed_cpus(int *cpus, size_t capacity) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) < 0)
        return 0;
    size_t count = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < capacity; cpu++) {
        if (CPU_ISSET((size_t)cpu, &allowed))
            cpus[count++] = cpu;
    }
    return count;
}

int load_stay_on(int cpu) {
    struct affinity before;
    return affinity_pin(&before, cpu);
}
