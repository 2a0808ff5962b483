// SPDX-License-Identifier: Apache-2.0
/* faults_load.c: a peer that floods, peers that dawdle, very many peers, and peers that come and go. */
#include <poll.h>
#include <sys/socket.h>
#include "faults.h"
#include "simulator.h"

/* ---- one that floods, and many that ask for little ---- */

enum { QUIET = 99 };

typedef struct flood {
    endpoint noisy;
    endpoint quiet[QUIET];
    uint32_t taken_at_once_max;
} flood;

static int flood_received(scenario *s, lc_stream *stream) {
    flood *f = s->context;
    if (stream != f->noisy.stream)
        return endpoint_received(s, stream);
    uint32_t taken = 0;
    lc_buffer *lease;
    int result;
    while ((result = lc_stream_take(stream, &lease)) == 1) {
        lc_buffer_return(lease);
        taken++;
    }
    CHECK_EQ(result, -EAGAIN);
    f->noisy.received += taken;
    if (f->taken_at_once_max < taken)
        f->taken_at_once_max = taken;
    lc_stream_finish_delivery(stream);
    return 0;
}

/* There is always more to read from it than one pass should. */
static int flood_on(scenario *s, flood *f) {
    static const uint8_t bytes[64 * 1024];
    for (;;) {
        ssize_t sent = send(f->noisy.peer, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            CHECK_EQ(errno, EAGAIN);
            return 0;
        }
    }
}

/* On its way through the network it has not kept the loop waiting yet. The loop may take it before this looks. */
static void arrive(const endpoint *e) {
    struct pollfd readable = {.fd = lc_stream_fd(e->stream), .events = POLLIN};
    poll(&readable, 1, 10);
}

static bool one_answered(const endpoint *e, uint64_t received) {
    return e->received == received && lc_stream_unsent(e->stream) == 0;
}

static bool all_answered(const flood *f, uint64_t received) {
    for (uint32_t index = 0; index < QUIET; index++)
        if (!one_answered(&f->quiet[index], received))
            return false;
    return true;
}

static int flood_with(scenario *s, uint32_t one_max, uint32_t all_max) {
    enum { ROUNDS = 2 };
    flood *f = calloc(1, sizeof *f);
    CHECK(f != NULL);
    s->context = f;
    s->on.receive = flood_received;
    s->verify_never = true;
    TRY(endpoint_open(s, &f->noisy, true));
    CHECK_EQ(lc_stream_start_receiving(f->noisy.stream), 0);
    for (uint32_t index = 0; index < QUIET; index++) {
        f->quiet[index].echo = true;
        TRY(endpoint_open(s, &f->quiet[index], true));
        CHECK_EQ(lc_stream_start_receiving(f->quiet[index].stream), 0);
    }
    for (uint32_t pass = 0; pass < 200; pass++) {
        TRY(flood_on(s, f));
        TRY(scenario_pass(s, false));
    }
    bool end = false;
    uint64_t position = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t index = 0; index < QUIET; index++) {
            endpoint *e = &f->quiet[index];
            uint8_t byte = pattern_byte(0, position);
            TRY(peer_send(s, e, &byte, 1));
            arrive(e);
            uint32_t passes = s->passes;
            PUMP_UNTIL(flood_on(s, f), one_answered(e, position + 1) || s->passes - passes > one_max);
            CHECK_LE(s->passes - passes, one_max);
            PUMP_UNTIL(peer_receive_some(s, e, 0, 1, &end), e->peer_received == position + 1);
        }
        position++;
        /* And all of them at once. */
        uint8_t byte = pattern_byte(0, position++);
        for (uint32_t index = 0; index < QUIET; index++)
            TRY(peer_send(s, &f->quiet[index], &byte, 1));
        arrive(&f->quiet[QUIET - 1]);
        uint32_t passes = s->passes;
        PUMP_UNTIL(flood_on(s, f), all_answered(f, position) || s->passes - passes > all_max);
        CHECK_LE(s->passes - passes, all_max);
        for (uint32_t index = 0; index < QUIET; index++)
            PUMP_UNTIL(peer_receive_some(s, &f->quiet[index], 0, 1, &end), f->quiet[index].peer_received == position);
    }
    CHECK(!end);
    CHECK_GT(f->noisy.received, 400); /* it was not quiet meanwhile */
    CHECK_LE(f->taken_at_once_max, scenario_is_proactor(s) ? 256 : 32);
    TRY(endpoint_close(s, &f->noisy));
    for (uint32_t index = 0; index < QUIET; index++)
        TRY(endpoint_close(s, &f->quiet[index]));
    RUN_UNTIL(scenario_stats(s).streams == 0);
    free(f);
    return 0;
}

