// SPDX-License-Identifier: Apache-2.0
/* faults_shim_streams.c: transfers that fail for good, and sends that come up short. */
#include "scenario.h"
#include "shim.h"

static bool playable(const scenario *s) { return !scenario_is_proactor(s) || shim_ring_faults_possible(); }

static const int for_good[] = {EBADF, EFAULT, ENOTSOCK};
enum { FOR_GOOD = 3 };

/* ---- F4 ---- */

int a_receive_fails_for_good(scenario *s) {
    if (!playable(s))
        return 0;
    for (uint32_t round = 0; round < 2 * FOR_GOOD; round++) {
        endpoint e = {0};
        lc_buffer *lease;
        shim_fault fault = {.call = SHIM_RECV, .count = SHIM_FOR_EVER, .error = for_good[round % FOR_GOOD]};
        TRY(endpoint_open(s, &e, round % 2));
        TRY(peer_send(s, &e, "x", 1));
        shim_arm(&fault, 1);
        bool waits = round >= FOR_GOOD;
        CHECK_EQ(waits ? lc_stream_wait_receive(e.stream, 7) : lc_stream_start_receiving(e.stream), 0);
        RUN_UNTIL(e.errors == 1);
        TRY(scenario_settle(s));
        shim_disarm();
        CHECK_EQ(shim_calls(SHIM_RECV), 1);
        CHECK_EQ(e.error, -fault.error);
        CHECK_EQ(e.deliveries, 1);
        CHECK_EQ(e.ends, 0);
        /* Whoever asks later hears the same, without a call. */
        CHECK_EQ(lc_stream_take(e.stream, &lease), -fault.error);
        CHECK_EQ(scenario_stats(s).in_kernel + scenario_stats(s).armed, 0);
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));
        TRY(scenario_check_zero(s));
    }
    return 0;
}

int a_send_fails_for_good(scenario *s) {
    if (!playable(s))
        return 0;
    for (uint32_t round = 0; round < 2 * FOR_GOOD; round++) {
        endpoint e = {0};
        int error = for_good[round % FOR_GOOD];
        shim_fault fault = {.call = SHIM_SEND, .count = SHIM_FOR_EVER, .error = error};
        TRY(endpoint_open(s, &e, round % 2));
        static uint8_t bytes[40000];
        shim_arm(&fault, 1);
        /* One buffer, or several gathered. */
        for (uint32_t part = 0; part <= round / FOR_GOOD; part++)
            CHECK_EQ(lc_stream_send_copy(e.stream, bytes, sizeof bytes), 0);
        CHECK_EQ(lc_stream_wait_send(e.stream, 9, 0), 0);
        RUN_UNTIL(e.sends == 1);
        TRY(scenario_settle(s));
        shim_disarm();
        CHECK_EQ(shim_calls(SHIM_SEND), 1);
        CHECK_EQ(e.sends, 1);
        CHECK_EQ(lc_stream_send_error(e.stream), -error);
        CHECK_EQ(lc_stream_unsent(e.stream), 0);
        CHECK_EQ(scenario_stats(s).leased, 0);
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, 1), -error);
        CHECK_EQ(lc_stream_finish_sending(e.stream), -error);
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));
        TRY(scenario_check_zero(s));
    }
    return 0;
}

int a_connect_fails_for_good(scenario *s) {
    if (!playable(s))
        return 0;
    int listening;
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    for (uint32_t round = 0; round < FOR_GOOD; round++) {
        endpoint e = {.peer = -1};
        shim_fault fault = {.call = SHIM_CONNECT, .count = SHIM_FOR_EVER, .error = for_good[round]};
        shim_arm(&fault, 1);
        CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &e.stream), 0);
        lc_stream_set_word(e.stream, (uint64_t)(uintptr_t)&e);
        CHECK_EQ(lc_stream_send_copy(e.stream, "never", 5), 0);
        CHECK_EQ(lc_stream_wait_send(e.stream, 3, 0), 0);
        RUN_UNTIL(e.sends == 1);
        TRY(scenario_settle(s));
        shim_disarm();
        CHECK_EQ(shim_calls(SHIM_CONNECT), 1);
        CHECK_EQ(e.sends, 1);
        CHECK_EQ(lc_stream_connect_result(e.stream), -for_good[round]);
        CHECK_EQ(lc_stream_send_error(e.stream), -for_good[round]);
        CHECK_EQ(lc_stream_unsent(e.stream), 0);
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));
        TRY(scenario_check_zero(s));
    }
    CHECK_CALL(close(listening));
    return 0;
}

/* The answer to "how did it go" may itself fail; then it did not go well. */
int a_connect_cannot_be_asked_about(scenario *s) {
    int listening;
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    endpoint e = {.peer = -1};
    shim_fault faults[] = {{.call = SHIM_CONNECT, .error = EINPROGRESS},
                           {.call = SHIM_GETSOCKOPT, .count = SHIM_FOR_EVER, .error = ENOBUFS}};
    if (scenario_is_proactor(s)) {
        CHECK_CALL(close(listening));
        return 0; /* the kernel says it in the completion */
    }
    shim_arm(faults, 2);
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &e.stream), 0);
    lc_stream_set_word(e.stream, (uint64_t)(uintptr_t)&e);
    CHECK_EQ(lc_stream_send_copy(e.stream, "never", 5), 0);
    CHECK_EQ(lc_stream_wait_send(e.stream, 3, 0), 0);
    RUN_UNTIL(e.sends == 1);
    shim_disarm();
    CHECK_EQ(lc_stream_connect_result(e.stream), -ENOBUFS);
    TRY(endpoint_close(s, &e));
    CHECK_CALL(close(listening));
    return scenario_settle(s);
}

