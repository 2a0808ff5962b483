// SPDX-License-Identifier: Apache-2.0
/* life.c: one loop after another: made with any options, closed with anything pending, or drained to zero. */
#include "model.h"

enum { FINISH_ROUNDS_MAX = 3000000, QUIET_PASSES_MAX = 10000 };
#define FINISH_PATIENCE_NS 10000000000u

/* ---- make ---- */

#define ONE_OF(m, ...) ((const uint32_t[]){__VA_ARGS__}[below(m, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)])

static void draw_options(model *m) {
    lc_options *options = &m->options;
    *options = (lc_options){.backend = m->config->backend};
    if (m->config->options) {
        *options = *m->config->options;
    } else if (m->config->tiny) {
        *options = (lc_options){.backend = m->config->backend,
                                .buffer_count = 1,
                                .buffer_size = 64,
                                .reap_batch_max = 1,
                                .accept_batch_max = 1,
                                .submission_count = 2,
                                .completion_count = 4};
    } else if (chance(m, 800)) {
        options->buffer_count = ONE_OF(m, 0, 1, 2, 4, 8);
        options->buffer_size = ONE_OF(m, 0, 0, 1, 7, 64, 1000, 4096);
        options->submission_count = ONE_OF(m, 0, 2, 4, 16);
        options->completion_count = ONE_OF(m, 0, 4, 8, 32);
        options->reap_batch_max = ONE_OF(m, 0, 0, 1, 2, 5, 64);
        options->accept_batch_max = ONE_OF(m, 0, 1, 2, 5);
    }
    if (!m->config->options && chance(m, 400))
        options->features_off = (uint32_t)below(m, 128);
    if (!m->config->options && !m->config->simulated)
        options->selector = ONE_OF(m, LC_SELECTOR_BEST, LC_SELECTOR_BEST, LC_SELECTOR_BEST, LC_SELECTOR_EPOLL,
                                   LC_SELECTOR_POLL, LC_SELECTOR_SELECT);
    m->write_max = options->buffer_size ? (uint64_t)options->buffer_size * 256 : MODEL_WRITE_MAX;
    uint64_t most = m->config->write_max ? m->config->write_max : MODEL_WRITE_MAX;
    if (m->write_max > most)
        m->write_max = most;
}

int model_open(model *m) {
    draw_options(m);
    int result = lc_loop_create(&m->options, &m->loop);
    RULE(result == 0, "a loop cannot be made: %d", result);
    m->loops++;
    m->report->loops++;
    model_note(m, "loop %llu: %u buffers of %u bytes, %u submissions, %u completions, batch %u, accepts %u, off %#x",
               (unsigned long long)m->loops, m->options.buffer_count, m->options.buffer_size,
               m->options.submission_count, m->options.completion_count, m->options.reap_batch_max,
               m->options.accept_batch_max, m->options.features_off);
    m->stop_asked = m->cut_short = false;
    m->last_call = m->last_post[0] = m->last_post[1] = 0;
    return act_enter(m);
}

int act_enter(model *m) {
    if (m->entered)
        return 0;
    int result = lc_loop_enter(m->loop);
    RULE(result == 0, "a loop cannot be entered: %d", result);
    RULE(lc_loop_enter(m->loop) == -EALREADY, "a loop can be entered twice");
    RULE(lc_loop_current() == m->loop && lc_loop_is_running(m->loop), "a loop that runs is not the current one");
    m->entered = true;
    return 0;
}

int act_leave(model *m) {
    if (!m->entered)
        return act_enter(m);
    model_note(m, "leave");
    RULE(lc_loop_close(m->loop) == -EBUSY, "a loop that runs can be closed");
    lc_loop_leave(m->loop);
    RULE(lc_loop_current() == NULL && !lc_loop_is_running(m->loop), "a loop that was left still runs");
    m->entered = false;
    m->cut_short = true; /* what was due before it was left may come first */
    return 0;
}

