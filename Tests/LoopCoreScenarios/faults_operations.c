// SPDX-License-Identifier: Apache-2.0
/* faults_operations.c: operations in great numbers, and cancels at every moment there is. */
#include <fcntl.h>
#include <poll.h>
#include "faults_support.h"

/* ---- more completions than the queue holds ---- */

typedef struct flood {
    uint32_t count, told;
    int *fds;
    uint32_t *answers;
} flood;

static int flood_told(scenario *s, lc_op *op) {
    flood *f = s->context;
    CHECK_LT(op->word, f->count);
    CHECK(op->result > 0 && (op->result & POLLIN));
    f->answers[op->word]++;
    f->told++;
    lc_op_release(s->loop, op);
    return 0;
}

static int flood_wait(scenario *s, flood *f) {
    for (uint32_t index = 0; index < f->count; index++) {
        lc_op *op = lc_op_make(s->loop);
        CHECK(op != NULL);
        CHECK_EQ(lc_op_poll(s->loop, op, f->fds[index], false, index), 0);
    }
    return 0;
}

static int flood_check(scenario *s, flood *f, uint32_t rounds) {
    for (uint32_t index = 0; index < f->count; index++)
        CHECK_EQ(f->answers[index], rounds);
    lc_stats now = scenario_stats(s);
    CHECK_EQ(now.queued + now.in_kernel + now.armed, 0);
    return 0;
}

/* All wait, all fire at once; then all wait for what is there already. */
static int flood_once(scenario *s, flood *f, uint32_t features_off) {
    s->options.completion_count = s->tiny ? 4 : 1024;
    s->options.features_off = features_off;
    TRY(scenario_reopen(s));
    s->context = f;
    s->on.op = flood_told;
    f->told = 0;
    memset(f->answers, 0, f->count * sizeof *f->answers);
    for (uint32_t index = 0; index < f->count; index++)
        TRY(counter_open(s, &f->fds[index]));
    TRY(flood_wait(s, f));
    PUMP_UNTIL(0, scenario_stats(s).queued == 0);
    lc_stats now = scenario_stats(s);
    CHECK_EQ(now.in_kernel + now.armed, f->count);
    CHECK_EQ(f->told, 0);
    for (uint32_t index = 0; index < f->count; index++)
        TRY(counter_bump(s, f->fds[index]));
    RUN_UNTIL(f->told >= f->count);
    TRY(scenario_settle(s));
    TRY(flood_check(s, f, 1));
    /* Deferred completions come a few at a time; without that, all that fired are there before the first is taken. */
    if (scenario_is_proactor(s) && (features_off & LC_FEATURE_DEFER_TASKRUN))
        CHECK_GT(scenario_stats(s).overflows, 0);
    TRY(flood_wait(s, f));
    RUN_UNTIL(f->told >= 2 * f->count);
    TRY(scenario_settle(s));
    TRY(flood_check(s, f, 2));
    for (uint32_t index = 0; index < f->count; index++)
        CHECK_CALL(close(f->fds[index]));
    return 0;
}

static int a_flood(scenario *s) {
    enum { WANTED = 20000, OTHERS = 64 };
    uint32_t allowed;
    TRY(raise_descriptors(s, WANTED + OTHERS, &allowed));
    s->verify_never = true;
    flood f = {.count = s->tiny ? 2000 : allowed - OTHERS};
    CHECK_GT(allowed, f.count);
    f.fds = calloc(f.count, sizeof *f.fds);
    f.answers = calloc(f.count, sizeof *f.answers);
    CHECK(f.fds != NULL && f.answers != NULL);
    TRY(flood_once(s, &f, 0));
    if (scenario_is_proactor(s))
        TRY(flood_once(s, &f, LC_FEATURE_DEFER_TASKRUN));
    free(f.fds);
    free(f.answers);
    return 0;
}

int twenty_thousand_polls_fire_at_once(scenario *s) { return scenario_in_child(s, a_flood); }

