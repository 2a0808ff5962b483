// SPDX-License-Identifier: Apache-2.0
/* echo.h: the parts of the libev floor and what they share.
 *
 * main.c owns the loop and the listener, connection.c one connection. One thread, so nothing is locked. */
#ifndef FLOOR_LIBEV_ECHO_H
#define FLOOR_LIBEV_ECHO_H

/* The version 4 names only: the compatibility names drag in fields nobody here uses. */
#define EV_COMPAT3 0
#include <ev.h>
#include <stdint.h>

/* One receive takes at most this much; also the most a connection can ever owe its peer, because it does not
 * receive again before everything was sent. */
#define RECEIVE_BYTES_MAX (64 * 1024)

/* Accepts per readiness: enough to empty a burst, few enough that connected peers do not wait long. */
#define ACCEPT_BATCH_MAX 64

struct server {
    ev_io accept;
    int listener;
    uint64_t request_count;
    uint64_t event_count; /* readiness events that brought no request: those need no count of their own */
    uint64_t entry_count; /* accept, recv and send calls; the loop's own waits are added at the end */
    char scratch[RECEIVE_BYTES_MAX];
};

/* Takes the descriptor, arms reading. Closes it again when memory is short. */
void connection_open(struct ev_loop *loop, struct server *server, int fd);

#endif
