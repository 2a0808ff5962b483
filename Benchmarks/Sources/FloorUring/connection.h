// SPDX-License-Identifier: Apache-2.0
/* connection.h: what the loop tells a connection. */
#ifndef FLOOR_URING_CONNECTION_H
#define FLOOR_URING_CONNECTION_H

#include "server.h"

/* Takes the descriptor and arms its multishot receive. Closes it again when memory is short. */
void connection_open(struct server *server, int fd);

/* The answers to a receive and to a send. The connection may be gone afterwards. */
void connection_received(struct server *server, struct connection *connection, int result, unsigned flags);
void connection_sent(struct server *server, struct connection *connection, int result);

/* Arms starved receives again, oldest first and only as many as there are buffers: more would be answered with
 * ENOBUFS at once. */
void connection_feed_starved(struct server *server);

#endif
