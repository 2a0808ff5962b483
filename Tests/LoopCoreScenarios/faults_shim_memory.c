// SPDX-License-Identifier: Apache-2.0
/* faults_shim_memory.c: the n-th allocation fails, for every n, once or from there on.
 *
 * What libev allocates is left out: it prints a line and aborts by design when it gets no memory, in ev_loop_new and
 * wherever one of its tables grows. One scenario shows just that, in a child process. */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "scenario.h"
#include "shim.h"

enum { ALLOCATIONS_MAX = 400 };

static void take_place(scenario *s, lc_loop *loop) {
    pthread_mutex_lock(&s->lock);
    s->loop = loop;
    pthread_mutex_unlock(&s->lock);
}

/* ---- a loop, made and freed ---- */

int making_a_loop_without_memory(scenario *s) {
    if (!shim_allocation_faults_possible())
        return 0;
    int before = scenario_fd_count();
    for (int round = 0; round < 2; round++) {
        uint32_t nth = 1;
        for (;; nth++) {
            CHECK_LT(nth, ALLOCATIONS_MAX);
            shim_fault fault = {.call = SHIM_ALLOCATE, .nth = nth, .count = round ? SHIM_FOR_EVER : 1, .error = ENOMEM};
            lc_loop *loop = NULL;
            shim_arm(&fault, 1);
            int result = lc_loop_create(&s->options, &loop);
            if (result == 0)
                lc_loop_free(loop);
            shim_disarm();
            if (s->isolated)
                CHECK_EQ(scenario_fd_count(), before);
            if (!shim_faults_played()) {
                CHECK_EQ(result, 0);
                break;
            }
            CHECK_EQ(result, -ENOMEM);
            CHECK(loop == NULL);
            /* The probe makes loops of both kinds, and reads a file. */
            lc_probe probe;
            shim_arm(&fault, 1);
            lc_probe_run(&probe);
            shim_disarm();
        }
        CHECK_GE(nth, 4); /* there are at least three to fail */
    }
    return 0;
}

/* ---- a whole session ---- */

enum { PASSES_MAX = 5000, CALLS = 300, SMALL = 100, LARGE = 20000, TOTAL = SMALL + LARGE, ENDS_MAX = 4 };

/* One end of a connection of the session. */
typedef struct end {
    lc_stream *stream;
    bool echo;
    uint64_t received;
    bool over;
} end;

typedef struct session {
    lc_listener *listener;
    end ends[ENDS_MAX];
    uint32_t end_count;
    uint32_t refusals; /* ENOMEM, wherever it was told */
    uint32_t strange;  /* any other error that the want of memory does not explain */
    uint32_t accepted, posts, soon, sleeps, polls;
    bool ending;
    lc_post post[2];
    lc_op *op;
    int pipe[2];
} session;

static uint8_t session_bytes[TOTAL];
static pthread_once_t session_once = PTHREAD_ONCE_INIT;
static void session_fill(void) { pattern_fill(session_bytes, TOTAL, 73, 0); }

/* True: it went well. */
static bool well(session *a, int result) {
    a->refusals += result == -ENOMEM;
    a->strange += result < 0 && result != -ENOMEM;
    return result >= 0;
}

static end *session_end(session *a, lc_stream *stream, bool echo) {
    end *e = &a->ends[a->end_count++];
    *e = (end){.stream = stream, .echo = echo};
    lc_stream_set_word(stream, (uint64_t)(uintptr_t)e);
    return e;
}

static int session_accept(scenario *s, lc_listener *listener) {
    session *a = s->context;
    lc_stream *stream;
    well(a, lc_listener_take_backoff(listener));
    while (lc_listener_take(listener, &stream) == 1) {
        CHECK_LT(a->end_count, ENDS_MAX);
        a->accepted++;
        well(a, lc_stream_start_receiving(session_end(a, stream, true)->stream));
    }
    lc_listener_finish_delivery(listener);
    return 0;
}

