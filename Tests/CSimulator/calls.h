// SPDX-License-Identifier: Apache-2.0
/* calls.h: the simulated calls as interpose.c routes them. They lock, answer as the C library would, and set errno. */
#ifndef SIM_CALLS_H
#define SIM_CALLS_H

#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include "sim.h"

/* files.c */
int sim_eventfd_call(unsigned count, int flags);
int sim_timerfd_create_call(int clock, int flags);
int sim_timerfd_settime_call(int fd, int flags, const struct itimerspec *value);
int sim_pipe_call(int fds[2], int flags);
ssize_t sim_read_call(int fd, void *bytes, size_t length);
ssize_t sim_write_call(int fd, const void *bytes, size_t length);
size_t sim_queue_room(const sim_queue *queue);
void sim_queue_put(sim_queue *queue, const uint8_t *bytes, size_t length);
void sim_queue_take(sim_queue *queue, uint8_t *bytes, size_t length);
void sim_queue_free(sim_queue *queue);

/* socket_calls.c */
int sim_socket_call(int domain, int type);
int sim_socketpair_call(int domain, int type, int fds[2]);
int sim_bind_call(int fd, const struct sockaddr *address, socklen_t length);
int sim_listen_call(int fd, int backlog);
int sim_accept_call(int fd, struct sockaddr *address, socklen_t *length, int flags);
int sim_connect_call(int fd, const struct sockaddr *address, socklen_t length);
int sim_shutdown_call(int fd, int how);
ssize_t sim_recv_call(int fd, void *bytes, size_t length, int flags);
ssize_t sim_sendmsg_call(int fd, const struct iovec *vectors, size_t count, int flags);
int sim_getsockopt_call(int fd, int level, int name, void *value, socklen_t *length);
int sim_setsockopt_call(int fd, int level, int name, const void *value, socklen_t length);
int sim_getname_call(int fd, struct sockaddr *address, socklen_t *length, bool peer);
int sim_close_call(int fd);
int sim_dup_call(int fd, int other, bool close_on_exec);
int sim_fcntl_call(int fd, int command, long argument);
int sim_fstat_call(int fd, struct stat *status);
int sim_poll_call(struct pollfd *polls, nfds_t count, int timeout_ms);
int sim_clock_call(struct timespec *now);

/* epoll.c */
int sim_epoll_create_call(int flags);
int sim_epoll_ctl_call(int epoll, int operation, int fd, struct epoll_event *event);
int sim_epoll_wait_call(int epoll, struct epoll_event *events, int max, int timeout_ms);

/* ring.c */
int sim_ring_setup_call(unsigned entries, struct io_uring *ring, struct io_uring_params *params);
void sim_ring_exit_call(struct io_uring *ring);
int sim_ring_register_call(int fd, unsigned opcode, void *argument, unsigned count);
int sim_ring_buffers_call(struct io_uring *ring, struct io_uring_buf_reg *registration);
int sim_ring_enter_call(int fd, unsigned submit_count, unsigned wait_count, unsigned flags, const void *argument);
const struct io_uring *sim_ring_named_call(int fd, unsigned flags);

#endif
