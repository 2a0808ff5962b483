// SPDX-License-Identifier: Apache-2.0
/* listeners.c: listeners of the loop, the clients that come to them, and who accepts. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include "model.h"

static model_listener *some_listener(model *m, bool (*fits)(const model_listener *l)) {
    uint32_t first = (uint32_t)below(m, MODEL_LISTENERS);
    for (uint32_t index = 0; index < MODEL_LISTENERS; index++) {
        model_listener *l = &m->listeners[(first + index) % MODEL_LISTENERS];
        if (l->listener && fits(l))
            return l;
    }
    return NULL;
}

static bool any(const model_listener *l) { return l->listener != NULL; }
static bool open_one(const model_listener *l) { return !l->closing; }
static bool waited_at(const model_listener *l) { return l->wait != 0; }

static uint16_t port_of(const lc_address *address) {
    return ((const struct sockaddr_in *)(const void *)&address->storage)->sin_port;
}

int act_listen(model *m) {
    model_listener *l = NULL;
    for (uint32_t index = 0; index < MODEL_LISTENERS && !l; index++)
        if (!m->listeners[index].listener)
            l = &m->listeners[index];
    if (!l)
        return 0;
    lc_address home;
    model_home(m, &home);
    int fd;
    int result = lc_socket_listen(&home, 64, false, &fd);
    RULE(result == 0, "listening failed with %d", result);
    *l = (model_listener){0};
    RULE(lc_address_local(fd, &l->address) == 0, "a listener has no address");
    result = lc_listener_adopt(m->loop, fd, &l->listener);
    RULE(result == 0, "adopting a listener failed with %d", result);
    lc_listener_set_word(l->listener, (uint64_t)(l - m->listeners) + 1);
    model_note(m, "listener %d made", (int)(l - m->listeners));
    return 0;
}

/* ---- who comes ---- */

int act_client(model *m) {
    model_listener *l = some_listener(m, open_one);
    model_connection *c = l ? model_connection_make(m) : NULL;
    if (!c)
        return 0;
    c->used = false;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    RULE(fd >= 0, "no socket for a client: errno %d", errno);
    int result = connect(fd, (const struct sockaddr *)&l->address.storage, l->address.length) < 0 ? errno : 0;
    lc_address own;
    if ((result != 0 && result != EINPROGRESS && result != EINTR) || lc_address_local(fd, &own) < 0) {
        close(fd);
        RULE(m->odds.connect_fails, "a client could not connect: errno %d", result);
        return 0;
    }
    c->used = true;
    c->peer = fd;
    c->peer_port = port_of(&own);
    c->listener = (int)(l - m->listeners);
    model_note(m, "client %u comes to listener %d", c->serial, c->listener);
    return 0;
}

/* An accepted stream names its peer by address; of one that was reset meanwhile the kernel knows it no more. */
static model_connection *who_came(model *m, int listener, lc_stream *stream, bool *known_out) {
    lc_address peer;
    bool known = lc_address_peer(lc_stream_fd(stream), &peer) == 0;
    *known_out = known;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (!c->used || c->end != MODEL_END_AWAITED || c->listener != listener)
            continue;
        if (known ? c->peer_port == port_of(&peer) : c->peer_reset)
            return c;
    }
    return NULL;
}

static int listener_take(model *m, model_listener *l, int *result) {
    lc_stream *stream;
    *result = lc_listener_take(l->listener, &stream);
    if (*result != -EAGAIN)
        l->taken = true;
    if (*result != 1)
        model_note(m, "take at listener %d: %d", (int)(l - m->listeners), *result);
    if (l->cancelled) {
        RULE(*result == -ECANCELED, "a cancelled accept was told %d", *result);
        l->cancelled = false;
        return 0;
    }
    RULE(*result != -ECANCELED, "a cancel of an accept that nobody asked for");
    if (l->closing) {
        RULE(*result == -ESHUTDOWN, "a closed listener said %d", *result);
        return 0;
    }
    if (*result == -EAGAIN) {
        int error = lc_listener_take_backoff(l->listener);
        RULE(error == 0 || m->odds.accept_fails, "accepting paused for error %d", error);
        return 0;
    }
    RULE(*result == 1, "taking at a listener said %d", *result);
    bool known;
    model_connection *c = who_came(m, (int)(l - m->listeners), stream, &known);
    if (!c && !known && m->odds.reset) {
        lc_stream_release(stream); /* reset by the kernel: whose it was cannot be told */
        return 0;
    }
    RULE(c != NULL, "a connection was accepted that nobody made");
    model_note(m, "client %u accepted", c->serial);
    model_connection_hold(m, c, stream);
    m->report->accepted++;
    /* Any of those that were reset: which of them sent what cannot be told. */
    return known ? 0 : model_release(m, c, false);
}

