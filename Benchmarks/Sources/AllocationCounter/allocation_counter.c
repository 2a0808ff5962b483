// SPDX-License-Identifier: Apache-2.0
/* allocation_counter.c: counts a process's allocations when preloaded with LD_PRELOAD.
 *
 * Stands in front of the C library's allocator and forwards to its internal names, which needs no lookup and so
 * no bootstrap before the first allocation; that ties it to glibc. An orderly exit writes `mallocs=N frees=M` to
 * the file named by ALLOCATION_COUNTER_FILE; a process ended by a signal writes nothing. */
#include "allocation_counter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

extern void *__libc_malloc(size_t length);
extern void *__libc_calloc(size_t count, size_t length);
extern void *__libc_realloc(void *memory, size_t length);
extern void *__libc_memalign(size_t alignment, size_t length);
extern void __libc_free(void *memory);

/* Only totals are asked for, at exit or between phases of a measurement, so no order between threads matters. */
static _Atomic uint64_t malloc_count;
static _Atomic uint64_t free_count;

static void count_malloc(void) { atomic_fetch_add_explicit(&malloc_count, 1, memory_order_relaxed); }

void *malloc(size_t length) {
    count_malloc();
    return __libc_malloc(length);
}

void *calloc(size_t count, size_t length) {
    count_malloc();
    return __libc_calloc(count, length);
}

void *realloc(void *memory, size_t length) {
    count_malloc();
    return __libc_realloc(memory, length);
}

void *memalign(size_t alignment, size_t length) {
    count_malloc();
    return __libc_memalign(alignment, length);
}

void *aligned_alloc(size_t alignment, size_t length) {
    count_malloc();
    return __libc_memalign(alignment, length);
}

int posix_memalign(void **memory, size_t alignment, size_t length) {
    count_malloc();
    if (alignment % sizeof(void *) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0)
        return EINVAL;
    void *made = __libc_memalign(alignment, length);
    if (made == NULL)
        return ENOMEM;
    *memory = made;
    return 0;
}

void free(void *memory) {
    if (memory != NULL)
        atomic_fetch_add_explicit(&free_count, 1, memory_order_relaxed);
    __libc_free(memory);
}

uint64_t allocation_counter_mallocs(void) { return atomic_load_explicit(&malloc_count, memory_order_relaxed); }

__attribute__((destructor)) static void write_counts(void) {
    const char *path = getenv(ALLOCATION_COUNTER_FILE_VARIABLE);
    if (path == NULL)
        return;

    unsigned long long mallocs = atomic_load_explicit(&malloc_count, memory_order_relaxed);
    unsigned long long frees = atomic_load_explicit(&free_count, memory_order_relaxed);
    char line[80];
    int length = snprintf(line, sizeof line, "mallocs=%llu frees=%llu\n", mallocs, frees);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    (void)!write(fd, line, (size_t)length);
    close(fd);
}
