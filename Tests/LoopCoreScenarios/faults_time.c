// SPDX-License-Identifier: Apache-2.0
/* faults_time.c: what time may do to a loop: clocks that jump, a process that is stopped, deadlines out of all reason,
 * handlers that take longer than their timer's period, and nothing happening at all. */
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include "clock_watch.h"
#include "scenario.h"
#include "simulator.h"

enum { MS = 1000000 };

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int call_in(scenario *s, uint64_t delay_ns, uint64_t word) {
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + delay_ns, word, &id), 0);
    return 0;
}

static int count_call(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    uint32_t *counts = s->context;
    counts[word]++;
    return 0;
}

/* ---- F29 ---- */

/* The kernel's own word for what the timer descriptors of this thread go by. */
static int check_timerfds(scenario *s, uint32_t *found) {
    *found = 0;
    DIR *directory = opendir("/proc/thread-self/fd");
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory));) {
        char path[300], target[64] = "", line[128];
        snprintf(path, sizeof path, "/proc/thread-self/fd/%s", entry->d_name);
        if (readlink(path, target, sizeof target - 1) < 0 || strcmp(target, "anon_inode:[timerfd]") != 0)
            continue;
        snprintf(path, sizeof path, "/proc/thread-self/fdinfo/%s", entry->d_name);
        FILE *info = fopen(path, "re");
        CHECK(info != NULL);
        int clock = -1;
        while (fgets(line, sizeof line, info))
            sscanf(line, "clockid: %d", &clock);
        fclose(info);
        CHECK_EQ(clock, CLOCK_MONOTONIC);
        ++*found;
    }
    closedir(directory);
    return 0;
}

static int jump_both_ways(scenario *s) {
    enum { NEAR, FAR, DAY_S = 24 * 60 * 60 };
    uint32_t counts[2] = {0};
    s->context = counts;
    s->on.call = count_call;
    lc_call_id far;
    uint64_t far_ns = lc_now_ns() + (uint64_t)3600 * 1000 * MS, word;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, far_ns, FAR, &far), 0);
    static const int64_t jumps_s[] = {0, DAY_S, -DAY_S, DAY_S};
    for (uint32_t round = 0; round < 4; round++) {
        /* It is set before the jump and due after it. */
        TRY(call_in(s, 20 * MS, NEAR));
        TRY(scenario_pass(s, false));
        struct timespec before, after;
        clock_gettime(CLOCK_REALTIME, &before);
        clock_watch_jump(jumps_s[round]);
        clock_gettime(CLOCK_REALTIME, &after);
        int64_t expected_s = jumps_s[round] - (round ? jumps_s[round - 1] : 0);
        CHECK_GE(after.tv_sec - before.tv_sec, expected_s);
        CHECK_LE(after.tv_sec - before.tv_sec, expected_s + 60);
        uint64_t ticks = scenario_stats(s).ticks, start_ns = lc_now_ns();
        RUN_UNTIL(counts[NEAR] == round + 1);
        CHECK_LT(lc_now_ns() - start_ns, (uint64_t)30 * 1000 * MS);
        CHECK_LE(scenario_stats(s).ticks - ticks, 20);
        CHECK_EQ(counts[FAR], 0);
    }
    uint32_t timerfds;
    TRY(check_timerfds(s, &timerfds));
    if (s->isolated && !sim_is_process_wide())
        CHECK_EQ(timerfds, scenario_is_proactor(s) ? 0 : 1);
    CHECK_EQ(lc_call_cancel(s->loop, far, &word), 1);
    return 0;
}

/* Everything of this process that asks for the wall clock on this thread sees it jump, libev among them, which keeps
 * one for timers of its own. The core itself asks for the monotonic clock and for nothing else. */