/* ---- close, with anything pending ---- */

static int nobody_waits(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        const model_connection *c = &m->connections[index];
        if (!c->used || c->end != MODEL_END_HELD)
            continue;
        RULE(!c->receive_wait, "connection %u: a wait to receive outlives the loop", c->serial);
        RULE(!c->send_wait, "connection %u: a wait to send outlives the loop", c->serial);
        RULE(!c->closed_wait, "connection %u: a wait for the close outlives the loop", c->serial);
        RULE(lc_stream_is_closed(c->stream), "connection %u: its stream outlives the loop", c->serial);
    }
    for (uint32_t index = 0; index < MODEL_LISTENERS; index++) {
        const model_listener *l = &m->listeners[index];
        RULE(!l->listener || !l->wait, "a wait to accept outlives the loop");
        RULE(!l->listener || lc_listener_is_closed(l->listener), "a listener outlives the loop");
    }
    for (uint32_t index = 0; index < MODEL_CALLS; index++)
        RULE(!m->calls[index].pending, "call %llu was lost with the loop", (unsigned long long)m->calls[index].word);
    for (uint32_t index = 0; index < MODEL_POSTS; index++)
        RULE(!m->posts[index].pending, "post %llu was lost with the loop",
             (unsigned long long)m->posts[index].sequence);
    RULE(!model_polls_pending(m), "a wait for readiness outlives the loop");
    return 0;
}

static int everything_is_refused(model *m) {
    lc_call_id id;
    lc_stream *stream;
    lc_post post = {.word = NULL};
    RULE(lc_loop_is_closed(m->loop), "a closed loop denies it");
    RULE(lc_loop_enter(m->loop) == -EBADF, "a closed loop can be entered");
    RULE(lc_call_soon(m->loop, LC_KIND_CALL, 1, &id) == -EBADF, "a closed loop takes a call");
    RULE(lc_call_at(m->loop, LC_KIND_CALL, 1, 1, &id) == -EBADF, "a closed loop takes a timer");
    RULE(lc_loop_post(m->loop, &post) == -EBADF, "a closed loop takes a post");
    RULE(lc_stream_adopt(m->loop, 0, &stream) == -EBADF, "a closed loop takes a stream");
    return 0;
}

/* What the loop's end of everything becomes. */
static void gone_with_the_loop(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (!c->used)
            continue;
        c->cut = true;
        c->closing = true;
        c->late_pass = 0;
        if (c->end == MODEL_END_HELD && chance(m, 500))
            lc_stream_release(c->stream);
        c->end = MODEL_END_GONE;
        model_connection_tidy(m, c);
    }
    for (uint32_t index = 0; index < MODEL_LISTENERS; index++) {
        model_listener *l = &m->listeners[index];
        if (l->listener && chance(m, 500))
            lc_listener_release(l->listener);
        l->listener = NULL;
    }
    for (uint32_t index = 0; index < MODEL_CALLS; index++)
        m->calls[index].word = 0; /* its id means nothing to the next loop */
}

static void add_stats(model *m) {
    lc_stats stats;
    lc_loop_stats(m->loop, &stats);
    m->report->ticks += stats.ticks;
    m->report->starved += stats.starved;
    m->report->overflows += stats.overflows;
    m->report->queue_full += stats.queue_full;
    m->report->stale += stats.stale;
    m->report->copied_out += stats.copied_out;
    m->report->accept_backoffs += stats.accept_backoffs;
}

static void expect_the_end(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (!c->used)
            continue;
        c->cut = c->closing = c->aborting = true;
    }
    for (uint32_t index = 0; index < MODEL_LISTENERS; index++)
        if (m->listeners[index].listener)
            model_listener_gone(m, &m->listeners[index]);
}

