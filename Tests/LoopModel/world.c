// SPDX-License-Identifier: Apache-2.0
/* world.c: the outside: plain non-blocking sockets at the other ends of the loop's connections. */
#include <fcntl.h>
#include <netinet/in.h>
#include "model.h"

/* An address of this process's own, so that nobody else listens where nobody should. */
void model_home(const model *m, lc_address *out) {
    char text[32];
    unsigned process = m->config->simulated ? 1 : (unsigned)getpid();
    snprintf(text, sizeof text, "127.%u.%u.%u", 64 + (process >> 16 & 127), process >> 8 & 255, process & 255);
    lc_address_parse(text, 0, out);
}

static bool has_peer(const model_connection *c) { return c->peer >= 0; }
static bool writes(const model_connection *c) { return c->peer >= 0 && !c->peer_finished && !c->peer_broken; }
static bool is_awaited(const model_connection *c) { return c->answer >= 0; }

/* What a peer that reads may hear other than bytes and an end. */
static bool failure_is_plausible(const model *m, const model_connection *c) {
    return c->cut || c->reset || m->odds.reset > 0 || (c->closing && c->peer_sent > c->received) ||
           (c->end == MODEL_END_AWAITED && (m->odds.connect_fails || m->odds.accept_fails));
}

static bool is_failure_of_a_connection(int error) {
    return error == ECONNRESET || error == EPIPE || error == ECONNREFUSED || error == ETIMEDOUT ||
           error == EHOSTUNREACH || error == ENETUNREACH || error == ECONNABORTED;
}

/* ---- connections ---- */

static int adopt(model *m, model_connection *c, int fds[2]) {
    lc_stream *stream;
    int result = lc_stream_adopt(m->loop, fds[0], &stream);
    RULE(result == 0, "adopting a stream failed with %d", result);
    model_connection_hold(m, c, stream);
    c->peer = fds[1];
    m->report->adopted++;
    model_note(m, "adopt %u, %s", c->serial, c->local ? "local" : "TCP");
    return 0;
}

int act_adopt_local(model *m) {
    model_connection *c = model_connection_make(m);
    if (!c)
        return 0;
    int fds[2];
    RULE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0, "no pair of sockets: errno %d",
         errno);
    c->local = true;
    /* A small buffer makes short sends the ordinary case. */
    int size = chance(m, 500) ? 4608 : 32768;
    if (chance(m, 500))
        for (int side = 0; side < 2; side++)
            setsockopt(fds[side], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return adopt(m, c, fds);
}

static int listen_outside(model *m, int *fd, lc_address *address) {
    lc_address home;
    model_home(m, &home);
    RULE(lc_socket_listen(&home, 128, false, fd) == 0, "the outside cannot listen");
    RULE(lc_address_local(*fd, address) == 0, "a listening socket without an address");
    return 0;
}

int act_adopt_tcp(model *m) {
    model_connection *c = model_connection_make(m);
    if (!c)
        return 0;
    c->used = false;
    int listening, fds[2];
    lc_address address;
    TRY(listen_outside(m, &listening, &address));
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    RULE(fds[1] >= 0, "no socket: errno %d", errno);
    int result = connect(fds[1], (const struct sockaddr *)&address.storage, address.length) < 0 ? errno : 0;
    fds[0] = result == 0 || result == EINPROGRESS ? accept4(listening, NULL, NULL, SOCK_CLOEXEC) : -1;
    close(listening);
    if (fds[0] < 0) {
        close(fds[1]); /* it takes its time, or was refused: not today */
        return 0;
    }
    c->used = true;
    return adopt(m, c, fds);
}

int act_connect(model *m) {
    model_connection *c = model_connection_make(m);
    if (!c)
        return 0;
    lc_address address;
    TRY(listen_outside(m, &c->answer, &address));
    c->refused = chance(m, 250);
    if (c->refused) {
        close(c->answer);
        c->answer = -1;
    }
    lc_stream *stream;
    int result = lc_stream_connect(m->loop, (const struct sockaddr *)&address.storage, address.length, &stream);
    RULE(result == 0, "connecting failed at once with %d", result);
    model_note(m, "connect %u%s", c->serial, c->refused ? ", to nobody" : "");
    model_connection_hold(m, c, stream);
    c->connecting = true;
    return model_wait_send(m, c, SIZE_MAX);
}

