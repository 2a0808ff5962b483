// SPDX-License-Identifier: Apache-2.0
/* fuzzers.h: functions that take any bytes, do with them what a program could do, and look at what comes of it.
 *
 * libFuzzer calls them with bytes that reach code no earlier bytes have reached (entry.c, .ci/fuzzers.sh); the test
 * suite calls them with the corpus and with variations of it, so that they keep working. An input is played on threads
 * and a kernel in memory of its own, so it does the same whatever was played before it. */
#ifndef FUZZERS_H
#define FUZZERS_H

#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_outcome {
    char failure[1024]; /* the rule that was broken, in words; empty if none was */
    uint64_t digest;    /* of what happened: the same for the same bytes */
} fuzz_outcome;

/* 0, or -1 with the rule that was broken in outcome->failure. Any thread. */
int fuzz_operations(const uint8_t *bytes, size_t count, fuzz_outcome *outcome);
int fuzz_options(const uint8_t *bytes, size_t count, fuzz_outcome *outcome);
int fuzz_address(const uint8_t *bytes, size_t count, fuzz_outcome *outcome);

#endif
