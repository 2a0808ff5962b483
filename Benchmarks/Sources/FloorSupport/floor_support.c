// SPDX-License-Identifier: Apache-2.0
/* floor_support.c: arguments, the listening socket and the lines a floor prints. */
#include "floor_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

static _Noreturn void usage(const char *program) {
    fprintf(stderr, "usage: %s [--port N]\n", program);
    exit(64);
}

uint16_t floor_port_from_arguments(int argument_count, char **arguments) {
    if (argument_count == 1)
        return 0;
    if (argument_count != 3 || strcmp(arguments[1], "--port") != 0)
        usage(arguments[0]);

    char *end = NULL;
    unsigned long port = strtoul(arguments[2], &end, 10);
    if (end == arguments[2] || *end != '\0' || port > UINT16_MAX)
        usage(arguments[0]);
    return (uint16_t)port;
}

int floor_listen(uint16_t port, int type_flags) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | type_flags, 0);
    if (listener < 0)
        floor_fail("socket", errno);

    int on = 1;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        floor_fail("SO_REUSEADDR", errno);
    if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        floor_fail("TCP_NODELAY", errno);

    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0)
        floor_fail("bind", errno);
    if (listen(listener, SOMAXCONN) < 0)
        floor_fail("listen", errno);
    return listener;
}

void floor_announce(int listener) {
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        floor_fail("getsockname", errno);
    printf("listening on 127.0.0.1:%u\n", ntohs(address.sin_port));
    fflush(stdout);
}

void floor_farewell(const struct floor_counts *counts) {
    struct rusage used = {0};
    (void)getrusage(RUSAGE_SELF, &used);
    printf("served %" PRIu64 " requests, %" PRIu64 " kernel entries\n", counts->requests, counts->calls);
    printf("statistics ticks=%" PRIu64 " entries=%" PRIu64 " completions=%" PRIu64
           " voluntary-switches=%ld involuntary-switches=%ld\n",
           counts->ticks, counts->entries, counts->completions, used.ru_nvcsw, used.ru_nivcsw);
    fflush(stdout);
}

void floor_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    /* Refusal is no reason to stop: accept says so when the limit is really met. */
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

void floor_fail(const char *what, int error) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(error));
    exit(1);
}
