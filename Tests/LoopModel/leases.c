// SPDX-License-Identifier: Apache-2.0
/* leases.c: received bytes on their way through users' hands: held, sent on, given back here or on another thread. */
#include "model.h"

uint32_t model_leases_held(const model *m) {
    uint32_t count = 0;
    for (uint32_t index = 0; index < MODEL_LEASES; index++)
        count += m->leases[index].buffer && m->leases[index].loop == m->loops;
    return count;
}

/* What is lent stays what it was when it was received. */
static int lease_check(model *m, const model_lease *lease) {
    RULE(lc_buffer_length(lease->buffer) == lease->what.length, "a lease has changed its length");
    return model_matches(m, lc_buffer_bytes(lease->buffer), (size_t)lease->what.length, lease->what, "a held lease");
}

int model_leases_check(model *m) {
    for (uint32_t index = 0; index < MODEL_LEASES; index++)
        if (m->leases[index].buffer)
            TRY(lease_check(m, &m->leases[index]));
    return 0;
}

static void return_buffer(model *m, void *buffer) {
    (void)m;
    lc_buffer_return(buffer);
}

static int give_back(model *m, lc_buffer *buffer, bool elsewhere) {
    if (elsewhere) {
        m->report->leases_returned_elsewhere++;
        model_elsewhere(m, return_buffer, buffer);
    } else {
        lc_buffer_return(buffer);
    }
    return 0;
}

static int send_on(model *m, model_connection *c, lc_buffer *buffer, model_stretch what) {
    int result = lc_stream_send(c->stream, buffer);
    model_note(m, "send a lease of %llu bytes on %u: %d", (unsigned long long)what.length, c->serial, result);
    TRY(model_check_send(m, c, result));
    if (result < 0)
        return 0;
    m->report->leases_sent_back++;
    return model_expect_out(m, c, what);
}

/* A lease was received. Its bytes are checked; then it is kept, sent on, or given back. */
int model_lease_taken(model *m, model_connection *c, lc_buffer *buffer) {
    model_stretch what = {model_seed_in(c), c->received, lc_buffer_length(buffer)};
    model_note(m, "take on %u: %llu bytes at %llu", c->serial, (unsigned long long)what.length,
               (unsigned long long)what.position);
    TRY(model_matches(m, lc_buffer_bytes(buffer), (size_t)what.length, what, "what was received"));
    c->received += what.length;
    m->report->bytes_in += what.length;
    uint64_t fate = m->settling ? 999 : below(m, 1000);
    if (fate < 250) {
        for (uint32_t index = 0; index < MODEL_LEASES; index++) {
            if (m->leases[index].buffer)
                continue;
            m->leases[index] = (model_lease){buffer, what, m->loops};
            m->report->leases_held++;
            return 0;
        }
    } else if (fate < 500 && c->accepted - c->peer_received < MODEL_QUEUED_MAX) {
        return send_on(m, c, buffer, what);
    }
    return give_back(m, buffer, fate < 600 && fate >= 500);
}

static model_lease *some_lease(model *m) {
    uint32_t first = (uint32_t)below(m, MODEL_LEASES);
    for (uint32_t index = 0; index < MODEL_LEASES; index++) {
        model_lease *lease = &m->leases[(first + index) % MODEL_LEASES];
        if (lease->buffer)
            return lease;
    }
    return NULL;
}

static int take_back(model *m, model_lease *lease, lc_buffer **buffer) {
    TRY(lease_check(m, lease));
    *buffer = lease->buffer;
    m->report->leases_of_older_loops += lease->loop != m->loops;
    lease->buffer = NULL;
    return 0;
}

static int return_some(model *m, bool elsewhere) {
    uint64_t count = chance(m, 200) ? MODEL_LEASES : 1 + below(m, 4);
    model_lease *lease;
    while (count-- > 0 && (lease = some_lease(m))) {
        lc_buffer *buffer;
        TRY(take_back(m, lease, &buffer));
        TRY(give_back(m, buffer, elsewhere));
    }
    return 0;
}

int act_return_lease(model *m) { return return_some(m, false); }
int act_return_lease_elsewhere(model *m) { return return_some(m, true); }

int act_send_lease(model *m) {
    model_lease *lease = some_lease(m);
    model_connection *c = model_pick(m, model_is_held);
    if (!lease || !c || c->accepted - c->peer_received > MODEL_QUEUED_MAX)
        return 0;
    lc_buffer *buffer;
    TRY(take_back(m, lease, &buffer));
    return send_on(m, c, buffer, lease->what);
}

int model_leases_return_all(model *m) {
    for (uint32_t index = 0; index < MODEL_LEASES; index++) {
        lc_buffer *buffer;
        if (!m->leases[index].buffer)
            continue;
        TRY(take_back(m, &m->leases[index], &buffer));
        TRY(give_back(m, buffer, false));
    }
    return 0;
}