int a_flood_starves_no_quiet_peer(scenario *s) {
    lc_options original = s->options;
    if (s->tiny)
        /* One answer is seen per pass, and one buffer is asked for by all, most of the time in vain. */
        return flood_with(s, 16, (scenario_is_proactor(s) ? 64 : 4) * QUIET);
    s->options.buffer_size = 1024; /* less than a socket holds, by far */
    TRY(scenario_reopen(s));
    TRY(flood_with(s, 8, 16));
    /* Fewer buffers than the flood takes whenever it is its turn. */
    for (s->options.buffer_count = 2; s->options.buffer_count <= 8; s->options.buffer_count *= 4) {
        TRY(scenario_reopen(s));
        TRY(flood_with(s, 8, 4 * QUIET));
    }
    s->options = original;
    return 0;
}

/* ---- many that send a byte now and then ---- */

typedef struct idler {
    uint64_t deadline_ns;
    lc_call_id timer;
} idler;

typedef struct idlers {
    server server;
    idler *of; /* each end of the server */
    uint64_t received;
    uint32_t closed;
} idlers;

static int idler_set_timer(scenario *s, idlers *all, endpoint *e, uint64_t deadline_ns) {
    idler *i = &all->of[e - all->server.ends];
    i->deadline_ns = deadline_ns;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, deadline_ns, (uint64_t)(uintptr_t)e, &i->timer), 0);
    return 0;
}

static int idler_move_timer(scenario *s, idlers *all, endpoint *e, uint64_t deadline_ns) {
    uint64_t word;
    CHECK_EQ(lc_call_cancel(s->loop, all->of[e - all->server.ends].timer, &word), 1);
    return idler_set_timer(s, all, e, deadline_ns);
}

static const uint64_t idle_for_ns = 60ull * 1000000000u;

static int idler_opened(scenario *s, endpoint *e) {
    return idler_set_timer(s, s->context, e, lc_now_ns() + idle_for_ns);
}

static int idler_received(scenario *s, lc_stream *stream) {
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    uint64_t before = e->received;
    TRY(endpoint_received(s, stream));
    ((idlers *)s->context)->received += e->received - before;
    return idler_move_timer(s, s->context, e, lc_now_ns() + idle_for_ns);
}

static int idler_too_slow(scenario *s, lc_kind kind, uint64_t word) {
    idlers *all = s->context;
    endpoint *e = (endpoint *)(uintptr_t)word;
    CHECK_EQ(kind, LC_KIND_CALL);
    CHECK_GE(lc_now_ns(), all->of[e - all->server.ends].deadline_ns);
    server_drop(&all->server, e);
    all->closed++;
    return 0;
}

static int idlers_quiet_down(scenario *s) {
    /* Two events that bring nothing else to do: what is left of the last bytes. */
    TRY(scenario_settle(s));
    CHECK_EQ(scenario_stats(s).leased, 0); /* nothing is kept for a connection that says nothing */
    return 0;
}

