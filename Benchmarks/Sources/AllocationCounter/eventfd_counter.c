// SPDX-License-Identifier: Apache-2.0
/* eventfd_counter.c: counts writes to eventfds when preloaded: the wake-ups that threads send each other.
 *
 * Notes which descriptors are eventfds as they are made and closed, and forwards to the C library's internal names.
 * Descriptors beyond the table are not counted. */
#include "allocation_counter.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

extern ssize_t __write(int fd, const void *bytes, size_t length);
extern int __close(int fd);

enum { DESCRIPTORS_MAX = 4096 };

/* A descriptor is handed to another thread with whatever order that thread needs, so no order is needed here. */
static _Atomic bool is_eventfd[DESCRIPTORS_MAX];
static _Atomic uint64_t write_count;

static void note(int fd, bool made) {
    if (fd >= 0 && fd < DESCRIPTORS_MAX)
        atomic_store_explicit(&is_eventfd[fd], made, memory_order_relaxed);
}

int eventfd(unsigned int count, int flags) {
    int fd = (int)syscall(SYS_eventfd2, count, flags);
    note(fd, true);
    return fd;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (fd >= 0 && fd < DESCRIPTORS_MAX && atomic_load_explicit(&is_eventfd[fd], memory_order_relaxed))
        atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
    return __write(fd, bytes, length);
}

int eventfd_write(int fd, eventfd_t value) { return write(fd, &value, sizeof value) == (ssize_t)sizeof value ? 0 : -1; }

int close(int fd) {
    note(fd, false);
    return __close(fd);
}

uint64_t allocation_counter_eventfd_writes(void) { return atomic_load_explicit(&write_count, memory_order_relaxed); }
