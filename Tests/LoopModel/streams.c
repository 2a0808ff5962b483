// SPDX-License-Identifier: Apache-2.0
/* streams.c: waits and bytes of the loop's streams, each call's answer held against the model. */
#include "model.h"

static bool error_is_plausible(const model *m, const model_connection *c, int error) {
    switch (-error) {
    case ECONNRESET:
    case EPIPE:
        return model_reset_is_plausible(m, c) || c->connect_failed;
    case ECONNREFUSED:
    case ENOTCONN:
    case ECONNABORTED:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
        return c->connect_failed || c->refused || c->forsaken || m->odds.connect_fails > 0;
    default:
        return false;
    }
}

/* ---- taking ---- */

int model_taken_bytes(model *m, model_connection *c, lc_buffer *buffer) {
    uint32_t length = lc_buffer_length(buffer);
    RULE(length > 0, "connection %u: a lease on nothing", c->serial);
    RULE(!c->ended, "connection %u: bytes after the end", c->serial);
    RULE(!c->receive_error, "connection %u: bytes after error %d", c->serial, c->receive_error);
    RULE(c->received + length <= c->peer_sent, "connection %u: %llu bytes received, and the peer sent %llu", c->serial,
         (unsigned long long)c->received + length, (unsigned long long)c->peer_sent);
    TRY(model_lease_taken(m, c, buffer));
    return 0;
}

static int taken_end(model *m, model_connection *c) {
    if (c->ended)
        return 0;
    RULE(c->peer_finished || c->peer_closed || c->peer_reset || c->connect_failed || c->refused || m->odds.reset,
         "connection %u: an end that the peer did not make", c->serial);
    RULE(c->received == c->peer_sent || c->connect_failed,
         "connection %u: an end after %llu of %llu bytes (sending said %d)", c->serial, (unsigned long long)c->received,
         (unsigned long long)c->peer_sent, lc_stream_send_error(c->stream));
    c->ended = true;
    return 0;
}

/* Takes once, and holds the answer against the model. *result is what the core said. */
int model_take(model *m, model_connection *c, int *result) {
    lc_buffer *buffer = NULL;
    *result = lc_stream_take(c->stream, &buffer);
    if (*result != -EAGAIN)
        c->taken = true;
    if (*result != 1)
        model_note(m, "take on %u: %d", c->serial, *result);
    if (c->receive_cancelled) {
        RULE(*result == -ECANCELED, "connection %u: a cancelled wait was told %d", c->serial, *result);
        c->receive_cancelled = false;
        if (c->peer_sent > c->received)
            m->report->cancels_that_met_data++;
        return 0;
    }
    RULE(*result != -ECANCELED, "connection %u: a cancel that nobody asked for", c->serial);
    if (c->closing) {
        RULE(*result == -ESHUTDOWN, "connection %u: closed here, and take said %d", c->serial, *result);
        return 0;
    }
    if (*result == 1)
        return model_taken_bytes(m, c, buffer);
    if (*result == 0)
        return taken_end(m, c);
    RULE(!c->ended, "connection %u: the end was told, and then %d", c->serial, *result);
    if (*result == -EAGAIN) {
        RULE(!c->receive_error, "connection %u: error %d was told, and then nothing", c->serial, c->receive_error);
        return 0;
    }
    RULE(!c->receive_error || c->receive_error == *result, "connection %u: first error %d, then %d", c->serial,
         c->receive_error, *result);
    RULE(error_is_plausible(m, c, *result), "connection %u: receiving failed with %d, and nothing called for it",
         c->serial, *result);
    if (!c->receive_error)
        m->report->broken++;
    c->receive_error = *result;
    return 0;
}

static bool has_unread(const model_connection *c) { return model_is_held(c) && c->peer_sent > c->received; }

