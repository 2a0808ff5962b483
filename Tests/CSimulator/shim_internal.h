// SPDX-License-Identifier: Apache-2.0
/* shim_internal.h: what an interposed function is made of: its definition, its way to the real one, its faults. */
#ifndef SHIM_INTERNAL_H
#define SHIM_INTERNAL_H

#include <errno.h>
#include "routes.h"
#include "shim.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHIM_TSAN 1
#endif
#endif
#ifndef SHIM_TSAN
#define SHIM_TSAN 0
#endif

/* A sanitizer's start-up calls these functions before its own shadow is there. */
#if defined(__clang__)
#define SHIM_UNTOUCHED __attribute__((no_sanitize("address", "thread", "undefined"), disable_sanitizer_instrumentation))
#else
#define SHIM_UNTOUCHED
#endif

/* Defines `name` for the whole executable. In C it is called shim_name, so headers need not agree with it. */
#define SHIM_FUNCTION(result, name, parameters)                                                                        \
    result shim_##name parameters __asm__(#name) __attribute__((visibility("default")));                               \
    SHIM_UNTOUCHED result shim_##name parameters

/* The same where a sanitizer may have an interceptor, which then stands for the real function. */
#define SHIM_INTERCEPTED(result, name, parameters)                                                                     \
    extern result ___interceptor_##name parameters __attribute__((weak));                                              \
    SHIM_FUNCTION(result, name, parameters)

#define SHIM_REAL(name, arguments, otherwise) (___interceptor_##name ? ___interceptor_##name arguments : (otherwise))

typedef struct shim_plan {
    bool armed; /* the only thing looked at while nothing is planned */
    const shim_fault *faults;
    size_t count;
    uint32_t played;
    uint32_t calls[SHIM_CALL_COUNT];
} shim_plan;

extern _Thread_local shim_plan shim_this;

/* Counts a call of this thread, takes the time it is to take, and answers with the fault to play, or NULL. */
const shim_fault *shim_meet(shim_call call);
/* How many of `length` bytes are to be transferred. */
size_t shim_shorten(const shim_fault *fault, size_t length);
/* The code of a library that ends the process when it gets no memory. */
bool shim_is_libev(const void *address);

/* In an interposed function: the error planned for this call, or 0. */
SHIM_UNTOUCHED static inline int shim_refused(shim_call call) {
    if (__builtin_expect(!shim_this.armed, true))
        return 0;
    const shim_fault *fault = shim_meet(call);
    return fault ? fault->error : 0;
}

/* The same for one that moves bytes: *length shrinks to what is to be moved. */
SHIM_UNTOUCHED static inline int shim_refused_or_shortened(shim_call call, size_t *length) {
    if (__builtin_expect(!shim_this.armed, true))
        return 0;
    const shim_fault *fault = shim_meet(call);
    if (fault && !fault->error)
        *length = shim_shorten(fault, *length);
    return fault ? fault->error : 0;
}

SHIM_UNTOUCHED static inline int shim_fail(int error) {
    errno = error;
    return -1;
}

#endif
