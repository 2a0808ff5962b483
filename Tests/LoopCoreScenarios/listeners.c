// SPDX-License-Identifier: Apache-2.0
/* listeners.c: accepting, not being able to accept, and no longer accepting. */
#include <dirent.h>
#include <poll.h>
#include <sys/resource.h>
#include "faults.h"
#include "simulator.h"

enum { STREAMS_MAX = 256 };

typedef struct accepting {
    lc_listener *listener;
    lc_address address;
    lc_stream *streams[STREAMS_MAX];
    uint32_t count;
    uint32_t deliveries, cancels, shutdowns, backoffs;
    int backoff_error;
    uint32_t take_max; /* per delivery */
    uint64_t last_waiter;
} accepting;

static int accept_told(scenario *s, lc_listener *listener) {
    accepting *a = s->context;
    CHECK(listener == a->listener);
    a->deliveries++;
    a->last_waiter = lc_listener_waiter(listener);
    int error = lc_listener_take_backoff(listener);
    if (error) {
        a->backoffs++;
        a->backoff_error = error;
        CHECK_EQ(lc_listener_take_backoff(listener), 0);
    }
    for (uint32_t taken = 0; taken < a->take_max; taken++) {
        lc_stream *stream;
        int result = lc_listener_take(listener, &stream);
        if (result == 1) {
            CHECK_LT(a->count, STREAMS_MAX);
            a->streams[a->count++] = stream;
            continue;
        }
        if (result == -ECANCELED)
            a->cancels++;
        else if (result == -ESHUTDOWN)
            a->shutdowns++;
        else
            CHECK_EQ(result, -EAGAIN);
        break;
    }
    lc_listener_finish_delivery(listener);
    return 0;
}

static int accepting_open(scenario *s, accepting *a, int backlog) {
    *a = (accepting){.take_max = STREAMS_MAX};
    s->context = a;
    s->on.accept = accept_told;
    int fd;
    TRY(listen_anywhere(s, backlog, &fd, &a->address));
    CHECK_EQ(lc_listener_adopt(s->loop, fd, &a->listener), 0);
    CHECK_EQ(lc_listener_fd(a->listener), fd);
    return 0;
}

/* Not closed before its last pass: the descriptor belongs to the loop until then. */
static int accepting_close(scenario *s, accepting *a) {
    for (uint32_t index = 0; index < a->count; index++)
        lc_stream_release(a->streams[index]);
    a->count = 0;
    lc_listener_release(a->listener);
    a->listener = NULL;
    return scenario_settle(s);
}

int accepts_two_hundred(scenario *s) {
    enum { CLIENTS = 200 };
    accepting a;
    TRY(accepting_open(s, &a, CLIENTS));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    CHECK_EQ(lc_listener_wait(a.listener, 1), -EBUSY);
    int clients[CLIENTS];
    for (uint32_t index = 0; index < CLIENTS; index++)
        TRY(client_connect(s, &a.address, &clients[index]));
    RUN_UNTIL(a.count == CLIENTS);
    /* All different, and each one's peer is one of ours. */
    for (uint32_t index = 0; index < CLIENTS; index++) {
        char text[64];
        lc_address peer;
        CHECK_EQ(lc_address_peer(lc_stream_fd(a.streams[index]), &peer), 0);
        int port = lc_address_format(&peer, text, sizeof text), matches = 0;
        for (uint32_t client = 0; client < CLIENTS; client++) {
            lc_address local;
            CHECK_EQ(lc_address_local(clients[client], &local), 0);
            matches += lc_address_format(&local, text, sizeof text) == port;
        }
        CHECK_EQ(matches, 1);
    }
    TRY(accepting_close(s, &a));
    for (uint32_t index = 0; index < CLIENTS; index++)
        CHECK_CALL(close(clients[index]));
    return 0;
}

