// SPDX-License-Identifier: Apache-2.0
/* uring.h: the simulated io_uring, shared by uring.c (rings, submissions, completions), groups.c (provided buffers) and
 * requests.c (operations). */
#ifndef SIM_URING_H
#define SIM_URING_H

#include "calls.h"

/* A ring of provided buffers, and who holds each of them. */
typedef struct sim_group {
    struct io_uring_buf_ring *ring; /* NULL: none registered */
    uint32_t count;
    uint16_t head; /* the next that the kernel takes */
    uint16_t seen; /* the tail up to which buffers were checked in */
    bool *ours;    /* by bid: between being provided and being used */
} sim_group;

typedef struct sim_ring {
    sim_file file;
    struct io_uring *user; /* the library's view; its pointers lead into the memory below */
    uint32_t flags;        /* of set-up */
    bool disabled;
    pthread_t thread; /* the one that enabled it */
    unsigned sq_head, sq_tail, sq_flags, cq_head, cq_tail, cq_overflow, sq_mask, cq_mask, sq_entries, cq_entries;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
    unsigned *array;
    struct io_uring_cqe *waiting; /* completions the CQ had no room for */
    size_t waiting_count, waiting_capacity;
    sim_request *requests; /* all that are in the kernel */
    sim_request **work;    /* those that may go on */
    size_t work_count, work_capacity;
    sim_group group;
} sim_ring;

/* An operation in the kernel. */
struct sim_request {
    sim_ring *ring;
    sim_file *file;
    sim_request *next, **link;           /* all of the ring's */
    sim_request *next_here, **link_here; /* all at this file */
    uint64_t user_data;
    uint8_t opcode;
    bool multishot, selects_buffer, connecting;
    bool has_work; /* on the ring's list of work */
    bool cancel;   /* ends as cancelled at its next turn */
    uint32_t length, flags, events;
    uint8_t *address;
    struct iovec *vectors; /* of a send: as submitted */
    size_t vector_count, sent, total;
    uint8_t *copy; /* of its bytes, to see that nobody touches them */
    struct sockaddr_storage peer;
};

/* uring.c */
/* False: there was no room, so the completion waits in the kernel. */
bool sim_complete(sim_ring *ring, uint64_t user_data, int result, uint32_t flags);

/* groups.c */
int sim_group_register(sim_ring *ring, const struct io_uring_buf_reg *registration);
void sim_group_free(sim_group *group);
/* Looks at what was provided since the last time. */
void sim_group_check_in(sim_ring *ring);
/* The next buffer, or NULL: the group is empty. It is still the kernel's. */
const struct io_uring_buf *sim_group_peek(sim_ring *ring);
/* Its bytes are about to be filled: from now on it is the program's. */
void sim_group_use(sim_ring *ring, const struct io_uring_buf *buffer);

/* requests.c */
void sim_request_submit(sim_ring *ring, const struct io_uring_sqe *sqe);
void sim_request_attempt(sim_request *request);
void sim_request_work(sim_request *request);
void sim_request_drop(sim_request *request);
bool sim_request_names_memory(const sim_request *request);

#endif
