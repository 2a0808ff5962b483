// SPDX-License-Identifier: Apache-2.0
/* connection.c: one connection of the libev floor: receive, send at once, keep what did not fit.
 *
 * Reading is armed once and disarmed only while a rest is owed, which bounds what a slow peer can make us hold. */
#include "echo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Owned by the loop through its two watchers, freed by connection_close(). */
struct connection {
    ev_io read;
    ev_io write;
    struct server *server;
    char *rest; /* RECEIVE_BYTES_MAX bytes, made when first needed, kept until close */
    size_t rest_begin;
    size_t rest_end;
};

static void connection_close(struct ev_loop *loop, struct connection *connection) {
    ev_io_stop(loop, &connection->read);
    ev_io_stop(loop, &connection->write);
    close(connection->read.fd);
    /* Starting an armed watcher does nothing; one that ran out of descriptors may go on now. */
    ev_io_start(loop, &connection->server->accept);
    free(connection->rest);
    free(connection);
}

/* Bytes the kernel took, which may be 0; negative when the peer is gone. */
static ssize_t send_some(struct connection *connection, const char *bytes, size_t length) {
    connection->server->entry_count++;
    ssize_t sent = send(connection->read.fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    return sent;
}

static void keep_rest(struct ev_loop *loop, struct connection *connection, const char *bytes, size_t length) {
    if (connection->rest == NULL)
        connection->rest = malloc(RECEIVE_BYTES_MAX);
    if (connection->rest == NULL)
        return connection_close(loop, connection);

    memcpy(connection->rest, bytes, length);
    connection->rest_begin = 0;
    connection->rest_end = length;
    ev_io_stop(loop, &connection->read);
    ev_io_start(loop, &connection->write);
}

static void on_readable(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct connection *connection = watcher->data;
    struct server *server = connection->server;

    server->entry_count++;
    ssize_t received = recv(watcher->fd, server->scratch, sizeof server->scratch, 0);
    if (received <= 0) {
        server->event_count++;
        if (received < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        return connection_close(loop, connection);
    }
    server->request_count++;

    ssize_t sent = send_some(connection, server->scratch, (size_t)received);
    if (sent < 0)
        return connection_close(loop, connection);
    if (sent < received)
        keep_rest(loop, connection, server->scratch + sent, (size_t)(received - sent));
}

static void on_writable(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    struct connection *connection = watcher->data;

    connection->server->event_count++;
    ssize_t sent =
        send_some(connection, connection->rest + connection->rest_begin, connection->rest_end - connection->rest_begin);
    if (sent < 0)
        return connection_close(loop, connection);
    connection->rest_begin += (size_t)sent;
    if (connection->rest_begin < connection->rest_end)
        return;

    ev_io_stop(loop, watcher);
    ev_io_start(loop, &connection->read);
}

void connection_open(struct ev_loop *loop, struct server *server, int fd) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        close(fd);
        return;
    }
    connection->server = server;
    ev_io_init(&connection->read, on_readable, fd, EV_READ);
    ev_io_init(&connection->write, on_writable, fd, EV_WRITE);
    connection->read.data = connection;
    connection->write.data = connection;
    ev_io_start(loop, &connection->read);
}
