// SPDX-License-Identifier: Apache-2.0
/* interpose.c: the functions of the C library that the core and libev call, defined anew for the test executable.
 *
 * Each goes on to the sanitizer's interceptor where there is one, else into the kernel directly, or to the allocator by
 * its inner name: looking up the next definition would allocate, and these run before anything is set up. Without a
 * plan each costs one look at a thread-local. */
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include "shim_internal.h"

/* ---- sockets ---- */

SHIM_INTERCEPTED(int, socket, (int domain, int type, int protocol)) {
    int error = shim_refused(SHIM_SOCKET);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE_NEW(socket, (domain, type, protocol))
    return SHIM_REAL(socket, (domain, type, protocol), (int)syscall(SYS_socket, domain, type, protocol));
}

SHIM_INTERCEPTED(int, bind, (int fd, const struct sockaddr *address, socklen_t length)) {
    int error = shim_refused(SHIM_BIND);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, bind, (fd, address, length))
    return SHIM_REAL(bind, (fd, address, length), (int)syscall(SYS_bind, fd, address, length));
}

SHIM_INTERCEPTED(int, listen, (int fd, int backlog)) {
    int error = shim_refused(SHIM_LISTEN);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, listen, (fd, backlog))
    return SHIM_REAL(listen, (fd, backlog), (int)syscall(SYS_listen, fd, backlog));
}

SHIM_INTERCEPTED(int, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags)) {
    int error = shim_refused(SHIM_ACCEPT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, accept4, (fd, address, length, flags))
    return SHIM_REAL(accept4, (fd, address, length, flags), (int)syscall(SYS_accept4, fd, address, length, flags));
}

SHIM_INTERCEPTED(int, connect, (int fd, const struct sockaddr *address, socklen_t length)) {
    int error = shim_refused(SHIM_CONNECT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, connect, (fd, address, length))
    return SHIM_REAL(connect, (fd, address, length), (int)syscall(SYS_connect, fd, address, length));
}

SHIM_INTERCEPTED(int, shutdown, (int fd, int how)) {
    int error = shim_refused(SHIM_SHUTDOWN);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, shutdown, (fd, how))
    return SHIM_REAL(shutdown, (fd, how), (int)syscall(SYS_shutdown, fd, how));
}

SHIM_INTERCEPTED(int, close, (int fd)) {
    int error = shim_refused(SHIM_CLOSE);
    int result = sim_owns(fd) ? sim_route_close(fd) : SHIM_REAL(close, (fd), (int)syscall(SYS_close, fd));
    return error ? shim_fail(error) : result;
}

SHIM_INTERCEPTED(int, getsockopt, (int fd, int level, int option, void *value, socklen_t *length)) {
    int error = shim_refused(SHIM_GETSOCKOPT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, getsockopt, (fd, level, option, value, length))
    return SHIM_REAL(getsockopt, (fd, level, option, value, length),
                     (int)syscall(SYS_getsockopt, fd, level, option, value, length));
}

SHIM_INTERCEPTED(int, setsockopt, (int fd, int level, int option, const void *value, socklen_t length)) {
    int error = shim_refused(SHIM_SETSOCKOPT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, setsockopt, (fd, level, option, value, length))
    return SHIM_REAL(setsockopt, (fd, level, option, value, length),
                     (int)syscall(SYS_setsockopt, fd, level, option, value, length));
}

/* ---- bytes ---- */

SHIM_INTERCEPTED(ssize_t, recv, (int fd, void *bytes, size_t length, int flags)) {
    int error = shim_refused_or_shortened(SHIM_RECV, &length);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, recv, (fd, bytes, length, flags))
    return SHIM_REAL(recv, (fd, bytes, length, flags), syscall(SYS_recvfrom, fd, bytes, length, flags, NULL, NULL));
}

SHIM_INTERCEPTED(ssize_t, send, (int fd, const void *bytes, size_t length, int flags)) {
    int error = shim_refused_or_shortened(SHIM_SEND, &length);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, send, (fd, bytes, length, flags))
    return SHIM_REAL(send, (fd, bytes, length, flags), syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0));
}

SHIM_UNTOUCHED size_t shim_cut_message(struct msghdr *message, size_t length) {
    size_t kept = 0;
    for (; kept < message->msg_iovlen && length > 0; kept++) {
        struct iovec *vector = &message->msg_iov[kept];
        vector->iov_len = vector->iov_len < length ? vector->iov_len : length;
        length -= vector->iov_len;
    }
    message->msg_iovlen = kept;
    return kept;
}

