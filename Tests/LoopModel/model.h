// SPDX-License-Identifier: Apache-2.0
/* model.h: what is known of everything that takes part in a run, and what the files of the model know of each other. */
#ifndef MODEL_H
#define MODEL_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "loop_core.h"
#include "loop_model.h"
#include "random.h"
#include "simulator.h"

enum {
    MODEL_CONNECTIONS = 24,
    MODEL_LISTENERS = 3,
    MODEL_CALLS = 192,
    MODEL_POSTS = 48,
    MODEL_POLLS = 6,
    MODEL_LEASES = 48,
    MODEL_WRITE_MAX = 100 * 1024,
    MODEL_QUEUED_MAX = 512 * 1024, /* bytes on their way in one direction of a connection */
    MODEL_ACTIONS_MAX = 64,
};

/* A stretch of a pattern: bytes at `position` and on of the one that `seed` names. */
typedef struct model_stretch {
    uint64_t seed;
    uint64_t position;
    uint64_t length;
} model_stretch;

typedef enum model_end {
    MODEL_END_AWAITED, /* the loop has not accepted it yet */
    MODEL_END_HELD,    /* `stream` is ours */
    MODEL_END_GONE,    /* let go of, or gone with its loop or listener */
} model_end;

/* A connection: the loop's stream at one end, a plain socket at the other. */
typedef struct model_connection {
    bool used;
    bool local; /* a Unix socket */
    uint32_t serial;
    model_end end;
    int listener;       /* of the loop, while awaited */
    uint16_t peer_port; /* the peer's own, by which an accepted stream is recognised */
    uint64_t late_pass; /* released on another thread: until the end of this pass it may still be delivered */

    lc_stream *stream;
    uint64_t receive_wait, send_wait, closed_wait; /* 0: nobody waits */
    uint32_t receive_token, send_token;
    bool receive_cancelled, send_cancelled; /* asked in time, and not yet told */
    bool taken;                             /* something was taken since the wait began */
    bool grew;                              /* something was sent since the wait began */
    size_t send_below;
    bool started, paused;
    bool connecting, refused, connect_failed;
    bool forsaken; /* nobody listens any more where it connects to */
    bool finish, closing, aborting, reset;
    bool leaving; /* its descriptor is being given away */
    bool cut;     /* what was queued may not arrive: aborted, dropped, or gone with the loop */
    bool ended;
    int receive_error;
    uint64_t received; /* bytes taken */
    uint64_t accepted; /* bytes that sends accepted */

    int peer;   /* -1: closed, or not there yet */
    int answer; /* where the outside accepts what the loop connects; -1: nowhere any more */
    bool peer_finished, peer_closed, peer_reset, peer_ended, peer_broken;
    uint64_t peer_sent, peer_received;
    model_stretch *out; /* what the peer is to receive, in order */
    size_t out_first, out_count, out_capacity;
} model_connection;

typedef struct model_listener {
    lc_listener *listener; /* NULL: none */
    lc_address address;
    uint64_t wait;
    uint32_t token;
    bool cancelled, taken, started, closing;
} model_listener;

typedef struct model_call {
    bool pending, timer, sleep, due;
    uint64_t word, deadline_ns, sequence;
    lc_call_id id;
} model_call;

typedef struct model_post {
    lc_post post;
    bool pending, elsewhere, due;
    uint64_t sequence;
} model_post;

typedef struct model_poll_side {
    lc_op *op; /* NULL: nobody waits */
    uint64_t word;
    bool cancelled;
} model_poll_side;

typedef struct model_poll {
    bool used, socket;
    int fd, other;
    bool signalled;     /* it can be read now */
    bool was_signalled; /* or could since somebody began to wait */
    model_poll_side read, write;
} model_poll;

typedef struct model_lease {
    lc_buffer *buffer; /* NULL: none */
    model_stretch what;
    uint64_t loop; /* the how-manieth loop it is from */
} model_lease;

