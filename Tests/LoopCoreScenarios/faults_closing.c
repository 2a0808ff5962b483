// SPDX-License-Identifier: Apache-2.0
/* faults_closing.c: closing with everything pending, with very much in flight, and from the wrong place. */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include "faults_support.h"

/* ---- one stream, with everything pending ---- */

/* Reads what the kernel still has for the peer; true once it ends, false if the time runs out. */
static bool peer_sees_end(int peer, int limit_ms) {
    static _Thread_local char bytes[64 * 1024];
    uint64_t until_ns = lc_now_ns() + (uint64_t)limit_ms * 1000000u;
    for (;;) {
        uint64_t now_ns = lc_now_ns();
        struct pollfd wait = {.fd = peer, .events = POLLIN};
        int left_ms = now_ns < until_ns ? (int)((until_ns - now_ns) / 1000000u) : 0;
        int ready = poll(&wait, 1, left_ms);
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready != 1)
            return false;
        ssize_t got = recv(peer, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0)
            return true;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            return false;
    }
}

int close_with_everything_pending(scenario *s) {
    enum { LARGE = 4 << 20, FIN_MS = 100, PASSES = 64 };
    uint8_t *large = calloc(1, LARGE);
    CHECK(large != NULL);
    for (uint32_t round = 0; round < 8; round++) {
        bool tcp = round & 1, polite = round & 2, started = round & 4;
        endpoint e = {0};
        TRY(endpoint_open(s, &e, tcp));
        int least = 1;
        CHECK_CALL(setsockopt(lc_stream_fd(e.stream), SOL_SOCKET, SO_SNDBUF, &least, sizeof least));
        if (started)
            CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        else
            CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
        CHECK_EQ(lc_stream_send_copy(e.stream, large, polite ? 1000 : LARGE), 0);
        TRY(scenario_settle(s));
        if (!polite)
            CHECK_GT(lc_stream_unsent(e.stream), 0);
        else /* something that has yet to leave */
            CHECK_EQ(lc_stream_send_copy(e.stream, large, 1000), 0);
        CHECK_EQ(lc_stream_wait_send(e.stream, 2, 0), 0);
        CHECK_EQ(lc_stream_wait_closed(e.stream, 3), 0);
        CHECK_EQ(e.deliveries + e.sends + e.closes, 0);
        uint32_t before = s->passes;
        CHECK_EQ(lc_stream_close(e.stream, !polite, false), 1);
        CHECK_EQ(lc_stream_close(e.stream, !polite, false), 1);
        PUMP_UNTIL(0, lc_stream_is_closed(e.stream));
        CHECK_LE(s->passes - before, PASSES);
        CHECK(peer_sees_end(e.peer, FIN_MS));
        TRY(scenario_settle(s));
        CHECK_EQ(e.deliveries, 1);
        CHECK_EQ(e.shutdowns, 1);
        CHECK_EQ(e.sends, 1);
        CHECK_EQ(lc_stream_send_error(e.stream), polite ? 0 : -ESHUTDOWN);
        CHECK_EQ(e.closes, 1);
        CHECK_EQ(lc_stream_close(e.stream, true, true), 0);
        TRY(scenario_settle(s));
        CHECK_EQ(e.deliveries + e.sends + e.closes, 3);
        TRY(endpoint_close(s, &e));
        RUN_UNTIL(scenario_stats(s).streams == 0);
    }
    free(large);
    return 0;
}

/* ---- ten thousand operations ---- */

typedef struct flight {
    uint32_t polls, streams, polls_told;
    int *fds;
    uint8_t *told;
    endpoint *all;
} flight;

static int flight_op(scenario *s, lc_op *op) {
    flight *f = s->context;
    CHECK_EQ(op->result, -ECANCELED);
    CHECK_EQ(f->told[op->word], 0);
    f->told[op->word] = 1;
    f->polls_told++;
    return 0;
}

/* Half the polls may still be queued when the loop closes. */
static int flight_start(scenario *s, flight *f, bool all_in_kernel) {
    enum { LARGE = 64 * 1024 };
    static uint8_t large[LARGE];
    for (uint32_t index = 0; index < f->streams; index++) {
        endpoint *e = &f->all[index];
        *e = (endpoint){0};
        TRY(endpoint_open(s, e, false));
        CHECK_EQ(lc_stream_wait_receive(e->stream, 1), 0);
        CHECK_EQ(lc_stream_wait_closed(e->stream, 3), 0);
        if (index % 10 == 0) {
            int least = 1;
            CHECK_CALL(setsockopt(lc_stream_fd(e->stream), SOL_SOCKET, SO_SNDBUF, &least, sizeof least));
            CHECK_EQ(lc_stream_send_copy(e->stream, large, LARGE), 0);
            CHECK_EQ(lc_stream_wait_send(e->stream, 2, 0), 0);
        }
    }
    for (uint32_t index = 0; index < f->polls; index++) {
        lc_op *op = lc_op_make(s->loop);
        CHECK(op != NULL);
        TRY(counter_open(s, &f->fds[index]));
        CHECK_EQ(lc_op_poll(s->loop, op, f->fds[index], false, index), 0);
        if (!all_in_kernel && index == f->polls / 2)
            PUMP_UNTIL(0, scenario_stats(s).queued == 0);
    }
    if (all_in_kernel) {
        uint32_t all = f->polls + f->streams + f->streams / 10;
        PUMP_UNTIL(0, scenario_stats(s).in_kernel + scenario_stats(s).armed == all);
    }
    return 0;
}

