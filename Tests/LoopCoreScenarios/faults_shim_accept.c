// SPDX-License-Identifier: Apache-2.0
/* faults_shim_accept.c: accepts that fail: for want of something, for the peer's sake, and for good. */
#include <poll.h>
#include "scenario.h"
#include "shim.h"

enum { STREAMS_MAX = 8 };

typedef struct accepting {
    lc_listener *listener;
    lc_address address;
    lc_stream *streams[STREAMS_MAX];
    uint32_t count, deliveries, told;
    int error; /* the last one told */
} accepting;

static int accept_told(scenario *s, lc_listener *listener) {
    accepting *a = s->context;
    a->deliveries++;
    lc_listener_waiter(listener);
    int error = lc_listener_take_backoff(listener);
    a->told += error != 0;
    a->error = error ? error : a->error;
    lc_stream *stream;
    int result;
    while ((result = lc_listener_take(listener, &stream)) == 1) {
        CHECK_LT(a->count, STREAMS_MAX);
        a->streams[a->count++] = stream;
    }
    CHECK(result == -EAGAIN || result == -ESHUTDOWN);
    lc_listener_finish_delivery(listener);
    return 0;
}

static int accepting_open(scenario *s, accepting *a) {
    int fd;
    *a = (accepting){0};
    s->context = a;
    s->on.accept = accept_told;
    TRY(listen_anywhere(s, 16, &fd, &a->address));
    CHECK_EQ(lc_listener_adopt(s->loop, fd, &a->listener), 0);
    return 0;
}

static int accepting_close(scenario *s, accepting *a) {
    for (uint32_t index = 0; index < a->count; index++)
        lc_stream_release(a->streams[index]);
    lc_listener_release(a->listener);
    return scenario_settle(s);
}

static bool playable(const scenario *s) { return !scenario_is_proactor(s) || shim_ring_faults_possible(); }

/* One more client, accepted like any other. */
static int one_more(scenario *s, accepting *a) {
    int client;
    uint32_t count = a->count;
    TRY(client_connect(s, &a->address, &client));
    RUN_UNTIL(a->count == count + 1);
    CHECK_CALL(close(client));
    return 0;
}

/* ---- F2 ---- */

int accept_lacks_something(scenario *s) {
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM};
    if (!playable(s))
        return 0;
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++) {
        accepting a;
        int client;
        TRY(accepting_open(s, &a));
        TRY(client_connect(s, &a.address, &client));
        uint64_t backoffs = scenario_stats(s).accept_backoffs, passes = s->passes;
        /* Two in a row are one shortage: told once, with a longer second pause. */
        shim_fault fault = {.call = SHIM_ACCEPT, .count = 2, .error = errors[index]};
        shim_arm(&fault, 1);
        uint64_t from_ns = lc_now_ns();
        CHECK_EQ(lc_listener_start(a.listener), 0);
        RUN_UNTIL(a.count == 1);
        uint64_t took_ns = lc_now_ns() - from_ns;
        shim_disarm();
        CHECK_EQ(shim_faults_played(), 2);
        CHECK_EQ(a.told, 1);
        CHECK_EQ(a.error, -errors[index]);
        CHECK_EQ(scenario_stats(s).accept_backoffs - backoffs, 2);
        CHECK_GE(took_ns, 300000000); /* 100 ms, then 200 ms */
        CHECK_LT(s->passes - passes, 40);
        CHECK_CALL(close(client));
        /* It is over, and a later shortage is told again. */
        TRY(one_more(s, &a));
        CHECK_EQ(a.told, 1);
        TRY(accepting_close(s, &a));
    }
    return 0;
}

/* Between two shortages somebody was accepted: each is told. */
int a_second_shortage_is_told_again(scenario *s) {
    if (!playable(s) || scenario_is_proactor(s))
        return 0; /* a multishot accept counts once, so its second answer cannot be named */
    accepting a;
    int client;
    TRY(accepting_open(s, &a));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    shim_fault faults[] = {{.call = SHIM_ACCEPT, .nth = 1, .error = ENFILE}};
    for (uint32_t round = 1; round <= 2; round++) {
        shim_arm(faults, 1);
        TRY(client_connect(s, &a.address, &client));
        RUN_UNTIL(a.count == round);
        shim_disarm();
        CHECK_EQ(a.told, round);
        CHECK_CALL(close(client));
    }
    return accepting_close(s, &a);
}

