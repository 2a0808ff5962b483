// SPDX-License-Identifier: Apache-2.0
/* leaving.c: a stream's descriptor goes to somebody else, and the peer sees nothing of it.
 *
 * Owns the order of that: nobody writes or reads any more, what is queued goes out, the receive ends by a cancel that keeps
 * its bytes, and only then is the descriptor nobody's. Until then the stream can stay after all. */
#include "internal.h"

/* While it leaves, a stream is held, so that nobody writes, and started but paused, so that nobody reads. */
int lc_stream_begin_leave(lc_stream *stream) {
    if (stream->closing)
        return -ESHUTDOWN;
    if (stream->connecting || stream->held || stream->receive.word || stream->send.word || stream->send_cancelled)
        return -EBUSY;
    if (stream->send_error || stream->receive_error)
        return stream->send_error ? stream->send_error : stream->receive_error;
    stream->was_started = stream->started;
    stream->was_paused = stream->paused;
    stream->leaving = stream->held = stream->started = stream->paused = true;
    lc__op_ask_cancel(stream->loop, &stream->receive);
    return lc__stream_is_quiet(stream) ? 0 : -EAGAIN;
}

void lc_stream_stay(lc_stream *stream) {
    stream->leaving = false;
    if (stream->closing)
        return;
    stream->held = false;
    stream->started = stream->was_started;
    stream->paused = stream->was_paused;
    lc_stream_finish_delivery(stream);
    if (stream->send_error)
        lc__stream_lose_if_deaf(stream);
}

int lc_stream_leave(lc_stream *stream, int *out_fd) {
    int error = stream->send_error ? stream->send_error : stream->closing ? -ESHUTDOWN : stream->receive_error;
    if (error) {
        lc_stream_stay(stream);
        return error;
    }
    assert(stream->leaving && lc__stream_is_quiet(stream));
    lc__fd_entry(stream->loop, stream->fd)->owner = NULL;
    if (!lc__is_proactor(stream->loop))
        lc__selector_forget(stream->loop, stream->fd);
    *out_fd = stream->fd;
    stream->fd = -1;
    stream->leaving = false;
    stream->started = stream->was_started;
    stream->closing = stream->closed = true;
    stream->loss_due = stream->owes_loss;
    lc__stream_announce_loss(stream);
    lc__stream_closed_ready(stream);
    return 0;
}

lc_buffer *lc_stream_take_left(lc_stream *stream) {
    return stream->in.head ? lc__container_of(lc__queue_pop(&stream->in), lc_buffer, node) : NULL;
}