int the_wall_clock_jumps_by_a_day(scenario *s) {
    clock_watch_begin();
    int result = scenario_reopen(s);
    if (result == 0)
        result = jump_both_ways(s);
    clock_reads reads = clock_watch_counted();
    clock_watch_end();
    TRY(result);
    CHECK_GT(reads.monotonic, 8);
    CHECK_EQ(reads.others, 0);
    if (scenario_is_proactor(s))
        CHECK_EQ(reads.realtime, 8); /* those of this scenario */
    return 0;
}

/* ---- F30 ---- */

enum { ONE_SHOTS = 200, REPEATER = ONE_SHOTS, REPEAT_MS = 10 };

typedef struct stopping {
    uint64_t due_ns[ONE_SHOTS + 1]; /* the repeater's last */
    uint64_t last_due_ns, last_number, last_pass_ns, longest_gap_ns;
    uint32_t fired, repeats_in_this_pass, pass;
    uint32_t gap_pass, after_the_gap; /* the pass that followed the longest gap, and its one-shots */
    uint64_t repeats, repeating_since_ns;
    bool over;
} stopping;

static int repeat(scenario *s, stopping *state) {
    state->due_ns[REPEATER] = lc_now_ns() + REPEAT_MS * MS;
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, state->due_ns[REPEATER], REPEATER, &id), 0);
    return 0;
}

static int fired_around_a_stop(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    stopping *state = s->context;
    uint64_t now_ns = lc_now_ns();
    CHECK_NE(state->due_ns[word], 0); /* once */
    CHECK_GE(now_ns, state->due_ns[word]);
    if (s->passes != state->pass) { /* the first of a pass */
        if (now_ns - state->last_pass_ns > state->longest_gap_ns) {
            state->longest_gap_ns = now_ns - state->last_pass_ns;
            state->gap_pass = s->passes;
            state->after_the_gap = 0;
        }
        state->last_pass_ns = now_ns;
        state->pass = s->passes;
        state->repeats_in_this_pass = 0;
    }
    if (word == REPEATER) {
        state->repeats++;
        CHECK_EQ(++state->repeats_in_this_pass, 1);
        return state->over ? 0 : repeat(s, state);
    }
    CHECK(state->due_ns[word] > state->last_due_ns ||
          (state->due_ns[word] == state->last_due_ns && word > state->last_number));
    state->last_due_ns = state->due_ns[word];
    state->last_number = word;
    state->due_ns[word] = 0;
    state->fired++;
    state->after_the_gap += s->passes == state->gap_pass;
    return 0;
}

/* Of a process, as /proc has it: R, S, T and others; 0 if it is gone. */
static char process_state(pid_t pid) {
    char path[64], line[512], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    if (fgets(line, sizeof line, file)) {
        const char *name_end = strrchr(line, ')');
        state = name_end && name_end[1] ? name_end[2] : 0;
    }
    fclose(file);
    return state;
}

/* In a process of its own. It stops its parent while that sleeps in its loop, for so long, and lets it go on. */
static void stop_parent(pid_t parent, int go, unsigned stop_ms) {
    char byte;
    if (read(go, &byte, 1) != 1)
        _exit(1);
    char state;
    while ((state = process_state(parent)) != 'S')
        if (!state || getppid() != parent)
            _exit(2);
    kill(parent, SIGSTOP);
    while ((state = process_state(parent)) != 'T')
        if (!state || getppid() != parent)
            _exit(3);
    poll(NULL, 0, (int)stop_ms);
    kill(parent, SIGCONT);
    _exit(0);
}

