// SPDX-License-Identifier: Apache-2.0
/* loop.c: the tick: phases in the order of docs/tick.md; and the life of a loop around it.
 *
 * Owns the ready list and the order of everything. Only lc_loop_next() hands anything to user code: backends, timers
 * and the inbox merely append to the ready list, so nothing re-enters and stacks stay short. */
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "internal.h"

/* ---- threads and forks ---- */

static _Thread_local lc_loop *lc__current;
static _Atomic(uint32_t) lc__forks;
static pthread_once_t lc__fork_hook_once = PTHREAD_ONCE_INIT;

/* In the child: every loop made so far belongs to the parent, and none runs here. */
static void lc__in_child(void) {
    atomic_fetch_add(&lc__forks, 1);
    lc__current = NULL;
}

static void lc__fork_hook(void) { pthread_atfork(NULL, NULL, lc__in_child); }

uint32_t lc_fork_generation(void) {
    pthread_once(&lc__fork_hook_once, lc__fork_hook);
    return atomic_load_explicit(&lc__forks, memory_order_relaxed);
}

lc_loop *lc_loop_current(void) { return lc__current; }
/* Unlike a thread id, never given out again. */
uint64_t lc__thread_serial(void) {
    static _Atomic(uint64_t) last;
    static _Thread_local uint64_t serial;
    if (!serial)
        serial = atomic_fetch_add(&last, 1) + 1;
    return serial;
}

int64_t lc_thread_id(void) { return syscall(SYS_gettid); }
bool lc_is_main_thread(void) { return lc_thread_id() == getpid(); }
bool lc_loop_is_forked(const lc_loop *loop) { return loop->fork_generation != lc_fork_generation(); }

/* ---- make ---- */

static bool lc__options_make_sense(const lc_options *options) {
    return options->backend == LC_BACKEND_PROACTOR ||
           (options->backend == LC_BACKEND_SELECTOR && options->selector <= LC_SELECTOR_SELECT);
}

int lc_loop_create(const lc_options *options, lc_loop **out) {
    if (!lc__options_make_sense(options))
        return -EINVAL;
    lc_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->options = *options;
    loop->backend = (uint8_t)options->backend;
    loop->fork_generation = lc_fork_generation();
    int result = lc__registry_add(loop);
    if (result == 0)
        result = lc__shared_create(options, loop, &loop->shared);
    if (result < 0) {
        lc__registry_remove(loop);
        free(loop);
        return result;
    }
    result = lc__is_proactor(loop) ? lc__proactor_create(loop) : lc__selector_create(loop);
    if (result < 0) {
        loop->closed = true;
        lc__inbox_close(loop->shared);
        lc__shared_detach(loop->shared);
        lc__shared_unref(loop->shared);
        lc__registry_remove(loop);
        free(loop);
        return result;
    }
    *out = loop;
    return 0;
}

void *lc__slab_make(lc_loop *loop, size_t size, size_t count) {
    /* The first 64 bytes link the slab, and keep what follows on cache lines of its own. */
    void *slab = NULL;
    if (posix_memalign(&slab, 64, 64 + size * count) != 0)
        return NULL;
    memset(slab, 0, 64 + size * count);
    *(void **)slab = loop->slabs;
    loop->slabs = slab;
    return (char *)slab + 64;
}

lc__fd *lc__fd_entry(lc_loop *loop, int fd) {
    uint32_t chunk = (uint32_t)fd / LC__CHUNK;
    if (chunk >= loop->fd_chunk_count) {
        uint32_t count = chunk + 1 > loop->fd_chunk_count * 2 ? chunk + 1 : loop->fd_chunk_count * 2;
        lc__fd **chunks = realloc(loop->fd_chunks, count * sizeof *chunks);
        if (!chunks)
            return NULL;
        memset(chunks + loop->fd_chunk_count, 0, (count - loop->fd_chunk_count) * sizeof *chunks);
        loop->fd_chunks = chunks;
        loop->fd_chunk_count = count;
    }
    if (!loop->fd_chunks[chunk])
        loop->fd_chunks[chunk] = calloc(LC__CHUNK, sizeof(lc__fd));
    return loop->fd_chunks[chunk] ? &loop->fd_chunks[chunk][(uint32_t)fd % LC__CHUNK] : NULL;
}

