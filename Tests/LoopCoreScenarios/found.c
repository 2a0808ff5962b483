// SPDX-License-Identifier: Apache-2.0
/* found.c: what random operations against the model have found, each as short as it gets. */
#include <poll.h>
#include <sys/un.h>
#include "scenario.h"

/* ---- listeners ---- */

static int listeners_close(scenario *s) {
    for (uint64_t round = 0; round < 8; round++) {
        int fd;
        lc_address address;
        lc_listener *listener;
        TRY(listen_anywhere(s, 8, &fd, &address));
        CHECK_EQ(lc_listener_adopt(s->loop, fd, &listener), 0);
        CHECK_EQ(lc_listener_wait(listener, 1), 0);
        TRY(scenario_settle(s));
        lc_listener_close(listener);
        lc_listener_release(listener);
        TRY(scenario_settle(s));
        CHECK_EQ(scenario_stats(s).accept_backoffs, 0);
        CHECK_EQ(scenario_stats(s).timers, 0);
    }
    return 0;
}

/* Its shutdown ends the accept in the kernel with an error, which is no reason to try again later. Without DEFER_TASKRUN
 * the accept ends before its cancel can be asked. */
int a_closing_listener_does_not_back_off(scenario *s) {
    TRY(listeners_close(s));
    s->options.features_off = LC_FEATURE_DEFER_TASKRUN;
    TRY(scenario_reopen(s));
    return listeners_close(s);
}

/* ---- resets ---- */