static int one_stop(scenario *s, stopping *state, unsigned stop_ms) {
    *state = (stopping){.last_pass_ns = lc_now_ns()};
    int go[2];
    CHECK_CALL(syscall(SYS_pipe2, go, 0)); /* of the real kernel, even on a simulated one */
    pid_t self = getpid(), stopper = fork();
    CHECK_CALL(stopper);
    if (stopper == 0) {
        close(go[1]); /* so that an end without a word ends the stopper, too */
        stop_parent(self, go[0], stop_ms);
    }
    close(go[0]);
    uint64_t random = 88172645463325252u + (uint64_t)stopper, base_ns = lc_now_ns() + 5 * MS;
    for (uint64_t number = 0; number < ONE_SHOTS; number++) {
        lc_call_id id;
        /* Over more time than the stop takes, and some of them equal. */
        state->due_ns[number] = base_ns + next_random(&random) % (2 * stop_ms) * MS;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, state->due_ns[number], number, &id), 0);
    }
    state->repeating_since_ns = lc_now_ns();
    TRY(repeat(s, state));
    CHECK_EQ(write(go[1], "x", 1), 1);
    close(go[1]);
    int status = 0;
    pid_t ended = 0;
    RUN_UNTIL(state->fired == ONE_SHOTS && (ended || (ended = waitpid(stopper, &status, WNOHANG))));
    CHECK_EQ(ended, stopper);
    CHECK_EQ(status, 0);
    state->over = true;
    RUN_UNTIL(!scenario_stats(s).timers);
    CHECK_EQ(state->fired, ONE_SHOTS);
    CHECK_GE(state->longest_gap_ns, (uint64_t)stop_ms * MS);
    /* No storm: not one more than fits, those of the stop left out. */
    uint64_t elapsed_ns = lc_now_ns() - state->repeating_since_ns;
    CHECK_LE(state->repeats, (elapsed_ns - (uint64_t)stop_ms * MS) / (REPEAT_MS * MS) + 2);
    CHECK_GE(state->repeats, 1);
    return 0;
}

static int stopped_and_continued(scenario *s) {
    stopping state;
    s->context = &state;
    s->on.call = fired_around_a_stop;
    unsigned stop_ms = scenario_long() ? 5000 : 300;
    /* On a busy machine the stop may come when most timers have fired already. */
    for (int round = 0; round < 10; round++) {
        TRY(one_stop(s, &state, stop_ms));
        if (state.after_the_gap >= ONE_SHOTS / 8)
            return 0;
    }
    return scenario_fail(s, __FILE__, __LINE__, "no stop fell among the timers: %u were due after it",
                         state.after_the_gap);
}

int a_stopped_process_goes_on(scenario *s) { return scenario_in_child(s, stopped_and_continued); }

/* ---- F32 ---- */

typedef struct foreign {
    bool done;
} foreign;

static int foreign_happened(scenario *s, lc_op *op) {
    CHECK_GT(op->result, 0);
    ((foreign *)(uintptr_t)op->word)->done = true;
    lc_op_release(s->loop, op);
    return 0;
}

/* Sleeps with whatever deadlines there are, until a timer that is not the loop's wakes it. */
static int sleep_until_something_else(scenario *s, uint64_t delay_ns) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK_CALL(fd);
    struct itimerspec value = {.it_value = {.tv_nsec = (long)delay_ns}};
    CHECK_CALL(timerfd_settime(fd, 0, &value, NULL));
    foreign event = {0};
    s->on.op = foreign_happened;
    lc_op *op = lc_op_make(s->loop);
    CHECK(op != NULL);
    CHECK_EQ(lc_op_poll(s->loop, op, fd, false, (uint64_t)(uintptr_t)&event), 0);
    RUN_UNTIL(event.done);
    CHECK_CALL(close(fd));
    return 0;
}

