// SPDX-License-Identifier: Apache-2.0
/* lc_socket.h: system calls on sockets that the caller drives. None of them waits: -EAGAIN says that one would have to. */
#ifndef LC_SOCKET_H
#define LC_SOCKET_H

#include "lc_net.h"

/* Makes a stream socket non-blocking and close-on-exec, and takes the delay off TCP. */
int lc_socket_prepare(int fd);
int lc_socket_pair(int fds[2]);
int lc_socket_bind_to(int fd, const lc_address *address);

/* A count, 0 at the end, or a negated errno. */
ptrdiff_t lc_socket_receive(int fd, void *bytes, size_t length);
ptrdiff_t lc_socket_send(int fd, const void *bytes, size_t length);
/* 0: connected. -EINPROGRESS: wait until it is writable, then ask lc_socket_error. */
int lc_socket_connect(int fd, const lc_address *address);
/* The socket's pending error, negated; it is told once. */
int lc_socket_error(int fd);
/* A descriptor that does not block. Connections that are gone already are passed over. */
int lc_socket_accept(int fd, lc_address *peer);
/* sendfile(2): moves *offset, not the file's position. */
ptrdiff_t lc_socket_send_file(int fd, int file, int64_t *offset, size_t count);

enum { LC_DESCRIPTORS_MAX = 253 }; /* SCM_MAX_FD */

/* Over a Unix socket: the descriptors go with the first byte, so there has to be one. */
ptrdiff_t lc_socket_send_descriptors(int fd, const void *bytes, size_t length, const int *fds, size_t count);
/* Up to *count descriptors, all close-on-exec, and the bytes they came with. *truncated: there were more, which are
 * closed. */
ptrdiff_t lc_socket_receive_descriptors(int fd, void *bytes, size_t length, int *fds, size_t *count, bool *truncated);

/* Whether a stream or listener of this loop owns the descriptor. */
bool lc_loop_owns_descriptor(const lc_loop *loop, int fd);

#endif