/* Once somebody was refused, his other end may learn of it as an end or as a reset. */
static int session_receive(scenario *s, lc_stream *stream) {
    session *a = s->context;
    end *e = (end *)(uintptr_t)lc_stream_word(stream);
    lc_buffer *lease;
    int result;
    while ((result = lc_stream_take(stream, &lease)) == 1) {
        uint32_t length = lc_buffer_length(lease);
        CHECK_LE(e->received + length, TOTAL);
        CHECK(memcmp(lc_buffer_bytes(lease), session_bytes + e->received, length) == 0);
        e->received += length;
        if (!e->echo)
            lc_buffer_return(lease);
        else if ((result = lc_stream_send(stream, lease)) < 0)
            a->refusals++; /* an error told before */
    }
    if (result != -EAGAIN && !(a->refusals && (result == 0 || result == -ECONNRESET || result == -ESHUTDOWN)))
        well(a, result == 0 ? -EPIPE : result);
    e->over = result != -EAGAIN;
    lc_stream_finish_delivery(stream);
    return 0;
}

static int session_call(scenario *s, lc_kind kind, uint64_t word) {
    session *a = s->context;
    (void)word;
    *(kind == LC_KIND_CALL ? &a->soon : &a->sleeps) += 1;
    return 0;
}

static int session_post(scenario *s, lc_post *post) {
    session *a = s->context;
    CHECK(post == &a->post[a->posts]);
    a->posts++;
    return 0;
}

static int session_op(scenario *s, lc_op *op) {
    session *a = s->context;
    CHECK(op == a->op);
    if (!a->ending || op->result != -ECANCELED)
        well(a, op->result);
    a->polls++;
    return 0;
}

/* A refusal queues nothing, so what was refused can be sent again. */
static void session_send(session *a, end *e, const uint8_t *bytes, size_t length) {
    if (!well(a, lc_stream_send_copy(e->stream, bytes, length)))
        well(a, lc_stream_send_copy(e->stream, bytes, length));
}

static int session_begin(scenario *s, session *a) {
    int fd;
    lc_address address;
    lc_stream *stream;
    lc_call_id id;
    for (int index = 0; index < 2; index++) /* the loop does not run yet, so these take the way of other threads */
        CHECK_EQ(lc_loop_post(s->loop, &a->post[index]), 0);
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    TRY(listen_anywhere(s, 8, &fd, &address));
    if (well(a, lc_listener_adopt(s->loop, fd, &a->listener)))
        well(a, lc_listener_start(a->listener));
    else
        CHECK_CALL(close(fd));
    if (a->listener &&
        well(a, lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &stream))) {
        end *client = session_end(a, stream, false);
        well(a, lc_stream_start_receiving(stream));
        session_send(a, client, session_bytes, SMALL);
        session_send(a, client, session_bytes + SMALL, LARGE);
    }
    for (uint32_t index = 0; index < CALLS; index++) {
        well(a, lc_call_soon(s->loop, LC_KIND_CALL, index, &id));
        well(a, lc_call_at(s->loop, LC_KIND_SLEEP, index, index, &id)); /* long due */
    }
    a->op = lc_op_make(s->loop);
    a->refusals += !a->op;
    if (a->op && !well(a, lc_op_poll(s->loop, a->op, a->pipe[1], true, 1))) {
        lc_op_release(s->loop, a->op);
        a->op = NULL;
    }
    return 0;
}

static bool session_complete(const session *a) {
    if (a->accepted != 1 || a->posts != 2 || a->soon != CALLS || a->sleeps != CALLS || a->polls != 1)
        return false;
    for (uint32_t index = 0; index < a->end_count; index++)
        if (a->ends[index].received != TOTAL)
            return false;
    return true;
}

static int session_end_all(scenario *s, session *a) {
    a->ending = true;
    if (a->op && !a->polls) {
        lc_op_cancel(s->loop, a->op);
        for (uint32_t pass = 0; pass < 10 && !a->polls; pass++)
            TRY(scenario_pass(s, false));
        CHECK_EQ(a->polls, 1);
    }
    if (a->op)
        lc_op_release(s->loop, a->op);
    for (uint32_t index = 0; index < a->end_count; index++)
        lc_stream_release(a->ends[index].stream);
    if (a->listener)
        lc_listener_release(a->listener);
    for (uint32_t pass = 0; pass < 10; pass++)
        TRY(scenario_pass(s, false));
    TRY(scenario_check_zero(s));
    return 0;
}