SHIM_UNTOUCHED static size_t message_length(const struct msghdr *message) {
    size_t length = 0;
    for (size_t index = 0; index < message->msg_iovlen; index++)
        length += message->msg_iov[index].iov_len;
    return length;
}

SHIM_INTERCEPTED(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags)) {
    enum { VECTORS_MAX = 256 };
    struct msghdr cut = *message;
    struct iovec vectors[VECTORS_MAX];
    if (shim_this.armed) {
        size_t whole = message_length(message), length = whole;
        int error = shim_refused_or_shortened(SHIM_SEND, &length);
        if (error)
            return shim_fail(error);
        if (length < whole) {
            cut.msg_iovlen = cut.msg_iovlen < VECTORS_MAX ? cut.msg_iovlen : VECTORS_MAX;
            memcpy(vectors, message->msg_iov, cut.msg_iovlen * sizeof *vectors);
            cut.msg_iov = vectors;
            shim_cut_message(&cut, length);
        }
    }
    SHIM_ROUTE(fd, sendmsg, (fd, &cut, flags))
    return SHIM_REAL(sendmsg, (fd, &cut, flags), syscall(SYS_sendmsg, fd, &cut, flags));
}

SHIM_INTERCEPTED(ssize_t, read, (int fd, void *bytes, size_t length)) {
    size_t told = length;
    int error = shim_refused_or_shortened(SHIM_READ, &told);
    if (error)
        return shim_fail(error);
    ssize_t result = sim_owns(fd) ? sim_route_read(fd, bytes, length)
                                  : SHIM_REAL(read, (fd, bytes, length), syscall(SYS_read, fd, bytes, length));
    return result > (ssize_t)told ? (ssize_t)told : result;
}

SHIM_INTERCEPTED(ssize_t, write, (int fd, const void *bytes, size_t length)) {
    int error = shim_refused_or_shortened(SHIM_WRITE, &length);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, write, (fd, bytes, length))
    return SHIM_REAL(write, (fd, bytes, length), syscall(SYS_write, fd, bytes, length));
}

/* ---- waking, waiting ---- */

SHIM_INTERCEPTED(int, eventfd, (unsigned count, int flags)) {
    int error = shim_refused(SHIM_EVENTFD);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE_NEW(eventfd, (count, flags))
    return SHIM_REAL(eventfd, (count, flags), (int)syscall(SYS_eventfd2, count, flags));
}

SHIM_INTERCEPTED(int, timerfd_create, (int clock, int flags)) {
    int error = shim_refused(SHIM_TIMERFD_CREATE);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE_NEW(timerfd_create, (clock, flags))
    return SHIM_REAL(timerfd_create, (clock, flags), (int)syscall(SYS_timerfd_create, clock, flags));
}

SHIM_INTERCEPTED(int, timerfd_settime, (int fd, int flags, const struct itimerspec *value, struct itimerspec *before)) {
    int error = shim_refused(SHIM_TIMERFD_SETTIME);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, timerfd_settime, (fd, flags, value, before))
    return SHIM_REAL(timerfd_settime, (fd, flags, value, before),
                     (int)syscall(SYS_timerfd_settime, fd, flags, value, before));
}

SHIM_INTERCEPTED(int, epoll_create1, (int flags)) {
    int error = shim_refused(SHIM_EPOLL_CREATE);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE_NEW(epoll_create1, (flags))
    return SHIM_REAL(epoll_create1, (flags), (int)syscall(SYS_epoll_create1, flags));
}

/* libev's second try, where the first is not known. */
SHIM_INTERCEPTED(int, epoll_create, (int size)) {
    int error = size <= 0 ? EINVAL : shim_refused(SHIM_EPOLL_CREATE);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE_NEW(epoll_create1, (0))
    return SHIM_REAL(epoll_create, (size), (int)syscall(SYS_epoll_create1, 0));
}

SHIM_INTERCEPTED(int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event)) {
    int error = shim_refused(SHIM_EPOLL_CTL);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(epoll, epoll_ctl, (epoll, operation, fd, event))
    return SHIM_REAL(epoll_ctl, (epoll, operation, fd, event),
                     (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event));
}

