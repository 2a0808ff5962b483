// SPDX-License-Identifier: Apache-2.0
/* faults_session.c: one session with a little of everything, without each feature and under a storm of signals. */
#include <poll.h>
#include <signal.h>
#include <sys/time.h>
#include "faults_support.h"

enum { CLIENTS = 4, SIZE = 30000 };

typedef struct session {
    acceptor a;
    endpoint clients[CLIENTS], servers[CLIENTS];
    uint32_t polls, polls_cancelled, calls, posts;
    uint64_t deadline_ns; /* of the timer that is set */
    bool over;
} session;

static int session_op(scenario *s, lc_op *op) {
    session *m = s->context;
    if (op->result == -ECANCELED)
        m->polls_cancelled++;
    else
        CHECK(op->result > 0 && (op->result & POLLIN));
    m->polls++;
    lc_op_release(s->loop, op);
    return 0;
}

static int session_tick(scenario *s, session *m) {
    lc_call_id id;
    m->deadline_ns = lc_now_ns() + 500000;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, m->deadline_ns, 0, &id), 0);
    return 0;
}

static int session_call(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    session *m = s->context;
    CHECK_GE(lc_now_ns(), m->deadline_ns);
    m->calls++;
    return m->over ? 0 : session_tick(s, m);
}

static int session_post(scenario *s, lc_post *post) {
    session *m = s->context;
    CHECK_EQ(post->word == NULL, 0);
    post->word = NULL; /* once each */
    m->posts++;
    return 0;
}

static int poll_once(scenario *s, int fd, lc_op **op) {
    *op = lc_op_make(s->loop);
    CHECK(*op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, *op, fd, false, 0), 0);
    return 0;
}

static int session_connect(scenario *s, session *m) {
    TRY(acceptor_open(s, &m->a));
    CHECK_EQ(lc_listener_start(m->a.listener), 0);
    const struct sockaddr *address = (const struct sockaddr *)&m->a.address.storage;
    for (uint32_t index = 0; index < CLIENTS; index++) {
        endpoint *e = &m->clients[index];
        e->peer = -1;
        CHECK_EQ(lc_stream_connect(s->loop, address, m->a.address.length, &e->stream), 0);
        lc_stream_set_word(e->stream, (uint64_t)(uintptr_t)e);
        CHECK_EQ(lc_stream_wait_send(e->stream, 1, 0), 0);
    }
    for (uint32_t index = 0; index < CLIENTS; index++) {
        RUN_UNTIL(m->clients[index].sends == 1);
        CHECK_EQ(lc_stream_connect_result(m->clients[index].stream), 0);
    }
    RUN_UNTIL(m->a.count == CLIENTS);
    m->a.count = 0;
    for (uint32_t index = 0; index < CLIENTS; index++) {
        endpoint *e = &m->servers[index];
        *e = (endpoint){.stream = m->a.streams[index], .peer = -1, .echo = true, .seed = 9};
        lc_stream_set_word(e->stream, (uint64_t)(uintptr_t)e);
        CHECK_EQ(lc_stream_start_receiving(e->stream), 0);
    }
    return 0;
}

static int session_refused(scenario *s) {
    endpoint e = {.peer = -1};
    lc_address address;
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* has the port, and does not listen */
    CHECK_CALL(bound);
    CHECK_EQ(lc_address_parse("127.9.0.43", 0, &address), 0);
    CHECK_CALL(bind(bound, (struct sockaddr *)&address.storage, address.length));
    CHECK_EQ(lc_address_local(bound, &address), 0);
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &e.stream), 0);
    lc_stream_set_word(e.stream, (uint64_t)(uintptr_t)&e);
    CHECK_EQ(lc_stream_wait_send(e.stream, 1, 0), 0);
    RUN_UNTIL(e.sends == 1);
    CHECK_EQ(lc_stream_connect_result(e.stream), -ECONNREFUSED);
    CHECK_CALL(close(bound));
    TRY(endpoint_close(s, &e));
    return 0;
}

static int session_echo(scenario *s, session *m) {
    uint8_t bytes[SIZE];
    pattern_fill(bytes, SIZE, 9, 0);
    for (uint32_t index = 0; index < CLIENTS; index++) {
        endpoint *e = &m->clients[index];
        e->seed = 9;
        for (uint32_t at = 0; at < SIZE; at += SIZE / 10)
            CHECK_EQ(lc_stream_send_copy(e->stream, bytes + at, SIZE / 10), 0);
        CHECK_EQ(lc_stream_start_receiving(e->stream), 0);
    }
    for (uint32_t index = 0; index < CLIENTS; index++) {
        RUN_UNTIL(m->clients[index].received == SIZE);
        CHECK_EQ(m->servers[index].received, SIZE);
    }
    return 0;
}

static int session_cancel(scenario *s, session *m) {
    endpoint e = {0};
    lc_op *op;
    int counter;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_wait_receive(e.stream, 5), 0);
    TRY(counter_open(s, &counter));
    TRY(poll_once(s, counter, &op));
    TRY(scenario_settle(s));
    CHECK_EQ(e.deliveries + m->polls, 0);
    lc_stream_cancel_receive(e.stream, lc_stream_receive_token(e.stream));
    lc_op_cancel(s->loop, op);
    RUN_UNTIL(e.cancels == 1 && m->polls_cancelled == 1);
    TRY(poll_once(s, counter, &op));
    TRY(counter_bump(s, counter));
    RUN_UNTIL(m->polls == 2);
    CHECK_EQ(m->polls_cancelled, 1);
    CHECK_CALL(close(counter));
    return endpoint_close(s, &e);
}

