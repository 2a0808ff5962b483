// SPDX-License-Identifier: Apache-2.0
/* routes.c: from the signatures of the C library and of liburing to the calls of the simulated kernel; and the functions
 * that only the simulator has to stand in for, which the fault shim leaves alone. */
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "calls.h"
#include "shim_internal.h"

/* ---- who is inside ---- */

typedef struct region {
    uintptr_t first, end;
} region;

static region inside[2]; /* the executable and libev */

static int find_regions(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    int *seen = context;
    bool is_executable = (*seen)++ == 0;
    bool is_libev = strstr(info->dlpi_name, "/libev.so") != NULL;
    if (!is_executable && !is_libev)
        return 0;
    for (int index = 0; index < info->dlpi_phnum; index++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[index];
        if (header->p_type == PT_LOAD && header->p_flags & PF_X)
            inside[is_libev] =
                (region){info->dlpi_addr + header->p_vaddr, info->dlpi_addr + header->p_vaddr + header->p_memsz};
    }
    return 0;
}

static pthread_once_t regions_once = PTHREAD_ONCE_INIT;
static void find_all_regions(void) {
    int seen = 0;
    dl_iterate_phdr(find_regions, &seen);
}

SHIM_UNTOUCHED bool sim_wants_new(const void *caller) {
    if (sim_here)
        return true;
    if (!sim_is_process_wide())
        return false;
    pthread_once(&regions_once, find_all_regions);
    uintptr_t address = (uintptr_t)caller;
    return (address >= inside[0].first && address < inside[0].end) ||
           (address >= inside[1].first && address < inside[1].end);
}

/* ---- as they are ---- */

int sim_route_socket(int domain, int type, int protocol) {
    if ((type & 0xf) != SOCK_STREAM || (domain != AF_INET && domain != AF_INET6 && domain != AF_UNIX))
        return (int)syscall(SYS_socket, domain, type, protocol); /* not simulated */
    return sim_socket_call(domain, type);
}

int sim_route_bind(int fd, const struct sockaddr *address, socklen_t length) {
    return sim_bind_call(fd, address, length);
}
int sim_route_listen(int fd, int backlog) { return sim_listen_call(fd, backlog); }
int sim_route_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    return sim_accept_call(fd, address, length, flags);
}
int sim_route_connect(int fd, const struct sockaddr *address, socklen_t length) {
    return sim_connect_call(fd, address, length);
}
int sim_route_shutdown(int fd, int how) { return sim_shutdown_call(fd, how); }
int sim_route_close(int fd) { return sim_close_call(fd); }
int sim_route_getsockopt(int fd, int level, int option, void *value, socklen_t *length) {
    return sim_getsockopt_call(fd, level, option, value, length);
}
int sim_route_setsockopt(int fd, int level, int option, const void *value, socklen_t length) {
    return sim_setsockopt_call(fd, level, option, value, length);
}
ssize_t sim_route_recv(int fd, void *bytes, size_t length, int flags) {
    return sim_recv_call(fd, bytes, length, flags);
}
ssize_t sim_route_send(int fd, const void *bytes, size_t length, int flags) {
    return sim_sendmsg_call(fd, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1, flags);
}
ssize_t sim_route_sendmsg(int fd, const struct msghdr *message, int flags) {
    return sim_sendmsg_call(fd, message->msg_iov, message->msg_iovlen, flags);
}
ssize_t sim_route_read(int fd, void *bytes, size_t length) { return sim_read_call(fd, bytes, length); }
ssize_t sim_route_write(int fd, const void *bytes, size_t length) { return sim_write_call(fd, bytes, length); }
int sim_route_eventfd(unsigned count, int flags) { return sim_eventfd_call(count, flags); }
int sim_route_timerfd_create(int clock, int flags) { return sim_timerfd_create_call(clock, flags); }
int sim_route_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *before) {
    (void)before;
    return sim_timerfd_settime_call(fd, flags, value);
}
int sim_route_epoll_create1(int flags) { return sim_epoll_create_call(flags); }
int sim_route_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event) {
    return sim_epoll_ctl_call(epoll, operation, fd, event);
}
int sim_route_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms) {
    return sim_epoll_wait_call(epoll, events, count, timeout_ms);
}
int sim_route_fcntl(int fd, int command, uintptr_t argument) { return sim_fcntl_call(fd, command, (long)argument); }
int sim_route_fstat(int fd, struct stat *status) { return sim_fstat_call(fd, status); }

void *sim_route_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    (void)address, (void)length, (void)protection, (void)flags, (void)fd, (void)offset;
    errno = ENODEV;
    return MAP_FAILED;
}

int sim_route_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params) {
    return sim_ring_setup_call(entries, ring, params);
}
void sim_route_io_uring_queue_exit(struct io_uring *ring) { sim_ring_exit_call(ring); }
int sim_route_io_uring_register(unsigned fd, unsigned opcode, const void *argument, unsigned count) {
    return sim_ring_register_call((int)fd, opcode, (void *)(uintptr_t)argument, count);
}
int sim_route_io_uring_register_buf_ring(struct io_uring *ring, struct io_uring_buf_reg *registration, unsigned flags) {
    (void)flags;
    return sim_ring_buffers_call(ring, registration);
}
int sim_route_io_uring_enter2(unsigned fd, unsigned submit_count, unsigned wait_count, unsigned flags, void *argument,
                              size_t size) {
    (void)size;
    return sim_ring_enter_call((int)fd, submit_count, wait_count, flags, argument);
}

