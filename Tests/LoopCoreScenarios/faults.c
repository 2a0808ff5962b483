// SPDX-License-Identifier: Apache-2.0
/* faults.c: what the scenarios about peers and the network share. Those themselves are in the other files of the name. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <malloc.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include "faults.h"
#include "simulator.h"

/* ---- a server ---- */

static int server_accepted(scenario *s, lc_listener *listener) {
    server *v = (server *)(uintptr_t)lc_listener_word(listener);
    CHECK_EQ(lc_listener_take_backoff(listener), 0);
    lc_stream *stream;
    int result;
    while ((result = lc_listener_take(listener, &stream)) == 1) {
        CHECK_GT(v->unused_count, 0);
        endpoint *e = &v->ends[v->unused[--v->unused_count]];
        *e = (endpoint){.stream = stream, .peer = -1, .echo = v->echo};
        lc_stream_set_word(stream, (uint64_t)(uintptr_t)e);
        v->accepted++;
        CHECK_EQ(lc_stream_start_receiving(stream), 0);
        if (v->opened)
            TRY(v->opened(s, e));
    }
    CHECK_EQ(result, -EAGAIN);
    lc_listener_finish_delivery(listener);
    return 0;
}

int server_open(scenario *s, server *v, uint32_t end_max) {
    v->end_max = end_max;
    v->ends = calloc(end_max, sizeof *v->ends);
    v->unused = calloc(end_max, sizeof *v->unused);
    CHECK(v->ends != NULL && v->unused != NULL);
    while (v->unused_count < end_max) {
        v->unused[v->unused_count] = end_max - 1 - v->unused_count;
        v->unused_count++;
    }
    int fd;
    TRY(listen_anywhere(s, 1024, &fd, &v->address));
    CHECK_EQ(lc_listener_adopt(s->loop, fd, &v->listener), 0);
    lc_listener_set_word(v->listener, (uint64_t)(uintptr_t)v);
    s->on.accept = server_accepted;
    CHECK_EQ(lc_listener_start(v->listener), 0);
    return 0;
}

void server_drop(server *v, endpoint *e) {
    lc_stream_release(e->stream);
    e->stream = NULL;
    v->unused[v->unused_count++] = (uint32_t)(e - v->ends);
}

int server_close(scenario *s, server *v) {
    for (uint32_t index = 0; index < v->end_max; index++)
        if (v->ends[index].stream)
            server_drop(v, &v->ends[index]);
    lc_listener_release(v->listener);
    RUN_UNTIL(scenario_stats(s).streams == 0);
    free(v->ends);
    free(v->unused);
    return 0;
}

/* ---- clients ---- */

static int client_open(scenario *s, const lc_address *to, uint32_t number, int *fd) {
    enum { PER_ADDRESS = 10000 };
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(*fd);
    int one = 1;
    CHECK_CALL(setsockopt(*fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one));
    CHECK_CALL(setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(0x7f090a01u + (number / PER_ADDRESS) * 256)};
    CHECK_CALL(bind(*fd, (struct sockaddr *)&from, sizeof from));
    CHECK_CALL(connect(*fd, (const struct sockaddr *)&to->storage, to->length));
    return 0;
}

int clients_connect(scenario *s, server *v, int *clients, uint32_t first, uint32_t count) {
    enum { AT_ONCE = 64 }; /* fewer than any queue of a listener holds */
    uint32_t before = v->accepted;
    for (uint32_t index = 0; index < count; index++) {
        TRY(client_open(s, &v->address, first + index, &clients[first + index]));
        if (index % AT_ONCE == AT_ONCE - 1)
            RUN_UNTIL(v->accepted == before + index + 1);
    }
    RUN_UNTIL(v->accepted == before + count);
    return 0;
}

/* ---- limits ---- */

void say_skipped(const scenario *s, const char *what) { fprintf(stderr, "SKIPPED: %s: %s\n", s->name, what); }

int raise_connection_limit(scenario *s, uint32_t wanted, uint32_t *got) {
    enum { BESIDES = 64 };
    struct rlimit limit;
    CHECK_CALL(getrlimit(RLIMIT_NOFILE, &limit));
    rlim_t need = 2 * (rlim_t)wanted + BESIDES;
    if (limit.rlim_max < need) {
        struct rlimit higher = {.rlim_cur = need, .rlim_max = need};
        if (setrlimit(RLIMIT_NOFILE, &higher) == 0) /* for those who may */
            limit = higher;
    }
    limit.rlim_cur = need < limit.rlim_max ? need : limit.rlim_max;
    CHECK_CALL(setrlimit(RLIMIT_NOFILE, &limit));
    *got = need <= limit.rlim_cur ? wanted : (uint32_t)(limit.rlim_cur - BESIDES) / 2;
    if (*got < wanted) {
        char text[128];
        snprintf(text, sizeof text, "RLIMIT_NOFILE allows only %u connections instead of %u", *got, wanted);
        say_skipped(s, text);
    }
    return 0;
}

/* ---- networks ---- */

/* A child on a simulated kernel has one. */
bool network_of_ones_own(void) {
    return sim_is_process_wide() || unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

int loopback_up(scenario *s, bool up) {
    if (sim_is_process_wide()) {
        CHECK(up); /* it always is */
        return 0;
    }
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    CHECK_CALL(fd);
    struct ifreq request = {.ifr_name = "lo"};
    CHECK_CALL(ioctl(fd, SIOCGIFFLAGS, &request));
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    CHECK_CALL(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
    return 0;
}

bool limit_local_ports(int first, int last) {
    if (sim_is_process_wide()) {
        sim_limit_ports((uint16_t)first, (uint16_t)last);
        return true;
    }
    int fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool written = dprintf(fd, "%d %d\n", first, last) > 0;
    close(fd);
    return written;
}

/* ---- what it costs ---- */

uint64_t thread_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

size_t heap_in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

size_t memory_resident(void) {
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file)
        return 0;
    if (fscanf(file, "%lu %lu", &total, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (size_t)sysconf(_SC_PAGESIZE);
}