static int many_slow_peers(scenario *s) {
    enum { ROUNDS = 10, EACH = 10 };
    uint32_t count;
    TRY(raise_connection_limit(s, scenario_long() ? 5000 : 1000, &count));
    idlers all = {.server.opened = idler_opened};
    all.of = calloc(count, sizeof *all.of);
    int *clients = calloc(count, sizeof *clients);
    CHECK(all.of != NULL && clients != NULL);
    s->context = &all;
    s->on.receive = idler_received;
    s->on.call = idler_too_slow;
    s->verify_never = true;
    TRY(server_open(s, &all.server, count));
    TRY(clients_connect(s, &all.server, clients, 0, count));
    CHECK_EQ(scenario_stats(s).timers, count);

    uint64_t sent = 0, cpu_ns = 0;
    uint32_t passes = 0;
    uint64_t completions = scenario_stats(s).completions;
    size_t heap = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        /* Other ones each time. A single buffer for all is asked for by few at once. */
        uint32_t at_once = s->tiny ? 4 : count;
        for (uint32_t index = round; index < count;) {
            for (uint32_t batch = 0; index < count && batch < at_once; index += EACH, batch++, sent++) {
                uint8_t byte = pattern_byte(0, 0);
                CHECK_EQ(send(clients[index], &byte, 1, MSG_NOSIGNAL), 1);
            }
            uint32_t before = s->passes;
            uint64_t cpu_before_ns = thread_cpu_ns();
            RUN_UNTIL(all.received == sent);
            passes += s->passes - before;
            cpu_ns += thread_cpu_ns() - cpu_before_ns;
        }
        TRY(idlers_quiet_down(s));
        if (round == 1)
            heap = heap_in_use();
    }
    lc_loop_verify(s->loop);
    uint32_t told = 0;
    for (uint32_t index = 0; index < count; index++)
        told += all.server.ends[index].deliveries;
    CHECK_EQ(told, sent);
    CHECK_LE(scenario_stats(s).completions - completions, 4 * sent + 64);
    CHECK_LE(passes, s->tiny ? 6 * sent : sent + 64);
    CHECK_EQ(scenario_stats(s).timers, count);
    if (!SCENARIO_SANITIZED) {
        CHECK_LE(cpu_ns / sent, 300000);
        CHECK_LE(heap_in_use(), heap + 4096);
    }

    /* Their time is up, one after the other. */
    uint64_t now_ns = lc_now_ns();
    for (uint32_t index = 0; index < count; index++)
        TRY(idler_move_timer(s, &all, &all.server.ends[index], now_ns + 10000000u + index * 10000u));
    RUN_UNTIL(all.closed == count);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    CHECK_EQ(scenario_stats(s).timers, 0);
    for (uint32_t index = 0; index < count; index++) {
        uint8_t byte;
        CHECK_EQ(recv(clients[index], &byte, 1, 0), 0);
        close(clients[index]);
    }
    TRY(server_close(s, &all.server));
    free(all.of);
    free(clients);
    return 0;
}

int slow_peers_cost_what_they_send(scenario *s) { return scenario_in_child(s, many_slow_peers); }

/* ---- very many ---- */

