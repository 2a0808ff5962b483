// SPDX-License-Identifier: Apache-2.0
/* faults_cancels.c: cancels that mean nobody, cancels from within, and one entry that ends the next. */
#include <poll.h>
#include "faults_support.h"

typedef struct cancelling {
    endpoint e[3];
    acceptor a;
    lc_op *op;
    uint32_t ops, calls;
    int result;
    lc_call_id id;
    uint32_t depth, round;
} cancelling;

static int op_told(scenario *s, lc_op *op) {
    cancelling *c = s->context;
    c->ops++;
    c->result = op->result;
    lc_op_cancel(s->loop, op); /* it is over: this must not bring it back */
    lc_op_release(s->loop, op);
    c->op = NULL;
    return 0;
}

static int call_told(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    cancelling *c = s->context;
    uint64_t unused;
    c->calls++;
    CHECK(!lc_call_is_pending(s->loop, c->id));
    CHECK_EQ(lc_call_cancel(s->loop, c->id, &unused), 0);
    return 0;
}

static int poll_read(scenario *s, cancelling *c, int fd) {
    c->op = lc_op_make(s->loop);
    CHECK(c->op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, c->op, fd, false, 0), 0);
    return 0;
}

/* ---- cancels that mean nobody ---- */

static int cancel_streams_in_vain(scenario *s, cancelling *c) {
    endpoint *e = &c->e[0];
    uint8_t bytes[10];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(endpoint_open(s, e, true));
    uint32_t before = lc_stream_receive_token(e->stream);
    lc_stream_cancel_receive(e->stream, before); /* nobody waits */
    lc_stream_prepare_receive(e->stream);
    uint32_t token = lc_stream_receive_token(e->stream);
    CHECK_NE(token, before);
    CHECK_EQ(lc_stream_wait_receive(e->stream, 7), 0);
    lc_stream_cancel_receive(e->stream, before);
    lc_stream_cancel_receive(e->stream, token + 1);
    lc_stream_cancel_send(e->stream, token);
    TRY(scenario_settle(s));
    CHECK_EQ(e->deliveries, 0);
    lc_stream_cancel_receive(e->stream, token);
    lc_stream_cancel_receive(e->stream, token);
    RUN_UNTIL(e->deliveries == 1);
    CHECK_EQ(e->cancels, 1);
    lc_stream_cancel_receive(e->stream, token); /* it has been told */
    CHECK_EQ(lc_stream_wait_receive(e->stream, 8), 0);
    lc_stream_cancel_receive(e->stream, token);
    TRY(scenario_settle(s));
    CHECK_EQ(e->deliveries, 1);
    TRY(peer_send(s, e, bytes, sizeof bytes));
    RUN_UNTIL(e->received == sizeof bytes);
    CHECK_EQ(e->last_waiter, 8);
    CHECK_EQ(e->cancels, 1);
    /* The sending side. */
    token = lc_stream_send_token(e->stream);
    lc_stream_cancel_send(e->stream, token);
    CHECK_EQ(lc_stream_wait_send(e->stream, 9, 0), 0); /* nothing is queued, so it is told at once */
    lc_stream_cancel_send(e->stream, token + 1);
    RUN_UNTIL(e->sends == 1);
    CHECK_EQ(e->sends_cancelled, 0);
    lc_stream_cancel_send(e->stream, token);
    lc_stream_cancel_send(e->stream, lc_stream_send_token(e->stream));
    TRY(scenario_settle(s));
    CHECK_EQ(e->sends, 1);
    return endpoint_close(s, e);
}

static int cancel_accepts_in_vain(scenario *s, cancelling *c) {
    TRY(acceptor_open(s, &c->a));
    uint32_t token = lc_listener_token(c->a.listener);
    int client;
    lc_listener_cancel(c->a.listener, token);
    CHECK_EQ(lc_listener_wait(c->a.listener, 3), 0);
    lc_listener_cancel(c->a.listener, token + 1);
    TRY(scenario_settle(s));
    CHECK_EQ(c->a.deliveries, 0);
    lc_listener_cancel(c->a.listener, token);
    lc_listener_cancel(c->a.listener, token);
    RUN_UNTIL(c->a.deliveries == 1);
    CHECK_EQ(c->a.cancels, 1);
    lc_listener_cancel(c->a.listener, lc_listener_token(c->a.listener));
    CHECK_EQ(lc_listener_wait(c->a.listener, 4), 0);
    lc_listener_cancel(c->a.listener, token);
    TRY(client_connect(s, &c->a.address, &client));
    RUN_UNTIL(c->a.count == 1);
    CHECK_EQ(c->a.cancels, 1);
    CHECK_EQ(c->a.last_waiter, 4);
    CHECK_CALL(close(client));
    return acceptor_close(s, &c->a);
}

