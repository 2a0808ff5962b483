// SPDX-License-Identifier: Apache-2.0
/* timers.c: calls, timers and posts: each once, in order, none early, none after its cancel. */
#include "model.h"

static model_call *free_call(model *m) {
    for (uint32_t index = 0; index < MODEL_CALLS; index++)
        if (!m->calls[index].pending)
            return &m->calls[index];
    return NULL;
}

static model_call *some_call(model *m, bool pending, bool timer) {
    uint32_t first = (uint32_t)below(m, MODEL_CALLS);
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        model_call *call = &m->calls[(first + index) % MODEL_CALLS];
        if (call->pending == pending && (!timer || call->timer) && call->word)
            return call;
    }
    return NULL;
}

int act_call_soon(model *m) {
    model_call *call = free_call(m);
    if (!call)
        return 0;
    *call = (model_call){.pending = true, .sleep = chance(m, 300), .word = model_next_word(m)};
    call->sequence = ++m->call_sequence;
    int result = lc_call_soon(m->loop, call->sleep ? LC_KIND_SLEEP : LC_KIND_CALL, call->word, &call->id);
    model_note(m, "call %llu soon", (unsigned long long)call->word);
    RULE(result == 0, "a call was refused with %d", result);
    return 0;
}

static uint64_t some_deadline(model *m) {
    uint64_t now_ns = lc_now_ns();
    model_call *other;
    switch (below(m, 9)) {
    case 0:
        return below(m, 2) ? 0 : now_ns - below(m, 5000000);
    case 1:
        return now_ns;
    case 2:
    case 3:
        other = some_call(m, true, true);
        return other ? other->deadline_ns : now_ns + 1;
    case 4:
    case 5:
        return now_ns + below(m, 200000);
    case 6:
    case 7:
        return now_ns + below(m, 3000000);
    default:
        return chance(m, 100) ? UINT64_MAX : now_ns + size_up_to(m, (uint64_t)90 * 24 * 3600) * 1000000000u;
    }
}

int act_call_at(model *m) {
    model_call *call = free_call(m);
    if (!call)
        return 0;
    uint64_t deadline_ns = some_deadline(m);
    *call = (model_call){.pending = true, .timer = true, .sleep = chance(m, 300), .deadline_ns = deadline_ns};
    call->word = model_next_word(m);
    call->sequence = ++m->call_sequence;
    int result = lc_call_at(m->loop, call->sleep ? LC_KIND_SLEEP : LC_KIND_CALL, deadline_ns, call->word, &call->id);
    model_note(m, "timer %llu at %llu", (unsigned long long)call->word, (unsigned long long)deadline_ns);
    RULE(result == 0, "a timer was refused with %d", result);
    return 0;
}

static int cancel_call(model *m, model_call *call) {
    RULE(lc_call_is_pending(m->loop, call->id) == call->pending, "call %llu is %spending, and the loop denies it",
         (unsigned long long)call->word, call->pending ? "" : "not ");
    uint64_t word = 0;
    int result = lc_call_cancel(m->loop, call->id, &word);
    model_note(m, "cancel call %llu: %d", (unsigned long long)call->word, result);
    RULE(result == call->pending, "cancelling call %llu said %d", (unsigned long long)call->word, result);
    RULE(!call->pending || word == call->word, "cancelling call %llu gave the word %llu",
         (unsigned long long)call->word, (unsigned long long)word);
    if (call->pending && call->timer)
        m->report->timers_cancelled++;
    call->pending = false;
    return 0;
}

int act_call_cancel(model *m) {
    model_call *call = some_call(m, !chance(m, 150), false);
    if (!call)
        return 0;
    TRY(cancel_call(m, call));
    if (chance(m, 500))
        call->word = 0; /* the next cancel that is too late asks about another */
    return 0;
}

int model_calls_cancel_all(model *m) {
    for (uint32_t index = 0; index < MODEL_CALLS; index++)
        if (m->calls[index].pending)
            TRY(cancel_call(m, &m->calls[index]));
    uint64_t word;
    if (m->guard_word)
        lc_call_cancel(m->loop, m->guard, &word);
    m->guard_word = 0;
    return 0;
}

/* Bounds a sleep on the real kernel, where what the model takes for granted may be late. */
int model_guard(model *m, uint64_t ns) {
    uint64_t word;
    if (m->guard_word)
        lc_call_cancel(m->loop, m->guard, &word);
    m->guard_word = model_next_word(m);
    RULE(lc_call_at(m->loop, LC_KIND_SLEEP, lc_now_ns() + ns, m->guard_word, &m->guard) == 0, "a timer was refused");
    return 0;
}

/* ---- around a pass ---- */

/* What is due now has to be delivered in the pass that begins. */
void model_calls_before_pass(model *m) {
    uint64_t now_ns = lc_now_ns();
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        model_call *call = &m->calls[index];
        call->due = call->pending && (!call->timer || call->deadline_ns <= now_ns);
    }
    for (uint32_t index = 0; index < MODEL_POSTS; index++)
        m->posts[index].due = m->posts[index].pending;
    m->last_deadline_ns = m->last_timer = 0;
}

