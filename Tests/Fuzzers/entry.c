// SPDX-License-Identifier: Apache-2.0
/* entry.c: libFuzzer's way in. Compiled once per fuzzer, which FUZZER names; without a name there is nothing here. */
#include <stdio.h>
#include <stdlib.h>
#include "fuzzers.h"

#ifdef FUZZER

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    fuzz_outcome outcome;
    if (FUZZER(bytes, count, &outcome) == 0)
        return 0;
    fprintf(stderr, "==> a rule was broken: %s\n", outcome.failure);
    abort();
}

#endif