/* ---- run ---- */

int lc_loop_enter(lc_loop *loop) {
    if (lc_loop_is_forked(loop))
        return -EOWNERDEAD;
    if (loop->closed)
        return -EBADF;
    if (atomic_exchange(&loop->running, true)) /* two threads may ask at once */
        return -EALREADY;
    int result = lc__current ? -EDEADLK : lc__is_proactor(loop) ? lc__proactor_bind(loop) : 0;
    if (result < 0)
        atomic_store(&loop->running, false);
    else
        lc__current = loop;
    return result;
}

void lc_loop_end_pass(lc_loop *loop) {
    lc__queue_append(&loop->batch, &loop->ready);
    loop->ready = loop->batch;
    loop->batch = (lc__queue){0};
}

void lc_loop_leave(lc_loop *loop) {
    lc_loop_end_pass(loop); /* what this pass did not get to comes first in the next run */
    lc__current = NULL;
    atomic_store(&loop->running, false); /* last: another thread may be waiting to enter */
}

/* Phase 1. Buffers that came back go to the kernel with this entry; then what was starved for them; then what was
 * queued; then one gathering send for each stream that has something to say. */
static void lc__phase_submit(lc_loop *loop) {
    lc__op_cancel_listed(loop);
    lc__op_feed_starved(loop);
    lc_op *op = loop->queued_head;
    loop->queued_head = loop->queued_tail = NULL;
    while (op) {
        lc_op *next = op->next_queued;
        loop->stats.queued--;
        op->state = LC_STATE_IDLE;
        if (op->flags & LC_FLAG_CANCEL_ASKED) {
            lc__op_ended(loop, op);
        } else if (!lc__is_proactor(loop)) {
            lc__selector_start(loop, op);
        } else if (!lc__proactor_start(loop, op)) {
            lc__op_submit(loop, op); /* a full SQ is ordinary: next tick */
            loop->stats.queue_full++;
        }
        op = next;
    }
    lc__stream_flush_dirty(loop);
}

/* Phase 2. How long may the kernel keep us: 0, or until the next deadline, or (-1) until something happens. */
static int64_t lc__phase_wait(lc_loop *loop, lc_wait wait) {
    struct lc_shared *shared = loop->shared;
    if (wait == LC_WAIT_NONE || (wait == LC_WAIT_WHILE_ALIVE && !lc_loop_is_alive(loop)) || loop->ready.head ||
        loop->batch.head || loop->queued_head || loop->dirty_head || loop->cancel_head || loop->closing_streams ||
        loop->closing_listeners || atomic_load_explicit(&shared->stop, memory_order_relaxed))
        return 0;
    /* A buffer that the last one fed had no use for is for the next in line. */
    if (loop->starved_head && shared->held > 0)
        return 0;
    uint64_t deadline_ns;
    if (!lc_loop_next_deadline(loop, &deadline_ns))
        return -1;
    uint64_t now_ns = lc_now_ns();
    if (deadline_ns <= now_ns)
        return 0;
    uint64_t longest_ns = (uint64_t)LC__SLEEP_MAX_S * 1000000000u;
    return (int64_t)(deadline_ns - now_ns < longest_ns ? deadline_ns - now_ns : longest_ns);
}

/* Phase 3. Into the kernel, once. */
static int lc__phase_enter(lc_loop *loop, int64_t timeout_ns) {
    if (timeout_ns != 0 && !lc__inbox_before_sleep(loop->shared))
        timeout_ns = 0;
    int result =
        lc__is_proactor(loop) ? lc__proactor_enter(loop, timeout_ns) : lc__selector_enter(loop, timeout_ns != 0);
    lc__inbox_after_sleep(loop->shared);
    return result;
}

int64_t lc_loop_prepare_to_wait(lc_loop *loop) {
    int64_t timeout_ns = lc__phase_wait(loop, LC_WAIT_EVENT);
    if (timeout_ns != 0 && !(lc__is_proactor(loop) ? lc__proactor_settled(loop) : lc__selector_settle(loop)))
        timeout_ns = 0;
    return timeout_ns != 0 && !lc__inbox_before_sleep(loop->shared) ? 0 : timeout_ns;
}

