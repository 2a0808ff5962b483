// SPDX-License-Identifier: Apache-2.0
/* datagram_socket.c: cold calls of datagram sockets: making, binding and naming them, groups. No loop here. */
#include <netinet/in.h>
#include <unistd.h>
#include "internal.h"

/* ---- making ---- */

static int lc__set(int fd, int level, int option, int value) {
    return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

void lc_datagram_discard(int fd, const lc_address *local) {
    lc_socket_file file = {0};
    if (local)
        lc_socket_file_note(&file, local);
    lc_socket_file_remove(&file);
    close(fd);
}

int lc_datagram_open(const lc_address *local, const lc_address *remote, const lc_datagram_setup *setup, int *out_fd) {
    int family = (local ? local : remote)->storage.ss_family;
    int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    int result = 0;
    if (setup->reuse_port)
        result = lc__set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (result == 0 && setup->broadcast)
        result = lc__set(fd, SOL_SOCKET, SO_BROADCAST, 1);
    if (result == 0 && setup->receive_buffer)
        result = lc__set(fd, SOL_SOCKET, SO_RCVBUF, setup->receive_buffer);
    if (result == 0 && setup->send_buffer)
        result = lc__set(fd, SOL_SOCKET, SO_SNDBUF, setup->send_buffer);
    if (result == 0 && family == AF_INET6)
        result = lc__set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (result == 0 && local)
        result = lc__bind(fd, local);
    if (result == 0 && remote && setup->connect &&
        connect(fd, (const struct sockaddr *)&remote->storage, remote->length) < 0) {
        result = -errno;
        lc_datagram_discard(fd, local);
        return result;
    }
    if (result < 0)
        close(fd);
    else
        *out_fd = fd;
    return result;
}

/* ---- groups ---- */

static int lc__datagram_family(int fd) {
    int family;
    socklen_t size = sizeof family;
    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 ? -errno : family;
}

static int lc__interface_v4(const lc_address *interface, uint32_t number, struct ip_mreqn *out) {
    if (number > INT32_MAX || (interface && interface->storage.ss_family != AF_INET))
        return -EINVAL;
    if (interface)
        out->imr_address = ((const struct sockaddr_in *)&interface->storage)->sin_addr;
    out->imr_ifindex = (int)number;
    return 0;
}

int lc_datagram_membership(int fd, bool join, const lc_address *group, const lc_address *interface, uint32_t number) {
    int family = lc__datagram_family(fd);
    if (family < 0)
        return family;
    if (group->storage.ss_family != family)
        return -EAFNOSUPPORT;
    if (family == AF_INET) {
        struct ip_mreqn request = {.imr_multiaddr = ((const struct sockaddr_in *)&group->storage)->sin_addr};
        int result = lc__interface_v4(interface, number, &request);
        if (result < 0)
            return result;
        int option = join ? IP_ADD_MEMBERSHIP : IP_DROP_MEMBERSHIP;
        return setsockopt(fd, IPPROTO_IP, option, &request, sizeof request) < 0 ? -errno : 0;
    }
    if (family != AF_INET6 || interface)
        return -EINVAL;
    struct ipv6_mreq request = {.ipv6mr_multiaddr = ((const struct sockaddr_in6 *)&group->storage)->sin6_addr,
                                .ipv6mr_interface = number};
    int option = join ? IPV6_ADD_MEMBERSHIP : IPV6_DROP_MEMBERSHIP;
    return setsockopt(fd, IPPROTO_IPV6, option, &request, sizeof request) < 0 ? -errno : 0;
}

int lc_datagram_multicast_interface(int fd, const lc_address *interface, uint32_t number) {
    int family = lc__datagram_family(fd);
    if (family < 0)
        return family;
    if (family == AF_INET) {
        struct ip_mreqn request = {0};
        int result = lc__interface_v4(interface, number, &request);
        if (result < 0)
            return result;
        return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &request, sizeof request) < 0 ? -errno : 0;
    }
    if (family != AF_INET6 || interface || number > INT32_MAX)
        return -EINVAL;
    return lc__set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)number);
}

int lc_datagram_set_multicast(int fd, lc_multicast option, int value) {
    int family = lc__datagram_family(fd);
    if (family < 0)
        return family;
    bool loop = option == LC_MULTICAST_LOOP;
    if (family == AF_INET)
        return lc__set(fd, IPPROTO_IP, loop ? IP_MULTICAST_LOOP : IP_MULTICAST_TTL, value);
    if (family == AF_INET6)
        return lc__set(fd, IPPROTO_IPV6, loop ? IPV6_MULTICAST_LOOP : IPV6_MULTICAST_HOPS, value);
    return -EAFNOSUPPORT;
}
