// SPDX-License-Identifier: Apache-2.0
/* listener.c: accepting: connections on their way to whoever accepts, and what to do when none can be had.
 *
 * Want of descriptors or memory is not the listener's fault and passes: it is reported once, accepting pauses, and goes
 * on after a while or as soon as a descriptor of this loop is closed. */
#include <fcntl.h>
#include <unistd.h>
#include "internal.h"

int lc_listener_adopt(lc_loop *loop, int fd, lc_listener **out) {
    if (loop->closed)
        return -EBADF;
    int listening = 0, domain;
    socklen_t size = sizeof listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0)
        return -errno;
    if (!listening)
        return -EINVAL;
    int result = lc__descriptor_take_over(fd);
    if (result < 0)
        return result;
    lc__fd *entry = lc__fd_entry(loop, fd);
    lc_listener *listener = calloc(1, sizeof *listener);
    if (!entry || !listener) {
        free(listener);
        return -ENOMEM;
    }
    if (entry->owner || entry->poll_read || entry->poll_write) {
        free(listener);
        return -EBUSY;
    }
    entry->owner = listener;
    listener->loop = loop;
    listener->fd = fd;
    listener->local = domain == AF_UNIX;
    listener->accept = (lc_op){.fd = fd, .opcode = LC_OP_ACCEPT};
    listener->backoff_ms = LC__BACKOFF_MIN_MS;
    listener->next_all = loop->all_listeners;
    listener->link_all = &loop->all_listeners;
    if (listener->next_all)
        listener->next_all->link_all = &listener->next_all;
    loop->all_listeners = listener;
    *out = listener;
    return 0;
}

int lc_listener_fd(const lc_listener *listener) { return listener->fd; }
void lc_listener_set_word(lc_listener *listener, uint64_t word) { listener->word = word; }
uint64_t lc_listener_word(const lc_listener *listener) { return listener->word; }
bool lc_listener_is_closed(const lc_listener *listener) { return listener->closed; }

static uint32_t lc__accept_batch(const lc_loop *loop) {
    return loop->options.accept_batch_max ? loop->options.accept_batch_max : LC__ACCEPT_PENDING_MAX;
}

/* ---- the ready list ---- */

static bool lc__listener_wanted(const lc_listener *listener) { return listener->waiter || listener->started; }

static bool lc__listener_news(const lc_listener *listener) {
    return listener->pending.head || listener->cancelled || listener->closing || listener->maybe_ready ||
           listener->backoff_error;
}

static void lc__listener_ready(lc_listener *listener) {
    if (listener->ready_queued || !lc__listener_wanted(listener) || !lc__listener_news(listener))
        return;
    listener->ready_queued = true;
    lc__ready_push(listener->loop, &listener->ready, LC_KIND_ACCEPT);
}

static void lc__listener_free_if_done(lc_listener *listener) {
    if (!listener->closed || !listener->released || listener->ready_queued)
        return;
    *listener->link_all = listener->next_all;
    if (listener->next_all)
        listener->next_all->link_all = listener->link_all;
    free(listener);
}

bool lc__listener_node_dropped(lc_listener *listener) {
    listener->ready_queued = false;
    if (listener->released) {
        lc__listener_free_if_done(listener);
        return true;
    }
    return !lc__listener_wanted(listener);
}

/* ---- back-off ---- */

static void lc__listener_back_off(lc_listener *listener, int error) {
    lc_loop *loop = listener->loop;
    if (listener->backing_off)
        return;
    listener->backing_off = true;
    if (listener->backoff_ms == LC__BACKOFF_MIN_MS)
        listener->backoff_error = error; /* once per shortage, however often it is met */
    listener->maybe_ready = false;
    loop->listeners_backing_off++;
    loop->stats.accept_backoffs++;
    uint64_t deadline_ns = lc_now_ns() + (uint64_t)listener->backoff_ms * 1000000u;
    listener->backoff_ms =
        listener->backoff_ms * 2 < LC__BACKOFF_MAX_MS ? listener->backoff_ms * 2 : LC__BACKOFF_MAX_MS;
    if (lc_call_at(loop, LC_KIND_LISTENER_RETRY, deadline_ns, (uint64_t)(uintptr_t)listener, &listener->retry) < 0) {
        listener->retry = (lc_call_id){0};
        listener->retry_ns = deadline_ns;
        loop->listeners_untimed++;
    }
    if (!lc__is_proactor(loop) && listener->accept.state == LC_STATE_ARMED) {
        lc__selector_disarm(loop, &listener->accept);
        listener->accept.state = LC_STATE_IDLE;
    }
    lc__listener_ready(listener);
}