static int very_many(scenario *s) {
    enum { SIZE = 24, BYTES_EACH_MAX = 2048 };
    uint32_t count;
    TRY(raise_connection_limit(s, scenario_long() ? 50000 : 2000, &count));
    s->verify_never = true;
    server v = {.echo = true};
    TRY(server_open(s, &v, count));
    int *clients = calloc(count, sizeof *clients);
    CHECK(clients != NULL);
    uint8_t bytes[SIZE], answer[SIZE];
    pattern_fill(bytes, SIZE, 0, 0);
    /* What is used once for all of them is in use before memory is measured. */
    TRY(clients_connect(s, &v, clients, 0, 64));
    for (uint32_t index = 0; index < 64; index++)
        CHECK_EQ(send(clients[index], bytes, SIZE, MSG_NOSIGNAL), SIZE);
    RUN_UNTIL(v.ends[63].received == SIZE);
    TRY(scenario_settle(s));
    size_t resident = memory_resident();
    TRY(clients_connect(s, &v, clients, 64, count - 64));
    CHECK_EQ(scenario_stats(s).streams, count);
    for (uint32_t index = 64; index < count; index++)
        CHECK_EQ(send(clients[index], bytes, SIZE, MSG_NOSIGNAL), SIZE);
    for (uint32_t index = 0; index < count; index++)
        RUN_UNTIL(v.ends[index].received == SIZE && lc_stream_unsent(v.ends[index].stream) == 0);
    for (uint32_t index = 0; index < count; index++) {
        CHECK_EQ(recv(clients[index], answer, SIZE, MSG_WAITALL), SIZE);
        TRY(pattern_check(s, answer, SIZE, 0, 0));
    }
    lc_loop_verify(s->loop);
    CHECK_EQ(scenario_stats(s).leased, 0);
    if (!SCENARIO_SANITIZED && !sim_is_process_wide()) /* what is queued would be the program's own memory, too */
        CHECK_LE(memory_resident(), resident + (size_t)count * BYTES_EACH_MAX);
    for (uint32_t index = 0; index < count; index++)
        close(clients[index]);
    for (uint32_t index = 0; index < count; index++)
        RUN_UNTIL(v.ends[index].ends == 1);
    TRY(server_close(s, &v));
    free(clients);
    return 0;
}

int very_many_connections(scenario *s) { return scenario_in_child(s, very_many); }

/* ---- coming and going ---- */

enum { COMERS = 16, VISIT_BYTES = 64 };

typedef struct comer {
    endpoint end;
    uint32_t visit;
    bool waits; /* for a port */
} comer;

typedef struct churn {
    server server;
    comer comers[COMERS];
    uint32_t begun, served, no_port;
    bool until_no_port; /* or, if not that, until a time */
    uint64_t until_ns;
} churn;

static bool churn_goes_on(const churn *all) {
    return all->until_no_port ? all->no_port == 0 : lc_now_ns() < all->until_ns;
}

static int comer_begin(scenario *s, churn *all, comer *c) {
    uint8_t bytes[VISIT_BYTES];
    pattern_fill(bytes, sizeof bytes, 0, 0);
    c->end = (endpoint){.peer = -1};
    c->waits = false;
    c->visit = all->begun++;
    CHECK_EQ(lc_stream_connect(s->loop, (struct sockaddr *)&all->server.address.storage, all->server.address.length,
                               &c->end.stream),
             0);
    lc_stream_set_word(c->end.stream, (uint64_t)(uintptr_t)&c->end);
    CHECK_EQ(lc_stream_send_copy(c->end.stream, bytes, sizeof bytes), 0);
    CHECK_EQ(lc_stream_wait_send(c->end.stream, 1, 0), 0);
    return 0;
}

static int comer_again(scenario *s, churn *all, comer *c) {
    c->end.stream = NULL;
    c->waits = false;
    return churn_goes_on(all) ? comer_begin(s, all, c) : 0;
}

static int comer_later(scenario *s, lc_kind kind, uint64_t word) {
    (void)kind;
    return comer_again(s, s->context, (comer *)(uintptr_t)word);
}

/* Connected and all sent, or not: ports run out when they come faster than the kernel forgets those who went. */
static int comer_sent(scenario *s, lc_stream *stream) {
    churn *all = s->context;
    comer *c = (comer *)(uintptr_t)lc_stream_word(stream);
    CHECK_EQ(lc_stream_send_waiter(stream), 1);
    int result = lc_stream_connect_result(stream);
    if (result == 0) {
        CHECK_EQ(lc_stream_send_error(stream), 0);
        CHECK_EQ(lc_stream_start_receiving(stream), 0);
        return 0;
    }
    CHECK_EQ(result, -EADDRNOTAVAIL);
    all->no_port++;
    lc_stream_release(stream);
    c->end.stream = NULL;
    c->waits = true;
    lc_call_id id;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, lc_now_ns() + 1000000u, (uint64_t)(uintptr_t)c, &id), 0);
    return 0;
}

