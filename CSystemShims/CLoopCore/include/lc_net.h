// SPDX-License-Identifier: Apache-2.0
/* lc_net.h: streams and listeners: connections as the loop keeps them. All on the loop's thread unless marked. */
#ifndef LC_NET_H
#define LC_NET_H

#include <sys/socket.h>
#include "lc_loop.h"

typedef struct lc_stream lc_stream;
typedef struct lc_listener lc_listener;

/* ---- streams ---- */

/* Takes over a connected stream socket; sets it non-blocking. The descriptor stays the caller's on error. */
int lc_stream_adopt(lc_loop *loop, int fd, lc_stream **out);
/* Makes a socket and starts to connect. LC_KIND_SEND follows; lc_stream_connect_result tells how it went. */
int lc_stream_connect(lc_loop *loop, const struct sockaddr *address, socklen_t length, lc_stream **out);
/* The same with a socket from lc_socket_open, which stays the caller's on error. */
int lc_stream_connect_socket(lc_loop *loop, int fd, const struct sockaddr *address, socklen_t length, lc_stream **out);
int lc_stream_connect_result(const lc_stream *stream);
/* The owner lets go; an open stream is aborted. Thread: any. */
void lc_stream_release(lc_stream *stream);

int lc_stream_fd(const lc_stream *stream);
/* The owner's, carried and not followed; what it points at, if it does, is fetched into the cache ahead of a delivery. */
void lc_stream_set_word(lc_stream *stream, uint64_t word);
uint64_t lc_stream_word(const lc_stream *stream);

/* Takes the next received bytes. 1: *out is a lease. 0: the peer has finished sending. -EAGAIN: nothing yet.
 * -ECANCELED: a wait was cancelled (reported once, no byte is lost). Else the error that ended the stream. */
int lc_stream_take(lc_stream *stream, lc_buffer **out);
/* One LC_KIND_RECEIVE when lc_stream_take has something to say. -EBUSY: somebody waits already. */
int lc_stream_wait_receive(lc_stream *stream, uint64_t waiter);
/* LC_KIND_RECEIVE whenever there is something to take, until paused. */
int lc_stream_start_receiving(lc_stream *stream);
void lc_stream_pause_receiving(lc_stream *stream);
/* Goes on, unless the end has been told. What came meanwhile is delivered first. */
void lc_stream_resume_receiving(lc_stream *stream);
bool lc_stream_is_receiving(const lc_stream *stream);
/* lc_stream_take for a started stream: -EAGAIN while it is paused, or closing and not yet flushed. */
int lc_stream_next(lc_stream *stream, lc_buffer **out);
/* From here on LC_KIND_RECEIVE, and -ESHUTDOWN of lc_stream_next, also tell that a started stream is lost, after the last
 * flush and before the descriptor closes, which waits for lc_stream_loss_told. */
void lc_stream_owe_loss(lc_stream *stream);
void lc_stream_loss_told(lc_stream *stream);
/* In delivery of LC_KIND_RECEIVE: the waiter, or 0 for a stream that was started. */
uint64_t lc_stream_receive_waiter(lc_stream *stream);
/* The same with all that a delivery needs, in one call. */
typedef struct lc_delivery {
    lc_stream *stream;
    uint64_t waiter;
    uint64_t word;
} lc_delivery;
lc_delivery lc_stream_delivery(lc_node *node);
/* The lease, but for its first bytes, is the next to be taken. */
void lc_stream_give_back(lc_stream *stream, lc_buffer *buffer, uint32_t used);
/* Whether a waiter, rather than a started stream's owner, is to be told. */
bool lc_stream_receive_waits(const lc_stream *stream);
/* After delivery to a started stream: more to take goes back on the ready list. */
void lc_stream_finish_delivery(lc_stream *stream);

/* Queues bytes to send; they leave at the end of this pass. The lease is the loop's from here on, even on error.
 * -EPIPE: finished or closing. Else the error that broke the sending side. */
int lc_stream_send(lc_stream *stream, lc_buffer *buffer);
/* The same with a copy of the caller's bytes. */
int lc_stream_send_copy(lc_stream *stream, const void *bytes, size_t length);
/* Bytes queued or in the kernel's hands and not yet accepted by it. O(1). */
size_t lc_stream_unsent(const lc_stream *stream);
/* One LC_KIND_SEND beside those of waiters, and one true of lc_stream_take_room, once no more than `below` bytes are
 * queued, unless sending breaks before. Asked again, it moves the mark. */