/* Phase 4. What other threads left, oldest first. */
void lc_loop_drain_inbox(lc_loop *loop) {
    lc_node *node = lc__inbox_take(loop->shared);
    while (node) {
        lc_node *next = node->next;
        switch ((lc_kind)node->kind) {
        case LC_KIND_BUFFER:
            lc__buffer_return_here(loop, lc__container_of(node, lc_buffer, node));
            break;
        case LC_KIND_STREAM_RELEASE:
            lc__stream_release_now(lc__container_of(node, lc_stream, release));
            break;
        default:
            lc__queue_push(&loop->ready, node);
            break;
        }
        node = next;
    }
}

int lc_loop_tick(lc_loop *loop, lc_wait wait) {
    assert(loop->running && lc__current == loop);
    loop->stats.ticks++;
    lc__phase_submit(loop);
    int result = lc__phase_enter(loop, lc__phase_wait(loop, wait));
    lc_loop_drain_inbox(loop);
    if (lc__is_proactor(loop))
        lc__proactor_reap(loop); /* phase 5 */
    else
        lc__selector_reap(loop);
    lc__timers_expire(loop); /* phase 6 */
    /* What is ready now runs in this pass; what it adds runs in the next, after another look at the kernel. */
    lc__queue_append(&loop->batch, &loop->ready);
    return result < 0 ? result : (int)loop->batch.count;
}

static const lc_stream *lc__receiving_stream(const lc_node *node) {
    return node && node->kind == LC_KIND_RECEIVE ? lc__container_of(node, lc_stream, receive.node) : NULL;
}

static inline void lc__prefetch(const void *address, size_t lines) {
    for (size_t line = 0; address && line < lines; line++)
        __builtin_prefetch((const char *)address + line * 64, 1);
}

/* With many connections everything about the next one is cold: its stream, then, by way of that, the task that waits
 * and the object it waits at. Asked for two entries and one entry ahead, most of it is there in time. */
static inline void lc__prefetch_ahead(const lc_node *next) {
    const lc_stream *stream = lc__receiving_stream(next);
    if (!stream)
        return;
    lc__prefetch((const void *)(uintptr_t)(stream->receive.word & ~(uint64_t)LC_WAITER_PARKED), LC__TASK_LINES);
    lc__prefetch((const void *)(uintptr_t)stream->word, 2);
    stream = lc__receiving_stream(next->next);
    if (stream)
        lc__prefetch(stream, 4);
}

/* Phase 7, one entry at a time, then phase 8. Entries cancelled since they were queued are skipped here. */
lc_node *lc_loop_next(lc_loop *loop) {
    lc_node *node;
    while ((node = lc__queue_pop(&loop->batch))) {
        bool live = true;
        lc__prefetch_ahead(loop->batch.head);
        switch ((lc_kind)node->kind) {
        case LC_KIND_CALL:
        case LC_KIND_SLEEP:
            live = lc__call_leave(loop, lc__container_of(node, lc_call, node));
            break;
        case LC_KIND_RECEIVE:
            live = !lc__stream_receive_dropped(lc__container_of(node, lc_stream, receive.node));
            break;
        case LC_KIND_SEND:
            live = !lc__stream_node_dropped(lc__container_of(node, lc_stream, send.node), LC_KIND_SEND);
            break;
        case LC_KIND_CLOSED:
            live = !lc__stream_node_dropped(lc__container_of(node, lc_stream, closed_ready), LC_KIND_CLOSED);
            break;
        case LC_KIND_ACCEPT:
            live = !lc__listener_node_dropped(lc__container_of(node, lc_listener, ready));
            break;
        case LC_KIND_SIGNAL:
            live = lc__signal_take(lc_node_signal(node));
            break;
        default:
            break;
        }
        if (live) {
            loop->stats.delivered++;
            return node;
        }
    }
    lc__listener_close_finished(loop); /* phase 8 */
    lc__stream_close_finished(loop);
    return NULL;
}

