// SPDX-License-Identifier: Apache-2.0
/* buffers.c: leases: back from any thread, at any time, and enough for everybody. */
#include <sched.h>
#include "scenario.h"

static int return_held(scenario *s, void *context) {
    (void)s;
    endpoint_return_held(context);
    return 0;
}

/* Makes the endpoint hold at least `count` leases. */
static int hold_leases(scenario *s, endpoint *e, size_t count) {
    e->hold = true;
    CHECK_EQ(lc_stream_start_receiving(e->stream), 0);
    uint8_t bytes[64];
    uint64_t sent = e->received;
    while (e->held_count < count) {
        pattern_fill(bytes, sizeof bytes, e->seed, sent);
        TRY(peer_send(s, e, bytes, sizeof bytes));
        sent += sizeof bytes;
        RUN_UNTIL(e->received == sent);
    }
    return 0;
}

/* The loop closes and is freed; the bytes stay readable until the last lease is back, wherever that happens. */
int leases_outlive_the_loop(scenario *s) {
    endpoint e = {0};
    TRY(endpoint_open(s, &e, true));
    TRY(hold_leases(s, &e, 100));
    CHECK_EQ(scenario_stats(s).leased, e.held_count);
    lc_loop *loop = s->loop;
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    CHECK_EQ(scenario_stats(s).in_kernel, 0);
    scenario_forget_loop(s);
    lc_loop_free(loop);
    close(e.peer);
    uint64_t position = 0;
    for (size_t index = 0; index < e.held_count; index++) {
        lc_buffer *lease = e.held[index];
        TRY(pattern_check(s, lc_buffer_bytes(lease), lc_buffer_length(lease), 0, position));
        position += lc_buffer_length(lease);
    }
    CHECK_EQ(position, e.received);
    helper other;
    TRY(helper_start(s, &other, return_held, &e));
    return helper_join(s, &other);
}

/* Half the leases go back on another thread while the loop closes on this one. */
int leases_return_while_the_loop_closes(scenario *s) {
    for (uint32_t round = 0; round < 20; round++) {
        endpoint e = {0};
        TRY(endpoint_open(s, &e, true));
        TRY(hold_leases(s, &e, 200));
        lc_loop *loop = s->loop;
        helper other;
        TRY(helper_start(s, &other, return_held, &e));
        if (round % 2)
            TRY(scenario_settle(s));
        lc_loop_leave(loop);
        CHECK_EQ(lc_loop_close(loop), 0);
        scenario_forget_loop(s);
        lc_loop_free(loop);
        TRY(helper_join(s, &other));
        CHECK_CALL(close(e.peer));
        TRY(scenario_reopen(s));
    }
    return 0;
}

/* ---- returned by other threads while the loop runs ---- */

typedef struct handover {
    pthread_mutex_t lock;
    lc_buffer *stack[1024];
    size_t count;
    atomic_bool over;
    endpoint e;
    uint64_t total;
} handover;

static int hand_over(scenario *s, lc_stream *stream) {
    handover *h = s->context;
    lc_buffer *lease;
    int result;
    lc_stream_receive_waiter(stream);
    while ((result = lc_stream_take(stream, &lease)) == 1) {
        TRY(pattern_check(s, lc_buffer_bytes(lease), lc_buffer_length(lease), 0, h->e.received));
        h->e.received += lc_buffer_length(lease);
        pthread_mutex_lock(&h->lock);
        bool room = h->count < 1024;
        if (room)
            h->stack[h->count++] = lease;
        pthread_mutex_unlock(&h->lock);
        if (!room)
            lc_buffer_return(lease);
    }
    CHECK(result == -EAGAIN || result == 0);
    h->e.ends += result == 0;
    lc_stream_finish_delivery(stream);
    return 0;
}

static int give_back(scenario *s, void *context) {
    handover *h = context;
    for (;;) {
        bool over = atomic_load(&h->over);
        pthread_mutex_lock(&h->lock);
        lc_buffer *lease = h->count ? h->stack[--h->count] : NULL;
        pthread_mutex_unlock(&h->lock);
        if (lease)
            lc_buffer_return(lease);
        else if (over)
            return 0;
        else if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "time ran out");
        else
            sched_yield();
    }
}

static int send_much(scenario *s, void *context) {
    handover *h = context;
    uint8_t bytes[5000];
    for (uint64_t sent = 0; sent < h->total;) {
        size_t part = h->total - sent < sizeof bytes ? (size_t)(h->total - sent) : sizeof bytes;
        pattern_fill(bytes, part, 0, sent);
        TRY(peer_send(s, &h->e, bytes, part));
        sent += part;
    }
    CHECK_CALL(shutdown(h->e.peer, SHUT_WR));
    return 0;
}

