// SPDX-License-Identifier: Apache-2.0
/* faults_connect.c: connections that do not come about: refused, unreachable, too late, given up, out of ports. */
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include "faults.h"
#include "simulator.h"

/* One connection on its way; its stream's word. */
typedef struct attempt {
    lc_stream *stream;
    uint32_t told, closes;
} attempt;

static int attempt_told(scenario *s, lc_stream *stream) {
    attempt *a = (attempt *)(uintptr_t)lc_stream_word(stream);
    CHECK_EQ(lc_stream_send_waiter(stream), 11);
    a->told++;
    return 0;
}

static int attempt_closed(scenario *s, lc_stream *stream) {
    attempt *a = (attempt *)(uintptr_t)lc_stream_word(stream);
    CHECK_EQ(lc_stream_closed_waiter(stream), 12);
    a->closes++;
    return 0;
}

static int attempt_begin(scenario *s, attempt *a, const lc_address *to) {
    *a = (attempt){0};
    s->on.send = attempt_told;
    s->on.closed = attempt_closed;
    CHECK_EQ(lc_stream_connect(s->loop, (const struct sockaddr *)&to->storage, to->length, &a->stream), 0);
    lc_stream_set_word(a->stream, (uint64_t)(uintptr_t)a);
    CHECK_EQ(lc_stream_send_copy(a->stream, "never", 5), 0);
    CHECK_EQ(lc_stream_wait_send(a->stream, 11, 0), 0);
    return 0;
}

/* The matching error, once, and nothing is kept. */
static int attempt_failed(scenario *s, attempt *a, int expected) {
    RUN_UNTIL(a->told > 0);
    CHECK_EQ(lc_stream_connect_result(a->stream), expected);
    int broken = expected == -ECANCELED ? -ESHUTDOWN : expected; /* by the peer's doing, or by ours */
    CHECK_EQ(lc_stream_send_error(a->stream), broken);
    CHECK_EQ(lc_stream_send_copy(a->stream, "x", 1), broken);
    CHECK_EQ(lc_stream_unsent(a->stream), 0);
    TRY(scenario_settle(s));
    CHECK_EQ(a->told, 1);
    CHECK_EQ(scenario_stats(s).leased, 0);
    lc_stream_release(a->stream);
    return 0;
}

static int cannot_connect(scenario *s, const char *host, uint16_t port, int expected) {
    attempt a;
    lc_address address;
    CHECK_EQ(lc_address_parse(host, port, &address), 0);
    TRY(attempt_begin(s, &a, &address));
    return attempt_failed(s, &a, expected);
}

/* ---- refused, unreachable, too late ---- */

static int connect_where_nobody_listens(scenario *s) {
    attempt a;
    lc_address address;
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(bound);
    CHECK_EQ(lc_address_parse("127.9.55.1", 0, &address), 0);
    CHECK_CALL(bind(bound, (struct sockaddr *)&address.storage, address.length));
    CHECK_EQ(lc_address_local(bound, &address), 0);
    TRY(attempt_begin(s, &a, &address));
    TRY(attempt_failed(s, &a, -ECONNREFUSED));
    close(bound);
    return 0;
}

static int give_up(scenario *s, lc_kind kind, uint64_t word) {
    attempt *a = (attempt *)(uintptr_t)word;
    CHECK_EQ(kind, LC_KIND_CALL);
    CHECK_EQ(a->told, 0);
    CHECK_EQ(lc_stream_close(a->stream, true, false), 1);
    CHECK_EQ(lc_stream_wait_closed(a->stream, 12), 0);
    return 0;
}

/* A listener that never answers: once with a limit of the caller's own, once with the kernel's. */
static int connect_too_late(scenario *s) {
    enum { LIMIT_MS = 50, KERNEL_LIMIT_MS = 200, LATE_MS = 500 };
    int listening, fillers[FILLERS], limit_ms = KERNEL_LIMIT_MS;
    lc_address address;
    TRY(listen_full(s, &listening, fillers, &address));
    attempt patient, impatient;
    TRY(attempt_begin(s, &patient, &address));
    CHECK_CALL(setsockopt(lc_stream_fd(patient.stream), IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, sizeof limit_ms));
    TRY(attempt_begin(s, &impatient, &address));
    s->on.call = give_up;
    lc_call_id id;
    uint64_t deadline_ns = lc_now_ns() + LIMIT_MS * 1000000u;
    CHECK_EQ(lc_call_at(s->loop, LC_KIND_CALL, deadline_ns, (uint64_t)(uintptr_t)&impatient, &id), 0);
    RUN_UNTIL(impatient.told > 0 && impatient.closes > 0);
    CHECK_GE(lc_now_ns(), deadline_ns);
    CHECK_LT(lc_now_ns(), deadline_ns + LATE_MS * 1000000u);
    CHECK_EQ(lc_stream_connect_result(impatient.stream), -ECANCELED);
    lc_stream_release(impatient.stream);
    CHECK_EQ(patient.told, 0);
    TRY(attempt_failed(s, &patient, -ETIMEDOUT));
    CHECK_EQ(impatient.told, 1);
    CHECK_EQ(impatient.closes, 1);
    for (int index = 0; index < FILLERS; index++)
        close(fillers[index]);
    close(listening);
    return 0;
}