/* ---- F12 ---- */

enum { BUFFERS = 130, BUFFER_SIZE = 16 * 1024, TOTAL = BUFFERS * BUFFER_SIZE, FAULTS_MAX = 64 };

static uint8_t *transfer_bytes;
static pthread_once_t transfer_once = PTHREAD_ONCE_INIT;

static void transfer_make(void) {
    static uint8_t bytes[TOTAL];
    pattern_fill(bytes, TOTAL, 12, 0);
    transfer_bytes = bytes;
}

/* Buffers of the size that takes no more, so that they stay many; more than two gathers carry. */
static int transfer(scenario *s, bool tcp, size_t total, size_t part, const shim_fault *faults, size_t fault_count) {
    endpoint e = {0};
    bool end = false;
    TRY(endpoint_open(s, &e, tcp));
    shim_arm(faults, fault_count);
    for (size_t at = 0; at < total; at += part)
        CHECK_EQ(lc_stream_send_copy(e.stream, transfer_bytes + at, total - at < part ? total - at : part), 0);
    CHECK_EQ(lc_stream_finish_sending(e.stream), 0);
    CHECK_EQ(lc_stream_wait_send(e.stream, 1, 0), 0);
    PUMP_UNTIL(peer_receive_some(s, &e, 12, total, &end), e.peer_received == total);
    PUMP_UNTIL(peer_receive_some(s, &e, 12, 1, &end), end);
    shim_disarm();
    CHECK_EQ(e.peer_received, total);
    CHECK_EQ(e.sends, 1);
    CHECK_EQ(lc_stream_send_error(e.stream), 0);
    TRY(endpoint_close(s, &e));
    return scenario_settle(s);
}

int the_nth_send_is_one_byte(scenario *s) {
    pthread_once(&transfer_once, transfer_make);
    for (int tcp = 0; tcp <= 1; tcp++) {
        TRY(transfer(s, tcp, TOTAL, BUFFER_SIZE, NULL, 0));
        uint32_t sends = shim_calls(SHIM_SEND), played = 1;
        CHECK_GE(sends, 3);
        for (uint32_t nth = 1; nth <= sends && played; nth++) {
            shim_fault fault = {.call = SHIM_SEND, .nth = nth, .at_most = 1};
            TRY(transfer(s, tcp, TOTAL, BUFFER_SIZE, &fault, 1));
            played = shim_faults_played();
            CHECK(played == 1 || nth > 3); /* how many sends there are varies a little */
        }
    }
    return 0;
}

int every_nth_send_is_one_byte(scenario *s) {
    pthread_once(&transfer_once, transfer_make);
    for (uint32_t every = 2; every <= 5; every++) {
        shim_fault faults[FAULTS_MAX];
        for (uint32_t index = 0; index < FAULTS_MAX; index++)
            faults[index] = (shim_fault){.call = SHIM_SEND, .nth = (index + 1) * every, .at_most = 1};
        TRY(transfer(s, every == 3, TOTAL, BUFFER_SIZE, faults, FAULTS_MAX));
        CHECK(shim_faults_played() >= 1 || every > 3); /* a ring needs three sends for all of it */
    }
    /* Each and every one, of many small buffers and of a large one. */
    shim_fault each = {.call = SHIM_SEND, .count = SHIM_FOR_EVER, .at_most = 1};
    TRY(transfer(s, true, 3000, 3000, &each, 1));
    CHECK_EQ(shim_faults_played(), 2999); /* the last byte alone is not shortened */
    each.at_most = 16 * 1024 + 1;         /* and such that each ends inside a buffer */
    TRY(transfer(s, true, TOTAL, BUFFER_SIZE, &each, 1));
    CHECK_GE(shim_faults_played(), BUFFERS / 2);
    return 0;
}

/* Neither breaks the stream: it is asked again. */
int a_send_is_interrupted(scenario *s) {
    static const int errors[] = {EINTR, EAGAIN};
    pthread_once(&transfer_once, transfer_make);
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++)
        for (uint32_t nth = 1; nth <= 3; nth++) {
            shim_fault fault = {.call = SHIM_SEND, .nth = nth, .error = errors[index]};
            TRY(transfer(s, nth == 1, TOTAL, BUFFER_SIZE, &fault, 1));
        }
    return 0;
}

/* What is echoed is leased, not copied: the lease goes back once, when its last byte is out. */
int echoed_leases_leave_byte_by_byte(scenario *s) {
    enum { SIZE = 2000 };
    uint8_t bytes[SIZE];
    endpoint e = {.echo = true};
    bool end = false;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    pattern_fill(bytes, SIZE, 0, 0);
    TRY(peer_send(s, &e, bytes, SIZE));
    shim_fault faults[] = {{.call = SHIM_SEND, .count = SHIM_FOR_EVER, .at_most = 1},
                           {.call = SHIM_RECV, .count = SHIM_FOR_EVER, .at_most = 300}};
    shim_arm(faults, 2);
    PUMP_UNTIL(peer_receive_some(s, &e, 0, SIZE, &end), e.peer_received == SIZE);
    shim_disarm();
    CHECK_GE(shim_faults_played(), SIZE / 2);
    TRY(scenario_settle(s));
    CHECK_EQ(scenario_stats(s).leased, 0);
    return endpoint_close(s, &e);
}
