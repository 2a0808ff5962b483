// SPDX-License-Identifier: Apache-2.0
/* internal.h: what the files of the core know of each other, one block per file, in tick order. */
#ifndef LC_INTERNAL_H
#define LC_INTERNAL_H

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "heap.h"
#include "limits.h"
#include "loop_core.h"
#include "queue.h"

/* What few passes come to is kept out of the functions that every message goes through: so those need neither a large
 * stack frame nor registers saved. */
#define LC__RARE __attribute__((noinline, cold))
/* As often as not, but likewise kept out. */
#define LC__APART __attribute__((noinline))

#define lc__container_of(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

typedef struct lc__selector lc__selector;
typedef struct lc__proactor lc__proactor;

/* ---- shared with other threads: the inbox and the receive group; outlives the loop while leases are out ---- */

struct lc_shared {
    _Atomic(lc_node *) inbox;    /* any thread pushes, the loop takes all */
    char padding_before[120];    /* producers and consumer on lines of their own */
    _Atomic(uint32_t) asleep;    /* loop: about to block; a producer that clears it owes one eventfd write */
    _Atomic(uint32_t) stop;      /* any thread: run should end */
    int eventfd;                 /* closed with the memory, so no late writer meets a stranger's descriptor */
    _Atomic(int64_t) references; /* the loop, each lease held after it closed, each return or job under way elsewhere */
    lc_loop *loop;               /* compared by returning threads, never followed */
    /* The group: */
    uint8_t *memory;
    size_t memory_size;
    lc_buffer *buffers; /* loop: one per piece of memory, by bid */
    uint32_t buffer_count;
    uint32_t buffer_size;
    uint32_t leased;     /* loop: group buffers and heap ones in users' and streams' hands */
    uint32_t held;       /* loop: group buffers nobody leases */
    lc__queue free_pool; /* loop: selector: free buffers; the proactor's are in the kernel's ring */
    lc__queue send_pool; /* loop: heap buffers of LC__SEND_BUFFER_SIZE kept for reuse */
};

/* ---- streams, listeners ---- */

/* Ordered by use: with thousands of connections each cache line touched per event is a miss. An operation of a stream is
 * never on the ready list itself: its node is the stream's there, and its word is whoever waits for it. */
struct lc_stream {
    _Alignas(64) lc_op receive;
    /* Second line: what a read touches besides. */
    lc_loop *loop;
    lc__queue in;  /* leases received and not yet taken */
    uint64_t word; /* the owner's; fetched ahead as if it were an address, never followed */
    int32_t fd;
    uint32_t budget_tick;
    int32_t receive_error;
    _Atomic(uint32_t) receive_token;
    uint16_t budget;
    bool started : 1;           /* deliver whenever there is something */
    bool paused : 1;            /* started, but not now */
    bool end : 1;               /* the peer has finished */
    bool maybe_ready : 1;       /* selector: the next recv may succeed */
    bool receive_queued : 1;    /* receive.node is on the ready list */
    bool receive_cancelled : 1; /* a wait was cancelled and not yet told */
    bool told : 1;              /* take has told of the end, or of the error */
    bool released : 1;          /* the owner let go */
    bool closing : 1;
    bool aborting : 1;
    bool finish : 1;   /* half-close once out is empty */
    bool finished : 1; /* half-closed */
    bool held : 1;     /* a file is being sent: no writes */
    bool connecting : 1;
    bool dirty : 1;       /* on the list of phase 1 */
    bool send_queued : 1; /* send.node is on the ready list */
    bool send_cancelled : 1;
    bool send_due : 1;    /* whoever waits to send is to be told */
    bool room_wanted : 1; /* so is the owner, once no more than room_below bytes are queued */
    bool room_due : 1;    /* now */
    bool cut_short : 1;   /* proactor: the kernel gave a send up before its end */
    bool local : 1;       /* a Unix socket */
    bool owes_loss : 1;   /* the owner of a started stream wants to hear of its loss before the descriptor closes */
    bool loss_due : 1;    /* now */
    bool on_close : 1;    /* on the list of phase 8, by receive.next_queued */
    bool closed : 1;
    bool closed_queued : 1; /* closed_ready is on the ready list */
    bool ends_inline : 1;   /* `ends` has two lc__end */
    bool ends_apart : 1;    /* `ends` has a pointer to lc__ends */
    bool leaving : 1;       /* its descriptor is about to be somebody else's */
    bool was_started : 1;   /* what `started` and `paused` are if it stays after all */
    bool was_paused : 1;
    /* Third and fourth: what a write touches. */
    lc_op send;    /* CONNECT first where we connect, SEND from then on */
    lc__queue out; /* leases to send; the first send.in_flight of them are the kernel's */
    size_t unsent;
    lc_stream *next_dirty;
    int32_t send_error;
    uint32_t send_below;
    uint32_t room_below;
    _Atomic(uint32_t) send_token;
    int32_t connect_result;
    uint8_t ends[12]; /* the addresses at the start, as ends.c keeps them: without alignment */
    /* Fifth: the beginning and the end. */
    uint64_t closed_waiter;
    lc_node closed_ready; /* also the link in a listener's pending list */
    lc_node release;      /* in the inbox, when the owner lets go on another thread */
    lc_stream *next_all, **link_all;
};