static int session_play(scenario *s, session *a) {
    lc_loop *loop;
    CHECK_CALL(pipe2(a->pipe, O_CLOEXEC));
    if (well(a, lc_loop_create(&s->options, &loop))) {
        take_place(s, loop);
        TRY(session_begin(s, a));
        for (uint32_t pass = 0; pass < PASSES_MAX && !session_complete(a); pass++)
            TRY(scenario_pass(s, false));
        TRY(session_end_all(s, a));
        lc_loop_leave(loop);
        CHECK_EQ(lc_loop_close(loop), 0);
        CHECK(lc_loop_drop_next(loop) == NULL);
        TRY(scenario_check_zero(s));
        take_place(s, NULL);
        lc_loop_free(loop);
    }
    CHECK_CALL(close(a->pipe[0]));
    CHECK_CALL(close(a->pipe[1]));
    return 0;
}

static int sessions(scenario *s, uint32_t count) {
    if (!shim_allocation_faults_possible())
        return 0;
    pthread_once(&session_once, session_fill);
    TRY(scenario_finish(s));
    int before = scenario_fd_count();
    s->on = (scenario_handlers){.call = session_call,
                                .post = session_post,
                                .op = session_op,
                                .receive = session_receive,
                                .accept = session_accept};
    uint32_t nth = 1;
    for (;; nth++) {
        session a = {0};
        s->context = &a;
        CHECK_LT(nth, ALLOCATIONS_MAX);
        shim_fault fault = {.call = SHIM_ALLOCATE, .nth = nth, .count = count, .error = ENOMEM};
        shim_arm(&fault, 1);
        int result = session_play(s, &a);
        shim_disarm();
        TRY(result);
        if (s->isolated)
            CHECK_EQ(scenario_fd_count(), before);
        CHECK_EQ(a.strange, 0);
        if (!shim_faults_played()) {
            CHECK_EQ(a.refusals, 0);
            CHECK(session_complete(&a));
            break;
        }
        /* While there is no memory at all, an operation that needs a place in a table waits for it. */
        if (!a.refusals && !session_complete(&a) && count == 1)
            return scenario_fail(s, __FILE__, __LINE__, "allocation %u failed, and nobody was told", nth);
    }
    CHECK_GE(nth, 12); /* as many to fail as there are tables */
    return 0;
}

int each_allocation_fails_once(scenario *s) { return sessions(s, 1); }
int each_allocation_fails_from_there_on(scenario *s) { return sessions(s, SHIM_FOR_EVER); }

/* ---- none at all ---- */

/* What the first round took serves the others. */
int streams_that_come_and_go_take_no_more_memory(scenario *s) {
    enum { AT_ONCE = 64, ROUNDS = 3, ALLOCATIONS_FIRST = 24 };
    static const shim_fault never = {.call = SHIM_ALLOCATE, .nth = SHIM_FOR_EVER, .error = ENOMEM};
    if (!shim_allocation_faults_possible())
        return 0;
    for (int round = 0; round < ROUNDS; round++) {
        endpoint e[AT_ONCE] = {0};
        shim_arm(&never, 1);
        for (int index = 0; index < AT_ONCE; index++)
            TRY(endpoint_open(s, &e[index], true));
        for (int index = 0; index < AT_ONCE; index++)
            TRY(endpoint_close(s, &e[index]));
        while (scenario_stats(s).streams > 0)
            TRY(scenario_pass(s, false));
        shim_disarm();
        CHECK_LE(shim_calls(SHIM_ALLOCATE), round == 0 ? ALLOCATIONS_FIRST : 0);
    }
    return 0;
}

/* Whatever an operation takes is given back with its last completion. */
int messages_take_no_memory(scenario *s) {
    enum { WARM = 16, MESSAGES = 1000 };
    static const shim_fault never = {.call = SHIM_ALLOCATE, .nth = SHIM_FOR_EVER, .error = ENOMEM};
    if (!shim_allocation_faults_possible())
        return 0;
    endpoint e = {.echo = true};
    bool end = false;
    uint64_t sent = 0;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    for (; sent < WARM + MESSAGES; sent++) {
        if (sent == WARM)
            shim_arm(&never, 1);
        uint8_t byte = pattern_byte(0, sent);
        TRY(peer_send(s, &e, &byte, 1));
        PUMP_UNTIL(peer_receive_some(s, &e, 0, 1, &end), e.peer_received > sent);
    }
    shim_disarm();
    CHECK_EQ(shim_calls(SHIM_ALLOCATE), 0);
    return endpoint_close(s, &e);
}