/* One wait, one connection; the others keep for the next. */
int accepts_one_per_wait(scenario *s) {
    enum { CLIENTS = 20 };
    accepting a;
    TRY(accepting_open(s, &a, CLIENTS));
    a.take_max = 1;
    int clients[CLIENTS];
    for (uint32_t index = 0; index < CLIENTS; index++) {
        CHECK_EQ(lc_listener_wait(a.listener, 100 + index), 0);
        CHECK_EQ(lc_listener_wait(a.listener, 99), -EBUSY);
        CHECK_EQ(lc_listener_start(a.listener), -EBUSY);
        if (index % 5 == 0)
            for (uint32_t more = 0; more < 5; more++)
                TRY(client_connect(s, &a.address, &clients[index + more]));
        while (a.count == index) {
            uint32_t deliveries = a.deliveries;
            RUN_UNTIL(a.deliveries > deliveries);
            CHECK_EQ(a.last_waiter, 100 + index);
            if (a.count == index) /* told too early is allowed, lost is not */
                CHECK_EQ(lc_listener_wait(a.listener, 100 + index), 0);
        }
    }
    CHECK_EQ(a.count, CLIENTS);
    TRY(accepting_close(s, &a));
    for (uint32_t index = 0; index < CLIENTS; index++)
        CHECK_CALL(close(clients[index]));
    return 0;
}

int a_cancelled_accept_loses_no_connection(scenario *s) {
    accepting a;
    TRY(accepting_open(s, &a, 8));
    CHECK_EQ(lc_listener_wait(a.listener, 1), 0);
    uint32_t token = lc_listener_token(a.listener);
    TRY(scenario_settle(s));
    CHECK_EQ(a.deliveries, 0);
    lc_listener_cancel(a.listener, token + 1);
    TRY(scenario_settle(s));
    CHECK_EQ(a.deliveries, 0);
    int client;
    TRY(client_connect(s, &a.address, &client));
    lc_listener_cancel(a.listener, token);
    lc_listener_cancel(a.listener, token);
    RUN_UNTIL(a.deliveries == 1);
    CHECK_EQ(a.cancels, 1);
    CHECK_EQ(a.count, 0);
    CHECK_EQ(lc_listener_wait(a.listener, 2), 0);
    lc_listener_cancel(a.listener, token); /* stale */
    RUN_UNTIL(a.count == 1);
    CHECK_EQ(a.cancels, 1);
    TRY(accepting_close(s, &a));
    CHECK_CALL(close(client));
    return 0;
}

/* ---- no descriptors left ---- */

/* As the limit counts it. */
static int highest_fd(void) {
    int highest = -1;
    if (sim_process_descriptors("", &highest) > 0)
        return highest - sim_process_number(0);
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) > highest && atoi(entry->d_name) != dirfd(directory))
            highest = atoi(entry->d_name);
    if (directory)
        closedir(directory);
    return highest;
}

static int note_time(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    (void)s;
    *(bool *)(uintptr_t)word = true;
    return 0;
}