/* Once, or until there is nothing more and then to wait, as a reader does. */
int act_take(model *m) {
    model_connection *c = model_pick(m, chance(m, 700) ? has_unread : model_is_held);
    if (!c)
        return 0;
    bool all = chance(m, 400);
    uint32_t serial = c->serial;
    int result;
    do {
        TRY(model_take(m, c, &result));
    } while (all && result == 1);
    return all && c->serial == serial && model_is_held(c) ? model_wait_receive(m, c) : 0;
}

/* ---- waits to receive ---- */

int model_wait_receive(model *m, model_connection *c) {
    RULE(lc_stream_receive_waits(c->stream) == (c->receive_wait != 0),
         "connection %u: who waits to receive is not known alike", c->serial);
    bool busy = c->receive_wait || c->started;
    uint64_t word = model_next_word(m);
    if (!busy)
        lc_stream_prepare_receive(c->stream);
    int result = lc_stream_wait_receive(c->stream, word);
    model_note(m, "wait to receive on %u: %d", c->serial, result);
    RULE(result == (busy ? -EBUSY : 0), "connection %u: waiting to receive said %d", c->serial, result);
    if (busy)
        return 0;
    m->report->waits++;
    c->receive_wait = word;
    c->receive_token = lc_stream_receive_token(c->stream);
    c->taken = false;
    return 0;
}

int act_wait_receive(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_wait_receive(m, c) : 0;
}

int act_start_receiving(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c)
        return 0;
    int result = lc_stream_start_receiving(c->stream);
    model_note(m, "start receiving on %u: %d", c->serial, result);
    RULE(result == (c->receive_wait ? -EBUSY : 0), "connection %u: starting to receive said %d", c->serial, result);
    if (result == 0) {
        c->started = true;
        c->paused = false;
    }
    return 0;
}

int act_pause_receiving(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c || !c->started)
        return 0;
    model_note(m, "pause receiving on %u", c->serial);
    lc_stream_pause_receiving(c->stream);
    c->paused = true;
    return 0;
}

static bool waits_to_receive(const model_connection *c) { return c->end == MODEL_END_HELD && c->receive_wait; }

int act_cancel_receive(model *m) {
    bool late = chance(m, 200);
    model_connection *c = model_pick(m, late ? model_is_held : waits_to_receive);
    if (!c)
        return 0;
    bool meant = c->receive_wait && !late;
    model_note(m, "cancel the wait to receive on %u, %s", c->serial, meant ? "in time" : "too late");
    if (meant) {
        lc_stream_cancel_receive(c->stream, c->receive_token);
        c->receive_cancelled = true;
        m->report->cancels++;
    } else {
        lc_stream_cancel_receive(c->stream, c->receive_token - 1 - (uint32_t)below(m, 3));
        m->report->cancels_too_late++;
    }
    return 0;
}

/* Delivered: there is something to take, or was. */
int model_received(model *m, lc_stream *stream) {
    model_connection *c = model_connection_of(m, stream);
    RULE(c != NULL, "a delivery to a stream that was let go of");
    if (c->end == MODEL_END_GONE) {
        RULE(c->late_pass >= m->pass, "connection %u: a delivery after its release", c->serial);
        lc_stream_receive_waiter(stream);
        return 0;
    }
    RULE(!c->leaving, "connection %u: a delivery while it is given away", c->serial);
    bool waited = lc_stream_receive_waits(stream);
    uint64_t word = lc_stream_receive_waiter(stream);
    uint32_t serial = c->serial;
    RULE(word == c->receive_wait, "connection %u: a wait to receive was answered for word %llu, not %llu", serial,
         (unsigned long long)word, (unsigned long long)c->receive_wait);
    RULE(waited || (c->started && !c->paused), "connection %u: a delivery that nobody asked for", serial);
    bool ended =
        c->peer_finished || c->peer_closed || model_reset_is_plausible(m, c) || c->connect_failed || c->refused;
    bool here = c->taken || c->receive_cancelled || c->closing || c->receive_error;
    RULE(c->peer_sent || ended || here || m->odds.false_ready || m->odds.connect_fails,
         "connection %u: a delivery, and nothing has come yet", serial);
    bool taken = c->taken;
    c->receive_wait = 0;
    m->report->waits_answered += waited;
    uint64_t most = m->settling ? 64 : waited ? 1 + below(m, 3) : below(m, 20);
    int result = 1;
    for (uint64_t count = 0; count < most && result == 1; count++) {
        TRY(model_take(m, c, &result));
        if (count == 0 && waited && !taken && m->config->backend == LC_BACKEND_PROACTOR)
            RULE(result != -EAGAIN, "connection %u: a wait was answered, and there is nothing to take", serial);
    }
    if (c->serial != serial || c->end != MODEL_END_HELD)
        return 0;
    if (waited)
        return !m->settling && chance(m, 600) ? model_wait_receive(m, c) : 0;
    if (result == 0 && chance(m, 500)) {
        lc_stream_pause_receiving(stream);
        c->paused = true;
        return 0;
    }
    lc_stream_finish_delivery(stream);
    return 0;
}

