// SPDX-License-Identifier: Apache-2.0
/* stress_inbox.c: the protocol of model/inbox.pml on real threads: many posters, sleeps in between, and close.
 *
 * LOOP_LONG=1 in the environment raises the first of them to a million posts per thread. */
#include <fcntl.h>
#include <sched.h>
#include <sys/eventfd.h>
#include "scenario.h"

enum { THREADS = 8, WINDOW = 512 };

typedef struct stress stress;

/* A poster's posts are used over and over: number n lies in place n % WINDOW, once its predecessor was seen. */
typedef struct lane {
    stress *all;
    lc_post posts[WINDOW];
    uint32_t numbers[WINDOW];
    uint32_t count;    /* to post in all */
    uint32_t accepted; /* poster; read after the join */
    uint32_t refused;  /* poster; read after the join */
    atomic_uint seen;  /* loop: how many, and so the number expected next */
    _Alignas(64) helper helper;
} lane;

struct stress {
    lc_loop *loop;
    lane lanes[THREADS];
    atomic_bool closed;
    uint32_t seen; /* loop */
};

static stress *stress_make(scenario *s, uint32_t count) {
    stress *all = aligned_alloc(64, sizeof *all);
    if (!all)
        return NULL;
    memset(all, 0, sizeof *all);
    all->loop = s->loop;
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        all->lanes[thread].all = all;
        all->lanes[thread].count = count;
    }
    s->context = all;
    return all;
}

static int stress_start(scenario *s, stress *all, int (*play)(scenario *s, void *context)) {
    for (uint32_t thread = 0; thread < THREADS; thread++)
        TRY(helper_start(s, &all->lanes[thread].helper, play, &all->lanes[thread]));
    return 0;
}

static int stress_join(scenario *s, stress *all) {
    for (uint32_t thread = 0; thread < THREADS; thread++)
        TRY(helper_join(s, &all->lanes[thread].helper));
    return 0;
}

/* Lost, doubled and out of order all show as a number that is not the next. */
static int seen_next(scenario *s, lc_post *post) {
    lane *from = post->word;
    uint32_t place = (uint32_t)(post - from->posts), next = atomic_load_explicit(&from->seen, memory_order_relaxed);
    CHECK_EQ(from->numbers[place], next);
    CHECK_EQ(place, next % WINDOW);
    from->all->seen++;
    atomic_store(&from->seen, next + 1);
    return 0;
}

static int wait_until_seen(scenario *s, lane *from, uint32_t count) {
    while (atomic_load(&from->seen) < count) {
        if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "the loop slept through a post: %u of %u were seen",
                                 atomic_load(&from->seen), count);
        sched_yield();
    }
    return 0;
}

static int post_number(lane *from, uint32_t number) {
    uint32_t place = number % WINDOW;
    from->posts[place].word = from;
    from->numbers[place] = number;
    return lc_loop_post(from->all->loop, &from->posts[place]);
}

/* In bursts of all lengths; after each the poster waits until the loop has seen it, and so may be asleep. */
static int post_in_bursts(scenario *s, void *context) {
    lane *from = context;
    uint32_t random = 2463534242u + (uint32_t)(from - from->all->lanes);
    for (uint32_t number = 0; number < from->count;) {
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        uint32_t burst = random % WINDOW >> random % 10;
        for (burst++; burst > 0 && number < from->count; burst--, number++)
            CHECK_EQ(post_number(from, number), 0);
        TRY(wait_until_seen(s, from, number));
    }
    return 0;
}

int posts_from_eight_threads(scenario *s) {
    const char *value = getenv("LOOP_LONG");
    uint32_t count = value && strcmp(value, "1") == 0 ? 1000000 : 4000;
    stress *all = stress_make(s, count);
    CHECK(all != NULL);
    s->on.post = seen_next;
    TRY(stress_start(s, all, post_in_bursts));
    RUN_UNTIL(all->seen == THREADS * count);
    TRY(stress_join(s, all));
    TRY(scenario_settle(s));
    CHECK_EQ(all->seen, THREADS * count);
    /* It slept, and one write ended a sleep, however many posted. */
    CHECK_GT(scenario_stats(s).wakes, 0);
    CHECK_LE(scenario_stats(s).wakes, scenario_stats(s).ticks);
    free(all);
    return 0;
}

/* ---- close ---- */

/* Puts a counter of the test's own on that number, if it is free. */
static int place_decoy(scenario *s, int number, int *decoy) {
    int counter = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK_CALL(counter);
    *decoy = counter;
    if (counter == number)
        return 0;
    *decoy = fcntl(counter, F_DUPFD_CLOEXEC, number);
    CHECK_CALL(*decoy);
    CHECK_CALL(close(counter));
    return 0;
}