typedef struct model {
    const model_config *config;
    model_report *report;
    bool failed;
    bool isolated;
    model_random random;
    model_choices choices; /* what is left of those that were made beforehand */
    uint16_t weights[MODEL_ACTIONS_MAX];
    uint16_t inside_permille, cut_short_permille, move_in_permille;
    sim_odds odds;
    uint32_t step;

    lc_loop *loop;
    uint64_t loops;
    lc_options options;
    bool entered;
    bool delivering; /* inside a delivery: no pass from here */
    bool settling;   /* nothing new; what is owed is awaited */
    bool cut_short;  /* the last pass was left in the middle */
    bool stop_asked;
    uint64_t write_max;
    uint64_t pass;
    uint64_t progress_ns; /* when something was last delivered */
    lc_call_id guard;
    uint64_t guard_word;

    uint64_t last_word;
    uint32_t last_serial;
    model_connection connections[MODEL_CONNECTIONS];
    model_listener listeners[MODEL_LISTENERS];
    model_call calls[MODEL_CALLS];
    uint64_t call_sequence, last_call, last_deadline_ns, last_timer;
    model_post posts[MODEL_POSTS];
    uint64_t post_sequence, last_post[2];
    model_poll polls[MODEL_POLLS];
    model_lease leases[MODEL_LEASES];
    uint8_t scratch[MODEL_WRITE_MAX];

    pthread_t other;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    void (*errand)(struct model *m, void *argument);
    void *errand_argument;
    bool errand_open, other_ends;
    sim_kernel *kernel;
} model;

/* ---- rules ---- */

