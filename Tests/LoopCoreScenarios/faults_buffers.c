// SPDX-License-Identifier: Apache-2.0
/* faults_buffers.c: too few buffers, and buffers whose owner is gone. */
#include "faults_support.h"
#include "simulator.h"

/* ---- a thousand senders, eight buffers ---- */

enum { SENDERS_MAX = 1000, BUFFERS = 8, BUFFER_SIZE = 64, PARTS = 48, SHARE = PARTS * BUFFER_SIZE };

typedef struct crowd {
    uint32_t senders, ended;
    uint64_t leases;
    /* The longest any of them waited between two of its turns, in leases of others and in passes. */
    uint64_t longest_leases, longest_passes;
    struct {
        endpoint e;
        uint64_t at_lease, at_pass; /* its last turn */
    } all[SENDERS_MAX];
} crowd;

static int crowd_served(scenario *s, lc_stream *stream) {
    crowd *c = s->context;
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    uint64_t before = e->received;
    uint32_t ends = e->ends;
    TRY(endpoint_received(s, stream));
    CHECK_EQ(e->errors, 0);
    uint64_t *at_lease = &c->all[e->seed].at_lease, *at_pass = &c->all[e->seed].at_pass;
    if (e->received > before) {
        if (c->leases - *at_lease > c->longest_leases)
            c->longest_leases = c->leases - *at_lease;
        if (s->passes - *at_pass > c->longest_passes)
            c->longest_passes = s->passes - *at_pass;
        c->leases += (e->received - before + BUFFER_SIZE - 1) / BUFFER_SIZE;
        *at_lease = c->leases;
        *at_pass = s->passes;
    }
    c->ended += e->ends - ends;
    return 0;
}

static int crowd_shares(scenario *s) {
    s->verify_never = true; /* the crowd is walked through once per pass otherwise */
    s->options.buffer_count = BUFFERS;
    s->options.buffer_size = BUFFER_SIZE;
    TRY(scenario_reopen(s));
    uint32_t allowed;
    TRY(raise_descriptors(s, 2 * SENDERS_MAX + 64, &allowed));
    crowd *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    s->context = c;
    s->on.receive = crowd_served;
    c->senders = s->tiny ? 100 : (allowed - 64) / 2;
    CHECK_LE(c->senders, SENDERS_MAX);
    uint8_t bytes[SHARE];
    for (uint32_t index = 0; index < c->senders; index++) {
        endpoint *e = &c->all[index].e;
        e->seed = index;
        TRY(endpoint_open(s, e, true));
        CHECK_EQ(lc_stream_start_receiving(e->stream), 0);
        pattern_fill(bytes, SHARE, index, 0);
        TRY(peer_send(s, e, bytes, SHARE));
        CHECK_CALL(shutdown(e->peer, SHUT_WR));
    }
    uint32_t before = s->passes;
    for (uint32_t index = 0; index < c->senders; index++)
        c->all[index].at_pass = before;
    RUN_UNTIL(c->ended == c->senders);
    for (uint32_t index = 0; index < c->senders; index++)
        CHECK_EQ(c->all[index].e.received, SHARE);
    /* No spin: a pass brings as many leases as it can, which is one where a batch is one. */
    CHECK_LE(s->passes - before, c->leases / (s->tiny ? 1 : BUFFERS) + 2 * c->senders);
    CHECK_LE(c->longest_passes, 3 * c->senders);
    /* The selector reads into the heap when buffers are few, and may read one stream several times per pass. How many
     * buffers a multishot fills in one turn is the kernel's affair: few on Linux, all there are on a simulated one. */
    if (scenario_is_proactor(s))
        CHECK_LE(c->longest_leases, (sim_is_process_wide() ? BUFFERS : 2) * c->senders);
    for (uint32_t index = 0; index < c->senders; index++)
        TRY(endpoint_close(s, &c->all[index].e));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    free(c);
    return 0;
}

int a_thousand_senders_share_eight_buffers(scenario *s) { return scenario_in_child(s, crowd_shares); }

/* Refused when it asked once more for what was not there yet, a stream must not hold up the next in line. */
int who_has_nothing_to_receive_holds_up_nobody(scenario *s) {
    enum { STREAMS = 32 };
    s->options.buffer_count = 1;
    s->options.buffer_size = BUFFER_SIZE;
    TRY(scenario_reopen(s));
    endpoint *all = calloc(STREAMS, sizeof *all);
    CHECK(all != NULL);
    uint8_t bytes[BUFFER_SIZE];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    for (uint32_t index = 0; index < STREAMS; index++) {
        TRY(endpoint_open(s, &all[index], true));
        CHECK_EQ(lc_stream_start_receiving(all[index].stream), 0);
        TRY(peer_send(s, &all[index], bytes, sizeof bytes));
    }
    for (uint32_t index = 0; index < STREAMS; index++)
        RUN_UNTIL(all[index].received == sizeof bytes);
    uint32_t before = s->passes;
    TRY(endpoint_close(s, &all[0]));
    RUN_UNTIL(scenario_stats(s).streams == STREAMS - 1);
    CHECK_LE(s->passes - before, 4 * STREAMS);
    for (uint32_t index = 1; index < STREAMS; index++)
        TRY(endpoint_close(s, &all[index]));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    free(all);
    s->options = scenario_options(s->backend, s->tiny);
    return 0;
}

/* ---- let go of while the kernel holds them ---- */

