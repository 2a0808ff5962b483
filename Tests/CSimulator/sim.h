// SPDX-License-Identifier: Apache-2.0
/* sim.h: what the files of the simulated kernel know of each other. All of it under the kernel's lock, unless said. */
#ifndef SIM_H
#define SIM_H

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "routes.h"
#include "simulator.h"

enum { SIM_FD_COUNT = 1 << 16, SIM_NEVER_MS = 30000 };
#define SIM_NEVER_NS UINT64_MAX

typedef enum sim_kind { SIM_SOCKET, SIM_PIPE, SIM_EVENTFD, SIM_TIMERFD, SIM_EPOLL, SIM_RING } sim_kind;

typedef struct sim_file sim_file;
typedef struct sim_request sim_request;

/* An open file description. Lives as long as a descriptor or an operation of a ring refers to it. */
struct sim_file {
    sim_kernel *kernel;
    sim_kind kind;
    uint32_t references;
    bool nonblocking;
    sim_file *next, **link; /* all of the kernel's */
    sim_request *requests;  /* of rings, waiting here */
    uint64_t changed;       /* when it last did: what became ready first is told first */
};

typedef struct sim_queue {
    uint8_t *bytes;
    size_t head, count, capacity;
} sim_queue;

typedef enum sim_socket_state {
    SIM_UNCONNECTED,
    SIM_LISTENING,
    SIM_CONNECTING,
    SIM_CONNECTED,
    SIM_DEAD, /* refused, reset, or never to be connected */
} sim_socket_state;

typedef struct sim_socket {
    sim_file file;
    int domain;
    sim_socket_state state;
    struct sim_socket *peer; /* NULL once it is gone */
    sim_queue in;
    bool end; /* nothing follows what is in the queue */
    bool shut_read;
    bool shut_write;
    bool linger_reset;
    bool bound;
    bool reuse_port;
    int error; /* told once */
    struct sockaddr_storage local, remote;
    socklen_t local_length, remote_length;
    /* listening: connections nobody accepted yet */
    struct sim_socket *backlog_head, *backlog_tail, *next_in_backlog;
    int backlog_count, backlog_max;
    int connect_error;                            /* what a connect that takes its time will say */
    bool slow;                                    /* such a connect */
    uint64_t give_up_ns;                          /* a connect that has not been answered by then; 0: never */
    uint64_t receive_timeout_ns, send_timeout_ns; /* of blocking calls; 0: none */
} sim_socket;

typedef struct sim_descriptor {
    sim_file *file;
    bool close_on_exec;
    uint64_t opener; /* the thread that did */
} sim_descriptor;

struct sim_kernel {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    sim_config config;
    uint64_t random;
    uint64_t now_ns; /* virtual, unless process_wide */
    bool process_wide;
    bool frozen;          /* the clock stands still */
    uint32_t descriptors; /* open ones */
    sim_file *files;
    uint16_t next_port, port_first, port_last;
    sim_stats stats;
    char finding[200];
    uint64_t changes;
};

/* ---- kernel.c ---- */
extern _Thread_local sim_kernel *sim_here;
void sim_find(sim_kernel *kernel, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t sim_random(sim_kernel *kernel);
uint32_t sim_below(sim_kernel *kernel, uint32_t bound); /* 0 ... bound - 1 */
bool sim_chance(sim_kernel *kernel, uint16_t odds);
/* The same, counted as a fault. */
bool sim_fault(sim_kernel *kernel, uint16_t odds);
size_t sim_shortened(sim_kernel *kernel, size_t length, uint16_t odds);
uint64_t sim_now(sim_kernel *kernel);
int sim_fd_free(sim_kernel *kernel); /* the number that the next one will have, or -EMFILE */
int sim_fd_open(sim_kernel *kernel, sim_file *file, bool close_on_exec); /* takes the file's first reference */
/* The same with the lowest number from there on; below the kernel's own numbers it counts from the first of those. */
int sim_fd_open_from(sim_kernel *kernel, int lowest, sim_file *file, bool close_on_exec);
sim_file *sim_fd_file(int fd);
int sim_fd_close(int fd);
void sim_file_init(sim_kernel *kernel, sim_file *file, sim_kind kind, bool nonblocking);
void sim_file_hold(sim_file *file);
void sim_file_release(sim_file *file);
/* POLLIN and its like, as they are. */
uint32_t sim_file_poll(sim_file *file);
/* Something about it may have changed: whoever waits looks again. */
void sim_file_changed(sim_file *file);
/* Time that passed, connects that are under way. */
void sim_progress(sim_kernel *kernel);
/* Nothing is ready: lets the outside act, or time pass, at most until deadline_ns. False: the deadline is reached, or
 * nothing can ever happen. */
bool sim_sleep(sim_kernel *kernel, uint64_t deadline_ns);

/* Locks the kernel that this thread is in, or that the descriptor belongs to. */
sim_kernel *sim_enter_call(int fd);
void sim_leave_call(sim_kernel *kernel);
/* Turns a negated errno into -1 and errno. */
ssize_t sim_answer(sim_kernel *kernel, ssize_t result);

/* ---- socket.c ---- */
sim_socket *sim_socket_of(sim_file *file); /* NULL: not a socket */
ssize_t sim_socket_receive(sim_socket *socket, void *bytes, size_t length, int flags);
ssize_t sim_socket_send(sim_socket *socket, const struct iovec *vectors, size_t count);
int sim_socket_accept(sim_socket *listener, sim_socket **out);
int sim_socket_connect(sim_socket *socket, const struct sockaddr *address, socklen_t length);
bool sim_socket_can_connect(const sim_socket *socket); /* its connect only waits for its turn */
sim_socket *sim_socket_make(sim_kernel *kernel, int domain, bool nonblocking);
void sim_socket_join(sim_socket *one, sim_socket *other);
int sim_socket_bind(sim_socket *socket, const struct sockaddr *address, socklen_t length);
void sim_socket_shutdown(sim_socket *socket, int how);
uint32_t sim_socket_poll(sim_socket *socket);
void sim_socket_released(sim_socket *socket);
bool sim_socket_progress(sim_socket *socket); /* true: it is connected, or not to be, just now */

/* ---- files.c: pipes, eventfds, timerfds ---- */
uint32_t sim_special_poll(sim_file *file);
void sim_special_released(sim_file *file);
uint64_t sim_timer_next(sim_file *file); /* SIM_NEVER_NS: not set */
bool sim_timer_fire(sim_file *file);     /* true: it expired just now */

/* ---- epoll.c ---- */
void sim_epoll_forget(sim_file *epoll, sim_file *file);
void sim_epoll_released(sim_file *epoll);
uint32_t sim_epoll_poll(sim_file *epoll);

/* ---- ring.c ---- */
void sim_ring_released(sim_file *ring);
sim_request *sim_request_wake(sim_request *request); /* its file changed; the next one that waits there */
bool sim_ring_has_work(sim_file *ring);

#endif
