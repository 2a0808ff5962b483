// SPDX-License-Identifier: Apache-2.0
/* fuzz.h: what the fuzzers share: taking inputs apart, and saying what was wrong. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fuzzers.h"

typedef struct fuzz_input {
    const uint8_t *next;
    size_t left;
} fuzz_input;

/* The next bytes, and zeros where the input has ended. */
static inline void fuzz_take(fuzz_input *input, void *out, size_t count) {
    size_t part = count < input->left ? count : input->left;
    memset(out, 0, count);
    if (part > 0)
        memcpy(out, input->next, part);
    input->next += part;
    input->left -= part;
}

static inline uint8_t fuzz_take_byte(fuzz_input *input) {
    uint8_t byte;
    fuzz_take(input, &byte, 1);
    return byte;
}

static inline uint32_t fuzz_take_word(fuzz_input *input) {
    uint32_t word;
    fuzz_take(input, &word, sizeof word);
    return word;
}

/* FNV-1a, continued from the digest so far. */
static inline void fuzz_digest(fuzz_outcome *outcome, const void *bytes, size_t count) {
    for (size_t index = 0; index < count; index++)
        outcome->digest = (outcome->digest ^ ((const uint8_t *)bytes)[index]) * 0x100000001b3u;
}

__attribute__((format(printf, 2, 3))) static inline int fuzz_fail(fuzz_outcome *outcome, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(outcome->failure, sizeof outcome->failure, format, arguments);
    va_end(arguments);
    return -1;
}

#define FUZZ_RULE(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return fuzz_fail(outcome, __VA_ARGS__);                                                                    \
    } while (0)

#endif