int far_deadlines_one_by_one(scenario *s) {
    static const uint64_t deadlines_ns[] = {
        UINT64_MAX,     UINT64_MAX - 1,  (uint64_t)INT64_MAX + 1,          INT64_MAX,
        INT64_MAX - 1u, UINT64_MAX / 10, (uint64_t)UINT32_MAX * 1000 * MS, (uint64_t)INT32_MAX * 1000 * MS,
    };
    uint32_t counts[2] = {0};
    s->context = counts;
    s->on.call = count_call;
    for (size_t index = 0; index < sizeof deadlines_ns / sizeof *deadlines_ns; index++) {
        lc_call_id far;
        uint64_t word, ticks = scenario_stats(s).ticks;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_SLEEP, deadlines_ns[index], 1, &far), 0);
        /* It sleeps with this deadline in force and no other; something else ends that sleep. */
        TRY(sleep_until_something_else(s, 3 * MS));
        CHECK_LE(scenario_stats(s).ticks - ticks, 20);
        CHECK_EQ(counts[1], 0);
        /* A timer beside it is neither held up nor hurried. */
        TRY(call_in(s, MS, 0));
        RUN_UNTIL(counts[0] == index + 1);
        CHECK_EQ(counts[1], 0);
        CHECK_LE(scenario_stats(s).ticks - ticks, 40);
        CHECK(lc_call_is_pending(s->loop, far));
        CHECK_EQ(lc_call_cancel(s->loop, far, &word), 1);
        CHECK_EQ(word, 1);
    }
    return 0;
}

/* ---- F33 ---- */

typedef struct slow_handler {
    endpoint e;
    uint64_t due_ns;
    uint32_t fired, last_pass, others, lag_max;
    uint64_t sent;
    bool over;
} slow_handler;

static int takes_ten_times_its_period(scenario *s, lc_kind kind, uint64_t word) {
    slow_handler *state = s->context;
    if (word == 1) {
        state->others++;
        return 0;
    }
    CHECK_GE(lc_now_ns(), state->due_ns);
    CHECK_NE(s->passes, state->last_pass); /* once per pass, however far behind it is */
    state->last_pass = s->passes;
    state->fired++;
    uint32_t lag = (uint32_t)(state->sent - state->e.received);
    state->lag_max = lag > state->lag_max ? lag : state->lag_max;
    CHECK_EQ(scenario_stats(s).timers, 0); /* no backlog: what was set has run, or runs in this pass */
    lc_call_id id;
    if (!state->over) {
        /* By the beat, without regard to the time that was lost: it is behind, and more so each time. */
        state->due_ns += 1 * MS;
        CHECK_EQ(lc_call_at(s->loop, kind, state->due_ns, 0, &id), 0);
        TRY(call_in(s, 0, 1));
    }
    uint8_t byte = pattern_byte(0, state->sent++);
    TRY(peer_send(s, &state->e, &byte, 1));
    for (uint64_t until_ns = lc_now_ns() + 10 * MS; lc_now_ns() < until_ns;)
        ;
    return 0;
}

int a_handler_slower_than_its_timer(scenario *s) {
    enum { ROUNDS = 40 };
    slow_handler state = {.due_ns = lc_now_ns() + 1 * MS};
    s->context = &state;
    s->on.call = takes_ten_times_its_period;
    TRY(endpoint_open(s, &state.e, true));
    CHECK_EQ(lc_stream_start_receiving(state.e.stream), 0);
    TRY(scenario_settle(s));
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, state.due_ns, 0, &id), 0);
    RUN_UNTIL(state.fired == ROUNDS);
    state.over = true;
    /* Each pass saw what the one before it was sent; a lone buffer takes a pass more to come back. */
    CHECK_LE(state.lag_max, s->tiny ? 3 : 1);
    RUN_UNTIL(state.fired == ROUNDS + 1 && state.e.received == state.sent);
    CHECK_EQ(state.others, ROUNDS);
    return endpoint_close(s, &state.e);
}

/* ---- F34 ---- */

typedef struct punctuality {
    uint64_t due_ns;
    uint64_t late_ns[1000];
    uint32_t fired;
} punctuality;

static int note_lateness(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    punctuality *p = s->context;
    uint64_t now_ns = lc_now_ns();
    CHECK_GE(now_ns, p->due_ns);
    p->late_ns[p->fired++] = now_ns - p->due_ns;
    return 0;
}

