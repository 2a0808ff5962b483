// SPDX-License-Identifier: Apache-2.0
/* lc_probe.h: what this kernel offers, and in words why it does not. Any thread; asked once per process. */
#ifndef LC_PROBE_H
#define LC_PROBE_H

#include <stdint.h>

enum { LC_PROBE_TEXT = 256 };

typedef struct lc_probe {
    int32_t proactor_error;              /* 0, or the negated errno that refused io_uring */
    uint32_t proactor_features;          /* LC_FEATURE_* found */
    char proactor_cause[LC_PROBE_TEXT];  /* why it was refused, in words; empty if it was not */
    char proactor_advice[LC_PROBE_TEXT]; /* what to do about it */
    char selector_name[16];              /* the most efficient selector that could really be created */
    uint64_t memlock_limit;              /* RLIMIT_MEMLOCK, bytes */
    uint64_t nofile_limit;               /* RLIMIT_NOFILE, soft */
    uint64_t nofile_limit_max;           /* RLIMIT_NOFILE, hard */
    int32_t io_uring_disabled;           /* sysctl kernel.io_uring_disabled, -1 if absent */
    char kernel[64];                     /* uname -r */
} lc_probe;

/* The cached answer. */
const lc_probe *lc_probe_get(void);
/* Asks the kernel again. */
void lc_probe_run(lc_probe *out);
/* Cause and advice for an errno that io_uring set-up gave; texts of at least LC_PROBE_TEXT bytes. */
void lc_probe_explain(int error, char *cause, char *advice);
/* "EPERM" for EPERM (positive or negated); "errno 999" for unknown ones. */
const char *lc_errno_name(int error);

#endif
