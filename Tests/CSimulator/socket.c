// SPDX-License-Identifier: Apache-2.0
/* socket.c: stream sockets: connections with a queue in each direction, listeners with a backlog.
 *
 * What a sender hands over lies in the receiver's queue at once; there is no wire. What Linux leaves open is left to
 * chance: how much of it a call takes, when a connect is through, whether bytes survive a reset. */
#include <netinet/in.h>
#include <poll.h>
#include <sys/un.h>
#include <unistd.h>
#include "calls.h"

sim_socket *sim_socket_of(sim_file *file) { return file && file->kind == SIM_SOCKET ? (sim_socket *)file : NULL; }

sim_socket *sim_socket_make(sim_kernel *kernel, int domain, bool nonblocking) {
    sim_socket *socket = calloc(1, sizeof *socket);
    sim_file_init(kernel, &socket->file, SIM_SOCKET, nonblocking);
    socket->domain = domain;
    socket->in.capacity = kernel->config.socket_buffer;
    return socket;
}

void sim_socket_join(sim_socket *one, sim_socket *other) {
    one->peer = other;
    other->peer = one;
    one->state = other->state = SIM_CONNECTED;
}

/* ---- addresses ---- */

static in_port_t *port_of(struct sockaddr_storage *address) {
    if (address->ss_family == AF_INET)
        return &((struct sockaddr_in *)address)->sin_port;
    return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port : NULL;
}

static bool same_address(const sim_socket *socket, const struct sockaddr *address, socklen_t length) {
    if (socket->local.ss_family != address->sa_family)
        return false;
    if (address->sa_family != AF_INET)
        return socket->local_length == length && memcmp(&socket->local, address, length) == 0;
    const struct sockaddr_in *mine = (const struct sockaddr_in *)&socket->local;
    const struct sockaddr_in *theirs = (const struct sockaddr_in *)address;
    return mine->sin_port == theirs->sin_port &&
           (mine->sin_addr.s_addr == theirs->sin_addr.s_addr || mine->sin_addr.s_addr == htonl(INADDR_ANY) ||
            theirs->sin_addr.s_addr == htonl(INADDR_ANY));
}

static bool listens_at(const sim_file *file, const struct sockaddr *address, socklen_t length) {
    const sim_socket *socket = (const sim_socket *)file;
    return file->kind == SIM_SOCKET && socket->state == SIM_LISTENING && same_address(socket, address, length);
}

/* Of several that share a port, who connects decides by a number of its own. */
static sim_socket *listener_at(sim_kernel *kernel, const struct sockaddr *address, socklen_t length, uint32_t hash) {
    sim_socket *found = NULL;
    uint32_t count = 0;
    for (sim_file *file = kernel->files; file; file = file->next) {
        if (!listens_at(file, address, length))
            continue;
        found = (sim_socket *)file;
        count++;
    }
    if (count < 2)
        return found;
    hash %= count;
    for (sim_file *file = kernel->files; file; file = file->next)
        if (listens_at(file, address, length) && hash-- == 0)
            return (sim_socket *)file;
    return NULL;
}

static bool port_is_taken(const sim_kernel *kernel, in_port_t port) {
    for (sim_file *file = kernel->files; file; file = file->next) {
        sim_socket *socket = sim_socket_of(file);
        in_port_t *mine = socket ? port_of(&socket->local) : NULL;
        if (mine && *mine == port)
            return true;
    }
    return false;
}

/* 0: all are taken. */
static in_port_t free_port(sim_kernel *kernel) {
    for (int tries = kernel->port_last - kernel->port_first; tries >= 0; tries--) {
        in_port_t port = htons(kernel->next_port);
        kernel->next_port = kernel->next_port < kernel->port_last ? kernel->next_port + 1 : kernel->port_first;
        if (!port_is_taken(kernel, port))
            return port;
    }
    return 0;
}

