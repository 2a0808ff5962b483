// SPDX-License-Identifier: Apache-2.0
/* fuzz_operations.c: the bytes are the choices of the model: which operation comes next, on what, and how large.
 *
 * The first byte says which loop it is, the next four what is left to chance: the odds of the kernel in memory, the
 * weights of operations, and all draws once the bytes are used up. Everything after them is steps. */
#include "fuzz.h"
#include "loop_core.h"
#include "loop_model.h"

/* A run is to take milliseconds: what takes long is a large write through a socket that holds one byte. */
enum { STEPS_MAX = 200, WRITE_MAX = 600 };

enum { FLAG_PROACTOR = 1, FLAG_TINY = 2, FLAG_CALM = 4, FOCUS_SHIFT = 3, FOCUS_COUNT = 3 };

int fuzz_operations(const uint8_t *bytes, size_t count, fuzz_outcome *outcome) {
    *outcome = (fuzz_outcome){0};
    fuzz_input input = {bytes, count};
    uint8_t flags = fuzz_take_byte(&input);
    model_config config = {
        .backend = flags & FLAG_PROACTOR ? LC_BACKEND_PROACTOR : LC_BACKEND_SELECTOR,
        .tiny = flags & FLAG_TINY,
        .calm = flags & FLAG_CALM,
        .focus = (model_focus)(flags >> FOCUS_SHIFT & 3) % FOCUS_COUNT,
        .seed = fuzz_take_word(&input),
        .simulated = true,
        .steps = STEPS_MAX,
        .write_max = WRITE_MAX,
        .trace = getenv("FUZZ_TRACE") != NULL,
    };
    config.choices = input.left > 0 ? input.next : (const uint8_t *)"";
    config.choices_count = input.left;
    model_report report;
    int result = model_run(&config, &report);
    memcpy(outcome->failure, report.failure, sizeof report.failure);
    fuzz_digest(outcome, &report, sizeof report);
    return result;
}
