// SPDX-License-Identifier: Apache-2.0
/* faults.c: the plan of each thread: which of its calls fail, come up short, or take long; and what it has called.
 *
 * Nothing here allocates: an allocation may be what is being refused. */
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <time.h>
#include "shim_internal.h"

_Thread_local shim_plan shim_this;

/* ---- libev, told apart by where its code lies ---- */

static pthread_once_t libev_once = PTHREAD_ONCE_INIT;
static uintptr_t libev_first, libev_end;

static int libev_measure(struct dl_phdr_info *object, size_t size, void *context) {
    (void)size;
    uintptr_t inside = *(uintptr_t *)context, first = UINTPTR_MAX, end = 0;
    for (size_t index = 0; index < object->dlpi_phnum; index++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[index];
        uintptr_t from = object->dlpi_addr + part->p_vaddr;
        if (part->p_type != PT_LOAD)
            continue;
        first = from < first ? from : first;
        end = from + part->p_memsz > end ? from + part->p_memsz : end;
    }
    if (inside < first || inside >= end)
        return 0;
    libev_first = first;
    libev_end = end;
    return 1;
}

/* Linked statically it cannot be told apart, and nothing is taken for it. */
static void libev_find(void) {
    uintptr_t inside = (uintptr_t)dlsym(RTLD_DEFAULT, "ev_loop_new"), here = (uintptr_t)&libev_find;
    if (inside)
        dl_iterate_phdr(libev_measure, &inside);
    if (here >= libev_first && here < libev_end)
        libev_first = libev_end = 0;
}

bool shim_is_libev(const void *address) { return (uintptr_t)address >= libev_first && (uintptr_t)address < libev_end; }

/* ---- plans ---- */

void shim_arm(const shim_fault *faults, size_t count) {
    shim_disarm();
    pthread_once(&libev_once, libev_find);
    shim_this = (shim_plan){.faults = faults, .count = count};
    shim_this.armed = true;
}

void shim_disarm(void) { shim_this.armed = false; }
uint32_t shim_calls(shim_call call) { return shim_this.calls[call]; }
uint32_t shim_faults_played(void) { return shim_this.played; }
bool shim_allocation_faults_possible(void) { return !SHIM_TSAN; }

static bool is_touched(const shim_fault *fault, shim_call call, uint32_t number) {
    uint32_t first = fault->nth ? fault->nth : 1, count = fault->count ? fault->count : 1;
    return fault->call == call && number >= first && (count == SHIM_FOR_EVER || number - first < count);
}

const shim_fault *shim_meet(shim_call call) {
    uint32_t number = ++shim_this.calls[call];
    for (size_t index = 0; index < shim_this.count; index++) {
        const shim_fault *fault = &shim_this.faults[index];
        if (!is_touched(fault, call, number))
            continue;
        if (fault->delay_us) {
            struct timespec left = {.tv_sec = fault->delay_us / 1000000, .tv_nsec = fault->delay_us % 1000000 * 1000};
            while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) == EINTR)
                continue;
        }
        shim_this.played += fault->delay_us || fault->error;
        return fault;
    }
    return NULL;
}

size_t shim_shorten(const shim_fault *fault, size_t length) {
    if (!fault->at_most || length <= fault->at_most)
        return length;
    shim_this.played += !fault->delay_us;
    return fault->at_most;
}
