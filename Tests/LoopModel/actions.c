// SPDX-License-Identifier: Apache-2.0
/* actions.c: what can happen in one step, and how often: weights are drawn per run, so that runs differ. */
#include "model.h"

enum { INSIDE = 1, ESSENTIAL = 2, CANCELS = 4, TIMERS = 8 };

typedef struct model_action {
    const char *name;
    int (*play)(model *m);
    uint16_t weight;
    uint8_t flags; /* may happen in a delivery; never left out; belongs to a focus */
} model_action;

/* Takes the lowest number that is free, and waits. */
static int move_in(model *m) {
    if (chance(m, 300))
        return act_connect(m);
    uint32_t last = m->last_serial;
    TRY(act_adopt_local(m));
    model_connection *c = model_connection_newest(m);
    return c && m->last_serial > last ? model_wait_receive(m, c) : 0;
}

static int pass(model *m, bool wait) {
    lc_stats stats;
    lc_loop_stats(m->loop, &stats);
    uint32_t streams_before = stats.streams;
    TRY(model_pass(m, wait));
    lc_loop_stats(m->loop, &stats);
    /* Others take the numbers of descriptors that were closed in the pass, before the loop looks at the kernel again. */
    if (stats.streams >= streams_before || !chance(m, m->move_in_permille))
        return 0;
    for (uint64_t count = streams_before - stats.streams + below(m, 4); count > 0; count--)
        TRY(move_in(m));
    return 0;
}

static int act_pass(model *m) { return pass(m, false); }

/* The real kernel is only trusted to wake a loop at a timer's time. */
static int act_sleep(model *m) { return pass(m, true); }

static int act_settle(model *m) { return model_settle(m); }

static const model_action actions[] = {
    {"pass", act_pass, 160, ESSENTIAL | CANCELS | TIMERS},
    {"sleep", act_sleep, 60, ESSENTIAL | CANCELS | TIMERS},
    {"settle", act_settle, 6, ESSENTIAL | CANCELS | TIMERS},
    {"adopt-local", act_adopt_local, 18, INSIDE | CANCELS},
    {"adopt-tcp", act_adopt_tcp, 14, INSIDE | CANCELS},
    {"connect", act_connect, 10, INSIDE},
    {"client", act_client, 20, INSIDE},
    {"peer-accept", act_peer_accept, 20, 0},
    {"peer-write", act_peer_write, 110, INSIDE | ESSENTIAL | CANCELS},
    {"peer-read", act_peer_read, 90, INSIDE | ESSENTIAL},
    {"peer-finish", act_peer_finish, 6, INSIDE},
    {"peer-reset", act_peer_reset, 4, INSIDE},
    {"peer-close", act_peer_close, 8, INSIDE | CANCELS},
    {"take", act_take, 50, INSIDE | CANCELS},
    {"wait-receive", act_wait_receive, 110, INSIDE | ESSENTIAL | CANCELS},
    {"start", act_start_receiving, 6, INSIDE},
    {"pause", act_pause_receiving, 6, INSIDE},
    {"cancel-receive", act_cancel_receive, 30, INSIDE | CANCELS},
    {"return", act_return_lease, 30, INSIDE | ESSENTIAL | CANCELS},
    {"return-elsewhere", act_return_lease_elsewhere, 8, INSIDE},
    {"send-lease", act_send_lease, 20, INSIDE},
    {"send", act_send_copy, 60, INSIDE},
    {"wait-send", act_wait_send, 20, INSIDE},
    {"cancel-send", act_cancel_send, 8, INSIDE},
    {"finish", act_finish_sending, 6, INSIDE},
    {"close", act_close_politely, 8, INSIDE | CANCELS},
    {"last-words", act_last_words, 8, INSIDE},
    {"abort", act_abort, 4, INSIDE},
    {"reset", act_reset, 3, INSIDE},
    {"wait-closed", act_wait_closed, 10, INSIDE},
    {"give-away", act_give_away, 12, INSIDE | CANCELS},
    {"release", act_release, 12, INSIDE | ESSENTIAL | CANCELS},
    {"release-elsewhere", act_release_elsewhere, 4, INSIDE},
    {"listen", act_listen, 8, INSIDE},
    {"listener-take", act_listener_take, 8, INSIDE},
    {"listener-wait", act_listener_wait, 30, INSIDE},
    {"listener-start", act_listener_start, 3, INSIDE},
    {"listener-cancel", act_listener_cancel, 8, INSIDE},
    {"listener-close", act_listener_close, 2, INSIDE},
    {"listener-release", act_listener_release, 3, INSIDE},
    {"call-soon", act_call_soon, 20, INSIDE},
    {"call-at", act_call_at, 30, INSIDE | TIMERS},
    {"call-cancel", act_call_cancel, 20, INSIDE | TIMERS},
    {"post", act_post, 6, INSIDE},
    {"post-elsewhere", act_post_elsewhere, 10, INSIDE},
    {"stop", act_stop, 6, INSIDE},
    {"poll-make", act_poll_make, 4, INSIDE},
    {"poll", act_poll, 16, INSIDE},
    {"poll-signal", act_poll_signal, 10, INSIDE},
    {"poll-drain", act_poll_drain, 10, INSIDE},
    {"poll-cancel", act_poll_cancel, 8, INSIDE},
    {"poll-close", act_poll_close, 2, INSIDE},
    {"leave", act_leave, 6, 0},
    {"reopen", act_reopen, 3, 0},
};

