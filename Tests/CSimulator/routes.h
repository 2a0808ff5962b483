// SPDX-License-Identifier: Apache-2.0
/* routes.h: where a simulated kernel takes over from the real one: calls on a descriptor of its own, and those that
 * make a descriptor for a thread that is inside. Each has the parameters of the function it stands for. */
#ifndef SIM_ROUTES_H
#define SIM_ROUTES_H

#include <liburing.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* Linux 6.10, and headers later than some that are about: a NOP that answers with its len. */
#define NOP_INJECT_RESULT (1u << 0)

/* Above every number that the real kernel gives out here, so that a number tells whose it is: a descriptor's, and a
 * registered ring's. */
enum { SIM_FD_FIRST = 1 << 17 };
static inline bool sim_owns(int fd) { return fd >= SIM_FD_FIRST; }
/* Whether the descriptors that this caller makes on this thread are the simulator's. */
bool sim_wants_new(const void *caller);

#define SHIM_ROUTE(fd, name, arguments)                                                                                \
    if (__builtin_expect(sim_owns(fd), false))                                                                         \
        return sim_route_##name arguments;
#define SHIM_ROUTE_NEW(name, arguments)                                                                                \
    if (__builtin_expect(sim_wants_new(__builtin_return_address(0)), false))                                           \
        return sim_route_##name arguments;

int sim_route_socket(int domain, int type, int protocol);
int sim_route_bind(int fd, const struct sockaddr *address, socklen_t length);
int sim_route_listen(int fd, int backlog);
int sim_route_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
int sim_route_connect(int fd, const struct sockaddr *address, socklen_t length);
int sim_route_shutdown(int fd, int how);
int sim_route_close(int fd);
int sim_route_getsockopt(int fd, int level, int option, void *value, socklen_t *length);
int sim_route_setsockopt(int fd, int level, int option, const void *value, socklen_t length);
ssize_t sim_route_recv(int fd, void *bytes, size_t length, int flags);
ssize_t sim_route_send(int fd, const void *bytes, size_t length, int flags);
ssize_t sim_route_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t sim_route_read(int fd, void *bytes, size_t length);
ssize_t sim_route_write(int fd, const void *bytes, size_t length);
int sim_route_eventfd(unsigned count, int flags);
int sim_route_timerfd_create(int clock, int flags);
int sim_route_timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *before);
int sim_route_epoll_create1(int flags);
int sim_route_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int sim_route_epoll_wait(int epoll, struct epoll_event *events, int count, int timeout_ms);
int sim_route_fcntl(int fd, int command, uintptr_t argument);
int sim_route_fstat(int fd, struct stat *status);
void *sim_route_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int sim_route_io_uring_queue_init_params(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
void sim_route_io_uring_queue_exit(struct io_uring *ring);
int sim_route_io_uring_register(unsigned fd, unsigned opcode, const void *argument, unsigned count);
int sim_route_io_uring_register_buf_ring(struct io_uring *ring, struct io_uring_buf_reg *registration, unsigned flags);
int sim_route_io_uring_enter2(unsigned fd, unsigned submit_count, unsigned wait_count, unsigned flags, void *argument,
                              size_t size);
/* The ring that an entry means by a number; NULL: none. */
const struct io_uring *sim_route_ring_named(int fd, unsigned flags);

#endif