/* In a child process: the limit is the whole process's. */
static int without_descriptors(scenario *s) {
    enum { CLIENTS = 4, ORDINARY_MS = 1000, LONG_MS = 60000, PAUSE_MAX_MS = 1000 };
    accepting a;
    TRY(accepting_open(s, &a, CLIENTS));
    s->on.call = note_time;
    int clients[CLIENTS];
    for (uint32_t index = 0; index < CLIENTS; index++)
        TRY(client_connect(s, &a.address, &clients[index]));
    /* No holes below, and room for exactly one. */
    int fillers[64], filler_count = 0;
    for (int highest = highest_fd(); filler_count < 64;) {
        int filler = dup(clients[0]);
        CHECK_CALL(filler);
        fillers[filler_count++] = filler;
        if (highest_fd() > highest)
            break;
    }
    struct rlimit limit, low;
    CHECK_CALL(getrlimit(RLIMIT_NOFILE, &limit));
    low = limit;
    low.rlim_cur = (rlim_t)highest_fd() + 1;
    CHECK_CALL(close(fillers[--filler_count]));
    CHECK_CALL(setrlimit(RLIMIT_NOFILE, &low));

    CHECK_EQ(lc_listener_start(a.listener), 0);
    RUN_UNTIL(a.backoffs == 1);
    CHECK_EQ(a.backoff_error, -EMFILE);
    CHECK_EQ(a.count, 1);
    uint32_t passes = s->passes;
    uint64_t for_ms = scenario_long() ? LONG_MS : ORDINARY_MS, cpu_ns = thread_cpu_ns();
    bool over = false;
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + for_ms * 1000000u, (uint64_t)(uintptr_t)&over, &id), 0);
    RUN_UNTIL(over);
    /* The pauses double up to a second, a few passes each; nothing spins in between. */
    uint64_t pauses = 4 + for_ms / PAUSE_MAX_MS;
    CHECK_LE(scenario_stats(s).accept_backoffs, pauses + CLIENTS);
    CHECK_LT(s->passes - passes, 8 * pauses);
    CHECK_LT(thread_cpu_ns() - cpu_ns, for_ms * 1000000u / 20);
    CHECK_EQ(a.count, 1);
    CHECK_EQ(a.backoffs, 1); /* once per shortage */
    /* A descriptor that becomes free ends the pause at once: sooner than the shortest pause, unless the machine halts. */
    uint64_t fastest_ns = UINT64_MAX;
    for (uint32_t taken = 1; taken < CLIENTS; taken++) {
        lc_stream_release(a.streams[taken - 1]);
        uint64_t from_ns = lc_now_ns();
        RUN_UNTIL(a.count == taken + 1);
        uint64_t took_ns = lc_now_ns() - from_ns;
        fastest_ns = took_ns < fastest_ns ? took_ns : fastest_ns;
    }
    CHECK_LT(fastest_ns, 90000000);
    CHECK_CALL(setrlimit(RLIMIT_NOFILE, &limit));
    while (filler_count > 0)
        CHECK_CALL(close(fillers[--filler_count]));
    lc_stream *last = a.streams[CLIENTS - 1];
    a.count = 1;
    a.streams[0] = last;
    TRY(accepting_close(s, &a));
    for (uint32_t index = 0; index < CLIENTS; index++)
        CHECK_CALL(close(clients[index]));
    return 0;
}

int accepting_without_descriptors(scenario *s) { return scenario_in_child(s, without_descriptors); }

/* ---- closing ---- */

int a_closed_listener_refuses(scenario *s) {
    for (uint32_t round = 0; round < 3; round++) {
        accepting a;
        TRY(accepting_open(s, &a, 8));
        if (round > 0)
            CHECK_EQ(lc_listener_wait(a.listener, 5), 0);
        if (round > 1)
            TRY(scenario_settle(s));
        lc_listener_close(a.listener);
        lc_listener_close(a.listener);
        while (!lc_listener_is_closed(a.listener)) {
            if (scenario_late(s))
                return scenario_fail(s, __FILE__, __LINE__, "time ran out");
            TRY(scenario_pass(s, false));
        }
        TRY(scenario_settle(s));
        CHECK_EQ(a.shutdowns, round > 0);
        lc_stream *stream;
        CHECK_EQ(lc_listener_take(a.listener, &stream), -ESHUTDOWN);
        int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK_CALL(client);
        CHECK_EQ(connect(client, (struct sockaddr *)&a.address.storage, a.address.length), -1);
        CHECK_EQ(errno, ECONNREFUSED);
        close(client);
        lc_listener_release(a.listener);
        TRY(scenario_settle(s));
    }
    return 0;
}

/* Closed along with streams, its cancel waits for room in a small submission queue, and the accept ends first, with the
 * error of a socket that was shut down. That is no shortage: no pause, and no timer that would outlive the listener. */
