// SPDX-License-Identifier: Apache-2.0
/* calls.c: queued callbacks and timers.
 *
 * Both are an lc_call from one table, so both are named by slot and generation and cancelled the same way. A timer that
 * is due only joins the ready list; it runs with everything else there. */
#include <time.h>
#include "internal.h"

enum { LC__CALL_FREE = 0, LC__CALL_TIMER, LC__CALL_READY, LC__CALL_CANCELLED };

uint64_t lc_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static lc_call *lc__call_at_slot(const lc_loop *loop, uint32_t slot) {
    return &loop->call_chunks[slot / LC__CHUNK][slot % LC__CHUNK];
}

static int lc__calls_grow(lc_loop *loop) {
    lc_call **chunks = realloc(loop->call_chunks, (loop->call_chunk_count + 1) * sizeof *chunks);
    if (!chunks)
        return -ENOMEM;
    loop->call_chunks = chunks;
    lc_call *chunk = calloc(LC__CHUNK, sizeof *chunk);
    if (!chunk)
        return -ENOMEM;
    chunks[loop->call_chunk_count] = chunk;
    for (uint32_t index = LC__CHUNK; index-- > 0;) {
        chunk[index].slot = loop->call_chunk_count * LC__CHUNK + index;
        chunk[index].generation = 1;
        chunk[index].node.next = loop->free_calls;
        loop->free_calls = &chunk[index].node;
    }
    loop->call_chunk_count++;
    return 0;
}

static lc_call *lc__call_take(lc_loop *loop, lc_kind kind) {
    if (!loop->free_calls && lc__calls_grow(loop) < 0)
        return NULL;
    lc_call *call = lc__container_of(loop->free_calls, lc_call, node);
    loop->free_calls = call->node.next;
    call->node.kind = kind;
    return call;
}

static void lc__call_free(lc_loop *loop, lc_call *call) {
    call->state = LC__CALL_FREE;
    call->generation++;
    call->node.next = loop->free_calls;
    loop->free_calls = &call->node;
}

static lc_call_id lc__call_id(const lc_call *call) {
    return (lc_call_id){.slot = call->slot, .generation = call->generation};
}

static int lc__call_soon(lc_loop *loop, lc_kind kind, lc_call **out) {
    if (loop->closed)
        return -EBADF;
    lc_call *call = lc__call_take(loop, kind);
    if (!call)
        return -ENOMEM;
    call->state = LC__CALL_READY;
    lc__queue_push(&loop->ready, &call->node);
    *out = call;
    return 0;
}

static int lc__call_at(lc_loop *loop, lc_kind kind, uint64_t deadline_ns, lc_call **out) {
    if (loop->closed)
        return -EBADF;
    lc_call *call = lc__call_take(loop, kind);
    if (!call)
        return -ENOMEM;
    int result = lc__heap_push(&loop->timers, deadline_ns, call);
    if (result < 0) {
        lc__call_free(loop, call);
        return result;
    }
    call->state = LC__CALL_TIMER;
    *out = call;
    return 0;
}

int lc_call_soon_body(lc_loop *loop, lc_call **out) { return lc__call_soon(loop, LC_KIND_CALL, out); }

int lc_call_at_body(lc_loop *loop, uint64_t deadline_ns, lc_call **out) {
    return lc__call_at(loop, LC_KIND_CALL, deadline_ns, out);
}

int lc_call_soon(lc_loop *loop, lc_kind kind, uint64_t word, lc_call_id *out) {
    lc_call *call;
    int result = lc__call_soon(loop, kind, &call);
    if (result < 0)
        return result;
    call->word = word;
    *out = lc__call_id(call);
    return 0;
}

int lc_call_at(lc_loop *loop, lc_kind kind, uint64_t deadline_ns, uint64_t word, lc_call_id *out) {
    lc_call *call;
    int result = lc__call_at(loop, kind, deadline_ns, &call);
    if (result < 0)
        return result;
    call->word = word;
    *out = lc__call_id(call);
    return 0;
}

