// SPDX-License-Identifier: Apache-2.0
/* connect.c: non-blocking connects in bursts, so that a short accept backlog is not overrun. */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BURST_COUNT_MAX 64u
#define CONNECT_WAIT_MS 5000

/* A destination has about 28 000 ports per source address. With the port left to connect(2) it only has to be free
 * towards that destination, and sockets that are bound but not connected yet take none. */
static int bind_source(const struct run *run, int fd, uint32_t turn) {
    if (run->options->source_count == 0)
        return 0;
    int on = 1;
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on) < 0)
        return -errno;
    struct sockaddr_in source = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + turn % run->options->source_count),
    };
    return bind(fd, (struct sockaddr *)&source, sizeof source) < 0 ? -errno : 0;
}

int run_socket(struct run *run, uint32_t turn) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return run_fail(run, errno, "opening a client socket");

    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int result = bind_source(run, fd, turn);
    if (result < 0) {
        close(fd);
        return run_fail(run, -result, "choosing a source address");
    }
    return fd;
}

int run_begin_connect(struct run *run, int fd) {
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(run->options->port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        return run_fail(run, errno, "connecting");
    }
    return 0;
}

static int begin_connect(struct run *run, uint32_t index) {
    int fd = run_socket(run, index);
    if (fd < 0)
        return fd;
    run->streams[index].fd = fd;
    return run_begin_connect(run, fd);
}

static int finish_connect(struct run *run, struct stream *stream) {
    struct pollfd wait = {.fd = stream->fd, .events = POLLOUT};
    int ready = poll(&wait, 1, CONNECT_WAIT_MS);
    if (ready < 0)
        return run_fail(run, errno, "waiting for a connection");
    if (ready == 0)
        return run_fail(run, ETIMEDOUT, "waiting for a connection");

    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0)
        return run_fail(run, error, "connecting");

    struct epoll_event event = {.events = EPOLLIN, .data.ptr = stream};
    if (epoll_ctl(run->epoll, EPOLL_CTL_ADD, stream->fd, &event) < 0)
        return run_fail(run, errno, "epoll_ctl");
    return 0;
}

int run_connect(struct run *run, uint32_t further) {
    uint32_t first = run->connected_count;
    if (further > run->options->connection_count - first)
        return run_fail(run, EINVAL, "more connections than were announced");
    uint32_t count = first + further;
    for (uint32_t burst = first; burst < count; burst += BURST_COUNT_MAX) {
        uint32_t end = count - burst < BURST_COUNT_MAX ? count : burst + BURST_COUNT_MAX;
        for (uint32_t index = burst; index < end; index++) {
            int result = begin_connect(run, index);
            if (result < 0)
                return result;
        }
        for (uint32_t index = burst; index < end; index++) {
            int result = finish_connect(run, &run->streams[index]);
            if (result < 0)
                return result;
        }
        run->connected_count = end;
    }
    return 0;
}
