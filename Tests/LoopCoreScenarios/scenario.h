// SPDX-License-Identifier: Apache-2.0
/* scenario.h: what scenarios share: a loop to play with, passes with a time limit, peers, and expectations. */
#ifndef SCENARIO_H
#define SCENARIO_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "loop_core.h"
#include "loop_core_scenarios.h"

#if defined(__SANITIZE_THREAD__)
#define SCENARIO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SCENARIO_TSAN 1
#endif
#endif
#ifndef SCENARIO_TSAN
#define SCENARIO_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SCENARIO_TSAN
#define SCENARIO_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SCENARIO_SANITIZED 1
#endif
#endif
#ifndef SCENARIO_SANITIZED
#define SCENARIO_SANITIZED 0 /* what uses memory of its own for each allocation */
#endif

typedef struct scenario scenario;
typedef int (*scenario_body)(scenario *s);

/* What lc_loop_next() hands out goes to the member for its kind. Each returns 0, or -1 after a failed expectation.
 * Streams whose word is not zero have an endpoint there and need no handler. */
typedef struct scenario_handlers {
    int (*call)(scenario *s, lc_kind kind, uint64_t word);
    int (*post)(scenario *s, lc_post *post);
    int (*job)(scenario *s, lc_job *job, lc_kind kind);
    int (*op)(scenario *s, lc_op *op);
    int (*receive)(scenario *s, lc_stream *stream);
    int (*send)(scenario *s, lc_stream *stream);
    int (*closed)(scenario *s, lc_stream *stream);
    int (*accept)(scenario *s, lc_listener *listener);
} scenario_handlers;

struct scenario {
    const char *name;
    uint32_t backend;
    bool tiny;
    lc_options options;
    lc_loop *loop; /* entered on the scenario's thread for as long as the body runs */
    scenario_handlers on;
    void *context;     /* the body's */
    bool verify_never; /* lc_loop_verify costs too much for what this scenario piles up */
    uint32_t passes;
    uint64_t deadline_ns; /* of the whole scenario */
    pthread_mutex_t lock; /* over `loop`, which the watchdog stops */
    bool isolated;        /* descriptors are counted in a table of this thread's own */
    int fd_count;         /* when it began */
    char *failure;
    size_t failure_size;
    bool failed;
    scenario_body body;
};

/* ---- expectations: record the first one that failed, and return ---- */