/* No timer for the pause either, and no descriptor of this loop that closes: the pause ends nevertheless. */
int a_pause_without_a_timer(scenario *s) {
    if (!playable(s) || !shim_allocation_faults_possible())
        return 0;
    accepting a;
    int client;
    TRY(accepting_open(s, &a));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    TRY(one_more(s, &a)); /* every table is there, but for the one with the timers */
    TRY(accepting_close(s, &a));
    TRY(accepting_open(s, &a));
    TRY(client_connect(s, &a.address, &client));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    shim_fault faults[] = {{.call = SHIM_ACCEPT, .error = ENFILE},
                           {.call = SHIM_ALLOCATE, .count = SHIM_FOR_EVER, .error = ENOMEM}};
    shim_arm(faults, 2);
    PUMP_UNTIL(0, a.told == 1);
    shim_disarm();
    CHECK_EQ(shim_faults_played(), 2);
    CHECK_EQ(a.error, -ENFILE);
    CHECK_EQ(a.count, 0);
    CHECK(lc_loop_is_alive(s->loop));
    uint64_t passes = s->passes;
    RUN_UNTIL(a.count == 1);
    CHECK_LT(s->passes - passes, 20);
    CHECK_CALL(close(client));
    TRY(accepting_close(s, &a));
    /* The same, closed in the middle of the pause. */
    TRY(accepting_open(s, &a));
    TRY(client_connect(s, &a.address, &client));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    shim_arm(faults, 2);
    PUMP_UNTIL(0, a.told == 1);
    shim_disarm();
    CHECK_EQ(shim_faults_played(), 2);
    TRY(accepting_close(s, &a));
    CHECK(!lc_loop_is_alive(s->loop));
    CHECK_CALL(close(client));
    return 0;
}

/* ---- F3 ---- */

int an_accept_lost_its_peer(scenario *s) {
    static const int errors[] = {ECONNABORTED, EPROTO, EINTR};
    if (!playable(s))
        return 0;
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++) {
        accepting a;
        int client;
        TRY(accepting_open(s, &a));
        TRY(client_connect(s, &a.address, &client));
        uint64_t backoffs = scenario_stats(s).accept_backoffs;
        shim_fault fault = {.call = SHIM_ACCEPT, .count = 3, .error = errors[index]};
        shim_arm(&fault, 1);
        CHECK_EQ(lc_listener_start(a.listener), 0);
        RUN_UNTIL(a.count == 1);
        shim_disarm();
        CHECK_EQ(shim_faults_played(), 3);
        CHECK_EQ(a.told, 0);
        CHECK_EQ(scenario_stats(s).accept_backoffs, backoffs);
        CHECK_CALL(close(client));
        TRY(one_more(s, &a));
        TRY(accepting_close(s, &a));
    }
    return 0;
}

/* ---- F4 ---- */

static int note_time(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)s;
    *(bool *)(uintptr_t)word = true;
    return 0;
}

static int wait_ms(scenario *s, uint32_t milliseconds) {
    bool over = false;
    lc_call_id id;
    s->on.call = note_time;
    CHECK_EQ(
        lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + milliseconds * 1000000ull, (uint64_t)(uintptr_t)&over, &id), 0);
    RUN_UNTIL(over);
    return 0;
}

/* The listener cannot know that this is for good, so it goes on asking, ever more rarely. */
int an_accept_that_always_fails(scenario *s) {
    static const int errors[] = {EBADF, EFAULT, ENOTSOCK};
    if (!playable(s))
        return 0;
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++) {
        accepting a;
        int client;
        TRY(accepting_open(s, &a));
        TRY(client_connect(s, &a.address, &client));
        shim_fault fault = {.call = SHIM_ACCEPT, .count = SHIM_FOR_EVER, .error = errors[index]};
        uint32_t passes = s->passes;
        shim_arm(&fault, 1);
        CHECK_EQ(lc_listener_start(a.listener), 0);
        TRY(wait_ms(s, 350));
        shim_disarm();
        CHECK_EQ(a.told, 1);
        CHECK_EQ(a.error, -errors[index]);
        CHECK_EQ(a.count, 0);
        CHECK_GE(shim_calls(SHIM_ACCEPT), 2);
        CHECK_LE(shim_calls(SHIM_ACCEPT), 3); /* at 0, 100 and 300 ms */
        CHECK_LT(s->passes - passes, 40);
        TRY(accepting_close(s, &a)); /* also in the middle of a pause */
        CHECK_CALL(close(client));
    }
    return 0;
}
