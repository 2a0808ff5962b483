// SPDX-License-Identifier: Apache-2.0
/* streams.c: bytes in both directions: exact, in order, and what happens when either side stops. */
#include <poll.h>
#include <signal.h>
#include <time.h>
#include "scenario.h"

/* ---- echo ---- */

static const size_t echo_sizes[] = {1, 2, 3, 63, 64, 65, 1000, 4096, 16383, 16384, 16385, 65536, 300001, 1 << 20};
enum { ECHO_SIZES = sizeof echo_sizes / sizeof *echo_sizes };

static int send_and_read_back(scenario *s, void *context) {
    endpoint *e = context;
    uint64_t position = 0;
    uint8_t *bytes = malloc(1 << 20);
    CHECK(bytes != NULL);
    for (size_t index = 0; index < ECHO_SIZES; index++) {
        size_t size = echo_sizes[index];
        pattern_fill(bytes, size, 0, position);
        TRY(peer_send(s, e, bytes, size));
        for (size_t got = 0; got < size;) {
            ssize_t part = recv(e->peer, bytes, size - got, 0);
            CHECK_GT(part, 0);
            TRY(pattern_check(s, bytes, (size_t)part, 0, position + got));
            got += (size_t)part;
        }
        position += size;
    }
    free(bytes);
    CHECK_CALL(shutdown(e->peer, SHUT_WR));
    return 0;
}

static int echo_over(scenario *s, bool tcp) {
    endpoint e = {.echo = true};
    TRY(endpoint_open(s, &e, tcp));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    helper peer;
    TRY(helper_start(s, &peer, send_and_read_back, &e));
    RUN_UNTIL(e.ends > 0);
    TRY(helper_join(s, &peer));
    uint64_t total = 0;
    for (size_t index = 0; index < ECHO_SIZES; index++)
        total += echo_sizes[index];
    CHECK_EQ(e.received, total);
    CHECK_EQ(lc_stream_unsent(e.stream), 0);
    CHECK_EQ(lc_stream_send_error(e.stream), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.ends, 1);
    CHECK_EQ(scenario_stats(s).leased, 0);
    return endpoint_close(s, &e);
}

int echo_tcp(scenario *s) { return echo_over(s, true); }
int echo_unix(scenario *s) { return echo_over(s, false); }

int echo_without_each_feature(scenario *s) {
    lc_options original = s->options;
    if (scenario_is_proactor(s)) {
        static const uint32_t features[] = {
            LC_FEATURE_DEFER_TASKRUN,    LC_FEATURE_SINGLE_ISSUER, LC_FEATURE_COOP_TASKRUN,    LC_FEATURE_SUBMIT_ALL,
            LC_FEATURE_MULTISHOT_ACCEPT, LC_FEATURE_BUFFER_RING,   LC_FEATURE_REGISTERED_RING, 0x7f};
        for (size_t index = 0; index < sizeof features / sizeof *features; index++) {
            s->options.features_off = features[index];
            TRY(scenario_reopen(s));
            CHECK_EQ(lc_loop_features(s->loop) & features[index], 0);
            TRY(echo_over(s, true));
        }
    } else {
        static const uint32_t selectors[] = {LC_SELECTOR_EPOLL, LC_SELECTOR_POLL, LC_SELECTOR_SELECT};
        static const char *const names[] = {"epoll", "poll", "select"};
        for (size_t index = 0; index < sizeof selectors / sizeof *selectors; index++) {
            s->options.selector = selectors[index];
            TRY(scenario_reopen(s));
            CHECK_EQ(strcmp(lc_loop_backend_name(s->loop), names[index]), 0);
            TRY(echo_over(s, true));
        }
    }
    s->options = original;
    return 0;
}

/* ---- sending ---- */

