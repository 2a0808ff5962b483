// SPDX-License-Identifier: Apache-2.0
/* calls_and_timers.c: what runs when, and never early. */
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include "scenario.h"

/* ---- a log of what was delivered ---- */

typedef struct call_log {
    uint64_t *words;
    uint64_t *at_ns;
    uint32_t *passes;
    size_t count, capacity;
} call_log;

static int log_open(scenario *s, call_log *log, size_t capacity) {
    *log = (call_log){.words = calloc(capacity, sizeof(uint64_t)),
                      .at_ns = calloc(capacity, sizeof(uint64_t)),
                      .passes = calloc(capacity, sizeof(uint32_t)),
                      .capacity = capacity};
    CHECK(log->words && log->at_ns && log->passes);
    s->context = log;
    return 0;
}

static void log_close(call_log *log) {
    free(log->words);
    free(log->at_ns);
    free(log->passes);
}

static int log_word(scenario *s, uint64_t word) {
    call_log *log = s->context;
    CHECK_LT(log->count, log->capacity);
    log->at_ns[log->count] = lc_now_ns();
    log->passes[log->count] = s->passes;
    log->words[log->count++] = word;
    return 0;
}

static int log_call(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    return log_word(s, word);
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* ---- calls ---- */

int calls_run_in_order(scenario *s) {
    enum { COUNT = 1000 };
    call_log log;
    TRY(log_open(s, &log, COUNT));
    s->on.call = log_call;
    lc_call_id id;
    for (uint64_t word = 0; word < COUNT; word++)
        CHECK_EQ(lc_call_soon(s->loop, word % 2 ? LC_KIND_CALL : LC_KIND_SLEEP, word, &id), 0);
    RUN_UNTIL(log.count == COUNT);
    for (uint64_t word = 0; word < COUNT; word++)
        CHECK_EQ(log.words[word], word);
    TRY(scenario_settle(s));
    CHECK_EQ(log.count, COUNT);
    CHECK(!lc_call_is_pending(s->loop, id));
    log_close(&log);
    return 0;
}

static int log_post(scenario *s, lc_post *post) { return log_word(s, (uint64_t)(uintptr_t)post->word); }

static int log_receive(scenario *s, lc_stream *stream) {
    TRY(log_word(s, 3));
    return endpoint_received(s, stream);
}

static int post_two(scenario *s, void *context) {
    CHECK_EQ(lc_loop_post(s->loop, context), 0);
    return 0;
}

/* All four kinds of work are there when the pass begins. */
int earlier_calls_then_io_then_timers(scenario *s) {
    call_log log;
    TRY(log_open(s, &log, 8));
    endpoint e = {0};
    TRY(endpoint_open(s, &e, false));
    s->on = (scenario_handlers){.call = log_call, .post = log_post, .receive = log_receive};
    CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(log.count, 0);

    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 0, 4, &id), 0);
    uint8_t byte = pattern_byte(0, 0);
    TRY(peer_send(s, &e, &byte, 1));
    lc_post post = {.word = (void *)2};
    helper poster;
    TRY(helper_start(s, &poster, post_two, &post));
    TRY(helper_join(s, &poster));
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 1, &id), 0);
    TRY(scenario_pass(s, true));
    CHECK_EQ(log.count, 4);
    for (size_t index = 0; index < 4; index++)
        CHECK_EQ(log.words[index], index + 1);
    CHECK_EQ(e.received, 1);
    TRY(endpoint_close(s, &e));
    log_close(&log);
    return 0;
}

static int log_and_add(scenario *s, lc_kind kind, uint64_t word) {
    TRY(log_call(s, kind, word));
    lc_call_id id;
    if (word < 10)
        CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, word + 10, &id), 0);
    if (word == 0) /* due at once, and yet for the next pass */
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 0, 20, &id), 0);
    return 0;
}

int what_a_pass_adds_runs_in_the_next(scenario *s) {
    call_log log;
    TRY(log_open(s, &log, 8));
    s->on.call = log_and_add;
    lc_call_id id;
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &id), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 1, &id), 0);
    TRY(scenario_pass(s, true));
    CHECK_EQ(log.count, 2);
    TRY(scenario_pass(s, true));
    CHECK_EQ(log.count, 5);
    static const uint64_t expected[] = {0, 1, 10, 11, 20};
    for (size_t index = 0; index < 5; index++)
        CHECK_EQ(log.words[index], expected[index]);
    CHECK_EQ(log.passes[2], log.passes[1] + 1);
    CHECK_EQ(log.passes[4], log.passes[2]);
    log_close(&log);
    return 0;
}