int scenario_fail(scenario *s, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return scenario_fail(s, __FILE__, __LINE__, "expected %s", #condition);                                    \
    } while (0)

#define CHECK_COMPARE(left, comparison, right)                                                                         \
    do {                                                                                                               \
        long long left_value = (long long)(left), right_value = (long long)(right);                                    \
        if (!(left_value comparison right_value))                                                                      \
            return scenario_fail(s, __FILE__, __LINE__, "expected %s %s %s, but it was %lld and %lld", #left,          \
                                 #comparison, #right, left_value, right_value);                                        \
    } while (0)

#define CHECK_EQ(left, right) CHECK_COMPARE(left, ==, right)
#define CHECK_NE(left, right) CHECK_COMPARE(left, !=, right)
#define CHECK_GE(left, right) CHECK_COMPARE(left, >=, right)
#define CHECK_GT(left, right) CHECK_COMPARE(left, >, right)
#define CHECK_LE(left, right) CHECK_COMPARE(left, <=, right)
#define CHECK_LT(left, right) CHECK_COMPARE(left, <, right)

/* A system call that sets errno. */
#define CHECK_CALL(call)                                                                                               \
    do {                                                                                                               \
        if ((call) < 0)                                                                                                \
            return scenario_fail(s, __FILE__, __LINE__, "%s: %s", #call, strerror(errno));                             \
    } while (0)

#define TRY(step)                                                                                                      \
    do {                                                                                                               \
        if ((step) != 0)                                                                                               \
            return -1;                                                                                                 \
    } while (0)

/* ---- the run of one scenario ---- */

int scenario_run(scenario_body body, const char *name, uint32_t backend, bool tiny, char *failure, size_t size);
/* The same in a child process, for what would disturb the rest of this one. */
int scenario_in_child(scenario *s, scenario_body body);
/* The end of a child that was forked, in place of _exit: what it ran counts where coverage is measured. */
_Noreturn void scenario_child_ends(int status);
lc_options scenario_options(uint32_t backend, bool tiny);
/* The loop at hand is closed and another one, made with s->options, takes its place. */
int scenario_reopen(scenario *s);
/* Passes until nothing is on its way any more, then: all counters are zero, and the loop closes and is freed. */
int scenario_finish(scenario *s);
/* The body has closed and freed the loop itself. */
void scenario_forget_loop(scenario *s);
/* The counters that are "now, not ever" are zero. */
int scenario_check_zero(scenario *s);
int scenario_fd_count(void);
/* The loop's eventfd, or -1: only where no other thread's descriptors are seen is it sure which one that is. */
int scenario_eventfd(const scenario *s);
lc_stats scenario_stats(const scenario *s);
bool scenario_is_proactor(const scenario *s);

/* ---- passes ---- */

int scenario_pass(scenario *s, bool wait);
int scenario_deliver(scenario *s, lc_node *node);
/* Passes that may sleep, until the condition holds. Its subjects must be things that events of this loop change. */
#define RUN_UNTIL(condition)                                                                                           \
    do {                                                                                                               \
        while (!(condition)) {                                                                                         \
            if (scenario_late(s))                                                                                      \
                return scenario_fail(s, __FILE__, __LINE__, "time ran out before %s", #condition);                     \
            TRY(scenario_pass(s, true));                                                                               \
        }                                                                                                              \
    } while (0)
/* Passes that do not sleep, with `step` before each, for peers that live on this thread. */
#define PUMP_UNTIL(step, condition)                                                                                    \
    do {                                                                                                               \
        while (!(condition)) {                                                                                         \
            if (scenario_late(s))                                                                                      \
                return scenario_fail(s, __FILE__, __LINE__, "time ran out before %s", #condition);                     \
            TRY(step);                                                                                                 \
            TRY(scenario_pass(s, false));                                                                              \
        }                                                                                                              \
    } while (0)
bool scenario_late(const scenario *s);
/* LOOP_LONG=1 in the environment: more rounds, longer stretches, and a wider limit for each scenario. */
bool scenario_long(void);
/* A few passes that do not sleep: enough for everything that is ready to be seen. */
int scenario_settle(scenario *s);

/* ---- bytes with a pattern, so that one that is lost, doubled or moved shows ---- */

uint8_t pattern_byte(uint64_t seed, uint64_t position);
void pattern_fill(uint8_t *bytes, size_t length, uint64_t seed, uint64_t position);
int pattern_check(scenario *s, const uint8_t *bytes, size_t length, uint64_t seed, uint64_t position);

/* ---- sockets ---- */

int pair_unix(scenario *s, int fds[2]);
int pair_tcp(scenario *s, int fds[2]);
/* A listening socket on a port the kernel picks. */
int listen_anywhere(scenario *s, int backlog, int *fd, lc_address *address);
/* A listener whose queue is full drops what knocks: a connection to it stays pending. The fillers are the caller's. */
enum { FILLERS = 8 };
int listen_full(scenario *s, int *listening, int fillers[FILLERS], lc_address *address);
int client_connect(scenario *s, const lc_address *address, int *fd);
int set_nonblocking(scenario *s, int fd, bool on);

/* ---- a stream of the loop and the plain socket at its other end ---- */

typedef struct endpoint {
    lc_stream *stream;
    int peer;
    bool echo;         /* what arrives is sent back, lease and all */
    bool hold;         /* leases that arrive are kept */
    uint64_t seed;     /* of what arrives */
    uint64_t received; /* bytes taken from the stream */
    uint64_t peer_received;
    uint64_t last_waiter;
    uint32_t deliveries, cancels, shutdowns, ends, errors, sends, sends_cancelled, closes;
    int error;
    lc_buffer **held;
    size_t held_count, held_capacity;
} endpoint;

int endpoint_open(scenario *s, endpoint *e, bool tcp);
/* The same with a pair that has its options set already: fds[0] becomes the stream. */
int endpoint_adopt(scenario *s, endpoint *e, int fds[2]);
int endpoint_received(scenario *s, lc_stream *stream);
/* Closes both ends; s->loop forgets the stream in its next passes. */
int endpoint_close(scenario *s, endpoint *e);
void endpoint_return_held(endpoint *e);
/* Fills the stream with two sends of `size` until the kernel takes no more. */
int endpoint_send_until_stuck(scenario *s, endpoint *e, size_t size);
/* The peer goes away with a reset. */
int peer_reset(scenario *s, endpoint *e);
/* The peer writes or reads all of it; it blocks, within the scenario's time. */
int peer_send(scenario *s, endpoint *e, const void *bytes, size_t length);
/* The peer takes what is there, up to length, without blocking; checked against `seed`. */
int peer_receive_some(scenario *s, endpoint *e, uint64_t seed, size_t length, bool *end);

/* ---- a thread that plays the other end ---- */

typedef struct helper {
    pthread_t thread;
    scenario *s;
    int (*play)(scenario *s, void *context);
    void *context;
    int result;
} helper;

int helper_start(scenario *s, helper *h, int (*play)(scenario *s, void *context), void *context);
int helper_join(scenario *s, helper *h);

/* ---- all of them ---- */

#define SCENARIO(function, name)              int function(scenario *s);
#define SCENARIO_REAL(function, name, reason) SCENARIO(function, name)
#include "scenario_list.h"
#undef SCENARIO
#undef SCENARIO_REAL

#endif