static int cancel_calls_in_vain(scenario *s, cancelling *c) {
    uint64_t word = 77;
    lc_call_id first, second;
    CHECK_EQ(lc_call_cancel(s->loop, (lc_call_id){.slot = UINT32_MAX, .generation = 1}, &word), 0);
    CHECK_EQ(lc_call_cancel(s->loop, (lc_call_id){0}, &word), 0);
    CHECK_EQ(word, 77);
    for (uint32_t timer = 0; timer < 2; timer++) {
        CHECK_EQ(timer ? lc_call_at(s->loop, LC_KIND_CALL, UINT64_MAX, 5, &first)
                       : lc_call_soon(s->loop, LC_KIND_CALL, 5, &first),
                 0);
        CHECK_EQ(lc_call_cancel(s->loop, first, &word), 1);
        CHECK_EQ(word, 5);
        word = 77;
        CHECK_EQ(lc_call_cancel(s->loop, first, &word), 0);
        TRY(scenario_settle(s));
        /* Its record serves another one now, whom the old id does not mean. */
        CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 6, &second), 0);
        CHECK_EQ(second.slot, first.slot);
        CHECK_NE(second.generation, first.generation);
        CHECK_EQ(lc_call_cancel(s->loop, first, &word), 0);
        CHECK(lc_call_is_pending(s->loop, second));
        c->id = second;
        c->calls = 0;
        RUN_UNTIL(c->calls == 1);
        CHECK_EQ(lc_call_cancel(s->loop, second, &word), 0);
        CHECK_EQ(word, 77);
    }
    CHECK_EQ(scenario_stats(s).timers, 0);
    return 0;
}

static int cancel_polls_in_vain(scenario *s, cancelling *c) {
    int counter;
    TRY(counter_open(s, &counter));
    TRY(poll_read(s, c, counter));
    TRY(scenario_settle(s));
    lc_op_cancel(s->loop, c->op);
    lc_op_cancel(s->loop, c->op);
    RUN_UNTIL(c->ops == 1);
    CHECK_EQ(c->result, -ECANCELED);
    /* Done and not yet told: the result stands. */
    TRY(poll_read(s, c, counter));
    TRY(scenario_settle(s));
    TRY(counter_bump(s, counter));
    while (c->op->state != LC_STATE_DONE)
        CHECK_GE(lc_loop_tick(s->loop, true), 0);
    lc_op_cancel(s->loop, c->op);
    lc_op_cancel(s->loop, c->op);
    RUN_UNTIL(c->ops == 2);
    CHECK(c->result > 0 && (c->result & POLLIN));
    TRY(scenario_settle(s));
    CHECK_EQ(c->ops, 2);
    CHECK_CALL(close(counter));
    return 0;
}

int cancels_that_mean_nobody(scenario *s) {
    cancelling c = {0};
    s->context = &c;
    s->on.op = op_told;
    s->on.call = call_told;
    TRY(cancel_streams_in_vain(s, &c));
    TRY(cancel_accepts_in_vain(s, &c));
    TRY(cancel_calls_in_vain(s, &c));
    return cancel_polls_in_vain(s, &c);
}

/* ---- from within ---- */

/* Each delivery cancels the wait it answers, which is over, and begins and cancels the next, which is not. */
static int receive_cancels_itself(scenario *s, lc_stream *stream) {
    cancelling *c = s->context;
    CHECK_EQ(c->depth, 0);
    c->depth++;
    uint32_t token = lc_stream_receive_token(stream);
    CHECK_EQ(lc_stream_receive_waiter(stream), c->round);
    lc_stream_cancel_receive(stream, token);
    lc_stream_cancel_receive(stream, lc_stream_receive_token(stream));
    lc_buffer *lease;
    int result = lc_stream_take(stream, &lease);
    if (c->round == 1) {
        CHECK_EQ(result, 1);
        c->e[0].received += lc_buffer_length(lease);
        lc_buffer_return(lease);
    } else {
        CHECK_EQ(result, -ECANCELED);
        c->e[0].cancels++;
    }
    if (c->round < 10) {
        lc_stream_prepare_receive(stream);
        CHECK_EQ(lc_stream_wait_receive(stream, ++c->round), 0);
        lc_stream_cancel_receive(stream, lc_stream_receive_token(stream));
    }
    c->e[0].deliveries++;
    c->depth--;
    return 0;
}

