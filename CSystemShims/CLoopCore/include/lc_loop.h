// SPDX-License-Identifier: Apache-2.0
/* lc_loop.h: a loop's life: make, enter, tick, wake, stop, close, free; calls, timers, jobs.
 *
 * Unless a function says "any thread", it runs on the loop's thread, or on the thread that sets the loop up while
 * nobody runs it. Functions return >= 0 or a negated errno. */
#ifndef LC_LOOP_H
#define LC_LOOP_H

#include <stdbool.h>
#include "lc_op.h"

typedef struct lc_loop lc_loop;

typedef enum lc_backend {
    LC_BACKEND_SELECTOR = 1, /* readiness, on libev */
    LC_BACKEND_PROACTOR = 2, /* completion, on io_uring */
} lc_backend;

typedef enum lc_selector {
    LC_SELECTOR_BEST = 0, /* the most efficient that this platform really offers */
    LC_SELECTOR_EPOLL,
    LC_SELECTOR_POLL,
    LC_SELECTOR_SELECT,
} lc_selector;

/* Optional features of the completion backend, as found or as switched off for a test. */
enum {
    LC_FEATURE_DEFER_TASKRUN = 1u << 0,
    LC_FEATURE_SINGLE_ISSUER = 1u << 1,
    LC_FEATURE_COOP_TASKRUN = 1u << 2,
    LC_FEATURE_SUBMIT_ALL = 1u << 3,
    LC_FEATURE_MULTISHOT_ACCEPT = 1u << 4,
    LC_FEATURE_BUFFER_RING = 1u << 5, /* and multishot receive from it */
    LC_FEATURE_REGISTERED_RING = 1u << 6,
};

typedef struct lc_options {
    uint32_t backend;          /* lc_backend */
    uint32_t selector;         /* lc_selector; readiness backend only */
    uint32_t submission_count; /* SQ entries, rounded up to a power of two, at most 32768; 0: default */
    uint32_t completion_count; /* CQ entries, likewise, at most 65536; 0: default */
    uint32_t buffer_count;     /* leases in the receive group, likewise, at most 32768; 0: default */
    uint32_t buffer_size;      /* bytes per lease; 0: default */
    uint32_t reap_batch_max;   /* completions or events taken per tick; 0: default */
    uint32_t accept_batch_max; /* connections a listener hands out in a pass, or holds for nobody; 0: default */
    uint32_t features_off;     /* LC_FEATURE_* not to use even if present */
} lc_options;

/* Counters, each bumped in one place. Read them from the loop's thread. */
typedef struct lc_stats {
    uint64_t ticks;           /* passes */
    uint64_t enters;          /* kernel entries made to submit or wait */
    uint64_t completions;     /* CQEs reaped, or watcher events taken */
    uint64_t stale;           /* completions whose operation had ended: normal, dropped */
    uint64_t overflows;       /* CQ overflow seen and flushed */
    uint64_t queue_full;      /* SQ was full; the operation waited for the next tick */
    uint64_t starved;         /* receives that found no buffer */
    uint64_t copied_out;      /* receives copied to heap because few buffers were left */
    uint64_t wakes;           /* eventfd writes seen */
    uint64_t accept_backoffs; /* accepts suspended for want of descriptors or memory */
    uint64_t delivered;       /* nodes handed out */
    /* now, not ever: */
    uint32_t queued;
    uint32_t in_kernel;
    uint32_t armed;
    uint32_t leased;
    uint32_t timers;
    uint32_t streams;
} lc_stats;

/* ---- life ---- */

/* Makes a loop. Thread: any. -EINVAL: no such backend or selector. -ENOMEM: no memory for what was asked for. Else the
 * errors of the backend's set-up, for example -EPERM or -ENOSYS where io_uring is refused. */
int lc_loop_create(const lc_options *options, lc_loop **out);
/* Closes what is open and frees the memory. Thread: the last owner's. */
void lc_loop_free(lc_loop *loop);
/* Ends every operation, closes every descriptor the loop owns. Nothing queued is run. -EBUSY while it runs. */
int lc_loop_close(lc_loop *loop);
bool lc_loop_is_closed(const lc_loop *loop);

/* Binds the loop to this thread for one run. -EBADF: closed. -EALREADY: it runs already, here or on another
 * thread. -EDEADLK: another loop runs on this thread. -EXDEV: its ring belongs to another thread and still has work in
 * the kernel. -EOWNERDEAD: forked. */
