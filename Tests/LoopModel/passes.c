// SPDX-License-Identifier: Apache-2.0
/* passes.c: one pass of the loop: what it hands out, what users do meanwhile, and what has to hold afterwards. */
#include "model.h"

/* Real time that may pass without anything happening while something is owed. Far beyond any delay of loopback. */
#define PATIENCE_NS 5000000000u
/* Virtual time that a pass may take beyond its sleep. */
#define OVERSLEPT_NS 1000000u
enum { GUARD_NS = 2000000, SETTLE_PASSES_MAX = 200000 };

int model_deliver(model *m, lc_node *node) {
    m->report->deliveries++;
    switch ((lc_kind)node->kind) {
    case LC_KIND_RECEIVE:
        return model_received(m, lc_node_stream(node));
    case LC_KIND_SEND:
        return model_sent(m, lc_node_stream(node));
    case LC_KIND_CLOSED:
        return model_closed(m, lc_node_stream(node));
    case LC_KIND_ACCEPT:
        return model_accept(m, lc_node_listener(node));
    case LC_KIND_CALL:
    case LC_KIND_SLEEP:
        return model_called(m, node);
    case LC_KIND_POST:
        return model_posted(m, node);
    case LC_KIND_OP:
        return model_polled(m, node);
    default:
        return model_fail(m, "an entry of kind %d was handed out", (int)node->kind);
    }
}

/* ---- after a pass ---- */

uint32_t model_timers_pending(const model *m) {
    uint32_t count = m->guard_word != 0;
    for (uint32_t index = 0; index < MODEL_CALLS; index++)
        count += m->calls[index].pending && m->calls[index].timer;
    return count;
}

static int check_counters(model *m) {
    lc_stats stats;
    lc_loop_stats(m->loop, &stats);
    uint32_t held = model_leases_held(m);
    RULE(stats.leased >= held, "%u leases are held, and the loop counts %u", held, stats.leased);
    if (!m->cut_short && !m->odds.accept_fails)
        RULE(stats.timers == model_timers_pending(m), "%u timers are pending, and the loop counts %u",
             model_timers_pending(m), stats.timers);
    uint32_t streams = 0;
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++)
        streams += m->connections[index].used && m->connections[index].end == MODEL_END_HELD;
    RULE(stats.streams >= streams, "%u streams are held, and the loop counts %u", streams, stats.streams);
    RULE(m->failed == false, "a rule was broken while the loop slept");
    const char *finding = model_kernel_finding(m);
    RULE(finding == NULL, "the kernel found: %s", finding);
    return 0;
}

static void tidy(model *m) {
    for (uint32_t index = 0; index < MODEL_CONNECTIONS; index++)
        if (m->connections[index].used)
            model_connection_tidy(m, &m->connections[index]);
}

/* Walks what the pass hands out; users act in between, as callbacks do. */
static int deliver_all(model *m, int *count, bool *cut_short) {
    lc_node *node;
    while ((node = lc_loop_next(m->loop))) {
        ++*count;
        uint64_t guard = m->guard_word;
        m->delivering = true;
        int result = model_deliver(m, node);
        if (guard == m->guard_word)
            m->progress_ns = lc_now_ns();
        while (result == 0 && !m->settling && chance(m, m->inside_permille))
            result = model_act(m, true);
        m->delivering = false;
        TRY(result);
        if (!m->settling && chance(m, m->cut_short_permille)) {
            model_note(m, "leave in the middle of a pass");
            lc_loop_leave(m->loop);
            RULE(lc_loop_enter(m->loop) == 0, "a loop that was left cannot be entered");
            m->report->passes_cut_short++;
            *cut_short = true;
            return 0;
        }
    }
    return 0;
}

int model_pass(model *m, bool wait) {
    m->pass++;
    (void)lc_now_ns(); /* on the simulated kernel it is looking that lets time pass */
    m->report->passes++;
    if (wait && !m->config->simulated)
        TRY(model_guard(m, GUARD_NS));
    model_calls_before_pass(m);
    uint64_t wake_ns = lc_now_ns(), deadline_ns;
    if (model_next_deadline(m, &deadline_ns) && deadline_ns > wake_ns)
        wake_ns = deadline_ns;
    int promised = lc_loop_tick(m->loop, wait);
    RULE(promised >= 0, "a pass failed with %d", promised);
    uint64_t now_ns = lc_now_ns();
    if (m->config->simulated && model_next_deadline(m, &deadline_ns))
        RULE(now_ns <= wake_ns || now_ns - wake_ns < OVERSLEPT_NS, "asleep for %llu ns past the next deadline",
             (unsigned long long)(now_ns - wake_ns));
    model_note(m, "pass%s: %d entries", wait ? ", may sleep" : "", promised);
    int count = 0;
    bool cut_short = false;
    TRY(deliver_all(m, &count, &cut_short));
    RULE(count <= promised, "%d entries were handed out, and %d were promised", count, promised);
    m->cut_short = cut_short;
    if (!cut_short)
        TRY(model_calls_after_pass(m));
    lc_loop_verify(m->loop);
    if (m->pass % 16 == 0)
        TRY(model_leases_check(m));
    TRY(check_counters(m));
    tidy(m);
    return 0;
}

/* Nothing new from here: everything that is owed is to be answered. */
int model_settle(model *m) {
    model_note(m, "settle");
    TRY(model_take_stop(m));
    bool was_settling = m->settling;
    m->settling = true;
    m->progress_ns = lc_now_ns();
    char text[96];
    for (uint32_t pass = 0; model_owes(m, text, sizeof text); pass++) {
        RULE(pass < SETTLE_PASSES_MAX, "%s is owed, and does not come in %u passes", text, pass);
        RULE(m->config->simulated || lc_now_ns() - m->progress_ns < PATIENCE_NS, "%s is owed, and does not come", text);
        TRY(model_pass(m, true));
    }
    m->settling = was_settling;
    return 0;
}
