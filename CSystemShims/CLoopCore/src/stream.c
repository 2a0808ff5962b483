// SPDX-License-Identifier: Apache-2.0
/* stream.c: a connection: what has arrived and was not taken, what is to go out, who waits, and how it ends.
 *
 * Owns both queues and the order of closing. How bytes move is the backends' business: they call lc__stream_received,
 * lc__stream_sent and lc__stream_receive_event. A waiter that gives up never touches the kernel: only the wait ends, so
 * no byte can be lost with it. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/uio.h>
#include <unistd.h>
#include "internal.h"

/* ---- make ---- */

int lc__stream_make(lc_loop *loop, int fd, lc_stream **out) {
    lc__fd *entry = lc__fd_entry(loop, fd);
    if (!entry)
        return -ENOMEM;
    if (entry->owner || entry->poll_read || entry->poll_write)
        return -EBUSY;
    if (!loop->free_streams) {
        lc_stream *slab = lc__slab_make(loop, sizeof(lc_stream), LC__SLAB);
        if (!slab)
            return -ENOMEM;
        for (size_t index = 0; index < LC__SLAB; index++) {
            slab[index].closed_ready.next = loop->free_streams;
            loop->free_streams = &slab[index].closed_ready;
        }
    }
    lc_stream *stream = lc__container_of(loop->free_streams, lc_stream, closed_ready);
    loop->free_streams = stream->closed_ready.next;
    memset(stream, 0, sizeof *stream);
    stream->loop = loop;
    stream->fd = fd;
    stream->receive = (lc_op){.fd = fd, .opcode = LC_OP_RECEIVE};
    stream->send = (lc_op){.fd = fd, .opcode = LC_OP_SEND};
    stream->link_all = &loop->all_streams;
    stream->next_all = loop->all_streams;
    if (stream->next_all)
        stream->next_all->link_all = &stream->next_all;
    loop->all_streams = stream;
    loop->stats.streams++;
    entry->owner = stream;
    *out = stream;
    return 0;
}

static void lc__stream_free(lc_stream *stream) {
    lc_loop *loop = stream->loop;
    lc__stream_forget_ends(stream);
    *stream->link_all = stream->next_all;
    if (stream->next_all)
        stream->next_all->link_all = stream->link_all;
    loop->stats.streams--;
    stream->closed_ready.next = loop->free_streams;
    loop->free_streams = &stream->closed_ready;
}

int lc_stream_adopt(lc_loop *loop, int fd, lc_stream **out) {
    if (loop->closed)
        return -EBADF;
    int domain;
    int result = lc__socket_take_over(fd, SOCK_STREAM, &domain);
    if (result == 0)
        result = lc__stream_make(loop, fd, out);
    if (result == 0) {
        (*out)->local = domain == AF_UNIX;
        lc__stream_note_ends(*out);
    }
    return result;
}

int lc_stream_connect(lc_loop *loop, const struct sockaddr *address, socklen_t length, lc_stream **out) {
    if (loop->closed)
        return -EBADF;
    int fd;
    int result = lc_socket_open(address->sa_family, false, &fd);
    if (result == 0 && (result = lc_stream_connect_socket(loop, fd, address, length, out)) < 0)
        close(fd);
    return result;
}

int lc_stream_connect_socket(lc_loop *loop, int fd, const struct sockaddr *address, socklen_t length, lc_stream **out) {
    if (loop->closed)
        return -EBADF;
    lc_address *copy = calloc(1, sizeof *copy);
    if (!copy)
        return -ENOMEM;
    if (length > sizeof copy->storage)
        length = sizeof copy->storage;
    memcpy(&copy->storage, address, length);
    copy->length = length;
    int result = lc__stream_make(loop, fd, out);
    if (result < 0) {
        free(copy);
        return result;
    }
    lc_stream *stream = *out;
    stream->connecting = true;
    stream->local = address->sa_family == AF_UNIX;
    stream->send.opcode = LC_OP_CONNECT;
    stream->send.address = copy;
    stream->send.length = length;
    lc__op_submit(loop, &stream->send);
    return 0;
}

int lc_stream_connect_result(const lc_stream *stream) { return stream->connect_result; }
int lc_stream_fd(const lc_stream *stream) { return stream->fd; }
void lc_stream_set_word(lc_stream *stream, uint64_t word) { stream->word = word; }
uint64_t lc_stream_word(const lc_stream *stream) { return stream->word; }

/* ---- the ready list ---- */

static bool lc__stream_receive_wanted(const lc_stream *stream) {
    return stream->receive.word || (stream->started && (!stream->paused || stream->loss_due));
}

