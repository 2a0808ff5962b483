// SPDX-License-Identifier: Apache-2.0
/* pipe.c: calls on the ends of pipes, and on what is used as one. No loop here. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "internal.h"
#include "lc_pipe.h"

int lc_pipe_make(int *read_end, int *write_end) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    *read_end = ends[0];
    *write_end = ends[1];
    return 0;
}

int lc_pipe_kind_of(int fd, bool write) {
    struct stat status;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode))
        return -EPERM;
    if ((flags & O_ACCMODE) == (write ? O_RDONLY : O_WRONLY) || flags & O_PATH)
        return -EINVAL;
    if (S_ISFIFO(status.st_mode))
        return LC_PIPE_FIFO;
    if (S_ISSOCK(status.st_mode))
        return LC_PIPE_SOCKET;
    return S_ISCHR(status.st_mode) ? LC_PIPE_DEVICE : -EINVAL;
}

int lc_pipe_prepare(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

ptrdiff_t lc_pipe_read(int fd, lc_pipe_kind kind, void *bytes, size_t length) {
    ssize_t got;
    do
        got = read(fd, bytes, length);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        return got;
    return errno == EIO && kind == LC_PIPE_DEVICE ? 0 : -errno;
}

/* write(2) has no MSG_NOSIGNAL. So the signal is blocked for the length of the call, and the one that it raised, which
 * goes to this thread, is taken away again; one that was pending before is left alone. */
static ssize_t lc__write_without_signal(int fd, const void *bytes, size_t length) {
    sigset_t pipe_signal, before, pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigemptyset(&pending);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    bool blocked = sigismember(&before, SIGPIPE) == 1;
    if (blocked)
        sigpending(&pending);
    ssize_t result = write(fd, bytes, length);
    int error = errno;
    if (result < 0 && error == EPIPE && sigismember(&pending, SIGPIPE) != 1)
        while (sigtimedwait(&pipe_signal, NULL, &(struct timespec){0}) < 0 && errno == EINTR)
            ;
    if (!blocked)
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return result;
}

ptrdiff_t lc_pipe_write(int fd, lc_pipe_kind kind, const void *bytes, size_t length) {
    ssize_t written;
    do
        written = kind == LC_PIPE_SOCKET ? send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT)
                                         : lc__write_without_signal(fd, bytes, length);
    while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : written;
}

bool lc_pipe_reader_left(int fd) {
    struct pollfd look = {.fd = fd, .events = POLLRDHUP};
    return poll(&look, 1, 0) == 1 && look.revents & (POLLERR | POLLHUP | POLLRDHUP);
}