enum { LENT = 24, LARGE = 1 << 20 };

/* In each pass: a stream has two operations, so the records of those in the kernel are all still there. */
static int memory_outlasts_the_kernel(scenario *s, uint32_t streams) {
    for (;;) {
        lc_stats now = scenario_stats(s);
        CHECK_LE(now.in_kernel, 2 * now.streams);
        CHECK_LE(now.streams, streams);
        if (!now.streams)
            break;
        if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "time ran out");
        TRY(scenario_pass(s, false));
    }
    TRY(scenario_check_zero(s));
    return 0;
}

/* Receives and sends are under way; bytes arrive at the same time; the owner cancels or closes, and lets go at once. */
static int let_go_at_once(scenario *s, uint32_t features_off) {
    s->options.features_off = features_off;
    TRY(scenario_reopen(s));
    uint8_t *large = calloc(1, LARGE);
    CHECK(large != NULL);
    endpoint all[LENT];
    for (uint32_t way = 0; way < 4; way++) {
        uint8_t bytes[300];
        pattern_fill(bytes, sizeof bytes, 0, 0);
        for (uint32_t index = 0; index < LENT; index++) {
            all[index] = (endpoint){0};
            TRY(endpoint_open(s, &all[index], index % 2));
            CHECK_EQ(lc_stream_wait_receive(all[index].stream, 1), 0);
            int least = 1;
            CHECK_CALL(setsockopt(lc_stream_fd(all[index].stream), SOL_SOCKET, SO_SNDBUF, &least, sizeof least));
            CHECK_CALL(setsockopt(all[index].peer, SOL_SOCKET, SO_RCVBUF, &least, sizeof least));
            if (index % 3 == 0)
                CHECK_EQ(lc_stream_send_copy(all[index].stream, large, LARGE), 0);
        }
        for (uint32_t index = 0; index < LENT; index++)
            TRY(scenario_settle(s));
        lc_stats now = scenario_stats(s);
        CHECK_EQ(now.in_kernel + now.armed, LENT + LENT / 3);
        for (uint32_t index = 0; index < LENT; index++) {
            lc_stream *stream = all[index].stream;
            TRY(peer_send(s, &all[index], bytes, sizeof bytes));
            if (way == 1)
                lc_stream_cancel_receive(stream, lc_stream_receive_token(stream));
            else if (way > 1)
                CHECK_EQ(lc_stream_close(stream, way == 2, false), 1);
            if (way == 3) /* polite, and the peer never reads what is queued */
                CHECK_EQ(lc_stream_close(stream, true, true), 1);
            lc_stream_release(stream);
        }
        now = scenario_stats(s);
        CHECK_EQ(now.streams, LENT);
        if (scenario_is_proactor(s)) {
            CHECK_EQ(now.in_kernel, LENT + LENT / 3);
            CHECK_GE(now.leased, LENT / 3); /* what the kernel sends from */
        }
        TRY(memory_outlasts_the_kernel(s, LENT));
        for (uint32_t index = 0; index < LENT; index++) {
            CHECK_EQ(all[index].deliveries, 0);
            CHECK_CALL(close(all[index].peer));
        }
    }
    free(large);
    return 0;
}

int memory_goes_with_the_last_completion(scenario *s) {
    TRY(let_go_at_once(s, 0));
    if (scenario_is_proactor(s)) {
        TRY(let_go_at_once(s, LC_FEATURE_BUFFER_RING)); /* each receive has a buffer of its own in the kernel */
        TRY(let_go_at_once(s, LC_FEATURE_DEFER_TASKRUN));
    }
    s->options = scenario_options(s->backend, s->tiny);
    return 0;
}

/* An accept that is under way ends in one way or another when its listener closes; nothing of it is left behind, on
 * kernels without deferred completions either. */
int an_accept_ends_with_its_listener(scenario *s) {
    lc_options original = s->options;
    for (uint32_t round = 0; round < 4; round++) {
        s->options.features_off = (round & 1 ? LC_FEATURE_DEFER_TASKRUN : 0) |
                                  (round & 2 ? LC_FEATURE_COOP_TASKRUN | LC_FEATURE_MULTISHOT_ACCEPT : 0);
        TRY(scenario_reopen(s));
        acceptor a;
        int clients[2];
        TRY(acceptor_open(s, &a));
        if (round & 2)
            CHECK_EQ(lc_listener_wait(a.listener, 1), 0);
        else
            CHECK_EQ(lc_listener_start(a.listener), 0);
        TRY(scenario_settle(s));
        for (uint32_t index = 0; index < 2; index++)
            TRY(client_connect(s, &a.address, &clients[index]));
        lc_listener_close(a.listener);
        CHECK_EQ(scenario_stats(s).timers, 0);
        PUMP_UNTIL(0, lc_listener_is_closed(a.listener));
        TRY(scenario_settle(s));
        CHECK_EQ(a.count, 0);
        CHECK_EQ(a.shutdowns, 1);
        lc_stats now = scenario_stats(s);
        CHECK_EQ(now.timers, 0);
        CHECK_EQ(now.accept_backoffs, 0);
        CHECK_EQ(now.in_kernel + now.armed, 0);
        lc_listener_release(a.listener);
        TRY(scenario_settle(s));
        CHECK_CALL(close(clients[0]));
        CHECK_CALL(close(clients[1]));
    }
    s->options = original;
    return 0;
}
