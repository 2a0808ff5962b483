// SPDX-License-Identifier: Apache-2.0
/* socket_calls.c: the system calls on sockets, and those on any descriptor. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include "calls.h"

/* The socket behind a descriptor, its kernel locked; or NULL, with the answer given. */
static sim_socket *socket_call(int fd, sim_kernel **kernel) {
    *kernel = sim_enter_call(fd);
    if (!*kernel)
        return NULL;
    sim_file *file = sim_fd_file(fd);
    sim_socket *socket = sim_socket_of(file);
    if (!socket)
        sim_answer(*kernel, file ? -ENOTSOCK : -EBADF);
    return socket;
}

/* Calls that do not block are spared where peers share the kernel, because those need not know of EINTR. */
static bool interrupted(sim_kernel *kernel) {
    return !kernel->process_wide && sim_fault(kernel, kernel->config.odds.interrupted);
}

int sim_socket_call(int domain, int type) {
    sim_kernel *kernel = sim_enter_call(-1);
    sim_socket *socket = sim_socket_make(kernel, domain, type & SOCK_NONBLOCK);
    return (int)sim_answer(kernel, sim_fd_open(kernel, &socket->file, type & SOCK_CLOEXEC));
}

int sim_socketpair_call(int domain, int type, int fds[2]) {
    sim_kernel *kernel = sim_enter_call(-1);
    sim_socket *ends[2];
    int result[2];
    for (int end = 0; end < 2; end++)
        ends[end] = sim_socket_make(kernel, domain, type & SOCK_NONBLOCK);
    sim_socket_join(ends[0], ends[1]);
    for (int end = 0; end < 2; end++)
        result[end] = sim_fd_open(kernel, &ends[end]->file, type & SOCK_CLOEXEC);
    if (result[0] < 0 || result[1] < 0) {
        sim_fd_close(result[0]);
        sim_fd_close(result[1]);
        return (int)sim_answer(kernel, -EMFILE);
    }
    memcpy(fds, result, sizeof result);
    return (int)sim_answer(kernel, 0);
}

int sim_bind_call(int fd, const struct sockaddr *address, socklen_t length) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    return socket ? (int)sim_answer(kernel, sim_socket_bind(socket, address, length)) : -1;
}

int sim_listen_call(int fd, int backlog) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (socket->state != SIM_UNCONNECTED && socket->state != SIM_LISTENING)
        return (int)sim_answer(kernel, -EINVAL);
    if (!socket->bound) {
        struct sockaddr_in any = {.sin_family = AF_INET};
        sim_socket_bind(socket, (struct sockaddr *)&any, sizeof any);
    }
    socket->state = SIM_LISTENING;
    socket->backlog_max = backlog > 0 ? backlog + 1 : 1;
    return (int)sim_answer(kernel, 0);
}

int sim_accept_call(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    sim_kernel *kernel;
    sim_socket *listener = socket_call(fd, &kernel), *child;
    if (!listener)
        return -1;
    sim_progress(kernel);
    if (interrupted(kernel))
        return (int)sim_answer(kernel, -EINTR);
    int result;
    while ((result = sim_socket_accept(listener, &child)) == -EAGAIN && !listener->file.nonblocking) {
        if (!sim_sleep(kernel, SIM_NEVER_NS))
            break;
        sim_progress(kernel);
    }
    if (result < 0)
        return (int)sim_answer(kernel, result);
    child->file.nonblocking = flags & SOCK_NONBLOCK;
    if (address) {
        memcpy(address, &child->remote, *length < child->remote_length ? *length : child->remote_length);
        *length = child->remote_length;
    }
    return (int)sim_answer(kernel, sim_fd_open(kernel, &child->file, flags & SOCK_CLOEXEC));
}

int sim_connect_call(int fd, const struct sockaddr *address, socklen_t length) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    int result = sim_socket_connect(socket, address, length);
    while (result == -EINPROGRESS && !socket->file.nonblocking) {
        sim_progress(kernel);
        if (socket->state == SIM_CONNECTED) {
            result = 0;
        } else if (socket->state == SIM_DEAD) {
            result = -socket->error;
            socket->error = 0;
        } else if (!sim_sleep(kernel, SIM_NEVER_NS)) {
            break;
        }
    }
    return (int)sim_answer(kernel, result);
}

int sim_shutdown_call(int fd, int how) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    bool connected = socket->state == SIM_CONNECTED || socket->state == SIM_LISTENING;
    if (connected)
        sim_socket_shutdown(socket, how);
    return (int)sim_answer(kernel, connected ? 0 : -ENOTCONN);
}

/* Blocking calls end with EAGAIN at the socket's own timeout, as on Linux. */
static uint64_t deadline_of(sim_kernel *kernel, uint64_t timeout_ns) {
    return timeout_ns ? sim_now(kernel) + timeout_ns : SIM_NEVER_NS;
}