typedef struct cancelling {
    lc_call_id later;
    uint32_t runs;
} cancelling;

static int cancel_the_later(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    cancelling *c = s->context;
    c->runs++;
    CHECK_NE(word, 2);
    CHECK_NE(word, 3);
    uint64_t cancelled;
    if (word == 1) {
        CHECK(lc_call_is_pending(s->loop, c->later));
        CHECK_EQ(lc_call_cancel(s->loop, c->later, &cancelled), 1);
        CHECK_EQ(cancelled, 2);
        CHECK(!lc_call_is_pending(s->loop, c->later));
        CHECK_EQ(lc_call_cancel(s->loop, c->later, &cancelled), 0);
    }
    return 0;
}

int a_cancelled_call_is_skipped(scenario *s) {
    cancelling c = {0};
    s->context = &c;
    s->on.call = cancel_the_later;
    lc_call_id first, third, fourth;
    uint64_t word;
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 1, &first), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 2, &c.later), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 3, &third), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 4, &fourth), 0);
    lc_call_id timer;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 0, 3, &timer), 0);
    CHECK_EQ(lc_call_cancel(s->loop, timer, &word), 1);
    CHECK_EQ(word, 3);
    CHECK_EQ(lc_call_cancel(s->loop, third, &word), 1);
    CHECK_EQ(word, 3);
    RUN_UNTIL(c.runs == 2);
    TRY(scenario_settle(s));
    CHECK_EQ(c.runs, 2);
    /* The slot is used again under another generation: an old name hits nobody. */
    CHECK_EQ(lc_call_cancel(s->loop, first, &word), 0);
    lc_call_id reused[8];
    for (uint64_t index = 0; index < 8; index++)
        CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 100 + index, &reused[index]), 0);
    CHECK_EQ(lc_call_cancel(s->loop, first, &word), 0);
    CHECK_EQ(lc_call_cancel(s->loop, (lc_call_id){.slot = 1u << 30, .generation = 1}, &word), 0);
    RUN_UNTIL(c.runs == 10);
    return 0;
}

typedef struct endless {
    uint32_t calls;
    bool over;
} endless;

static int call_again(scenario *s, lc_kind kind, uint64_t word) {
    endless *state = s->context;
    state->calls++;
    if (word == 1) {
        state->over = true;
        return 0;
    }
    lc_call_id id;
    if (!state->over)
        CHECK_EQ(lc_call_soon(s->loop, kind, 0, &id), 0);
    return 0;
}

int calls_without_end_starve_nobody(scenario *s) {
    endless state = {0};
    s->context = &state;
    s->on.call = call_again;
    endpoint e = {.echo = true};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    lc_call_id id;
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &id), 0);
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &id), 0);
    uint8_t bytes[512];
    bool end = false;
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    CHECK(!state.over);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + 2000000, 1, &id), 0);
    RUN_UNTIL(state.over);
    TRY(scenario_settle(s));
    CHECK_GT(state.calls, 3);
    return endpoint_close(s, &e);
}

/* ---- timers ---- */

int equal_deadlines_fire_in_the_order_set(scenario *s) {
    enum { COUNT = 3000 };
    call_log log;
    TRY(log_open(s, &log, COUNT));
    s->on.call = log_call;
    uint64_t base_ns = lc_now_ns();
    lc_call_id id;
    for (uint64_t index = 0; index < COUNT; index++)
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, base_ns + index % 3 * 1000000, index, &id), 0);
    RUN_UNTIL(log.count == COUNT);
    for (uint64_t index = 0; index < COUNT; index++) {
        uint64_t group = index / (COUNT / 3), place = index % (COUNT / 3);
        CHECK_EQ(log.words[index], place * 3 + group);
    }
    log_close(&log);
    return 0;
}

typedef struct many_timers {
    uint64_t *deadlines; /* by number; 0 once cancelled or fired */
    uint64_t last_deadline_ns, last_number;
    uint32_t fired;
} many_timers;

