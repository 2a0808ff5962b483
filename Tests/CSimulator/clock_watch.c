// SPDX-License-Identifier: Apache-2.0
/* clock_watch.c: clock_gettime as the core and libev see it in a test.
 *
 * The linker prefers the test executable's definition to the C library's, also for calls that shared libraries make.
 * Setting the system's clock would take a privilege and disturb the machine; a clock that only one thread sees jump
 * does neither. A thread that watches nothing gets what the C library says, and one inside a simulated kernel that
 * kernel's time. */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "calls.h"
#include "clock_watch.h"

typedef int (*clock_gettime_function)(clockid_t id, struct timespec *out);

static _Atomic(clock_gettime_function) library_gettime;

static _Thread_local struct {
    bool on;
    int64_t jump_s;
    clock_reads reads;
} watch;

__attribute__((constructor)) static void find_library_gettime(void) {
    union {
        void *symbol;
        clock_gettime_function function;
    } found = {.symbol = dlsym(RTLD_NEXT, "clock_gettime")};
    atomic_store_explicit(&library_gettime, found.function, memory_order_relaxed);
}

/* Sanitizers ask for the time before they are ready to be asked anything themselves. */
__attribute__((no_sanitize("address", "thread", "undefined"))) int clock_gettime(clockid_t id, struct timespec *out) {
    if (__builtin_expect(sim_here != NULL, false) && id == CLOCK_MONOTONIC)
        return sim_clock_call(out);
    clock_gettime_function next = atomic_load_explicit(&library_gettime, memory_order_relaxed);
    int result = next ? next(id, out) : (int)syscall(SYS_clock_gettime, id, out);
    if (!next || !watch.on)
        return result;
    if (id == CLOCK_MONOTONIC) {
        watch.reads.monotonic++;
    } else if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
        watch.reads.realtime++;
        out->tv_sec += (time_t)watch.jump_s;
    } else {
        watch.reads.others++;
    }
    return result;
}

void clock_watch_begin(void) {
    watch.reads = (clock_reads){0};
    watch.jump_s = 0;
    watch.on = true;
}

void clock_watch_jump(int64_t seconds) { watch.jump_s = seconds; }
clock_reads clock_watch_counted(void) { return watch.reads; }
void clock_watch_end(void) { watch.on = false; }