/* An overflow ends multishot operations; whoever still wants them never notices. */
int multishots_go_on_after_an_overflow(scenario *s) {
    enum { STREAMS = 48, ROUNDS = 24 };
    lc_options original = s->options;
    s->options.submission_count = s->tiny ? 2 : 8;
    s->options.completion_count = s->tiny ? 4 : 8;
    s->options.features_off = LC_FEATURE_DEFER_TASKRUN;
    TRY(scenario_reopen(s));
    endpoint *all = calloc(STREAMS, sizeof *all);
    CHECK(all != NULL);
    for (uint32_t index = 0; index < STREAMS; index++) {
        all[index].seed = index;
        TRY(endpoint_open(s, &all[index], true));
        CHECK_EQ(lc_stream_start_receiving(all[index].stream), 0);
    }
    TRY(scenario_settle(s));
    uint64_t sent = 0;
    uint8_t bytes[100];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t index = 0; index < STREAMS; index++) {
            pattern_fill(bytes, sizeof bytes, index, sent);
            TRY(peer_send(s, &all[index], bytes, sizeof bytes));
        }
        sent += sizeof bytes;
        for (uint32_t index = 0; index < STREAMS; index++)
            RUN_UNTIL(all[index].received == sent);
    }
    if (scenario_is_proactor(s))
        CHECK_GT(scenario_stats(s).overflows, 0);
    uint64_t overflows = scenario_stats(s).overflows;
    acceptor a;
    TRY(acceptor_open(s, &a));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    TRY(scenario_settle(s));
    int clients[2 * STREAMS];
    for (uint32_t index = 0; index < 2 * STREAMS; index++) {
        TRY(client_connect(s, &a.address, &clients[index]));
        if (index == STREAMS - 1)
            RUN_UNTIL(a.count == STREAMS);
    }
    RUN_UNTIL(a.count == 2 * STREAMS);
    if (scenario_is_proactor(s))
        CHECK_GT(scenario_stats(s).overflows, overflows);
    TRY(acceptor_close(s, &a));
    for (uint32_t index = 0; index < 2 * STREAMS; index++)
        CHECK_CALL(close(clients[index]));
    for (uint32_t index = 0; index < STREAMS; index++)
        TRY(endpoint_close(s, &all[index]));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    free(all);
    s->options = original;
    return 0;
}

/* ---- cancels that race ---- */

enum { RACES = 100000, RACES_LONG = 1000000 };

typedef struct race {
    endpoint e;
    uint64_t waits, told; /* a wait's number is its waiter */
    uint32_t cancels, brought;
    uint64_t chance;
} race;

static int race_told(scenario *s, lc_stream *stream) {
    race *r = s->context;
    CHECK_EQ(r->told + 1, r->waits);
    CHECK_EQ(lc_stream_receive_waiter(stream), r->waits);
    r->told++;
    lc_stream_cancel_receive(stream,
                             lc_stream_receive_token(stream)); /* too late for this one, too early for the next */
    lc_buffer *lease;
    int result = lc_stream_take(stream, &lease);
    if (result == -ECANCELED) {
        r->cancels++;
        return 0;
    }
    r->brought += result == 1;
    for (; result == 1; result = lc_stream_take(stream, &lease)) {
        TRY(pattern_check(s, lc_buffer_bytes(lease), lc_buffer_length(lease), 0, r->e.received));
        r->e.received += lc_buffer_length(lease);
        lc_buffer_return(lease);
    }
    CHECK_EQ(result, -EAGAIN);
    return 0;
}

static int race_send(scenario *s, race *r, uint64_t *sent) {
    uint8_t bytes[90];
    size_t length = 1 + random_next(&r->chance) % sizeof bytes;
    if (*sent - r->e.received > 2000)
        return 0;
    pattern_fill(bytes, length, 0, *sent);
    *sent += length;
    return peer_send(s, &r->e, bytes, length);
}

/* Bytes before, within and after a pass, and cancels between them: each wait has one answer, and no byte is lost. */
static int race_receives(scenario *s, bool tcp, uint32_t races) {
    race r = {.chance = 0x9e3779b97f4a7c15u + tcp};
    uint64_t sent = 0;
    TRY(endpoint_open(s, &r.e, tcp));
    s->context = &r;
    s->on.receive = race_told;
    for (uint32_t round = 0; round < races || r.told < r.waits; round++) {
        uint32_t choice = random_next(&r.chance);
        if (r.told == r.waits) {
            lc_stream_prepare_receive(r.e.stream);
            r.waits++;
            CHECK_EQ(lc_stream_wait_receive(r.e.stream, r.waits), 0);
        }
        uint32_t token = lc_stream_receive_token(r.e.stream);
        if (choice & 1)
            TRY(race_send(s, &r, &sent));
        if ((choice & 6) == 2)
            lc_stream_cancel_receive(r.e.stream, token);
        CHECK_GE(lc_loop_tick(s->loop, false), 0);
        if ((choice & 24) == 8)
            TRY(race_send(s, &r, &sent));
        if ((choice & 96) == 32 || round >= races)
            lc_stream_cancel_receive(r.e.stream, token);
        lc_stream_cancel_receive(r.e.stream, token - 1);
        lc_node *node;
        while ((node = lc_loop_next(s->loop)))
            TRY(scenario_deliver(s, node));
        if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "time ran out");
    }
    CHECK_GT(r.cancels, races / 10);
    CHECK_GT(r.brought, races / 10);
    while (r.e.received < sent) {
        r.waits++;
        CHECK_EQ(lc_stream_wait_receive(r.e.stream, r.waits), 0);
        RUN_UNTIL(r.told == r.waits);
    }
    CHECK_EQ(r.e.received, sent);
    s->on.receive = NULL;
    return endpoint_close(s, &r.e);
}