static_assert(offsetof(struct lc_stream, send) == 128, "a read touches two lines of a stream");
static_assert(offsetof(struct lc_stream, ends) < 256, "a write touches two more");
static_assert(sizeof(struct lc_stream) == 320, "a connection is five lines");

struct lc_listener {
    lc_op accept;
    lc_loop *loop;
    lc__queue pending; /* accepted streams, linked by closed_ready */
    uint64_t word;
    uint64_t waiter;
    lc_node ready;
    lc_listener *next_all, **link_all;
    lc_listener *next_closing;
    lc_call_id retry;
    uint64_t retry_ns; /* when to try again, if no timer could be had for it; 0 otherwise */
    uint64_t budget_tick;
    uint32_t budget;
    uint32_t backoff_ms;
    int32_t fd;
    int32_t backoff_error; /* not yet reported */
    _Atomic(uint32_t) token;
    bool started : 1;
    bool maybe_ready : 1;
    bool ready_queued : 1;
    bool cancelled : 1;
    bool backing_off : 1;
    bool on_close : 1;
    bool closing : 1;
    bool closed : 1;
    bool released : 1;
    bool local : 1; /* of Unix sockets */
};

/* ---- the loop ---- */

typedef struct lc__fd {
    void *owner; /* the stream or listener that owns the descriptor */
    lc_op *poll_read;
    lc_op *poll_write;
} lc__fd;

/* A task that the loop has spawned and that has not ended. */
typedef struct lc__task {
    uintptr_t task;    /* 0: a free place */
    lc_stream *stream; /* where it parked last */
    uint64_t number;   /* no other task of this loop has or had it */
    bool cancelled;
} lc__task;

typedef struct lc__task_table {
    lc__task *entries;
    uint32_t capacity; /* a power of two, at least twice the count */
    uint32_t count;
    uint64_t number; /* the last one given */
} lc__task_table;

struct lc_loop {
    lc__queue ready; /* runs in the next pass */
    lc__queue batch; /* runs in this pass */
    lc_node *woken;  /* the job enqueued between begin_resume and end_resume */
    bool resuming;
    _Atomic(bool) running; /* whoever makes it true is inside */
    _Atomic(bool) closed;  /* true before the inbox refuses: who is refused finds it so */
    uint8_t backend;
    uint32_t fork_generation;
    lc_op *queued_head, *queued_tail;
    lc_op *starved_head, *starved_tail;
    lc_op *cancel_head; /* in the kernel, to be cancelled in the next submit phase */
    lc_stream *dirty_head, *dirty_tail;
    lc_op *closing_streams; /* their receives */
    lc_listener *closing_listeners;
    lc_stream *all_streams;
    lc_listener *all_listeners;
    lc_datagram *all_datagrams;
    uint32_t listeners_backing_off;
    uint32_t listeners_untimed; /* of those, the ones without a timer */
    struct lc_shared *shared;
    lc__selector *selector;
    lc__proactor *proactor;
    lc__heap timers;
    lc__task_table tasks;
    lc_call **call_chunks;
    uint32_t call_chunk_count;
    lc_node *free_calls;
    lc_node *free_streams;
    void *slabs; /* every block of slab memory, linked by its first word */
    lc_op *free_ops;
    lc__fd **fd_chunks;
    uint32_t fd_chunk_count;
    lc_options options;
    lc_stats stats;
    void *owner;
    uint64_t number; /* in the registry */
};