static int accept_cancels_itself(scenario *s, lc_listener *listener) {
    cancelling *c = s->context;
    CHECK_EQ(c->depth, 0);
    c->depth++;
    uint32_t token = lc_listener_token(listener);
    lc_listener_cancel(listener, token); /* before the waiter is taken: it is told so */
    CHECK_EQ(lc_listener_waiter(listener), c->round);
    lc_listener_cancel(listener, token);
    lc_listener_cancel(listener, lc_listener_token(listener));
    lc_stream *stream;
    CHECK_EQ(lc_listener_take(listener, &stream), -ECANCELED);
    if (c->round < 10) {
        CHECK_EQ(lc_listener_wait(listener, ++c->round), 0);
        lc_listener_cancel(listener, lc_listener_token(listener));
    }
    c->a.deliveries++;
    c->depth--;
    return 0;
}

int cancels_from_within(scenario *s) {
    cancelling c = {.round = 1};
    s->context = &c;
    s->on = (scenario_handlers){.op = op_told, .call = call_told, .receive = receive_cancels_itself};
    TRY(endpoint_open(s, &c.e[0], true));
    CHECK_EQ(lc_stream_wait_receive(c.e[0].stream, 1), 0);
    TRY(peer_send(s, &c.e[0], "x", 1));
    RUN_UNTIL(c.e[0].deliveries == 10);
    TRY(scenario_settle(s));
    CHECK_EQ(c.e[0].deliveries, 10); /* each once, each in a pass of its own, none within another */
    CHECK_EQ(c.e[0].cancels, 9);
    s->on.receive = NULL;
    TRY(endpoint_close(s, &c.e[0]));

    TRY(acceptor_open(s, &c.a));
    s->on.accept = accept_cancels_itself;
    c.round = 1;
    CHECK_EQ(lc_listener_wait(c.a.listener, 1), 0);
    int client;
    TRY(client_connect(s, &c.a.address, &client));
    RUN_UNTIL(c.a.deliveries == 10);
    TRY(scenario_settle(s));
    CHECK_EQ(c.a.deliveries, 10);
    s->on.accept = acceptor_told; /* and the connection is still there */
    CHECK_EQ(lc_listener_wait(c.a.listener, 11), 0);
    RUN_UNTIL(c.a.count == 1);
    CHECK_CALL(close(client));
    TRY(acceptor_close(s, &c.a));

    /* A call, a timer and a poll cancel themselves: op_told and call_told do. */
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &c.id), 0);
    RUN_UNTIL(c.calls == 1);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns(), 0, &c.id), 0);
    RUN_UNTIL(c.calls == 2);
    int counter;
    TRY(counter_open(s, &counter));
    TRY(poll_read(s, &c, counter));
    TRY(counter_bump(s, counter));
    RUN_UNTIL(c.ops == 1);
    TRY(scenario_settle(s));
    CHECK_EQ(c.ops, 1);
    CHECK_EQ(c.calls, 2);
    CHECK_CALL(close(counter));
    return 0;
}

/* ---- two in one batch ---- */

typedef enum ending { CANCEL, CLOSE, RELEASE, ENDINGS } ending;

typedef struct pair {
    endpoint e[2];
    ending how;
    uint32_t order[4], told;
} pair;

/* Whichever comes first ends the other, whose entry is behind it in the same batch. */
static int first_ends_second(scenario *s, lc_stream *stream) {
    pair *p = s->context;
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream), *other = e == &p->e[0] ? &p->e[1] : &p->e[0];
    CHECK_LT(p->told, 4);
    p->order[p->told++] = (uint32_t)(e - p->e);
    TRY(endpoint_received(s, stream));
    if (p->told > 1)
        return 0;
    if (p->how == CANCEL)
        lc_stream_cancel_receive(other->stream, lc_stream_receive_token(other->stream));
    else if (p->how == CLOSE)
        CHECK_EQ(lc_stream_close(other->stream, true, false), 1);
    else
        lc_stream_release(other->stream);
    return 0;
}