int many_small_sends_stay_in_order(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t bytes[16];
    uint64_t sent = 0;
    bool end = false;
    for (uint32_t round = 0; round < 3000; round++) {
        size_t length = 1 + round % 7;
        pattern_fill(bytes, length, 5, sent);
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, length), 0);
        sent += length;
        if (round % 500 == 499) /* some passes in the middle of it */
            TRY(scenario_pass(s, false));
    }
    CHECK_EQ(lc_stream_send_copy(e.stream, bytes, 0), 0);
    PUMP_UNTIL(peer_receive_some(s, &e, 5, 1 << 20, &end), e.peer_received == sent);
    PUMP_UNTIL(0, lc_stream_unsent(e.stream) == 0);
    CHECK(!end);
    return endpoint_close(s, &e);
}

/* More buffers at once than one gathering send may carry, none of them large enough to share. */
int many_buffers_leave_in_order(scenario *s) {
    enum { COUNT = 300, SIZE = 16 * 1024 + 1 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t *bytes = malloc(SIZE + COUNT);
    CHECK(bytes != NULL);
    uint64_t sent = 0;
    bool end = false;
    for (size_t index = 0; index < COUNT; index++) {
        pattern_fill(bytes, SIZE + index, 6, sent);
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, SIZE + index), 0);
        sent += SIZE + index;
    }
    free(bytes);
    CHECK_EQ(lc_stream_unsent(e.stream), sent);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    CHECK_EQ(lc_stream_send_copy(e.stream, "x", 1), -EPIPE);
    PUMP_UNTIL(peer_receive_some(s, &e, 6, 1 << 20, &end), end);
    CHECK_EQ(e.peer_received, sent);
    PUMP_UNTIL(0, lc_stream_unsent(e.stream) == 0);
    return endpoint_close(s, &e);
}

typedef struct slow_reader {
    endpoint *e;
    uint64_t total;
} slow_reader;

static int read_slowly(scenario *s, void *context) {
    slow_reader *reader = context;
    uint8_t bytes[4096];
    uint64_t got = 0, random = 1;
    for (;;) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        ssize_t part = recv(reader->e->peer, bytes, 1 + (random >> 33) % sizeof bytes, 0);
        CHECK_CALL(part);
        if (part == 0)
            break;
        TRY(pattern_check(s, bytes, (size_t)part, 7, got));
        got += (uint64_t)part;
    }
    CHECK_EQ(got, reader->total);
    return 0;
}

static int send_to_a_slow_reader(scenario *s, bool tcp, uint64_t total) {
    enum { PIECE = 50000, HIGH = 256 * 1024, LOW = 64 * 1024 };
    int fds[2];
    TRY(tcp ? pair_tcp(s, fds) : pair_unix(s, fds));
    int least = 1;
    CHECK_CALL(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &least, sizeof least));
    endpoint e = {0};
    TRY(endpoint_adopt(s, &e, fds));
    slow_reader reader = {.e = &e, .total = total};
    helper reading;
    TRY(helper_start(s, &reading, read_slowly, &reader));
    uint8_t *bytes = malloc(PIECE);
    CHECK(bytes != NULL);
    uint64_t sent = 0;
    uint32_t waits = 0;
    while (sent < total) {
        while (sent < total && lc_stream_unsent(e.stream) + PIECE <= HIGH) {
            size_t length = total - sent < PIECE ? (size_t)(total - sent) : PIECE;
            pattern_fill(bytes, length, 7, sent);
            CHECK_EQ(lc_stream_send_copy(e.stream, bytes, length), 0);
            sent += length;
        }
        CHECK_LE(lc_stream_unsent(e.stream), HIGH);
        CHECK_LE(scenario_stats(s).leased, HIGH / PIECE + 1);
        CHECK_EQ(lc_stream_wait_send(e.stream, ++waits, LOW), 0);
        CHECK_EQ(lc_stream_wait_send(e.stream, 99, LOW), -EBUSY);
        RUN_UNTIL(e.sends == waits);
        CHECK_EQ(e.last_waiter, waits);
        CHECK_LE(lc_stream_unsent(e.stream), LOW);
    }
    free(bytes);
    CHECK_GT(waits, 1);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    CHECK_EQ(lc_stream_wait_send(e.stream, ++waits, 0), 0);
    RUN_UNTIL(e.sends == waits);
    CHECK_EQ(lc_stream_unsent(e.stream), 0);
    CHECK_EQ(lc_stream_send_error(e.stream), 0);
    TRY(helper_join(s, &reading));
    return endpoint_close(s, &e);
}

