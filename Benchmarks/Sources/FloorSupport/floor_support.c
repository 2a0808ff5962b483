// SPDX-License-Identifier: Apache-2.0
/* floor_support.c: arguments, the listening socket and the lines a floor prints. */
#include "floor_support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

static _Noreturn void usage(const char *program) {
    fprintf(stderr, "usage: %s [--port N] [--share-port]\n", program);
    exit(64);
}

static uint16_t parse_port(const char *program, const char *text) {
    char *end = NULL;
    unsigned long port = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || port > UINT16_MAX)
        usage(program);
    return (uint16_t)port;
}

struct floor_arguments floor_arguments_parse(int argument_count, char **arguments) {
    struct floor_arguments parsed = {.port = 0, .shares_port = false};
    for (int index = 1; index < argument_count; index++) {
        if (strcmp(arguments[index], "--share-port") == 0)
            parsed.shares_port = true;
        else if (strcmp(arguments[index], "--port") == 0 && index + 1 < argument_count)
            parsed.port = parse_port(arguments[0], arguments[++index]);
        else
            usage(arguments[0]);
    }
    return parsed;
}

int floor_listen(struct floor_arguments arguments, int type_flags) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | type_flags, 0);
    if (listener < 0)
        floor_fail("socket", errno);

    int on = 1;
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        floor_fail("SO_REUSEADDR", errno);
    if (arguments.shares_port && setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0)
        floor_fail("SO_REUSEPORT", errno);
    if (setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        floor_fail("TCP_NODELAY", errno);

    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(arguments.port),
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

int floor_signals(void) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void floor_fail(const char *what, int error) {
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(error));
    exit(1);
}