/* loop.c */
uint64_t lc__thread_serial(void);
lc__fd *lc__fd_entry(lc_loop *loop, int fd); /* NULL: out of memory */
void *lc__slab_make(lc_loop *loop, size_t size, size_t count);
bool lc__stream_receive_dropped(lc_stream *stream);
bool lc__stream_node_dropped(lc_stream *stream, lc_kind kind);
bool lc__listener_node_dropped(lc_listener *listener);

/* registry.c */
int lc__registry_add(lc_loop *loop); /* gives it its number */
void lc__registry_remove(lc_loop *loop);

/* op.c */
void lc__op_submit(lc_loop *loop, lc_op *op);
void lc__op_submit_receive(lc_loop *loop, lc_op *op);
void lc__op_completed_rarely(lc_loop *loop, lc_op *op, int result, bool more);
void lc__op_ended(lc_loop *loop, lc_op *op);
void lc__op_ask_cancel(lc_loop *loop, lc_op *op);
void lc__op_ask_cancel_again(lc_loop *loop, lc_op *op);
void lc__op_starve(lc_loop *loop, lc_op *op);
void lc__op_feed_starved(lc_loop *loop);
void lc__op_cancel_listed(lc_loop *loop);
void lc__op_leave_cancels(lc_loop *loop, lc_op *op);

/* calls.c: calls and timers */
void lc__timers_expire(lc_loop *loop);
bool lc__call_leave(lc_loop *loop, lc_call *call);
void lc__calls_drop(lc_loop *loop);

/* tasks.c */
lc__task *lc__task_find(lc_loop *loop, uintptr_t task); /* NULL: not one of ours */
int lc__task_add(lc_loop *loop, uintptr_t task);

/* stream.c */
int lc__stream_make(lc_loop *loop, int fd, lc_stream **out);
void lc__stream_flush_dirty(lc_loop *loop);
void lc__stream_receive_event(lc_stream *stream);
void lc__stream_received(lc_stream *stream, int result, bool more, lc_buffer *buffer);
void lc__stream_sent(lc_stream *stream, int result);
void lc__stream_connected(lc_stream *stream, int result);
void lc__stream_broke(lc_stream *stream, int error);
void lc__stream_room(lc_stream *stream);
void lc__stream_note_ends(lc_stream *stream);
void lc__stream_forget_ends(lc_stream *stream);
int lc__stream_end(const lc_stream *stream); /* 0, or the error that an end stands for */
void lc__stream_maybe_finish(lc_stream *stream);
/* net.c: a descriptor from elsewhere becomes non-blocking and close-on-exec; a socket has to be of that type. */
int lc__descriptor_take_over(int fd);
int lc__socket_take_over(int fd, int type, int *domain);
int lc__bind(int fd, const lc_address *address); /* unix.c: also over a file that somebody left */
void lc__stream_announce_loss(lc_stream *stream);
void lc__stream_lose_if_deaf(lc_stream *stream);
void lc__stream_maybe_close(lc_stream *stream);
void lc__stream_closed_ready(lc_stream *stream);
void lc__stream_close_finished(lc_loop *loop);
void lc__stream_release_now(lc_stream *stream);
uint32_t lc__stream_gather(lc_stream *stream, void *vectors, uint32_t max, size_t *total);

/* listener.c */
void lc__listener_accepted(lc_listener *listener, int result, bool more);
void lc__listener_event(lc_listener *listener);
void lc__listener_retry(lc_listener *listener);
uint64_t lc__listener_untimed_ns(const lc_loop *loop); /* the earliest retry that has no timer */
void lc__listener_expire_untimed(lc_loop *loop);
void lc__listener_descriptor_freed(lc_loop *loop);
void lc__listener_maybe_close(lc_listener *listener);
void lc__listener_close_finished(lc_loop *loop);

/* datagram.c */
void lc__datagrams_close(lc_loop *loop);
void lc__datagrams_free(lc_loop *loop);

/* inbox.c */
int lc__inbox_init(struct lc_shared *shared);
int lc__inbox_push(struct lc_shared *shared, lc_node *node);
void lc__inbox_wake(struct lc_shared *shared);
bool lc__inbox_before_sleep(struct lc_shared *shared);
void lc__inbox_after_sleep(struct lc_shared *shared);
lc_node *lc__inbox_take(struct lc_shared *shared);
lc_node *lc__inbox_close(struct lc_shared *shared);
void lc__inbox_clear_wake(lc_loop *loop);

/* signals.c */
bool lc__signal_take(lc_signal *signal); /* false: nobody wants it any more, and it is freed */