SHIM_INTERCEPTED(int, epoll_wait, (int epoll, struct epoll_event *events, int count, int timeout_ms)) {
    int error = shim_refused(SHIM_EPOLL_WAIT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(epoll, epoll_wait, (epoll, events, count, timeout_ms))
    return SHIM_REAL(epoll_wait, (epoll, events, count, timeout_ms),
                     (int)syscall(SYS_epoll_pwait, epoll, events, count, timeout_ms, NULL, 0));
}

/* ---- descriptors and memory ---- */

SHIM_FUNCTION(int, fcntl, (int fd, int command, ...)) {
    va_list arguments;
    va_start(arguments, command);
    uintptr_t argument = va_arg(arguments, uintptr_t);
    va_end(arguments);
    int error = shim_refused(SHIM_FCNTL);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, fcntl, (fd, command, argument))
    return (int)syscall(SYS_fcntl, fd, command, argument);
}

SHIM_INTERCEPTED(int, fstat, (int fd, struct stat *status)) {
    int error = shim_refused(SHIM_FSTAT);
    if (error)
        return shim_fail(error);
    SHIM_ROUTE(fd, fstat, (fd, status))
    return SHIM_REAL(fstat, (fd, status), fstatat(fd, "", status, AT_EMPTY_PATH));
}

SHIM_INTERCEPTED(void *, mmap, (void *address, size_t length, int protection, int flags, int fd, off_t offset)) {
    int error = shim_refused(SHIM_MMAP);
    if (error) {
        errno = error;
        return MAP_FAILED;
    }
    SHIM_ROUTE(fd, mmap, (address, length, protection, flags, fd, offset))
    return SHIM_REAL(mmap, (address, length, protection, flags, fd, offset),
                     (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset));
}

/* ---- the allocator ---- */

#if !SHIM_TSAN

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* LeakSanitizer forgives the dynamic linker its allocations, by who called the allocator: no frame may lie between. */
#if defined(__has_attribute)
#if __has_attribute(musttail)
#define GO_ON(name, arguments, otherwise)                                                                              \
    if (___interceptor_##name)                                                                                         \
        __attribute__((musttail)) return ___interceptor_##name arguments;                                              \
    __attribute__((musttail)) return otherwise
#endif
#endif
#ifndef GO_ON
#define GO_ON(name, arguments, otherwise) return SHIM_REAL(name, arguments, otherwise)
#endif

/* Pinned here: the compiler would look for it where it moves the unlikely part of the function to. */
#define CALLER_IS(name)                                                                                                \
    const void *name = __builtin_return_address(0);                                                                    \
    __asm__ volatile("" : "+r"(name))

SHIM_UNTOUCHED static bool allocation_refused(const void *caller) {
    if (__builtin_expect(!shim_this.armed, true))
        return false;
    int error = shim_refused(shim_is_libev(caller) ? SHIM_EV_ALLOCATE : SHIM_ALLOCATE);
    if (error)
        errno = ENOMEM;
    return error != 0;
}

SHIM_INTERCEPTED(void *, malloc, (size_t size)) {
    CALLER_IS(caller);
    if (allocation_refused(caller))
        return NULL;
    GO_ON(malloc, (size), __libc_malloc(size));
}

SHIM_INTERCEPTED(void *, calloc, (size_t count, size_t size)) {
    CALLER_IS(caller);
    if (allocation_refused(caller))
        return NULL;
    GO_ON(calloc, (count, size), __libc_calloc(count, size));
}

SHIM_INTERCEPTED(void *, realloc, (void *memory, size_t size)) {
    CALLER_IS(caller);
    if (allocation_refused(caller))
        return NULL;
    GO_ON(realloc, (memory, size), __libc_realloc(memory, size));
}

SHIM_UNTOUCHED static int aligned(void **out, size_t alignment, size_t size) {
    void *memory = __libc_memalign(alignment, size);
    if (!memory)
        return ENOMEM;
    *out = memory;
    return 0;
}

SHIM_INTERCEPTED(int, posix_memalign, (void **out, size_t alignment, size_t size)) {
    if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
        return EINVAL;
    CALLER_IS(caller);
    if (allocation_refused(caller))
        return ENOMEM;
    GO_ON(posix_memalign, (out, alignment, size), aligned(out, alignment, size));
}

#endif