static int many_fired(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    many_timers *m = s->context;
    uint64_t deadline_ns = m->deadlines[word];
    CHECK_NE(deadline_ns, 0);
    CHECK_LE(deadline_ns, lc_now_ns());
    m->deadlines[word] = 0;
    if (m->fired++ > 0) {
        CHECK_GE(deadline_ns, m->last_deadline_ns);
        if (deadline_ns == m->last_deadline_ns)
            CHECK_GT(word, m->last_number);
    }
    m->last_deadline_ns = deadline_ns;
    m->last_number = word;
    return 0;
}

/* Pages of this process that are in memory, in bytes. */
static int resident_bytes(scenario *s, uint64_t *bytes) {
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL);
    unsigned long long size, resident;
    int found = fscanf(file, "%llu %llu", &size, &resident);
    fclose(file);
    CHECK_EQ(found, 2);
    *bytes = resident * (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

/* An entry of the heap, whose array may be half empty, and a call: 88 bytes, and what the allocator adds. */
enum { TIMER_BYTES_MAX = 128 };

static int check_grown_at_most(scenario *s, uint64_t before, uint64_t most) {
    uint64_t now;
    TRY(resident_bytes(s, &now));
    if (!SCENARIO_SANITIZED)
        CHECK_LE((int64_t)(now - before), most);
    return 0;
}

static int very_many_timers(scenario *s) {
    const uint64_t count = scenario_long() ? 1000000 : 100000;
    many_timers m = {.deadlines = malloc(count * sizeof(uint64_t))};
    lc_call_id *ids = malloc(count * sizeof *ids);
    CHECK(m.deadlines && ids);
    memset(m.deadlines, 0, count * sizeof(uint64_t));
    memset(ids, 0, count * sizeof *ids);
    s->context = &m;
    s->on.call = many_fired;
    s->verify_never = true;
    uint64_t before, full;
    TRY(resident_bytes(s, &before));
    /* None is due before all are set, so that the order between them is exact. */
    uint64_t base_ns = lc_now_ns() + 500000000, random = 88172645463325252u;
    for (uint64_t number = 0; number < count; number++) {
        m.deadlines[number] = base_ns + next_random(&random) % 20000 * 1000;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, m.deadlines[number], number, &ids[number]), 0);
    }
    lc_loop_verify(s->loop);
    TRY(check_grown_at_most(s, before, count * TIMER_BYTES_MAX));
    TRY(resident_bytes(s, &full));
    uint64_t kept = count;
    for (uint64_t number = 0; number < count; number++) {
        if (next_random(&random) >> 40 & 1)
            continue;
        uint64_t word;
        CHECK_EQ(lc_call_cancel(s->loop, ids[number], &word), 1);
        CHECK_EQ(word, number);
        CHECK_EQ(lc_call_cancel(s->loop, ids[number], &word), 0);
        m.deadlines[number] = 0;
        kept--;
    }
    lc_loop_verify(s->loop);
    CHECK_GT(kept, count / 3);
    CHECK_LT(kept, count - count / 3);
    CHECK_EQ(scenario_stats(s).timers, kept);
    /* What was cancelled has made room: as many again, cancelled again, take no more memory. */
    for (uint64_t again = kept; again < count; again++) {
        lc_call_id id;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, base_ns + again, again, &id), 0);
        ids[again - kept] = id;
    }
    TRY(check_grown_at_most(s, full, 256 * 1024));
    for (uint64_t again = kept; again < count; again++) {
        uint64_t word;
        CHECK_EQ(lc_call_cancel(s->loop, ids[again - kept], &word), 1);
        CHECK_EQ(word, again);
    }
    RUN_UNTIL(m.fired == kept);
    for (uint64_t number = 0; number < count; number++)
        CHECK_EQ(m.deadlines[number], 0);
    free(m.deadlines);
    free(ids);
    return 0;
}

/* In a process of its own, whose memory nobody else uses. */
int very_many_timers_half_cancelled(scenario *s) { return scenario_in_child(s, very_many_timers); }

typedef struct punctual {
    uint64_t deadline_ns;
    uint32_t fired;
} punctual;

static int never_early(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    punctual *p = s->context;
    uint64_t now_ns = lc_now_ns();
    CHECK_GE(now_ns, p->deadline_ns);
    p->fired++;
    return 0;
}