static lc_call *lc__call_find(const lc_loop *loop, lc_call_id id) {
    if (id.slot / LC__CHUNK >= loop->call_chunk_count)
        return NULL;
    lc_call *call = lc__call_at_slot(loop, id.slot);
    bool pending = call->state == LC__CALL_TIMER || call->state == LC__CALL_READY;
    return call->generation == id.generation && pending ? call : NULL;
}

bool lc_call_is_pending(const lc_loop *loop, lc_call_id id) { return lc__call_find(loop, id) != NULL; }

lc_call *lc_call_cancel_body(lc_loop *loop, lc_call_id id) {
    lc__heap_prefetch_last(&loop->timers);
    lc_call *call = lc__call_find(loop, id);
    if (!call)
        return NULL;
    if (call->state == LC__CALL_TIMER) {
        lc__heap_remove(&loop->timers, call->heap_index);
        lc__call_free(loop, call);
    } else {
        /* In the middle of a singly linked list: it is skipped, and freed, when its turn comes. */
        call->state = LC__CALL_CANCELLED;
    }
    return call;
}

int lc_call_cancel(lc_loop *loop, lc_call_id id, uint64_t *word) {
    lc_call *call = lc_call_cancel_body(loop, id);
    if (!call)
        return 0;
    *word = call->word;
    return 1;
}

lc_call *lc_call_left_over(lc_loop *loop, uint32_t *slot) {
    for (; *slot < loop->call_chunk_count * LC__CHUNK; (*slot)++) {
        lc_call *call = lc__call_at_slot(loop, *slot);
        if (call->node.kind == LC_KIND_CALL && lc_call_cancel_body(loop, lc__call_id(call)))
            return call;
    }
    return NULL;
}

/* On leaving the ready list. False: it was cancelled and is not to be delivered. The record is free in both cases, but
 * nothing takes it before the caller has looked at it. */
bool lc__call_leave(lc_loop *loop, lc_call *call) {
    bool live = call->state == LC__CALL_READY;
    lc__call_free(loop, call);
    return live;
}

bool lc_loop_next_deadline(const lc_loop *loop, uint64_t *deadline_ns) {
    *deadline_ns = loop->timers.count ? loop->timers.entries[0].deadline_ns : UINT64_MAX;
    if (loop->listeners_untimed) {
        uint64_t retry_ns = lc__listener_untimed_ns(loop);
        *deadline_ns = retry_ns < *deadline_ns ? retry_ns : *deadline_ns;
    }
    return loop->timers.count || loop->listeners_untimed;
}

static void lc__timer_ready(lc_loop *loop) {
    lc_call *call = loop->timers.entries[0].call;
    lc__heap_remove(&loop->timers, 0);
    if (call->node.kind == LC_KIND_LISTENER_RETRY) {
        lc_listener *listener = (lc_listener *)(uintptr_t)call->word;
        lc__call_free(loop, call);
        lc__listener_retry(listener);
        return;
    }
    call->state = LC__CALL_READY;
    lc__queue_push(&loop->ready, &call->node);
}

/* Phase 6: due timers join the ready list in deadline order, those of equal deadline in the order they were set. The
 * clock is read after the wait, so nothing fires early. */
void lc__timers_expire(lc_loop *loop) {
    if (loop->listeners_untimed)
        lc__listener_expire_untimed(loop);
    if (!loop->timers.count)
        return;
    uint64_t now = lc_now_ns();
    while (loop->timers.count && loop->timers.entries[0].deadline_ns <= now)
        lc__timer_ready(loop);
}

/* The loop is closed: everything that waits for its time goes to the ready list, for its owner to dispose of. */
void lc__calls_drop(lc_loop *loop) {
    while (loop->timers.count) {
        if (loop->timers.entries[0].call->node.kind == LC_KIND_LISTENER_RETRY) {
            lc_call *call = loop->timers.entries[0].call;
            lc__heap_remove(&loop->timers, 0);
            lc__call_free(loop, call);
        } else {
            lc__timer_ready(loop);
        }
    }
}