/* One side by its end, the other by that of the listener. */
static int session_close(scenario *s, session *m) {
    for (uint32_t index = 0; index < CLIENTS; index++) {
        endpoint *client = &m->clients[index], *server = &m->servers[index];
        CHECK_EQ(lc_stream_finish_sending(client->stream), 0);
        RUN_UNTIL(server->ends == 1);
        CHECK_EQ(lc_stream_close(server->stream, false, false), 1);
        RUN_UNTIL(client->ends == 1);
        CHECK_EQ(lc_stream_wait_closed(server->stream, 2), 0);
        RUN_UNTIL(server->closes == 1);
        CHECK_EQ(client->errors + server->errors, 0);
        TRY(endpoint_close(s, client));
        TRY(endpoint_close(s, server));
    }
    lc_listener_close(m->a.listener);
    RUN_UNTIL(m->a.shutdowns == 1 && lc_listener_is_closed(m->a.listener));
    CHECK_EQ(scenario_stats(s).accept_backoffs, 0);
    lc_listener_release(m->a.listener);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    return 0;
}

static int play_session(scenario *s, session *m) {
    s->context = m;
    s->on = (scenario_handlers){.op = session_op, .call = session_call, .post = session_post};
    TRY(session_tick(s, m));
    TRY(session_connect(s, m));
    TRY(session_refused(s));
    TRY(session_echo(s, m));
    TRY(session_cancel(s, m));
    TRY(session_close(s, m));
    uint32_t calls = m->calls;
    m->over = true;
    RUN_UNTIL(m->calls > calls);
    return 0;
}

int a_session_without_each_feature(scenario *s) {
    static const uint32_t features[] = {0,
                                        LC_FEATURE_DEFER_TASKRUN,
                                        LC_FEATURE_SINGLE_ISSUER,
                                        LC_FEATURE_COOP_TASKRUN,
                                        LC_FEATURE_SUBMIT_ALL,
                                        LC_FEATURE_MULTISHOT_ACCEPT,
                                        LC_FEATURE_BUFFER_RING,
                                        LC_FEATURE_REGISTERED_RING,
                                        LC_FEATURE_DEFER_TASKRUN | LC_FEATURE_COOP_TASKRUN,
                                        LC_FEATURE_MULTISHOT_ACCEPT | LC_FEATURE_BUFFER_RING,
                                        0x7f};
    static const uint32_t selectors[] = {LC_SELECTOR_BEST, LC_SELECTOR_EPOLL, LC_SELECTOR_POLL, LC_SELECTOR_SELECT};
    size_t count = scenario_is_proactor(s) ? sizeof features / sizeof *features : sizeof selectors / sizeof *selectors;
    lc_options original = s->options;
    for (size_t index = 0; index < count; index++) {
        if (scenario_is_proactor(s))
            s->options.features_off = features[index];
        else
            s->options.selector = selectors[index];
        TRY(scenario_reopen(s));
        CHECK_EQ(lc_loop_features(s->loop) & s->options.features_off, 0);
        session m = {0};
        TRY(play_session(s, &m));
    }
    s->options = original;
    return 0;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;
static void count_signal(int number) {
    (void)number;
    signals++;
}

static int storm(scenario *s, bool on) {
    struct sigaction action = {.sa_handler = count_signal}; /* and no SA_RESTART */
    struct itimerval timer = {{0}, {0}};
    if (on)
        timer.it_interval.tv_usec = timer.it_value.tv_usec = 100;
    CHECK_CALL(sigaction(SIGALRM, &action, NULL));
    sigset_t alarm; /* who runs the scenarios may have blocked it */
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &alarm, NULL), 0);
    CHECK_CALL(setitimer(ITIMER_REAL, &timer, NULL));
    return 0;
}

enum { POSTS = 500 };

static int post_all(scenario *s, void *context) {
    lc_post *posts = context;
    for (uint32_t index = 0; index < POSTS; index++) {
        posts[index].word = posts;
        CHECK_EQ(lc_loop_post(s->loop, &posts[index]), 0);
    }
    return 0;
}

static int sessions_in_a_storm(scenario *s) {
    enum { SIGNALS = 1000 };
    static lc_post posts[POSTS];
    TRY(storm(s, true));
    while (signals < SIGNALS) {
        TRY(scenario_reopen(s));
        session m = {0};
        helper other;
        if (!NO_THREADS_IN_CHILDREN)
            TRY(helper_start(s, &other, post_all, posts));
        TRY(play_session(s, &m));
        if (NO_THREADS_IN_CHILDREN)
            continue;
        RUN_UNTIL(m.posts == POSTS);
        TRY(helper_join(s, &other));
    }
    return storm(s, false);
}

int a_storm_of_signals_is_not_seen(scenario *s) { return scenario_in_child(s, sessions_in_a_storm); }