static int peer_resets(scenario *s, endpoint *e) {
    struct linger linger = {.l_onoff = 1};
    CHECK_CALL(setsockopt(e->peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    CHECK_CALL(close(e->peer));
    e->peer = -1;
    struct pollfd arrived = {.fd = lc_stream_fd(e->stream)};
    CHECK_EQ(poll(&arrived, 1, 10000), 1); /* for the reset, which this does not take away */
    return 0;
}

static int told_of_the_reset(scenario *s, endpoint *e) {
    PUMP_UNTIL(0, lc_stream_send_error(e->stream) != 0 || lc_stream_unsent(e->stream) == 0); /* no event tells it */
    CHECK_EQ(lc_stream_send_error(e->stream), -ECONNRESET);
    CHECK_EQ(lc_stream_wait_receive(e->stream, 1), 0);
    RUN_UNTIL(e->errors > 0 || e->ends > 0);
    CHECK_EQ(e->ends, 0);
    CHECK_EQ(e->error, -ECONNRESET);
    return endpoint_close(s, e);
}

/* The kernel tells one of both sides. An end in place of the error would make cut data look complete. */
int a_reset_that_a_send_met_is_no_end(scenario *s) {
    endpoint copying = {0}, leasing = {.seed = 1, .hold = true};
    TRY(endpoint_open(s, &copying, true));
    TRY(peer_resets(s, &copying));
    CHECK_EQ(lc_stream_send_copy(copying.stream, "x", 1), 0);
    TRY(told_of_the_reset(s, &copying));

    if (scenario_is_proactor(s))
        return 0;
    /* A lease with nothing before it is sent at once, and what is said to that counts too. */
    uint8_t bytes[10];
    pattern_fill(bytes, sizeof bytes, 1, 0);
    TRY(endpoint_open(s, &leasing, true));
    TRY(peer_send(s, &leasing, bytes, sizeof bytes));
    CHECK_EQ(lc_stream_wait_receive(leasing.stream, 1), 0);
    RUN_UNTIL(leasing.received == sizeof bytes);
    CHECK_EQ(leasing.held_count, 1);
    TRY(peer_resets(s, &leasing));
    CHECK_EQ(lc_stream_send(leasing.stream, leasing.held[0]), -ECONNRESET);
    leasing.held_count = 0;
    TRY(told_of_the_reset(s, &leasing));
    endpoint_return_held(&leasing);
    return 0;
}

/* K22: behind many answers in a row the kernel lost a reset, and the reader waited for ever. Its bytes come first. */
int a_reset_behind_many_bytes_is_told(scenario *s) {
    s->options.buffer_size = 1;
    TRY(scenario_reopen(s));
    for (uint32_t round = 0; round < 20; round++) {
        endpoint e = {.seed = round};
        uint8_t bytes[64];
        pattern_fill(bytes, sizeof bytes, round, 0);
        TRY(endpoint_open(s, &e, true));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        if (round % 2)
            TRY(scenario_settle(s));
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        struct linger linger = {.l_onoff = 1};
        CHECK_CALL(setsockopt(e.peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
        CHECK_CALL(close(e.peer));
        e.peer = -1;
        RUN_UNTIL(e.errors > 0 || e.ends > 0);
        CHECK_EQ(e.ends, 0);
        CHECK_EQ(e.error, -ECONNRESET);
        CHECK_EQ(e.received, sizeof bytes);
        TRY(endpoint_close(s, &e));
    }
    s->options = scenario_options(s->backend, s->tiny);
    return 0;
}

/* ---- started streams ---- */

/* One lease per delivery, however many there are. */
static int take_one(scenario *s, lc_stream *stream) {
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    lc_stream_receive_waiter(stream);
    lc_buffer *lease;
    int result = lc_stream_take(stream, &lease);
    CHECK_GE(result == -EAGAIN ? 0 : result, 0);
    if (result == 1) {
        TRY(pattern_check(s, lc_buffer_bytes(lease), lc_buffer_length(lease), e->seed, e->received));
        e->received += lc_buffer_length(lease);
        lc_buffer_return(lease);
    }
    e->ends += result == 0;
    lc_stream_finish_delivery(stream);
    return 0;
}

int bytes_and_the_end_may_be_taken_piecemeal(scenario *s) {
    s->on.receive = take_one;
    for (int round = 0; round < 4; round++) {
        endpoint e = {.seed = 3};
        uint8_t bytes[400];
        pattern_fill(bytes, sizeof bytes, 3, 0);
        TRY(endpoint_open(s, &e, true));
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        CHECK_CALL(shutdown(e.peer, SHUT_WR));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        RUN_UNTIL(e.ends > 0);
        CHECK_EQ(e.received, sizeof bytes);
        TRY(scenario_settle(s));
        CHECK_EQ(e.ends, 1); /* told once */
        TRY(endpoint_close(s, &e));
    }
    return 0;
}

/* ---- cancels ---- */

/* K17: when the peer finishes sending, the kernel hands a blocked send to a thread, which takes it a moment to start. */
int an_abort_ends_a_send_that_changes_hands(scenario *s) {
    static const uint8_t bytes[100 * 1024];
    for (int round = 0; round < 8; round++) {
        int fds[2], size = 4608;
        endpoint e = {0};
        TRY(pair_unix(s, fds));
        for (int side = 0; side < 2; side++)
            CHECK_CALL(setsockopt(fds[side], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
        TRY(endpoint_adopt(s, &e, fds));
        CHECK_EQ(lc_stream_send_copy(e.stream, bytes, sizeof bytes), 0);
        TRY(scenario_settle(s));
        CHECK_GT(lc_stream_unsent(e.stream), 0); /* the peer does not read */
        CHECK_CALL(shutdown(e.peer, SHUT_WR));
        TRY(scenario_pass(s, false));
        CHECK_EQ(lc_stream_close(e.stream, true, false), 1);
        CHECK_EQ(lc_stream_wait_closed(e.stream, 1), 0);
        RUN_UNTIL(e.closes > 0);
        TRY(endpoint_close(s, &e));
    }
    return 0;
}

/* ---- memory ---- */

typedef struct crowd {
    endpoint going, staying;
} crowd;

static int send_on_both_and_let_one_go(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    crowd *c = s->context;
    uint8_t bytes[100];
    pattern_fill(bytes, sizeof bytes, 4, 0);
    CHECK_EQ(lc_stream_send_copy(c->going.stream, bytes, sizeof bytes), 0);
    CHECK_EQ(lc_stream_send_copy(c->staying.stream, bytes, sizeof bytes), 0);
    return endpoint_close(s, &c->going);
}

/* The one that went away was first in the list of those that have something to send. */
int a_stream_that_goes_takes_nobody_along(scenario *s) {
    for (int round = 0; round < 4; round++) {
        crowd c = {0};
        endpoint next = {0};
        s->context = &c;
        s->on.call = send_on_both_and_let_one_go;
        TRY(endpoint_open(s, &c.going, round & 1));
        TRY(endpoint_open(s, &c.staying, round & 1));
        lc_call_id id;
        CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 1, &id), 0);
        TRY(scenario_pass(s, false));
        TRY(endpoint_open(s, &next, round & 1)); /* perhaps in the same memory */
        bool end = false;
        PUMP_UNTIL(peer_receive_some(s, &c.staying, 4, 100, &end), c.staying.peer_received == 100);
        TRY(endpoint_close(s, &c.staying));
        TRY(endpoint_close(s, &next));
    }
    return 0;
}

/* ---- Unix sockets ---- */

static int accepted_unix(scenario *s, lc_listener *listener) {
    lc_stream **accepted = s->context;
    lc_listener_waiter(listener);
    CHECK_EQ(lc_listener_take(listener, accepted), 1);
    return 0;
}

/* K16 holds for accepted connections, too: bytes and the end at once, again and again, are both told. */
int an_accepted_unix_socket_hears_the_end(scenario *s) {
    struct sockaddr_un home = {.sun_family = AF_UNIX};
    int length = snprintf(home.sun_path + 1, sizeof home.sun_path - 1, "loop-core-%d-%p", (int)getpid(), (void *)s);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(listening);
    CHECK_CALL(bind(listening, (struct sockaddr *)&home, size));
    CHECK_CALL(listen(listening, 8));
    lc_listener *listener;
    CHECK_EQ(lc_listener_adopt(s->loop, listening, &listener), 0);
    lc_stream *accepted;
    s->context = &accepted;
    s->on.accept = accepted_unix;
    for (uint32_t round = 0; round < 200; round++) {
        endpoint e = {.peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        CHECK_CALL(e.peer);
        CHECK_CALL(connect(e.peer, (struct sockaddr *)&home, size));
        accepted = NULL;
        CHECK_EQ(lc_listener_wait(listener, 1), 0);
        RUN_UNTIL(accepted != NULL);
        e.stream = accepted;
        lc_stream_set_word(accepted, (uint64_t)(uintptr_t)&e);
        CHECK_EQ(lc_stream_start_receiving(accepted), 0);
        TRY(scenario_settle(s));
        uint8_t bytes[100];
        pattern_fill(bytes, sizeof bytes, 0, 0);
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        CHECK_CALL(shutdown(e.peer, SHUT_WR));
        RUN_UNTIL(e.ends > 0);
        CHECK_EQ(e.received, sizeof bytes);
        TRY(endpoint_close(s, &e));
    }
    lc_listener_release(listener);
    return 0;
}