int sim_socket_bind(sim_socket *socket, const struct sockaddr *address, socklen_t length) {
    sim_kernel *kernel = socket->file.kernel;
    if (socket->bound || length > sizeof socket->local)
        return -EINVAL;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    if (address->sa_family == AF_INET && v4->sin_addr.s_addr != htonl(INADDR_ANY) &&
        ntohl(v4->sin_addr.s_addr) >> 24 != 127)
        return -EADDRNOTAVAIL; /* there is loopback alone */
    sim_socket *other = listener_at(kernel, address, length, 0);
    if (address->sa_family == AF_INET && v4->sin_port && ntohs(v4->sin_port) < 1024 && geteuid() != 0)
        return -EACCES;
    if (other && !(other->reuse_port && socket->reuse_port))
        return -EADDRINUSE;
    memcpy(&socket->local, address, length);
    socket->local_length = length;
    in_port_t *port = port_of(&socket->local);
    if (port && *port == 0 && !(*port = free_port(kernel)))
        return -EADDRINUSE;
    socket->bound = true;
    return 0;
}

/* ---- the end of a connection ---- */

static void socket_dies(sim_socket *socket, int error) {
    sim_kernel *kernel = socket->file.kernel;
    /* A reset may overtake bytes that were sent before it, but not those that an end has followed already. */
    if (!socket->end && socket->domain != AF_UNIX && kernel->config.odds.short_read && sim_chance(kernel, 500))
        socket->in.count = 0;
    socket->error = error;
    socket->state = SIM_DEAD;
    socket->end = true;
    kernel->stats.resets++;
    sim_file_changed(&socket->file);
}

static void connection_resets(sim_socket *socket) {
    sim_socket *peer = socket->peer;
    socket->peer = peer->peer = NULL;
    socket_dies(socket, ECONNRESET);
    socket_dies(peer, ECONNRESET);
}

static void backlog_resets(sim_socket *listener) {
    while (listener->backlog_head) {
        sim_socket *child = listener->backlog_head;
        listener->backlog_head = child->next_in_backlog;
        child->linger_reset = true;
        sim_file_release(&child->file);
    }
    listener->backlog_tail = NULL;
    listener->backlog_count = 0;
}

void sim_socket_released(sim_socket *socket) {
    if (socket->backlog_head)
        backlog_resets(socket);
    sim_socket *peer = socket->peer;
    if (peer) {
        peer->peer = NULL;
        if (socket->linger_reset || socket->in.count > 0) {
            socket_dies(peer, ECONNRESET);
        } else {
            peer->end = true;
            sim_file_changed(&peer->file);
        }
    }
    sim_queue_free(&socket->in);
    free(socket);
}

void sim_socket_shutdown(sim_socket *socket, int how) {
    if (socket->state == SIM_LISTENING) {
        socket->state = SIM_DEAD;
        backlog_resets(socket);
        sim_file_changed(&socket->file);
        return;
    }
    socket->shut_read |= how != SHUT_WR;
    if (how != SHUT_RD && !socket->shut_write) {
        socket->shut_write = true;
        if (socket->peer) {
            socket->peer->end = true;
            sim_file_changed(&socket->peer->file);
        }
    }
    sim_file_changed(&socket->file);
}

/* ---- bytes ---- */

static bool resets_by_chance(sim_socket *socket) {
    sim_kernel *kernel = socket->file.kernel;
    if (socket->state != SIM_CONNECTED || !socket->peer || socket->domain == AF_UNIX ||
        !sim_fault(kernel, kernel->config.odds.reset))
        return false;
    connection_resets(socket);
    return true;
}

static int take_error(sim_socket *socket) {
    int error = socket->error;
    socket->error = 0;
    return -error;
}

ssize_t sim_socket_receive(sim_socket *socket, void *bytes, size_t length, int flags) {
    sim_kernel *kernel = socket->file.kernel;
    if (socket->state == SIM_CONNECTING)
        return -EAGAIN;
    if (socket->state == SIM_UNCONNECTED || socket->state == SIM_LISTENING)
        return -ENOTCONN;
    resets_by_chance(socket);
    if (socket->in.count > 0) {
        size_t count = length < socket->in.count ? length : socket->in.count;
        count = sim_shortened(kernel, count, kernel->config.odds.short_read);
        sim_queue before = socket->in;
        sim_queue_take(&socket->in, bytes, count);
        if (flags & MSG_PEEK)
            socket->in = before;
        else if (socket->peer)
            sim_file_changed(&socket->peer->file);
        return (ssize_t)count;
    }
    if (socket->error)
        return take_error(socket);
    return socket->end || socket->shut_read ? 0 : -EAGAIN;
}

