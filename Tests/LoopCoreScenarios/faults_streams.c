// SPDX-License-Identifier: Apache-2.0
/* faults_streams.c: bytes under bad conditions: peers that reset or are gone while we write, reads of single bytes, and
 * sockets that are full. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include "faults.h"

/* ---- a reset while much is queued ---- */

/* 10 MB, and everybody who can wait does. */
int peer_resets_with_much_queued(scenario *s) {
    enum { PARTS = 100, PART = 100 * 1000 };
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    uint8_t *bytes = calloc(1, PART);
    CHECK(bytes != NULL);
    for (uint32_t part = 0; part < PARTS; part++)
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, PART), 0);
    free(bytes);
    CHECK_EQ(lc_stream_wait_receive(e.stream, 21), 0);
    CHECK_EQ(lc_stream_wait_send(e.stream, 22, 0), 0);
    TRY(scenario_settle(s));
    CHECK_GT(lc_stream_unsent(e.stream), PARTS * PART / 4);
    CHECK_GT(scenario_stats(s).leased, PARTS / 4);
    CHECK_EQ(e.deliveries + e.sends, 0);
    TRY(peer_reset(s, &e));
    RUN_UNTIL(e.sends > 0 && e.deliveries > 0);
    /* One side meets the reset, the other finds that the connection is over; a send in the ring that was partly done
     * returns its count, and with it the reset is spent (K20). */
    int error = lc_stream_send_error(e.stream);
    CHECK(error == -ECONNRESET || error == -EPIPE);
    CHECK(e.ends == 1 || e.error == -ECONNRESET);
    CHECK(error == -ECONNRESET || e.error == -ECONNRESET || scenario_is_proactor(s));
    CHECK_EQ(lc_stream_unsent(e.stream), 0);
    CHECK_EQ(scenario_stats(s).leased, 0);
    CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
    CHECK_EQ(lc_stream_wait_closed(e.stream, 23), 0);
    RUN_UNTIL(e.closes > 0);
    TRY(scenario_settle(s));
    CHECK_EQ(e.sends, 1);
    CHECK_EQ(e.deliveries, 1);
    CHECK_EQ(e.ends + e.errors, 1);
    CHECK_EQ(e.closes, 1);
    CHECK_EQ(e.last_waiter, 23);
    return endpoint_close(s, &e);
}

/* ---- a peer that is gone, and SIGPIPE that kills ---- */

enum write_how { WRITE_COPY, WRITE_MANY, WRITE_LEASE, WRITE_WAYS };

/* One buffer, many at once, and received ones each leave by a call of their own. */
static int write_once(scenario *s, endpoint *e, enum write_how how, endpoint *source) {
    enum { MANY = 3, SIZE = 20000 };
    static const uint8_t bytes[SIZE];
    if (how == WRITE_LEASE) {
        uint8_t byte = pattern_byte(0, source->received);
        source->hold = true;
        TRY(peer_send(s, source, &byte, 1));
        RUN_UNTIL(source->held_count == 1);
        lc_stream_send(e->stream, source->held[0]); /* refused or not, it is the stream's */
        source->held_count = 0;
        return 0;
    }
    for (uint32_t index = 0; index < (how == WRITE_MANY ? MANY : 1); index++)
        lc_stream_send_copy(e->stream, bytes, SIZE);
    return 0;
}

static int write_to_nobody(scenario *s) {
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    CHECK_CALL(sigprocmask(SIG_SETMASK, &none, NULL));
    endpoint source = {0};
    TRY(endpoint_open(s, &source, false));
    CHECK_EQ(lc_stream_start_receiving(source.stream), 0);
    for (uint32_t round = 0; round < 2 * WRITE_WAYS; round++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, round % 2));
        CHECK_CALL(close(e.peer));
        e.peer = -1;
        uint32_t waits = 0;
        while (lc_stream_send_error(e.stream) == 0) {
            TRY(write_once(s, &e, round / 2, &source));
            CHECK_EQ(lc_stream_wait_send(e.stream, ++waits, 0), 0);
            RUN_UNTIL(e.sends == waits);
        }
        int error = lc_stream_send_error(e.stream);
        CHECK(error == -EPIPE || error == -ECONNRESET);
        TRY(write_once(s, &e, round / 2, &source)); /* once more, knowing it */
        TRY(scenario_settle(s));
        CHECK_EQ(lc_stream_unsent(e.stream), 0);
        CHECK_EQ(scenario_stats(s).leased, 0);
        TRY(endpoint_close(s, &e));
    }
    endpoint_return_held(&source);
    return endpoint_close(s, &source);
}