bool model_next_deadline(const model *m, uint64_t *deadline_ns) {
    *deadline_ns = UINT64_MAX;
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        const model_call *call = &m->calls[index];
        if (call->pending && call->timer && call->deadline_ns < *deadline_ns)
            *deadline_ns = call->deadline_ns;
    }
    return *deadline_ns < UINT64_MAX;
}

int model_calls_after_pass(model *m) {
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        const model_call *call = &m->calls[index];
        RULE(!call->due || !call->pending, "%s %llu was due before the pass, and did not run in it",
             call->timer ? "timer" : "call", (unsigned long long)call->word);
    }
    for (uint32_t index = 0; index < MODEL_POSTS; index++)
        RULE(!m->posts[index].due || !m->posts[index].pending, "a post was there before the pass, and did not run");
    return 0;
}

int model_called(model *m, lc_node *node) {
    const lc_call *record = (const lc_call *)(const void *)((char *)node - offsetof(lc_call, node));
    if (m->guard_word && record->word == m->guard_word) {
        m->guard_word = 0;
        return 0;
    }
    for (uint32_t index = 0; index < MODEL_CALLS; index++) {
        model_call *call = &m->calls[index];
        if (!call->pending || call->word != record->word)
            continue;
        model_note(m, "%s %llu runs", call->timer ? "timer" : "call", (unsigned long long)call->word);
        RULE(node->kind == (call->sleep ? LC_KIND_SLEEP : LC_KIND_CALL), "a call of another kind than it was made");
        call->pending = call->due = false;
        if (!call->timer) {
            RULE(call->sequence > m->last_call, "call %llu runs after one that was made later",
                 (unsigned long long)call->word);
            m->last_call = call->sequence;
            m->report->calls++;
            return 0;
        }
        m->report->timers_fired++;
        RULE(lc_now_ns() >= call->deadline_ns || lc_loop_is_closed(m->loop), "timer %llu fires early",
             (unsigned long long)call->word);
        /* The rest of a pass that was cut short comes before this pass's own. */
        bool in_order = call->deadline_ns > m->last_deadline_ns ||
                        (call->deadline_ns == m->last_deadline_ns && call->sequence > m->last_timer);
        RULE(in_order || m->cut_short || lc_loop_is_closed(m->loop), "timer %llu fires out of order",
             (unsigned long long)call->word);
        m->last_deadline_ns = call->deadline_ns;
        m->last_timer = call->sequence;
        return 0;
    }
    return model_fail(m, "call %llu runs, and is not pending", (unsigned long long)record->word);
}

/* ---- posts ---- */

static void post_it(model *m, void *argument) {
    model_post *post = argument;
    if (lc_loop_post(m->loop, &post->post) < 0)
        post->pending = false;
}

static int post(model *m, bool elsewhere) {
    for (uint32_t index = 0; index < MODEL_POSTS; index++) {
        model_post *post = &m->posts[index];
        if (post->pending)
            continue;
        bool inbox = elsewhere || lc_loop_current() != m->loop;
        *post = (model_post){.pending = true, .elsewhere = inbox, .sequence = ++m->post_sequence};
        post->post.word = post;
        model_note(m, "post %llu%s", (unsigned long long)post->sequence, elsewhere ? ", elsewhere" : "");
        if (elsewhere)
            model_elsewhere(m, post_it, post);
        else
            post_it(m, post);
        RULE(post->pending, "a post was refused");
        return 0;
    }
    return 0;
}

int act_post(model *m) { return post(m, false); }
int act_post_elsewhere(model *m) { return post(m, true); }

/* While the loop sleeps; false if all records are in use. */
bool model_post_from_outside(model *m) {
    uint64_t before = m->post_sequence;
    return post(m, true) == 0 && m->post_sequence != before;
}

int model_posted(model *m, lc_node *node) {
    lc_post *record = (lc_post *)(void *)((char *)node - offsetof(lc_post, node));
    model_post *post = record->word;
    RULE(post >= m->posts && post < m->posts + MODEL_POSTS && post->pending, "a post runs that is not pending");
    model_note(m, "post %llu runs", (unsigned long long)post->sequence);
    RULE(post->sequence > m->last_post[post->elsewhere], "a post runs after one that was made later");
    m->last_post[post->elsewhere] = post->sequence;
    post->pending = post->due = false;
    m->report->posts++;
    return 0;
}

static void stop_it(model *m, void *argument) {
    (void)argument;
    lc_loop_stop(m->loop);
}

int model_take_stop(model *m) {
    RULE(lc_loop_take_stop(m->loop) == m->stop_asked, "a stop was asked, or was not, and the loop denies it");
    RULE(!lc_loop_take_stop(m->loop), "one stop was seen twice");
    m->stop_asked = false;
    return 0;
}

int act_stop(model *m) {
    if (m->stop_asked || chance(m, 300))
        return model_take_stop(m);
    model_note(m, "stop");
    m->report->stops++;
    if (chance(m, 500))
        model_elsewhere(m, stop_it, NULL);
    else
        lc_loop_stop(m->loop);
    m->stop_asked = true;
    return 0;
}
