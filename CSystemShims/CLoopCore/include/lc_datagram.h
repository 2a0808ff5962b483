// SPDX-License-Identifier: Apache-2.0
/* lc_datagram.h: datagram sockets as the loop keeps them. On the loop's thread unless marked.
 *
 * Each socket is one record with two polls, one for each direction, and memory that is allocated once: a batch of
 * datagrams on their way in, a queue of those on their way out. The system call comes first, and the poll only where it
 * would block, so that both backends run the same code. */
#ifndef LC_DATAGRAM_H
#define LC_DATAGRAM_H

#include "lc_net.h"

typedef struct lc_datagram lc_datagram;

/* The word of a datagram socket's polls: neither a waiter nor a watcher is to be told. */
enum { LC_WORD_DATAGRAM = 1 };

/* Counted for each queued datagram beside its bytes, so that empty ones count. */
enum { LC_DATAGRAM_OVERHEAD = 8 };

/* ---- life ---- */

/* Takes over a datagram socket, and sets it non-blocking. size_max: bytes kept of one datagram; batch_max: datagrams per
 * system call; 0: the default. The descriptor stays the caller's on error. -EPROTOTYPE: not a datagram socket. -EBUSY:
 * it is watched, or owned already. */
int lc_datagram_adopt(lc_loop *loop, int fd, uint32_t size_max, uint32_t batch_max, lc_datagram **out);
int lc_datagram_fd(const lc_datagram *datagram);
/* The owner's object, to be told of readiness; NULL: nobody is. */
void lc_datagram_set_object(lc_datagram *datagram, void *object);
void *lc_datagram_object(const lc_datagram *datagram);
/* Remembers the file that a local socket is bound to, and removes it at the close, unless it is another one by then. */
void lc_datagram_keep_path(lc_datagram *datagram);
/* Closes the descriptor. No poll is under way. */
void lc_datagram_close(lc_datagram *datagram);
/* The owner lets go; no poll is under way, or the loop is closed. */
void lc_datagram_release(lc_datagram *datagram);
/* Of a closed loop: a socket whose object is set, from *place on, which starts as NULL; or NULL: no more. */
lc_datagram *lc_datagram_left_over(lc_loop *loop, lc_datagram **place);

/* ---- readiness ---- */

/* Asks for one LC_KIND_OP once the descriptor is ready. The poll is idle. */
void lc_datagram_poll(lc_datagram *datagram, bool write);
/* Asks a poll to end; it is delivered nevertheless. */
void lc_datagram_cancel_poll(lc_datagram *datagram, bool write);
/* In delivery of an operation whose word is LC_WORD_DATAGRAM: whose it is. The poll is idle from here on. */
lc_datagram *lc_datagram_polled(lc_op *op, bool *write);

/* ---- receiving ---- */

typedef struct lc_datagram_view {
    const uint8_t *bytes; /* valid until the next take */
    uint32_t length;
    bool truncated;
    const lc_address *address; /* length 0: a local socket without a name */
} lc_datagram_view;

/* 1: *out is the next datagram. -EAGAIN: none yet, or enough for this pass. Else an error, told once: the socket lives
 * on. wait: whoever asks will poll next, so a socket that was found empty need not be asked again. */
int lc_datagram_take(lc_datagram *datagram, bool wait, lc_datagram_view *out);
/* Whether take has something to say without a system call. */
bool lc_datagram_has_news(const lc_datagram *datagram);
/* Keeps an error for the next take, unless one is kept already. */
void lc_datagram_note_error(lc_datagram *datagram, int error);
bool lc_datagram_has_error(const lc_datagram *datagram);
/* The error that is kept, once; 0: none. */
int lc_datagram_take_error(lc_datagram *datagram);

/* A wait gets its token before it starts, as that of a stream does. */
void lc_datagram_next_token(lc_datagram *datagram);
uint32_t lc_datagram_token(const lc_datagram *datagram); /* any thread */

/* ---- sending ---- */

/* address: NULL for the one that the socket is connected to. 0: the kernel has it. 1: queued, behind others or because
 * the kernel has no room; poll for writing, and flush. Else what is wrong with this datagram, which is dropped. */
int lc_datagram_send(lc_datagram *datagram, const void *bytes, size_t length, const lc_address *address);
/* Sends what is queued. 1: at least one has left the queue. 0: none could. A datagram that the kernel refuses leaves the
 * queue, and its error is noted. */
int lc_datagram_flush(lc_datagram *datagram);
/* Bytes of the queued datagrams, with the overhead of each. O(1). */
size_t lc_datagram_unsent(const lc_datagram *datagram);
void lc_datagram_drop_queue(lc_datagram *datagram);

/* ---- sockets, cold ---- */

typedef struct lc_datagram_setup {
    bool reuse_port;
    bool broadcast;
    bool connect;           /* to the remote address, if there is one */
    int32_t receive_buffer; /* bytes; 0: the system's default */
    int32_t send_buffer;
} lc_datagram_setup;

/* Makes a socket. local, remote: NULL for none, but not both. A file that a local socket left behind is replaced, one
 * that is in use is not: -EADDRINUSE. */
int lc_datagram_open(const lc_address *local, const lc_address *remote, const lc_datagram_setup *setup, int *out_fd);
/* Undoes that: closes the descriptor, and removes the file that the bind has made. */
void lc_datagram_discard(int fd, const lc_address *local);

typedef enum lc_multicast {
    LC_MULTICAST_LOOP, /* whether own sockets receive what is sent: 0 or 1 */
    LC_MULTICAST_TTL,  /* hops: 0 to 255 */
} lc_multicast;

/* Joins or leaves a group at an interface, by one of its addresses (IPv4 alone) or its number; NULL and 0: the system's
 * choice. */
int lc_datagram_membership(int fd, bool join, const lc_address *group, const lc_address *interface, uint32_t number);
/* The interface that datagrams to a group leave by. */
int lc_datagram_multicast_interface(int fd, const lc_address *interface, uint32_t number);
int lc_datagram_set_multicast(int fd, lc_multicast option, int value);

#endif