static void lc__listener_want(lc_listener *listener) {
    if (lc__listener_news(listener))
        lc__listener_ready(listener);
    else if (!listener->backing_off && listener->accept.state == LC_STATE_IDLE)
        lc__op_submit(listener->loop, &listener->accept);
}

static void lc__listener_end_back_off(lc_listener *listener) {
    listener->backing_off = false;
    listener->loop->listeners_backing_off--;
    listener->loop->listeners_untimed -= listener->retry_ns != 0;
    listener->retry_ns = 0;
}

void lc__listener_retry(lc_listener *listener) {
    lc__listener_end_back_off(listener);
    if (lc__listener_wanted(listener))
        lc__listener_want(listener);
}

/* Where memory is short, there may be none for a timer either. So rare that a walk over all will do. */
uint64_t lc__listener_untimed_ns(const lc_loop *loop) {
    uint64_t earliest_ns = UINT64_MAX;
    for (const lc_listener *listener = loop->all_listeners; listener; listener = listener->next_all)
        if (listener->retry_ns && listener->retry_ns < earliest_ns)
            earliest_ns = listener->retry_ns;
    return earliest_ns;
}

void lc__listener_expire_untimed(lc_loop *loop) {
    uint64_t now_ns = lc_now_ns();
    for (lc_listener *listener = loop->all_listeners; listener; listener = listener->next_all)
        if (listener->retry_ns && listener->retry_ns <= now_ns)
            lc__listener_retry(listener);
}

void lc__listener_descriptor_freed(lc_loop *loop) {
    if (!loop->listeners_backing_off)
        return;
    for (lc_listener *listener = loop->all_listeners; listener; listener = listener->next_all) {
        if (!listener->backing_off)
            continue;
        uint64_t word;
        lc_call_cancel(loop, listener->retry, &word);
        lc__listener_retry(listener);
    }
}

int lc_listener_take_backoff(lc_listener *listener) {
    int error = listener->backoff_error;
    listener->backoff_error = 0;
    return error;
}

/* ---- accepting ---- */

/* Makes a stream of an accepted descriptor, which is closed if that cannot be. */
static int lc__listener_keep(lc_listener *listener, int fd) {
    lc_stream *stream;
    int result = lc__stream_make(listener->loop, fd, &stream);
    if (result < 0) {
        close(fd);
        return result;
    }
    stream->local = listener->local;
    lc__stream_note_ends(stream);
    lc__queue_push(&listener->pending, &stream->closed_ready);
    return 0;
}

static void lc__listener_failed(lc_listener *listener, int error) {
    if (lc__error_is_exhaustion(error) || error == -EBUSY)
        lc__listener_back_off(listener, error);
    else if (!lc__error_is_retry(error) && !lc__error_is_aborted_peer(error))
        lc__listener_back_off(listener, error); /* unexpected: say so, and do not spin on it */
}

/* Proactor: an accept completed. */
void lc__listener_accepted(lc_listener *listener, int result, bool more) {
    lc_loop *loop = listener->loop;
    if (result >= 0 && listener->closing) {
        close(result); /* accepted while the cancel was on its way: nobody will ever hold it */
    } else if (result >= 0) {
        listener->backoff_ms = LC__BACKOFF_MIN_MS;
        result = lc__listener_keep(listener, result);
        if (result < 0)
            lc__listener_failed(listener, result);
    } else if (result != -ECANCELED && !listener->closing) {
        lc__listener_failed(listener, result); /* a closing one fails because it was shut down */
    }
    if (listener->closing) {
        if (!more)
            lc__listener_maybe_close(listener);
        return;
    }
    lc__listener_ready(listener);
    bool wanted = lc__listener_wanted(listener);
    if (more && !wanted && listener->pending.count >= lc__accept_batch(loop))
        lc__op_ask_cancel(loop, &listener->accept);
    else if (!more && wanted && !listener->ready_queued)
        lc__listener_want(listener);
}

/* Selector: the listening descriptor is readable. */
void lc__listener_event(lc_listener *listener) {
    listener->maybe_ready = true;
    if (lc__listener_wanted(listener)) {
        lc__listener_ready(listener);
    } else {
        lc__selector_disarm(listener->loop, &listener->accept);
        listener->accept.state = LC_STATE_IDLE;
    }
}

/* How many more this listener may hand out in this pass, so that a flood of connections starves nobody. */
static uint32_t lc__listener_budget(lc_listener *listener) {
    if (listener->budget_tick != listener->loop->stats.ticks) {
        listener->budget_tick = listener->loop->stats.ticks;
        listener->budget = lc__accept_batch(listener->loop);
    }
    return listener->budget;
}

