// SPDX-License-Identifier: Apache-2.0
/* clock_watch.h: which clocks a thread asks for, and a wall clock that can be made to jump, for this thread alone. */
#ifndef CLOCK_WATCH_H
#define CLOCK_WATCH_H

#include <stdint.h>

typedef struct clock_reads {
    uint64_t monotonic;
    uint64_t realtime; /* with its coarse twin */
    uint64_t others;
} clock_reads;

/* From here on this thread's reads are counted, and its wall clock is the system's plus what clock_watch_jump says. */
void clock_watch_begin(void);
void clock_watch_jump(int64_t seconds);
clock_reads clock_watch_counted(void);
void clock_watch_end(void);

#endif
