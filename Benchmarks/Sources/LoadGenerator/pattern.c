// SPDX-License-Identifier: Apache-2.0
/* pattern.c: fills the table once from a small linear generator; the values only have to look unlike each other. */
#include "pattern.h"

static unsigned char table[PATTERN_PERIOD + PIECE_BYTES_MAX];

void pattern_prepare(void) {
    uint32_t state = 1;
    for (size_t index = 0; index < sizeof table; index++) {
        if (index >= PATTERN_PERIOD) {
            table[index] = table[index - PATTERN_PERIOD];
            continue;
        }
        state = state * 1664525u + 1013904223u;
        table[index] = (unsigned char)(state >> 24);
    }
}

const unsigned char *pattern_at(uint64_t position) { return table + position % PATTERN_PERIOD; }