int the_first_of_a_batch_ends_the_second(scenario *s) {
    for (ending how = CANCEL; how < ENDINGS; how++) {
        pair p = {.how = how};
        s->context = &p;
        s->on.receive = first_ends_second;
        for (int index = 0; index < 2; index++) {
            TRY(endpoint_open(s, &p.e[index], true));
            CHECK_EQ(lc_stream_wait_receive(p.e[index].stream, 1), 0);
        }
        TRY(scenario_settle(s));
        uint8_t byte = pattern_byte(0, 0);
        for (int index = 0; index < 2; index++)
            TRY(peer_send(s, &p.e[index], &byte, 1));
        for (int pass = 0; pass < 50; pass++) /* both are ready, even if each batch is one event */
            CHECK_GE(lc_loop_tick(s->loop, false), 0);
        TRY(scenario_settle(s));
        endpoint *first = &p.e[p.order[0]], *second = &p.e[!p.order[0]];
        CHECK_EQ(p.told, how == RELEASE ? 1 : 2);
        CHECK_EQ(first->received, 1);
        CHECK_EQ(second->received, 0);
        CHECK_EQ(second->cancels, how == CANCEL);
        CHECK_EQ(second->shutdowns, how == CLOSE);
        if (how == CANCEL) { /* only the wait was ended */
            CHECK_EQ(lc_stream_wait_receive(second->stream, 2), 0);
            RUN_UNTIL(second->received == 1);
        }
        if (how == RELEASE) {
            CHECK_CALL(close(second->peer));
        } else {
            TRY(endpoint_close(s, second));
        }
        s->on.receive = NULL;
        TRY(endpoint_close(s, first));
        RUN_UNTIL(scenario_stats(s).streams == 0);
    }
    return 0;
}

static int accept_closes(scenario *s, lc_listener *listener) {
    acceptor *pair = s->context, *a = (acceptor *)(uintptr_t)lc_listener_word(listener);
    if (pair[0].deliveries + pair[1].deliveries == 0)
        lc_listener_close(pair[a == &pair[0]].listener);
    return acceptor_told(s, listener);
}

static int receive_closes(scenario *s, lc_stream *stream) {
    cancelling *c = s->context;
    TRY(endpoint_received(s, stream));
    lc_op_cancel(s->loop, c->op);
    return 0;
}

/* The same with two listeners; and a poll behind a stream, whose result may stand, but is told once. */
int the_first_of_a_batch_ends_another_kind(scenario *s) {
    acceptor pair[2];
    int clients[2];
    for (int index = 0; index < 2; index++) {
        TRY(acceptor_open(s, &pair[index]));
        CHECK_EQ(lc_listener_wait(pair[index].listener, 1), 0);
    }
    s->context = pair;
    s->on.accept = accept_closes;
    TRY(scenario_settle(s));
    for (int index = 0; index < 2; index++)
        TRY(client_connect(s, &pair[index].address, &clients[index]));
    for (int pass = 0; pass < 50; pass++)
        CHECK_GE(lc_loop_tick(s->loop, false), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(pair[0].count + pair[1].count, 1);
    CHECK_EQ(pair[0].shutdowns + pair[1].shutdowns, 1);
    CHECK_EQ(pair[0].deliveries + pair[1].deliveries, 2);
    for (int index = 0; index < 2; index++) {
        TRY(acceptor_close(s, &pair[index]));
        CHECK_CALL(close(clients[index]));
    }
    cancelling c = {0};
    s->context = &c;
    s->on = (scenario_handlers){.op = op_told, .receive = receive_closes};
    int counter;
    TRY(counter_open(s, &counter));
    TRY(endpoint_open(s, &c.e[0], true));
    CHECK_EQ(lc_stream_wait_receive(c.e[0].stream, 1), 0);
    TRY(poll_read(s, &c, counter));
    TRY(scenario_settle(s));
    uint8_t byte = pattern_byte(0, 0);
    TRY(peer_send(s, &c.e[0], &byte, 1));
    TRY(counter_bump(s, counter));
    RUN_UNTIL(c.ops == 1 && c.e[0].received == 1);
    CHECK(c.result == -ECANCELED || (c.result & POLLIN));
    TRY(scenario_settle(s));
    CHECK_EQ(c.ops, 1);
    CHECK_CALL(close(counter));
    return endpoint_close(s, &c.e[0]);
}