static size_t total_of(const struct iovec *vectors, size_t count) {
    size_t total = 0;
    for (size_t index = 0; index < count; index++)
        total += vectors[index].iov_len;
    return total;
}

static void put_vectors(sim_queue *queue, const struct iovec *vectors, size_t length) {
    for (size_t left = length; left > 0; vectors++) {
        size_t part = vectors->iov_len < left ? vectors->iov_len : left;
        sim_queue_put(queue, vectors->iov_base, part);
        left -= part;
    }
}

ssize_t sim_socket_send(sim_socket *socket, const struct iovec *vectors, size_t count) {
    sim_kernel *kernel = socket->file.kernel;
    resets_by_chance(socket);
    if (socket->error)
        return take_error(socket);
    if (socket->shut_write || socket->state == SIM_DEAD || socket->state == SIM_LISTENING)
        return -EPIPE;
    if (socket->state == SIM_CONNECTING)
        return -EAGAIN;
    if (socket->state == SIM_UNCONNECTED)
        return -ENOTCONN;
    size_t total = total_of(vectors, count);
    sim_socket *peer = socket->peer;
    if (!peer) {
        if (socket->domain == AF_UNIX)
            return -EPIPE;
        /* Nobody is there, but that is only learned by sending. */
        socket_dies(socket, socket->end ? EPIPE : ECONNRESET);
        return (ssize_t)total;
    }
    size_t room = sim_queue_room(&peer->in);
    if (room == 0)
        return -EAGAIN;
    size_t length = sim_shortened(kernel, total < room ? total : room, kernel->config.odds.short_write);
    if (!peer->shut_read)
        put_vectors(&peer->in, vectors, length);
    sim_file_changed(&peer->file);
    return (ssize_t)length;
}

uint32_t sim_socket_poll(sim_socket *socket) {
    switch (socket->state) {
    case SIM_LISTENING:
        return socket->backlog_head ? POLLIN : 0;
    case SIM_UNCONNECTED:
        return POLLOUT | POLLHUP;
    case SIM_CONNECTING:
        return 0;
    default:
        break;
    }
    uint32_t mask = 0;
    bool ended = socket->end || socket->shut_read;
    if (socket->in.count > 0 || ended || socket->error)
        mask |= POLLIN;
    if (socket->error || socket->shut_write || socket->state == SIM_DEAD || !socket->peer ||
        sim_queue_room(&socket->peer->in) > 0)
        mask |= POLLOUT;
    if (ended)
        mask |= POLLRDHUP;
    if (socket->state == SIM_DEAD || (ended && socket->shut_write))
        mask |= POLLHUP;
    if (socket->error)
        mask |= POLLERR;
    return mask;
}

/* ---- connecting and accepting ---- */

static bool has_room(const sim_socket *listener) { return listener->backlog_count < listener->backlog_max; }

static void socket_connects(sim_socket *socket, sim_socket *listener) {
    sim_socket *child = sim_socket_make(socket->file.kernel, socket->domain, false);
    sim_socket_join(socket, child);
    child->local = listener->local;
    child->local_length = listener->local_length;
    child->remote = socket->local;
    child->remote_length = socket->local_length;
    if (listener->backlog_tail)
        listener->backlog_tail->next_in_backlog = child;
    else
        listener->backlog_head = child;
    listener->backlog_tail = child;
    listener->backlog_count++;
    sim_file_changed(&listener->file);
}

static sim_socket *listener_of(const sim_socket *socket) {
    struct sockaddr_storage local = socket->local;
    in_port_t *port = port_of(&local);
    return listener_at(socket->file.kernel, (const struct sockaddr *)&socket->remote, socket->remote_length,
                       port ? ntohs(*port) : 0);
}

static bool is_given_up(const sim_socket *socket) {
    return socket->give_up_ns && sim_now(socket->file.kernel) >= socket->give_up_ns;
}

bool sim_socket_can_connect(const sim_socket *socket) {
    if (socket->state != SIM_CONNECTING)
        return false;
    if (is_given_up(socket))
        return true;
    sim_socket *listener = listener_of(socket);
    return socket->connect_error || !listener || has_room(listener);
}