/* buffers.c */
size_t lc__whole_pages(size_t size);
int lc__shared_create(const lc_options *options, lc_loop *loop, struct lc_shared **out);
void lc__shared_detach(struct lc_shared *shared); /* the loop closed: later returns free by themselves */
void lc__shared_unref(struct lc_shared *shared);
lc_buffer *lc__buffer_lease(lc_loop *loop); /* selector: empty, from the pool or the heap; NULL: no memory */
lc_buffer *lc__buffer_heap(lc_loop *loop, size_t capacity);
lc_buffer *lc__buffer_taken(lc_loop *loop, uint16_t bid, uint32_t length); /* proactor: the kernel filled it */
void lc__buffer_return_here(lc_loop *loop, lc_buffer *buffer);

/* selector.c */
int lc__selector_create(lc_loop *loop);
void lc__selector_destroy(lc_loop *loop);
const char *lc__selector_name(const lc_loop *loop);
const char *lc__selector_probe(void);
void lc__selector_start(lc_loop *loop, lc_op *op);
void lc__selector_disarm(lc_loop *loop, lc_op *op);
void lc__selector_forget(lc_loop *loop, int fd);
void lc__selector_send(lc_stream *stream);
bool lc__selector_send_now(lc_stream *stream, lc_buffer *buffer); /* true: all of it is out, or can never be */
int lc__selector_receive(lc_stream *stream, lc_buffer **out);
int lc__selector_enter(lc_loop *loop, bool wait);
void lc__selector_reap(lc_loop *loop);
bool lc__selector_settle(lc_loop *loop); /* tells the kernel what is armed; false: something has fired meanwhile */

/* proactor.c */
int lc__proactor_create(lc_loop *loop);
void lc__proactor_destroy(lc_loop *loop);
int lc__proactor_bind(lc_loop *loop);
bool lc__proactor_owned_here(const lc_loop *loop);
uint32_t lc__proactor_features(const lc_loop *loop);
bool lc__proactor_start(lc_loop *loop, lc_op *op);  /* false: the SQ is full */
bool lc__proactor_send(lc_stream *stream);          /* false: the SQ is full */
bool lc__proactor_cancel(lc_loop *loop, lc_op *op); /* false: the SQ is full */
bool lc__proactor_is_behind(const lc_loop *loop);   /* completions are left from the last pass */
void lc__proactor_buffer_back(lc_loop *loop, lc_buffer *buffer);
int lc__proactor_enter(lc_loop *loop, int64_t timeout_ns); /* < 0: no limit */
void lc__proactor_reap(lc_loop *loop);
bool lc__proactor_settled(const lc_loop *loop); /* false: another entry is needed before a wait */
int lc__proactor_fd(const lc_loop *loop);
int lc__proactor_probe(uint32_t *features);

/* errors.c */
bool lc__error_is_retry(int error);        /* EINTR, and EAGAIN from the ring: ask again */
bool lc__error_is_exhaustion(int error);   /* descriptors or memory: back off */
bool lc__error_is_aborted_peer(int error); /* an accept that lost its peer: ask again at once */

/* Only the loop's thread writes a token, so this needs no atomic addition; other threads read it. */
static inline void lc__token_next(_Atomic(uint32_t) *token) {
    atomic_store_explicit(token, atomic_load_explicit(token, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void lc__ready_push(lc_loop *loop, lc_node *node, lc_kind kind) {
    node->kind = kind;
    lc__queue_push(&loop->ready, node);
}

/* To whom a result goes. `more`: the operation goes on and will answer again. */
static inline void lc__op_completed(lc_loop *loop, lc_op *op, int result, bool more, lc_buffer *buffer) {
    assert(more ? op->state == LC_STATE_IN_KERNEL || op->state == LC_STATE_ARMED : op->state == LC_STATE_IDLE);
    if (op->opcode == LC_OP_RECEIVE)
        lc__stream_received(lc__container_of(op, lc_stream, receive), result, more, buffer);
    else if (op->opcode == LC_OP_SEND)
        lc__stream_sent(lc__container_of(op, lc_stream, send), result);
    else
        lc__op_completed_rarely(loop, op, result, more);
}

/* Everything is out, and the kernel holds nothing. */
static inline bool lc__stream_is_quiet(const lc_stream *stream) {
    return !stream->out.head && stream->send.state == LC_STATE_IDLE && stream->receive.state == LC_STATE_IDLE;
}

static inline bool lc__is_proactor(const lc_loop *loop) { return loop->backend == LC_BACKEND_PROACTOR; }

#endif