ssize_t sim_recv_call(int fd, void *bytes, size_t length, int flags) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (flags & MSG_DONTWAIT && interrupted(kernel))
        return sim_answer(kernel, -EINTR);
    uint64_t deadline_ns = deadline_of(kernel, socket->receive_timeout_ns);
    bool blocks = !socket->file.nonblocking && !(flags & MSG_DONTWAIT);
    ssize_t result, total = 0;
    for (;;) {
        result = sim_socket_receive(socket, (uint8_t *)bytes + total, length - (size_t)total, flags);
        if (result > 0)
            total += result;
        bool enough = result != -EAGAIN && (result <= 0 || !(flags & MSG_WAITALL) || (size_t)total == length);
        if (enough || !blocks || (result == -EAGAIN && !sim_sleep(kernel, deadline_ns)))
            break;
    }
    return sim_answer(kernel, total > 0 ? total : result);
}

ssize_t sim_sendmsg_call(int fd, const struct iovec *vectors, size_t count, int flags) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (flags & MSG_DONTWAIT && interrupted(kernel))
        return sim_answer(kernel, -EINTR);
    uint64_t deadline_ns = deadline_of(kernel, socket->send_timeout_ns);
    bool blocks = !socket->file.nonblocking && !(flags & MSG_DONTWAIT);
    if (!blocks)
        return sim_answer(kernel, sim_socket_send(socket, vectors, count));
    /* All of it goes out, however often that takes. */
    ssize_t total = 0;
    for (size_t index = 0; index < count; index++) {
        struct iovec rest = vectors[index];
        while (rest.iov_len > 0) {
            ssize_t result = sim_socket_send(socket, &rest, 1);
            if (result == -EAGAIN && sim_sleep(kernel, deadline_ns))
                continue;
            if (result < 0)
                return sim_answer(kernel, total > 0 ? total : result);
            rest = (struct iovec){(uint8_t *)rest.iov_base + result, rest.iov_len - (size_t)result};
            total += result;
        }
    }
    return sim_answer(kernel, total);
}

static int option_value(sim_socket *socket, int name) {
    switch (name) {
    case SO_TYPE:
        return SOCK_STREAM;
    case SO_DOMAIN:
        return socket->domain;
    case SO_ACCEPTCONN:
        return socket->state == SIM_LISTENING;
    case SO_ERROR: {
        int error = socket->error;
        socket->error = 0;
        return error;
    }
    case SO_RCVBUF:
    case SO_SNDBUF:
        return (int)socket->in.capacity;
    default:
        return 0;
    }
}

int sim_getsockopt_call(int fd, int level, int name, void *value, socklen_t *length) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (level == IPPROTO_TCP && name == TCP_INFO) {
        struct tcp_info info = {.tcpi_state = socket->state == SIM_DEAD ? TCP_CLOSE
                                              : socket->end             ? TCP_CLOSE_WAIT
                                                                        : TCP_ESTABLISHED};
        *length = *length < sizeof info ? *length : sizeof info;
        memcpy(value, &info, *length);
        return (int)sim_answer(kernel, 0);
    }
    int answer = level == SOL_SOCKET ? option_value(socket, name) : 1;
    memcpy(value, &answer, *length < sizeof answer ? *length : sizeof answer);
    return (int)sim_answer(kernel, 0);
}

static void set_capacity(sim_socket *socket, int wanted) {
    size_t capacity = wanted < 1024 ? 2048 : (size_t)wanted * 2;
    if (socket && socket->in.count == 0 && !socket->in.bytes)
        socket->in.capacity = capacity;
}

int sim_setsockopt_call(int fd, int level, int name, const void *value, socklen_t length) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (level == SOL_SOCKET && name == SO_LINGER && length >= sizeof(struct linger)) {
        const struct linger *linger = value;
        socket->linger_reset = linger->l_onoff && linger->l_linger == 0;
    } else if (level == SOL_SOCKET && (name == SO_RCVTIMEO || name == SO_SNDTIMEO)) {
        const struct timeval *time = value;
        uint64_t ns = (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_usec * 1000u;
        *(name == SO_RCVTIMEO ? &socket->receive_timeout_ns : &socket->send_timeout_ns) = ns;
    } else if (level == IPPROTO_TCP && name == TCP_USER_TIMEOUT) {
        socket->give_up_ns = sim_now(kernel) + (uint64_t) * (const unsigned *)value * 1000000u;
    } else if (level == SOL_SOCKET && name == SO_REUSEPORT) {
        socket->reuse_port = *(const int *)value != 0;
    } else if (level == SOL_SOCKET && name == SO_RCVBUF) {
        set_capacity(socket, *(const int *)value);
    } else if (level == SOL_SOCKET && name == SO_SNDBUF) {
        set_capacity(socket->peer, *(const int *)value);
    }
    return (int)sim_answer(kernel, 0);
}