static bool lc__stream_receive_news(const lc_stream *stream) {
    if (stream->closing)
        return !stream->owes_loss || stream->loss_due;
    return stream->in.head || stream->receive_cancelled || stream->end || stream->receive_error || stream->maybe_ready;
}

static void lc__stream_receive_push(lc_stream *stream) {
    if (stream->receive_queued)
        return;
    stream->receive_queued = true;
    lc__ready_push(stream->loop, &stream->receive.node, LC_KIND_RECEIVE);
}

static void lc__stream_receive_ready(lc_stream *stream) {
    if (lc__stream_receive_wanted(stream) && lc__stream_receive_news(stream))
        lc__stream_receive_push(stream);
}

static bool lc__stream_send_settled(const lc_stream *stream) {
    if (stream->send_cancelled || stream->aborting)
        return true;
    if (stream->connecting || stream->send.opcode == LC_OP_ROOM)
        return false;
    if (stream->leaving && !stream->closing && !stream->send_error)
        return lc__stream_is_quiet(stream);
    return stream->unsent <= stream->send_below || stream->send_error;
}

static void lc__stream_send_ready(lc_stream *stream) {
    if (stream->send.word && lc__stream_send_settled(stream))
        stream->send_due = true;
    if (stream->room_wanted && stream->unsent <= stream->room_below && !stream->send_error)
        stream->room_due = true;
    if (stream->send_queued || !(stream->send_due || stream->room_due))
        return;
    stream->send_queued = true;
    lc__ready_push(stream->loop, &stream->send.node, LC_KIND_SEND);
}

static void lc__stream_free_if_done(lc_stream *stream) {
    bool listed = stream->receive_queued || stream->send_queued || stream->closed_queued || stream->dirty;
    if (stream->closed && stream->released && !listed)
        lc__stream_free(stream);
}

/* A node leaves the ready list. True: nobody waits for it any more. */
LC__RARE static bool lc__stream_ownerless_dropped(lc_stream *stream) {
    lc__stream_free_if_done(stream);
    return true;
}

bool lc__stream_receive_dropped(lc_stream *stream) {
    stream->receive_queued = false;
    return stream->released ? lc__stream_ownerless_dropped(stream) : !lc__stream_receive_wanted(stream);
}

bool lc__stream_node_dropped(lc_stream *stream, lc_kind kind) {
    bool wanted;
    if (kind == LC_KIND_SEND) {
        stream->send_queued = false;
        wanted = stream->send_due || stream->room_due;
    } else {
        stream->closed_queued = false;
        wanted = stream->closed_waiter != 0;
    }
    return stream->released ? lc__stream_ownerless_dropped(stream) : !wanted;
}

/* ---- receiving ---- */

/* An answer that is no bytes. */
LC__RARE static int lc__stream_take_word(lc_stream *stream) {
    if (stream->receive_cancelled) {
        stream->receive_cancelled = false;
        return -ECANCELED;
    }
    if (stream->closing)
        return -ESHUTDOWN;
    stream->told = true;
    return stream->end ? 0 : stream->receive_error;
}

/* Selector: the descriptor was readable when last seen. A busy peer waits its turn after some reads. */
LC__APART static int lc__stream_read(lc_stream *stream, lc_buffer **out) {
    uint32_t tick = (uint32_t)stream->loop->stats.ticks;
    if (stream->budget_tick != tick) {
        stream->budget_tick = tick;
        stream->budget = LC__READS_PER_PASS;
    }
    if (stream->budget == 0)
        return -EAGAIN;
    stream->budget--;
    return lc__selector_receive(stream, out);
}

static inline int lc__stream_take(lc_stream *stream, lc_buffer **out) {
    if (stream->in.head && !stream->receive_cancelled) {
        *out = lc__container_of(lc__queue_pop(&stream->in), lc_buffer, node);
        return 1;
    }
    if ((stream->receive_cancelled | stream->closing | stream->end) || stream->receive_error)
        return lc__stream_take_word(stream);
    return stream->maybe_ready ? lc__stream_read(stream, out) : -EAGAIN;
}

int lc_stream_take(lc_stream *stream, lc_buffer **out) { return lc__stream_take(stream, out); }

int lc_stream_next(lc_stream *stream, lc_buffer **out) {
    /* Paused: it stays for the resume. Closing: what is queued leaves before the loss is told. */
    if (stream->closing ? stream->owes_loss && !stream->loss_due : stream->paused)
        return -EAGAIN;
    return lc__stream_take(stream, out);
}