void lc_loop_stop(lc_loop *loop) {
    atomic_store(&loop->shared->stop, 1);
    lc__inbox_wake(loop->shared);
}

bool lc_loop_take_stop(lc_loop *loop) { return atomic_exchange(&loop->shared->stop, 0); }

bool lc_loop_is_alive(const lc_loop *loop) {
    if (loop->closed)
        return false;
    return loop->ready.head || loop->batch.head || loop->timers.count || loop->queued_head || loop->dirty_head ||
           loop->starved_head || loop->closing_streams || loop->closing_listeners || loop->stats.in_kernel ||
           loop->stats.armed || loop->listeners_untimed || atomic_load(&loop->shared->inbox);
}

/* ---- jobs and posts ---- */

int lc_loop_post(lc_loop *loop, lc_post *post) {
    post->node.kind = LC_KIND_POST;
    if (lc__current == loop) {
        if (loop->closed)
            return -EBADF;
        lc__queue_push(&loop->ready, &post->node);
        return 0;
    }
    return lc_loop_is_forked(loop) ? -EBADF : lc__inbox_push(loop->shared, &post->node);
}

int lc_loop_enqueue_job(lc_loop *loop, void *job, lc_kind kind) {
    lc_node *node = &((lc_job *)job)->node;
    node->kind = kind;
    if (lc__current != loop) {
        /* The job keeps its loop alive only until it has run, which may be before this thread is back from the wake. */
        struct lc_shared *shared = loop->shared;
        atomic_fetch_add(&shared->references, 1);
        int result = lc__inbox_push(shared, node);
        lc__shared_unref(shared);
        return result;
    }
    if (loop->closed)
        return -EBADF;
    if (loop->resuming && !loop->woken)
        loop->woken = node;
    else
        lc__queue_push(&loop->ready, node);
    return 0;
}

void lc_loop_begin_resume(lc_loop *loop) { loop->resuming = true; }

void *lc_loop_end_resume(lc_loop *loop, lc_kind *kind) {
    loop->resuming = false;
    lc_node *node = loop->woken;
    if (!node)
        return NULL;
    loop->woken = NULL;
    *kind = (lc_kind)node->kind;
    return lc__container_of(node, lc_job, node);
}

/* ---- close ---- */

/* Tells every operation to end. Streams and listeners end theirs; the one-shot ones are found by descriptor. */
static void lc__cancel_everything(lc_loop *loop) {
    for (lc_stream *stream = loop->all_streams, *next; stream; stream = next) {
        next = stream->next_all;
        bool owed = stream->owes_loss;
        stream->owes_loss = false; /* told when the ready list is dropped, and the descriptor closes before */
        stream->loss_due = owed;
        lc_stream_close(stream, true, false);
        if (owed) {
            lc__stream_announce_loss(stream);
            lc__stream_maybe_close(stream);
        }
    }
    for (lc_listener *listener = loop->all_listeners, *next; listener; listener = next) {
        next = listener->next_all;
        lc_listener_close(listener);
    }
    for (uint32_t chunk = 0; chunk < loop->fd_chunk_count; chunk++) {
        for (uint32_t index = 0; loop->fd_chunks[chunk] && index < LC__CHUNK; index++) {
            lc__fd *entry = &loop->fd_chunks[chunk][index];
            if (entry->poll_read)
                lc__op_ask_cancel(loop, entry->poll_read);
            if (entry->poll_write)
                lc__op_ask_cancel(loop, entry->poll_write);
        }
    }
}

/* Ticks until the kernel holds nothing of ours, or lets go of nothing for too long. What is queued is not started any
 * more, only ended. */
static bool lc__drain_kernel(lc_loop *loop) {
    const uint64_t longest_ns = (uint64_t)LC__CLOSE_WAIT_MS * 1000000u;
    uint32_t least = loop->stats.in_kernel;
    uint64_t until_ns = lc_now_ns() + longest_ns;
    for (;;) {
        lc__phase_submit(loop);
        if (!lc__is_proactor(loop) || !loop->stats.in_kernel)
            break;
        if (loop->stats.in_kernel < least) {
            least = loop->stats.in_kernel;
            until_ns = lc_now_ns() + longest_ns;
        } else if (lc_now_ns() > until_ns) {
            return false;
        }
        /* A cancel that the SQ had no room for goes with the next entry. */
        lc__proactor_enter(loop, loop->cancel_head ? 0 : 10 * 1000 * 1000);
        lc__proactor_reap(loop);
    }
    lc__listener_close_finished(loop);
    lc__stream_close_finished(loop);
    lc__datagrams_close(loop);
    return true;
}

