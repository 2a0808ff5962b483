// SPDX-License-Identifier: Apache-2.0
/* samples.c: a growable array of latencies. It doubles, and large blocks move by remapping, so growth during a
 * measurement costs next to nothing. */
#include "samples.h"

#include <errno.h>
#include <stdlib.h>

#define CAPACITY_MIN ((size_t)64 * 1024)

int samples_append(struct load_samples *samples, uint64_t ns) {
    if (samples->count == samples->capacity) {
        size_t capacity = samples->capacity == 0 ? CAPACITY_MIN : samples->capacity * 2;
        uint32_t *grown = realloc(samples->ns, capacity * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        samples->ns = grown;
        samples->capacity = capacity;
    }
    samples->ns[samples->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
    return 0;
}

void load_samples_free(struct load_samples *samples) {
    free(samples->ns);
    *samples = (struct load_samples){0};
}
