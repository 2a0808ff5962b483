// SPDX-License-Identifier: Apache-2.0
/* polls.c: waiting for descriptors that are not the loop's. */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include "scenario.h"

enum { POLLS = 8 };

typedef struct polls {
    lc_op *op[POLLS];
    int result[POLLS];
    uint32_t done[POLLS];
    uint32_t order[POLLS * 4];
    uint32_t count;
    uint32_t cancel_on_first; /* what the first delivery cancels, plus one */
} polls;

static int poll_told(scenario *s, lc_op *op) {
    polls *p = s->context;
    uint64_t index = op->word;
    CHECK_LT(index, POLLS);
    CHECK(op == p->op[index]);
    CHECK_EQ(op->state, LC_STATE_DONE);
    CHECK_LT(p->count, POLLS * 4);
    p->order[p->count++] = (uint32_t)index;
    p->result[index] = op->result;
    p->done[index]++;
    p->op[index] = NULL;
    lc_op_release(s->loop, op);
    if (p->count == 1 && p->cancel_on_first && p->op[p->cancel_on_first - 1])
        lc_op_cancel(s->loop, p->op[p->cancel_on_first - 1]);
    return 0;
}

static int poll_start(scenario *s, polls *p, uint64_t index, int fd, bool write, int expected) {
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, fd, write, index), expected);
    if (expected < 0)
        lc_op_release(s->loop, op);
    else
        p->op[index] = op;
    return 0;
}

static int polls_open(scenario *s, polls *p) {
    *p = (polls){0};
    s->context = p;
    s->on.op = poll_told;
    return 0;
}

static int bump(scenario *s, int fd) {
    uint64_t one = 1;
    CHECK_EQ(write(fd, &one, sizeof one), sizeof one);
    return 0;
}

int pipes_and_eventfds_become_ready(scenario *s) {
    polls p;
    TRY(polls_open(s, &p));
    int pipes[2], counter = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_CALL(counter);
    CHECK_CALL(pipe2(pipes, O_CLOEXEC | O_NONBLOCK));
    TRY(poll_start(s, &p, 0, pipes[0], false, 0));
    TRY(poll_start(s, &p, 1, counter, false, 0));
    TRY(poll_start(s, &p, 2, pipes[0], false, -EBUSY));
    TRY(scenario_settle(s));
    CHECK_EQ(p.count, 0);
    TRY(poll_start(s, &p, 2, counter, true, 0)); /* both ways at once */
    RUN_UNTIL(p.done[2] == 1);
    CHECK(p.result[2] & POLLOUT);
    CHECK_EQ(p.count, 1);
    TRY(bump(s, counter));
    RUN_UNTIL(p.done[1] == 1);
    CHECK(p.result[1] & POLLIN);
    CHECK_EQ(write(pipes[1], "x", 1), 1);
    RUN_UNTIL(p.done[0] == 1);
    CHECK_EQ(p.count, 3);
    /* Still readable: told again at once, and each time exactly once. */
    TRY(poll_start(s, &p, 0, pipes[0], false, 0));
    RUN_UNTIL(p.done[0] == 2);
    TRY(scenario_settle(s));
    CHECK_EQ(p.done[0], 2);
    /* The other end closes: whoever waits learns of it. */
    char byte;
    CHECK_EQ(read(pipes[0], &byte, 1), 1);
    TRY(poll_start(s, &p, 0, pipes[0], false, 0));
    TRY(scenario_settle(s));
    CHECK_EQ(p.done[0], 2);
    CHECK_CALL(close(pipes[1]));
    RUN_UNTIL(p.done[0] == 3);
    CHECK_CALL(close(pipes[0]));
    CHECK_CALL(close(counter));
    return 0;
}

int a_full_pipe_becomes_writable(scenario *s) {
    polls p;
    TRY(polls_open(s, &p));
    int pipes[2];
    CHECK_CALL(pipe2(pipes, O_CLOEXEC | O_NONBLOCK));
    char bytes[4096] = {0};
    while (write(pipes[1], bytes, sizeof bytes) > 0)
        continue;
    TRY(poll_start(s, &p, 0, pipes[1], true, 0));
    TRY(scenario_settle(s));
    CHECK_EQ(p.count, 0);
    for (int drained = 0; drained < 16; drained++)
        CHECK_EQ(read(pipes[0], bytes, sizeof bytes), sizeof bytes);
    RUN_UNTIL(p.done[0] == 1);
    CHECK(p.result[0] & POLLOUT);
    CHECK_CALL(close(pipes[0]));
    CHECK_CALL(close(pipes[1]));
    return 0;
}