static int by_size(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

int half_a_millisecond_a_thousand_times(scenario *s) {
    enum { ROUNDS = 1000 };
    punctuality p = {0};
    s->context = &p;
    s->on.call = note_lateness;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        p.due_ns = lc_now_ns() + MS / 2;
        lc_call_id id;
        CHECK_EQ(lc_call_at(s->loop, LC_KIND_SLEEP, p.due_ns, 0, &id), 0);
        RUN_UNTIL(p.fired == round + 1);
    }
    qsort(p.late_ns, ROUNDS, sizeof *p.late_ns, by_size);
    /* How late depends on who else wants the processor, so only half of them are held to a bound. */
    fprintf(stderr, "F34 [%s, %s]: 500 us timers are late by %llu us at the median, %llu us at p99, %llu us at most\n",
            scenario_is_proactor(s) ? "proactor" : "selector", s->tiny ? "tiny" : "ordinary",
            (unsigned long long)(p.late_ns[ROUNDS / 2] / 1000),
            (unsigned long long)(p.late_ns[ROUNDS * 99 / 100] / 1000),
            (unsigned long long)(p.late_ns[ROUNDS - 1] / 1000));
    CHECK_LT(p.late_ns[ROUNDS / 2], 10 * MS);
    CHECK_LT(s->passes, 10 * ROUNDS); /* it slept, and did not ask again and again */
    return 0;
}

/* ---- F84 ---- */

static uint64_t thread_cpu_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000 * MS + (uint64_t)used.tv_nsec;
}

/* Nobody connects: it is told of its own end and of nothing else. */
static int never_accepts(scenario *s, lc_listener *listener) {
    lc_stream *stream;
    CHECK_EQ(lc_listener_take(listener, &stream), -ESHUTDOWN);
    lc_listener_finish_delivery(listener);
    return 0;
}

int an_idle_loop_sleeps(scenario *s) {
    enum { CONNECTIONS = 8, END = 0, FAR = 1 };
    uint64_t stretch_ms = scenario_long() ? 60000 : 2000;
    uint32_t counts[2] = {0};
    s->context = counts;
    s->on.call = count_call;
    s->on.accept = never_accepts;
    endpoint idle[CONNECTIONS];
    for (int index = 0; index < CONNECTIONS; index++) {
        idle[index] = (endpoint){0};
        TRY(endpoint_open(s, &idle[index], index % 2));
        if (index < CONNECTIONS / 2)
            CHECK_EQ(lc_stream_start_receiving(idle[index].stream), 0);
        else
            CHECK_EQ(lc_stream_wait_receive(idle[index].stream, 1), 0);
    }
    int listening;
    lc_address address;
    lc_listener *listener;
    TRY(listen_anywhere(s, 8, &listening, &address));
    CHECK_EQ(lc_listener_adopt(s->loop, listening, &listener), 0);
    CHECK_EQ(lc_listener_start(listener), 0);
    lc_call_id far;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + (uint64_t)3600 * 1000 * MS, FAR, &far), 0);
    TRY(scenario_settle(s)); /* everything is asked for */
    TRY(call_in(s, stretch_ms * MS, END));
    uint64_t ticks = scenario_stats(s).ticks, enters = scenario_stats(s).enters, cpu_ns = thread_cpu_ns();
    RUN_UNTIL(counts[END] == 1);
    cpu_ns = thread_cpu_ns() - cpu_ns;
    CHECK_LE(scenario_stats(s).ticks - ticks, stretch_ms / 1000 + 1);
    CHECK_LE(scenario_stats(s).enters - enters, stretch_ms / 1000 + 1);
    CHECK_LT(cpu_ns, stretch_ms * MS / 100);
    CHECK_EQ(counts[FAR], 0);
    uint64_t word;
    CHECK_EQ(lc_call_cancel(s->loop, far, &word), 1);
    lc_listener_close(listener);
    for (int index = 0; index < CONNECTIONS; index++) {
        CHECK_EQ(idle[index].deliveries, 0);
        TRY(endpoint_close(s, &idle[index]));
    }
    while (!lc_listener_is_closed(listener))
        TRY(scenario_pass(s, false));
    lc_listener_release(listener);
    return 0;
}
