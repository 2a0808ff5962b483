// SPDX-License-Identifier: Apache-2.0
/* allocation_counter.h: what a preloaded AllocationCounter has counted so far. allocation_counter.c says how.
 *
 * Nothing links with the library: who may have been started with it looks these functions up with dlsym. */
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H

#include <stdint.h>

#define ALLOCATION_COUNTER_FILE_VARIABLE "ALLOCATION_COUNTER_FILE"

uint64_t allocation_counter_mallocs(void);
uint64_t allocation_counter_eventfd_writes(void);

#endif
