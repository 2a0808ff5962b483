// SPDX-License-Identifier: Apache-2.0
/* net.c: cold socket calls: addresses, listening sockets. No loop here. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "internal.h"

/* The zone of an IPv6 address as a number, which needs no look at the interfaces; names are the resolver's business. */
static int lc__zone_parse(const char *text, uint32_t *out) {
    uint64_t zone = 0;
    size_t count = strspn(text, "0123456789");
    if (count == 0 || count > 10 || text[count])
        return -EINVAL;
    for (; *text; text++)
        zone = zone * 10 + (uint64_t)(*text - '0');
    *out = (uint32_t)zone;
    return zone > 0 && zone <= UINT32_MAX ? 0 : -EINVAL;
}

static int lc__ipv6_parse(const char *host, struct sockaddr_in6 *out) {
    char plain[INET6_ADDRSTRLEN];
    size_t length = strcspn(host, "%");
    if (length >= sizeof plain || (host[length] && lc__zone_parse(host + length + 1, &out->sin6_scope_id) < 0))
        return -EINVAL;
    memcpy(plain, host, length);
    plain[length] = '\0';
    return inet_pton(AF_INET6, plain, &out->sin6_addr) == 1 ? 0 : -EINVAL;
}

static int lc__ipv6_format(const struct sockaddr_in6 *address, char *text, size_t size) {
    if (!inet_ntop(AF_INET6, &address->sin6_addr, text, (socklen_t)size))
        return -errno;
    if (!address->sin6_scope_id)
        return ntohs(address->sin6_port);
    size_t length = strlen(text);
    int zone = snprintf(text + length, size - length, "%%%u", address->sin6_scope_id);
    return (size_t)zone < size - length ? ntohs(address->sin6_port) : -ENOSPC;
}

int lc_address_parse(const char *host, uint16_t port, lc_address *out) {
    memset(out, 0, sizeof *out);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->storage;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->storage;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        out->length = sizeof *v4;
        return 0;
    }
    if (lc__ipv6_parse(host, v6) == 0) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        out->length = sizeof *v6;
        return 0;
    }
    return -EINVAL;
}

int lc_address_format(const lc_address *address, char *text, size_t size) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;
    switch (address->storage.ss_family) {
    case AF_INET:
        return inet_ntop(AF_INET, &v4->sin_addr, text, (socklen_t)size) ? ntohs(v4->sin_port) : -errno;
    case AF_INET6:
        return lc__ipv6_format(v6, text, size);
    default:
        return -EAFNOSUPPORT;
    }
}

int lc_address_local(int fd, lc_address *out) {
    out->length = sizeof out->storage;
    return getsockname(fd, (struct sockaddr *)&out->storage, &out->length) < 0 ? -errno : 0;
}

int lc_address_peer(int fd, lc_address *out) {
    out->length = sizeof out->storage;
    return getpeername(fd, (struct sockaddr *)&out->storage, &out->length) < 0 ? -errno : 0;
}

int lc__descriptor_take_over(int fd) {
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

int lc__socket_take_over(int fd, int type, int *domain) {
    int actual, one = 1;
    socklen_t size = sizeof actual;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &actual, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, domain, &size) < 0)
        return -errno;
    if (actual != type)
        return -EPROTOTYPE;
    int result = lc__descriptor_take_over(fd);
    if (result == 0 && type == SOCK_STREAM && *domain != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return result;
}

int lc_socket_open(int family, bool delay, int *out_fd) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int one = 1;
    if (family != AF_UNIX && !delay)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *out_fd = fd;
    return 0;
}

int lc_socket_bind_local(int fd, const lc_address *address) {
    int one = 1;
    /* With port 0 the kernel picks one when it connects, and then by both ends: far more fit. */
    if (address->storage.ss_family != AF_UNIX)
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    return bind(fd, (const struct sockaddr *)&address->storage, address->length) < 0 ? -errno : 0;
}

static int lc__set(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

int lc_socket_keep_alive(int fd, const lc_keep_alive *timing) {
    int result = lc__set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (result == 0 && timing->idle_s)
        result = lc__set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)timing->idle_s);
    if (result == 0 && timing->interval_s)
        result = lc__set(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)timing->interval_s);
    if (result == 0 && timing->probe_count)
        result = lc__set(fd, IPPROTO_TCP, TCP_KEEPCNT, (int)timing->probe_count);
    return result;
}

static int lc__set_listen_options(int fd, int family, const lc_listen_options *options) {
    int result = lc__set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (result == 0 && options->reuse_port)
        result = lc__set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    /* Linux hands this on to accepted sockets, which saves a system call for each. */
    if (result == 0 && !options->delay)
        result = lc__set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (result == 0 && options->keep_alive)
        result = lc_socket_keep_alive(fd, &options->timing);
    if (result == 0 && family == AF_INET6)
        result = lc__set(fd, IPPROTO_IPV6, IPV6_V6ONLY, !options->both_families);
    return result;
}

int lc_socket_bind(const lc_address *address, const lc_listen_options *options, int *out_fd) {
    int family = address->storage.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int result = family == AF_UNIX ? 0 : lc__set_listen_options(fd, family, options);
    if (result == 0)
        result = lc__bind(fd, address);
    if (result < 0)
        close(fd);
    else
        *out_fd = fd;
    return result;
}

int lc_socket_start_listening(int fd, int backlog) { return listen(fd, backlog) < 0 ? -errno : 0; }

int lc_socket_listen(const lc_address *address, int backlog, bool reuse_port, int *out_fd) {
    int fd;
    int result = lc_socket_bind(address, &(lc_listen_options){.reuse_port = reuse_port}, &fd);
    if (result == 0 && (result = lc_socket_start_listening(fd, backlog)) < 0)
        close(fd);
    if (result == 0)
        *out_fd = fd;
    return result;
}

/* sendfile has no MSG_NOSIGNAL: the signal is held back, and taken away if it came of this call. */
ssize_t lc_send_file(int fd, int file, int64_t *offset, size_t count) {
    sigset_t mask, before, pending;
    sigemptyset(&mask);
    sigaddset(&mask, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    off_t at = (off_t)*offset;
    ssize_t sent = sendfile(fd, file, &at, count);
    int error = sent < 0 ? errno : 0;
    *offset = at;
    if (error == EPIPE && !sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&mask, NULL, &(struct timespec){0}) < 0 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error ? -error : sent;
}
