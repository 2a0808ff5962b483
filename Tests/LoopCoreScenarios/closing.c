// SPDX-License-Identifier: Apache-2.0
/* closing.c: the ends of things: descriptors, threads, loops, processes. */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include "scenario.h"

/* ---- numbers that come back ---- */

/* The old socket still has news when it closes, and the new one of the same number must not get it. */
int a_descriptor_number_comes_back(scenario *s) {
    endpoint others[4] = {{0}};
    for (int index = 0; index < 4; index++) {
        others[index].echo = true;
        TRY(endpoint_open(s, &others[index], true));
        CHECK_EQ(lc_stream_start_receiving(others[index].stream), 0);
    }
    for (uint32_t round = 0; round < 40; round++) {
        endpoint old = {.seed = 1};
        TRY(endpoint_open(s, &old, round & 1));
        int number = lc_stream_fd(old.stream), old_peer = old.peer;
        if (round & 2) {
            CHECK_EQ(lc_stream_start_receiving(old.stream), 0);
            TRY(scenario_settle(s));
        }
        uint8_t bytes[100];
        pattern_fill(bytes, sizeof bytes, 1, 0);
        for (int index = 0; index < 4; index++) {
            uint8_t next[10];
            pattern_fill(next, sizeof next, 0, others[index].received);
            TRY(peer_send(s, &others[index], next, sizeof next));
        }
        TRY(peer_send(s, &old, bytes, sizeof bytes));
        if (round & 4)
            TRY(scenario_pass(s, false)); /* collected, perhaps not all of it worked off */
        CHECK_EQ(lc_stream_close(old.stream, true, false), 1);
        old.closes = 0;
        CHECK_EQ(lc_stream_wait_closed(old.stream, 1), 0);
        while (!lc_stream_is_closed(old.stream)) {
            if (scenario_late(s))
                return scenario_fail(s, __FILE__, __LINE__, "time ran out");
            TRY(scenario_pass(s, false));
        }
        /* Closed in the last phase of that pass; before any other, the number is somebody else's. */
        endpoint fresh = {.seed = 2};
        int fds[2];
        TRY(pair_unix(s, fds));
        if (fds[0] != number && fds[1] != number) {
            int again = fcntl(fds[0], F_DUPFD_CLOEXEC, number);
            CHECK_CALL(again);
            CHECK_CALL(close(fds[0]));
            fds[0] = again;
        } else if (fds[1] == number) {
            fds[1] = fds[0];
            fds[0] = number;
        }
        TRY(endpoint_adopt(s, &fresh, fds));
        CHECK_EQ(lc_stream_start_receiving(fresh.stream), 0);
        if (s->isolated)
            CHECK_EQ(lc_stream_fd(fresh.stream), number);
        RUN_UNTIL(old.closes == 1);
        TRY(scenario_settle(s));
        CHECK_EQ(fresh.deliveries, 0);
        CHECK_EQ(fresh.received, 0);
        CHECK_EQ(fresh.ends, 0);
        pattern_fill(bytes, sizeof bytes, 2, 0);
        TRY(peer_send(s, &fresh, bytes, sizeof bytes));
        RUN_UNTIL(fresh.received == sizeof bytes);
        lc_stream_release(old.stream);
        CHECK_CALL(close(old_peer));
        TRY(endpoint_close(s, &fresh));
        for (int index = 0; index < 4; index++) {
            RUN_UNTIL(others[index].received % 10 == 0 && others[index].received == 10u * (round + 1));
        }
        RUN_UNTIL(scenario_stats(s).streams == 4);
    }
    for (int index = 0; index < 4; index++)
        TRY(endpoint_close(s, &others[index]));
    return 0;
}

/* ---- a loop that closes with everything under way ---- */

enum { STREAMS = 100 };

typedef struct crowd {
    endpoint all[STREAMS];
    uint32_t ops, accepts, calls;
} crowd;

