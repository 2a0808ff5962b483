// SPDX-License-Identifier: Apache-2.0
/* lc_swift.h: what the core has to do with Swift's tasks: how they wait, and how a cancel finds them.
 *
 * First the two entry points of the concurrency runtime behind `withTaskCancellationHandler`. That function is opaque to Swift's optimiser. A wait that goes through it costs two frames more, and on the way back
 * each frame looks up its task's executor under a lock: 3 of the 5 such look-ups of an echo. The entry points are part
 * of the runtime's ABI, as older code had them inlined. Only Swift code refers to them, so plain C links without. Any
 * thread may run a handler, at most once, while it is set. */
#ifndef LC_SWIFT_H
#define LC_SWIFT_H

#include "lc_net.h"

/* In a stream's waiter: the word is a parked task rather than a continuation, and is run rather than resumed. */
enum { LC_WAITER_PARKED = 1 };

/* A task between its first instruction and its last. A later one may have its address, but not its number. */
typedef struct lc_task_id {
    uint64_t task; /* 0: there was no memory to note it */
    uint64_t number;
} lc_task_id;

#if defined(__clang__)

/* Whether the current task may park until the stream has something to take: nobody waits there, the loop has spawned the
 * task, and it is not cancelled. If so, it has to do that next. On the loop's thread. */
bool lc_stream_may_park(lc_stream *stream);
/* The current task's cancel is taken care of from here on. */
lc_task_id lc_task_enter(lc_loop *loop);
void lc_task_leave(lc_loop *loop, lc_task_id id);
/* Ends the wait that the task is parked in, and keeps it from parking again. A task that has left is none. */
void lc_task_cancel(lc_loop *loop, lc_task_id id);

/* In Swift: what to do about a cancelled wait of the object. */
void event_loops_cancel_receive(void *object);
void event_loops_cancel_send(void *object);

typedef __attribute__((swiftcall)) void (*lc_cancel_handler)(__attribute__((swift_context)) void *);
__attribute__((swiftcall)) void *swift_task_addCancellationHandler(lc_cancel_handler handler, void *context);
__attribute__((swiftcall)) void swift_task_removeCancellationHandler(void *record);

static inline __attribute__((swiftcall)) void lc__on_cancel_receive(__attribute__((swift_context)) void *object) {
    event_loops_cancel_receive(object);
}

static inline __attribute__((swiftcall)) void lc__on_cancel_send(__attribute__((swift_context)) void *object) {
    event_loops_cancel_send(object);
}

/* Sets a handler for the current task; the record lies in the task's stack and goes before anything older there. */
static inline void *lc_set_cancel_receive(void *object) {
    return swift_task_addCancellationHandler(lc__on_cancel_receive, object);
}

static inline void *lc_set_cancel_send(void *object) {
    return swift_task_addCancellationHandler(lc__on_cancel_send, object);
}

static inline void lc_unset_cancel(void *record) { swift_task_removeCancellationHandler(record); }

#endif
#endif
