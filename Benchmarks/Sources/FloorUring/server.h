// SPDX-License-Identifier: Apache-2.0
/* server.h: the ring, who waits for what, and how a completion finds its way back.
 *
 * user_data carries a pointer and, in the two bits its alignment leaves free, the kind of operation. */
#ifndef FLOOR_URING_SERVER_H
#define FLOOR_URING_SERVER_H

#include "buffers.h"

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

enum operation_kind {
    KIND_ACCEPT = 0,
    KIND_RECEIVE = 1,
    KIND_SEND = 2,
    KIND_SIGNAL = 3,
};
#define KIND_MASK ((uint64_t)3)

struct connection;

struct server {
    struct io_uring ring;
    struct buffers buffers;
    int listener;
    bool accept_parked; /* out of descriptors; the next close arms it again */
    bool stopping;
    struct connection *starved_head; /* receives that found no buffer, oldest first */
    struct connection *starved_tail;
    uint64_t request_count;
    uint64_t entry_count;
    uint64_t refill_count; /* entries among them for want of room in the submission queue */
};

/* A blank submission; enters the kernel first when the queue is full. */
struct io_uring_sqe *server_sqe(struct server *server);

/* Set after the prep call, which is free to overwrite it. */
static inline void server_tag(struct io_uring_sqe *sqe, const struct connection *owner, enum operation_kind kind) {
    io_uring_sqe_set_data64(sqe, (uintptr_t)owner | kind);
}

void server_arm_accept(struct server *server);

#endif