int model_close_loop(model *m) {
    lc_stats stats;
    lc_loop_stats(m->loop, &stats);
    model_note(m, "close the loop: %u queued, %u in the kernel, %u armed, %u leased", stats.queued, stats.in_kernel,
               stats.armed, stats.leased);
    m->report->closes_with_work += stats.queued || stats.in_kernel || stats.armed;
    if (m->entered)
        TRY(act_leave(m));
    add_stats(m);
    expect_the_end(m);
    int result = lc_loop_close(m->loop);
    RULE(result == 0, "closing a loop said %d", result);
    RULE(!m->failed, "a rule was broken while the loop closed");
    lc_loop_stats(m->loop, &stats);
    RULE(stats.in_kernel == 0, "a loop was closed, and the kernel keeps %u of its operations", stats.in_kernel);
    uint64_t answered = m->report->waits_answered;
    lc_node *node;
    m->settling = true;
    while ((node = lc_loop_drop_next(m->loop)))
        TRY(model_deliver(m, node));
    m->settling = false;
    m->guard_word = 0;
    m->report->waits_ended_by_close += m->report->waits_answered - answered;
    lc_loop_verify(m->loop);
    TRY(nobody_waits(m));
    TRY(everything_is_refused(m));
    RULE(model_kernel_finding(m) == NULL, "the kernel found: %s", model_kernel_finding(m));
    TRY(model_leases_check(m));
    gone_with_the_loop(m);
    lc_loop_free(m->loop);
    m->loop = NULL;
    return model_leases_check(m);
}

int act_reopen(model *m) {
    TRY(model_close_loop(m));
    return model_open(m);
}

/* ---- an end in good order ---- */

/* One step of an orderly end of a connection; true in *busy while there is more to do. */
static int finish_connection(model *m, model_connection *c, bool *busy) {
    *busy = true;
    bool moved = false;
    if (c->answer >= 0)
        TRY(model_peer_accept(m, c, &moved));
    if (c->used && c->peer >= 0 && !c->peer_ended)
        TRY(model_peer_read(m, c, 4 * sizeof m->scratch, &moved));
    if (!c->used)
        return 0;
    if (c->answer >= 0 && (c->end == MODEL_END_GONE || c->connect_failed)) {
        close(c->answer); /* nobody comes any more */
        c->answer = -1;
    }
    if (c->peer >= 0 && !c->peer_finished && !c->peer_broken && !c->peer_ended)
        TRY(model_peer_finish(m, c));
    if (c->peer >= 0 && c->peer_ended)
        model_peer_close(m, c, false);
    if (!c->used || c->end != MODEL_END_HELD)
        return 0;
    if (moved)
        m->progress_ns = lc_now_ns();
    if (c->leaving)
        return 0;
    if (lc_stream_is_closed(c->stream))
        return c->closed_wait ? 0 : model_release(m, c, false);
    if (c->closing)
        return c->closed_wait ? 0 : model_wait_closed(m, c);
    if (c->connecting)
        return c->send_wait ? 0 : model_wait_send(m, c, SIZE_MAX);
    bool all_read = c->ended || c->receive_error;
    bool all_sent = lc_stream_unsent(c->stream) == 0 || lc_stream_send_error(c->stream);
    if (all_read && (all_sent || c->peer_closed))
        return model_close(m, c, c->peer_closed, false);
    if (!all_read && !c->started && !c->receive_wait)
        return model_wait_receive(m, c);
    if (!all_read && c->paused) {
        c->paused = false;
        return lc_stream_start_receiving(c->stream);
    }
    return 0;
}

static int finish_connections(model *m, bool *busy) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (!c->used)
            continue;
        bool this_one;
        TRY(finish_connection(m, c, &this_one));
        *busy |= this_one;
    }
    return 0;
}