static int check_decoy(scenario *s, int decoy) {
    uint64_t written = 0;
    ssize_t got = read(decoy, &written, sizeof written);
    CHECK_EQ(got, -1); /* nobody wrote to it */
    CHECK_EQ(errno, EAGAIN);
    CHECK_CALL(close(decoy));
    return 0;
}

enum { REFUSALS = 50 };

static int post_past_the_close(scenario *s, void *context) {
    lane *from = context;
    while (from->accepted < WINDOW && from->refused < REFUSALS) {
        bool closed = atomic_load(&from->all->closed);
        int result = post_number(from, from->accepted);
        if (result == 0) {
            CHECK(!closed);
            CHECK_EQ(from->refused, 0);
            from->accepted++;
        } else {
            CHECK_EQ(result, -EBADF);
            from->refused++;
        }
        if (from->accepted == WINDOW) /* more places than that there are not; now it waits for the close */
            while (!atomic_load(&from->all->closed) && !scenario_late(s))
                sched_yield();
    }
    for (; from->refused < REFUSALS; from->refused++)
        CHECK_EQ(lc_loop_post(from->all->loop, &(lc_post){.word = NULL}), -EBADF);
    return 0;
}

static int close_under_posts(scenario *s, uint32_t round) {
    stress *all = stress_make(s, 0);
    CHECK(all != NULL);
    int number = scenario_eventfd(s), decoy;
    CHECK(number >= 0 || !s->isolated);
    TRY(stress_start(s, all, post_past_the_close));
    if (round % 4)
        RUN_UNTIL(all->seen >= round); /* once it has slept and worked, at another moment each time */
    lc_loop_leave(s->loop);
    CHECK_EQ(lc_loop_close(s->loop), 0);
    TRY(place_decoy(s, number < 0 ? 0 : number, &decoy));
    atomic_store(&all->closed, true);
    /* As long as anyone may post, the number is not somebody else's. */
    CHECK_NE(decoy, number);
    lc_node *node;
    while ((node = lc_loop_drop_next(s->loop)))
        TRY(scenario_deliver(s, node));
    TRY(stress_join(s, all));
    CHECK(lc_loop_drop_next(s->loop) == NULL);
    for (uint32_t thread = 0; thread < THREADS; thread++) {
        CHECK_EQ(atomic_load(&all->lanes[thread].seen), all->lanes[thread].accepted);
        CHECK_EQ(all->lanes[thread].refused, REFUSALS);
    }
    lc_loop *closed = s->loop;
    scenario_forget_loop(s);
    lc_loop_free(closed);
    TRY(check_decoy(s, decoy));
    free(all);
    return scenario_reopen(s);
}

/* Accepted means seen in a pass or handed out by close; refused means -EBADF, then and ever after. */
int posts_past_the_close_from_eight_threads(scenario *s) {
    s->on.post = seen_next;
    for (uint32_t round = 0; round < 40; round++)
        TRY(close_under_posts(s, round));
    return 0;
}

/* ---- leases and jobs that outlive their loop ---- */

typedef struct returning {
    lc_buffer *leases[32]; /* of one thread */
    uint32_t count;
    helper helper;
} returning;

static int return_leases(scenario *s, void *context) {
    (void)s;
    returning *r = context;
    for (uint32_t index = 0; index < r->count; index++)
        lc_buffer_return(r->leases[index]);
    return 0;
}

/* Whoever is last closes the eventfd. From then on the number is a stranger's. */
static int return_around_the_close(scenario *s, uint32_t round) {
    endpoint e = {.hold = true};
    int number = scenario_eventfd(s), decoy;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    uint8_t bytes[64];
    while (e.held_count < 2 * THREADS) {
        uint64_t sent = e.received;
        pattern_fill(bytes, sizeof bytes, e.seed, sent);
        TRY(peer_send(s, &e, bytes, sizeof bytes));
        RUN_UNTIL(e.received == sent + sizeof bytes);
    }
    returning all[THREADS] = {0};
    for (size_t index = 0; index < e.held_count; index++) {
        returning *to = &all[index % THREADS];
        if (to->count < 32)
            to->leases[to->count++] = e.held[index];
        else
            lc_buffer_return(e.held[index]);
    }
    free(e.held);
    lc_loop *loop = s->loop;
    lc_loop_leave(loop);
    for (uint32_t thread = 0; thread < THREADS; thread++)
        if (round % 2 || thread % 2)
            TRY(helper_start(s, &all[thread].helper, return_leases, &all[thread]));
    CHECK_EQ(lc_loop_close(loop), 0);
    scenario_forget_loop(s);
    lc_loop_free(loop);
    for (uint32_t thread = 0; thread < THREADS && round % 2 == 0; thread += 2)
        TRY(helper_start(s, &all[thread].helper, return_leases, &all[thread]));
    for (uint32_t thread = 0; thread < THREADS; thread++)
        TRY(helper_join(s, &all[thread].helper));
    TRY(place_decoy(s, number < 0 ? 0 : number, &decoy));
    if (number >= 0)
        CHECK_EQ(decoy, number); /* the last one has closed it */
    TRY(check_decoy(s, decoy));
    CHECK_CALL(close(e.peer));
    return scenario_reopen(s);
}