static uint64_t slow_reader_total(uint64_t ordinary) { return scenario_long() ? 64 << 20 : ordinary; }

int least_send_buffer_slow_reader_unix(scenario *s) {
    return send_to_a_slow_reader(s, false, slow_reader_total(8 << 20));
}
/* Over TCP each such piece waits for its own acknowledgement. */
int least_send_buffer_slow_reader_tcp(scenario *s) {
    return send_to_a_slow_reader(s, true, slow_reader_total(2 << 20));
}

/* ---- halves ---- */

int peer_that_finished_still_reads(scenario *s) {
    enum { SIZE = 8 << 20 }; /* more than sockets hold */
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    uint8_t *bytes = malloc(SIZE);
    CHECK(bytes != NULL);
    pattern_fill(bytes, SIZE, 0, 0);
    TRY(peer_send(s, &e, bytes, 1000));
    CHECK_CALL(shutdown(e.peer, SHUT_WR));
    RUN_UNTIL(e.ends > 0);
    CHECK_EQ(e.received, 1000);
    CHECK_EQ(lc_stream_send_copy(e.stream, bytes, SIZE), 0);
    free(bytes);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    bool end = false;
    PUMP_UNTIL(peer_receive_some(s, &e, 0, SIZE, &end), end);
    CHECK_EQ(e.peer_received, SIZE);
    CHECK_EQ(e.ends, 1);
    /* An end stays an end, for whoever asks again. */
    lc_buffer *lease;
    CHECK_EQ(lc_stream_take(e.stream, &lease), 0);
    return endpoint_close(s, &e);
}

/* The half-close comes after what was queued, and receiving goes on. */
int finished_stream_still_reads(scenario *s) {
    enum { SIZE = 8 << 20 }; /* more than sockets hold */
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t *bytes = malloc(SIZE);
    CHECK(bytes != NULL);
    pattern_fill(bytes, SIZE, 0, 0);
    CHECK_EQ(lc_stream_send_copy(e.stream, bytes, SIZE), 0);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    TRY(scenario_settle(s));
    CHECK_GT(lc_stream_unsent(e.stream), 0);
    bool end = false;
    PUMP_UNTIL(peer_receive_some(s, &e, 0, SIZE, &end), end);
    CHECK_EQ(e.peer_received, SIZE);
    TRY(peer_send(s, &e, bytes, 777));
    free(bytes);
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    RUN_UNTIL(e.received == 777);
    CHECK_EQ(e.ends, 0);
    return endpoint_close(s, &e);
}

/* ---- peers that go away ---- */

int peer_resets_while_reading(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    uint8_t bytes[100];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    RUN_UNTIL(e.received == sizeof bytes);
    TRY(peer_reset(s, &e));
    RUN_UNTIL(e.errors > 0);
    CHECK_EQ(e.error, -ECONNRESET);
    TRY(scenario_settle(s));
    CHECK_EQ(e.errors, 1);
    CHECK_EQ(e.ends, 0);
    return endpoint_close(s, &e);
}

