// SPDX-License-Identifier: Apache-2.0
/* peers.c: sockets, and the plain other ends of the loop's streams. */
#include <poll.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include "scenario.h"

/* ---- patterns ---- */

uint8_t pattern_byte(uint64_t seed, uint64_t position) {
    return (uint8_t)((seed * 0x2545f4914f6cdd1du + position) * 0x9e3779b97f4a7c15u >> 40);
}

void pattern_fill(uint8_t *bytes, size_t length, uint64_t seed, uint64_t position) {
    for (size_t index = 0; index < length; index++)
        bytes[index] = pattern_byte(seed, position + index);
}

int pattern_check(scenario *s, const uint8_t *bytes, size_t length, uint64_t seed, uint64_t position) {
    for (size_t index = 0; index < length; index++)
        if (bytes[index] != pattern_byte(seed, position + index))
            return scenario_fail(s, __FILE__, __LINE__, "byte %llu of the stream is %u, not %u",
                                 (unsigned long long)(position + index), bytes[index],
                                 pattern_byte(seed, position + index));
    return 0;
}

/* ---- sockets ---- */

/* A peer that waits for what never comes fails instead of hanging. */
static int set_limits(scenario *s, int fd) {
    struct timeval limit = {.tv_sec = 60};
    CHECK_CALL(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit));
    CHECK_CALL(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
    return 0;
}

int pair_unix(scenario *s, int fds[2]) {
    CHECK_CALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    return set_limits(s, fds[1]);
}

int listen_anywhere(scenario *s, int backlog, int *fd, lc_address *address) {
    lc_address wanted;
    CHECK_EQ(lc_address_parse("127.9.0.1", 0, &wanted), 0);
    CHECK_EQ(lc_socket_listen(&wanted, backlog, false, fd), 0);
    CHECK_EQ(lc_address_local(*fd, address), 0);
    return 0;
}

int listen_full(scenario *s, int *listening, int fillers[FILLERS], lc_address *address) {
    TRY(listen_anywhere(s, 0, listening, address));
    for (int index = 0; index < FILLERS; index++) {
        fillers[index] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        CHECK_CALL(fillers[index]);
        if (connect(fillers[index], (struct sockaddr *)&address->storage, address->length) < 0)
            CHECK_EQ(errno, EINPROGRESS);
    }
    return 0;
}

/* A signal, of a child that ended for example, interrupts connect(2) but not the connecting. */
static int connect_fully(int fd, const lc_address *address) {
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) == 0)
        return 0;
    if (errno != EINTR)
        return -1;
    struct pollfd writable = {.fd = fd, .events = POLLOUT};
    while (poll(&writable, 1, -1) < 0)
        if (errno != EINTR)
            return -1;
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return -1;
    errno = error;
    return error ? -1 : 0;
}