static int op_cancelled(scenario *s, lc_op *op) {
    crowd *c = s->context;
    CHECK_EQ(op->result, -ECANCELED);
    c->ops++;
    return 0;
}

static int accept_shut(scenario *s, lc_listener *listener) {
    crowd *c = s->context;
    CHECK_EQ(lc_listener_waiter(listener), 6);
    lc_stream *stream;
    CHECK_EQ(lc_listener_take(listener, &stream), -ESHUTDOWN);
    c->accepts++;
    return 0;
}

static int call_dropped(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    crowd *c = s->context;
    c->calls++;
    return 0;
}

static int close_a_crowd(scenario *s, bool armed) {
    crowd *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    s->context = c;
    s->on = (scenario_handlers){.op = op_cancelled, .accept = accept_shut, .call = call_dropped};
    int listening, counter = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    lc_address address;
    lc_listener *listener;
    uint8_t bytes[1000] = {0};
    uint8_t *large = calloc(1, 4 << 20);
    CHECK(large != NULL);
    for (uint32_t index = 0; index < STREAMS; index++) {
        endpoint *e = &c->all[index];
        TRY(endpoint_open(s, e, index % 2));
        if (index % 4 < 2)
            CHECK_EQ(lc_stream_wait_receive(e->stream, 1), 0);
        else
            CHECK_EQ(lc_stream_start_receiving(e->stream), 0);
        if (index % 10 == 0) {
            CHECK_EQ(lc_stream_send_copy(e->stream, large, 4 << 20), 0);
            CHECK_EQ(lc_stream_wait_send(e->stream, 2, 0), 0);
        } else {
            CHECK_EQ(lc_stream_send_copy(e->stream, bytes, sizeof bytes), 0);
        }
        CHECK_EQ(lc_stream_wait_closed(e->stream, 3), 0);
    }
    free(large);
    TRY(listen_anywhere(s, 4, &listening, &address));
    CHECK_EQ(lc_listener_adopt(s->loop, listening, &listener), 0);
    CHECK_EQ(lc_listener_wait(listener, 6), 0);
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, counter, false, 0), 0);
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_SLEEP, UINT64_MAX, 0, &id), 0);
    CHECK(lc_loop_is_alive(s->loop));
    if (armed)
        for (int pass = 0; pass < 200; pass++)
            TRY(scenario_pass(s, false));
    CHECK_EQ(lc_loop_close(s->loop), -EBUSY);
    lc_loop *loop = s->loop;
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    lc_stats now = scenario_stats(s);
    CHECK_EQ(now.queued, 0);
    CHECK_EQ(now.in_kernel, 0);
    CHECK_EQ(now.armed, 0);
    CHECK_EQ(now.leased, 0);
    CHECK_EQ(now.timers, 0);
    lc_node *node;
    while ((node = lc_loop_drop_next(loop)))
        TRY(scenario_deliver(s, node));
    CHECK_EQ(c->ops, 1);
    CHECK_EQ(c->accepts, 1);
    CHECK_EQ(c->calls, 1);
    for (uint32_t index = 0; index < STREAMS; index++) {
        endpoint *e = &c->all[index];
        CHECK(lc_stream_is_closed(e->stream));
        CHECK_EQ(e->closes, 1);
        CHECK_EQ(e->shutdowns, 1);
        CHECK_EQ(e->sends, index % 10 == 0);
        lc_stream_release(e->stream);
        CHECK_CALL(close(e->peer));
    }
    lc_listener_release(listener);
    CHECK_CALL(close(counter));
    scenario_forget_loop(s);
    lc_loop_free(loop);
    free(c);
    return 0;
}

int close_with_a_hundred_streams_queued(scenario *s) { return close_a_crowd(s, false); }
int close_with_a_hundred_streams_under_way(scenario *s) { return close_a_crowd(s, true); }

/* ---- threads ---- */