enum { ACTION_COUNT = sizeof actions / sizeof *actions };
static_assert(ACTION_COUNT <= MODEL_ACTIONS_MAX, "one weight for each action");

static uint16_t focused(const model_action *action, model_focus focus) {
    if (focus == MODEL_FOCUS_CANCELS && action->play == act_cancel_receive)
        return 120;
    if (focus == MODEL_FOCUS_TIMERS && (action->play == act_call_at || action->play == act_call_cancel))
        return action->play == act_call_at ? 240 : 120;
    uint8_t flag = focus == MODEL_FOCUS_CANCELS ? CANCELS : TIMERS;
    return action->flags & flag ? action->weight : 0;
}

/* Some actions not at all, some often: what is rare in one run is common in another. */
void model_draw_weights(model *m) {
    static const uint16_t factors[] = {0, 1, 2, 2, 2, 2, 4, 10};
    for (size_t index = 0; index < ACTION_COUNT; index++) {
        const model_action *action = &actions[index];
        uint16_t factor = factors[below(m, sizeof factors / sizeof *factors)];
        if (m->config->focus != MODEL_FOCUS_ANY) {
            m->weights[index] = focused(action, m->config->focus);
            continue;
        }
        if (factor == 0 && action->flags & ESSENTIAL)
            factor = 1;
        m->weights[index] = (uint16_t)(action->weight * factor);
    }
    static const uint16_t inside[] = {0, 100, 300, 600};
    m->inside_permille = inside[below(m, 4)];
    m->cut_short_permille = chance(m, 300) ? 20 : 0;
    static const uint16_t move_in_odds[] = {0, 300, 900};
    m->move_in_permille = move_in_odds[below(m, 3)];
}

int model_act(model *m, bool inside) {
    uint64_t total = 0;
    for (size_t index = 0; index < ACTION_COUNT; index++)
        total += !inside || actions[index].flags & INSIDE ? m->weights[index] : 0;
    uint64_t at = below(m, total);
    for (size_t index = 0; index < ACTION_COUNT; index++) {
        uint64_t weight = !inside || actions[index].flags & INSIDE ? m->weights[index] : 0;
        if (at >= weight) {
            at -= weight;
            continue;
        }
        if (!m->entered &&
            (actions[index].play == act_pass || actions[index].play == act_sleep || actions[index].play == act_settle))
            return act_enter(m);
        return actions[index].play(m);
    }
    return 0;
}