int leases_past_the_close_from_eight_threads(scenario *s) {
    for (uint32_t round = 0; round < 20; round++)
        TRY(return_around_the_close(s, round));
    return 0;
}

typedef struct last_job {
    lc_job job;
    lc_loop *loop;
    bool seen;
} last_job;

static int last_job_seen(scenario *s, lc_job *job, lc_kind kind) {
    last_job *last = s->context;
    CHECK(job == &last->job && kind == LC_KIND_JOB_TASK);
    last->seen = true;
    return 0;
}

static int enqueue_last(scenario *s, void *context) {
    last_job *last = context;
    CHECK_EQ(lc_loop_enqueue_job(last->loop, &last->job, LC_KIND_JOB_TASK), 0);
    return 0;
}

/* The job kept its loop alive. Once it has run the loop may go, though its enqueuer is not back from waking it: nothing
 * it still looks at may be gone. A ThreadSanitizer that watches free(), as gcc's does, sees when it is, in each run;
 * AddressSanitizer only when the enqueuer is late enough. */
int the_last_job_ends_its_loop(scenario *s) {
    s->on.job = last_job_seen;
    for (uint32_t round = 0; round < 50; round++) {
        last_job last = {.loop = s->loop};
        s->context = &last;
        helper enqueuing;
        TRY(helper_start(s, &enqueuing, enqueue_last, &last));
        /* Mostly awake: a wake through the eventfd would order its enqueuer's last look before what follows. */
        if (round % 8 == 0)
            RUN_UNTIL(last.seen);
        else
            PUMP_UNTIL(0, last.seen);
        lc_loop_leave(last.loop);
        CHECK_EQ(lc_loop_close(last.loop), 0);
        scenario_forget_loop(s);
        lc_loop_free(last.loop);
        TRY(helper_join(s, &enqueuing));
        TRY(scenario_reopen(s));
    }
    return 0;
}

/* ---- posts of the loop to itself ---- */

typedef struct selfish {
    lc_post post;
    uint64_t posts;
    bool over; /* set by a timer */
} selfish;

static int post_on_call(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    selfish *self = s->context;
    CHECK_EQ(lc_loop_post(s->loop, &self->post), 0);
    return 0;
}

static int count_post(scenario *s, lc_post *post) {
    selfish *self = s->context;
    CHECK(post == &self->post);
    self->posts++;
    return 0;
}

/* Nothing else would ever end the second pass, so a pass that waits is one that hangs. */
int a_post_to_itself_runs_in_the_next_pass(scenario *s) {
    selfish self = {0};
    s->context = &self;
    s->on.call = post_on_call;
    s->on.post = count_post;
    TRY(scenario_settle(s));
    uint64_t wakes = scenario_stats(s).wakes;
    for (uint32_t round = 1; round <= 100; round++) {
        lc_call_id id;
        CHECK_EQ(lc_call_soon(s->loop, LC_KIND_CALL, 0, &id), 0);
        TRY(scenario_pass(s, true));
        CHECK_EQ(self.posts, round - 1);
        TRY(scenario_pass(s, true));
        CHECK_EQ(self.posts, round);
    }
    CHECK_EQ(scenario_stats(s).wakes, wakes);
    return 0;
}

static int post_again(scenario *s, lc_post *post) {
    selfish *self = s->context;
    self->posts++;
    if (!self->over)
        CHECK_EQ(lc_loop_post(s->loop, post), 0);
    return 0;
}

static int end_it(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind, (void)word;
    selfish *self = s->context;
    self->over = true;
    return 0;
}

int posts_without_end_starve_nobody(scenario *s) {
    selfish self = {0};
    s->context = &self;
    s->on.call = end_it;
    s->on.post = post_again;
    endpoint e = {.echo = true};
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    CHECK_EQ(lc_loop_post(s->loop, &self.post), 0);
    uint8_t bytes[512];
    bool end = false;
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    uint64_t posts = self.posts;
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + 2000000, 0, &id), 0);
    RUN_UNTIL(self.over);
    CHECK_GT(self.posts, posts); /* and they went on all the while */
    TRY(scenario_settle(s));
    return endpoint_close(s, &e);
}