int lc_loop_enter(lc_loop *loop);
void lc_loop_leave(lc_loop *loop);

/* Whether a pass may sleep. WHILE_ALIVE: unless what it has just submitted was the last there was to do. */
typedef enum lc_wait { LC_WAIT_NONE = 0, LC_WAIT_EVENT, LC_WAIT_WHILE_ALIVE } lc_wait;

/* Phases 1 to 6 of a pass (docs/tick.md). Returns the number of entries to deliver, or < 0. */
int lc_loop_tick(lc_loop *loop, lc_wait wait);
/* Phase 7: the next entry of this pass, or NULL, after which phase 8 has run too. */
lc_node *lc_loop_next(lc_loop *loop);

/* Asks run to end after this pass. Thread: any. */
void lc_loop_stop(lc_loop *loop);
/* True once stop was asked; clears the wish. */
bool lc_loop_take_stop(lc_loop *loop);
/* True while something could still happen without help from other threads: entries, timers, operations. */
bool lc_loop_is_alive(const lc_loop *loop);

/* The loop that runs on this thread, or NULL. Thread: any. */
lc_loop *lc_loop_current(void);
/* Names the loop for good; a number is never given twice. Thread: any. */
uint64_t lc_loop_number(const lc_loop *loop);
/* The loop of this number, or NULL if it has been freed. Fast for the one that runs on this thread. Of any other, only
 * who made it may ask, as it could be freed meanwhile. */
lc_loop *lc_loop_numbered(uint64_t number);
bool lc_loop_is_running(const lc_loop *loop);
/* True in a child process that inherited the loop by fork. Thread: any. */
bool lc_loop_is_forked(const lc_loop *loop);
/* How many forks lie between the first process and this one. Thread: any. */
uint32_t lc_fork_generation(void);
bool lc_is_main_thread(void);
int64_t lc_thread_id(void);

/* ---- passes that somebody else's loop drives ---- */

/* A descriptor that is readable when a pass would find something, after lc_loop_prepare_to_wait; or -1: none. The loop
 * has been entered. A search of this process's descriptors on the selector, so ask once. */
int lc_loop_backend_fd(const lc_loop *loop);
/* Announces a wait at that descriptor, so that other threads wake it. For how long it may last: 0: not at all, < 0: until
 * it is readable, else that many nanoseconds. The next pass ends the wait. */
int64_t lc_loop_prepare_to_wait(lc_loop *loop);
/* In the middle of a delivery: what this pass has not delivered yet comes first in the next. */
void lc_loop_end_pass(lc_loop *loop);

void lc_loop_set_owner(lc_loop *loop, void *owner);
void *lc_loop_owner(const lc_loop *loop);
const char *lc_loop_backend_name(const lc_loop *loop);
uint32_t lc_loop_features(const lc_loop *loop);
void lc_loop_stats(const lc_loop *loop, lc_stats *out);
/* Walks every list and counter and aborts with a message when they disagree. For tests; costs O(everything). */
void lc_loop_verify(const lc_loop *loop);

/* ---- time ---- */

/* CLOCK_MONOTONIC in nanoseconds, read now. Thread: any. */
uint64_t lc_now_ns(void);

/* ---- calls and timers ---- */

/* A queued callback or a timer. Named by slot and generation, so a late cancel hits nobody else. */
typedef struct lc_call {
    lc_node node; /* loop: ready list or free list */
    union {
        uint64_t word; /* owner */
        void *body[2]; /* owner: what a callback runs, kept here so that a timer is one record and not two */
    };
    uint32_t slot;       /* loop: index in the table of calls, stable for life */
    uint32_t generation; /* loop: bumped whenever the slot is freed */
    uint32_t heap_index; /* loop: where in the heap, while a timer */
    uint32_t state;      /* loop: 0 free, 1 timer, 2 ready, 3 cancelled on the ready list */
} lc_call;

static inline void *lc_call_place(lc_call *call) { return call->body; }

typedef struct lc_call_id {
    uint32_t slot;
    uint32_t generation;
} lc_call_id;

/* kind: LC_KIND_CALL or LC_KIND_SLEEP. -ENOMEM only while the table grows. */
int lc_call_soon(lc_loop *loop, lc_kind kind, uint64_t word, lc_call_id *out);
int lc_call_at(lc_loop *loop, lc_kind kind, uint64_t deadline_ns, uint64_t word, lc_call_id *out);
/* The same with kind LC_KIND_CALL: *out is the record, whose body the owner fills. It takes the body out again when the
 * record is delivered, or cancelled, or left over, before it calls anything else here. */
