// SPDX-License-Identifier: Apache-2.0
/* unread.c: bytes that arrive while nobody asks for any. They wait in the kernel, and the loop sleeps. */
#include "scenario.h"

enum { MESSAGES = 64, LEASED_MAX = 16, PASSES_MAX = 20, QUIET_NS = 20 * 1000000 };

static int time_is_up(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    (void)word;
    *(bool *)s->context = true;
    return 0;
}

/* Somebody waited once, so a receive is under way. From then on each message finds nobody. */
int unread_bytes_neither_pile_up_nor_spin(scenario *s) {
    endpoint e = {.seed = 9};
    bool up = false;
    s->context = &up;
    s->on.call = time_is_up;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
    uint8_t bytes[MESSAGES + 1];
    pattern_fill(bytes, sizeof bytes, e.seed, 0);
    TRY(peer_send(s, &e, bytes, 1));
    RUN_UNTIL(e.received == 1);
    for (int message = 1; message <= MESSAGES; message++) {
        TRY(peer_send(s, &e, bytes + message, 1));
        TRY(scenario_settle(s));
        CHECK_LE(scenario_stats(s).leased, LEASED_MAX);
    }
    CHECK_EQ(e.deliveries, 1);
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + QUIET_NS, 0, &id), 0);
    uint32_t passes = s->passes;
    RUN_UNTIL(up);
    CHECK_LE(s->passes - passes, PASSES_MAX);
    while (e.received < sizeof bytes) {
        uint32_t deliveries = e.deliveries;
        CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
        RUN_UNTIL(e.deliveries > deliveries);
    }
    return endpoint_close(s, &e);
}