/* In a child process: the kernel objects are the parent's too. Only this process's descriptors go, those too that phase 8
 * was about to close: each number is closed once. */
static void lc__close_inherited(lc_loop *loop) {
    loop->closing_streams = NULL;
    loop->closing_listeners = NULL;
    for (lc_stream *stream = loop->all_streams; stream; stream = stream->next_all) {
        if (!stream->closed)
            close(stream->fd);
        stream->closed = true;
    }
    for (lc_listener *listener = loop->all_listeners; listener; listener = listener->next_all) {
        if (!listener->closed)
            close(listener->fd);
        listener->closed = true;
    }
    lc__datagrams_close(loop);
}

/* Their memory is kept, so the waiters at least can be told. */
static void lc__abandon_polls(lc_loop *loop) {
    for (uint32_t chunk = 0; chunk < loop->fd_chunk_count; chunk++) {
        for (uint32_t index = 0; loop->fd_chunks[chunk] && index < LC__CHUNK; index++) {
            lc_op *polls[] = {loop->fd_chunks[chunk][index].poll_read, loop->fd_chunks[chunk][index].poll_write};
            for (size_t side = 0; side < 2; side++) {
                if (!polls[side] || polls[side]->state == LC_STATE_DONE) /* a watcher's may be on the list already */
                    continue;
                polls[side]->state = LC_STATE_DONE;
                polls[side]->result = -ECANCELED;
                lc__ready_push(loop, &polls[side]->node, LC_KIND_OP);
            }
        }
    }
}

int lc_loop_close(lc_loop *loop) {
    if (lc_loop_is_running(loop))
        return -EBUSY;
    if (loop->closed)
        return 0;
    if (lc_loop_is_forked(loop)) {
        loop->closed = true;
        lc__close_inherited(loop);
        if (lc__is_proactor(loop))
            lc__proactor_destroy(loop);
        else
            lc__selector_destroy(loop);
        close(loop->shared->eventfd);
        return 0;
    }
    lc_loop_drain_inbox(loop);
    lc_loop *outer = lc__current;
    lc__current = loop; /* leases given back on the way come home directly */
    bool let_go = true;
    lc__cancel_everything(loop);
    if (!lc__is_proactor(loop) || lc__proactor_owned_here(loop) || !loop->stats.in_kernel)
        let_go = lc__drain_kernel(loop);
    else
        let_go = false;
    lc__current = outer;
    loop->closed = true;
    /* From here on pushes are refused; what came before is in the list. */
    for (lc_node *node = lc__inbox_close(loop->shared), *next; node; node = next) {
        next = node->next;
        if (node->kind == LC_KIND_BUFFER)
            lc__buffer_return_here(loop, lc__container_of(node, lc_buffer, node));
        else if (node->kind == LC_KIND_STREAM_RELEASE)
            lc__stream_release_now(lc__container_of(node, lc_stream, release));
        else
            lc__queue_push(&loop->ready, node);
    }
    lc__calls_drop(loop);
    if (lc__is_proactor(loop))
        lc__proactor_destroy(loop);
    else
        lc__selector_destroy(loop);
    if (!let_go) {
        fprintf(stderr,
                "swift-event-loops: a loop was closed while the kernel held %u of its operations; their memory is "
                "kept for good rather than freed under the kernel's hands. Close a loop on the thread that ran it.\n",
                loop->stats.in_kernel);
        lc__close_inherited(loop);
        for (lc_stream *stream = loop->all_streams; stream; stream = stream->next_all)
            lc__stream_closed_ready(stream);
        lc__abandon_polls(loop);
        atomic_fetch_add(&loop->shared->references, 1);
        loop->slabs = NULL;
    }
    lc__shared_detach(loop->shared);
    return 0;
}