/* Somebody wants bytes: see to it that an answer can come. A socket that connects is left alone: a receive would take
 * away the error that tells why it cannot, and the connect would look like a success. */
LC__RARE static void lc__stream_want_rarely(lc_stream *stream) {
    if (lc__stream_receive_news(stream)) {
        lc__stream_receive_ready(stream);
    } else if (stream->receive.state == LC_STATE_IDLE && !stream->connecting) {
        assert(!stream->on_close); /* its link is in that list */
        lc__op_submit_receive(stream->loop, &stream->receive);
    }
}

/* Almost always it can already, and has not. */
static inline void lc__stream_want(lc_stream *stream) {
    if (stream->receive.state == LC_STATE_IDLE || lc__stream_receive_news(stream))
        lc__stream_want_rarely(stream);
}

int lc_stream_wait_receive(lc_stream *stream, uint64_t waiter) {
    if (stream->receive.word || stream->started)
        return -EBUSY;
    stream->receive.word = waiter;
    lc__stream_want(stream);
    return 0;
}

int lc_stream_start_receiving(lc_stream *stream) {
    if (stream->receive.word || stream->leaving)
        return -EBUSY;
    stream->started = true;
    stream->paused = false;
    lc__stream_want(stream);
    return 0;
}

/* The sending side broke. A started stream that still hears of what arrives hears of the end too, behind the bytes before
 * it; else, and if the error says nothing of the peer, nothing is left to wait for. */
void lc__stream_lose_if_deaf(lc_stream *stream) {
    bool peer_gone = stream->send_error == -EPIPE || stream->send_error == -ECONNRESET;
    if (stream->owes_loss && !stream->closing && !stream->leaving && (stream->paused || !peer_gone))
        lc_stream_close(stream, true, false);
}

void lc_stream_pause_receiving(lc_stream *stream) {
    stream->paused = stream->was_paused = true;
    if (stream->send_error)
        lc__stream_lose_if_deaf(stream);
}

void lc_stream_give_back(lc_stream *stream, lc_buffer *buffer, uint32_t used) {
    buffer->offset += used;
    buffer->length -= used;
    if (stream->closing || buffer->length == 0)
        lc__buffer_return_here(stream->loop, buffer);
    else
        lc__queue_push_first(&stream->in, &buffer->node);
}

void lc_stream_resume_receiving(lc_stream *stream) {
    stream->was_paused = false;
    if (!stream->paused || !stream->started || stream->closing || stream->leaving || stream->told)
        return;
    stream->paused = false;
    lc__stream_want(stream);
}

bool lc_stream_is_receiving(const lc_stream *stream) { return stream->started && !stream->paused && !stream->closing; }

void lc_stream_owe_loss(lc_stream *stream) { stream->owes_loss = true; }

void lc_stream_loss_told(lc_stream *stream) {
    stream->owes_loss = stream->loss_due = stream->started = stream->room_wanted = stream->room_due = false;
    lc__stream_maybe_close(stream);
}

uint64_t lc_stream_receive_waiter(lc_stream *stream) {
    uint64_t waiter = stream->receive.word;
    stream->receive.word = 0;
    /* A cancel that is asked from now on is for a wait that is over. */
    lc__token_next(&stream->receive_token);
    return waiter;
}

lc_delivery lc_stream_delivery(lc_node *node) {
    lc_stream *stream = lc__container_of(node, lc_stream, receive.node);
    return (lc_delivery){.stream = stream, .word = stream->word, .waiter = lc_stream_receive_waiter(stream)};
}

bool lc_stream_receive_waits(const lc_stream *stream) { return stream->receive.word != 0; }

void lc_stream_finish_delivery(lc_stream *stream) {
    /* An end is told once; after it there is nothing to want. Until then there may be bytes before it. */
    if (stream->started && !(stream->paused | stream->closing | stream->told))
        lc__stream_want(stream);
}

void lc_stream_prepare_receive(lc_stream *stream) { lc__token_next(&stream->receive_token); }

uint32_t lc_stream_receive_token(const lc_stream *stream) {
    return atomic_load_explicit(&stream->receive_token, memory_order_relaxed);
}

void lc_stream_cancel_receive(lc_stream *stream, uint32_t token) {
    if (!stream->receive.word || lc_stream_receive_token(stream) != token)
        return;
    stream->receive_cancelled = true;
    lc__stream_receive_ready(stream);
}

/* Nobody asked: reading can wait, and so can the watcher. The kernel's buffer then fills, and the peer feels it. */
LC__RARE static void lc__stream_receive_unasked(lc_stream *stream) {
    lc__selector_disarm(stream->loop, &stream->receive);
    stream->receive.state = LC_STATE_IDLE;
}