int sim_getname_call(int fd, struct sockaddr *address, socklen_t *length, bool peer) {
    sim_kernel *kernel;
    sim_socket *socket = socket_call(fd, &kernel);
    if (!socket)
        return -1;
    if (peer && socket->state != SIM_CONNECTED)
        return (int)sim_answer(kernel, -ENOTCONN);
    const struct sockaddr_storage *name = peer ? &socket->remote : &socket->local;
    socklen_t size = peer ? socket->remote_length : socket->local_length;
    if (size == 0)
        size = sizeof(sa_family_t);
    memcpy(address, name, *length < size ? *length : size);
    address->sa_family = (sa_family_t)socket->domain;
    *length = size;
    return (int)sim_answer(kernel, 0);
}

/* ---- on any descriptor ---- */

int sim_close_call(int fd) {
    sim_kernel *kernel = sim_enter_call(fd);
    return kernel ? (int)sim_answer(kernel, sim_fd_close(fd)) : -1;
}

int sim_dup_call(int fd, int other, bool close_on_exec) {
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -1;
    sim_file *file = sim_fd_file(fd);
    if (!file || !sim_owns(other))
        return (int)sim_answer(kernel, -EBADF);
    if (fd == other)
        return (int)sim_answer(kernel, fd);
    sim_file_hold(file); /* the number may be the last one of what is closed now */
    sim_fd_close(other);
    int result = sim_fd_open_from(kernel, other, file, close_on_exec);
    return (int)sim_answer(kernel, result < 0 || result == other ? result : -EBADF);
}

int sim_fcntl_call(int fd, int command, long argument) {
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -1;
    sim_file *file = sim_fd_file(fd);
    if (!file)
        return (int)sim_answer(kernel, -EBADF);
    switch (command) {
    case F_GETFL:
        return (int)sim_answer(kernel, O_RDWR | (file->nonblocking ? O_NONBLOCK : 0));
    case F_SETFL:
        file->nonblocking = argument & O_NONBLOCK;
        return (int)sim_answer(kernel, 0);
    case F_GETFD:
        return (int)sim_answer(kernel, FD_CLOEXEC);
    case F_SETFD:
        return (int)sim_answer(kernel, 0);
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        sim_file_hold(file);
        return (int)sim_answer(kernel, sim_fd_open_from(kernel, (int)argument, file, command == F_DUPFD_CLOEXEC));
    default:
        return (int)sim_answer(kernel, -EINVAL);
    }
}

int sim_fstat_call(int fd, struct stat *status) {
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -1;
    sim_file *file = sim_fd_file(fd);
    if (!file)
        return (int)sim_answer(kernel, -EBADF);
    memset(status, 0, sizeof *status);
    status->st_mode = file->kind == SIM_SOCKET ? S_IFSOCK : file->kind == SIM_PIPE ? S_IFIFO : 0600;
    return (int)sim_answer(kernel, 0);
}

int sim_poll_call(struct pollfd *polls, nfds_t count, int timeout_ms) {
    sim_kernel *kernel = sim_enter_call(count ? polls[0].fd : -1);
    if (!kernel)
        return -1;
    bool forever = timeout_ms < 0 || (!kernel->process_wide && timeout_ms >= SIM_NEVER_MS);
    uint64_t deadline_ns = forever ? SIM_NEVER_NS : sim_now(kernel) + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        int ready = 0;
        sim_progress(kernel);
        for (nfds_t index = 0; index < count; index++) {
            sim_file *file = sim_fd_file(polls[index].fd);
            uint32_t mask = file ? sim_file_poll(file) : POLLNVAL;
            polls[index].revents = (short)(mask & ((uint32_t)polls[index].events | POLLERR | POLLHUP | POLLNVAL));
            ready += polls[index].revents != 0;
        }
        if (ready > 0 || timeout_ms == 0 || !sim_sleep(kernel, deadline_ns))
            return (int)sim_answer(kernel, ready);
    }
}

int sim_clock_call(struct timespec *now) {
    sim_kernel *kernel = sim_current();
    pthread_mutex_lock(&kernel->lock);
    uint64_t now_ns = sim_now(kernel);
    if (!kernel->frozen)
        sim_progress(kernel); /* what takes time has had some, even if nobody enters the kernel */
    pthread_mutex_unlock(&kernel->lock);
    *now = (struct timespec){.tv_sec = (time_t)(now_ns / 1000000000u), .tv_nsec = (long)(now_ns % 1000000000u)};
    return 0;
}
