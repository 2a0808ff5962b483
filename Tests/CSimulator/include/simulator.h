// SPDX-License-Identifier: Apache-2.0
/* simulator.h: a kernel in memory, seeded: sockets, pipes, epoll, timerfd, eventfd, and io_uring.
 *
 * It stands below both backends: selector.c with libev above its epoll, proactor.c above its ring. While a thread is
 * inside, the descriptors it makes are the simulator's, its clock is virtual, and nothing but the seed decides what
 * happens. Everything it does, Linux may do. What Linux would not survive, or would not notice, is a finding. */
#ifndef SIMULATOR_H
#define SIMULATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How often, in 1/1000 of the occasions there are. */
typedef struct sim_odds {
    uint16_t short_read;     /* fewer bytes than are there */
    uint16_t short_write;    /* fewer bytes than there is room for */
    uint16_t interrupted;    /* EINTR */
    uint16_t false_ready;    /* readiness that turns out false: EAGAIN after all */
    uint16_t held_back;      /* an event or completion that comes one entry later */
    uint16_t reordered;      /* completions and events in another order */
    uint16_t no_buffers;     /* a receive that finds the group empty although it is not */
    uint16_t multishot_ends; /* without F_MORE, for no reason */
    uint16_t accept_fails;   /* ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO */
    uint16_t connect_fails;  /* ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, ENETUNREACH */
    uint16_t reset;          /* of a connection, when somebody reads or writes */
    uint16_t cancel_late;    /* a cancel that finds nothing, or finds it running */
    uint16_t short_submit;   /* an entry that takes only some of the submissions */
    uint16_t enter_fails;    /* EINTR, EAGAIN, EBUSY */
    uint16_t slow_connect;   /* a connect that takes its time */
} sim_odds;

/* What this kernel does not know: it is an older one. */
enum {
    SIM_LACKS_DEFER_TASKRUN = 1u << 0,
    SIM_LACKS_SINGLE_ISSUER = 1u << 1,
    SIM_LACKS_COOP_TASKRUN = 1u << 2,
    SIM_LACKS_SUBMIT_ALL = 1u << 3,
    SIM_LACKS_MULTISHOT_ACCEPT = 1u << 4,  /* told by the completion: EINVAL */
    SIM_LACKS_MULTISHOT_RECEIVE = 1u << 5, /* likewise */
    SIM_LACKS_BUFFER_RINGS = 1u << 6,
    SIM_LACKS_REGISTERED_RINGS = 1u << 7,
    SIM_LACKS_IO_URING = 1u << 8,
};

typedef struct sim_config {
    uint64_t seed;
    sim_odds odds;
    uint32_t lacks;
    uint32_t socket_buffer; /* bytes a socket's queue holds; 0: 16 KiB */
    /* The loop's thread would sleep and nothing is on its way. The outside may act: false if it has nothing to do
     * either. Called on the loop's thread; what stands for another thread is to run on one. */
    bool (*idle)(void *context);
    void *context;
} sim_config;

/* What happened so far, so that a test can show that it went where it meant to go. */
typedef struct sim_stats {
    uint64_t calls;              /* system calls and ring submissions */
    uint64_t completions;        /* CQEs posted */
    uint64_t overflows;          /* CQEs that had to wait for room */
    uint64_t cancelled;          /* operations ended by a cancel */
    uint64_t cancels_met_result; /* cancels that came together with a result */
    uint64_t multishots_ended;
    uint64_t buffers_exhausted;
    uint64_t resets;
    uint64_t faults; /* errors that only the odds explain */
    uint64_t sleeps;
} sim_stats;

typedef struct sim_kernel sim_kernel;

/* Puts this thread into a kernel of its own. */
void sim_begin(const sim_config *config);
/* Leaves it; what is still open is closed. Returns the number of descriptors that were still open. */
int sim_end(void);
/* Replaces the odds, for example by none, to let everything come to its end. */
void sim_set_odds(const sim_odds *odds);
sim_kernel *sim_current(void);
/* Lets a thread that stands for the outside share a kernel, while the loop's thread waits for it. */
void sim_join(sim_kernel *kernel);
void sim_leave(void);

/* The first rule that was broken, in words; NULL if none was. */
const char *sim_finding(void);
/* Lets `ns` pass. */
void sim_advance(uint64_t ns);
uint32_t sim_open_descriptors(void);
sim_stats sim_get_stats(void);

/* Puts the whole process into one kernel for good: every thread of the executable, but no library besides libev. Time
 * is real there, and calls block. For suites that bring threads and peers of their own. */
void sim_begin_process(const sim_config *config);
bool sim_is_process_wide(void);
/* The ports that it gives out. */
void sim_limit_ports(uint16_t first, uint16_t last);
/* In a child that was forked: it has an empty kernel of its own from here on. */
void sim_renew_process(void);
/* How many descriptors of the process-wide kernel are of a kind, named as in /proc/self/fd, "socket:" or
 * "anon_inode:[eventfd]"; "" means all. *highest: the last of them, if there is any. */
unsigned sim_process_descriptors(const char *kind, int *highest);
/* The same for those that this thread has opened. */
unsigned sim_thread_descriptors(const char *kind, int *highest);
/* The descriptor of that number, counted from the kernel's first; on the real kernel the number itself. */
int sim_process_number(int number);

#endif
