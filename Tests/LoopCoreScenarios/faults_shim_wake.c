// SPDX-License-Identifier: Apache-2.0
/* faults_shim_wake.c: wakes in the moment before sleep, counters that are full or will not be read, and closes that
 * fail after they have closed. */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include "scenario.h"
#include "shim.h"

/* ---- F36 ---- */

typedef struct posting {
    lc_post post;
    atomic_uint asked, ran;
    uint32_t rounds;
    const shim_fault *faults; /* of the posting thread */
    size_t fault_count;
    uint32_t writes; /* by the posting thread */
} posting;

static int post_ran(scenario *s, lc_post *post) {
    posting *p = s->context;
    CHECK(post == &p->post);
    atomic_fetch_add(&p->ran, 1);
    return 0;
}

/* The time between asking and posting wanders over the loop's delay and somewhat beyond. */
static int post_when_asked(scenario *s, void *context) {
    posting *p = context;
    shim_arm(p->faults, p->fault_count);
    for (uint32_t round = 1; round <= p->rounds; round++) {
        while (atomic_load(&p->asked) < round && !scenario_late(s))
            sched_yield();
        uint64_t until_ns = lc_now_ns() + round * 7919u % 400000u;
        while (lc_now_ns() < until_ns)
            sched_yield();
        CHECK_EQ(lc_loop_post(s->loop, &p->post), 0);
        while (atomic_load(&p->ran) < round && !scenario_late(s))
            sched_yield();
    }
    shim_disarm();
    p->writes = shim_calls(SHIM_WRITE);
    return 0;
}

/* Nothing else can wake the loop: a wake that is lost ends in the watchdog. */
int a_wake_just_before_sleep(scenario *s) {
    posting p = {.rounds = 400};
    helper other;
    s->context = &p;
    s->on.post = post_ran;
    shim_fault faults[] = {{.call = SHIM_EPOLL_WAIT, .count = SHIM_FOR_EVER, .delay_us = 300},
                           {.call = SHIM_RING_ENTER, .count = SHIM_FOR_EVER, .delay_us = 300}};
    TRY(scenario_pass(s, false));
    TRY(helper_start(s, &other, post_when_asked, &p));
    uint64_t wakes = scenario_stats(s).wakes;
    shim_arm(faults, 2);
    for (uint32_t round = 1; round <= p.rounds; round++) {
        atomic_store(&p.asked, round);
        RUN_UNTIL(atomic_load(&p.ran) == round);
    }
    shim_disarm();
    uint32_t delayed = shim_faults_played();
    TRY(helper_join(s, &other));     /* before any check: the helper uses this frame */
    CHECK_GE(delayed, p.rounds / 2); /* where the loop's thread is kept waiting, the post is there before it looks */
    TRY(scenario_settle(s));
    CHECK_GT(scenario_stats(s).wakes, wakes); /* some met a loop that was falling asleep */
    return 0;
}

/* The poll that waits for the wake may end for reasons of the kernel's own. */
int the_poll_for_the_wake_fails(scenario *s) {
    if (!scenario_is_proactor(s) || !shim_ring_faults_possible())
        return 0;
    posting p = {.rounds = 20};
    helper other;
    s->context = &p;
    s->on.post = post_ran;
    shim_fault fault = {.call = SHIM_WAKE, .count = 3, .error = ENOMEM};
    TRY(scenario_reopen(s));
    shim_arm(&fault, 1);
    TRY(helper_start(s, &other, post_when_asked, &p));
    for (uint32_t round = 1; round <= p.rounds; round++) {
        atomic_store(&p.asked, round);
        RUN_UNTIL(atomic_load(&p.ran) == round);
    }
    shim_disarm();
    uint32_t failed = shim_faults_played();
    uint32_t asked = shim_calls(SHIM_WAKE);
    TRY(helper_join(s, &other));
    CHECK_EQ(failed, 3);
    CHECK_EQ(asked, 4); /* asked again each time it ended, and no oftener */
    return 0;
}

/* ---- F75 ---- */

static int wakes_in_order(scenario *s, posting *p) {
    helper other;
    TRY(helper_start(s, &other, post_when_asked, p));
    for (uint32_t round = 1; round <= p->rounds; round++) {
        atomic_store(&p->asked, round);
        RUN_UNTIL(atomic_load(&p->ran) == round);
    }
    return helper_join(s, &other);
}

int a_full_counter_still_wakes(scenario *s) {
    if (!s->isolated)
        return 0; /* there the loop's eventfd cannot be told from others */
    posting p = {.rounds = 1};
    int fd;
    uint64_t most = UINT64_MAX - 1, count;
    s->context = &p;
    s->on.post = post_ran;
    fd = scenario_eventfd(s);
    CHECK_GE(fd, 0);
    TRY(scenario_pass(s, false));
    CHECK_EQ(write(fd, &most, sizeof most), (ssize_t)sizeof most);
    CHECK_EQ(write(fd, &(uint64_t){1}, sizeof most), -1); /* as whoever wakes the loop meets it */
    CHECK_EQ(errno, EAGAIN);
    /* The loop has announced its sleep and is kept from it, so the post comes upon a full counter. */
    shim_fault faults[] = {{.call = SHIM_EPOLL_WAIT, .delay_us = 50000}, {.call = SHIM_RING_ENTER, .delay_us = 50000}};
    shim_arm(faults, 2);
    TRY(wakes_in_order(s, &p));
    shim_disarm();
    CHECK_EQ(p.writes, 1);
    TRY(scenario_settle(s));
    CHECK_GE(scenario_stats(s).wakes, 1);
    CHECK_LE(scenario_stats(s).wakes, 2);
    CHECK_EQ(read(fd, &count, sizeof count), -1); /* drained */
    CHECK_EQ(errno, EAGAIN);
    /* And it wakes like before. */
    p = (posting){.rounds = 50};
    return wakes_in_order(s, &p);
}

