// SPDX-License-Identifier: Apache-2.0
/* polls.c: waits for readiness of eventfds and sockets that belong to nobody. */
#include <sys/eventfd.h>
#include "model.h"

static model_poll *some_poll(model *m, bool (*fits)(const model_poll *p)) {
    uint32_t first = (uint32_t)below(m, MODEL_POLLS);
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        model_poll *p = &m->polls[(first + index) % MODEL_POLLS];
        if (p->used && fits(p))
            return p;
    }
    return NULL;
}

static bool any(const model_poll *p) { return p->used; }
static bool waited_at(const model_poll *p) { return p->read.op || p->write.op; }
static bool unwaited(const model_poll *p) { return !waited_at(p); }

int act_poll_make(model *m) {
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        model_poll *p = &m->polls[index];
        if (p->used)
            continue;
        *p = (model_poll){.used = true, .socket = chance(m, 500), .other = -1};
        if (p->socket) {
            int fds[2];
            RULE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0,
                 "no pair of sockets: errno %d", errno);
            p->fd = fds[0];
            p->other = fds[1];
        } else {
            p->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
            RULE(p->fd >= 0, "no eventfd: errno %d", errno);
        }
        return 0;
    }
    return 0;
}

/* One of a stream's descriptors is the stream's alone. */
static int poll_what_a_stream_owns(model *m, lc_op *op) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c || lc_stream_is_closed(c->stream))
        return 0;
    int result = lc_op_poll(m->loop, op, lc_stream_fd(c->stream), chance(m, 500), 1);
    RULE(result == -EEXIST, "polling a stream's descriptor said %d", result);
    return 0;
}

int act_poll(model *m) {
    model_poll *p = some_poll(m, any);
    if (!p)
        return 0;
    lc_op *op = lc_op_make(m->loop);
    RULE(op != NULL, "out of memory");
    if (chance(m, 50)) {
        TRY(poll_what_a_stream_owns(m, op));
        lc_op_release(m->loop, op);
        return 0;
    }
    bool write = chance(m, 300);
    model_poll_side *side = write ? &p->write : &p->read;
    if (side->op && side->op->state == LC_STATE_DONE) {
        lc_op_release(m->loop, op); /* the descriptor is free again, though nobody has been told yet */
        return 0;
    }
    uint64_t word = model_next_word(m);
    int result = lc_op_poll(m->loop, op, p->fd, write, word);
    model_note(m, "poll %d to %s: %d", (int)(p - m->polls), write ? "write" : "read", result);
    RULE(result == (side->op ? -EBUSY : 0), "polling said %d", result);
    if (result < 0) {
        lc_op_release(m->loop, op);
        return 0;
    }
    *side = (model_poll_side){.op = op, .word = word};
    if (!write)
        p->was_signalled = p->signalled;
    m->report->polls++;
    return 0;
}

static int signal_it(model *m, model_poll *p) {
    uint64_t one = 1;
    model_note(m, "signal poll %d", (int)(p - m->polls));
    ssize_t done = p->socket ? send(p->other, &one, 1, MSG_NOSIGNAL | MSG_DONTWAIT) : write(p->fd, &one, sizeof one);
    RULE(done > 0 || errno == EAGAIN || errno == EINTR, "signalling failed: errno %d", errno);
    if (done > 0)
        p->signalled = p->was_signalled = true;
    return 0;
}

int act_poll_signal(model *m) {
    model_poll *p = some_poll(m, any);
    return p ? signal_it(m, p) : 0;
}

int act_poll_drain(model *m) {
    model_poll *p = some_poll(m, any);
    if (!p || !p->signalled)
        return 0;
    model_note(m, "drain poll %d", (int)(p - m->polls));
    for (int attempt = 0; attempt < 1000; attempt++) {
        uint64_t bytes;
        ssize_t got = p->socket ? recv(p->fd, &bytes, sizeof bytes, MSG_DONTWAIT) : read(p->fd, &bytes, sizeof bytes);
        if (got < 0 && errno == EAGAIN) {
            p->signalled = false;
            break;
        }
    }
    return 0;
}

int act_poll_cancel(model *m) {
    model_poll *p = some_poll(m, waited_at);
    if (!p)
        return 0;
    model_poll_side *side = !p->read.op || (p->write.op && chance(m, 500)) ? &p->write : &p->read;
    model_note(m, "cancel poll %d", (int)(p - m->polls));
    lc_op_cancel(m->loop, side->op);
    side->cancelled = true;
    m->report->polls_cancelled++;
    return 0;
}

static void close_it(model_poll *p) {
    close(p->fd);
    if (p->other >= 0)
        close(p->other);
    p->used = false;
}

int act_poll_close(model *m) {
    model_poll *p = some_poll(m, unwaited);
    if (p)
        close_it(p);
    return 0;
}

bool model_polls_pending(const model *m) {
    for (uint32_t index = 0; index < MODEL_POLLS; index++)
        if (m->polls[index].used && waited_at(&m->polls[index]))
            return true;
    return false;
}

/* Cancels those that wait, closes those at which nobody waits any more. */
int model_polls_close(model *m) {
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        model_poll *p = &m->polls[index];
        if (!p->used)
            continue;
        model_poll_side *sides[] = {&p->read, &p->write};
        for (int side = 0; side < 2; side++) {
            if (!sides[side]->op || sides[side]->cancelled)
                continue;
            lc_op_cancel(m->loop, sides[side]->op);
            sides[side]->cancelled = true;
        }
        if (!waited_at(p))
            close_it(p);
    }
    return 0;
}

int model_polled(model *m, lc_node *node) {
    lc_op *op = (lc_op *)(void *)node;
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        model_poll *p = &m->polls[index];
        if (!p->used || (p->read.op != op && p->write.op != op))
            continue;
        bool write = p->write.op == op;
        model_poll_side *side = write ? &p->write : &p->read;
        bool closed = lc_loop_is_closed(m->loop);
        model_note(m, "poll %u to %s answers %d", index, write ? "write" : "read", op->result);
        RULE(op->word == side->word, "a poll answers with the word %llu, not %llu", (unsigned long long)op->word,
             (unsigned long long)side->word);
        if (op->result < 0)
            RULE(op->result == -ECANCELED && (side->cancelled || closed), "a poll answers %d", op->result);
        else
            RULE(op->result > 0 && (write || p->was_signalled || m->odds.false_ready),
                 "a poll answers %d, and nothing was there", op->result);
        *side = (model_poll_side){0};
        if (!closed)
            lc_op_release(m->loop, op);
        return 0;
    }
    return model_fail(m, "an operation was delivered at which nobody waits");
}