int what_cannot_be_polled(scenario *s) {
    polls p;
    TRY(polls_open(s, &p));
    char path[] = "/tmp/loop-core-scenario-XXXXXX";
    int regular = mkstemp(path), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int directory = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK_CALL(regular);
    CHECK_CALL(null);
    CHECK_CALL(directory);
    CHECK_CALL(unlink(path));
    for (int write = 0; write < 2; write++) {
        TRY(poll_start(s, &p, 0, regular, write, -EPERM));
        TRY(poll_start(s, &p, 0, null, write, -EPERM));
        TRY(poll_start(s, &p, 0, directory, write, -EPERM));
        TRY(poll_start(s, &p, 0, -1, write, -EBADF));
        TRY(poll_start(s, &p, 0, 1 << 20, write, -EBADF));
    }
    CHECK_CALL(close(regular));
    CHECK_CALL(close(null));
    CHECK_CALL(close(directory));
    endpoint e = {0};
    TRY(endpoint_open(s, &e, false));
    TRY(poll_start(s, &p, 0, lc_stream_fd(e.stream), false, -EEXIST));
    /* And the other way round: what is polled cannot become a stream. */
    lc_stream *stream;
    lc_address address = {0};
    for (uint32_t write = 0; write < 2; write++) {
        TRY(poll_start(s, &p, 1, e.peer, write, 0));
        CHECK_EQ(lc_stream_adopt(s->loop, e.peer, &stream), -EBUSY);
        CHECK_EQ(lc_stream_connect_socket(s->loop, e.peer, (struct sockaddr *)&address.storage, sizeof(struct sockaddr),
                                          &stream),
                 -EBUSY);
        lc_op_cancel(s->loop, p.op[1]);
        RUN_UNTIL(p.done[1] == write + 1);
        CHECK_EQ(p.result[1], -ECANCELED);
    }
    return endpoint_close(s, &e);
}

int a_cancelled_poll_is_told_once(scenario *s) {
    polls p;
    TRY(polls_open(s, &p));
    int counter = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK_CALL(counter);
    for (uint32_t round = 1; round <= 6; round++) {
        uint64_t value;
        TRY(poll_start(s, &p, 0, counter, false, 0));
        if (round > 1)
            TRY(scenario_settle(s));
        if (round > 3)
            TRY(bump(s, counter)); /* ready and cancelled at the same time: either may win */
        if (round > 4)
            CHECK_GE(lc_loop_tick(s->loop, false), 0);
        lc_op_cancel(s->loop, p.op[0]);
        lc_op_cancel(s->loop, p.op[0]);
        RUN_UNTIL(p.done[0] == round);
        if (round <= 3)
            CHECK_EQ(p.result[0], -ECANCELED);
        else
            CHECK(p.result[0] == -ECANCELED || (p.result[0] & POLLIN));
        TRY(scenario_settle(s));
        CHECK_EQ(p.done[0], round);
        if (round > 3)
            CHECK_EQ(read(counter, &value, sizeof value), sizeof value);
    }
    CHECK_CALL(close(counter));
    return 0;
}

/* All are ready at once. With batches of one, the others are still being worked off when the first delivery cancels
 * one of them, which is then asked for again: nothing of that may cost another its event. */
int a_batch_cut_short_survives_a_cancel(scenario *s) {
    for (uint32_t victim = 0; victim < POLLS; victim++) {
        polls p;
        TRY(polls_open(s, &p));
        int counters[POLLS];
        for (uint32_t index = 0; index < POLLS; index++) {
            counters[index] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            CHECK_CALL(counters[index]);
            TRY(poll_start(s, &p, index, counters[index], false, 0));
        }
        TRY(scenario_settle(s));
        p.cancel_on_first = victim + 1;
        for (uint32_t index = 0; index < POLLS; index++)
            TRY(bump(s, counters[index]));
        RUN_UNTIL(p.count > 0);
        RUN_UNTIL(p.done[victim] == 1);
        TRY(poll_start(s, &p, victim, counters[victim], false, 0));
        RUN_UNTIL(p.count == POLLS + 1);
        for (uint32_t index = 0; index < POLLS; index++)
            CHECK_EQ(p.done[index], index == victim ? 2 : 1);
        for (uint32_t index = 0; index < POLLS; index++)
            CHECK_CALL(close(counters[index]));
    }
    return 0;
}

int many_polls_at_once(scenario *s) {
    for (uint32_t round = 0; round < 50; round++) {
        polls p;
        TRY(polls_open(s, &p));
        int counters[POLLS];
        for (uint32_t index = 0; index < POLLS; index++) {
            counters[index] = eventfd(index % 2, EFD_CLOEXEC | EFD_NONBLOCK);
            CHECK_CALL(counters[index]);
            TRY(poll_start(s, &p, index, counters[index], false, 0));
        }
        for (uint32_t index = 0; index < POLLS; index += 2)
            TRY(bump(s, counters[index]));
        RUN_UNTIL(p.count == POLLS);
        for (uint32_t index = 0; index < POLLS; index++) {
            CHECK_EQ(p.done[index], 1);
            CHECK_CALL(close(counters[index]));
        }
    }
    return 0;
}
