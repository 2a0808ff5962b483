// SPDX-License-Identifier: Apache-2.0
/* faults_fork.c: descriptors with more than one owner: numbers that come back, duplicates, and forked children. */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include "faults_support.h"

/* ---- numbers and duplicates ---- */

typedef struct watching {
    int fd;     /* what is polled */
    int stored; /* what takes its number, or -1 */
    uint32_t told;
    int result;
} watching;

static int watch_start(scenario *s, int fd) {
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, fd, false, 0), 0);
    return 0;
}

/* The number changes its owner within the delivery, and the new one is waited for at once. */
static int watch_swap(scenario *s, lc_op *op) {
    watching *w = s->context;
    w->told++;
    w->result = op->result;
    lc_op_release(s->loop, op);
    if (w->stored < 0)
        return 0;
    CHECK_CALL(close(w->fd));
    CHECK_EQ(fcntl(w->stored, F_DUPFD_CLOEXEC, w->fd), w->fd);
    CHECK_CALL(close(w->stored));
    w->stored = -1;
    return watch_start(s, w->fd);
}

int a_polled_number_changes_its_owner(scenario *s) {
    for (uint32_t round = 0; round < 20; round++) {
        watching w = {0};
        s->context = &w;
        s->on.op = watch_swap;
        TRY(counter_open(s, &w.fd));
        TRY(counter_open(s, &w.stored));
        TRY(watch_start(s, w.fd));
        if (round & 1)
            TRY(scenario_settle(s));
        TRY(counter_bump(s, w.fd));
        RUN_UNTIL(w.told == 1);
        TRY(scenario_settle(s));
        CHECK_EQ(w.told, 1); /* the old one's event did not reach the new one */
        TRY(counter_bump(s, w.fd));
        RUN_UNTIL(w.told == 2);
        CHECK(w.result > 0 && (w.result & POLLIN));
        CHECK_CALL(close(w.fd));
    }
    return 0;
}

static int note(scenario *s, lc_kind kind, uint64_t word) {
    (void)s, (void)kind;
    *(bool *)(uintptr_t)word = true;
    return 0;
}

/* Passes that may sleep, for a while: how many there were tells a sleep from a spin. */
static int sleep_through(scenario *s, uint32_t milliseconds, uint32_t passes_max) {
    bool over = false;
    lc_call_id id;
    s->on.call = note;
    uint32_t before = s->passes;
    CHECK_EQ(
        lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + milliseconds * 1000000ull, (uint64_t)(uintptr_t)&over, &id), 0);
    RUN_UNTIL(over);
    CHECK_LE(s->passes - before, passes_max);
    return 0;
}

/* epoll keeps what was registered until the last duplicate is gone, so events for a number that is closed go on. */
int a_duplicate_outlives_the_original(scenario *s) {
    enum { SLEEP_MS = 30, PASSES = 12 };
    for (uint32_t round = 0; round < 2; round++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, round));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        TRY(scenario_settle(s));
        int copy = fcntl(lc_stream_fd(e.stream), F_DUPFD_CLOEXEC, 0);
        CHECK_CALL(copy);
        CHECK_EQ(lc_stream_close(e.stream, true, false), 1);
        PUMP_UNTIL(0, lc_stream_is_closed(e.stream));
        lc_stream_release(e.stream);
        uint8_t bytes[100];
        pattern_fill(bytes, sizeof bytes, 0, 0);
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        TRY(sleep_through(s, SLEEP_MS, PASSES + (s->tiny ? 8 : 0)));
        CHECK_EQ(e.received, 0);
        /* The duplicate is a connection like any other. */
        int fds[2] = {copy, e.peer};
        e.echo = true;
        TRY(endpoint_adopt(s, &e, fds));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        bool end = false;
        PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
        TRY(endpoint_close(s, &e));
        RUN_UNTIL(scenario_stats(s).streams == 0);
    }
    watching w = {.stored = -1};
    s->context = &w;
    s->on.op = watch_swap;
    TRY(counter_open(s, &w.fd));
    TRY(watch_start(s, w.fd));
    TRY(counter_bump(s, w.fd));
    RUN_UNTIL(w.told == 1);
    int copy = fcntl(w.fd, F_DUPFD_CLOEXEC, 0);
    CHECK_CALL(copy);
    CHECK_CALL(close(w.fd));
    TRY(counter_bump(s, copy));
    TRY(sleep_through(s, SLEEP_MS, PASSES));
    CHECK_EQ(w.told, 1);
    TRY(watch_start(s, copy));
    RUN_UNTIL(w.told == 2);
    CHECK_CALL(close(copy));
    return 0;
}

/* ---- children ---- */

/* Of the child: what it has open, apart from the standard streams. */
static int count_open(scenario *s, pid_t pid, int *count) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    *count = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        *count += entry->d_name[0] != '.' && atoi(entry->d_name) > 2;
    closedir(directory);
    return 0;
}

/* A program that starts opens its libraries for a moment; what it was handed stays. */
static int check_nothing_open(scenario *s, pid_t pid) {
    int count;
    for (;;) {
        TRY(count_open(s, pid, &count));
        if (count == 0)
            return 0;
        if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "the child was handed %d descriptors", count);
        poll(NULL, 0, 1);
    }
}

/* Another program, which lives until its standard input ends. */
static int exec_cat(scenario *s, void *context, int report, int hold) {
    (void)s, (void)context, (void)report;
    if (dup2(hold, STDIN_FILENO) < 0)
        return -1;
    execl("/bin/cat", "cat", (char *)NULL);
    return -1;
}

static int close_copy(scenario *s, void *context, int report, int hold) {
    (void)context, (void)report, (void)hold;
    return lc_loop_close(s->loop) == 0 && lc_loop_is_closed(s->loop) ? 0 : -1;
}

