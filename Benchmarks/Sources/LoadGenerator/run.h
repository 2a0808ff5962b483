// SPDX-License-Identifier: Apache-2.0
/* run.h: one run of the generator and the parts it is made of.
 *
 * run.c owns the phases, connect.c the way to established connections, stream.c one connection's bytes, lockstep.c the
 * exchange in waves. A crowd keeps its run, and so its connections, for several episodes of echoes; load_run() has
 * one. */
#ifndef LOAD_RUN_H
#define LOAD_RUN_H

#include "load_generator.h"
#include "pattern.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

/* Nothing came back for so long: the server hangs, or the machine does. */
#define SILENCE_NS_MAX (5ull * 1000 * 1000 * 1000)

enum phase { PHASE_CONNECT, PHASE_WARMUP, PHASE_MEASURE, PHASE_DRAIN };

/* One connection. All positions count bytes since it was opened. */
struct stream {
    int fd;
    uint64_t origin; /* where in the pattern this stream begins, so that streams differ */
    uint64_t queued; /* bytes of all messages started */
    uint64_t sent;
    uint64_t received;
    uint64_t started_count; /* messages */
    uint64_t finished_count;
    uint64_t finish_at;   /* position at which the oldest message in flight is whole */
    uint64_t *started_ns; /* start times of the messages in flight, by message number modulo depth */
    bool waits_to_write;  /* EPOLLOUT is armed */
};

/* What the calling thread had before lockstep_go_first(). */
struct priority {
    int policy;
    struct sched_param parameter;
    bool raised;
};

struct run {
    const struct load_options *options;
    struct load_samples *samples;
    struct load_result *result;
    struct stream *streams;
    uint64_t *started_ns; /* one block for all streams */
    struct priority priority;
    uint32_t connected_count;
    int epoll;
    enum phase phase;
    uint64_t now_ns;          /* read once per receive */
    uint64_t phase_ns;        /* when the present phase began */
    uint64_t progress_ns;     /* when bytes last came back */
    uint64_t start_limit;     /* messages each stream may have started by now; 0: no limit */
    uint64_t in_flight_count; /* messages, over all streams */
    unsigned char scratch[PIECE_BYTES_MAX];
};

uint64_t run_clock_ns(void);

/* What the server has used: all its threads, ended ones too. 0 when it is gone. */
uint64_t run_server_cpu_ns(const struct run *run);

/* Records the sentence and returns `-error`, so that callers can pass it on. */
int run_fail(struct run *run, int error, const char *what);

/* Makes room for all connections; none is opened. Returns 0 or a negated errno, also then followed by run_close(). */
int run_open(struct run *run);

/* Closes what is open and frees everything, but not `run` itself. */
void run_close(struct run *run);

/* Opens so many further connections. Returns 0 or a negated errno. */
int run_connect(struct run *run, uint32_t count);

/* A client socket of this run, bound to the source address whose turn it is: the descriptor or a negated errno. */
int run_socket(struct run *run, uint32_t turn);

/* 0, or a negated errno: its handshake goes on in the background. */
int run_begin_connect(struct run *run, int fd);

/* Echoes on all open connections until options say it is over, and nothing is in flight afterwards. */
int run_episode(struct run *run);

/* Starts the first `depth` messages. */
int stream_start(struct run *run, struct stream *stream);

/* One receive: compares, records what came back whole, sends as many new messages in one go. */
int stream_receive(struct run *run, struct stream *stream);

/* Sends what is queued, arming EPOLLOUT when the socket is full. */
int stream_send(struct run *run, struct stream *stream);

#endif