void lc_stream_want_room(lc_stream *stream, size_t below);
bool lc_stream_take_room(lc_stream *stream);
bool lc_stream_wants_room(const lc_stream *stream); /* asked for, and not taken yet */
/* 0, or the error that broke the sending side. */
int lc_stream_send_error(const lc_stream *stream);
/* One LC_KIND_SEND when lc_stream_unsent is at most `below`, or sending broke. -EBUSY: somebody waits already. */
int lc_stream_wait_send(lc_stream *stream, uint64_t waiter, size_t below);
uint64_t lc_stream_send_waiter(lc_stream *stream);
uint64_t lc_stream_send_waiter_due(lc_stream *stream); /* 0 unless it is the waiter that is to be told */
/* Half-close once everything queued is out. */
int lc_stream_finish_sending(lc_stream *stream);

/* A file is sent on the descriptor by somebody else: writes are refused with -EBUSY until let go of. lc_stream_hold
 * fails as lc_stream_send does. */
int lc_stream_hold(lc_stream *stream);
void lc_stream_let_go(lc_stream *stream);
/* lc_stream_send_copy for whoever holds it. */
int lc_stream_send_held(lc_stream *stream, const void *bytes, size_t length);
/* While held and with nothing queued: one LC_KIND_SEND when the descriptor can be written to, or closes. */
int lc_stream_wait_room(lc_stream *stream, uint64_t waiter);
/* The kernel told the error that broke the sending side to somebody else. */
void lc_stream_break(lc_stream *stream, int error);

/* The descriptor is to be somebody else's. From here on writes and new waits are refused with -EBUSY; what is queued is
 * still sent, and nothing more is received. 0: it may leave now. -EAGAIN: after one LC_KIND_SEND of lc_stream_wait_send.
 * -EBUSY: somebody waits or sends a file; -ESHUTDOWN; or the error that broke either side: nothing has changed then. */
int lc_stream_begin_leave(lc_stream *stream);
/* It shall not leave after all. */
void lc_stream_stay(lc_stream *stream);
/* 0: the descriptor is the caller's, and the stream is closed; what was received and not taken is to be had at once, one
 * after the other until NULL. An owner that is owed a loss is told. Else why it could not leave, and it has stayed. */
int lc_stream_leave(lc_stream *stream, int *out_fd);
lc_buffer *lc_stream_take_left(lc_stream *stream);

/* Whether somebody waits to send on. */
bool lc_stream_send_waits(const lc_stream *stream);

/* Cancels a wait, if `token` is still the current one; the waiter is delivered and learns -ECANCELED. A wait gets its
 * token before it starts, so that a cancel from another thread, however early or late, means this wait or none. */
void lc_stream_prepare_receive(lc_stream *stream);
void lc_stream_prepare_send(lc_stream *stream);
uint32_t lc_stream_receive_token(const lc_stream *stream); /* any thread */
uint32_t lc_stream_send_token(const lc_stream *stream);    /* any thread */
void lc_stream_cancel_receive(lc_stream *stream, uint32_t token);
void lc_stream_cancel_send(lc_stream *stream, uint32_t token);
bool lc_stream_take_send_cancelled(lc_stream *stream);

/* Closes: flushes what is queued unless `abort`; ends both operations; closes the descriptor after their last
 * completion. Waiters learn -ESHUTDOWN. reset: the peer sees RST. 0 now closed already, 1 closing. */
int lc_stream_close(lc_stream *stream, bool abort, bool reset);
bool lc_stream_is_closed(const lc_stream *stream);
bool lc_stream_is_closing(const lc_stream *stream); /* or closed */
/* One LC_KIND_CLOSED once the descriptor is closed. -EBUSY: somebody waits already. */
int lc_stream_wait_closed(lc_stream *stream, uint64_t waiter);
uint64_t lc_stream_closed_waiter(lc_stream *stream);

/* ---- leases ---- */

/* Gives bytes back. Thread: any. */
void lc_buffer_return(lc_buffer *buffer);
static inline const uint8_t *lc_buffer_bytes(const lc_buffer *buffer) { return buffer->base + buffer->offset; }
static inline uint32_t lc_buffer_length(const lc_buffer *buffer) { return buffer->length; }

/* ---- listeners ---- */

/* Takes over a listening socket. */
int lc_listener_adopt(lc_loop *loop, int fd, lc_listener **out);
void lc_listener_release(lc_listener *listener);
int lc_listener_fd(const lc_listener *listener);
void lc_listener_set_word(lc_listener *listener, uint64_t word);
uint64_t lc_listener_word(const lc_listener *listener);
/* 1: *out is a new stream. -EAGAIN: none yet, or accept_batch_max in this pass. -ESHUTDOWN: closed. -ECANCELED: a wait
 * was cancelled. */