int writing_to_nobody_kills_nobody(scenario *s) { return scenario_in_child(s, write_to_nobody); }

/* ---- bytes one by one ---- */

static int send_byte_by_byte(scenario *s, void *context) {
    enum { TOTAL = 2000, BURST = 3000 };
    endpoint *e = context;
    uint8_t bytes[BURST], answer[64];
    for (uint64_t position = 0, back = 0; position < TOTAL; position++) {
        uint8_t byte = pattern_byte(0, position);
        TRY(peer_send(s, e, &byte, 1));
        /* Some of them one at a time, some as they come. */
        if (position % 100 < 50)
            continue;
        for (; back <= position;) {
            size_t wanted = position + 1 - back < sizeof answer ? (size_t)(position + 1 - back) : sizeof answer;
            ssize_t got = recv(e->peer, answer, wanted, 0);
            CHECK_GT(got, 0);
            TRY(pattern_check(s, answer, (size_t)got, 0, back));
            back += (uint64_t)got;
        }
    }
    pattern_fill(bytes, BURST, 0, TOTAL);
    TRY(peer_send(s, e, bytes, BURST));
    for (size_t got = 0; got < BURST;) {
        ssize_t part = recv(e->peer, answer, BURST - got < sizeof answer ? BURST - got : sizeof answer, 0);
        CHECK_GT(part, 0);
        TRY(pattern_check(s, answer, (size_t)part, 0, TOTAL + got));
        got += (size_t)part;
    }
    CHECK_CALL(shutdown(e->peer, SHUT_WR));
    return 0;
}

int bytes_one_by_one(scenario *s) {
    s->options.buffer_size = 1;
    TRY(scenario_reopen(s));
    for (uint32_t tcp = 0; tcp < 2; tcp++) {
        endpoint e = {.echo = true};
        TRY(endpoint_open(s, &e, tcp));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        helper peer;
        TRY(helper_start(s, &peer, send_byte_by_byte, &e));
        RUN_UNTIL(e.ends > 0);
        TRY(helper_join(s, &peer));
        CHECK_EQ(e.received, 5000);
        CHECK_EQ(lc_stream_unsent(e.stream), 0);
        CHECK_EQ(lc_stream_send_error(e.stream), 0);
        CHECK_EQ(e.ends, 1);
        TRY(endpoint_close(s, &e));
    }
    return 0;
}

/* ---- two sends on a full socket ---- */

static int send_piece(scenario *s, endpoint *e, size_t length, uint64_t *sent) {
    uint8_t *bytes = malloc(length);
    CHECK(bytes != NULL);
    pattern_fill(bytes, length, 9, *sent);
    CHECK_EQ(lc_stream_send_copy(e->stream, bytes, length), 0);
    free(bytes);
    *sent += length;
    return 0;
}

/* The socket is full, and what it has no room for is already in the kernel's hands: two more, of every size, follow. */
int two_sends_on_a_full_socket(scenario *s) {
    enum { ROOM = 32 * 1024, FILL = 300001, REST = 100 };
    static const size_t sizes[] = {1, 100, 16384, 20000, 60001};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    for (uint32_t tcp = 0; tcp < 2; tcp++) {
        int fds[2], room = ROOM;
        TRY(tcp ? pair_tcp(s, fds) : pair_unix(s, fds));
        CHECK_CALL(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room));
        CHECK_CALL(setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &room, sizeof room));
        endpoint e = {0};
        TRY(endpoint_adopt(s, &e, fds));
        uint64_t sent = 0;
        bool end = false;
        for (uint32_t pair = 0; pair < SIZES * SIZES; pair++) {
            TRY(send_piece(s, &e, FILL, &sent));
            TRY(send_piece(s, &e, REST, &sent)); /* its buffer has room, and must not be written to any more */
            TRY(scenario_settle(s));
            CHECK_GT(lc_stream_unsent(e.stream), REST);
            TRY(send_piece(s, &e, sizes[pair / SIZES], &sent));
            if (pair % 2) /* both in one pass, or each in its own */
                TRY(scenario_pass(s, false));
            TRY(send_piece(s, &e, sizes[pair % SIZES], &sent));
            TRY(scenario_pass(s, false));
            CHECK_GT(lc_stream_unsent(e.stream), REST);
            PUMP_UNTIL(peer_receive_some(s, &e, 9, 1 << 20, &end), e.peer_received == sent);
            PUMP_UNTIL(0, lc_stream_unsent(e.stream) == 0);
        }
        CHECK(!end);
        TRY(endpoint_close(s, &e));
    }
    return 0;
}
