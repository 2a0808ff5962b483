// SPDX-License-Identifier: Apache-2.0
/* faults_limits.c: lockable memory that is short, and loops that come and go. */
#include <grp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "faults_support.h"

#if defined(__SANITIZE_ADDRESS__)
#define LIMITS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LIMITS_ASAN 1
#endif
#endif
#ifndef LIMITS_ASAN
#define LIMITS_ASAN 0
#endif

/* The kernel gives memory back in its own time. */
enum { LATE_MS = 10000 };

/* Locked memory is counted per user, and only against those without privileges; so this process becomes a user nobody
 * else is. Where it has no privileges to begin with, the limit counts anyhow. */
static int become_nobody(scenario *s) {
    if (geteuid() == 0) {
        CHECK_CALL(setgroups(0, NULL));
        CHECK_CALL(setgid(65534));
        if (setuid((uid_t)(1u << 20) + (uid_t)getpid()) < 0) /* not mapped, in some containers */
            CHECK_CALL(setuid(65534));
    }
    CHECK_CALL(prctl(PR_SET_DUMPABLE, 1)); /* or /proc/self would be closed to its new owner */
    return 0;
}

static int limit_memory(scenario *s, uint64_t bytes) {
    struct rlimit limit;
    CHECK_CALL(getrlimit(RLIMIT_MEMLOCK, &limit));
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    CHECK_CALL(setrlimit(RLIMIT_MEMLOCK, &limit));
    return 0;
}

/* A short life: one message there and back. */
static int use_loop(scenario *s, lc_loop *loop) {
    s->loop = loop;
    CHECK_EQ(lc_loop_enter(loop), 0);
    endpoint e = {.echo = true};
    uint8_t bytes[32];
    bool end = false;
    TRY(endpoint_open(s, &e, false));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    TRY(endpoint_close(s, &e));
    return scenario_finish(s);
}

/* Within the time that the kernel may take to free what was closed before. A ring that it refuses waits in the same
 * queue to be freed, so one has to ask less and less often: else the asking alone may keep the queue from ever
 * becoming shorter. */
static int create_loop_late(scenario *s, lc_loop **loop) {
    uint64_t until_ns = lc_now_ns() + LATE_MS * 1000000ull;
    int result;
    for (int pause_ms = 1; (result = lc_loop_create(&s->options, loop)) == -ENOMEM && lc_now_ns() < until_ns;
         pause_ms *= 2)
        poll(NULL, 0, pause_ms);
    CHECK_EQ(result, 0);
    return 0;
}

/* ---- too little ---- */

static int little_memory(scenario *s) {
    static const uint32_t pages[] = {32, 8, 4, 2, 1, 0};
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    TRY(scenario_finish(s));
    TRY(become_nobody(s));
    uint32_t refused = 0;
    for (size_t step = 0; step < sizeof pages / sizeof *pages; step++) {
        lc_loop *loop = NULL;
        TRY(limit_memory(s, pages[step] * page));
        if (pages[step] >= 8 || !scenario_is_proactor(s)) {
            TRY(create_loop_late(s, &loop)); /* smaller than it was asked for, if that is what there is room for */
        } else {
            int result = lc_loop_create(&s->options, &loop);
            if (result < 0) {
                char cause[LC_PROBE_TEXT], advice[LC_PROBE_TEXT];
                CHECK_EQ(result, -ENOMEM);
                CHECK(loop == NULL);
                lc_probe_explain(result, cause, advice);
                CHECK(strstr(advice, "RLIMIT_MEMLOCK") != NULL);
                refused++;
                continue;
            }
        }
        TRY(use_loop(s, loop));
    }
    lc_probe probe;
    lc_probe_run(&probe);
    CHECK_EQ(probe.memlock_limit, 0);
    if (refused > 0 && scenario_is_proactor(s)) {
        CHECK_EQ(probe.proactor_error, -ENOMEM);
        CHECK(strstr(probe.proactor_advice, "RLIMIT_MEMLOCK") != NULL);
    }
    return 0;
}

int locked_memory_is_exhausted(scenario *s) { return scenario_in_child(s, little_memory); }

/* ---- come and go ---- */

static int resident_pages(scenario *s, long *pages) {
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file != NULL);
    CHECK_EQ(fscanf(file, "%*s %ld", pages), 1);
    fclose(file);
    return 0;
}

static int come_and_go(scenario *s) {
    enum { WARM_UP = 50, PAGES = 2048, GROWN_MAX = 4 << 20 };
    TRY(scenario_finish(s));
    TRY(become_nobody(s));
    TRY(limit_memory(s, PAGES * (uint64_t)sysconf(_SC_PAGESIZE)));
    long before = 0, after;
    int open_before = 0;
    uint32_t rounds = rounds_of(2000, 10000);
    for (uint32_t round = 0; round < WARM_UP + rounds; round++) {
        if (round == WARM_UP) {
            TRY(resident_pages(s, &before));
            open_before = scenario_fd_count();
        }
        lc_loop *loop;
        TRY(create_loop_late(s, &loop));
        TRY(use_loop(s, loop));
    }
    CHECK_EQ(scenario_fd_count(), open_before);
    TRY(resident_pages(s, &after));
    if (!LIMITS_ASAN) /* which keeps what was freed, to catch who still uses it */
        CHECK_LE((after - before) * sysconf(_SC_PAGESIZE), GROWN_MAX);
    /* All that was locked comes back: there is room for a ring of full size, in little more than that takes. */
    lc_loop *loop;
    TRY(limit_memory(s, 32 * (uint64_t)sysconf(_SC_PAGESIZE)));
    TRY(create_loop_late(s, &loop));
    return use_loop(s, loop);
}

int loops_come_and_go(scenario *s) { return scenario_in_child(s, come_and_go); }