static int flight_close(scenario *s, flight *f) {
    lc_loop *loop = s->loop;
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    lc_stats now = scenario_stats(s); /* a close that gave up has left some in the kernel */
    CHECK_EQ(now.queued + now.in_kernel + now.armed, 0);
    CHECK_EQ(now.leased, 0);
    memset(f->told, 0, f->polls);
    f->polls_told = 0;
    lc_node *node;
    while ((node = lc_loop_drop_next(loop)))
        TRY(scenario_deliver(s, node));
    CHECK_EQ(f->polls_told, f->polls);
    for (uint32_t index = 0; index < f->streams; index++) {
        endpoint *e = &f->all[index];
        CHECK(lc_stream_is_closed(e->stream));
        CHECK_EQ(e->shutdowns, 1);
        CHECK_EQ(e->sends, index % 10 == 0);
        CHECK_EQ(e->closes, 1);
        CHECK(peer_sees_end(e->peer, 1000));
        CHECK_CALL(close(e->peer));
        lc_stream_release(e->stream);
    }
    for (uint32_t index = 0; index < f->polls; index++)
        CHECK_CALL(close(f->fds[index]));
    scenario_forget_loop(s);
    lc_loop_free(loop);
    return 0;
}

static int fly(scenario *s) {
    enum { WANTED = 11000, OTHERS = 64 };
    uint32_t allowed; /* for eventfds, and for both ends of the streams */
    TRY(raise_descriptors(s, WANTED, &allowed));
    s->verify_never = true;
    flight f = {.streams = allowed / 120 * 10};
    f.polls = allowed - OTHERS - 2 * f.streams;
    f.fds = calloc(f.polls, sizeof *f.fds);
    f.told = calloc(f.polls, 1);
    f.all = calloc(f.streams, sizeof *f.all);
    CHECK(f.fds != NULL && f.told != NULL && f.all != NULL);
    for (uint32_t round = 0; round < 2; round++) {
        s->context = &f;
        s->on.op = flight_op;
        TRY(flight_start(s, &f, round == 0));
        TRY(flight_close(s, &f));
        TRY(scenario_reopen(s));
    }
    free(f.fds);
    free(f.told);
    free(f.all);
    return 0;
}

/* The child counts its descriptors at the end, as every scenario does. */
int close_with_ten_thousand_in_flight(scenario *s) { return scenario_in_child(s, fly); }

/* ---- from the wrong place ---- */

static int close_here(scenario *s, void *context) {
    int *result = context;
    *result = lc_loop_close(s->loop);
    return 0;
}

static int close_from_within(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    CHECK_EQ(lc_loop_close(s->loop), -EBUSY);
    ++*(uint32_t *)(uintptr_t)word;
    return 0;
}

static int close_from_receive(scenario *s, lc_stream *stream) {
    CHECK_EQ(lc_loop_close(s->loop), -EBUSY);
    return endpoint_received(s, stream);
}

/* A running loop refuses, wherever it is asked, and goes on as if nothing had been said. */
int a_running_loop_refuses_to_close(scenario *s) {
    uint32_t calls = 0;
    endpoint e = {.echo = true};
    lc_call_id id;
    uint8_t bytes[3000];
    bool end = false;
    s->on = (scenario_handlers){.call = close_from_within, .receive = close_from_receive};
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, (uint64_t)(uintptr_t)&calls, &id), 0);
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + 1000000, (uint64_t)(uintptr_t)&calls, &id), 0);
    RUN_UNTIL(calls == 2);
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(scenario_settle(s));
    int result = 1;
    helper other;
    TRY(helper_start(s, &other, close_here, &result));
    TRY(helper_join(s, &other));
    CHECK_EQ(result, -EBUSY);
    CHECK(!lc_loop_is_closed(s->loop));
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    return endpoint_close(s, &e);
}

typedef struct stranger {
    endpoint e[2];
    lc_op *op;
    int counter;
    uint32_t ops;
} stranger;

static int stranger_op(scenario *s, lc_op *op) {
    stranger *w = s->context;
    CHECK(op == w->op);
    CHECK_EQ(op->result, -ECANCELED);
    w->ops++;
    return 0;
}

static int run_with_work(scenario *s, void *context) {
    stranger *w = context;
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    for (int index = 0; index < 2; index++) {
        TRY(endpoint_open(s, &w->e[index], index));
        CHECK_EQ(lc_stream_wait_receive(w->e[index].stream, 1), 0);
        CHECK_EQ(lc_stream_wait_closed(w->e[index].stream, 2), 0);
    }
    w->op = lc_op_make(s->loop);
    CHECK(w->op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, w->op, w->counter, false, 0), 0);
    TRY(scenario_settle(s));
    lc_loop_leave(s->loop);
    return 0;
}