int cancels_race_with_bytes(scenario *s) {
    TRY(race_receives(s, true, rounds_of(RACES, RACES_LONG) / 2));
    return race_receives(s, false, rounds_of(RACES, RACES_LONG) / 2);
}

enum { RACERS = 16 };

typedef struct poll_race {
    lc_op *op[RACERS];
    int fd[RACERS];
    bool asked[RACERS]; /* to cancel */
    uint64_t bumps[RACERS], seen[RACERS];
    uint32_t started, told, cancels;
} poll_race;

static int poll_race_told(scenario *s, lc_op *op) {
    poll_race *p = s->context;
    uint64_t index = op->word;
    CHECK_LT(index, RACERS);
    CHECK(p->op[index] == op);
    if (op->result == -ECANCELED) {
        CHECK(p->asked[index]);
        p->cancels++;
    } else {
        uint64_t value;
        CHECK(op->result > 0 && (op->result & POLLIN));
        CHECK_EQ(read(p->fd[index], &value, sizeof value), sizeof value);
        p->seen[index] += value;
        CHECK_EQ(p->seen[index], p->bumps[index]);
    }
    p->op[index] = NULL;
    p->told++;
    lc_op_release(s->loop, op);
    return 0;
}

static int poll_race_start(scenario *s, poll_race *p, uint32_t index) {
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, p->fd[index], false, index), 0);
    p->op[index] = op;
    p->asked[index] = false;
    p->started++;
    return 0;
}

static int poll_race_act(scenario *s, poll_race *p, uint64_t *chance) {
    uint32_t choice = random_next(chance), index = choice % RACERS;
    switch (choice / RACERS % 4) {
    case 0:
        p->bumps[index]++;
        return counter_bump(s, p->fd[index]);
    case 1:
    case 2:
        return p->op[index] ? 0 : poll_race_start(s, p, index);
    default:
        if (!p->op[index])
            return 0;
        p->asked[index] = true;
        lc_op_cancel(s->loop, p->op[index]);
        if (choice & 1024)
            lc_op_cancel(s->loop, p->op[index]);
        return 0;
    }
}

int cancels_race_with_readiness(scenario *s) {
    poll_race p = {0};
    uint64_t chance = 0x2545f4914f6cdd1du;
    s->context = &p;
    s->on.op = poll_race_told;
    for (uint32_t index = 0; index < RACERS; index++)
        TRY(counter_open(s, &p.fd[index]));
    uint32_t races = rounds_of(RACES, RACES_LONG);
    for (uint32_t round = 0; round < races; round++) {
        TRY(poll_race_act(s, &p, &chance));
        if (round % 4)
            continue;
        CHECK_GE(lc_loop_tick(s->loop, false), 0);
        TRY(poll_race_act(s, &p, &chance));
        lc_node *node;
        while ((node = lc_loop_next(s->loop)))
            TRY(scenario_deliver(s, node));
        if (round % 1024 == 0)
            lc_loop_verify(s->loop);
    }
    CHECK_GT(p.cancels, races / 50);
    CHECK_GT(p.told - p.cancels, races / 50);
    /* Whatever was bumped and not seen is still there to be seen, once. */
    for (uint32_t index = 0; index < RACERS; index++) {
        if (!p.op[index])
            TRY(poll_race_start(s, &p, index));
        p.bumps[index]++;
        TRY(counter_bump(s, p.fd[index]));
    }
    RUN_UNTIL(p.told == p.started);
    TRY(scenario_settle(s));
    CHECK_EQ(p.told, p.started);
    for (uint32_t index = 0; index < RACERS; index++)
        CHECK_CALL(close(p.fd[index]));
    return 0;
}
