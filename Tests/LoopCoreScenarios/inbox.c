// SPDX-License-Identifier: Apache-2.0
/* inbox.c: the door for other threads: nothing lost, nothing doubled, nothing late. */
#include <sched.h>
#include "scenario.h"

enum { THREADS = 4 };

typedef struct numbered {
    lc_post post; /* its word points here */
    uint32_t thread;
    uint32_t number;
    atomic_bool accepted;
    uint32_t seen; /* by whoever takes posts out of the loop */
} numbered;

typedef struct posting {
    numbered *posts[THREADS];
    uint32_t count;         /* per thread */
    uint32_t next[THREADS]; /* loop: the number expected of each thread */
    uint32_t seen;          /* loop */
    helper helpers[THREADS];
    lc_loop *loop;
} posting;

typedef struct poster {
    posting *all;
    uint32_t thread;
} poster;

static int posting_open(scenario *s, posting *all, uint32_t count) {
    *all = (posting){.count = count, .loop = s->loop};
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        all->posts[thread] = calloc(count, sizeof(numbered));
        CHECK(all->posts[thread] != NULL);
        for (uint32_t number = 0; number < count; number++) {
            numbered *post = &all->posts[thread][number];
            post->post.word = post;
            post->thread = thread;
            post->number = number;
        }
    }
    s->context = all;
    return 0;
}

static void posting_close(posting *all) {
    for (uint32_t thread = 0; thread < THREADS; thread++)
        free(all->posts[thread]);
}

static int seen_in_order(scenario *s, lc_post *post) {
    posting *all = s->context;
    numbered *seen = post->word;
    CHECK_EQ(seen->number, all->next[seen->thread]);
    all->next[seen->thread]++;
    CHECK_EQ(++seen->seen, 1);
    all->seen++;
    return 0;
}

static int post_all(scenario *s, void *context) {
    poster *p = context;
    for (uint32_t number = 0; number < p->all->count; number++) {
        CHECK_EQ(lc_loop_post(p->all->loop, &p->all->posts[p->thread][number].post), 0);
        if (number % 64 == 63)
            sched_yield(); /* so that the loop falls asleep in between now and then */
    }
    return 0;
}

int posts_from_four_threads(scenario *s) {
    enum { COUNT = 50000 };
    posting all;
    TRY(posting_open(s, &all, COUNT));
    s->on.post = seen_in_order;
    s->verify_never = true;
    poster posters[THREADS];
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        posters[thread] = (poster){.all = &all, .thread = thread};
        TRY(helper_start(s, &all.helpers[thread], post_all, &posters[thread]));
    }
    RUN_UNTIL(all.seen == THREADS * COUNT);
    for (uint32_t thread = 0; thread < THREADS; thread++)
        TRY(helper_join(s, &all.helpers[thread]));
    TRY(scenario_settle(s));
    CHECK_EQ(all.seen, THREADS * COUNT);
    /* One wake per sleep, not one per post. */
    CHECK_LE(scenario_stats(s).wakes, scenario_stats(s).ticks);
    posting_close(&all);
    return 0;
}

typedef struct ping {
    lc_post post;
    atomic_uint seen;
    uint32_t rounds;
} ping;

static int ping_seen(scenario *s, lc_post *post) {
    ping *p = post->word;
    CHECK_LT(p->seen, p->rounds);
    p->seen++;
    return 0;
}

static int ping_often(scenario *s, void *context) {
    ping *p = context;
    for (uint32_t round = 0; round < p->rounds; round++) {
        CHECK_EQ(lc_loop_post(s->loop, &p->post), 0);
        while (atomic_load(&p->seen) <= round) {
            if (scenario_late(s))
                return scenario_fail(s, __FILE__, __LINE__, "the loop slept through post %u", round);
            sched_yield();
        }
    }
    return 0;
}

/* The next post leaves only when the last was seen, which is when the loop is about to fall asleep. */
int no_wake_is_lost(scenario *s) {
    ping p = {.rounds = 20000};
    p.post.word = &p;
    s->on.post = ping_seen;
    helper pinging;
    TRY(helper_start(s, &pinging, ping_often, &p));
    RUN_UNTIL(p.seen == p.rounds);
    return helper_join(s, &pinging);
}

static int post_while_awake(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    posting *all = s->context;
    poster p = {.all = all};
    TRY(helper_start(s, &all->helpers[0], post_all, &p));
    return helper_join(s, &all->helpers[0]);
}