/* ---- sending ---- */

/* What a send may say, in the order in which the core asks. 0: it is accepted. */
int model_check_send(model *m, model_connection *c, int result) {
    int broken = lc_stream_send_error(c->stream);
    if (broken && !c->aborting && !c->connecting)
        RULE(c->peer_closed || error_is_plausible(m, c, broken) || (broken == -ECANCELED && c->connect_failed),
             "connection %u: sending failed with %d, and nothing called for it", c->serial, broken);
    int wanted = broken ? broken : c->closing ? -ESHUTDOWN : c->finish ? -EPIPE : 0;
    RULE(result == wanted, "connection %u: a send said %d, not %d", c->serial, result, wanted);
    return 0;
}

int model_send_copy(model *m, model_connection *c, size_t length) {
    model_stretch what = {.seed = model_seed_out(c), .position = c->accepted, .length = length};
    for (size_t index = 0; index < length; index++)
        m->scratch[index] = model_byte(what.seed, what.position + index);
    int result = lc_stream_send_copy(c->stream, m->scratch, length);
    model_note(m, "send %zu bytes on %u: %d", length, c->serial, result);
    TRY(model_check_send(m, c, result));
    return result == 0 && length > 0 ? model_expect_out(m, c, what) : 0;
}

/* Now and then several at once, on some of the same connections: sends that gather, and more than one of them. */
int act_send_copy(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    size_t most = m->config->write_max ? m->config->write_max : sizeof m->scratch;
    for (uint64_t count = c && chance(m, 150) ? 2 + below(m, 8) : 1; c && count > 0; count--) {
        if (c->accepted - c->peer_received <= MODEL_QUEUED_MAX)
            TRY(model_send_copy(m, c, chance(m, 20) ? 0 : (size_t)size_up_to(m, most)));
        if (count > 1 && chance(m, 400))
            c = model_pick(m, model_is_held);
    }
    return 0;
}

int model_wait_send(model *m, model_connection *c, size_t below_bytes) {
    RULE(lc_stream_send_waits(c->stream) == (c->send_wait != 0), "connection %u: who waits to send is not known alike",
         c->serial);
    bool busy = c->send_wait != 0;
    uint64_t word = model_next_word(m);
    if (!busy)
        lc_stream_prepare_send(c->stream);
    int result = lc_stream_wait_send(c->stream, word, below_bytes);
    model_note(m, "wait to send on %u, below %zu: %d", c->serial, below_bytes, result);
    RULE(result == (busy ? -EBUSY : 0), "connection %u: waiting to send said %d", c->serial, result);
    if (busy)
        return 0;
    m->report->waits++;
    c->send_wait = word;
    c->send_token = lc_stream_send_token(c->stream);
    c->send_below = below_bytes;
    c->grew = false;
    return 0;
}

int act_wait_send(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c)
        return 0;
    size_t unsent = lc_stream_unsent(c->stream);
    size_t limits[] = {0, 0, unsent / 4, unsent ? unsent - 1 : 0, SIZE_MAX};
    return model_wait_send(m, c, limits[below(m, 5)]);
}