int lc_call_soon_body(lc_loop *loop, lc_call **out);
int lc_call_at_body(lc_loop *loop, uint64_t deadline_ns, lc_call **out);
/* 1 if it was pending and will not run, 0 if it had run or was cancelled before. *word gets the owner's word. */
int lc_call_cancel(lc_loop *loop, lc_call_id id, uint64_t *word);
/* The same; the record, for its body, or NULL. */
lc_call *lc_call_cancel_body(lc_loop *loop, lc_call_id id);
/* Of a closed loop, once nothing is left to drop: cancels one of the callbacks that nobody was handed, as those of a
 * loop that was closed in a forked child. *slot starts at 0. NULL: no more. */
lc_call *lc_call_left_over(lc_loop *loop, uint32_t *slot);
bool lc_call_is_pending(const lc_loop *loop, lc_call_id id);
bool lc_loop_next_deadline(const lc_loop *loop, uint64_t *deadline_ns);

/* ---- from other threads ---- */

typedef struct lc_post {
    lc_node node;
    union {
        void *word;    /* owner */
        void *body[2]; /* owner: what to run */
    };
} lc_post;

/* A post from this thread's supply, and back when it has run; posts may come from elsewhere as well. NULL: no memory.
 * Thread: any. */
lc_post *lc_post_make(void);
void lc_post_free(lc_post *post);
static inline void *lc_post_place(lc_post *post) { return post->body; }

/* Queues a call and wakes the loop if it sleeps. Thread: any. -EBADF: the loop is closed and the post is the caller's. */
int lc_loop_post(lc_loop *loop, lc_post *post);
/* Queues a Swift job: at the end of the ready list on the loop's thread, through the inbox elsewhere. -EBADF: closed. */
int lc_loop_enqueue_job(lc_loop *loop, void *job, lc_kind kind);
/* Between these two, a job enqueued on the loop's thread is kept aside for the caller, who runs it at once: it is the
 * waiter of the entry being delivered, and its turn is now. */
void lc_loop_begin_resume(lc_loop *loop);
void *lc_loop_end_resume(lc_loop *loop, lc_kind *kind);
/* Moves what other threads left to the ready list, so that later entries queue up behind it. */
void lc_loop_drain_inbox(lc_loop *loop);
/* Takes entries out of a loop that is closing, in order; the caller disposes of them. */
lc_node *lc_loop_drop_next(lc_loop *loop);

/* ---- one-shot operations ---- */

/* Waits until fd is readable or writable. The operation comes from lc_op_make and goes back with lc_op_release.
 * -EPERM: not pollable (a regular file or directory). -EBUSY: somebody waits for it already. -EEXIST: a stream or
 * listener of this loop owns it. */
lc_op *lc_op_make(lc_loop *loop);
void lc_op_release(lc_loop *loop, lc_op *op);
int lc_op_poll(lc_loop *loop, lc_op *op, int fd, bool write, uint64_t word);
/* The same, for as long as it is wanted: the operation keeps its place at the descriptor after it was delivered, and is
 * asked again with lc_op_watch_again, at the cost of a look at a table and of fcntl. Its word is 0 and its address the watcher, which
 * is the owner's and not NULL. Takes the place of an operation that watches already, which the owner then has to
 * unwatch. Errors as above; of the second also -EEXIST, after which the operation is still the owner's to unwatch. */
int lc_op_watch(lc_loop *loop, lc_op *op, int fd, bool write, const void *watcher);
int lc_op_watch_again(lc_loop *loop, lc_op *op);
/* Who watches, or NULL. Any descriptor, also a closed one. */
const void *lc_op_watcher(const lc_loop *loop, int fd, bool write);
/* Leaves the place, and asks for an end: an operation that was not delivered since it was asked is delivered once more,
 * and released then. */
void lc_op_unwatch(lc_loop *loop, lc_op *op);
/* Of a closed loop, once nothing is left to drop: a watcher that nobody was handed, as those of a loop that was closed
 * in a forked child. The owner unwatches it. *fd starts at 0. NULL: no more. */
const void *lc_op_watcher_left_over(const lc_loop *loop, int *fd);
/* Asks for an end; the operation is delivered once more, with -ECANCELED or with its result. */
void lc_op_cancel(lc_loop *loop, lc_op *op);

#endif