int act_listener_take(model *m) {
    model_listener *l = some_listener(m, any);
    int result;
    return l ? listener_take(m, l, &result) : 0;
}

int act_listener_wait(model *m) {
    model_listener *l = some_listener(m, any);
    if (!l)
        return 0;
    RULE(lc_listener_waits(l->listener) == (l->wait != 0), "who waits to accept is not known alike");
    bool busy = l->wait || l->started;
    uint64_t word = model_next_word(m);
    if (!busy)
        lc_listener_prepare_wait(l->listener);
    int result = lc_listener_wait(l->listener, word);
    model_note(m, "wait at listener %d: %d", (int)(l - m->listeners), result);
    RULE(result == (busy ? -EBUSY : 0), "waiting to accept said %d", result);
    if (busy)
        return 0;
    m->report->waits++;
    l->wait = word;
    l->token = lc_listener_token(l->listener);
    l->taken = false;
    return 0;
}

int act_listener_start(model *m) {
    model_listener *l = some_listener(m, any);
    if (!l)
        return 0;
    int result = lc_listener_start(l->listener);
    model_note(m, "start listener %d: %d", (int)(l - m->listeners), result);
    RULE(result == (l->closing ? -ESHUTDOWN : l->wait ? -EBUSY : 0), "starting a listener said %d", result);
    l->started |= result == 0;
    return 0;
}

int act_listener_cancel(model *m) {
    bool late = chance(m, 200);
    model_listener *l = some_listener(m, late ? any : waited_at);
    if (!l)
        return 0;
    bool meant = l->wait && !late;
    model_note(m, "cancel at listener %d, %s", (int)(l - m->listeners), meant ? "in time" : "too late");
    lc_listener_cancel(l->listener, meant ? l->token : l->token - 1);
    l->cancelled |= meant;
    m->report->cancels += meant;
    m->report->cancels_too_late += !meant;
    return 0;
}

int model_accept(model *m, lc_listener *listener) {
    uint64_t index = lc_listener_word(listener) - 1;
    RULE(index < MODEL_LISTENERS && m->listeners[index].listener == listener,
         "a delivery to a listener that was let go of");
    model_listener *l = &m->listeners[index];
    bool waited = lc_listener_waits(listener);
    uint64_t word = lc_listener_waiter(listener);
    RULE(word == l->wait, "a wait to accept was answered for word %llu, not %llu", (unsigned long long)word,
         (unsigned long long)l->wait);
    RULE(waited || l->started, "a delivery to a listener at which nobody waits");
    l->wait = 0;
    m->report->waits_answered += waited;
    uint64_t most = m->settling ? 64 : waited ? 1 : below(m, 4);
    int result = 1;
    for (uint64_t count = 0; count < most && result == 1; count++)
        TRY(listener_take(m, l, &result));
    if (!waited)
        lc_listener_finish_delivery(listener);
    return 0;
}

/* ---- ends ---- */

/* Who was not accepted yet never will be. */
void model_listener_gone(model *m, model_listener *l) {
    l->closing = true;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (!c->used || c->end != MODEL_END_AWAITED || c->listener != (int)(l - m->listeners))
            continue;
        c->end = MODEL_END_GONE;
        c->cut = true;
        model_connection_tidy(m, c);
    }
}

int model_listener_close(model *m, model_listener *l) {
    model_note(m, "close listener %d", (int)(l - m->listeners));
    lc_listener_close(l->listener);
    model_listener_gone(m, l);
    return 0;
}

int act_listener_close(model *m) {
    model_listener *l = some_listener(m, any);
    return l ? model_listener_close(m, l) : 0;
}

int act_listener_release(model *m) {
    model_listener *l = some_listener(m, any);
    if (!l)
        return 0;
    model_note(m, "release listener %d", (int)(l - m->listeners));
    m->report->waits_released += l->wait != 0;
    m->report->releases++;
    lc_listener_release(l->listener);
    model_listener_gone(m, l);
    l->listener = NULL;
    return 0;
}