static int keep_everything(scenario *s, void *context, int report, int hold) {
    (void)s, (void)context, (void)report, (void)hold;
    return 0;
}

static int use_the_copy(scenario *s, void *context) {
    lc_stream *stream;
    lc_call_id id;
    lc_post post = {0};
    int fd = *(int *)context, wrong = 0;
    wrong |= (lc_loop_enter(s->loop) == -EOWNERDEAD ? 0 : 1) << 0;
    wrong |= (lc_loop_post(s->loop, &post) == -EBADF ? 0 : 1) << 1;
    wrong |= (lc_loop_close(s->loop) == 0 ? 0 : 1) << 2;
    wrong |= (lc_loop_enter(s->loop) == -EOWNERDEAD ? 0 : 1) << 3;
    wrong |= (lc_stream_adopt(s->loop, fd, &stream) == -EBADF ? 0 : 1) << 4;
    wrong |= (lc_call_soon(s->loop, LC_KIND_CALL, 0, &id) == -EBADF ? 0 : 1) << 5;
    wrong |= (lc_loop_is_alive(s->loop) ? 1 : 0) << 6;
    return wrong;
}

static int echo(scenario *s, endpoint *e) {
    uint8_t bytes[2000];
    bool end = false;
    uint64_t until = e->peer_received + sizeof bytes;
    pattern_fill(bytes, sizeof bytes, 0, e->received);
    TRY(peer_send(s, e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, e, 0, sizeof bytes, &end), e->peer_received == until);
    CHECK(!end);
    return 0;
}

/* What a child does with its copy of the loop is nothing to the parent's, whose operations stay under way. */
int children_leave_the_parents_loop_alone(scenario *s) {
    endpoint e[2] = {{.echo = true}, {.echo = true}};
    for (int index = 0; index < 2; index++) {
        TRY(endpoint_open(s, &e[index], index));
        CHECK_EQ(lc_stream_start_receiving(e[index].stream), 0);
        TRY(echo(s, &e[index]));
    }
    static const child_first firsts[] = {keep_everything, exec_cat, close_copy};
    for (size_t way = 0; way < sizeof firsts / sizeof *firsts; way++) {
        child c;
        TRY(child_start(s, &c, firsts[way], NULL));
        for (int index = 0; index < 2; index++)
            TRY(echo(s, &e[index])); /* while it lives */
        if (firsts[way] == exec_cat && s->isolated)
            TRY(check_nothing_open(s, c.pid));
        TRY(child_end(s, &c));
        for (int index = 0; index < 2; index++)
            TRY(echo(s, &e[index]));
    }
    TRY(child_returns_zero(s, use_the_copy, &e[0].peer));
    for (int index = 0; index < 2; index++) {
        TRY(echo(s, &e[index]));
        TRY(endpoint_close(s, &e[index]));
    }
    return 0;
}

typedef struct family {
    uint32_t count;
    endpoint *all;
} family;

static int family_open(scenario *s, family *f) {
    for (uint32_t index = 0; index < f->count; index++) {
        f->all[index] = (endpoint){0};
        TRY(endpoint_open(s, &f->all[index], index % 4 == 0));
        CHECK_EQ(lc_stream_start_receiving(f->all[index].stream), 0);
    }
    PUMP_UNTIL(0, scenario_stats(s).queued == 0);
    return 0;
}

static int family_close(scenario *s, family *f, bool at_once) {
    for (uint32_t index = 0; index < f->count; index++)
        lc_stream_release(f->all[index].stream);
    PUMP_UNTIL(0, scenario_stats(s).streams == 0);
    for (uint32_t index = 0; index < f->count && at_once; index++) {
        struct pollfd end = {.fd = f->all[index].peer, .events = POLLIN};
        char byte;
        CHECK_EQ(poll(&end, 1, 100), 1);
        CHECK_EQ(recv(end.fd, &byte, 1, MSG_DONTWAIT), 0);
        CHECK_CALL(close(end.fd));
    }
    return 0;
}

/* A child that called exec, or closed its copy of the loop, keeps no connection of the parent's open. */
static int family_parts(scenario *s) {
    uint32_t allowed;
    family f = {.count = rounds_of(200, 1000)};
    TRY(raise_descriptors(s, 2 * f.count + 64, &allowed));
    CHECK_GE(allowed, 2 * f.count + 64);
    f.all = calloc(f.count, sizeof *f.all);
    CHECK(f.all != NULL);
    s->verify_never = true;
    child c;
    for (int way = 0; way < 2; way++) {
        TRY(family_open(s, &f));
        TRY(child_start(s, &c, way ? close_copy : exec_cat, NULL));
        TRY(family_close(s, &f, true));
        CHECK_EQ(waitpid(c.pid, NULL, WNOHANG), 0); /* it lives */
        TRY(child_end(s, &c));
    }
    /* One that did neither holds them all: the last descriptor ends a connection, and that is the child's. */
    TRY(family_open(s, &f));
    TRY(child_start(s, &c, keep_everything, NULL));
    TRY(family_close(s, &f, false));
    for (uint32_t index = 0; index < f.count; index++) {
        char byte;
        CHECK_EQ(recv(f.all[index].peer, &byte, 1, MSG_DONTWAIT), -1);
        CHECK_EQ(errno, EAGAIN);
    }
    TRY(child_end(s, &c));
    for (uint32_t index = 0; index < f.count; index++) {
        char byte;
        CHECK_EQ(recv(f.all[index].peer, &byte, 1, 0), 0);
        CHECK_CALL(close(f.all[index].peer));
    }
    free(f.all);
    return 0;
}

int peers_of_a_forked_server_see_the_end(scenario *s) { return scenario_in_child(s, family_parts); }