lc_node *lc_loop_drop_next(lc_loop *loop) {
    lc__queue_append(&loop->batch, &loop->ready);
    return lc_loop_next(loop);
}

void lc_loop_free(lc_loop *loop) {
    lc_loop_close(loop);
    lc__registry_remove(loop);
    for (lc_listener *listener = loop->all_listeners, *next; listener; listener = next) {
        next = listener->next_all;
        free(listener);
    }
    lc__datagrams_free(loop);
    for (lc_stream *stream = loop->all_streams; stream; stream = stream->next_all)
        lc__stream_forget_ends(stream);
    for (void *slab = loop->slabs, *next; slab; slab = next) {
        next = *(void **)slab;
        free(slab);
    }
    for (uint32_t chunk = 0; chunk < loop->call_chunk_count; chunk++)
        free(loop->call_chunks[chunk]);
    free(loop->call_chunks);
    for (uint32_t chunk = 0; chunk < loop->fd_chunk_count; chunk++)
        free(loop->fd_chunks[chunk]);
    free(loop->fd_chunks);
    free(loop->timers.entries);
    free(loop->tasks.entries);
    if (!lc_loop_is_forked(loop)) /* in a child, the copy of it stays: leases may be anywhere */
        lc__shared_unref(loop->shared);
    free(loop);
}

/* ---- looking in ---- */

bool lc_loop_is_closed(const lc_loop *loop) { return loop->closed; }
/* Of a loop that was forked while it ran, the parent's copy runs; the child's does not. */
bool lc_loop_is_running(const lc_loop *loop) { return loop->running && !lc_loop_is_forked(loop); }
void lc_loop_set_owner(lc_loop *loop, void *owner) { loop->owner = owner; }
void *lc_loop_owner(const lc_loop *loop) { return loop->owner; }

const char *lc_loop_backend_name(const lc_loop *loop) {
    return lc__is_proactor(loop) ? "io_uring" : lc__selector_name(loop);
}

uint32_t lc_loop_features(const lc_loop *loop) { return lc__is_proactor(loop) ? lc__proactor_features(loop) : 0; }

void lc_loop_stats(const lc_loop *loop, lc_stats *out) {
    *out = loop->stats;
    out->leased = loop->shared->leased;
    out->timers = loop->timers.count;
}

static void lc__verify_that(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "swift-event-loops: broken invariant: %s\n", what);
        abort();
    }
}

void lc_loop_verify(const lc_loop *loop) {
    uint32_t queued = 0;
    for (lc_op *op = loop->queued_head; op; op = op->next_queued, queued++)
        lc__verify_that(op->state == LC_STATE_QUEUED, "an operation on the queued list is QUEUED");
    lc__verify_that(queued == loop->stats.queued, "the queued list has as many operations as counted");
    for (lc_op *op = loop->starved_head; op; op = op->next_queued)
        lc__verify_that(op->state == LC_STATE_STARVED, "an operation on the starved list is STARVED");
    size_t ready = 0;
    for (lc_node *node = loop->ready.head; node; node = node->next)
        ready++;
    lc__verify_that(ready == loop->ready.count, "the ready list has as many entries as counted");
    for (uint32_t index = 0; index < loop->timers.count; index++) {
        const lc__heap_entry *entry = &loop->timers.entries[index];
        lc__verify_that(entry->call->heap_index == index, "a timer knows its place in the heap");
        lc__verify_that(index == 0 || !lc__heap_before(entry, &loop->timers.entries[(index - 1) / 4]),
                        "no timer is due before its parent");
    }
    uint32_t streams = 0;
    for (lc_stream *stream = loop->all_streams; stream; stream = stream->next_all, streams++) {
        size_t unsent = 0;
        for (lc_node *node = stream->out.head; node; node = node->next)
            unsent += lc__container_of(node, lc_buffer, node)->length;
        lc__verify_that(unsent == stream->unsent, "unsent bytes are those in the queue");
    }
    lc__verify_that(streams == loop->stats.streams, "as many streams as counted");
    lc__verify_that(loop->shared->held <= loop->shared->buffer_count, "no buffer is held twice");
}
