// SPDX-License-Identifier: Apache-2.0
/* owed.c: who waits for something that has happened already. A loop that sleeps in spite of it sleeps for good. */
#include <poll.h>
#include "model.h"

/* Something is on its way to this stream, or has come. */
static bool news(const model_connection *c) {
    if (c->connecting)
        return false;
    return c->peer_sent > c->received || c->peer_finished || c->peer_closed || c->peer_reset;
}

static const char *owed_to_connection(const model_connection *c) {
    if (c->end != MODEL_END_HELD)
        return NULL;
    if (c->receive_wait && (c->receive_cancelled || c->closing || c->ended || c->receive_error || news(c)))
        return "a wait to receive";
    if (c->started && !c->paused && !c->leaving && !c->closing && !c->ended && !c->receive_error && news(c))
        return "a delivery to one that was started";
    if (c->send_wait) {
        if (c->send_cancelled || c->aborting)
            return "a wait to send";
        bool sent = lc_stream_unsent(c->stream) <= c->send_below || lc_stream_send_error(c->stream);
        if (c->connecting) /* or through, and told to a wait that was cancelled */
            return !sent                                                         ? NULL
                   : c->refused || c->forsaken || c->answer >= 0 || c->peer >= 0 ? "a wait to connect"
                                                                                 : NULL;
        if (sent)
            return "a wait to send";
    }
    if (c->closed_wait && c->closing &&
        (c->aborting || lc_stream_unsent(c->stream) == 0 || lc_stream_send_error(c->stream)))
        return "a wait for the close";
    return NULL;
}

static bool awaited_at(const model *m, int listener) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        const model_connection *c = &m->connections[index];
        /* One that takes its time to connect, and is closed before, never comes. */
        bool may_be_lost = m->odds.slow_connect > 0 && c->peer < 0;
        if (c->used && c->end == MODEL_END_AWAITED && c->listener == listener && !may_be_lost)
            return true;
    }
    return false;
}

/* Where accepting may fail: nothing pauses it now, and the kernel has somebody for it. */
static bool waits_at_kernel(const model *m, const model_listener *l) {
    lc_stats stats;
    lc_loop_stats(m->loop, &stats);
    struct pollfd listening = {.fd = lc_listener_fd(l->listener), .events = POLLIN};
    return m->kernel && stats.timers == model_timers_pending(m) && poll(&listening, 1, 0) == 1 &&
           listening.revents == POLLIN;
}

static bool owed_to_listener(const model *m, int index) {
    const model_listener *l = &m->listeners[index];
    if (!l->listener || !(l->wait || l->started))
        return false;
    if (l->wait && (l->cancelled || l->closing))
        return true;
    if (l->closing)
        return false;
    /* Where accepting may fail, the connection may have been lost with it. */
    if (m->odds.accept_fails || m->odds.reset || m->odds.connect_fails)
        return waits_at_kernel(m, l);
    return awaited_at(m, index);
}

static bool owed_to_side(const model_poll_side *side, bool ready) { return side->op && (side->cancelled || ready); }

bool model_owes(const model *m, char *text, size_t size) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        const model_connection *c = &m->connections[index];
        const char *what = c->used ? owed_to_connection(c) : NULL;
        if (what) {
            snprintf(text, size, "%s of connection %u", what, c->serial);
            return true;
        }
    }
    for (int index = 0; index < MODEL_LISTENERS; index++) {
        if (owed_to_listener(m, index)) {
            snprintf(text, size, "a wait to accept, or a delivery, of listener %d", index);
            return true;
        }
    }
    uint64_t now_ns = lc_now_ns();
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        const model_call *call = &m->calls[index];
        if (call->pending && (!call->timer || call->deadline_ns <= now_ns)) {
            snprintf(text, size, "%s %llu", call->timer ? "timer" : "call", (unsigned long long)call->word);
            return true;
        }
    }
    for (uint32_t index = 0; index < MODEL_POSTS; index++) {
        if (m->posts[index].pending) {
            snprintf(text, size, "a post");
            return true;
        }
    }
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        const model_poll *p = &m->polls[index];
        if (p->used && (owed_to_side(&p->read, p->signalled) || owed_to_side(&p->write, true))) {
            snprintf(text, size, "a wait for readiness of poll %u", index);
            return true;
        }
    }
    return false;
}