bool sim_socket_progress(sim_socket *socket) {
    if (!sim_socket_can_connect(socket) || (socket->slow && sim_chance(socket->file.kernel, 700)))
        return false;
    sim_socket *listener = listener_of(socket);
    int error = socket->connect_error ? socket->connect_error
                : !listener           ? ECONNREFUSED
                : has_room(listener)  ? 0
                                      : ETIMEDOUT;
    if (error) {
        socket->error = error;
        socket->state = SIM_DEAD;
        socket->end = true;
    } else {
        socket_connects(socket, listener);
    }
    return true;
}

static int a_connect_error(sim_kernel *kernel) {
    static const int errors[] = {ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH};
    return errors[sim_below(kernel, sizeof errors / sizeof *errors)];
}

int sim_socket_connect(sim_socket *socket, const struct sockaddr *address, socklen_t length) {
    sim_kernel *kernel = socket->file.kernel;
    if (socket->state == SIM_CONNECTING)
        return -EALREADY;
    if (socket->state != SIM_UNCONNECTED)
        return socket->state == SIM_CONNECTED ? -EISCONN : -ECONNABORTED;
    if (length > sizeof socket->remote)
        return -EINVAL;
    memcpy(&socket->remote, address, length);
    socket->remote_length = length;
    if (socket->domain == AF_UNIX) {
        sim_socket *listener = listener_of(socket);
        if (!listener)
            return -ECONNREFUSED;
        if (!has_room(listener))
            return -EAGAIN;
        socket_connects(socket, listener);
        return 0;
    }
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    if (address->sa_family == AF_INET && v4->sin_addr.s_addr != htonl(INADDR_ANY) &&
        ntohl(v4->sin_addr.s_addr) >> 24 != 127)
        return -ENETUNREACH;
    if (!socket->bound) {
        struct sockaddr_storage any = {.ss_family = (sa_family_t)socket->domain};
        if (socket->domain == AF_INET)
            ((struct sockaddr_in *)&any)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        else
            ((struct sockaddr_in6 *)&any)->sin6_addr = in6addr_loopback;
        if (sim_socket_bind(socket, (struct sockaddr *)&any,
                            socket->domain == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6)) < 0)
            return -EADDRNOTAVAIL;
    }
    socket->state = SIM_CONNECTING;
    socket->connect_error = sim_fault(kernel, kernel->config.odds.connect_fails) ? a_connect_error(kernel) : 0;
    socket->slow = sim_chance(kernel, kernel->config.odds.slow_connect);
    /* First come, first served: a backlog that is full stays so for those who come later. */
    sim_socket *listener = listener_of(socket);
    if (listener && !socket->connect_error && !socket->slow && has_room(listener))
        socket_connects(socket, listener);
    return -EINPROGRESS;
}

static sim_socket *backlog_pop(sim_socket *listener) {
    sim_socket *child = listener->backlog_head;
    listener->backlog_head = child->next_in_backlog;
    if (!listener->backlog_head)
        listener->backlog_tail = NULL;
    child->next_in_backlog = NULL;
    listener->backlog_count--;
    return child;
}

int sim_socket_accept(sim_socket *listener, sim_socket **out) {
    sim_kernel *kernel = listener->file.kernel;
    if (listener->state != SIM_LISTENING)
        return -EINVAL;
    if (!listener->backlog_head)
        return -EAGAIN;
    /* Looked for first, so that the connection stays where it is if there is none. */
    if (sim_fd_free(kernel) < 0)
        return -EMFILE;
    if (sim_fault(kernel, kernel->config.odds.accept_fails)) {
        static const int errors[] = {ECONNABORTED, EPROTO, EMFILE, ENFILE, ENOBUFS, ENOMEM};
        int error = errors[sim_below(kernel, sizeof errors / sizeof *errors)];
        if (error == ECONNABORTED || error == EPROTO) {
            sim_socket *child = backlog_pop(listener);
            child->linger_reset = true;
            sim_file_release(&child->file);
        }
        return -error;
    }
    *out = backlog_pop(listener);
    return 0;
}