int entering_is_guarded(scenario *s) {
    CHECK_EQ(lc_loop_enter(s->loop), -EALREADY);
    CHECK(lc_loop_current() == s->loop);
    CHECK(lc_loop_is_running(s->loop));
    lc_loop *second;
    CHECK_EQ(lc_loop_create(&s->options, &second), 0);
    CHECK_EQ(lc_loop_enter(second), -EDEADLK);
    CHECK(!lc_loop_is_running(second));
    lc_loop_leave(s->loop);
    CHECK(lc_loop_current() == NULL);
    CHECK_EQ(lc_loop_enter(second), 0);
    lc_loop_leave(second);
    lc_loop_free(second); /* closes it too */
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    return 0;
}

static int echo_once(scenario *s) {
    uint32_t streams = scenario_stats(s).streams;
    endpoint e = {.echo = true};
    bool end = false;
    uint8_t bytes[5000];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    TRY(endpoint_close(s, &e));
    RUN_UNTIL(scenario_stats(s).streams == streams);
    return 0;
}

static int run_elsewhere(scenario *s, void *context) {
    (void)context;
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    TRY(echo_once(s));
    lc_loop_leave(s->loop);
    return 0;
}

/* One run after another, each on a thread of its own, and back. A lease is held all the way through. */
int a_loop_moves_between_threads(scenario *s) {
    TRY(echo_once(s));
    endpoint e = {.hold = true};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_wait_receive(e.stream, 1), 0);
    uint8_t byte = pattern_byte(0, 0);
    TRY(peer_send(s, &e, &byte, 1));
    RUN_UNTIL(e.received == 1);
    lc_stream_release(e.stream);
    CHECK_CALL(close(e.peer));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    lc_loop_leave(s->loop);
    for (int round = 0; round < 5; round++) {
        helper other;
        TRY(helper_start(s, &other, run_elsewhere, NULL));
        TRY(helper_join(s, &other));
        CHECK_EQ(scenario_stats(s).leased, 1);
    }
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    TRY(echo_once(s));
    CHECK_EQ(lc_buffer_bytes(e.held[0])[0], byte);
    endpoint_return_held(&e);
    return 0;
}

static int enter_elsewhere(scenario *s, void *context) {
    int *result = context;
    *result = lc_loop_enter(s->loop);
    if (*result == 0)
        lc_loop_leave(s->loop);
    return 0;
}

/* The completion backend's operations belong to the thread that started them. */
int a_loop_with_work_in_the_kernel_stays(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(scenario_settle(s));
    lc_loop_leave(s->loop);
    int result = 1;
    helper other;
    TRY(helper_start(s, &other, enter_elsewhere, &result));
    TRY(helper_join(s, &other));
    CHECK_EQ(result, scenario_is_proactor(s) ? -EXDEV : 0);
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    uint8_t byte = pattern_byte(0, 0);
    TRY(peer_send(s, &e, &byte, 1));
    RUN_UNTIL(e.received == 1);
    return endpoint_close(s, &e);
}

/* A loop that this thread never ran closes here while a loop of this thread's own goes on. */
static int run_and_leave(scenario *s, void *context) {
    lc_loop *loop = context;
    CHECK_EQ(lc_loop_enter(loop), 0);
    for (int pass = 0; pass < 4; pass++) {
        CHECK_GE(lc_loop_tick(loop, false), 0);
        CHECK(lc_loop_next(loop) == NULL);
    }
    lc_loop_leave(loop);
    return 0;
}

static int close_strangers(scenario *s) {
    TRY(echo_once(s));
    for (int round = 0; round < 4; round++) {
        lc_loop *stranger;
        CHECK_EQ(lc_loop_create(&s->options, &stranger), 0);
        helper other;
        TRY(helper_start(s, &other, run_and_leave, stranger));
        TRY(helper_join(s, &other));
        if (round % 2) { /* or it moves here for a run */
            lc_loop_leave(s->loop);
            TRY(run_and_leave(s, stranger));
            CHECK_EQ(lc_loop_enter(s->loop), 0);
        }
        CHECK_EQ(lc_loop_close(stranger), 0);
        lc_loop_free(stranger);
        TRY(echo_once(s));
    }
    return 0;
}

