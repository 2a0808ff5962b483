// SPDX-License-Identifier: Apache-2.0
/* room.c: who asked to be told once little is queued, and who waits for room while somebody else writes. */
#include "scenario.h"

typedef struct room {
    uint32_t deliveries, told, waiters, cancelled;
    size_t unsent; /* when it was told last */
} room;

static int room_send(scenario *s, lc_stream *stream) {
    room *r = s->context;
    r->deliveries++;
    if (lc_stream_take_room(stream)) {
        r->told++;
        r->unsent = lc_stream_unsent(stream);
        CHECK(!lc_stream_wants_room(stream));
    }
    if (lc_stream_send_waiter_due(stream))
        r->waiters++;
    r->cancelled += lc_stream_take_send_cancelled(stream);
    return 0;
}

static int room_open(scenario *s, room *r, endpoint *e) {
    *r = (room){0};
    s->context = r;
    s->on.send = room_send;
    return endpoint_open(s, e, true);
}

static int room_drain(scenario *s, endpoint *e) {
    static _Thread_local uint8_t bytes[64 * 1024];
    ssize_t got = recv(e->peer, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got > 0)
        e->peer_received += (uint64_t)got;
    else
        CHECK(got < 0 && errno == EAGAIN);
    return 0;
}

/* An answer in one buffer, which nobody else waits for, takes another way than all the rest. */
int room_is_told_once(scenario *s) {
    enum { LARGE = 64 * 1024 };
    static const size_t sizes[] = {1, 100, LARGE};
    room r;
    endpoint e = {0};
    TRY(room_open(s, &r, &e));
    uint8_t *bytes = malloc(LARGE);
    CHECK(bytes != NULL);
    uint32_t told = 0, waiters = 0;
    uint64_t sent = 0;
    bool end = false;
    for (int round = 0; round < 6; round++) {
        bool waits = round >= 3;
        size_t size = sizes[round % 3];
        pattern_fill(bytes, size, 8, sent);
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, size), 0);
        sent += size;
        lc_stream_want_room(e.stream, size - 1);
        if (waits)
            CHECK_EQ(lc_stream_wait_send(e.stream, 7, size - 1), 0);
        CHECK(lc_stream_wants_room(e.stream));
        told++;
        waiters += waits;
        PUMP_UNTIL(peer_receive_some(s, &e, 8, LARGE, &end),
                   r.told >= told && r.waiters >= waiters && e.peer_received == sent);
        CHECK_LT(r.unsent, size);
        TRY(scenario_settle(s));
        CHECK_EQ(r.told, told);
        CHECK_EQ(r.waiters, waiters);
    }
    free(bytes);
    return endpoint_close(s, &e);
}

