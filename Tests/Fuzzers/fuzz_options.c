// SPDX-License-Identifier: Apache-2.0
/* fuzz_options.c: any bytes as lc_options: a loop that works comes of them, or an errno that says why not.
 *
 * The first bytes are the options, as they lie in memory. What is left are the choices of a short run of the model on a
 * loop with these options. */
#include <errno.h>
#include "fuzz.h"
#include "loop_core.h"
#include "loop_model.h"
#include "simulator.h"

enum { STEPS_MAX = 24, WRITE_MAX = 200 };

/* The kernel in memory marks every buffer it is given, so a group may be large, or its buffers, but not both. */
enum { GROUP_LARGE = 64, BUFFER_LARGE = 4096 };

static int make_once(const lc_options *options, bool *made, fuzz_outcome *outcome) {
    lc_loop *loop = NULL;
    int result = lc_loop_create(options, &loop);
    *made = result == 0;
    fuzz_digest(outcome, &result, sizeof result);
    bool known = options->backend == LC_BACKEND_PROACTOR ||
                 (options->backend == LC_BACKEND_SELECTOR && options->selector <= LC_SELECTOR_SELECT);
    if (!known) {
        if (loop)
            lc_loop_free(loop);
        FUZZ_RULE(result == -EINVAL, "backend %u and selector %u said %d", options->backend, options->selector, result);
        return 0;
    }
    FUZZ_RULE(result == 0 || result == -ENOMEM, "making a loop said %d", result);
    if (!loop)
        return 0;
    uint32_t features = lc_loop_features(loop);
    lc_loop_verify(loop);
    lc_loop_free(loop);
    FUZZ_RULE(!(features & options->features_off), "features %#x in spite of %#x", features, options->features_off);
    return 0;
}

static int play(const lc_options *options, fuzz_input *input, fuzz_outcome *outcome) {
    model_config config = {
        .backend = options->backend,
        .seed = fuzz_take_word(input),
        .simulated = true,
        .steps = STEPS_MAX,
        .write_max = WRITE_MAX,
        .options = options,
        .trace = getenv("FUZZ_TRACE") != NULL,
    };
    config.choices = input->left > 0 ? input->next : (const uint8_t *)"";
    config.choices_count = input->left;
    model_report report;
    int result = model_run(&config, &report);
    memcpy(outcome->failure, report.failure, sizeof report.failure);
    fuzz_digest(outcome, &report, sizeof report);
    return result;
}

int fuzz_options(const uint8_t *bytes, size_t count, fuzz_outcome *outcome) {
    *outcome = (fuzz_outcome){0};
    fuzz_input input = {bytes, count};
    lc_options options;
    fuzz_take(&input, &options, sizeof options);
    sim_begin(&(sim_config){0});
    bool made;
    int result = make_once(&options, &made, outcome);
    int open = sim_end();
    if (result < 0)
        return result;
    FUZZ_RULE(open == 0, "%d descriptors were left open", open);
    if (!made || (options.buffer_count > GROUP_LARGE && options.buffer_size > BUFFER_LARGE))
        return 0;
    options.selector = LC_SELECTOR_EPOLL; /* the kernel in memory has no other */
    return play(&options, &input, outcome);
}