int leases_return_from_other_threads(scenario *s) {
    handover *h = calloc(1, sizeof *h);
    CHECK(h != NULL);
    h->total = s->tiny ? 512 * 1024 : 16 << 20;
    pthread_mutex_init(&h->lock, NULL);
    TRY(endpoint_open(s, &h->e, true));
    s->context = h;
    s->on.receive = hand_over;
    CHECK_EQ(lc_stream_start_receiving(h->e.stream), 0);
    helper sending, returning[2];
    TRY(helper_start(s, &sending, send_much, h));
    TRY(helper_start(s, &returning[0], give_back, h));
    TRY(helper_start(s, &returning[1], give_back, h));
    RUN_UNTIL(h->e.ends == 1);
    CHECK_EQ(h->e.received, h->total);
    atomic_store(&h->over, true);
    TRY(helper_join(s, &sending));
    TRY(helper_join(s, &returning[0]));
    TRY(helper_join(s, &returning[1]));
    TRY(scenario_settle(s));
    CHECK_EQ(scenario_stats(s).leased, 0);
    TRY(endpoint_close(s, &h->e));
    pthread_mutex_destroy(&h->lock);
    free(h);
    return 0;
}

/* ---- enough for everybody ---- */

int a_hoarder_starves_nobody(scenario *s) {
    endpoint hoarder = {0}, other = {.echo = true};
    TRY(endpoint_open(s, &hoarder, true));
    TRY(endpoint_open(s, &other, true));
    TRY(hold_leases(s, &hoarder, 400)); /* more than any group has here */
    CHECK_GE(scenario_stats(s).leased, 400);
    CHECK_GT(scenario_stats(s).copied_out, 0);
    CHECK_EQ(lc_stream_start_receiving(other.stream), 0);
    uint8_t bytes[3000];
    bool end = false;
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &other, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &other, 0, sizeof bytes, &end), other.peer_received == sizeof bytes);
    TRY(hold_leases(s, &hoarder, 450)); /* and the hoarder itself goes on */
    endpoint_return_held(&hoarder);
    TRY(endpoint_close(s, &hoarder));
    return endpoint_close(s, &other);
}

/* One buffer of 64 bytes, or two, for 64 peers that send 2000 each: whoever found none gets its turn. */
static int many_share_few(scenario *s, uint32_t buffer_count) {
    enum { SENDERS = 64, SIZE = 2000 };
    lc_options original = s->options;
    s->options.buffer_count = buffer_count;
    s->options.buffer_size = 64;
    TRY(scenario_reopen(s));
    endpoint *all = calloc(SENDERS, sizeof *all);
    CHECK(all != NULL);
    uint8_t bytes[SIZE];
    for (uint32_t index = 0; index < SENDERS; index++) {
        all[index].seed = index;
        TRY(endpoint_open(s, &all[index], index % 2));
        CHECK_EQ(lc_stream_start_receiving(all[index].stream), 0);
        pattern_fill(bytes, SIZE, index, 0);
        TRY(peer_send(s, &all[index], bytes, SIZE));
        CHECK_CALL(shutdown(all[index].peer, SHUT_WR));
    }
    uint32_t done;
    do {
        if (scenario_late(s))
            return scenario_fail(s, __FILE__, __LINE__, "time ran out");
        done = 0;
        for (uint32_t index = 0; index < SENDERS; index++)
            done += all[index].ends == 1;
        if (done < SENDERS)
            TRY(scenario_pass(s, true));
    } while (done < SENDERS);
    for (uint32_t index = 0; index < SENDERS; index++) {
        CHECK_EQ(all[index].received, SIZE);
        CHECK_EQ(all[index].errors, 0);
        TRY(endpoint_close(s, &all[index]));
    }
    free(all);
    s->options = original;
    return 0;
}

int many_senders_share_one_buffer(scenario *s) { return many_share_few(s, 1); }
int many_senders_share_a_few_buffers(scenario *s) { return many_share_few(s, 8); }

/* A stream that waits for a buffer may close like any other. */
int a_starved_stream_closes(scenario *s) {
    enum { STREAMS = 32 };
    s->options.buffer_count = 1;
    s->options.buffer_size = 64;
    TRY(scenario_reopen(s));
    endpoint *all = calloc(STREAMS, sizeof *all);
    CHECK(all != NULL);
    uint8_t bytes[640];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    for (uint32_t index = 0; index < STREAMS; index++) {
        TRY(endpoint_open(s, &all[index], false));
        CHECK_EQ(lc_stream_start_receiving(all[index].stream), 0);
        TRY(peer_send(s, &all[index], bytes, sizeof bytes));
    }
    TRY(scenario_pass(s, false));
    TRY(scenario_pass(s, false));
    for (uint32_t index = 0; index < STREAMS; index += 2)
        TRY(endpoint_close(s, &all[index]));
    for (uint32_t index = 1; index < STREAMS; index += 2) {
        RUN_UNTIL(all[index].received == sizeof bytes);
        TRY(endpoint_close(s, &all[index]));
    }
    free(all);
    s->options = scenario_options(s->backend, s->tiny);
    return 0;
}