int peer_resets_while_writing(scenario *s) {
    enum { SIZE = 8 << 20 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    TRY(endpoint_send_until_stuck(s, &e, SIZE));
    CHECK_EQ(lc_stream_wait_send(e.stream, 1, 0), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.sends, 0);
    TRY(peer_reset(s, &e));
    RUN_UNTIL(e.sends > 0);
    int error = lc_stream_send_error(e.stream);
    CHECK(error == -ECONNRESET || error == -EPIPE);
    CHECK_EQ(lc_stream_unsent(e.stream), 0);
    CHECK_EQ(scenario_stats(s).leased, 0);
    CHECK_EQ(lc_stream_send_copy(e.stream, "x", 1), error);
    CHECK_EQ(lc_stream_finish_sending(e.stream), error);
    TRY(scenario_settle(s));
    CHECK_EQ(e.sends, 1);
    return endpoint_close(s, &e);
}

static int write_after_close(scenario *s, bool tcp) {
    sigset_t pipe_signal, old, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    /* Blocked, one that is raised stays to be seen. */
    CHECK_EQ(pthread_sigmask(SIG_BLOCK, &pipe_signal, &old), 0);
    endpoint e = {0};
    TRY(endpoint_open(s, &e, tcp));
    CHECK_CALL(close(e.peer));
    e.peer = -1;
    uint32_t waits = 0;
    while (lc_stream_send_error(e.stream) == 0) {
        CHECK_EQ(lc_stream_send_copy(e.stream, "hello", 5), 0);
        CHECK_EQ(lc_stream_wait_send(e.stream, ++waits, 0), 0);
        RUN_UNTIL(e.sends == waits);
    }
    int error = lc_stream_send_error(e.stream);
    CHECK(error == -EPIPE || error == -ECONNRESET);
    CHECK_EQ(sigpending(&pending), 0);
    bool raised = sigismember(&pending, SIGPIPE);
    if (raised) {
        struct timespec none = {0};
        sigtimedwait(&pipe_signal, NULL, &none);
    }
    CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    CHECK(!raised);
    CHECK_EQ(lc_stream_unsent(e.stream), 0);
    return endpoint_close(s, &e);
}

int write_after_the_peer_closed_tcp(scenario *s) { return write_after_close(s, true); }
int write_after_the_peer_closed_unix(scenario *s) { return write_after_close(s, false); }

/* ---- closing ---- */

/* What the peer's next read says: 0 at an end, or a negated errno. */
static int peer_last_word(scenario *s, endpoint *e) {
    struct pollfd wait = {.fd = e->peer, .events = POLLIN};
    CHECK_EQ(poll(&wait, 1, 30000), 1);
    char byte;
    ssize_t got = recv(e->peer, &byte, 1, MSG_DONTWAIT);
    return got < 0 ? -errno : (int)got;
}

static int close_armed(scenario *s, bool abort, bool reset, int expected) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_wait_receive(e.stream, 41), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.deliveries, 0);
    CHECK_EQ(lc_stream_close(e.stream, abort, reset), 1);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 42), 0);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 43), -EBUSY);
    CHECK_EQ(lc_stream_send_copy(e.stream, "x", 1), -ESHUTDOWN);
    CHECK_EQ(lc_stream_finish_sending(e.stream), -ESHUTDOWN);
    RUN_UNTIL(e.closes > 0);
    CHECK_EQ(e.last_waiter, 42);
    CHECK_EQ(e.deliveries, 1);
    CHECK_EQ(e.shutdowns, 1);
    CHECK_EQ(peer_last_word(s, &e), expected);
    CHECK_EQ(lc_stream_close(e.stream, abort, reset), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.closes, 1);
    return endpoint_close(s, &e);
}

int close_with_a_receive_armed(scenario *s) { return close_armed(s, false, false, 0); }
int abort_with_a_receive_armed(scenario *s) { return close_armed(s, true, false, 0); }
int abort_with_reset(scenario *s) { return close_armed(s, true, true, -ECONNRESET); }

int close_sends_what_is_queued_first(scenario *s) {
    enum { SIZE = 4 << 20 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    uint8_t *bytes = malloc(SIZE);
    CHECK(bytes != NULL);
    pattern_fill(bytes, SIZE, 3, 0);
    CHECK_EQ(lc_stream_send_copy(e.stream, bytes, SIZE), 0);
    free(bytes);
    TRY(scenario_pass(s, false));
    CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 1), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.closes, 0);
    bool end = false;
    PUMP_UNTIL(peer_receive_some(s, &e, 3, SIZE, &end), end);
    CHECK_EQ(e.peer_received, SIZE);
    PUMP_UNTIL(0, e.closes == 1);
    return endpoint_close(s, &e);
}