int model_peer_accept(model *m, model_connection *c, bool *moved) {
    int fd = accept4(c->answer, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    *moved = fd >= 0;
    if (fd < 0)
        return 0;
    model_note(m, "the outside accepts %u", c->serial);
    close(c->answer);
    c->answer = -1;
    c->peer = fd;
    model_connection_tidy(m, c);
    return 0;
}

int act_peer_accept(model *m) {
    model_connection *c = model_pick(m, is_awaited);
    bool moved;
    return c ? model_peer_accept(m, c, &moved) : 0;
}

/* ---- bytes ---- */

static int peer_write(model *m, model_connection *c, size_t length) {
    uint64_t seed = model_seed_in(c), sent = 0;
    while (sent < length) {
        size_t part = (size_t)(length - sent);
        for (size_t index = 0; index < part; index++)
            m->scratch[index] = model_byte(seed, c->peer_sent + index);
        ssize_t done = send(c->peer, m->scratch, part, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0) {
            if (errno == EAGAIN || errno == EINTR || (errno == ENOTCONN && c->end == MODEL_END_AWAITED))
                break;
            RULE(is_failure_of_a_connection(errno) && (c->closing || failure_is_plausible(m, c)),
                 "the peer of connection %u cannot write: errno %d", c->serial, errno);
            c->peer_broken = true;
            break;
        }
        c->peer_sent += (uint64_t)done;
        sent += (uint64_t)done;
    }
    model_note(m, "peer %u writes %llu of %zu bytes", c->serial, (unsigned long long)sent, length);
    return 0;
}

int act_peer_write(model *m) {
    model_connection *c = model_pick(m, writes);
    if (!c || (c->closing && !chance(m, 200)) || c->peer_sent - c->received > MODEL_QUEUED_MAX)
        return 0;
    return peer_write(m, c, (size_t)size_up_to(m, m->write_max));
}

/* Only a clean end is a promise: everything that sends accepted has come before it. */
static int peer_end(model *m, model_connection *c) {
    if (c->peer_ended)
        return 0;
    c->peer_ended = true;
    model_note(m, "peer %u sees the end", c->serial);
    RULE(c->finish || c->closing || c->cut || m->odds.reset ||
             ((m->odds.accept_fails || m->odds.connect_fails) && !c->stream),
         "the peer of connection %u sees an end nobody made", c->serial);
    bool whole = c->peer_received == c->accepted;
    RULE(whole || c->cut || c->peer_broken || m->odds.reset,
         "the peer of connection %u sees the end after %llu of %llu bytes", c->serial,
         (unsigned long long)c->peer_received, (unsigned long long)c->accepted);
    m->report->whole_deliveries += whole && c->accepted > 0;
    return 0;
}

int model_peer_read(model *m, model_connection *c, size_t length, bool *moved) {
    *moved = false;
    while (length > 0) {
        size_t part = length < sizeof m->scratch ? length : sizeof m->scratch;
        ssize_t got = recv(c->peer, m->scratch, part, MSG_DONTWAIT);
        if (got < 0) {
            if (errno == EAGAIN || errno == EINTR || (errno == ENOTCONN && c->end == MODEL_END_AWAITED))
                return 0;
            RULE(is_failure_of_a_connection(errno) && failure_is_plausible(m, c),
                 "the peer of connection %u cannot read: errno %d", c->serial, errno);
            model_note(m, "peer %u cannot read: errno %d", c->serial, errno);
            *moved = !c->peer_ended;
            c->peer_broken = c->peer_ended = true;
            return 0;
        }
        if (got == 0) {
            *moved |= !c->peer_ended;
            return peer_end(m, c);
        }
        *moved = true;
        model_note(m, "peer %u reads %zd bytes", c->serial, got);
        TRY(model_arrived_out(m, c, m->scratch, (size_t)got));
        length -= (size_t)got;
    }
    return 0;
}

int act_peer_read(model *m) {
    model_connection *c = model_pick(m, has_peer);
    bool moved;
    return c ? model_peer_read(m, c, (size_t)size_up_to(m, 4 * sizeof m->scratch), &moved) : 0;
}

/* ---- ends ---- */

int model_peer_finish(model *m, model_connection *c) {
    model_note(m, "peer %u finishes", c->serial);
    if (shutdown(c->peer, SHUT_WR) == 0)
        c->peer_finished = true;
    return 0;
}

int act_peer_finish(model *m) {
    model_connection *c = model_pick(m, writes);
    return c && c->end != MODEL_END_AWAITED ? model_peer_finish(m, c) : 0;
}

void model_peer_close(model *m, model_connection *c, bool reset) {
    model_note(m, "peer %u closes%s", c->serial, reset ? " by a reset" : "");
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    if (reset)
        setsockopt(c->peer, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(c->peer);
    c->peer = -1;
    c->peer_closed = true;
    c->peer_reset |= reset;
    m->report->resets += reset;
    model_connection_tidy(m, c);
}

int act_peer_reset(model *m) {
    model_connection *c = model_pick(m, has_peer);
    if (c)
        model_peer_close(m, c, true);
    return 0;
}

int act_peer_close(model *m) {
    model_connection *c = model_pick(m, chance(m, 100) ? is_awaited : has_peer);
    if (!c)
        return 0;
    if (c->peer >= 0) {
        model_peer_close(m, c, false);
        return 0;
    }
    model_note(m, "the outside stops listening for %u", c->serial);
    close(c->answer);
    c->answer = -1;
    c->peer_closed = c->peer_reset = c->forsaken = true;
    model_connection_tidy(m, c);
    return 0;
}

/* ---- on its own ---- */

static bool may_read(const model_connection *c) { return c->peer >= 0 && !c->peer_ended; }

int model_outside_acts(model *m, bool *acted) {
    *acted = false;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS && !*acted; index++) {
        model_connection *c = &m->connections[index];
        if (c->used && c->answer >= 0)
            TRY(model_peer_accept(m, c, acted));
        else if (c->used && may_read(c) && c->end != MODEL_END_AWAITED)
            TRY(model_peer_read(m, c, 4 * sizeof m->scratch, acted));
    }
    if (*acted || m->settling)
        return 0;
    model_connection *c = model_pick(m, writes);
    uint64_t before = c ? c->peer_sent : 0;
    if (c && chance(m, 700) && c->peer_sent - c->received <= MODEL_QUEUED_MAX) {
        TRY(peer_write(m, c, (size_t)size_up_to(m, m->write_max)));
        *acted = c->peer_sent > before && model_is_held(c) && !c->closing && (c->receive_wait || c->started);
    }
    return 0;
}
