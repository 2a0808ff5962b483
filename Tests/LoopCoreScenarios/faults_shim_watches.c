// SPDX-License-Identifier: Apache-2.0
/* faults_shim_watches.c: descriptors that epoll has no room for. libev takes such a descriptor for a bad one, and stops
 * watching it. */
#include <poll.h>
#include "scenario.h"
#include "shim.h"

typedef struct refused {
    lc_listener *listener;
    lc_op *op;
    int op_result;
    uint32_t told, ops;
    int error;
} refused;

static int refused_accept(scenario *s, lc_listener *listener) {
    refused *r = s->context;
    lc_stream *stream;
    int error = lc_listener_take_backoff(listener);
    r->told += error != 0;
    r->error = error ? error : r->error;
    while (lc_listener_take(listener, &stream) == 1)
        lc_stream_release(stream);
    lc_listener_finish_delivery(listener);
    return 0;
}

static int refused_op(scenario *s, lc_op *op) {
    refused *r = s->context;
    CHECK(op == r->op);
    r->op_result = op->result;
    r->ops++;
    return 0;
}

int a_refused_watch_is_told(scenario *s) {
    static const int errors[] = {ENOSPC, ENOMEM};
    if (scenario_is_proactor(s))
        return 0;
    for (size_t index = 0; index < 2; index++) {
        shim_fault fault = {.call = SHIM_EPOLL_CTL, .error = errors[index]};
        refused r = {0};
        int fds[2], listening;
        lc_address address;
        s->context = &r;
        s->on.accept = refused_accept;
        s->on.op = refused_op;
        TRY(scenario_settle(s));
        /* A stream that reads. */
        endpoint e = {0};
        TRY(endpoint_open(s, &e, true));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        shim_arm(&fault, 1);
        PUMP_UNTIL(0, e.errors == 1);
        shim_disarm();
        CHECK_EQ(shim_faults_played(), 1);
        CHECK_EQ(e.error, -ENOMEM);
        CHECK_EQ(scenario_stats(s).armed, 0);
        TRY(endpoint_close(s, &e));
        /* One that writes, to a peer that does not read. */
        static uint8_t bytes[4 << 20];
        endpoint writing = {0};
        TRY(endpoint_open(s, &writing, false));
        CHECK_EQ(lc_stream_send_copy(writing.stream, bytes, sizeof bytes), 0);
        CHECK_EQ(lc_stream_wait_send(writing.stream, 4, 0), 0);
        shim_arm(&fault, 1);
        PUMP_UNTIL(0, writing.sends == 1);
        shim_disarm();
        CHECK_EQ(lc_stream_send_error(writing.stream), -ENOMEM);
        TRY(endpoint_close(s, &writing));
        TRY(scenario_settle(s));
        /* A poll. */
        TRY(pair_unix(s, fds));
        r.op = lc_op_make(s->loop);
        CHECK_EQ(lc_op_poll(s->loop, r.op, fds[0], false, 1), 0);
        shim_arm(&fault, 1);
        PUMP_UNTIL(0, r.ops == 1);
        shim_disarm();
        CHECK_EQ(r.op_result, -ENOMEM);
        lc_op_release(s->loop, r.op);
        CHECK_CALL(close(fds[0]));
        CHECK_CALL(close(fds[1]));
        /* A listener pauses, and goes on. */
        TRY(listen_anywhere(s, 8, &listening, &address));
        CHECK_EQ(lc_listener_adopt(s->loop, listening, &r.listener), 0);
        CHECK_EQ(lc_listener_start(r.listener), 0);
        shim_arm(&fault, 1);
        PUMP_UNTIL(0, r.told == 1);
        shim_disarm();
        CHECK_EQ(r.error, -ENOMEM);
        PUMP_UNTIL(0, scenario_stats(s).armed == 1);
        lc_listener_release(r.listener);
        TRY(scenario_settle(s));
        TRY(scenario_check_zero(s));
    }
    return 0;
}