/* Selector: READ is armed and the descriptor is readable. */
void lc__stream_receive_event(lc_stream *stream) {
    stream->maybe_ready = true;
    if (!lc__stream_receive_wanted(stream))
        lc__stream_receive_unasked(stream);
    else if (lc__stream_receive_news(stream))
        lc__stream_receive_push(stream);
}

/* The kernel tells of a reset once. If a send was told, a receive hears of an end, and it would look as if the peer had
 * finished. Where the peer has, a later reset shows as EPIPE. */
int lc__stream_end(const lc_stream *stream) {
    if (stream->send_error == -ECONNRESET)
        return -ECONNRESET;
    /* K20: a send that the ring cut short may have met the reset, and kept it to itself. */
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (!stream->cut_short || stream->local || getsockopt(stream->fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
        return 0;
    return info.tcpi_state == TCP_CLOSE ? -ECONNRESET : 0;
}

/* A completion of the receive operation, or its end by cancel. */
LC__RARE static void lc__stream_received_rarely(lc_stream *stream, int result, bool more, lc_buffer *buffer) {
    lc_loop *loop = stream->loop;
    if (buffer && result > 0 && !stream->closing)
        lc__queue_push(&stream->in, &buffer->node);
    else if (buffer)
        lc__buffer_return_here(loop, buffer);
    if (result == 0)
        result = lc__stream_end(stream);
    if (result == 0) {
        stream->end = true;
    } else if (result == -ENOBUFS && !more && !(stream->closing | stream->leaving)) {
        lc__op_starve(loop, &stream->receive);
        return;
    } else if (result < 0 && result != -ECANCELED && result != -ENOBUFS && !lc__error_is_retry(result)) {
        stream->receive_error = result;
    }
    if (stream->closing) {
        if (!more)
            lc__stream_maybe_close(stream);
        return;
    }
    lc__stream_receive_ready(stream);
    if (lc__stream_receive_wanted(stream)) {
        if (!more && !stream->receive_queued)
            lc__stream_want(stream); /* ended without news, as a cancel that is no longer meant does */
    } else if (!more) {
        lc__stream_send_ready(stream); /* whoever lets the stream leave waits for this */
    } else if (stream->in.count >= LC__UNREAD_MAX) {
        lc__op_ask_cancel(loop, &stream->receive); /* nobody reads: let the peer feel it */
    }
}

/* The same; first what happens to almost every message: bytes, more to come, and somebody who wants them. */
void lc__stream_received(lc_stream *stream, int result, bool more, lc_buffer *buffer) {
    if (result <= 0 || !more || !buffer || stream->closing || !lc__stream_receive_wanted(stream)) {
        lc__stream_received_rarely(stream, result, more, buffer);
        return;
    }
    lc__queue_push(&stream->in, &buffer->node);
    lc__stream_receive_push(stream);
}

/* ---- sending ---- */

static void lc__stream_mark_dirty(lc_stream *stream) {
    if (stream->dirty || stream->send.state != LC_STATE_IDLE || stream->connecting || !stream->out.head)
        return;
    lc_loop *loop = stream->loop;
    stream->dirty = true;
    stream->next_dirty = NULL;
    if (loop->dirty_tail)
        loop->dirty_tail->next_dirty = stream;
    else
        loop->dirty_head = stream;
    loop->dirty_tail = stream;
}

/* The last part of phase 1: one send per stream gathers whatever was queued on it in this pass. */
void lc__stream_flush_dirty(lc_loop *loop) {
    lc_stream *stream;
    while ((stream = loop->dirty_head)) {
        if (stream->out.head && stream->send.state == LC_STATE_IDLE) {
            if (!lc__is_proactor(loop)) {
                lc__selector_send(stream);
            } else if (!lc__proactor_send(stream)) {
                loop->stats.queue_full++;
                return; /* first in line next tick */
            }
        }
        loop->dirty_head = stream->next_dirty;
        if (!loop->dirty_head)
            loop->dirty_tail = NULL;
        stream->dirty = false;
        lc__stream_free_if_done(stream); /* it was aborted and let go of since */
    }
}

static bool lc__stream_takes(const lc_stream *stream) {
    return !(stream->send_error | (stream->closing | stream->finish | stream->held));
}

static int lc__stream_refuses(const lc_stream *stream) {
    if (lc__stream_takes(stream))
        return 0;
    return stream->send_error ? stream->send_error : stream->closing ? -ESHUTDOWN : stream->finish ? -EPIPE : -EBUSY;
}

/* A lease that is not queued as it is: refused, empty, or of another loop, which wants it back on its own thread. */
LC__RARE static int lc__stream_send_elsewhere(lc_stream *stream, lc_buffer *buffer) {
    int result = lc__stream_refuses(stream);
    if (result == 0 && buffer->length > 0)
        result = lc_stream_send_copy(stream, buffer->base + buffer->offset, buffer->length);
    lc_buffer_return(buffer);
    return result;
}

static int lc__stream_queue(lc_stream *stream, lc_buffer *buffer) {
    lc__queue_push(&stream->out, &buffer->node);
    stream->unsent += buffer->length;
    lc__stream_mark_dirty(stream);
    return 0;
}

/* Selector: a lease with nothing before it leaves now: its buffer is back for the next read while it is still hot. Copies
 * wait for the end of the pass, to share one send. */
LC__APART static int lc__stream_send_now(lc_stream *stream, lc_buffer *buffer) {
    if (!lc__selector_send_now(stream, buffer))
        return lc__stream_queue(stream, buffer);
    lc__buffer_return_here(stream->loop, buffer);
    return stream->send_error;
}

int lc_stream_send(lc_stream *stream, lc_buffer *buffer) {
    if (!lc__stream_takes(stream) || buffer->length == 0 || buffer->shared != stream->loop->shared)
        return lc__stream_send_elsewhere(stream, buffer);
    if (!lc__is_proactor(stream->loop) && !stream->out.head && stream->send.state == LC_STATE_IDLE &&
        !stream->connecting)
        return lc__stream_send_now(stream, buffer);
    return lc__stream_queue(stream, buffer);
}

/* Small writes of one pass share a buffer, unless the kernel already reads from it. */
static lc_buffer *lc__stream_last_open(lc_stream *stream) {
    if (!stream->out.tail || stream->out.count <= stream->send.in_flight)
        return NULL;
    lc_buffer *last = lc__container_of(stream->out.tail, lc_buffer, node);
    return last->bid == LC_BID_HEAP ? last : NULL;
}

/* Buffers for so many bytes, with their lengths set, or none at all. */
static int lc__stream_buffers_for(lc_stream *stream, size_t length, lc__queue *out) {
    while (length > 0) {
        size_t part = length < (1u << 30) ? length : (1u << 30);
        lc_buffer *buffer = lc__buffer_heap(stream->loop, part);
        if (!buffer) {
            while (out->head)
                lc__buffer_return_here(stream->loop, lc__container_of(lc__queue_pop(out), lc_buffer, node));
            return -ENOMEM;
        }
        buffer->length = (uint32_t)part;
        lc__queue_push(out, &buffer->node);
        length -= part;
    }
    return 0;
}

int lc_stream_send_copy(lc_stream *stream, const void *bytes, size_t length) {
    int refusal = lc__stream_refuses(stream);
    if (refusal < 0)
        return refusal;
    const uint8_t *from = bytes;
    lc_buffer *last = lc__stream_last_open(stream);
    size_t room = last ? last->capacity - last->offset - last->length : 0;
    size_t part = room < length ? room : length;
    /* The memory first: a write that is refused leaves nothing behind. */
    lc__queue added = {0};
    refusal = lc__stream_buffers_for(stream, length - part, &added);
    if (refusal < 0)
        return refusal;
    stream->unsent += length;
    if (part > 0) {
        memcpy(last->base + last->offset + last->length, from, part);
        last->length += (uint32_t)part;
        from += part;
    }
    for (lc_node *node = added.head; node; node = node->next) {
        lc_buffer *buffer = lc__container_of(node, lc_buffer, node);
        memcpy(buffer->base, from, buffer->length);
        from += buffer->length;
    }
    lc__queue_append(&stream->out, &added);
    lc__stream_mark_dirty(stream);
    return 0;
}

size_t lc_stream_unsent(const lc_stream *stream) { return stream->unsent; }
int lc_stream_send_error(const lc_stream *stream) { return stream->send_error; }

static uint32_t lc__mark(size_t below) { return below < UINT32_MAX ? (uint32_t)below : UINT32_MAX; }

int lc_stream_wait_send(lc_stream *stream, uint64_t waiter, size_t below) {
    if (stream->send.word)
        return -EBUSY;
    stream->send.word = waiter;
    stream->send_below = lc__mark(below);
    stream->send_due = false;
    lc__stream_send_ready(stream);
    return 0;
}

uint64_t lc_stream_send_waiter_due(lc_stream *stream) { return stream->send_due ? lc_stream_send_waiter(stream) : 0; }

uint64_t lc_stream_send_waiter(lc_stream *stream) {
    uint64_t waiter = stream->send.word;
    stream->send.word = 0;
    stream->send_due = false;
    lc__token_next(&stream->send_token);
    return waiter;
}

void lc_stream_want_room(lc_stream *stream, size_t below) {
    stream->room_wanted = true;
    stream->room_below = lc__mark(below);
}

bool lc_stream_wants_room(const lc_stream *stream) { return stream->room_wanted; }

bool lc_stream_take_room(lc_stream *stream) {
    bool due = stream->room_due;
    stream->room_wanted &= !due;
    stream->room_due = false;
    return due;
}

bool lc_stream_send_waits(const lc_stream *stream) { return stream->send.word != 0; }
void lc_stream_prepare_send(lc_stream *stream) { lc__token_next(&stream->send_token); }

uint32_t lc_stream_send_token(const lc_stream *stream) {
    return atomic_load_explicit(&stream->send_token, memory_order_relaxed);
}

void lc_stream_cancel_send(lc_stream *stream, uint32_t token) {
    if (!stream->send.word || lc_stream_send_token(stream) != token)
        return;
    stream->send_cancelled = true;
    lc__stream_send_ready(stream);
}

bool lc_stream_take_send_cancelled(lc_stream *stream) {
    bool cancelled = stream->send_cancelled;
    stream->send_cancelled = false;
    return cancelled;
}

int lc_stream_finish_sending(lc_stream *stream) {
    if (stream->closing)
        return -ESHUTDOWN;
    if (stream->send_error)
        return stream->send_error;
    if (stream->finish)
        return 0;
    stream->finish = true;
    lc__stream_maybe_finish(stream);
    return 0;
}

/* Fills vectors with the first queued buffers; returns how many. */
uint32_t lc__stream_gather(lc_stream *stream, void *vectors, uint32_t max, size_t *total) {
    struct iovec *vector = vectors;
    uint32_t count = 0;
    *total = 0;
    for (lc_node *node = stream->out.head; node && count < max; node = node->next) {
        lc_buffer *buffer = lc__container_of(node, lc_buffer, node);
        vector[count++] = (struct iovec){.iov_base = buffer->base + buffer->offset, .iov_len = buffer->length};
        *total += buffer->length;
    }
    return count;
}

static void lc__stream_drop_out(lc_stream *stream) {
    /* What the kernel holds stays until its completion. */
    lc__queue kept = {0};
    for (uint32_t index = 0; index < stream->send.in_flight; index++)
        lc__queue_push(&kept, lc__queue_pop(&stream->out));
    lc_node *node;
    while ((node = lc__queue_pop(&stream->out))) {
        lc_buffer *buffer = lc__container_of(node, lc_buffer, node);
        stream->unsent -= buffer->length;
        lc__buffer_return_here(stream->loop, buffer);
    }
    stream->out = kept;
}

/* The sending side is broken for good; what was queued can never arrive. */
void lc__stream_broke(lc_stream *stream, int error) {
    stream->send_error = error;
    lc__stream_drop_out(stream);
    lc__stream_send_ready(stream);
    lc__stream_lose_if_deaf(stream);
}

/* Half-close, once everything is out. */
void lc__stream_maybe_finish(lc_stream *stream) {
    if (!stream->finish || stream->finished || stream->connecting || stream->out.head ||
        (stream->held && !stream->leaving))
        return;
    stream->finished = true;
    shutdown(stream->fd, SHUT_WR); /* ENOTCONN: the peer was faster, and reading will tell */
}

/* ---- sending a file: somebody else writes to the descriptor, and the stream tells of room ---- */

int lc_stream_hold(lc_stream *stream) {
    int refusal = lc__stream_refuses(stream);
    if (refusal == 0)
        stream->held = true;
    return refusal;
}

void lc_stream_let_go(lc_stream *stream) {
    stream->held = false;
    if (stream->closed) /* before whoever sent was told: the number may be a stranger's by now */
        return;
    if (stream->send.opcode == LC_OP_ROOM)
        lc__op_ask_cancel(stream->loop, &stream->send);
    lc__stream_mark_dirty(stream);
    lc__stream_maybe_finish(stream);
}

int lc_stream_send_held(lc_stream *stream, const void *bytes, size_t length) {
    bool finish = stream->finish;
    stream->held = stream->finish = false;
    int result = lc_stream_send_copy(stream, bytes, length);
    stream->held = true;
    stream->finish = finish;
    return result;
}

int lc_stream_wait_room(lc_stream *stream, uint64_t waiter) {
    if (stream->closing)
        return -ESHUTDOWN;
    if (stream->send_error)
        return stream->send_error;
    /* A wait that was cancelled may not have ended yet. Then its end wakes this one early, which asks again. */
    bool asked = stream->send.opcode == LC_OP_ROOM;
    if (stream->send.word || (!asked && stream->send.state != LC_STATE_IDLE))
        return -EBUSY;
    if (!asked) {
        stream->send.opcode = LC_OP_ROOM;
        lc__op_submit(stream->loop, &stream->send);
    }
    return lc_stream_wait_send(stream, waiter, stream->unsent);
}

/* There is room, or an error to be met, or the wait is over. */
void lc__stream_room(lc_stream *stream) {
    stream->send.opcode = LC_OP_SEND;
    lc__stream_mark_dirty(stream);
    lc__stream_send_ready(stream);
    if (stream->closing)
        lc__stream_maybe_close(stream);
}

void lc_stream_break(lc_stream *stream, int error) {
    if (!stream->closing && !stream->send_error)
        lc__stream_broke(stream, error);
}

/* So many bytes have left; the kernel held so many buffers. */
LC__RARE static void lc__stream_advance(lc_stream *stream, size_t left, uint32_t held) {
    stream->unsent -= left;
    while (left > 0) {
        lc_buffer *buffer = lc__container_of(stream->out.head, lc_buffer, node);
        if (left < buffer->length) {
            buffer->offset += (uint32_t)left;
            buffer->length -= (uint32_t)left;
            break;
        }
        left -= buffer->length;
        lc__queue_pop(&stream->out);
        lc__buffer_return_here(stream->loop, buffer);
        held -= held > 0;
    }
    if (held > 0)
        stream->cut_short = true;
}

/* The kernel accepted `result` bytes of what is queued, or refused. */
LC__RARE static void lc__stream_sent_rarely(lc_stream *stream, int result) {
    uint32_t held = stream->send.in_flight;
    stream->send.in_flight = 0;
    if (result > 0)
        lc__stream_advance(stream, (size_t)result, held);
    else if (result < 0 && result != -ECANCELED && !lc__error_is_retry(result))
        lc__stream_broke(stream, result);
    if (stream->aborting)
        lc__stream_drop_out(stream);
    lc__stream_mark_dirty(stream);
    lc__stream_maybe_finish(stream);
    lc__stream_send_ready(stream);
    if (stream->closing)
        lc__stream_maybe_close(stream);
}

/* First what becomes of almost every answer: it is all out, nothing is behind it, and nobody waits for that. */
void lc__stream_sent(lc_stream *stream, int result) {
    lc_node *sent = stream->out.head;
    bool plain = sent && !sent->next && stream->unsent == (size_t)result && result > 0 && !stream->send.word;
    if (!plain || (stream->closing | stream->aborting | stream->finish | stream->room_wanted)) {
        lc__stream_sent_rarely(stream, result);
        return;
    }
    stream->send.in_flight = 0;
    stream->unsent = 0;
    stream->out = (lc__queue){0};
    lc__buffer_return_here(stream->loop, lc__container_of(sent, lc_buffer, node));
}

void lc__stream_connected(lc_stream *stream, int result) {
    free((void *)(uintptr_t)stream->send.address);
    stream->send.address = NULL;
    stream->send.opcode = LC_OP_SEND;
    stream->connecting = false;
    if (!stream->aborting) { /* else whoever waited has been told, and a late success is none */
        stream->connect_result = result;
        if (result < 0) {
            stream->receive_error = result;
            lc__stream_broke(stream, result);
        } else {
            lc__stream_note_ends(stream);
        }
    }
    lc__stream_mark_dirty(stream);
    lc__stream_maybe_finish(stream);
    lc__stream_send_ready(stream);
    if (stream->closing)
        lc__stream_maybe_close(stream);
    else if (lc__stream_receive_wanted(stream))
        lc__stream_want(stream);
}

/* ---- closing ---- */

/* All said, or nothing more to be said, and the kernel has let go: the descriptor closes in phase 8, once its owner has
 * heard of the loss. */
void lc__stream_maybe_close(lc_stream *stream) {
    bool flushed = !stream->out.head || stream->aborting || stream->send_error;
    if (!stream->closing || stream->on_close || stream->closed || !flushed || stream->send.state != LC_STATE_IDLE ||
        stream->receive.state != LC_STATE_IDLE)
        return;
    if (stream->owes_loss) {
        stream->loss_due = true;
        lc__stream_receive_ready(stream);
        return;
    }
    stream->on_close = true;
    stream->receive.next_queued = stream->loop->closing_streams;
    stream->loop->closing_streams = &stream->receive;
}

int lc_stream_close(lc_stream *stream, bool abort, bool reset) {
    if (stream->closed)
        return 0;
    lc_loop *loop = stream->loop;
    if (reset && !stream->connecting)
        setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1, .l_linger = 0},
                   sizeof(struct linger));
    bool first = !stream->closing;
    stream->closing = true;
    if (first) {
        lc_node *node;
        while ((node = lc__queue_pop(&stream->in)))
            lc__buffer_return_here(loop, lc__container_of(node, lc_buffer, node));
        lc__op_ask_cancel(loop, &stream->receive);
        if (stream->send.opcode == LC_OP_ROOM)
            lc__op_ask_cancel(loop, &stream->send);
        lc__stream_receive_ready(stream);
    }
    if ((abort || stream->connecting) && !stream->aborting) {
        stream->aborting = true;
        if (stream->connecting)
            stream->connect_result = -ECANCELED;
        if (!stream->send_error)
            stream->send_error = -ESHUTDOWN;
        lc__stream_drop_out(stream);
        lc__op_ask_cancel(loop, &stream->send);
        lc__stream_send_ready(stream);
    }
    lc__stream_maybe_close(stream);
    return stream->closed ? 0 : 1;
}