/* Packets to 10.9.55.0/24 are answered "host unreachable", without a network. */
static int add_unreachable_route(scenario *s) {
    struct {
        struct nlmsghdr header;
        struct rtmsg route;
        struct rtattr to;
        uint32_t address;
    } request = {
        .header = {.nlmsg_len = sizeof request,
                   .nlmsg_type = RTM_NEWROUTE,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK},
        .route = {.rtm_family = AF_INET,
                  .rtm_dst_len = 24,
                  .rtm_table = RT_TABLE_MAIN,
                  .rtm_protocol = RTPROT_STATIC,
                  .rtm_scope = RT_SCOPE_UNIVERSE,
                  .rtm_type = RTN_UNREACHABLE},
        .to = {.rta_len = sizeof(struct rtattr) + 4, .rta_type = RTA_DST},
        .address = htonl(0x0a093700),
    };
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[256];
    } answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    CHECK_CALL(fd);
    CHECK_CALL(send(fd, &request, sizeof request, 0));
    CHECK_CALL(recv(fd, &answer, sizeof answer, 0));
    CHECK_EQ(answer.header.nlmsg_type, NLMSG_ERROR);
    CHECK_EQ(answer.error.error, 0);
    close(fd);
    return 0;
}

static int connect_over_a_broken_network(scenario *s) {
    if (sim_is_process_wide() || !network_of_ones_own()) {
        say_skipped(s, "no network of its own here, so none can be down");
        return 0;
    }
    TRY(cannot_connect(s, "127.9.55.2", 9, -ENETUNREACH));
    TRY(loopback_up(s, true));
    TRY(connect_where_nobody_listens(s));
    TRY(add_unreachable_route(s));
    TRY(cannot_connect(s, "10.9.55.1", 9, -EHOSTUNREACH));
    /* It goes down later: Linux keeps trying, what exists stays, and all goes on once it is back. */
    endpoint e = {0};
    attempt pending;
    lc_address address;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(scenario_settle(s));
    TRY(loopback_up(s, false));
    CHECK_EQ(lc_address_parse("127.9.55.2", 9, &address), 0);
    TRY(attempt_begin(s, &pending, &address));
    TRY(scenario_settle(s));
    CHECK_EQ(pending.told, 0);
    CHECK_EQ(e.deliveries, 0);
    CHECK_EQ(lc_stream_close(pending.stream, true, false), 1);
    TRY(attempt_failed(s, &pending, -ECANCELED));
    TRY(loopback_up(s, true));
    uint8_t byte = pattern_byte(0, 0);
    TRY(peer_send(s, &e, &byte, 1));
    RUN_UNTIL(e.received == 1);
    TRY(connect_where_nobody_listens(s));
    return endpoint_close(s, &e);
}

int connections_that_fail(scenario *s) {
    TRY(connect_where_nobody_listens(s));
    TRY(cannot_connect(s, "255.255.255.255", 9, -ENETUNREACH)); /* TCP knows no broadcast */
    TRY(connect_too_late(s));
    return scenario_in_child(s, connect_over_a_broken_network);
}

/* ---- given up ---- */