/* A polite close that nobody reads for can still be cut short, and so can its owner let go in the middle. */
int a_polite_close_may_turn_into_an_abort(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    TRY(endpoint_send_until_stuck(s, &e, 8 << 20));
    CHECK_EQ(lc_stream_wait_send(e.stream, 7, 0), 0);
    CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
    TRY(scenario_settle(s));
    CHECK_EQ(e.sends, 0);
    CHECK(!lc_stream_is_closed(e.stream));
    CHECK_EQ(lc_stream_close(e.stream, true, true), 1);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 8), 0);
    RUN_UNTIL(e.closes == 1);
    CHECK_EQ(e.sends, 1);
    CHECK_EQ(scenario_stats(s).leased, 0);
    return endpoint_close(s, &e);
}

int a_released_stream_goes_on_flushing(scenario *s) {
    enum { SIZE = 4 << 20 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t *bytes = malloc(SIZE);
    CHECK(bytes != NULL);
    pattern_fill(bytes, SIZE, 3, 0);
    CHECK_EQ(lc_stream_send_copy(e.stream, bytes, SIZE), 0);
    free(bytes);
    CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
    lc_stream_release(e.stream);
    bool end = false;
    PUMP_UNTIL(peer_receive_some(s, &e, 3, SIZE, &end), end);
    CHECK_EQ(e.peer_received, SIZE);
    PUMP_UNTIL(0, scenario_stats(s).streams == 0);
    CHECK_CALL(close(e.peer));
    return 0;
}

static int release_elsewhere(scenario *s, void *context) {
    (void)s;
    lc_stream_release(((endpoint *)context)->stream);
    return 0;
}

int a_stream_released_on_another_thread(scenario *s) {
    for (uint32_t round = 0; round < 50; round++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, round % 2));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        TRY(scenario_pass(s, false));
        helper other;
        TRY(helper_start(s, &other, release_elsewhere, &e));
        RUN_UNTIL(scenario_stats(s).streams == 0);
        TRY(helper_join(s, &other));
        CHECK_EQ(peer_last_word(s, &e), 0);
        CHECK_CALL(close(e.peer));
    }
    return 0;
}

static int count_call(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    ++*(uint32_t *)s->context;
    return 0;
}

/* The entry that tells of the close is on its way while the owner lets go: what is queued behind it stays queued. */
int a_release_elsewhere_while_the_close_is_told(scenario *s) {
    uint32_t calls = 0;
    s->context = &calls;
    s->on.call = count_call;
    endpoint e = {0};
    TRY(endpoint_open(s, &e, false));
    CHECK_EQ(lc_stream_close(e.stream, true, false), 1);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 1), 0);
    while (!lc_stream_is_closed(e.stream)) {
        CHECK_EQ(e.closes, 0);
        TRY(scenario_pass(s, false));
    }
    CHECK_EQ(e.closes, 0); /* closed in the last phase of a pass, to be told in the next */
    lc_call_id id;
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 1, &id), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 2, &id), 0);
    helper other;
    TRY(helper_start(s, &other, release_elsewhere, &e));
    TRY(helper_join(s, &other));
    TRY(scenario_settle(s));
    CHECK_EQ(calls, 2);
    CHECK_EQ(scenario_stats(s).streams, 0);
    CHECK_CALL(close(e.peer));
    return 0;
}

/* ---- waits and their cancels ---- */

