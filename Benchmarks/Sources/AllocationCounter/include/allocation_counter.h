// SPDX-License-Identifier: Apache-2.0
/* allocation_counter.h: nothing to call; see allocation_counter.c for what preloading the library does. */
#ifndef ALLOCATION_COUNTER_H
#define ALLOCATION_COUNTER_H

#define ALLOCATION_COUNTER_FILE_VARIABLE "ALLOCATION_COUNTER_FILE"

#endif
