// SPDX-License-Identifier: Apache-2.0
/* connection.c: one connection: multishot receive, send from the receive buffer, one send at a time.
 *
 * One send in flight keeps the bytes in order; what arrives meanwhile queues up in the chunks of its buffers, so
 * no memory is needed for the queue. The connection is freed when the kernel holds neither receive nor send. */
#include "connection.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd;
    bool receiving; /* the kernel holds a multishot receive */
    bool sending;   /* the kernel holds a send of `first` */
    bool starved;   /* on the server's list, waiting for a buffer */
    bool closing;   /* nothing more is received */
    uint16_t first; /* leased buffers in order of arrival, BUFFER_NONE when empty */
    uint16_t last;
    struct connection *starved_next;
};

static void arm_receive(struct server *server, struct connection *connection) {
    struct io_uring_sqe *sqe = server_sqe(server);
    io_uring_prep_recv_multishot(sqe, connection->fd, NULL, 0, 0);
    server_tag(sqe, connection, KIND_RECEIVE);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    connection->receiving = true;
}

static void send_first(struct server *server, struct connection *connection) {
    const struct chunk *chunk = &server->buffers.chunks[connection->first];
    struct io_uring_sqe *sqe = server_sqe(server);
    io_uring_prep_send(sqe, connection->fd, buffer_bytes(&server->buffers, connection->first) + chunk->begin,
                       chunk->end - chunk->begin, MSG_NOSIGNAL);
    server_tag(sqe, connection, KIND_SEND);
    connection->sending = true;
}

static void queue(struct server *server, struct connection *connection, uint16_t id) {
    if (connection->first == BUFFER_NONE)
        connection->first = id;
    else
        server->buffers.chunks[connection->last].next = id;
    connection->last = id;
}

static void return_first(struct server *server, struct connection *connection) {
    uint16_t id = connection->first;
    connection->first = server->buffers.chunks[id].next;
    buffers_return(&server->buffers, id);
}

static void close_when_idle(struct server *server, struct connection *connection) {
    if (!connection->closing || connection->receiving || connection->sending || connection->starved)
        return;
    close(connection->fd);
    free(connection);
    if (server->accept_parked)
        server_arm_accept(server);
}

static void starve(struct server *server, struct connection *connection) {
    connection->starved = true;
    connection->starved_next = NULL;
    if (server->starved_head == NULL)
        server->starved_head = connection;
    else
        server->starved_tail->starved_next = connection;
    server->starved_tail = connection;
}

void connection_open(struct server *server, int fd) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->fd = fd;
    connection->first = BUFFER_NONE;
    connection->last = BUFFER_NONE;
    arm_receive(server, connection);
}

void connection_received(struct server *server, struct connection *connection, int result, unsigned flags) {
    if (!(flags & IORING_CQE_F_MORE))
        connection->receiving = false;

    if (flags & IORING_CQE_F_BUFFER) {
        uint16_t id = (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT);
        buffers_lease(&server->buffers, id, result > 0 ? (uint32_t)result : 0);
        if (result > 0 && !connection->closing) {
            server->request_count++;
            queue(server, connection, id);
            if (!connection->sending)
                send_first(server, connection);
        } else {
            buffers_return(&server->buffers, id);
        }
    }

    if (result == -ENOBUFS)
        starve(server, connection);
    else if (result <= 0)
        connection->closing = true;
    else if (!connection->receiving && !connection->closing)
        arm_receive(server, connection);

    close_when_idle(server, connection);
}

void connection_sent(struct server *server, struct connection *connection, int result) {
    connection->sending = false;

    if (result < 0) {
        /* The peer is gone: nothing queued can be delivered, and the shutdown ends a receive the kernel holds. */
        while (connection->first != BUFFER_NONE)
            return_first(server, connection);
        connection->closing = true;
        if (connection->receiving)
            shutdown(connection->fd, SHUT_RDWR);
    } else {
        struct chunk *chunk = &server->buffers.chunks[connection->first];
        chunk->begin += (uint32_t)result;
        if (chunk->begin == chunk->end)
            return_first(server, connection);
        if (connection->first != BUFFER_NONE)
            send_first(server, connection);
    }

    close_when_idle(server, connection);
}

void connection_feed_starved(struct server *server) {
    unsigned free_count = BUFFER_COUNT - server->buffers.leased_count;
    for (; free_count > 0 && server->starved_head != NULL; free_count--) {
        struct connection *connection = server->starved_head;
        server->starved_head = connection->starved_next;
        connection->starved = false;
        if (!connection->closing)
            arm_receive(server, connection);
        close_when_idle(server, connection);
    }
}
