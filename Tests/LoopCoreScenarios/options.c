// SPDX-License-Identifier: Apache-2.0
/* options.c: what a loop can be made with: anything, and what comes of it is a loop that works or an errno. */
#include "scenario.h"

static int echo_works(scenario *s, const lc_options *options) {
    s->options = *options;
    TRY(scenario_reopen(s));
    endpoint e = {.echo = true};
    uint8_t bytes[200];
    bool end = false;
    TRY(endpoint_open(s, &e, false));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    return endpoint_close(s, &e);
}

int sizes_beyond_the_kernels(scenario *s) {
    lc_options options = {.backend = s->backend,
                          .submission_count = UINT32_MAX,
                          .completion_count = UINT32_MAX,
                          .buffer_count = UINT32_MAX,
                          .buffer_size = 64,
                          .reap_batch_max = UINT32_MAX,
                          .accept_batch_max = UINT32_MAX};
    TRY(echo_works(s, &options));
    options.submission_count = 32769;
    options.completion_count = 1;
    options.buffer_count = 32769;
    TRY(echo_works(s, &options));
    options.submission_count = 3;
    options.completion_count = 65537;
    options.buffer_count = 3;
    options.features_off = UINT32_MAX;
    TRY(echo_works(s, &options));
    CHECK_EQ(lc_loop_features(s->loop), 0);
    return 0;
}

static int refused(scenario *s, const lc_options *options, int error) {
    lc_loop *loop = NULL;
    CHECK_EQ(lc_loop_create(options, &loop), error);
    CHECK(loop == NULL);
    return 0;
}

int options_without_sense(scenario *s) {
    static const uint32_t backends[] = {0, 3, 255, 256 + LC_BACKEND_SELECTOR, 256 + LC_BACKEND_PROACTOR, UINT32_MAX};
    for (size_t index = 0; index < sizeof backends / sizeof *backends; index++) {
        s->options.backend = backends[index];
        TRY(refused(s, &s->options, -EINVAL));
    }
    s->options.backend = LC_BACKEND_SELECTOR;
    static const uint32_t selectors[] = {LC_SELECTOR_SELECT + 1, 256 + LC_SELECTOR_EPOLL, UINT32_MAX};
    for (size_t index = 0; index < sizeof selectors / sizeof *selectors; index++) {
        s->options.selector = selectors[index];
        TRY(refused(s, &s->options, -EINVAL));
    }
    return 0;
}

/* 128 TiB: an address space of 47 bits has no room for it, a larger one that allows overcommitment does. */
int a_group_beyond_memory(scenario *s) {
    s->options.buffer_count = UINT32_MAX;
    s->options.buffer_size = UINT32_MAX;
    lc_loop *loop = NULL;
    int result = lc_loop_create(&s->options, &loop);
    if (result == 0)
        lc_loop_free(loop);
    CHECK(result == 0 || result == -ENOMEM);
    CHECK((result == 0) == (loop != NULL));
    return 0;
}