int model_fail(model *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
void model_note(model *m, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define RULE(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            return model_fail(m, __VA_ARGS__);                                                                         \
    } while (0)

#define TRY(step)                                                                                                      \
    do {                                                                                                               \
        if ((step) != 0)                                                                                               \
            return -1;                                                                                                 \
    } while (0)

/* ---- draws ---- */

static inline uint64_t below(model *m, uint64_t limit) { return model_random_below(&m->random, limit); }
static inline bool chance(model *m, uint32_t permille) { return below(m, 1000) < permille; }
static inline uint64_t size_up_to(model *m, uint64_t high) { return model_random_size(&m->random, 1, high); }

/* ---- model.c: connections, patterns ---- */

uint8_t model_byte(uint64_t seed, uint64_t position);
uint64_t model_seed_in(const model_connection *c);
uint64_t model_seed_out(const model_connection *c);
int model_matches(model *m, const uint8_t *bytes, size_t length, model_stretch what, const char *where);
int model_expect_out(model *m, model_connection *c, model_stretch what);
int model_arrived_out(model *m, model_connection *c, const uint8_t *bytes, size_t length);
model_connection *model_connection_make(model *m);
void model_connection_hold(model *m, model_connection *c, lc_stream *stream);
void model_connection_let_go(model *m, model_connection *c);
void model_connection_tidy(model *m, model_connection *c);
model_connection *model_connection_of(model *m, const lc_stream *stream);
/* At random among those the predicate holds for; NULL: none. */
model_connection *model_pick(model *m, bool (*fits)(const model_connection *c));
bool model_is_held(const model_connection *c);       /* and may be used */
model_connection *model_connection_newest(model *m); /* NULL: it is gone */
uint64_t model_next_word(model *m);
bool model_reset_is_plausible(const model *m, const model_connection *c);

/* ---- owed.c ---- */

/* Whether somebody waits for what has happened already; says who in `text`. */
bool model_owes(const model *m, char *text, size_t size);

/* ---- streams.c, stream_ends.c, leaving.c, leases.c ---- */

int model_take(model *m, model_connection *c, int *result);
int model_taken_bytes(model *m, model_connection *c, lc_buffer *buffer);
int model_received(model *m, lc_stream *stream);
int model_sent(model *m, lc_stream *stream);
int model_closed(model *m, lc_stream *stream);
int model_wait_receive(model *m, model_connection *c);
int model_wait_send(model *m, model_connection *c, size_t below_bytes);
int model_wait_closed(model *m, model_connection *c);
int model_send_copy(model *m, model_connection *c, size_t length);
int model_close(model *m, model_connection *c, bool abort, bool reset);
int model_release(model *m, model_connection *c, bool elsewhere);
int model_check_send(model *m, model_connection *c, int result);
int act_take(model *m);
int act_wait_receive(model *m);
int act_start_receiving(model *m);
int act_pause_receiving(model *m);
int act_cancel_receive(model *m);
int act_send_copy(model *m);
int act_wait_send(model *m);
int act_cancel_send(model *m);
int act_finish_sending(model *m);
int act_close_politely(model *m);
int act_last_words(model *m);
int act_abort(model *m);
int act_reset(model *m);
int act_wait_closed(model *m);
int act_release(model *m);
int act_release_elsewhere(model *m);
int model_may_leave(model *m, model_connection *c, bool cancelled);
int act_give_away(model *m);

int model_lease_taken(model *m, model_connection *c, lc_buffer *buffer);
int model_leases_check(model *m);
int model_leases_return_all(model *m);
uint32_t model_leases_held(const model *m);
int act_return_lease(model *m);
int act_return_lease_elsewhere(model *m);
int act_send_lease(model *m);

/* ---- listeners.c ---- */

int model_accept(model *m, lc_listener *listener);
int model_listener_close(model *m, model_listener *l);
void model_listener_gone(model *m, model_listener *l);
int act_listen(model *m);
int act_listener_take(model *m);
int act_listener_wait(model *m);
int act_listener_start(model *m);
int act_listener_cancel(model *m);
int act_listener_close(model *m);
int act_listener_release(model *m);
int act_client(model *m);

/* ---- timers.c ---- */

void model_calls_before_pass(model *m);
bool model_next_deadline(const model *m, uint64_t *deadline_ns); /* false: no timer is pending */
int model_calls_after_pass(model *m);
int model_called(model *m, lc_node *node);
int model_posted(model *m, lc_node *node);
int model_calls_cancel_all(model *m);
int model_guard(model *m, uint64_t ns);
int act_call_soon(model *m);
int act_call_at(model *m);
int act_call_cancel(model *m);
int act_post(model *m);
int act_post_elsewhere(model *m);
int act_stop(model *m);
int model_take_stop(model *m);
bool model_post_from_outside(model *m);

/* ---- polls.c ---- */

int model_polled(model *m, lc_node *node);
int model_polls_close(model *m);
bool model_polls_pending(const model *m);
int act_poll_make(model *m);
int act_poll(model *m);
int act_poll_signal(model *m);
int act_poll_drain(model *m);
int act_poll_cancel(model *m);
int act_poll_close(model *m);

/* ---- world.c: the outside ---- */

int act_adopt_local(model *m);
int act_adopt_tcp(model *m);
int act_connect(model *m);
int act_peer_accept(model *m);
int act_peer_write(model *m);
int act_peer_read(model *m);
int act_peer_finish(model *m);
int act_peer_reset(model *m);
int act_peer_close(model *m);
int model_peer_read(model *m, model_connection *c, size_t length, bool *moved);
int model_peer_accept(model *m, model_connection *c, bool *moved);
void model_peer_close(model *m, model_connection *c, bool reset);
int model_peer_finish(model *m, model_connection *c);
void model_home(const model *m, lc_address *out);
/* Something the outside could do now, of its own accord; false if it could do nothing. */
int model_outside_acts(model *m, bool *acted);

/* ---- passes.c ---- */

int model_pass(model *m, bool wait);
int model_settle(model *m);
int model_deliver(model *m, lc_node *node);
uint32_t model_timers_pending(const model *m); /* as far as the model set them */

/* ---- life.c: one loop after another ---- */

int model_open(model *m);
int model_close_loop(model *m);
int model_finish(model *m);
void model_abandon(model *m);
int act_reopen(model *m);
int act_leave(model *m);
int act_enter(model *m);

/* ---- other.c: the other thread, and the kernel ---- */

int model_other_start(model *m);
void model_other_end(model *m);
/* Plays `errand` on the other thread, to its end. */
void model_elsewhere(model *m, void (*errand)(model *m, void *argument), void *argument);
bool model_isolate(void);
int model_descriptors(void);
int model_kernel_begin(model *m);
int model_kernel_end(model *m);
const char *model_kernel_finding(const model *m);

/* ---- actions.c ---- */

void model_draw_weights(model *m);
int model_act(model *m, bool inside);

#endif
