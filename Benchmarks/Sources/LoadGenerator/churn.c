// SPDX-License-Identifier: Apache-2.0
/* churn.c: clients that connect, have one message echoed, go away, and begin again.
 *
 * They leave with a reset: an orderly close would keep each port for a minute on our side, and a fast server would soon
 * have met all of them. */
#include "samples.h"
#include "worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENT_COUNT_MAX 256
#define SILENCE_NS_MAX  (5ull * 1000 * 1000 * 1000)

struct client {
    int fd; /* -1 between two connections */
    size_t received;
    uint64_t started_ns;
    uint64_t origin;
};

struct churn {
    struct run *run;
    const struct crowd_task *task;
    struct client *clients;
    uint32_t open_count;
    uint32_t turn; /* source addresses */
};

static int open_client(struct churn *churn, struct client *client) {
    client->fd = run_socket(churn->run, churn->turn++);
    if (client->fd < 0)
        return client->fd;
    churn->open_count++;
    client->received = 0;
    client->origin += 97;
    client->started_ns = run_clock_ns();

    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    int result = run_begin_connect(churn->run, client->fd);
    if (result < 0)
        return result;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = client};
    if (epoll_ctl(churn->run->epoll, EPOLL_CTL_ADD, client->fd, &event) < 0)
        return run_fail(churn->run, errno, "epoll_ctl");
    return 0;
}

static void close_client(struct churn *churn, struct client *client) {
    close(client->fd);
    client->fd = -1;
    churn->open_count--;
}

/* The first message fits any socket, so it is sent whole or not at all. */
static int connected(struct churn *churn, struct client *client) {
    ssize_t sent = send(client->fd, pattern_at(client->origin), churn->task->message_bytes, MSG_NOSIGNAL);
    if (sent != (ssize_t)churn->task->message_bytes)
        return run_fail(churn->run, sent < 0 ? errno : EPROTO, "connecting");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
    if (epoll_ctl(churn->run->epoll, EPOLL_CTL_MOD, client->fd, &event) < 0)
        return run_fail(churn->run, errno, "epoll_ctl");
    return 0;
}

static int finished(struct churn *churn, struct client *client) {
    struct run *run = churn->run;
    run->now_ns = run->progress_ns = run_clock_ns();
    close_client(churn, client);
    if (run->now_ns >= churn->task->begin_ns && run->now_ns < churn->task->end_ns) {
        run->result->echo_count++;
        if (samples_append(run->samples, run->now_ns - client->started_ns) < 0)
            return run_fail(run, ENOMEM, "growing the latency samples");
    }
    return run->now_ns < churn->task->end_ns ? open_client(churn, client) : 0;
}

static int receive(struct churn *churn, struct client *client) {
    struct run *run = churn->run;
    ssize_t received = recv(client->fd, run->scratch, sizeof run->scratch, 0);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (received < 0)
        return run_fail(run, errno, "receiving from the server");
    if (received == 0)
        return run_fail(run, ECONNRESET, "the server closed a connection");
    if (memcmp(run->scratch, pattern_at(client->origin + client->received), (size_t)received) != 0)
        run->result->mismatch_count++;
    client->received += (size_t)received;
    if (client->received > churn->task->message_bytes)
        return run_fail(run, EPROTO, "the server sent more than it was sent");
    return client->received == churn->task->message_bytes ? finished(churn, client) : 0;
}

static int turn_over(struct churn *churn) {
    struct run *run = churn->run;
    struct epoll_event events[EVENT_COUNT_MAX];
    run->progress_ns = run_clock_ns();
    while (churn->open_count > 0) {
        int count = epoll_wait(run->epoll, events, EVENT_COUNT_MAX, 1000);
        if (count < 0 && errno != EINTR)
            return run_fail(run, errno, "epoll_wait");
        for (int index = 0; index < count; index++) {
            struct client *client = events[index].data.ptr;
            int result = events[index].events & EPOLLIN ? receive(churn, client) : connected(churn, client);
            if (result < 0)
                return result;
        }
        if (run_clock_ns() - run->progress_ns >= SILENCE_NS_MAX)
            return run_fail(run, ETIMEDOUT, "the server did not answer");
    }
    return 0;
}

int churn_run(struct run *run, const struct crowd_task *task) {
    struct churn churn = {.run = run, .task = task};
    if (task->message_bytes > PIECE_BYTES_MAX)
        return run_fail(run, EINVAL, "messages of short connections are at most 64 KiB");
    churn.clients = calloc(task->count + 1, sizeof *churn.clients);
    if (churn.clients == NULL)
        return run_fail(run, ENOMEM, "preparing clients");
    int result = 0;
    for (uint32_t index = 0; index < task->count; index++)
        churn.clients[index].fd = -1;
    for (uint32_t index = 0; index < task->count && result == 0; index++)
        result = open_client(&churn, &churn.clients[index]);
    if (result == 0)
        result = turn_over(&churn);
    for (uint32_t index = 0; index < task->count; index++) {
        if (churn.clients[index].fd >= 0)
            close(churn.clients[index].fd);
    }
    free(churn.clients);
    run->result->measured_ns = task->end_ns - task->begin_ns;
    return result;
}