/* Whether the kernel still knows a socket that connects from one address to another. */
static int still_connects(scenario *s, const lc_address *from, const lc_address *to, bool *known) {
    const struct sockaddr_in *local = (const struct sockaddr_in *)&from->storage;
    const struct sockaddr_in *remote = (const struct sockaddr_in *)&to->storage;
    struct {
        struct nlmsghdr header;
        struct inet_diag_req_v2 wanted;
    } request = {
        .header = {.nlmsg_len = sizeof request, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST},
        .wanted = {.sdiag_family = AF_INET,
                   .sdiag_protocol = IPPROTO_TCP,
                   .idiag_states = ~0u,
                   .id = {.idiag_sport = local->sin_port,
                          .idiag_dport = remote->sin_port,
                          .idiag_src = {local->sin_addr.s_addr},
                          .idiag_dst = {remote->sin_addr.s_addr},
                          .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    struct {
        struct nlmsghdr header;
        char rest[1024];
    } answer;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    CHECK_CALL(fd);
    CHECK_CALL(send(fd, &request, sizeof request, 0));
    CHECK_CALL(recv(fd, &answer, sizeof answer, 0));
    close(fd);
    /* A listener on the same address would be found too; this one has another port. */
    *known = answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY;
    return 0;
}

enum give_up_how { GIVE_UP_CLOSE, GIVE_UP_ABORT, GIVE_UP_RESET, GIVE_UP_RELEASE, GIVE_UP_WAYS };

static int give_up_pending(scenario *s, const lc_address *address, enum give_up_how how) {
    attempt a;
    lc_address local;
    TRY(attempt_begin(s, &a, address));
    TRY(scenario_settle(s));
    CHECK_EQ(a.told, 0);
    CHECK_EQ(lc_address_local(lc_stream_fd(a.stream), &local), 0);
    bool known;
    TRY(still_connects(s, &local, address, &known));
    if (!known)
        say_skipped(s, "the kernel does not list its sockets here, so one that is kept would not be seen");
    bool listed = known;
    int fds = scenario_fd_count();
    if (how == GIVE_UP_RELEASE) {
        lc_stream_release(a.stream);
        RUN_UNTIL(scenario_stats(s).streams == 0);
        CHECK_EQ(a.told, 0); /* nobody is left to be told */
    } else {
        CHECK_EQ(lc_stream_close(a.stream, how != GIVE_UP_CLOSE, how == GIVE_UP_RESET), 1);
        CHECK_EQ(lc_stream_wait_closed(a.stream, 12), 0);
        RUN_UNTIL(a.told > 0 && a.closes > 0);
        TRY(scenario_settle(s));
        CHECK_EQ(a.told, 1);
        CHECK_EQ(a.closes, 1);
        CHECK_EQ(lc_stream_connect_result(a.stream), -ECANCELED);
        CHECK_EQ(lc_stream_send_error(a.stream), -ESHUTDOWN);
        CHECK(lc_stream_is_closed(a.stream));
        lc_stream_release(a.stream);
    }
    CHECK_EQ(scenario_fd_count(), fds - 1);
    CHECK_EQ(scenario_stats(s).leased, 0);
    TRY(still_connects(s, &local, address, &known));
    CHECK(!listed || !known);
    return 0;
}

/* Success and the wish to close cross: the waiter is told once all the same, and the peer sees the end. */
static int give_up_too_late(scenario *s, uint32_t passes) {
    attempt a;
    int listening;
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    TRY(attempt_begin(s, &a, &address));
    for (uint32_t pass = 0; pass < passes; pass++)
        CHECK_GE(lc_loop_tick(s->loop, false), 0); /* what it brings is not told yet */
    CHECK_EQ(a.told, 0);
    CHECK_EQ(lc_stream_close(a.stream, true, false), 1);
    CHECK_EQ(lc_stream_wait_closed(a.stream, 12), 0);
    RUN_UNTIL(a.told > 0 && a.closes > 0);
    TRY(scenario_settle(s));
    CHECK_EQ(a.told, 1);
    CHECK_EQ(a.closes, 1);
    int result = lc_stream_connect_result(a.stream);
    CHECK(result == 0 || result == -ECANCELED);
    CHECK_EQ(lc_stream_send_error(a.stream), -ESHUTDOWN);
    lc_stream_release(a.stream);
    close(listening);
    return 0;
}

int connections_given_up(scenario *s) {
    int listening, fillers[FILLERS];
    lc_address address;
    TRY(listen_full(s, &listening, fillers, &address));
    for (enum give_up_how how = GIVE_UP_CLOSE; how < GIVE_UP_WAYS; how++)
        TRY(give_up_pending(s, &address, how));
    for (int index = 0; index < FILLERS; index++)
        close(fillers[index]);
    close(listening);
    TRY(give_up_too_late(s, 0));
    TRY(give_up_too_late(s, 1));
    return 0;
}

/* ---- out of ports ---- */

static int connect_without_ports(scenario *s) {
    enum { FIRST = 40000, LAST = 40009, PORTS = LAST - FIRST + 1 };
    if (!network_of_ones_own() || !limit_local_ports(FIRST, LAST)) {
        say_skipped(s, "no network of its own here, so ports cannot run out");
        return 0;
    }
    TRY(loopback_up(s, true));
    lc_address address;
    int listening;
    CHECK_EQ(lc_address_parse("127.9.57.3", 39999, &address), 0);
    CHECK_EQ(lc_socket_listen(&address, PORTS + 1, false, &listening), 0);
    attempt a[PORTS], more;
    for (uint32_t index = 0; index < PORTS; index++) {
        TRY(attempt_begin(s, &a[index], &address));
        RUN_UNTIL(a[index].told > 0);
        CHECK_EQ(lc_stream_connect_result(a[index].stream), 0);
    }
    for (uint32_t again = 0; again < 3; again++) {
        TRY(attempt_begin(s, &more, &address));
        TRY(attempt_failed(s, &more, -EADDRNOTAVAIL));
    }
    /* One that resets leaves its port at once. */
    CHECK_EQ(lc_stream_close(a[0].stream, true, true), 1);
    lc_stream_release(a[0].stream);
    RUN_UNTIL(scenario_stats(s).streams == PORTS - 1);
    TRY(attempt_begin(s, &a[0], &address));
    RUN_UNTIL(a[0].told > 0);
    CHECK_EQ(lc_stream_connect_result(a[0].stream), 0);
    for (uint32_t index = 0; index < PORTS; index++)
        lc_stream_release(a[index].stream);
    close(listening);
    return 0;
}

int connections_without_ports(scenario *s) { return scenario_in_child(s, connect_without_ports); }
