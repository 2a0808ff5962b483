// SPDX-License-Identifier: Apache-2.0
/* leaving.c: descriptors that are given away and come back: the connection goes on with another stream, and no byte is
 * lost or doubled on the way, in either direction. */
#include "model.h"

/* The old stream has let go; what it had received comes before what the new one will. */
static int come_back(model *m, model_connection *c, int fd) {
    lc_stream *old = c->stream, *new;
    lc_buffer *buffer;
    RULE(lc_stream_is_closed(old), "connection %u: its descriptor is given away, and the stream is not closed",
         c->serial);
    RULE(!lc_loop_owns_descriptor(m->loop, fd), "connection %u: given away, and still the loop's", c->serial);
    int result = lc_stream_adopt(m->loop, fd, &new);
    RULE(result == 0, "connection %u: what was given away is not taken back: %d", c->serial, result);
    model_connection_hold(m, c, new);
    c->started = c->paused = c->ended = false;
    while ((buffer = lc_stream_take_left(old)))
        TRY(model_taken_bytes(m, c, buffer));
    if (c->closed_wait)
        RULE(lc_stream_closed_waiter(old) == c->closed_wait, "connection %u: who waits for the close is lost",
             c->serial);
    c->closed_wait = 0;
    RULE(lc_stream_take(old, &buffer) == -ESHUTDOWN, "connection %u: something is left behind", c->serial);
    lc_stream_release(old);
    m->report->given_away++;
    return 0;
}

static int leave(model *m, model_connection *c) {
    size_t unsent = lc_stream_unsent(c->stream);
    int fd = -1;
    int result = lc_stream_leave(c->stream, &fd);
    model_note(m, "give %u away: %d", c->serial, result);
    if (result == 0) {
        RULE(unsent == 0, "connection %u: given away with %zu bytes unsent", c->serial, unsent);
        return come_back(m, c, fd);
    }
    RULE(c->closing || c->peer_closed || model_reset_is_plausible(m, c),
         "connection %u: not given away, with %d, and nothing called for it", c->serial, result);
    return 0;
}

int model_may_leave(model *m, model_connection *c, bool cancelled) {
    c->leaving = false;
    if (!cancelled)
        return leave(m, c);
    lc_stream_stay(c->stream);
    return 0;
}

int act_give_away(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c || c->connecting || c->finish)
        return 0;
    int result = lc_stream_begin_leave(c->stream);
    model_note(m, "begin to give %u away: %d", c->serial, result);
    if (c->closing || c->receive_wait || c->send_wait) {
        RULE(result == (c->closing ? -ESHUTDOWN : -EBUSY), "connection %u: in use or closed, giving it away said %d",
             c->serial, result);
        return 0;
    }
    RULE(result != -EBUSY && result != -ESHUTDOWN, "connection %u: giving it away said %d", c->serial, result);
    if (result == 0)
        return leave(m, c);
    if (result != -EAGAIN)
        return 0;
    RULE(lc_stream_wait_receive(c->stream, 1) == -EBUSY && lc_stream_send_copy(c->stream, "", 1) == -EBUSY &&
             lc_stream_begin_leave(c->stream) == -EBUSY && lc_stream_start_receiving(c->stream) == -EBUSY,
         "connection %u: others may use it while it is given away", c->serial);
    c->leaving = true;
    return model_wait_send(m, c, 0);
}
