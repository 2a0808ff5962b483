// SPDX-License-Identifier: Apache-2.0
/* slow.c: one connection that sends and does not read until later; then every byte is compared.
 *
 * Its receive buffer is small, so that what the server cannot get rid of piles up on the server's side. */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_BUFFER_BYTES (64 * 1024)
#define SILENCE_NS_MAX       (5ull * 1000 * 1000 * 1000)

/* Waits for `events`, at most until `until_ns`: whether they came, or a negated errno. */
static int wait_for(int fd, short events, uint64_t until_ns) {
    for (;;) {
        uint64_t now_ns = run_clock_ns();
        struct pollfd wait = {.fd = fd, .events = events};
        int ready = poll(&wait, 1, now_ns < until_ns ? (int)((until_ns - now_ns + 999999) / 1000000) : 0);
        if (ready >= 0 || errno != EINTR)
            return ready < 0 ? -errno : ready;
    }
}

/* Sends until told to read or everything is sent, whichever comes first, and returns when it is time to read. */
static int fill(struct run *run, const struct crowd_task *task, int fd, uint64_t *total) {
    while (run_clock_ns() < task->end_ns) {
        int ready = wait_for(fd, *total < task->bytes_max ? POLLOUT : 0, task->end_ns);
        if (ready < 0)
            return run_fail(run, -ready, "waiting to send slowly");
        if (ready == 0)
            continue;
        uint64_t left = task->bytes_max - *total;
        ssize_t sent =
            send(fd, pattern_at(*total), left < PIECE_BYTES_MAX ? (size_t)left : PIECE_BYTES_MAX, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return run_fail(run, errno, "the slow reader lost its connection");
        if (sent > 0)
            *total += (uint64_t)sent;
        if (left == 0)
            return run_fail(run, ECONNRESET, "the slow reader lost its connection");
    }
    return 0;
}

static int drain(struct run *run, int fd, uint64_t total) {
    uint64_t received = 0;
    while (received < total) {
        int ready = wait_for(fd, POLLIN, run_clock_ns() + SILENCE_NS_MAX);
        if (ready <= 0)
            return run_fail(run, ready < 0 ? -ready : ETIMEDOUT, "the slow reader got no more bytes");
        ssize_t got = recv(fd, run->scratch, sizeof run->scratch, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0)
            return run_fail(run, got < 0 ? errno : ECONNRESET, "the slow reader lost its connection");
        if (memcmp(run->scratch, pattern_at(received), (size_t)got) != 0)
            run->result->mismatch_count++;
        received += (uint64_t)got;
    }
    run->result->byte_count = received;
    return received == total ? 0 : run_fail(run, EPROTO, "the server sent more than it was sent");
}

int slow_run(struct run *run, const struct crowd_task *task) {
    int fd = run_socket(run, 0);
    if (fd < 0)
        return fd;
    int bytes = RECEIVE_BUFFER_BYTES;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    uint64_t total = 0;
    int result = run_begin_connect(run, fd);
    if (result == 0)
        result = fill(run, task, fd, &total);
    if (result == 0)
        result = drain(run, fd, total);
    close(fd);
    return result;
}