static void lc__listener_accept_now(lc_listener *listener) {
    for (; listener->budget > 0; listener->budget--) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && errno == EAGAIN) {
            listener->maybe_ready = false;
            return;
        }
        int result = fd < 0 ? -errno : lc__listener_keep(listener, fd);
        if (fd >= 0)
            listener->backoff_ms = LC__BACKOFF_MIN_MS;
        if (result < 0)
            lc__listener_failed(listener, result);
        if (fd >= 0 || listener->backing_off)
            return;
    }
}

int lc_listener_take(lc_listener *listener, lc_stream **out) {
    if (listener->cancelled) {
        listener->cancelled = false;
        return -ECANCELED;
    }
    if (listener->closing)
        return -ESHUTDOWN;
    if (lc__listener_budget(listener) == 0)
        return -EAGAIN;
    if (!listener->pending.head && listener->maybe_ready && !listener->backing_off)
        lc__listener_accept_now(listener);
    lc_node *node = lc__queue_pop(&listener->pending);
    if (!node)
        return -EAGAIN;
    listener->budget--;
    *out = lc__container_of(node, lc_stream, closed_ready);
    return 1;
}

int lc_listener_wait(lc_listener *listener, uint64_t waiter) {
    if (listener->waiter || listener->started)
        return -EBUSY;
    listener->waiter = waiter;
    lc__listener_want(listener);
    return 0;
}

int lc_listener_start(lc_listener *listener) {
    if (listener->closing)
        return -ESHUTDOWN;
    if (listener->waiter)
        return -EBUSY;
    listener->started = true;
    lc__listener_want(listener);
    return 0;
}

uint64_t lc_listener_waiter(lc_listener *listener) {
    uint64_t waiter = listener->waiter;
    listener->waiter = 0;
    lc__token_next(&listener->token);
    return waiter;
}

bool lc_listener_waits(const lc_listener *listener) { return listener->waiter != 0; }

void lc_listener_finish_delivery(lc_listener *listener) {
    if (listener->started && !listener->closing)
        lc__listener_want(listener);
}

void lc_listener_prepare_wait(lc_listener *listener) { lc__token_next(&listener->token); }

uint32_t lc_listener_token(const lc_listener *listener) {
    return atomic_load_explicit(&listener->token, memory_order_relaxed);
}

void lc_listener_cancel(lc_listener *listener, uint32_t token) {
    if (!listener->waiter || lc_listener_token(listener) != token)
        return;
    listener->cancelled = true;
    lc__listener_ready(listener);
}

/* ---- closing ---- */

void lc__listener_maybe_close(lc_listener *listener) {
    if (!listener->closing || listener->on_close || listener->closed || listener->accept.state != LC_STATE_IDLE)
        return;
    listener->on_close = true;
    listener->next_closing = listener->loop->closing_listeners;
    listener->loop->closing_listeners = listener;
}

void lc_listener_close(lc_listener *listener) {
    if (listener->closing)
        return;
    lc_loop *loop = listener->loop;
    listener->closing = true;
    if (listener->backing_off) {
        uint64_t word;
        lc_call_cancel(loop, listener->retry, &word);
        lc__listener_end_back_off(listener);
    }
    /* Connections nobody has taken yet were never ours to keep. */
    lc_node *node;
    while ((node = lc__queue_pop(&listener->pending)))
        lc_stream_release(lc__container_of(node, lc_stream, closed_ready));
    /* New connections are refused from here on, also while the kernel still holds the accept. The socket itself is
     * shut down, so not by a forked child, whose parent listens on. */
    if (!lc_loop_is_forked(loop))
        shutdown(listener->fd, SHUT_RDWR);
    lc__op_ask_cancel(loop, &listener->accept);
    lc__listener_ready(listener);
    lc__listener_maybe_close(listener);
}

/* Phase 8, listeners first: a closed listener's pending streams close in the same pass. */
void lc__listener_close_finished(lc_loop *loop) {
    lc_listener *listener;
    while ((listener = loop->closing_listeners)) {
        loop->closing_listeners = listener->next_closing;
        listener->on_close = false;
        lc__fd_entry(loop, listener->fd)->owner = NULL;
        if (!lc__is_proactor(loop))
            lc__selector_forget(loop, listener->fd);
        close(listener->fd);
        listener->closed = true;
        lc__listener_free_if_done(listener);
    }
}

void lc_listener_release(lc_listener *listener) {
    listener->waiter = 0;
    listener->started = false;
    listener->released = true;
    if (listener->loop->closed)
        return; /* freed with the loop */
    lc_listener_close(listener);
    lc__listener_free_if_done(listener);
}

lc_listener *lc_node_listener(lc_node *node) { return lc__container_of(node, lc_listener, ready); }