static int comer_received(scenario *s, churn *all, comer *c) {
    if (c->end.received < VISIT_BYTES)
        return 0;
    CHECK_EQ(c->end.received, VISIT_BYTES);
    all->served++;
    lc_stream *stream = c->end.stream;
    switch (all->until_no_port ? c->visit % 2 : c->visit % 8) {
    case 0: /* gone at once */
        break;
    case 1: /* politely */
        CHECK_EQ(lc_stream_close(stream, false, false), 1);
        break;
    default: /* with a reset, which leaves nothing behind in the kernel either */
        CHECK_EQ(lc_stream_close(stream, true, true), 1);
        break;
    }
    lc_stream_release(stream);
    return comer_again(s, all, c);
}

static int churn_received(scenario *s, lc_stream *stream) {
    churn *all = s->context;
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    TRY(endpoint_received(s, stream));
    if (e >= all->server.ends && e < all->server.ends + all->server.end_max) {
        if (e->ends || e->errors)
            server_drop(&all->server, e);
        return 0;
    }
    CHECK_EQ(e->errors, 0);
    CHECK_EQ(e->ends, 0);
    return comer_received(s, all, (comer *)(void *)e);
}

static bool churn_over(const churn *all) {
    for (uint32_t index = 0; index < COMERS; index++)
        if (all->comers[index].end.stream || all->comers[index].waits)
            return false;
    return all->server.unused_count == all->server.end_max;
}

/* First until ports run out, where a network of one's own allows to make them few, then for a while. */
static int come_and_go(scenario *s) {
    enum { FEW_MS = 100, ORDINARY_MS = 800, LONG_MS = 60000 };
    bool few_ports = !sim_is_process_wide() && network_of_ones_own();
    if (few_ports)
        TRY(loopback_up(s, true));
    few_ports = few_ports && limit_local_ports(40000, 40099);
    if (!few_ports)
        say_skipped(s, "no network of its own here, so ports may not run out");
    churn all = {.server.echo = true};
    s->context = &all;
    s->on.receive = churn_received;
    s->on.send = comer_sent;
    s->on.call = comer_later;
    s->verify_never = true;
    TRY(server_open(s, &all.server, 8 * COMERS));
    size_t heap = 0;
    int fds = scenario_fd_count();
    for (uint32_t round = 0; round < 2; round++) {
        uint32_t for_ms = round == 0 ? FEW_MS : scenario_long() ? LONG_MS : ORDINARY_MS;
        all.until_ns = lc_now_ns() + for_ms * 1000000ull;
        all.until_no_port = few_ports && round == 0;
        for (uint32_t index = 0; index < COMERS; index++)
            TRY(comer_begin(s, &all, &all.comers[index]));
        RUN_UNTIL(churn_over(&all));
        RUN_UNTIL(scenario_stats(s).streams == 0);
        if (round > 0)
            continue;
        CHECK(!few_ports || all.no_port > 0);
        heap = heap_in_use(); /* what is made when first needed has been made */
        few_ports = few_ports && limit_local_ports(32768, 60999);
    }
    lc_loop_verify(s->loop);
    CHECK_EQ(all.served + all.no_port, all.begun);
    CHECK_GE(all.served, 200);
    CHECK_EQ(scenario_stats(s).leased, 0);
    CHECK_EQ(scenario_stats(s).timers, 0);
    CHECK_EQ(scenario_fd_count(), fds);
    if (!SCENARIO_SANITIZED)
        CHECK_LE(heap_in_use(), heap + 64 * 1024);
    return server_close(s, &all.server);
}

int peers_come_and_go(scenario *s) { return scenario_in_child(s, come_and_go); }
