// SPDX-License-Identifier: Apache-2.0
/* faults_shim_self.c: the shim itself: that what is planned happens, to the calls it names and to no other. */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include "scenario.h"
#include "shim.h"

/* ---- errors ---- */

static int call_once(shim_call call, int fd) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct epoll_event event = {.events = EPOLLIN};
    struct itimerspec time = {0};
    struct stat status;
    char byte;
    int value = 0;
    socklen_t size = sizeof value;
    switch (call) {
    case SHIM_SOCKET:
        return socket(AF_INET, SOCK_STREAM, 0);
    case SHIM_BIND:
        return bind(fd, (struct sockaddr *)&address, sizeof address);
    case SHIM_LISTEN:
        return listen(fd, 1);
    case SHIM_ACCEPT:
        return accept4(fd, NULL, NULL, 0);
    case SHIM_CONNECT:
        return connect(fd, (struct sockaddr *)&address, sizeof address);
    case SHIM_SHUTDOWN:
        return shutdown(fd, SHUT_RD);
    case SHIM_RECV:
        return (int)recv(fd, &byte, 1, MSG_DONTWAIT);
    case SHIM_SEND:
        return (int)send(fd, "", 0, MSG_DONTWAIT);
    case SHIM_READ:
        return (int)read(fd, &byte, 0);
    case SHIM_WRITE:
        return (int)write(fd, "", 0);
    case SHIM_EVENTFD:
        return eventfd(0, 0);
    case SHIM_TIMERFD_CREATE:
        return timerfd_create(CLOCK_MONOTONIC, 0);
    case SHIM_TIMERFD_SETTIME:
        return timerfd_settime(fd, 0, &time, NULL);
    case SHIM_EPOLL_CREATE:
        return epoll_create1(0);
    case SHIM_EPOLL_CTL:
        return epoll_ctl(fd, EPOLL_CTL_ADD, fd, &event);
    case SHIM_EPOLL_WAIT:
        return epoll_wait(fd, &event, 1, 0);
    case SHIM_GETSOCKOPT:
        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size);
    case SHIM_SETSOCKOPT:
        return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, size);
    case SHIM_FCNTL:
        return fcntl(fd, F_GETFD);
    case SHIM_FSTAT:
        return fstat(fd, &status);
    case SHIM_MMAP:
        return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
    default:
        return 0;
    }
}

/* An errno that none of these calls gives by itself, so it can only come from the plan. */
int planned_errors_are_played(scenario *s) {
    static const shim_call calls[] = {
        SHIM_SOCKET,    SHIM_BIND,           SHIM_LISTEN,       SHIM_ACCEPT,     SHIM_CONNECT,
        SHIM_SHUTDOWN,  SHIM_RECV,           SHIM_SEND,         SHIM_READ,       SHIM_WRITE,
        SHIM_EVENTFD,   SHIM_TIMERFD_CREATE, SHIM_EPOLL_CREATE, SHIM_FCNTL,      SHIM_TIMERFD_SETTIME,
        SHIM_EPOLL_CTL, SHIM_EPOLL_WAIT,     SHIM_GETSOCKOPT,   SHIM_SETSOCKOPT, SHIM_FSTAT,
        SHIM_MMAP};
    int fds[2];
    TRY(pair_unix(s, fds));
    for (size_t index = 0; index < sizeof calls / sizeof *calls; index++) {
        shim_fault fault = {.call = calls[index], .nth = 2, .error = EXFULL};
        shim_arm(&fault, 1);
        /* The first goes through: it fails by itself or not at all. What it may open is closed below. */
        errno = 0;
        bool opens = calls[index] == SHIM_SOCKET || calls[index] == SHIM_EVENTFD ||
                     calls[index] == SHIM_TIMERFD_CREATE || calls[index] == SHIM_EPOLL_CREATE;
        int first = call_once(calls[index], fds[0]), first_error = errno;
        uint32_t after_first = shim_faults_played();
        int second = call_once(calls[index], fds[0]), second_error = errno;
        shim_disarm();
        if (opens && first >= 0)
            CHECK_CALL(close(first));
        CHECK_NE(first_error, EXFULL);
        CHECK_EQ(after_first, 0);
        CHECK_EQ(second, -1);
        CHECK_EQ(second_error, EXFULL);
        CHECK_EQ(shim_faults_played(), 1);
        CHECK_EQ(shim_calls(calls[index]), 2);
        errno = 0;
        int third = call_once(calls[index], fds[0]);
        CHECK_NE(errno, EXFULL);
        if (opens && third >= 0)
            CHECK_CALL(close(third));
        CHECK_EQ(shim_calls(calls[index]), 2); /* nobody counts any more */
    }
    CHECK_CALL(close(fds[1]));
    /* A close that fails has closed. */
    shim_fault fault = {.call = SHIM_CLOSE, .error = EIO};
    shim_arm(&fault, 1);
    int result = close(fds[0]), error = errno;
    shim_disarm();
    CHECK_EQ(result, -1);
    CHECK_EQ(error, EIO);
    CHECK_EQ(close(fds[0]), -1);
    CHECK_EQ(errno, EBADF);
    return 0;
}

/* ---- lengths ---- */