int a_listener_closes_among_streams(scenario *s) {
    enum { STREAMS = 16 };
    accepting a;
    TRY(accepting_open(s, &a, 8));
    CHECK_EQ(lc_listener_start(a.listener), 0);
    endpoint e[STREAMS];
    for (size_t index = 0; index < STREAMS; index++) {
        e[index] = (endpoint){0};
        TRY(endpoint_open(s, &e[index], false));
        CHECK_EQ(lc_stream_wait_receive(e[index].stream, 1), 0);
    }
    TRY(scenario_settle(s));
    lc_listener_close(a.listener);
    for (size_t index = 0; index < STREAMS; index++)
        TRY(endpoint_close(s, &e[index]));
    while (!lc_listener_is_closed(a.listener))
        TRY(scenario_pass(s, false));
    CHECK_EQ(scenario_stats(s).accept_backoffs, 0);
    CHECK_EQ(scenario_stats(s).timers, 0);
    return accepting_close(s, &a);
}

/* Accepted by the kernel or by the loop, and never taken: the peer learns of it when the listener closes. */
int untaken_connections_close_with_the_listener(scenario *s) {
    enum { CLIENTS = 10 };
    accepting a;
    TRY(accepting_open(s, &a, CLIENTS));
    a.take_max = 1;
    int clients[CLIENTS];
    CHECK_EQ(lc_listener_wait(a.listener, 1), 0);
    for (uint32_t index = 0; index < CLIENTS; index++)
        TRY(client_connect(s, &a.address, &clients[index]));
    RUN_UNTIL(a.count == 1);
    TRY(scenario_settle(s));
    TRY(accepting_close(s, &a));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    for (uint32_t index = 0; index < CLIENTS; index++) {
        struct pollfd wait = {.fd = clients[index], .events = POLLIN};
        CHECK_EQ(poll(&wait, 1, 30000), 1);
        char byte;
        ssize_t got = recv(clients[index], &byte, 1, MSG_DONTWAIT);
        CHECK(got == 0 || (got < 0 && errno == ECONNRESET));
        CHECK_CALL(close(clients[index]));
    }
    return 0;
}

/* What nobody accepts is left to the kernel's queue, and comes when somebody asks. */
int an_idle_listener_accepts_little(scenario *s) {
    enum { CLIENTS = 150 };
    accepting a;
    TRY(accepting_open(s, &a, CLIENTS));
    a.take_max = 1;
    CHECK_EQ(lc_listener_wait(a.listener, 1), 0);
    int clients[CLIENTS];
    for (uint32_t index = 0; index < CLIENTS; index++) {
        TRY(client_connect(s, &a.address, &clients[index]));
        TRY(scenario_pass(s, false));
    }
    TRY(scenario_settle(s));
    /* The bound, and what was under way while the cancel was. */
    CHECK_LE(scenario_stats(s).streams, (s->tiny ? 1 : 64) + 16);
    a.take_max = STREAMS_MAX;
    CHECK_EQ(lc_listener_start(a.listener), a.count ? 0 : -EBUSY);
    RUN_UNTIL(a.count == CLIENTS);
    TRY(accepting_close(s, &a));
    for (uint32_t index = 0; index < CLIENTS; index++)
        CHECK_CALL(close(clients[index]));
    return 0;
}

int what_a_listener_cannot_be_made_of(scenario *s) {
    int fds[2];
    TRY(pair_unix(s, fds));
    lc_listener *listener;
    CHECK_EQ(lc_listener_adopt(s->loop, fds[0], &listener), -EINVAL);
    CHECK_EQ(lc_listener_adopt(s->loop, -1, &listener), -EBADF);
    close(fds[0]);
    close(fds[1]);
    accepting a;
    TRY(accepting_open(s, &a, 1));
    CHECK_EQ(lc_listener_adopt(s->loop, lc_listener_fd(a.listener), &listener), -EBUSY);
    return accepting_close(s, &a);
}