void lc__stream_announce_loss(lc_stream *stream) { lc__stream_receive_ready(stream); }

bool lc_stream_is_closed(const lc_stream *stream) { return stream->closed; }

bool lc_stream_is_closing(const lc_stream *stream) { return stream->closing; }

void lc__stream_closed_ready(lc_stream *stream) {
    if (!stream->closed || !stream->closed_waiter || stream->closed_queued)
        return;
    stream->closed_queued = true;
    lc__ready_push(stream->loop, &stream->closed_ready, LC_KIND_CLOSED);
}

int lc_stream_wait_closed(lc_stream *stream, uint64_t waiter) {
    if (stream->closed_waiter)
        return -EBUSY;
    stream->closed_waiter = waiter;
    lc__stream_closed_ready(stream);
    return 0;
}

uint64_t lc_stream_closed_waiter(lc_stream *stream) {
    uint64_t waiter = stream->closed_waiter;
    stream->closed_waiter = 0;
    return waiter;
}

/* Phase 8. Nothing refers to these descriptors any more, so closing them is final: the peer sees FIN now. */
void lc__stream_close_finished(lc_loop *loop) {
    bool any = false;
    while (loop->closing_streams) {
        lc_stream *stream = lc__container_of(loop->closing_streams, lc_stream, receive);
        loop->closing_streams = stream->receive.next_queued;
        stream->on_close = false;
        lc__fd_entry(loop, stream->fd)->owner = NULL;
        if (!lc__is_proactor(loop))
            lc__selector_forget(loop, stream->fd);
        close(stream->fd);
        any = true;
        stream->closed = true;
        lc__stream_drop_out(stream);
        lc__stream_closed_ready(stream);
        lc__stream_send_ready(stream);
        lc__stream_free_if_done(stream);
    }
    if (any)
        lc__listener_descriptor_freed(loop);
}