const struct io_uring *sim_route_ring_named(int fd, unsigned flags) { return sim_ring_named_call(fd, flags); }

/* ---- those that the shim leaves alone ---- */

SHIM_INTERCEPTED(int, socketpair, (int domain, int type, int protocol, int fds[2])) {
    if (sim_wants_new(__builtin_return_address(0)))
        return sim_socketpair_call(domain, type, fds);
    return SHIM_REAL(socketpair, (domain, type, protocol, fds),
                     (int)syscall(SYS_socketpair, domain, type, protocol, fds));
}

SHIM_INTERCEPTED(int, pipe2, (int fds[2], int flags)) {
    if (sim_wants_new(__builtin_return_address(0)))
        return sim_pipe_call(fds, flags);
    return SHIM_REAL(pipe2, (fds, flags), (int)syscall(SYS_pipe2, fds, flags));
}

SHIM_INTERCEPTED(int, pipe, (int fds[2])) {
    if (sim_wants_new(__builtin_return_address(0)))
        return sim_pipe_call(fds, 0);
    return SHIM_REAL(pipe, (fds), (int)syscall(SYS_pipe2, fds, 0));
}

SHIM_INTERCEPTED(int, accept, (int fd, struct sockaddr *address, socklen_t *length)) {
    if (sim_owns(fd))
        return sim_accept_call(fd, address, length, 0);
    return SHIM_REAL(accept, (fd, address, length), (int)syscall(SYS_accept, fd, address, length));
}

SHIM_INTERCEPTED(int, poll, (struct pollfd * polls, nfds_t count, int timeout_ms)) {
    if (count > 0 && sim_owns(polls[0].fd))
        return sim_poll_call(polls, count, timeout_ms);
    return SHIM_REAL(poll, (polls, count, timeout_ms), (int)syscall(SYS_poll, polls, count, timeout_ms));
}

SHIM_INTERCEPTED(int, getsockname, (int fd, struct sockaddr *address, socklen_t *length)) {
    if (sim_owns(fd))
        return sim_getname_call(fd, address, length, false);
    return SHIM_REAL(getsockname, (fd, address, length), (int)syscall(SYS_getsockname, fd, address, length));
}

SHIM_INTERCEPTED(int, getpeername, (int fd, struct sockaddr *address, socklen_t *length)) {
    if (sim_owns(fd))
        return sim_getname_call(fd, address, length, true);
    return SHIM_REAL(getpeername, (fd, address, length), (int)syscall(SYS_getpeername, fd, address, length));
}

SHIM_INTERCEPTED(int, dup, (int fd)) {
    if (sim_owns(fd))
        return sim_fcntl_call(fd, F_DUPFD, 0);
    return SHIM_REAL(dup, (fd), (int)syscall(SYS_dup, fd));
}

SHIM_INTERCEPTED(int, dup2, (int fd, int other)) {
    if (sim_owns(fd) || sim_owns(other))
        return sim_dup_call(fd, other, false);
    return SHIM_REAL(dup2, (fd, other),
                     fd == other ? fcntl(fd, F_GETFD) < 0 ? -1 : fd : (int)syscall(SYS_dup3, fd, other, 0));
}

SHIM_INTERCEPTED(int, dup3, (int fd, int other, int flags)) {
    if (sim_owns(fd) || sim_owns(other))
        return sim_dup_call(fd, other, flags & O_CLOEXEC);
    return SHIM_REAL(dup3, (fd, other, flags), (int)syscall(SYS_dup3, fd, other, flags));
}

enum { BITS = 8 * sizeof(fd_mask) };

/* For libev's select, which brings sets of any size. */
static int select_simulated(int count, fd_mask *sets[3], int timeout_ms) {
    static const short events[3] = {POLLIN, POLLOUT, POLLPRI};
    struct pollfd polls[1024];
    nfds_t used = 0;
    for (int fd = SIM_FD_FIRST; fd < count && used < sizeof polls / sizeof *polls; fd++) {
        short wanted = 0;
        for (int set = 0; set < 3; set++)
            if (sets[set] && sets[set][fd / BITS] >> fd % BITS & 1)
                wanted |= events[set];
        if (wanted)
            polls[used++] = (struct pollfd){.fd = fd, .events = wanted};
    }
    int result = sim_poll_call(polls, used, timeout_ms), ready = 0;
    for (int set = 0; set < 3; set++)
        if (sets[set])
            memset(sets[set], 0, ((size_t)count + BITS - 1) / BITS * sizeof(fd_mask));
    for (nfds_t index = 0; result >= 0 && index < used; index++) {
        for (int set = 0; set < 3; set++) {
            short mask = events[set] | (set < 2 ? POLLERR | POLLHUP : 0);
            if (!(polls[index].events & events[set]) || !(polls[index].revents & mask))
                continue;
            sets[set][polls[index].fd / BITS] |= (fd_mask)1 << polls[index].fd % BITS;
            ready++;
        }
    }
    return result < 0 ? result : ready;
}

SHIM_INTERCEPTED(int, select, (int count, fd_set *reads, fd_set *writes, fd_set *others, struct timeval *timeout)) {
    if (count > SIM_FD_FIRST) {
        int timeout_ms = timeout ? (int)(timeout->tv_sec * 1000 + (timeout->tv_usec + 999) / 1000) : -1;
        return select_simulated(count, (fd_mask *[3]){(void *)reads, (void *)writes, (void *)others}, timeout_ms);
    }
    return SHIM_REAL(select, (count, reads, writes, others, timeout),
                     (int)syscall(SYS_select, count, reads, writes, others, timeout));
}