int a_cancelled_wait_loses_no_bytes(scenario *s) {
    for (uint32_t round = 0; round < 40; round++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, round & 1));
        uint8_t bytes[200];
        pattern_fill(bytes, sizeof bytes, 0, 0);
        CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
        CHECK_EQ(lc_stream_wait_receive(e.stream, 2), -EBUSY);
        uint32_t token = lc_stream_receive_token(e.stream);
        if (round & 2)
            TRY(scenario_settle(s)); /* armed before the cancel, or not */
        if (round & 4)
            TRY(peer_send(s, &e, bytes, 100)); /* the first bytes before the cancel, or after */
        if ((round & 4) && (round & 8)) {
            /* Known to the loop, and on its way to the waiter. */
            CHECK_GE(lc_loop_tick(s->loop, true), 0);
        }
        lc_stream_cancel_receive(e.stream, token);
        lc_stream_cancel_receive(e.stream, token);
        if (!(round & 4))
            TRY(peer_send(s, &e, bytes, 100));
        RUN_UNTIL(e.deliveries > 0);
        CHECK_EQ(e.last_waiter, 1);
        CHECK_EQ(e.deliveries, 1);
        CHECK_EQ(e.cancels, 1);
        CHECK_EQ(e.received, 0);
        lc_stream_cancel_receive(e.stream, token); /* the wait is over */
        TRY(peer_send(s, &e, bytes + 100, 100));
        for (uint64_t waiter = 10; e.received < 200; waiter++) {
            CHECK_EQ(lc_stream_wait_receive(e.stream, waiter), 0);
            lc_stream_cancel_receive(e.stream, token); /* a stale one */
            uint32_t deliveries = e.deliveries;
            RUN_UNTIL(e.deliveries > deliveries);
            CHECK_EQ(e.last_waiter, waiter);
        }
        CHECK_EQ(e.cancels, 1);
        CHECK_EQ(e.received, 200);
        TRY(endpoint_close(s, &e));
    }
    return 0;
}

int a_stale_token_cancels_nothing(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t bytes[2];
    pattern_fill(bytes, 2, 0, 0);
    uint32_t stale = lc_stream_receive_token(e.stream), stale_send = lc_stream_send_token(e.stream);
    lc_stream_cancel_receive(e.stream, stale); /* nobody waits */
    CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
    TRY(peer_send(s, &e, bytes, 1));
    RUN_UNTIL(e.deliveries == 1);
    CHECK_EQ(e.received, 1);
    CHECK_NE(lc_stream_receive_token(e.stream), stale);
    CHECK_EQ(lc_stream_wait_receive(e.stream, 2), 0);
    lc_stream_cancel_receive(e.stream, stale);
    lc_stream_cancel_receive(e.stream, lc_stream_receive_token(e.stream) + 1);
    TRY(scenario_settle(s));
    CHECK_EQ(e.deliveries, 1);
    TRY(peer_send(s, &e, bytes + 1, 1));
    RUN_UNTIL(e.deliveries == 2);
    CHECK_EQ(e.received, 2);
    CHECK_EQ(e.cancels, 0);

    lc_stream_cancel_send(e.stream, stale_send);
    CHECK_EQ(lc_stream_wait_send(e.stream, 3, 0), 0); /* nothing to send: told at once */
    RUN_UNTIL(e.sends == 1);
    CHECK_EQ(e.sends_cancelled, 0);
    TRY(endpoint_send_until_stuck(s, &e, 8 << 20));
    CHECK_EQ(lc_stream_wait_send(e.stream, 4, 0), 0);
    lc_stream_cancel_send(e.stream, stale_send);
    TRY(scenario_settle(s));
    CHECK_EQ(e.sends, 1);
    size_t unsent = lc_stream_unsent(e.stream);
    lc_stream_cancel_send(e.stream, lc_stream_send_token(e.stream));
    RUN_UNTIL(e.sends == 2);
    CHECK_EQ(e.last_waiter, 4);
    CHECK_EQ(e.sends_cancelled, 1);
    CHECK_EQ(lc_stream_unsent(e.stream), unsent); /* only the wait ended */
    return endpoint_close(s, &e);
}