/* The first send is in the kernel's hands when the second is queued, and the mark is between them. */
int room_is_told_at_the_mark(scenario *s) {
    enum { SIZE = 8 << 20 };
    room r;
    endpoint e = {0};
    TRY(room_open(s, &r, &e));
    uint8_t *zeros = calloc(1, SIZE);
    CHECK(zeros != NULL);
    CHECK_EQ(lc_stream_send_copy(e.stream, zeros, SIZE), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(lc_stream_send_copy(e.stream, zeros, SIZE), 0);
    free(zeros);
    CHECK_EQ(lc_stream_wait_send(e.stream, 7, (size_t)1 << 32), 0); /* beyond what a mark holds: at once */
    TRY(scenario_settle(s));
    CHECK_EQ(r.waiters, 1);
    CHECK_GT(lc_stream_unsent(e.stream), SIZE);
    lc_stream_want_room(e.stream, SIZE);
    TRY(scenario_settle(s));
    CHECK_EQ(r.told, 0);
    PUMP_UNTIL(room_drain(s, &e), r.told > 0);
    CHECK_LE(r.unsent, SIZE);
    CHECK_GT(r.unsent, 0);
    PUMP_UNTIL(room_drain(s, &e), e.peer_received == 2 * SIZE);
    TRY(scenario_settle(s));
    CHECK_EQ(r.told, 1);
    CHECK_EQ(r.deliveries, 2);
    return endpoint_close(s, &e);
}

int a_broken_stream_tells_of_no_room(scenario *s) {
    room r;
    endpoint e = {0};
    TRY(room_open(s, &r, &e));
    TRY(endpoint_send_until_stuck(s, &e, 8 << 20));
    lc_stream_want_room(e.stream, 0);
    TRY(peer_reset(s, &e));
    RUN_UNTIL(lc_stream_send_error(e.stream) < 0);
    TRY(scenario_settle(s));
    CHECK_EQ(r.deliveries, 0);
    CHECK(lc_stream_wants_room(e.stream));
    return endpoint_close(s, &e);
}

/* Held, with a socket that takes no more, and somebody who waits for room. */
static int room_wait(scenario *s, endpoint *e) {
    static const uint8_t zeros[64 * 1024];
    CHECK_EQ(lc_stream_hold(e->stream), 0);
    CHECK_EQ(lc_stream_send_copy(e->stream, "x", 1), -EBUSY);
    while (send(lc_stream_fd(e->stream), zeros, sizeof zeros, MSG_DONTWAIT) > 0)
        continue;
    CHECK_EQ(errno, EAGAIN);
    CHECK_EQ(lc_stream_wait_room(e->stream, 7), 0);
    CHECK_EQ(lc_stream_wait_room(e->stream, 8), -EBUSY);
    return scenario_settle(s);
}

/* Told at once, whoever sends the file would ask again, and again, for as long as the peer does not read. */
int a_held_stream_waits_for_room(scenario *s) {
    room r;
    endpoint e = {0};
    TRY(room_open(s, &r, &e));
    TRY(room_wait(s, &e));
    CHECK_EQ(r.deliveries, 0);
    lc_stream_cancel_send(e.stream, lc_stream_send_token(e.stream));
    RUN_UNTIL(r.waiters == 1);
    CHECK_EQ(r.cancelled, 1);
    CHECK_EQ(lc_stream_wait_room(e.stream, 9), 0); /* the one before has not ended */
    TRY(scenario_settle(s));
    CHECK_EQ(r.deliveries, 1);
    PUMP_UNTIL(room_drain(s, &e), r.waiters == 2);
    CHECK_GT(send(lc_stream_fd(e.stream), "x", 1, MSG_DONTWAIT), 0);
    lc_stream_let_go(e.stream);
    TRY(scenario_settle(s));
    CHECK_EQ(r.deliveries, 2);
    TRY(endpoint_send_until_stuck(s, &e, 8 << 20));
    CHECK_EQ(lc_stream_hold(e.stream), 0);
    CHECK_EQ(lc_stream_wait_room(e.stream, 10), -EBUSY); /* a send is under way */
    return endpoint_close(s, &e);
}

int a_held_stream_breaks_or_closes(scenario *s) {
    room r;
    endpoint e = {0};
    TRY(room_open(s, &r, &e));
    TRY(room_wait(s, &e));
    CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
    RUN_UNTIL(r.waiters == 1 && lc_stream_is_closed(e.stream));
    CHECK_EQ(lc_stream_wait_room(e.stream, 8), -ESHUTDOWN);
    lc_stream_break(e.stream, -EPIPE);
    CHECK_EQ(lc_stream_send_error(e.stream), 0);
    TRY(endpoint_close(s, &e));
    TRY(room_open(s, &r, &e));
    CHECK_EQ(lc_stream_hold(e.stream), 0);
    lc_stream_break(e.stream, -EPIPE);
    lc_stream_break(e.stream, -ECONNRESET);
    CHECK_EQ(lc_stream_send_error(e.stream), -EPIPE);
    CHECK_EQ(lc_stream_wait_room(e.stream, 8), -EPIPE);
    return endpoint_close(s, &e);
}