int planned_lengths_are_kept(scenario *s) {
    int fds[2];
    TRY(pair_unix(s, fds));
    char bytes[16] = "0123456789abcde";
    shim_fault faults[] = {{.call = SHIM_SEND, .count = 2, .at_most = 7}, {.call = SHIM_RECV, .nth = 2, .at_most = 3}};
    struct iovec vectors[] = {{.iov_base = bytes, .iov_len = 5}, {.iov_base = bytes + 5, .iov_len = 5}};
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = 2};
    shim_arm(faults, 2);
    ssize_t sent[] = {send(fds[0], bytes, 10, 0), sendmsg(fds[0], &message, 0), sendmsg(fds[0], &message, 0)};
    char got[3][32] = {{0}};
    ssize_t received[] = {recv(fds[1], got[0], 14, MSG_DONTWAIT), recv(fds[1], got[1], 10, MSG_DONTWAIT),
                          recv(fds[1], got[2], 32, MSG_DONTWAIT)};
    shim_disarm();
    CHECK_EQ(sent[0], 7);
    CHECK_EQ(sent[1], 7);
    CHECK_EQ(sent[2], 10);
    CHECK_EQ(message.msg_iovlen, 2);
    CHECK_EQ(vectors[1].iov_len, 5); /* the caller's are as they were */
    CHECK_EQ(received[0], 14);
    CHECK_EQ(received[1], 3);
    CHECK_EQ(received[2], 7);
    CHECK(memcmp(got[0], "01234560123456", 14) == 0);
    CHECK(memcmp(got[1], "012", 3) == 0);
    CHECK(memcmp(got[2], "3456789", 7) == 0);
    CHECK_EQ(shim_faults_played(), 3);
    CHECK_CALL(close(fds[0]));
    CHECK_CALL(close(fds[1]));
    return 0;
}

/* ---- allocations, time, threads ---- */

static int allocate_elsewhere(scenario *s, void *context) {
    (void)s;
    void *memory = malloc(100);
    *(bool *)context = memory != NULL;
    free(memory);
    return 0;
}

int planned_allocations_fail(scenario *s) {
    if (!shim_allocation_faults_possible())
        return 0;
    bool elsewhere = false;
    shim_fault fault = {.call = SHIM_ALLOCATE, .count = SHIM_FOR_EVER, .error = ENOMEM};
    helper other;
    shim_arm(&fault, 0); /* a thread costs allocations */
    TRY(helper_start(s, &other, allocate_elsewhere, &elsewhere));
    TRY(helper_join(s, &other));
    shim_arm(&fault, 1);
    /* Volatile, or the compiler knows better than to ask. */
    void *volatile memory[3] = {malloc(10), calloc(1, 10), realloc(NULL, 10)};
    void *aligned = NULL;
    int result = posix_memalign(&aligned, 64, 64);
    shim_disarm();
    CHECK(!memory[0] && !memory[1] && !memory[2] && !aligned);
    CHECK_EQ(result, ENOMEM);
    CHECK_EQ(shim_faults_played(), 4);
    CHECK(elsewhere);
    CHECK_EQ(posix_memalign(&aligned, 64, 64), 0);
    CHECK_EQ((uintptr_t)aligned % 64, 0);
    free(aligned);
    return 0;
}

int a_planned_delay_takes_its_time(scenario *s) {
    int fds[2];
    TRY(pair_unix(s, fds));
    shim_fault fault = {.call = SHIM_SEND, .delay_us = 20000};
    uint64_t from_ns = lc_now_ns();
    shim_arm(&fault, 1);
    ssize_t sent = send(fds[0], "x", 1, 0);
    shim_disarm();
    CHECK_EQ(sent, 1);
    CHECK_GE(lc_now_ns() - from_ns, 20000000);
    CHECK_CALL(close(fds[0]));
    CHECK_CALL(close(fds[1]));
    return 0;
}

/* Through the core, so that the ring is seen as the core enters it. */
int operations_of_a_ring_count_as_calls(scenario *s) {
    uint8_t bytes[3000];
    endpoint e = {.echo = true};
    bool end = false;
    TRY(endpoint_open(s, &e, true));
    shim_arm(NULL, 0);
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    TRY(scenario_pass(s, false));
    shim_disarm();
    CHECK_EQ(shim_calls(SHIM_RECV), scenario_is_proactor(s)); /* asked of the ring at once */
    CHECK_EQ(shim_calls(SHIM_WAKE), scenario_is_proactor(s));
    CHECK_EQ(shim_calls(SHIM_EPOLL_WAIT), !scenario_is_proactor(s));
    CHECK_EQ(shim_calls(SHIM_RING_ENTER), scenario_is_proactor(s));
    CHECK_EQ(shim_calls(SHIM_POLL), 0);
    pattern_fill(bytes, sizeof bytes, 0, 0);
    TRY(peer_send(s, &e, bytes, sizeof bytes));
    PUMP_UNTIL(peer_receive_some(s, &e, 0, sizeof bytes, &end), e.peer_received == sizeof bytes);
    if (scenario_is_proactor(s) && !shim_ring_faults_possible())
        printf("SKIPPED: faults on single operations of a ring; they need Linux 6.10\n");
    return endpoint_close(s, &e);
}
