// SPDX-License-Identifier: Apache-2.0
/* socket.c: system calls on sockets that the caller drives. No loop here, and no memory of its own. */
#include <pthread.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"

int lc_socket_prepare(int fd) {
    int domain;
    return lc__socket_take_over(fd, SOCK_STREAM, &domain);
}

int lc_socket_pair(int fds[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0 ? -errno : 0;
}

int lc_socket_bind_to(int fd, const lc_address *address) {
    int one = 1;
    if (address->storage.ss_family != AF_UNIX && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
        return -errno;
    return bind(fd, (const struct sockaddr *)&address->storage, address->length) < 0 ? -errno : 0;
}

ptrdiff_t lc_socket_receive(int fd, void *bytes, size_t length) {
    ssize_t result;
    do
        result = recv(fd, bytes, length, MSG_DONTWAIT);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

ptrdiff_t lc_socket_send(int fd, const void *bytes, size_t length) {
    ssize_t result;
    do
        result = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int lc_socket_connect(int fd, const lc_address *address) {
    if (connect(fd, (const struct sockaddr *)&address->storage, address->length) == 0)
        return 0;
    return errno == EINTR ? -EINPROGRESS : -errno; /* interrupted, it goes on by itself */
}

int lc_socket_error(int fd) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? -errno : -error;
}

int lc_socket_accept(int fd, lc_address *peer) {
    while (true) {
        peer->length = sizeof peer->storage;
        int accepted = accept4(fd, (struct sockaddr *)&peer->storage, &peer->length, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0)
            return accepted;
        if (errno != EINTR && errno != ECONNABORTED)
            return -errno;
    }
}

ptrdiff_t lc_socket_send_file(int fd, int file, int64_t *offset, size_t count) {
    off_t at = (off_t)*offset;
    ssize_t result;
    /* sendfile has no MSG_NOSIGNAL: the signal of a broken pipe is held back, and taken away if it is this call's. */
    sigset_t broken, before, pending;
    sigemptyset(&broken);
    sigaddset(&broken, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &broken, &before);
    do
        result = sendfile(fd, file, &at, count);
    while (result < 0 && errno == EINTR);
    int error = errno;
    if (result < 0 && error == EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&broken, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result < 0)
        return -error;
    *offset = at;
    return result;
}

/* ---- descriptors in messages ---- */

/* Room for one header with as many descriptors as the kernel passes at once. */
typedef union lc__rights {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(LC_DESCRIPTORS_MAX * sizeof(int))];
} lc__rights;

ptrdiff_t lc_socket_send_descriptors(int fd, const void *bytes, size_t length, const int *fds, size_t count) {
    if (length == 0 || count == 0 || count > LC_DESCRIPTORS_MAX)
        return -EINVAL;
    lc__rights rights = {0};
    struct iovec vector = {(void *)(uintptr_t)bytes, length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &rights};
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
    ssize_t result;
    do
        result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

ptrdiff_t lc_socket_receive_descriptors(int fd, void *bytes, size_t length, int *fds, size_t *count, bool *truncated) {
    size_t room = *count < LC_DESCRIPTORS_MAX ? *count : LC_DESCRIPTORS_MAX, got = 0;
    *count = 0;
    *truncated = false;
    lc__rights rights;
    struct iovec vector = {bytes, length};
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &rights};
    /* Not CMSG_SPACE: the kernel would put one more descriptor into the padding behind an odd number of them. */
    message.msg_controllen = CMSG_LEN(room * sizeof(int));
    ssize_t result;
    do
        result = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (result < 0 && errno == EINTR);
    if (result < 0)
        return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t passed = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t index = 0; index < passed; index++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + index * sizeof descriptor, sizeof descriptor);
            if (got < room) {
                fds[got++] = descriptor;
            } else {
                close(descriptor);
                *truncated = true;
            }
        }
    }
    *count = got;
    *truncated |= (message.msg_flags & MSG_CTRUNC) != 0;
    return result;
}
