// SPDX-License-Identifier: Apache-2.0
/* main.c: the least a readiness-based echo server can do.
 *
 * What the selector is measured against: one thread, epoll through libev, no layers. */
#include "echo.h"
#include "floor_support.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>

static struct server server;

static void on_acceptable(struct ev_loop *loop, ev_io *watcher, int events) {
    (void)events;
    server.event_count++;
    for (int batch = 0; batch < ACCEPT_BATCH_MAX; batch++) {
        int fd = accept4(server.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        server.entry_count++;
        if (fd >= 0) {
            connection_open(loop, &server, fd);
            continue;
        }
        if (errno == EAGAIN)
            return;
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        /* Out of descriptors: the listener stays readable, so staying armed would spin. A closing connection
         * arms it again. */
        ev_io_stop(loop, watcher);
        return;
    }
}

static void on_signal(struct ev_loop *loop, ev_signal *watcher, int events) {
    (void)watcher;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

int main(int argument_count, char **arguments) {
    struct floor_arguments parsed = floor_arguments_parse(argument_count, arguments);
    floor_raise_descriptor_limit();

    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (loop == NULL)
        floor_fail("epoll", errno);

    ev_signal interrupt, terminate;
    ev_signal_init(&interrupt, on_signal, SIGINT);
    ev_signal_init(&terminate, on_signal, SIGTERM);
    ev_signal_start(loop, &interrupt);
    ev_signal_start(loop, &terminate);

    server.listener = floor_listen(parsed, SOCK_NONBLOCK);
    ev_io_init(&server.accept, on_acceptable, server.listener, EV_READ);
    ev_io_start(loop, &server.accept);
    floor_announce(server.listener);

    ev_run(loop, 0);

    floor_farewell(&(struct floor_counts){
        .requests = server.request_count,
        .calls = server.entry_count + ev_iteration(loop),
        .ticks = ev_iteration(loop),
        .entries = ev_iteration(loop),
        .completions = server.event_count + server.request_count,
    });
    return 0;
}