int a_counter_that_will_not_be_read(scenario *s) {
    static const shim_fault reads[] = {{.call = SHIM_READ, .count = 2, .error = EAGAIN},
                                       {.call = SHIM_READ, .count = 2, .error = EIO},
                                       {.call = SHIM_READ, .count = 5, .error = EINTR},
                                       {.call = SHIM_READ, .count = 2, .at_most = 4}};
    s->on.post = post_ran;
    for (size_t index = 0; index < sizeof reads / sizeof *reads; index++) {
        posting p = {.rounds = 50};
        s->context = &p;
        shim_arm(&reads[index], 1);
        TRY(wakes_in_order(s, &p));
        shim_disarm();
        CHECK_LE(shim_calls(SHIM_READ), 2 * p.rounds + 10); /* no spin on it */
    }
    /* What was not read is read with the next wake. */
    TRY(scenario_settle(s));
    int fd;
    uint64_t count;
    if (!s->isolated)
        return 0;
    fd = scenario_eventfd(s);
    CHECK_GE(fd, 0);
    CHECK_EQ(read(fd, &count, sizeof count), -1);
    CHECK_EQ(errno, EAGAIN);
    return 0;
}

int a_wake_is_interrupted(scenario *s) {
    shim_fault fault = {.call = SHIM_WRITE, .count = 10, .error = EINTR};
    posting p = {.rounds = 20, .faults = &fault, .fault_count = 1};
    s->context = &p;
    s->on.post = post_ran;
    return wakes_in_order(s, &p);
}

/* ---- closes that fail ---- */

static int is_open(int fd) { return fcntl(fd, F_GETFD) >= 0; }

/* Linux has closed the descriptor whatever close(2) says; a second try would hit whoever got the number since. */
int a_close_that_fails_is_not_repeated(scenario *s) {
    static const int errors[] = {EINTR, EIO, EDQUOT};
    for (size_t index = 0; index < sizeof errors / sizeof *errors; index++) {
        shim_fault fault = {.call = SHIM_CLOSE, .count = SHIM_FOR_EVER, .error = errors[index]};
        endpoint e = {0};
        int listening, peer;
        lc_address address;
        lc_listener *listener;
        TRY(endpoint_open(s, &e, true));
        TRY(listen_anywhere(s, 8, &listening, &address));
        CHECK_EQ(lc_listener_adopt(s->loop, listening, &listener), 0);
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        TRY(scenario_settle(s));
        int stream_fd = lc_stream_fd(e.stream);
        CHECK_EQ(lc_stream_wait_closed(e.stream, 5), 0);
        CHECK_EQ(lc_stream_close(e.stream, false, false), 1);
        lc_listener_close(listener);
        shim_arm(&fault, 1);
        RUN_UNTIL(e.closes == 1 && lc_listener_is_closed(listener));
        TRY(scenario_settle(s));
        shim_disarm();
        CHECK_EQ(shim_calls(SHIM_CLOSE), 2);
        CHECK(!is_open(stream_fd) || !s->isolated);
        CHECK(!is_open(listening) || !s->isolated);
        /* The numbers go to others, and stay theirs. */
        int strangers[2] = {fcntl(e.peer, F_DUPFD_CLOEXEC, 3), fcntl(e.peer, F_DUPFD_CLOEXEC, 3)};
        lc_listener_release(listener);
        peer = e.peer;
        e.peer = -1;
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));
        CHECK_CALL(close(strangers[0]));
        CHECK_CALL(close(strangers[1]));
        CHECK_CALL(close(peer));
    }
    /* The loop's own. */
    lc_loop *loop;
    shim_fault fault = {.call = SHIM_CLOSE, .count = SHIM_FOR_EVER, .error = EINTR};
    int before = scenario_fd_count();
    CHECK_EQ(lc_loop_create(&s->options, &loop), 0);
    shim_arm(&fault, 1);
    int result = lc_loop_close(loop);
    lc_loop_free(loop);
    shim_disarm();
    CHECK_EQ(result, 0);
    /* eventfd; timerfd and libev's epoll. The ring's is closed inside liburing. */
    CHECK_EQ(shim_calls(SHIM_CLOSE), scenario_is_proactor(s) ? 1 : 3);
    if (s->isolated)
        CHECK_EQ(scenario_fd_count(), before);
    return 0;
}

/* Two calls end a stream at once, in the order in which they may come. */
int a_stream_is_closed_once(scenario *s) {
    for (int order = 0; order < 4; order++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, order & 1));
        CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
        TRY(scenario_settle(s));
        shim_arm(NULL, 0);
        lc_stream_close(e.stream, order & 1, order & 2);
        lc_stream_close(e.stream, order & 2, false);
        RUN_UNTIL(lc_stream_is_closed(e.stream));
        CHECK_EQ(lc_stream_close(e.stream, true, true), 0);
        TRY(scenario_settle(s));
        shim_disarm();
        CHECK_EQ(shim_calls(SHIM_CLOSE), 1);
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));
    }
    return 0;
}