/* Nobody takes: the loop stops receiving, the socket fills, and the peer feels it. */
int a_paused_stream_pushes_back(scenario *s) {
    enum { TOTAL = 32 << 20, PIECE = 64 * 1024 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, false));
    uint8_t *bytes = malloc(PIECE);
    CHECK(bytes != NULL);
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    CHECK_EQ(lc_stream_wait_receive(e.stream, 1), -EBUSY);
    uint8_t first = pattern_byte(0, 0);
    TRY(peer_send(s, &e, &first, 1));
    RUN_UNTIL(e.received == 1);
    lc_stream_pause_receiving(e.stream);
    uint64_t sent = 1;
    /* Room in the socket, and the leases the loop takes before it lets the socket fill. */
    for (uint32_t refused = 0; refused < 100;) {
        CHECK_LT(sent, TOTAL);
        pattern_fill(bytes, PIECE, 0, sent);
        ssize_t part = send(e.peer, bytes, PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (part < 0)
            CHECK_EQ(errno, EAGAIN);
        sent += part < 0 ? 0 : (uint64_t)part;
        refused = part < 0 ? refused + 1 : 0;
        TRY(scenario_pass(s, false));
    }
    free(bytes);
    CHECK_EQ(e.received, 1);
    CHECK_LE(scenario_stats(s).leased, 64);
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    RUN_UNTIL(e.received == sent);
    return endpoint_close(s, &e);
}

/* ---- connecting ---- */

typedef struct connecting {
    lc_stream *stream;
    uint32_t sends, closes;
} connecting;

static int connect_told(scenario *s, lc_stream *stream) {
    connecting *c = s->context;
    CHECK(stream == c->stream);
    CHECK_EQ(lc_stream_send_waiter(stream), 11);
    c->sends++;
    return 0;
}

static int close_told(scenario *s, lc_stream *stream) {
    connecting *c = s->context;
    CHECK(stream == c->stream);
    CHECK_EQ(lc_stream_closed_waiter(stream), 12);
    c->closes++;
    return 0;
}

int connect_and_talk(scenario *s) {
    connecting c = {0};
    s->context = &c;
    s->on.send = connect_told;
    int listening, peer;
    lc_address address, seen;
    TRY(listen_anywhere(s, 8, &listening, &address));
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &c.stream), 0);
    /* Bytes queued before the connection is there leave once it is. */
    CHECK_EQ(lc_stream_send_copy(c.stream, "early", 5), 0);
    CHECK_EQ(lc_stream_wait_send(c.stream, 11, 0), 0);
    RUN_UNTIL(c.sends == 1);
    CHECK_EQ(lc_stream_connect_result(c.stream), 0);
    TRY(set_nonblocking(s, listening, false));
    peer = accept(listening, NULL, NULL);
    CHECK_CALL(peer);
    char text[8] = {0};
    CHECK_EQ(recv(peer, text, 5, MSG_WAITALL), 5);
    CHECK_EQ(memcmp(text, "early", 5), 0);
    CHECK_EQ(lc_address_local(lc_stream_fd(c.stream), &seen), 0);
    CHECK_EQ(lc_address_peer(lc_stream_fd(c.stream), &seen), 0);
    CHECK_EQ(memcmp(&seen.storage, &address.storage, address.length), 0);
    lc_stream_release(c.stream);
    close(peer);
    close(listening);
    return 0;
}

/* Asked for too early, it would be refused, and never come. */
int a_half_close_while_connecting(scenario *s) {
    connecting c = {0};
    s->context = &c;
    s->on.send = connect_told;
    int listening;
    char byte;
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &c.stream), 0);
    CHECK_EQ(lc_stream_finish_sending(c.stream), 0);
    CHECK_EQ(lc_stream_finish_sending(c.stream), 0);
    CHECK_EQ(lc_stream_send_copy(c.stream, "late", 4), -EPIPE);
    CHECK_EQ(lc_stream_wait_send(c.stream, 11, 0), 0);
    RUN_UNTIL(c.sends == 1);
    CHECK_EQ(lc_stream_connect_result(c.stream), 0);
    TRY(set_nonblocking(s, listening, false));
    int peer = accept(listening, NULL, NULL);
    CHECK_CALL(peer);
    TRY(scenario_settle(s));
    CHECK_EQ(recv(peer, &byte, 1, MSG_DONTWAIT), 0);
    lc_stream_release(c.stream);
    close(peer);
    close(listening);
    return 0;
}

