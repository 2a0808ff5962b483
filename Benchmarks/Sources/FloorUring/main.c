// SPDX-License-Identifier: Apache-2.0
/* main.c: the least a completion-based echo server can do.
 *
 * What the proactor is measured against: one thread, one ring, one kernel entry per tick. Signals arrive as a
 * completion too, read from a signalfd, so there is no moment in which one could be missed. */
#include "connection.h"
#include "floor_support.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct server server;

static void open_ring(struct io_uring *ring) {
    struct io_uring_params parameters = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        .cq_entries = COMPLETION_COUNT,
    };
    int result = io_uring_queue_init_params(SUBMISSION_COUNT, ring, &parameters);
    if (result == -EPERM)
        floor_fail("io_uring is refused here (kernel.io_uring_disabled or seccomp)", EPERM);
    if (result < 0)
        floor_fail("io_uring setup (Linux 6.1 or later has all the flags)", -result);

    /* Saves a descriptor lookup per entry. Older kernels refuse and only lose that. */
    (void)io_uring_register_ring_fd(ring);
}

static void arm_signals(void) {
    int fd = floor_signals();
    if (fd < 0)
        floor_fail("signalfd", -fd);

    struct io_uring_sqe *sqe = server_sqe(&server);
    io_uring_prep_poll_add(sqe, fd, POLLIN);
    server_tag(sqe, NULL, KIND_SIGNAL);
}

/* Ends the program unless the kernel was only interrupted or is short of memory for a moment. */
static void check_entry(int result) {
    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY) {
        floor_fail("io_uring_enter", -result);
    }
}

struct io_uring_sqe *server_sqe(struct server *target) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&target->ring);
    while (sqe == NULL) {
        check_entry(io_uring_submit(&target->ring));
        target->entry_count++;
        target->refill_count++;
        sqe = io_uring_get_sqe(&target->ring);
    }
    return sqe;
}

void server_arm_accept(struct server *target) {
    struct io_uring_sqe *sqe = server_sqe(target);
    io_uring_prep_multishot_accept(sqe, target->listener, NULL, NULL, SOCK_CLOEXEC);
    server_tag(sqe, NULL, KIND_ACCEPT);
    target->accept_parked = false;
}

static void accepted(int result, unsigned flags) {
    if (result >= 0)
        connection_open(&server, result);
    if (flags & IORING_CQE_F_MORE)
        return;

    bool exhausted = result == -EMFILE || result == -ENFILE || result == -ENOMEM || result == -ENOBUFS;
    if (exhausted)
        server.accept_parked = true;
    else
        server_arm_accept(&server);
}

static void deliver(const struct io_uring_cqe *cqe) {
    struct connection *connection = (struct connection *)(uintptr_t)(cqe->user_data & ~KIND_MASK);
    switch ((enum operation_kind)(cqe->user_data & KIND_MASK)) {
    case KIND_ACCEPT:
        accepted(cqe->res, cqe->flags);
        break;
    case KIND_RECEIVE:
        connection_received(&server, connection, cqe->res, cqe->flags);
        break;
    case KIND_SEND:
        connection_sent(&server, connection, cqe->res);
        break;
    case KIND_SIGNAL:
        server.stopping = true;
        break;
    }
}

static void tick(void) {
    check_entry(io_uring_submit_and_wait(&server.ring, 1));
    server.entry_count++;

    unsigned head, count = 0;
    struct io_uring_cqe *cqe;
    io_uring_for_each_cqe(&server.ring, head, cqe) {
        deliver(cqe);
        count++;
    }
    io_uring_cq_advance(&server.ring, count);

    buffers_publish(&server.buffers);
    connection_feed_starved(&server);
}

int main(int argument_count, char **arguments) {
    struct floor_arguments parsed = floor_arguments_parse(argument_count, arguments);
    floor_raise_descriptor_limit();

    open_ring(&server.ring);
    buffers_open(&server.buffers, &server.ring);
    server.listener = floor_listen(parsed, 0);
    arm_signals();
    server_arm_accept(&server);
    floor_announce(server.listener);

    while (!server.stopping)
        tick();

    floor_farewell(&(struct floor_counts){
        .requests = server.request_count,
        .calls = server.entry_count,
        .ticks = server.entry_count - server.refill_count,
        .entries = server.entry_count,
        /* The ring's own count, which wraps after 2^32. */
        .completions = *server.ring.cq.khead,
    });
    return 0;
}