/* The owner lets go. Nobody is left to hear, so an open stream is aborted. */
void lc__stream_release_now(lc_stream *stream) {
    stream->released = true;
    stream->receive.word = stream->send.word = stream->closed_waiter = 0;
    stream->started = stream->owes_loss = stream->room_wanted = stream->send_due = stream->room_due = false;
    /* A polite close that is still flushing goes on without its owner. */
    if (!stream->closing)
        lc_stream_close(stream, true, false);
    lc__stream_maybe_close(stream);
    lc__stream_free_if_done(stream);
}

void lc_stream_release(lc_stream *stream) {
    lc_loop *loop = stream->loop;
    if (lc_loop_current() == loop) {
        lc__stream_release_now(stream);
        return;
    }
    stream->release.kind = LC_KIND_STREAM_RELEASE;
    /* Refused by a closed loop: the descriptor is closed then, and the memory goes with the loop. */
    if (!lc_loop_is_forked(loop))
        lc__inbox_push(loop->shared, &stream->release);
}

/* ---- from a node of the ready list to its record ---- */

lc_stream *lc_node_stream(lc_node *node) {
    switch ((lc_kind)node->kind) {
    case LC_KIND_RECEIVE:
        return lc__container_of(node, lc_stream, receive.node);
    case LC_KIND_SEND:
        return lc__container_of(node, lc_stream, send.node);
    case LC_KIND_CLOSED:
        return lc__container_of(node, lc_stream, closed_ready);
    default:
        return NULL;
    }
}