int client_connect(scenario *s, const lc_address *address, int *fd) {
    *fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(*fd);
    TRY(set_limits(s, *fd));
    CHECK_CALL(connect_fully(*fd, address));
    int one = 1;
    CHECK_CALL(setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    return 0;
}

int set_nonblocking(scenario *s, int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    CHECK_CALL(flags);
    CHECK_CALL(fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
    return 0;
}

int pair_tcp(scenario *s, int fds[2]) {
    int listening;
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    TRY(set_nonblocking(s, listening, false));
    TRY(client_connect(s, &address, &fds[1]));
    fds[0] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
    CHECK_CALL(fds[0]);
    close(listening);
    return 0;
}

/* ---- endpoints ---- */

int endpoint_adopt(scenario *s, endpoint *e, int fds[2]) {
    CHECK_EQ(lc_stream_adopt(s->loop, fds[0], &e->stream), 0);
    lc_stream_set_word(e->stream, (uint64_t)(uintptr_t)e);
    e->peer = fds[1];
    return 0;
}

int endpoint_open(scenario *s, endpoint *e, bool tcp) {
    int fds[2];
    TRY(tcp ? pair_tcp(s, fds) : pair_unix(s, fds));
    return endpoint_adopt(s, e, fds);
}

static int endpoint_keep(scenario *s, endpoint *e, lc_buffer *lease) {
    if (e->held_count == e->held_capacity) {
        size_t capacity = e->held_capacity ? e->held_capacity * 2 : 16;
        lc_buffer **held = realloc(e->held, capacity * sizeof *held);
        CHECK(held != NULL);
        e->held = held;
        e->held_capacity = capacity;
    }
    e->held[e->held_count++] = lease;
    return 0;
}

int endpoint_received(scenario *s, lc_stream *stream) {
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    CHECK(e != NULL);
    e->deliveries++;
    e->last_waiter = lc_stream_receive_waiter(stream);
    for (;;) {
        lc_buffer *lease = NULL;
        int result = lc_stream_take(stream, &lease);
        if (result == 1) {
            CHECK_GT(lc_buffer_length(lease), 0);
            TRY(pattern_check(s, lc_buffer_bytes(lease), lc_buffer_length(lease), e->seed, e->received));
            e->received += lc_buffer_length(lease);
            if (e->echo)
                CHECK_EQ(lc_stream_send(stream, lease), 0);
            else if (e->hold)
                TRY(endpoint_keep(s, e, lease));
            else
                lc_buffer_return(lease);
            continue;
        }
        if (result == 0)
            e->ends++;
        else if (result == -ECANCELED)
            e->cancels++;
        else if (result == -ESHUTDOWN)
            e->shutdowns++;
        else if (result != -EAGAIN) {
            e->errors++;
            e->error = result;
        }
        break;
    }
    lc_stream_finish_delivery(stream);
    return 0;
}

void endpoint_return_held(endpoint *e) {
    for (size_t index = 0; index < e->held_count; index++)
        lc_buffer_return(e->held[index]);
    free(e->held);
    e->held = NULL;
    e->held_count = e->held_capacity = 0;
}

int endpoint_close(scenario *s, endpoint *e) {
    if (e->peer >= 0)
        CHECK_CALL(close(e->peer));
    e->peer = -1;
    lc_stream_release(e->stream);
    e->stream = NULL;
    return 0;
}

int peer_send(scenario *s, endpoint *e, const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        ssize_t sent = send(e->peer, at, length, MSG_NOSIGNAL);
        CHECK_CALL(sent);
        at += sent;
        length -= (size_t)sent;
    }
    return 0;
}

int peer_receive_some(scenario *s, endpoint *e, uint64_t seed, size_t length, bool *end) {
    static _Thread_local uint8_t bytes[64 * 1024];
    while (length > 0) {
        ssize_t got = recv(e->peer, bytes, length < sizeof bytes ? length : sizeof bytes, MSG_DONTWAIT);
        if (got < 0 && errno == EAGAIN)
            return 0;
        CHECK_CALL(got);
        if (got == 0) {
            *end = true;
            return 0;
        }
        TRY(pattern_check(s, bytes, (size_t)got, seed, e->peer_received));
        e->peer_received += (uint64_t)got;
        length -= (size_t)got;
    }
    return 0;
}

int peer_reset(scenario *s, endpoint *e) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    CHECK_CALL(setsockopt(e->peer, SOL_SOCKET, SO_LINGER, &now, sizeof now));
    CHECK_CALL(close(e->peer));
    e->peer = -1;
    return 0;
}

int endpoint_send_until_stuck(scenario *s, endpoint *e, size_t size) {
    uint8_t *bytes = calloc(1, size);
    CHECK(bytes != NULL);
    CHECK_EQ(lc_stream_send_copy(e->stream, bytes, size), 0);
    CHECK_EQ(lc_stream_send_copy(e->stream, bytes, size), 0);
    free(bytes);
    size_t before;
    do {
        before = lc_stream_unsent(e->stream);
        TRY(scenario_settle(s));
    } while (lc_stream_unsent(e->stream) < before);
    CHECK_GT(lc_stream_unsent(e->stream), 0);
    return 0;
}
