// SPDX-License-Identifier: Apache-2.0
/* faults_accept.c: listeners whose peers reset or are killed, and addresses nobody may listen on. */
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/close_range.h>
#include "faults.h"

/* ---- resets ---- */

static int client_reset(scenario *s, int fd) {
    endpoint e = {.peer = fd};
    return peer_reset(s, &e);
}

/* One more connection, which is answered: the listener and the slots of those before are in order. */
static int serve_one_more(scenario *s, server *v) {
    int client;
    TRY(clients_connect(s, v, &client, 0, 1));
    uint8_t byte = pattern_byte(0, 0), answer;
    CHECK_EQ(send(client, &byte, 1, MSG_NOSIGNAL), 1);
    RUN_UNTIL(lc_stream_unsent(v->ends[0].stream) == 0 && v->ends[0].received == 1);
    CHECK_EQ(recv(client, &answer, 1, 0), 1);
    CHECK_EQ(answer, byte);
    server_drop(v, &v->ends[0]);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    close(client);
    return 0;
}

/* Each is told its reset once, after what came before it, and its slot is free once it is let go. */
static int all_told_of_reset(scenario *s, server *v, uint32_t count, uint64_t received) {
    for (uint32_t index = 0; index < count; index++)
        RUN_UNTIL(v->ends[index].errors > 0);
    TRY(scenario_settle(s));
    for (uint32_t index = 0; index < count; index++) {
        endpoint *e = &v->ends[index];
        CHECK_EQ(e->error, -ECONNRESET);
        CHECK_EQ(e->errors, 1);
        CHECK_EQ(e->ends, 0);
        CHECK_EQ(e->received, received);
        lc_buffer *lease;
        CHECK_EQ(lc_stream_take(e->stream, &lease), -ECONNRESET); /* for whoever asks again */
    }
    for (uint32_t index = count; index-- > 0;)
        server_drop(v, &v->ends[index]);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    CHECK_EQ(scenario_stats(s).leased, 0);
    CHECK_LE(scenario_stats(s).in_kernel + scenario_stats(s).armed, 1); /* the accept */
    return serve_one_more(s, v);
}

int peers_that_reset(scenario *s) {
    enum { COUNT = 10, BYTES = 100 };
    uint8_t bytes[BYTES];
    pattern_fill(bytes, BYTES, 0, 0);
    int clients[COUNT];
    for (uint64_t sent = 0; sent <= BYTES; sent += BYTES) {
        server v = {.echo = false};
        TRY(server_open(s, &v, COUNT));
        v.echo = true;

        /* Before they are accepted: no pass in between. */
        for (uint32_t index = 0; index < COUNT; index++) {
            TRY(client_connect(s, &v.address, &clients[index]));
            if (sent)
                CHECK_EQ(send(clients[index], bytes, BYTES, MSG_NOSIGNAL), BYTES);
        }
        v.echo = false;
        for (uint32_t index = 0; index < COUNT; index++)
            TRY(client_reset(s, clients[index]));
        RUN_UNTIL(v.accepted == COUNT); /* Linux hands out the dead ones too */
        v.echo = true;
        TRY(all_told_of_reset(s, &v, COUNT, sent));

        /* After they are accepted, before the loop has asked for their bytes; then while it waits for more. */
        for (uint32_t settled = 0; settled < 2; settled++) {
            v.echo = false;
            TRY(clients_connect(s, &v, clients, 0, COUNT));
            if (settled)
                TRY(scenario_settle(s));
            for (uint32_t index = 0; index < COUNT; index++)
                if (sent)
                    CHECK_EQ(send(clients[index], bytes, BYTES, MSG_NOSIGNAL), BYTES);
            for (uint32_t index = 0; settled && index < COUNT; index++)
                RUN_UNTIL(v.ends[index].received == sent);
            for (uint32_t index = 0; index < COUNT; index++)
                TRY(client_reset(s, clients[index]));
            v.echo = true;
            TRY(all_told_of_reset(s, &v, COUNT, sent));
        }
        TRY(server_close(s, &v));
    }
    return 0;
}

/* ---- a peer that is killed ---- */

enum kill_when { KILL_IDLE, KILL_WITH_BYTES_UNREAD, KILL_WHILE_SENDING, KILL_WAYS };

/* In the child, between fork and its end: only what a forked thread may do. */
static void connect_and_linger(const lc_address *address, enum kill_when when) {
    static const uint8_t bytes[4096];
    syscall(SYS_close_range, 3u, ~0u, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address->storage, address->length) < 0)
        _exit(1);
    if (send(fd, bytes, 1, MSG_NOSIGNAL) != 1)
        _exit(2);
    while (when == KILL_WHILE_SENDING)
        if (send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) < 0)
            _exit(3);
    for (;;)
        pause();
}

typedef struct killing {
    server server;
    uint32_t sends;
} killing;

static int killed_received(scenario *s, lc_stream *stream) {
    (void)s;
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    e->deliveries++;
    for (;;) {
        lc_buffer *lease;
        int result = lc_stream_take(stream, &lease);
        if (result == 1) {
            e->received += lc_buffer_length(lease);
            lc_buffer_return(lease);
            continue;
        }
        e->ends += result == 0;
        if (result < 0 && result != -EAGAIN) {
            e->errors++;
            e->error = result;
        }
        break;
    }
    lc_stream_finish_delivery(stream);
    return 0;
}

