// SPDX-License-Identifier: Apache-2.0
/* lc_op.h: the records that travel through a loop: a list node, one I/O operation, one lease on bytes.
 *
 * Every record is intrusive: it carries its own link, so putting it on a list allocates nothing. */
#ifndef LC_OP_H
#define LC_OP_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* What lc_loop_next() hands out, and what the inbox carries. The kind tells which record the node is part of. */
typedef enum lc_kind {
    LC_KIND_NONE = 0,
    LC_KIND_JOB_TASK,   /* a Swift job enqueued on the loop's task executor */
    LC_KIND_JOB_SERIAL, /* a Swift job enqueued on the loop's serial executor */
    LC_KIND_CALL,       /* lc_call: a callback queued with lc_call_soon or lc_call_at */
    LC_KIND_SLEEP,      /* lc_call: a waiter, its word is the owner's */
    LC_KIND_POST,       /* lc_post: a call from another thread */
    LC_KIND_OP,         /* lc_op: a one-shot operation that is done */
    LC_KIND_RECEIVE,    /* lc_stream: there is something to take, or an end, or an error */
    LC_KIND_SEND,       /* lc_stream: the sender that waited may go on */
    LC_KIND_CLOSED,     /* lc_stream: its descriptor is closed */
    LC_KIND_ACCEPT,     /* lc_listener: there is a connection to take, or an error */
    LC_KIND_SIGNAL,     /* lc_signal: it has come, once or more often */
    LC_KIND_INTERNAL_FIRST,
    LC_KIND_BUFFER = LC_KIND_INTERNAL_FIRST, /* lc_buffer: a lease returned by another thread */
    LC_KIND_STREAM_RELEASE,                  /* lc_stream: its owner let go on another thread */
    LC_KIND_LISTENER_RETRY,                  /* lc_call: an accept back-off is over */
} lc_kind;

/* A link in one list. Two words, because that is what a Swift job keeps for its executor. */
typedef struct lc_node {
    struct lc_node *next; /* loop: the one list it is on */
    uintptr_t kind;       /* lc_kind of the record around it */
} lc_node;

/* The head of a Swift job as the concurrency runtime lays it out: an object header of two words, then two words for
 * whichever executor holds the job. Enqueueing links through those, which is why it allocates nothing. */
typedef struct lc_job {
    void *metadata;
    uintptr_t reference_counts;
    lc_node node;
} lc_job;

typedef enum lc_opcode {
    LC_OP_NONE = 0,
    LC_OP_ACCEPT,
    LC_OP_CONNECT,
    LC_OP_RECEIVE,
    LC_OP_SEND,
    LC_OP_POLL_READ,
    LC_OP_POLL_WRITE,
    LC_OP_ROOM, /* a stream's send, while it waits for room that others fill */
} lc_opcode;

/* IDLE -> QUEUED -> IN_KERNEL | ARMED -> (DONE ->) IDLE. DONE is passed only by one-shot operations on their way
 * through the ready list. */
typedef enum lc_state {
    LC_STATE_IDLE = 0,
    LC_STATE_QUEUED,    /* on the loop's list, to be prepared in the next submit phase */
    LC_STATE_IN_KERNEL, /* proactor: the kernel may touch it and its bytes until the last completion */
    LC_STATE_ARMED,     /* selector: a watcher waits for the descriptor */
    LC_STATE_STARVED,   /* proactor: waits for a buffer to come back */
    LC_STATE_DONE,      /* has a result and is on the ready list */
} lc_state;

enum {
    LC_FLAG_CANCEL_ASKED = 1u << 0,  /* a cancel was asked; the last completion is still to come */
    LC_FLAG_CANCEL_LISTED = 1u << 1, /* the kernel has not been asked yet */
    LC_FLAG_MULTISHOT = 1u << 2,     /* one ask, many answers */
    LC_FLAG_OWN_BUFFER = 1u << 3,    /* a receive that brought its buffer, in `address` */
    LC_FLAG_ONE_ANSWER = 1u << 4,    /* a receive that waited for a buffer, and gets one */
};

/* One I/O. Owned by its stream, listener or waiter; lent to the loop from submit until the last completion. While lent
 * it stays put, and so do the bytes it names: a cancel that was asked is not yet a kernel that has let go. */
typedef struct lc_op {
    lc_node node;              /* loop: the ready list, once DONE */
    struct lc_op *next_queued; /* loop: queued or starved list */
    uint64_t word;             /* owner: carried back untouched */
    int32_t fd;                /* owner */
    int32_t result;            /* loop: count, or negated errno; meaningful once DONE */
    uint8_t opcode;            /* owner: lc_opcode */
    uint8_t state;             /* loop: lc_state */
    uint8_t flags;             /* loop: LC_FLAG_* */
    uint8_t answers;           /* loop: a multishot RECEIVE: since the socket was last found empty */
    uint32_t slot;             /* loop: index in the slot table while IN_KERNEL */
    const void *address;       /* CONNECT: socket address; owner keeps it until DONE. POLL: who watches, or NULL */
    uint32_t length;           /* CONNECT: its length */
    uint32_t in_flight;        /* SEND: how many queued buffers the kernel holds */
} lc_op;

static_assert(sizeof(lc_op) == 64, "one cache line per operation");
static_assert(offsetof(lc_op, node) == 0, "a node is turned back into its operation by a cast");
static_assert(offsetof(lc_op, word) == 24, "the owner's word");
static_assert(offsetof(lc_op, fd) == 32 && offsetof(lc_op, result) == 36, "layout is part of the contract");
static_assert(sizeof(lc_job) == 4 * sizeof(void *) && offsetof(lc_job, node) == 2 * sizeof(void *), "job header");

struct lc_shared;

/* A lease on bytes: received ones on their way to the user, or bytes on their way out. On exactly one list, or held by
 * exactly one owner, at any time. */
typedef struct lc_buffer {
    lc_node node;             /* whoever holds it */
    uint8_t *base;            /* start of the memory */
    uint32_t capacity;        /* bytes of memory */
    uint32_t offset;          /* first byte still of interest */
    uint32_t length;          /* bytes of interest from offset */
    uint16_t bid;             /* index in its group; LC_BID_HEAP for memory of its own */
    uint16_t lent;            /* not among the free ones, nor in the kernel's ring */
    struct lc_shared *shared; /* where it goes back to */
} lc_buffer;

enum { LC_BID_HEAP = 0xffff };

#endif