static bool waits_to_send(const model_connection *c) { return c->end == MODEL_END_HELD && c->send_wait; }

int act_cancel_send(model *m) {
    bool late = chance(m, 200);
    model_connection *c = model_pick(m, late ? model_is_held : waits_to_send);
    if (!c)
        return 0;
    bool meant = c->send_wait && !late;
    model_note(m, "cancel the wait to send on %u, %s", c->serial, meant ? "in time" : "too late");
    lc_stream_cancel_send(c->stream, meant ? c->send_token : c->send_token - 1);
    c->send_cancelled |= meant;
    m->report->cancels += meant;
    m->report->cancels_too_late += !meant;
    return 0;
}

static int connected(model *m, model_connection *c, bool cancelled) {
    int result = lc_stream_connect_result(c->stream);
    if (cancelled && result == 0)
        return 0; /* the wait ended; connecting may go on */
    if (c->aborting)
        return 0;
    c->connecting = false;
    model_note(m, "connection %u connected: %d", c->serial, result);
    if (result == 0) {
        RULE(!c->refused, "connection %u: connected to an address where nobody listens", c->serial);
        lc_address peer;
        bool lost = c->closing || c->peer_closed || c->forsaken || model_reset_is_plausible(m, c);
        RULE(lost || lc_address_peer(lc_stream_fd(c->stream), &peer) == 0,
             "connection %u: connected, and the kernel knows of no peer", c->serial);
        m->report->connected++;
        return 0;
    }
    c->connect_failed = true;
    m->report->refused++;
    bool odds = m->odds.connect_fails || m->odds.reset || m->odds.accept_fails;
    RULE(c->refused || c->forsaken || c->peer_reset || c->peer_closed || odds,
         "connection %u: connecting failed with %d", c->serial, result);
    bool reset = c->peer_reset || c->peer_closed;
    RULE(result == -ECONNREFUSED || result == -ECONNABORTED || c->forsaken || (reset && result == -ECONNRESET) || odds,
         "connection %u: refused with %d", c->serial, result);
    return 0;
}

int model_sent(model *m, lc_stream *stream) {
    model_connection *c = model_connection_of(m, stream);
    RULE(c != NULL, "a delivery to a stream that was let go of");
    uint64_t word = lc_stream_send_waiter(stream);
    if (c->end == MODEL_END_GONE) {
        RULE(c->late_pass >= m->pass, "connection %u: a delivery after its release", c->serial);
        return 0;
    }
    RULE(word == c->send_wait && word, "connection %u: a wait to send was answered for word %llu, not %llu", c->serial,
         (unsigned long long)word, (unsigned long long)c->send_wait);
    bool cancelled = lc_stream_take_send_cancelled(stream);
    model_note(m, "may send on %u%s", c->serial, cancelled ? ", cancelled" : "");
    RULE(cancelled == c->send_cancelled, "connection %u: a wait to send that was %scancelled was told otherwise",
         c->serial, c->send_cancelled ? "" : "not ");
    c->send_wait = 0;
    c->send_cancelled = false;
    m->report->waits_answered++;
    if (c->leaving)
        return model_may_leave(m, c, cancelled);
    if (c->connecting)
        TRY(connected(m, c, cancelled));
    int broken = lc_stream_send_error(stream);
    RULE(cancelled || c->grew || broken || c->aborting || lc_stream_unsent(stream) <= c->send_below,
         "connection %u: may send with %zu bytes unsent, above %zu", c->serial, lc_stream_unsent(stream),
         c->send_below);
    if (!broken && m->config->backend == LC_BACKEND_SELECTOR) /* the proactor hears of it later than the peer */
        RULE(lc_stream_unsent(stream) <= c->accepted - c->peer_received,
             "connection %u: %zu bytes unsent, and only %llu have not arrived", c->serial, lc_stream_unsent(stream),
             (unsigned long long)(c->accepted - c->peer_received));
    return 0;
}