int timers_are_never_early(scenario *s) {
    punctual p = {0};
    s->context = &p;
    s->on.call = never_early;
    uint64_t random = 0x9e3779b97f4a7c15u;
    for (uint32_t round = 0; round < 1000; round++) {
        p.deadline_ns = lc_now_ns() + 1000 + next_random(&random) % 900000;
        lc_call_id id;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_SLEEP, p.deadline_ns, 1, &id), 0);
        RUN_UNTIL(p.fired == round + 1);
    }
    /* It slept for most of that time rather than asking again and again. */
    CHECK_LT(s->passes, 10000);
    return 0;
}

static int timer_in(scenario *s, uint64_t nanoseconds, int *fd) {
    *fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK_CALL(*fd);
    struct itimerspec value = {.it_value = {.tv_nsec = (long)nanoseconds}};
    CHECK_CALL(timerfd_settime(*fd, 0, &value, NULL));
    return 0;
}

static int op_done(scenario *s, lc_op *op) {
    CHECK_EQ(op->state, LC_STATE_DONE);
    CHECK_GT(op->result, 0);
    *(bool *)(uintptr_t)op->word = true;
    lc_op_release(s->loop, op);
    return 0;
}

/* Passes until something other than the loop's own timers has woken it. */
static int run_past_a_foreign_event(scenario *s, uint64_t nanoseconds) {
    int fd;
    TRY(timer_in(s, nanoseconds, &fd));
    bool done = false;
    s->on.op = op_done;
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, fd, false, (uint64_t)(uintptr_t)&done), 0);
    RUN_UNTIL(done);
    CHECK_CALL(close(fd));
    return 0;
}

int a_nearer_timer_shortens_the_sleep(scenario *s) {
    call_log log;
    TRY(log_open(s, &log, 4));
    s->on.call = log_call;
    lc_call_id far, near;
    uint64_t start_ns = lc_now_ns(), far_ns = start_ns + 60u * 1000000000u, near_ns;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, far_ns, 1, &far), 0);
    /* It slept with the far deadline in force, and was woken by something else. */
    TRY(run_past_a_foreign_event(s, 3000000));
    CHECK_EQ(log.count, 0);
    near_ns = lc_now_ns() + 3000000;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, near_ns, 2, &near), 0);
    uint64_t nearest_ns;
    CHECK(lc_loop_next_deadline(s->loop, &nearest_ns));
    CHECK_EQ(nearest_ns, near_ns);
    RUN_UNTIL(log.count == 1);
    CHECK_EQ(log.words[0], 2);
    CHECK_GE(log.at_ns[0], near_ns);
    CHECK_LT(log.at_ns[0], far_ns);
    uint64_t word;
    CHECK_EQ(lc_call_cancel(s->loop, far, &word), 1);
    CHECK(!lc_loop_next_deadline(s->loop, &nearest_ns));
    /* The cancelled deadline is no longer waited for, and does not end a sleep that others end. */
    TRY(run_past_a_foreign_event(s, 1000000));
    log_close(&log);
    return 0;
}

int deadlines_at_the_edges(scenario *s) {
    call_log log;
    TRY(log_open(s, &log, 8));
    s->on.call = log_call;
    lc_call_id id, never;
    uint64_t now_ns = lc_now_ns();
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, UINT64_MAX, 9, &never), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, now_ns, 4, &id), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, now_ns - 1, 3, &id), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 1, 2, &id), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 0, 1, &id), 0);
    TRY(scenario_pass(s, true));
    CHECK_EQ(log.count, 4);
    for (size_t index = 0; index < 4; index++)
        CHECK_EQ(log.words[index], index + 1);
    /* A deadline that never comes neither overflows the sleep nor turns it into a spin. */
    uint64_t ticks = scenario_stats(s).ticks;
    TRY(run_past_a_foreign_event(s, 20000000));
    CHECK_LE(scenario_stats(s).ticks - ticks, 20);
    CHECK(lc_call_is_pending(s->loop, never));
    CHECK(lc_loop_is_alive(s->loop));
    uint64_t word;
    CHECK_EQ(lc_call_cancel(s->loop, never, &word), 1);
    CHECK_EQ(word, 9);
    log_close(&log);
    return 0;
}

int timers_in_a_batch_may_cancel_each_other(scenario *s) {
    cancelling c = {0};
    s->context = &c;
    s->on.call = cancel_the_later;
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 1, 1, &id), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 2, 2, &c.later), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, 3, 4, &id), 0);
    TRY(scenario_pass(s, true));
    CHECK_EQ(c.runs, 2);
    TRY(scenario_settle(s));
    CHECK_EQ(c.runs, 2);
    return 0;
}