/* ---- halves ---- */

/* A first write leaves room in its buffer; the second begins there and needs a buffer more. */
int a_copy_without_memory_queues_nothing(scenario *s) {
    if (!shim_allocation_faults_possible())
        return 0;
    pthread_once(&session_once, session_fill);
    endpoint e = {0};
    bool end = false;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_send_copy(e.stream, session_bytes, SMALL), 0);
    shim_fault fault = {.call = SHIM_ALLOCATE, .count = SHIM_FOR_EVER, .error = ENOMEM};
    shim_arm(&fault, 1);
    int result = lc_stream_send_copy(e.stream, session_bytes + SMALL, LARGE);
    shim_disarm();
    CHECK_EQ(result, -ENOMEM);
    CHECK_EQ(lc_stream_unsent(e.stream), SMALL);
    lc_loop_verify(s->loop);
    CHECK_EQ(lc_stream_send_copy(e.stream, session_bytes + SMALL, LARGE), 0);
    PUMP_UNTIL(peer_receive_some(s, &e, 73, TOTAL, &end), e.peer_received == TOTAL);
    return endpoint_close(s, &e);
}

/* Few buffers are left, so what arrives would be copied to the heap; there is none, so the last buffers are used, and
 * when they are gone too, the reader is told, or waits until one is back. */
int receiving_without_memory(scenario *s) {
    if (!shim_allocation_faults_possible())
        return 0;
    enum { ROUNDS = 12 };
    lc_options original = s->options;
    s->options.buffer_count = 8;
    s->options.buffer_size = 1024;
    TRY(scenario_reopen(s));
    uint8_t bytes[512];
    endpoint e = {.hold = true};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    for (uint32_t round = 0; round < 6; round++) { /* a quarter is left */
        pattern_fill(bytes, sizeof bytes, 0, e.received);
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        RUN_UNTIL(e.received == (round + 1) * sizeof bytes);
    }
    shim_fault fault = {.call = SHIM_ALLOCATE, .count = SHIM_FOR_EVER, .error = ENOMEM};
    uint64_t wanted = e.received;
    for (uint32_t round = 0; e.received == wanted && round < ROUNDS; round++) {
        pattern_fill(bytes, sizeof bytes, 0, e.received);
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        wanted += sizeof bytes;
        shim_arm(&fault, 1);
        TRY(scenario_settle(s));
        shim_disarm();
        if (round < 2) {
            CHECK_EQ(e.errors, 0);
            CHECK_EQ(e.received, wanted);
        }
    }
    CHECK_EQ(e.received, wanted - sizeof bytes); /* not even a buffer was left */
    endpoint_return_held(&e);
    if (scenario_is_proactor(s)) {
        CHECK_EQ(e.errors, 0); /* the kernel keeps what it has until there is a buffer */
        RUN_UNTIL(e.received == wanted);
    } else {
        CHECK_EQ(e.errors, 1);
        CHECK_EQ(e.error, -ENOMEM);
        lc_buffer *lease;
        CHECK_EQ(lc_stream_take(e.stream, &lease), -ENOMEM);
    }
    TRY(endpoint_close(s, &e));
    TRY(scenario_settle(s));
    endpoint_return_held(&e);
    s->options = original;
    return 0;
}

/* ---- libev ---- */

int libev_without_memory(scenario *s) {
    if (scenario_is_proactor(s) || !shim_allocation_faults_possible())
        return 0;
    shim_fault fault = {.call = SHIM_EV_ALLOCATE, .error = ENOMEM};
    pid_t child = fork();
    CHECK_CALL(child);
    if (child == 0) {
        lc_loop *loop;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        signal(SIGABRT, SIG_DFL);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO);
        shim_arm(&fault, 1);
        _exit(lc_loop_create(&s->options, &loop) == 0 ? 10 : 11);
    }
    int status;
    CHECK_CALL(waitpid(child, &status, 0));
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGABRT);
    return 0;
}
