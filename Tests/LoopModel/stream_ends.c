// SPDX-License-Identifier: Apache-2.0
/* stream_ends.c: how the loop's streams end: half-closed, closed politely or not, let go of here or elsewhere. */
#include "model.h"

int act_finish_sending(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c)
        return 0;
    int broken = lc_stream_send_error(c->stream);
    int result = lc_stream_finish_sending(c->stream);
    model_note(m, "finish sending on %u: %d", c->serial, result);
    int wanted = c->closing ? -ESHUTDOWN : broken;
    RULE(result == wanted, "connection %u: finishing to send said %d, not %d", c->serial, result, wanted);
    if (result == 0)
        c->finish = true;
    return 0;
}

int model_close(model *m, model_connection *c, bool abort, bool reset) {
    bool was_closed = lc_stream_is_closed(c->stream);
    bool whole = !abort && !reset && !c->cut && !lc_stream_send_error(c->stream);
    int result = lc_stream_close(c->stream, abort, reset);
    model_note(m, "close %u%s%s: %d", c->serial, abort ? ", abort" : "", reset ? ", reset" : "", result);
    RULE(result == (was_closed ? 0 : 1), "connection %u: closing said %d", c->serial, result);
    if (was_closed)
        return 0;
    c->closing = true;
    c->reset |= reset;
    bool aborted = abort || (c->connecting && lc_stream_send_error(c->stream) != 0);
    c->aborting |= aborted;
    c->cut |= aborted || reset;
    m->report->aborts += aborted;
    m->report->resets += reset;
    m->report->polite_closes += whole && !aborted;
    return 0;
}

int act_close_politely(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_close(m, c, false, false) : 0;
}

/* Says something more, and closes: all of it has to arrive. */
int act_last_words(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    if (!c || c->closing)
        return 0;
    TRY(model_send_copy(m, c, (size_t)size_up_to(m, sizeof m->scratch)));
    return model_close(m, c, false, false);
}

int act_abort(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_close(m, c, true, false) : 0;
}

int act_reset(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_close(m, c, chance(m, 800), true) : 0;
}

/* ---- the wait for the close ---- */

int model_wait_closed(model *m, model_connection *c) {
    bool busy = c->closed_wait != 0;
    uint64_t word = model_next_word(m);
    int result = lc_stream_wait_closed(c->stream, word);
    model_note(m, "wait for the close of %u: %d", c->serial, result);
    RULE(result == (busy ? -EBUSY : 0), "connection %u: waiting for the close said %d", c->serial, result);
    if (!busy) {
        m->report->waits++;
        c->closed_wait = word;
    }
    return 0;
}

int act_wait_closed(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_wait_closed(m, c) : 0;
}

int model_closed(model *m, lc_stream *stream) {
    model_connection *c = model_connection_of(m, stream);
    RULE(c != NULL, "a delivery to a stream that was let go of");
    uint64_t word = lc_stream_closed_waiter(stream);
    if (c->end == MODEL_END_GONE) {
        RULE(c->late_pass >= m->pass, "connection %u: a delivery after its release", c->serial);
        return 0;
    }
    RULE(word == c->closed_wait && word, "connection %u: a wait for the close was answered for word %llu, not %llu",
         c->serial, (unsigned long long)word, (unsigned long long)c->closed_wait);
    RULE(lc_stream_is_closed(stream), "connection %u: told that it is closed, and it is not", c->serial);
    RULE(c->closing, "connection %u: closed, and nobody asked for it", c->serial);
    model_note(m, "closed %u", c->serial);
    c->closed_wait = 0;
    m->report->waits_answered++;
    return 0;
}

/* ---- letting go ---- */

static void release_stream(model *m, void *stream) {
    (void)m;
    lc_stream_release(stream);
}

int model_release(model *m, model_connection *c, bool elsewhere) {
    bool here = !elsewhere && lc_loop_current() == m->loop;
    model_note(m, "release %u%s", c->serial, elsewhere ? ", elsewhere" : here ? "" : ", while the loop does not run");
    lc_stream *stream = c->stream;
    model_connection_let_go(m, c);
    /* Until the loop has looked into its inbox it does not know. */
    if (!here)
        c->late_pass = m->pass + 1;
    m->report->releases++;
    if (elsewhere) {
        m->report->releases_elsewhere++;
        model_elsewhere(m, release_stream, stream);
    } else {
        lc_stream_release(stream);
        if (here)
            c->stream = NULL;
    }
    model_connection_tidy(m, c);
    return 0;
}

int act_release(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_release(m, c, false) : 0;
}

int act_release_elsewhere(model *m) {
    model_connection *c = model_pick(m, model_is_held);
    return c ? model_release(m, c, true) : 0;
}
