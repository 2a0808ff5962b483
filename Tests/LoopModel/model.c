// SPDX-License-Identifier: Apache-2.0
/* model.c: connections as the model keeps them, and the bytes each end is to see. */
#include <stdarg.h>
#include "model.h"

int model_fail(model *m, const char *format, ...) {
    if (!m->failed) {
        int used = snprintf(m->report->failure, sizeof m->report->failure, "step %u, pass %llu: ", m->step,
                            (unsigned long long)m->pass);
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(m->report->failure + used, sizeof m->report->failure - (size_t)used, format, arguments);
        va_end(arguments);
        model_note(m, "FAILED: %s", m->report->failure);
    }
    m->failed = true;
    return -1;
}

void model_note(model *m, const char *format, ...) {
    if (!m->config->trace)
        return;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%5u %4llu %s%s\n", m->step, (unsigned long long)m->pass, m->delivering ? "    " : "", text);
}

uint64_t model_next_word(model *m) { return ++m->last_word; }

/* ---- bytes ---- */

uint8_t model_byte(uint64_t seed, uint64_t position) {
    return (uint8_t)((seed * 0x2545f4914f6cdd1du + position) * 0x9e3779b97f4a7c15u >> 40);
}

uint64_t model_seed_in(const model_connection *c) { return (uint64_t)c->serial * 2 + 1; }
uint64_t model_seed_out(const model_connection *c) { return (uint64_t)c->serial * 2; }

int model_matches(model *m, const uint8_t *bytes, size_t length, model_stretch what, const char *where) {
    for (size_t index = 0; index < length; index++)
        RULE(bytes[index] == model_byte(what.seed, what.position + index),
             "%s: byte %llu of pattern %llu is %u, not %u", where, (unsigned long long)(what.position + index),
             (unsigned long long)what.seed, bytes[index], model_byte(what.seed, what.position + index));
    return 0;
}

/* A send was accepted: this is what the peer is to receive next. */
int model_expect_out(model *m, model_connection *c, model_stretch what) {
    c->accepted += what.length;
    c->grew = true;
    if (c->out_first > 0 && c->out_first * 2 >= c->out_count) {
        memmove(c->out, c->out + c->out_first, (c->out_count - c->out_first) * sizeof *c->out);
        c->out_count -= c->out_first;
        c->out_first = 0;
    }
    if (c->out_count == c->out_capacity) {
        size_t capacity = c->out_capacity ? c->out_capacity * 2 : 16;
        model_stretch *out = realloc(c->out, capacity * sizeof *out);
        RULE(out != NULL, "out of memory");
        c->out = out;
        c->out_capacity = capacity;
    }
    c->out[c->out_count++] = what;
    return 0;
}

int model_arrived_out(model *m, model_connection *c, const uint8_t *bytes, size_t length) {
    while (length > 0) {
        RULE(c->out_first < c->out_count, "the peer of connection %u received %zu bytes that nobody sent", c->serial,
             length);
        model_stretch *next = &c->out[c->out_first];
        size_t part = next->length < length ? (size_t)next->length : length;
        TRY(model_matches(m, bytes, part, *next, "what the peer received"));
        next->position += part;
        next->length -= part;
        if (next->length == 0)
            c->out_first++;
        bytes += part;
        length -= part;
        c->peer_received += part;
        m->report->bytes_out += part;
    }
    return 0;
}

/* ---- connections ---- */

/* NULL: as many as there may be. */
model_connection *model_connection_make(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (c->used)
            continue;
        *c = (model_connection){.used = true, .serial = ++m->last_serial, .listener = -1, .peer = -1, .answer = -1};
        return c;
    }
    return NULL;
}

/* The word leads back from a stream; a serial is never used twice, so it cannot lead to a successor. */
void model_connection_hold(model *m, model_connection *c, lc_stream *stream) {
    c->stream = stream;
    c->end = MODEL_END_HELD;
    c->listener = -1;
    lc_stream_set_word(stream, (uint64_t)c->serial << 8 | (uint64_t)(c - m->connections));
}

model_connection *model_connection_newest(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++)
        if (m->connections[index].used && m->connections[index].serial == m->last_serial)
            return &m->connections[index];
    return NULL;
}

model_connection *model_connection_of(model *m, const lc_stream *stream) {
    uint64_t word = lc_stream_word(stream);
    model_connection *c = &m->connections[(word & 0xff) % MODEL_CONNECTIONS];
    return c->used && c->serial == word >> 8 && c->stream == stream ? c : NULL;
}

/* The loop's end is no longer ours, and so nobody waits there. */
void model_connection_let_go(model *m, model_connection *c) {
    m->report->waits_released += (c->receive_wait != 0) + (c->send_wait != 0) + (c->closed_wait != 0);
    c->receive_wait = c->send_wait = c->closed_wait = 0;
    c->end = MODEL_END_GONE;
    if (!c->closing)
        c->cut = true;
    if (c->answer >= 0 && c->connecting)
        c->cut = true;
}

/* Forgets a connection once both ends are gone. */
void model_connection_tidy(model *m, model_connection *c) {
    if (c->end != MODEL_END_GONE || c->peer >= 0 || c->answer >= 0 || c->late_pass >= m->pass)
        return;
    free(c->out);
    c->out = NULL;
    c->used = false;
    c->stream = NULL;
}

bool model_is_held(const model_connection *c) { return c->end == MODEL_END_HELD && !c->leaving; }

model_connection *model_pick(model *m, bool (*fits)(const model_connection *c)) {
    model_connection *found[MODEL_CONNECTIONS];
    uint32_t count = 0;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (c->used && fits(c))
            found[count++] = c;
    }
    return count ? found[below(m, count)] : NULL;
}

/* The peer reset it, or closed it before it had read everything that was sent to it. */
bool model_reset_is_plausible(const model *m, const model_connection *c) {
    return c->peer_reset || (c->peer_closed && c->accepted > c->peer_received) || m->odds.reset > 0 ||
           (m->odds.accept_fails && (c->answer >= 0 || c->end == MODEL_END_AWAITED));
}