static int check_zero(model *m) {
    lc_stats stats;
    for (uint32_t pass = 0;; pass++) {
        lc_loop_stats(m->loop, &stats);
        if (!stats.queued && !stats.in_kernel && !stats.armed && !stats.streams && !stats.leased &&
            !lc_loop_is_alive(m->loop))
            break;
        RULE(pass < QUIET_PASSES_MAX, "left over: %u queued, %u in the kernel, %u armed, %u leased, %u streams",
             stats.queued, stats.in_kernel, stats.armed, stats.leased, stats.streams);
        TRY(model_pass(m, false));
    }
    RULE(stats.timers == 0, "%u timers are left over", stats.timers);
    return 0;
}

static void describe_the_rest(const model *m, char *text, size_t size) {
    snprintf(text, size, "an orderly end");
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        const model_connection *c = &m->connections[index];
        if (!c->used)
            continue;
        bool held = c->end == MODEL_END_HELD;
        snprintf(text, size, "the end of connection %u (%s%s%s%s, %zu unsent)", c->serial, c->peer >= 0 ? "peer, " : "",
                 held ? "held" : "gone", c->closing ? ", closing" : "", c->connecting ? ", connecting" : "",
                 held ? lc_stream_unsent(c->stream) : 0);
        return;
    }
}

/* Everything is brought to its end politely: bytes arrive, waits are answered, and nothing is left over. */
int model_finish(model *m) {
    model_note(m, "finish");
    TRY(act_enter(m));
    TRY(model_settle(m)); /* takes a stop, too: with one asked for, no pass sleeps */
    m->settling = true;
    for (uint32_t index = 0; index < MODEL_LISTENERS; index++) {
        model_listener *l = &m->listeners[index];
        if (!l->listener)
            continue;
        lc_listener_release(l->listener);
        model_listener_gone(m, l);
        l->listener = NULL;
    }
    m->progress_ns = lc_now_ns();
    for (uint32_t round = 0;; round++) {
        bool busy = false;
        char text[96];
        describe_the_rest(m, text, sizeof text);
        TRY(model_calls_cancel_all(m));
        TRY(model_polls_close(m));
        TRY(finish_connections(m, &busy));
        if (!busy && !model_polls_pending(m) && !model_owes(m, text, sizeof text))
            break;
        model_owes(m, text, sizeof text);
        RULE(round < FINISH_ROUNDS_MAX, "%s does not come in %u rounds", text, round);
        RULE(m->config->simulated || lc_now_ns() - m->progress_ns < FINISH_PATIENCE_NS, "%s does not come", text);
        TRY(model_pass(m, !m->config->simulated || model_owes(m, text, sizeof text)));
    }
    TRY(model_calls_cancel_all(m));
    TRY(model_polls_close(m));
    TRY(model_leases_return_all(m));
    TRY(check_zero(m));
    m->settling = false;
    lc_loop_leave(m->loop);
    m->entered = false;
    add_stats(m);
    RULE(lc_loop_close(m->loop) == 0, "an idle loop cannot be closed");
    RULE(lc_loop_drop_next(m->loop) == NULL, "an idle loop has something to drop");
    lc_loop_free(m->loop);
    m->loop = NULL;
    return 0;
}

/* After a failure: best effort, so that the process can go on. */
void model_abandon(model *m) {
    if (m->loop) {
        if (lc_loop_current() == m->loop)
            lc_loop_leave(m->loop);
        lc_loop_close(m->loop);
        while (lc_loop_drop_next(m->loop))
            continue;
    }
    for (uint32_t index = 0; index < MODEL_LEASES; index++)
        if (m->leases[index].buffer)
            lc_buffer_return(m->leases[index].buffer);
    if (m->loop)
        lc_loop_free(m->loop);
    m->loop = NULL;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++) {
        model_connection *c = &m->connections[index];
        if (c->used && c->peer >= 0)
            close(c->peer);
        if (c->used && c->answer >= 0)
            close(c->answer);
        if (c->used)
            free(c->out);
    }
    for (uint32_t index = 0; index < MODEL_POLLS; index++) {
        model_poll *p = &m->polls[index];
        if (p->used)
            close(p->fd);
        if (p->used && p->other >= 0)
            close(p->other);
    }
}