int posts_to_an_awake_loop_write_nothing(scenario *s) {
    enum { COUNT = 10000 };
    posting all;
    TRY(posting_open(s, &all, COUNT));
    s->on.post = seen_in_order;
    s->on.call = post_while_awake;
    uint64_t before = scenario_stats(s).wakes;
    lc_call_id id;
    CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &id), 0);
    RUN_UNTIL(all.seen == COUNT);
    TRY(scenario_settle(s));
    CHECK_EQ(scenario_stats(s).wakes, before);
    posting_close(&all);
    return 0;
}

static int post_until_refused(scenario *s, void *context) {
    poster *p = context;
    for (uint32_t number = 0; number < p->all->count; number++) {
        numbered *post = &p->all->posts[p->thread][number];
        int result = lc_loop_post(p->all->loop, &post->post);
        if (result < 0) {
            CHECK_EQ(result, -EBADF);
            return 0;
        }
        atomic_store(&post->accepted, true);
    }
    return 0;
}

/* Accepted means: seen in a pass, or handed out by lc_loop_drop_next. Refused means: never seen. */
int posts_that_race_with_close(scenario *s) {
    enum { COUNT = 50000, ROUNDS = 8 };
    s->on.post = seen_in_order;
    s->verify_never = true;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        posting all;
        TRY(posting_open(s, &all, COUNT));
        poster posters[THREADS];
        for (uint32_t thread = 0; thread < THREADS; thread++) {
            posters[thread] = (poster){.all = &all, .thread = thread};
            TRY(helper_start(s, &all.helpers[thread], post_until_refused, &posters[thread]));
        }
        RUN_UNTIL(all.seen > 0);
        lc_loop_leave(s->loop);
        CHECK_EQ(lc_loop_close(s->loop), 0);
        lc_node *node;
        while ((node = lc_loop_drop_next(s->loop)))
            TRY(scenario_deliver(s, node));
        for (uint32_t thread = 0; thread < THREADS; thread++)
            TRY(helper_join(s, &all.helpers[thread]));
        CHECK(lc_loop_drop_next(s->loop) == NULL);
        for (uint32_t thread = 0; thread < THREADS; thread++)
            for (uint32_t number = 0; number < COUNT; number++)
                CHECK_EQ(all.posts[thread][number].seen, all.posts[thread][number].accepted ? 1 : 0);
        lc_loop *closed = s->loop;
        scenario_forget_loop(s);
        lc_loop_free(closed);
        posting_close(&all);
        TRY(scenario_reopen(s));
    }
    return 0;
}

int a_closed_loop_refuses(scenario *s) {
    lc_loop *loop = s->loop;
    lc_post post = {.word = NULL};
    lc_job job = {0};
    lc_call_id id;
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    CHECK_EQ(lc_loop_close(loop), 0);
    CHECK_EQ(lc_loop_post(loop, &post), -EBADF);
    CHECK_EQ(lc_loop_enqueue_job(loop, &job, LC_KIND_JOB_TASK), -EBADF);
    CHECK_EQ(lc_call_soon(loop, LC_KIND_CALL, 0, &id), -EBADF);
    CHECK_EQ(lc_call_at(loop, LC_KIND_CALL, 0, 0, &id), -EBADF);
    CHECK_EQ(lc_loop_enter(loop), -EBADF);
    int fds[2];
    TRY(pair_unix(s, fds));
    lc_stream *stream;
    CHECK_EQ(lc_stream_adopt(loop, fds[0], &stream), -EBADF);
    int listening;
    lc_address address;
    TRY(listen_anywhere(s, 1, &listening, &address));
    lc_listener *listener;
    CHECK_EQ(lc_listener_adopt(loop, listening, &listener), -EBADF);
    const struct sockaddr *to = (const struct sockaddr *)&address.storage;
    CHECK_EQ(lc_stream_connect(loop, to, address.length, &stream), -EBADF);
    CHECK_EQ(lc_stream_connect_socket(loop, fds[0], to, address.length, &stream), -EBADF);
    lc_loop_stop(loop); /* harmless */
    CHECK(lc_loop_drop_next(loop) == NULL);
    close(fds[0]);
    close(fds[1]);
    close(listening);
    scenario_forget_loop(s);
    lc_loop_free(loop);
    return scenario_reopen(s);
}

