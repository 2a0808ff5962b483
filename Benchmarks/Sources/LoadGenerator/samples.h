// SPDX-License-Identifier: Apache-2.0
/* samples.h: appending to the caller's samples. */
#ifndef LOAD_SAMPLES_H
#define LOAD_SAMPLES_H

#include "load_generator.h"

/* Returns 0, or -ENOMEM when it could not grow. */
int samples_append(struct load_samples *samples, uint64_t ns);

#endif