/* In a child, whose standard error may be used up: the memory lent to the kernel is kept for good, and that is said. */
static int closed_by_a_stranger(scenario *s) {
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    CHECK_CALL(null);
    CHECK_CALL(dup2(null, STDERR_FILENO));
    CHECK_CALL(close(null));
    stranger w = {0};
    s->context = &w;
    s->on.op = stranger_op;
    TRY(counter_open(s, &w.counter));
    lc_loop *loop = s->loop;
    lc_loop_leave(loop);
    helper other;
    TRY(helper_start(s, &other, run_with_work, &w));
    TRY(helper_join(s, &other));
    CHECK_EQ(lc_loop_close(loop), 0);
    CHECK(lc_loop_is_closed(loop));
    lc_node *node;
    while ((node = lc_loop_drop_next(loop)))
        TRY(scenario_deliver(s, node));
    CHECK_EQ(w.ops, 1);
    for (int index = 0; index < 2; index++) {
        CHECK_EQ(w.e[index].shutdowns, 1);
        CHECK_EQ(w.e[index].closes, 1);
        /* The thread that ran it is gone, and with it what the kernel held. */
        CHECK(peer_sees_end(w.e[index].peer, 10000));
        CHECK_CALL(close(w.e[index].peer));
    }
    CHECK_CALL(close(w.counter));
    scenario_forget_loop(s);
    lc_loop_free(loop);
    s->fd_count += scenario_is_proactor(s); /* the eventfd is kept with the memory */
    return 0;
}

int a_loop_with_work_is_closed_by_a_stranger(scenario *s) {
    return NO_THREADS_IN_CHILDREN ? 0 : scenario_in_child(s, closed_by_a_stranger);
}

static int tick_here(scenario *s, void *context) {
    (void)context;
    return lc_loop_tick(s->loop, false);
}

static int tick_on_a_thread(scenario *s, void *context) {
    (void)context;
    struct rlimit none = {0};
    int null = open("/dev/null", O_WRONLY);
    if (setrlimit(RLIMIT_CORE, &none) < 0 || null < 0 || dup2(null, STDERR_FILENO) < 0)
        return 2;
    lc_loop *loop;
    helper other;
    if (lc_loop_create(&s->options, &loop) < 0 || lc_loop_enter(loop) < 0)
        return 3;
    s->loop = loop;
    return helper_start(s, &other, tick_here, NULL) == 0 && helper_join(s, &other) == 0 ? 0 : 4;
}

static int enter_here(scenario *s, void *context) {
    int *result = context;
    *result = lc_loop_enter(s->loop);
    if (*result == 0)
        lc_loop_leave(s->loop);
    return 0;
}

/* Refused with an error where the API has one, and by an assertion in a build that has those. */
int use_from_the_wrong_thread(scenario *s) {
    int result = 1;
    helper other;
    TRY(helper_start(s, &other, enter_here, &result));
    TRY(helper_join(s, &other));
    CHECK_EQ(result, -EALREADY);
    CHECK(lc_loop_current() == s->loop);
    CHECK(lc_loop_is_running(s->loop));
#if !defined(NDEBUG) && !NO_THREADS_IN_CHILDREN
    pid_t child = fork();
    CHECK_CALL(child);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* nobody needs a backtrace of what is meant to end */
        _exit(tick_on_a_thread(s, NULL));
    }
    int status;
    CHECK_CALL(waitpid(child, &status, 0));
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGABRT);
#else
    (void)tick_on_a_thread;
#endif
    return 0;
}

typedef struct entering {
    lc_loop *loop;
    atomic_uint ready, inside, most, entered;
} entering;

static int enter_at_once(scenario *s, void *context) {
    entering *t = context;
    atomic_fetch_add(&t->ready, 1);
    while (atomic_load(&t->ready) < 2)
        sched_yield();
    int result = lc_loop_enter(t->loop);
    if (result == 0) {
        unsigned inside = atomic_fetch_add(&t->inside, 1) + 1;
        if (inside > 1)
            atomic_store(&t->most, inside);
        atomic_fetch_add(&t->entered, 1);
        sched_yield();
        atomic_fetch_sub(&t->inside, 1);
        lc_loop_leave(t->loop);
    } else {
        CHECK_EQ(result, -EALREADY);
    }
    return 0;
}

/* Of two threads at the door, one is let in at a time. */
int two_threads_enter_at_once(scenario *s) {
    entering t = {0};
    CHECK_EQ(lc_loop_create(&s->options, &t.loop), 0);
    for (uint32_t round = 0; round < rounds_of(300, 10000); round++) {
        helper both[2];
        atomic_store(&t.ready, 0);
        for (int index = 0; index < 2; index++)
            TRY(helper_start(s, &both[index], enter_at_once, &t));
        int results[2];
        for (int index = 0; index < 2; index++)
            results[index] = helper_join(s, &both[index]);
        CHECK_EQ(results[0] + results[1], 0);
        CHECK_EQ(atomic_load(&t.most), 0);
        CHECK_GE(atomic_load(&t.entered), round + 1);
    }
    lc_loop_free(t.loop);
    return 0;
}