/* What had not run when the loop closed is handed out in order, timers included, for its owner to dispose of. */
static int note_dropped(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    uint64_t *next = s->context;
    CHECK_EQ(word, (*next)++);
    return 0;
}

int close_hands_out_what_did_not_run(scenario *s) {
    lc_loop *loop = s->loop;
    uint64_t next = 1;
    s->context = &next;
    s->on.call = note_dropped;
    lc_call_id id, cancelled;
    uint64_t word;
    CHECK_EQ(lc_call_at(loop, LC_KIND_SLEEP, UINT64_MAX, 4, &id), 0);
    CHECK_EQ(lc_call_at(loop, LC_KIND_SLEEP, UINT64_MAX - 1, 3, &id), 0);
    CHECK_EQ(lc_call_soon(loop, LC_KIND_CALL, 1, &id), 0);
    CHECK_EQ(lc_call_soon(loop, LC_KIND_CALL, 7, &cancelled), 0);
    CHECK_EQ(lc_call_soon(loop, LC_KIND_CALL, 2, &id), 0);
    CHECK_EQ(lc_call_cancel(loop, cancelled, &word), 1);
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    lc_node *node;
    while ((node = lc_loop_drop_next(loop)))
        TRY(scenario_deliver(s, node));
    CHECK_EQ(next, 5);
    CHECK(!lc_loop_is_alive(loop)); /* all of it is gone, so nothing can happen any more */
    scenario_forget_loop(s);
    lc_loop_free(loop);
    return 0;
}

static int stop_it(scenario *s, void *context) {
    (void)context;
    lc_loop_stop(s->loop);
    return 0;
}

/* Whether it comes before the sleep or during it: the pass ends, and nothing else would end it. */
int stop_from_another_thread(scenario *s) {
    for (uint32_t round = 0; round < 200; round++) {
        helper stopping;
        TRY(helper_start(s, &stopping, stop_it, NULL));
        bool stopped = false;
        while (!stopped) {
            TRY(scenario_pass(s, true));
            stopped = lc_loop_take_stop(s->loop);
        }
        TRY(helper_join(s, &stopping));
        CHECK(!lc_loop_take_stop(s->loop));
    }
    lc_loop_stop(s->loop);
    TRY(scenario_pass(s, true));
    CHECK(lc_loop_take_stop(s->loop));
    return 0;
}

/* ---- jobs ---- */

typedef struct jobs {
    lc_job job[4];
    uint32_t seen;
} jobs;

static int job_seen(scenario *s, lc_job *job, lc_kind kind) {
    jobs *all = s->context;
    uint32_t number = all->seen++;
    CHECK(job == &all->job[number]);
    CHECK_EQ(kind, number % 2 ? LC_KIND_JOB_SERIAL : LC_KIND_JOB_TASK);
    return 0;
}

static int enqueue_third(scenario *s, void *context) {
    jobs *all = context;
    CHECK_EQ(lc_loop_enqueue_job(s->loop, &all->job[2], LC_KIND_JOB_TASK), 0);
    return 0;
}

int jobs_keep_their_order_and_the_woken_one_is_set_aside(scenario *s) {
    jobs all = {0};
    s->context = &all;
    s->on.job = job_seen;
    lc_kind kind;
    CHECK_EQ(lc_loop_enqueue_job(s->loop, &all.job[0], LC_KIND_JOB_TASK), 0);
    lc_loop_begin_resume(s->loop);
    CHECK(lc_loop_end_resume(s->loop, &kind) == NULL);
    lc_job woken = {0};
    lc_loop_begin_resume(s->loop);
    CHECK_EQ(lc_loop_enqueue_job(s->loop, &woken, LC_KIND_JOB_SERIAL), 0);
    CHECK_EQ(lc_loop_enqueue_job(s->loop, &all.job[1], LC_KIND_JOB_SERIAL), 0);
    CHECK(lc_loop_end_resume(s->loop, &kind) == (void *)&woken);
    CHECK_EQ(kind, LC_KIND_JOB_SERIAL);
    helper other;
    TRY(helper_start(s, &other, enqueue_third, &all));
    TRY(helper_join(s, &other));
    lc_loop_drain_inbox(s->loop);
    CHECK_EQ(lc_loop_enqueue_job(s->loop, &all.job[3], LC_KIND_JOB_SERIAL), 0);
    RUN_UNTIL(all.seen == 4);
    return 0;
}