int closing_a_strangers_loop_leaves_ours_alone(scenario *s) { return close_strangers(s); }

/* Without SINGLE_ISSUER the kernel does not notice whose thread it is, so the core has to. */
int closing_a_strangers_loop_of_an_older_kernel(scenario *s) {
    lc_options original = s->options;
    s->options.features_off = LC_FEATURE_SINGLE_ISSUER | LC_FEATURE_DEFER_TASKRUN;
    TRY(scenario_reopen(s));
    TRY(close_strangers(s));
    s->options = original;
    return 0;
}

static int receive_idle(scenario *s, void *context) {
    endpoint *e = context;
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    TRY(endpoint_open(s, e, true));
    TRY(scenario_settle(s));
    lc_loop_leave(s->loop);
    return 0;
}

/* Nothing is in the kernel, so any thread may close the loop, and whoever waits is told all the same. */
int closing_on_another_thread_tells_who_waits(scenario *s) {
    lc_loop_leave(s->loop);
    endpoint e = {0};
    helper other;
    TRY(helper_start(s, &other, receive_idle, &e));
    TRY(helper_join(s, &other));
    CHECK_EQ(lc_stream_wait_closed(e.stream, 5), 0);
    CHECK_EQ(lc_stream_wait_receive(e.stream, 6), 0); /* queued, not in the kernel */
    lc_loop *loop = s->loop;
    CHECK_EQ(lc_loop_close(loop), 0);
    lc_node *node;
    while ((node = lc_loop_drop_next(loop)))
        TRY(scenario_deliver(s, node));
    CHECK_EQ(e.shutdowns, 1);
    CHECK_EQ(e.closes, 1);
    CHECK_EQ(scenario_stats(s).queued, 0);
    char byte;
    CHECK_EQ(recv(e.peer, &byte, 1, 0), 0);
    close(e.peer);
    scenario_forget_loop(s);
    lc_loop_free(loop);
    return 0;
}

/* ---- processes ---- */

int a_forked_child_cannot_run_the_loop(scenario *s) {
    endpoint e = {.echo = true};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(scenario_settle(s));
    CHECK(!lc_loop_is_forked(s->loop));
    uint32_t generation = lc_fork_generation();
    pid_t child = fork();
    CHECK_CALL(child);
    if (child == 0) {
        lc_post post = {0};
        int wrong = 0;
        wrong |= (lc_loop_is_forked(s->loop) ? 0 : 1) << 0;
        wrong |= (lc_loop_current() == NULL ? 0 : 1) << 1;
        wrong |= (lc_loop_enter(s->loop) == -EOWNERDEAD ? 0 : 1) << 2;
        wrong |= (lc_loop_post(s->loop, &post) == -EBADF ? 0 : 1) << 3;
        wrong |= (lc_fork_generation() == generation + 1 ? 0 : 1) << 4;
        lc_loop *own; /* a new one is this process's own */
        wrong |= (lc_loop_create(&s->options, &own) == 0 && lc_loop_enter(own) == 0 ? 0 : 1) << 5;
        if (!wrong) {
            wrong |= (lc_loop_tick(own, false) == 0 && lc_loop_next(own) == NULL ? 0 : 1) << 6;
            lc_loop_leave(own);
            lc_loop_free(own);
        }
        scenario_child_ends(wrong);
    }
    int status;
    CHECK_CALL(waitpid(child, &status, 0));
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    uint8_t bytes[1000];
    bool end = false;
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    /* The child may also close its copy; ours goes on. */
    child = fork();
    CHECK_CALL(child);
    if (child == 0) {
        int wrong = lc_loop_close(s->loop) == 0 ? 0 : 1;
        if (!wrong)
            lc_loop_free(s->loop);
        scenario_child_ends(wrong);
    }
    CHECK_CALL(waitpid(child, &status, 0));
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    TRY(echo_once(s));
    return endpoint_close(s, &e);
}