int lc_listener_take(lc_listener *listener, lc_stream **out);
int lc_listener_wait(lc_listener *listener, uint64_t waiter);
/* From here on LC_KIND_ACCEPT whenever there is a connection. -EBUSY: somebody waits. -ESHUTDOWN: closed. */
int lc_listener_start(lc_listener *listener);
uint64_t lc_listener_waiter(lc_listener *listener);
bool lc_listener_waits(const lc_listener *listener);
void lc_listener_finish_delivery(lc_listener *listener);
void lc_listener_prepare_wait(lc_listener *listener);    /* as lc_stream_prepare_receive */
uint32_t lc_listener_token(const lc_listener *listener); /* any thread */
void lc_listener_cancel(lc_listener *listener, uint32_t token);
/* The error that made accepting pause, once; 0 if none since the last call. */
int lc_listener_take_backoff(lc_listener *listener);
/* Cancels the accept, then closes the descriptor: connections are refused once this is done. */
void lc_listener_close(lc_listener *listener);
bool lc_listener_is_closed(const lc_listener *listener);

/* From an entry of lc_loop_next to its record. */
lc_stream *lc_node_stream(lc_node *node);     /* LC_KIND_RECEIVE, _SEND, _CLOSED */
lc_listener *lc_node_listener(lc_node *node); /* LC_KIND_ACCEPT */

/* ---- sockets, cold ---- */

typedef struct lc_address {
    struct sockaddr_storage storage;
    socklen_t length;
} lc_address;

/* Literal IPv4 or IPv6 only, the latter with a zone's number as in "fe80::1%2" if it has one. -EINVAL otherwise. */
int lc_address_parse(const char *host, uint16_t port, lc_address *out);
/* "a.b.c.d", "x::y" or "x::y%zone" into text (at least 64 bytes); returns the port or < 0. */
int lc_address_format(const lc_address *address, char *text, size_t size);
int lc_address_local(int fd, lc_address *out);
/* As they were when the stream was made, also once it is closed. -ENOTCONN: none. */
int lc_stream_end_address(const lc_stream *stream, bool peer, lc_address *out);
/* sendfile(2) without SIGPIPE; moves *offset. */
ssize_t lc_send_file(int fd, int file, int64_t *offset, size_t count);
int lc_address_peer(int fd, lc_address *out);

/* A Unix socket's path, or its abstract name if the first byte is zero. -EINVAL: empty, or a zero byte in a path;
 * -ENAMETOOLONG. */
int lc_address_unix(const char *name, size_t length, lc_address *out);
/* The same back: where it lies in the address, without a zero byte behind it, and its length; 0 if it has none. */
int lc_address_unix_name(const lc_address *address, const char **name);

/* The file of a Unix socket, as it was when the socket was bound. */
typedef struct lc_socket_file {
    char path[112]; /* empty: there is none */
    uint64_t device, number;
    int32_t process;
} lc_socket_file;

void lc_socket_file_note(lc_socket_file *file, const lc_address *address);
/* Removes it, unless another one has taken its place, or it is that of the process this one was forked from. */
void lc_socket_file_remove(lc_socket_file *file);

/* When a silent peer is asked, in seconds, and how often in vain; 0: as the system has it. */
typedef struct lc_keep_alive {
    uint32_t idle_s, interval_s, probe_count;
} lc_keep_alive;

typedef struct lc_listen_options {
    bool reuse_port; /* several sockets may share the port */
    /* Of the connections, as Linux hands them on. */
    bool keep_alive;
    lc_keep_alive timing;
    bool delay;         /* leave Nagle's algorithm on */
    bool both_families; /* an IPv6 socket takes IPv4 as well */
} lc_listen_options;

/* A stream socket to connect with; the local end it shall have; probes of a silent peer. */
int lc_socket_open(int family, bool delay, int *out_fd);
int lc_socket_bind_local(int fd, const lc_address *address);
int lc_socket_keep_alive(int fd, const lc_keep_alive *timing);
/* A bound stream socket, which refuses connections until it listens. The file that a Unix socket left behind is taken
 * over; one that is in use is not: -EADDRINUSE. */
int lc_socket_bind(const lc_address *address, const lc_listen_options *options, int *out_fd);
int lc_socket_start_listening(int fd, int backlog);
/* Both at once. */
int lc_socket_listen(const lc_address *address, int backlog, bool reuse_port, int *out_fd);

#endif