static int kill_peer(scenario *s, server *v, enum kill_when when) {
    enum { QUEUED = 8 << 20, ENOUGH = 100000 };
    uint32_t accepted = v->accepted;
    pid_t child = fork();
    CHECK_CALL(child);
    if (child == 0)
        connect_and_linger(&v->address, when);
    endpoint *e = &v->ends[0];
    RUN_UNTIL(v->accepted == accepted + 1 && e->received > 0);
    if (when == KILL_WHILE_SENDING)
        RUN_UNTIL(e->received > ENOUGH);
    if (when == KILL_WITH_BYTES_UNREAD) {
        TRY(endpoint_send_until_stuck(s, e, QUEUED / 2));
        CHECK_EQ(lc_stream_wait_send(e->stream, 1, 0), 0);
    }
    CHECK_CALL(kill(child, SIGKILL));
    CHECK_CALL(waitpid(child, NULL, 0));
    RUN_UNTIL(e->ends + e->errors > 0);
    if (when == KILL_WITH_BYTES_UNREAD) {
        RUN_UNTIL(e->sends == 1);
        int error = lc_stream_send_error(e->stream);
        CHECK(error == -ECONNRESET || error == -EPIPE);
        CHECK_EQ(lc_stream_unsent(e->stream), 0);
    } else {
        CHECK_EQ(e->ends, 1); /* the kernel says goodbye for it */
    }
    TRY(scenario_settle(s));
    CHECK_EQ(e->ends + e->errors, 1);
    CHECK(e->errors == 0 || e->error == -ECONNRESET);
    CHECK_EQ(scenario_stats(s).leased, 0);
    server_drop(v, e);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    CHECK_LE(scenario_stats(s).in_kernel + scenario_stats(s).armed, 1);
    return 0;
}

int peers_that_are_killed(scenario *s) {
    server v = {0};
    s->on.receive = killed_received;
    TRY(server_open(s, &v, 1));
    for (enum kill_when when = KILL_IDLE; when < KILL_WAYS; when++)
        TRY(kill_peer(s, &v, when));
    return server_close(s, &v);
}

/* ---- where nobody can listen ---- */

/* The loop goes on after each refusal. */
static int echo_once(scenario *s) {
    server v = {.echo = true};
    TRY(server_open(s, &v, 1));
    TRY(serve_one_more(s, &v));
    return server_close(s, &v);
}

static int is_refused(scenario *s, const char *host, uint16_t port, int expected) {
    lc_address address;
    int fd = -1, before = scenario_fd_count();
    CHECK_EQ(lc_address_parse(host, port, &address), 0);
    CHECK_EQ(lc_socket_listen(&address, 8, false, &fd), expected);
    CHECK_EQ(fd, -1);
    CHECK_EQ(scenario_fd_count(), before);
    return 0;
}

static int cannot_listen(scenario *s, const char *host, uint16_t port, int expected) {
    TRY(is_refused(s, host, port, expected));
    return echo_once(s);
}

static int listen_where_taken(scenario *s) {
    int fd;
    lc_address address;
    TRY(listen_anywhere(s, 8, &fd, &address));
    char host[64];
    int port = lc_address_format(&address, host, sizeof host);
    CHECK_GT(port, 0);
    TRY(cannot_listen(s, host, (uint16_t)port, -EADDRINUSE));
    close(fd);
    return cannot_listen(s, "192.0.2.1", 0, -EADDRNOTAVAIL); /* kept for documentation: nobody's */
}

static int first_port_for_all(void) {
    int port = -1;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
    if (!file)
        return -1;
    if (fscanf(file, "%d", &port) != 1)
        port = -1;
    fclose(file);
    return port;
}

static int listen_without_the_right(scenario *s) {
    enum { NOBODY = 65534, PORT = 1 };
    if (first_port_for_all() <= PORT)
        network_of_ones_own(); /* where it has its ordinary value again */
    if (first_port_for_all() <= PORT) {
        say_skipped(s, "every port is open to everybody here, so EACCES cannot be seen");
        return 0;
    }
    TRY(loopback_up(s, true));
    if (geteuid() == 0 && (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)) {
        say_skipped(s, "the rights of root cannot be given up here, so EACCES cannot be seen");
        return 0;
    }
    return cannot_listen(s, "127.9.57.1", PORT, -EACCES);
}

/* Every port of one address is taken: the next listener gets none, and one that closes makes room again. */
static int listen_without_ports(scenario *s) {
    enum { FIRST = 40000, LAST = 40019, PORTS = LAST - FIRST + 1 };
    if (!network_of_ones_own() || !limit_local_ports(FIRST, LAST)) {
        say_skipped(s, "no network of its own here, so ports cannot run out");
        return 0;
    }
    TRY(loopback_up(s, true));
    lc_address address;
    int fds[PORTS + 1], count = 0, result = 0;
    CHECK_EQ(lc_address_parse("127.9.57.2", 0, &address), 0);
    while (count <= PORTS && (result = lc_socket_listen(&address, 8, false, &fds[count])) == 0)
        count++;
    CHECK_EQ(result, -EADDRINUSE);
    CHECK_EQ(count, PORTS);
    TRY(is_refused(s, "127.9.57.2", 0, -EADDRINUSE));
    close(fds[--count]);
    CHECK_EQ(lc_socket_listen(&address, 8, false, &fds[count]), 0);
    for (count++; count > 0;)
        close(fds[--count]);
    return echo_once(s);
}

int where_nobody_can_listen(scenario *s) {
    TRY(listen_where_taken(s));
    TRY(scenario_in_child(s, listen_without_the_right));
    return scenario_in_child(s, listen_without_ports);
}