int connect_refused(scenario *s) {
    connecting c = {0};
    s->context = &c;
    s->on.send = connect_told;
    int bound; /* a port that is taken, and where nobody listens */
    lc_address address;
    bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(bound);
    CHECK_EQ(lc_address_parse("127.0.0.1", 0, &address), 0);
    CHECK_CALL(bind(bound, (struct sockaddr *)&address.storage, address.length));
    CHECK_EQ(lc_address_local(bound, &address), 0);
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &c.stream), 0);
    CHECK_EQ(lc_stream_send_copy(c.stream, "never", 5), 0);
    CHECK_EQ(lc_stream_wait_send(c.stream, 11, 0), 0);
    RUN_UNTIL(c.sends == 1);
    CHECK_EQ(lc_stream_connect_result(c.stream), -ECONNREFUSED);
    CHECK_EQ(lc_stream_send_error(c.stream), -ECONNREFUSED);
    CHECK_EQ(lc_stream_unsent(c.stream), 0);
    CHECK_EQ(lc_stream_send_copy(c.stream, "x", 1), -ECONNREFUSED);
    TRY(scenario_settle(s));
    CHECK_EQ(c.sends, 1);
    lc_stream_release(c.stream);
    close(bound);
    return 0;
}

static int cancel_connect(scenario *s, bool started, bool release) {
    connecting c = {0};
    s->context = &c;
    s->on.send = connect_told;
    s->on.closed = close_told;
    int listening, fillers[FILLERS];
    lc_address address;
    TRY(listen_full(s, &listening, fillers, &address));
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &c.stream), 0);
    CHECK_EQ(lc_stream_send_copy(c.stream, "never", 5), 0);
    CHECK_EQ(lc_stream_wait_send(c.stream, 11, 0), 0);
    if (started) {
        TRY(scenario_settle(s));
        CHECK_EQ(c.sends, 0);
    }
    if (release) {
        lc_stream_release(c.stream);
        RUN_UNTIL(scenario_stats(s).streams == 0);
        CHECK_EQ(c.sends, 0);
    } else {
        CHECK_EQ(lc_stream_close(c.stream, false, false), 1);
        CHECK_EQ(lc_stream_wait_closed(c.stream, 12), 0);
        RUN_UNTIL(c.closes == 1);
        CHECK_EQ(c.sends, 1);
        CHECK_EQ(lc_stream_connect_result(c.stream), -ECANCELED);
        CHECK_EQ(scenario_stats(s).leased, 0);
        lc_stream_release(c.stream);
    }
    for (int index = 0; index < FILLERS; index++)
        close(fillers[index]);
    close(listening);
    return 0;
}

int close_while_connecting(scenario *s) {
    TRY(cancel_connect(s, true, false));
    TRY(cancel_connect(s, false, false));
    TRY(cancel_connect(s, true, true));
    return cancel_connect(s, false, true);
}

/* ---- adopting ---- */

int what_a_stream_cannot_be_made_of(scenario *s) {
    lc_stream *stream;
    int datagram = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), pipes[2];
    CHECK_CALL(datagram);
    CHECK_CALL(pipe(pipes));
    CHECK_EQ(lc_stream_adopt(s->loop, datagram, &stream), -EPROTOTYPE);
    CHECK_EQ(lc_stream_adopt(s->loop, pipes[0], &stream), -ENOTSOCK);
    CHECK_EQ(lc_stream_adopt(s->loop, -1, &stream), -EBADF);
    CHECK_EQ(close(datagram), 0); /* they stayed ours */
    CHECK_EQ(close(pipes[0]), 0);
    CHECK_EQ(close(pipes[1]), 0);
    endpoint e = {0};
    TRY(endpoint_open(s, &e, false));
    CHECK_EQ(lc_stream_adopt(s->loop, lc_stream_fd(e.stream), &stream), -EBUSY);
    return endpoint_close(s, &e);
}
