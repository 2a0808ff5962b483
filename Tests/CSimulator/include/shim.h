// SPDX-License-Identifier: Apache-2.0
/* shim.h: system calls and allocations that fail, come up short, or take long, on demand, under the real backends.
 *
 * The functions of the C library and of liburing that the core calls are defined in interpose.c and rings.c, and the
 * linker prefers those of the test executable: no flag, no change to the core. A plan holds for the thread that armed
 * it, and only there. Operations of a ring count as the call they stand for: what is asked to fail is exchanged for a
 * NOP that answers with the error (Linux 6.10), so the completion is the kernel's own. A multishot operation counts
 * once, when it is asked, and the NOP ends it.
 *
 * libev ends the process by design when an allocation or a wait of its own fails. Its allocations are therefore a kind
 * of their own, and SHIM_EPOLL_WAIT may fail with EINTR only. */
#ifndef SHIM_H
#define SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum shim_call {
    SHIM_SOCKET,
    SHIM_BIND,
    SHIM_LISTEN,
    SHIM_ACCEPT,  /* accept4, and IORING_OP_ACCEPT */
    SHIM_CONNECT, /* connect, and IORING_OP_CONNECT */
    SHIM_SHUTDOWN,
    SHIM_CLOSE, /* fails after it has closed, as Linux does */
    SHIM_RECV,  /* recv, and IORING_OP_RECV; one that lets the kernel choose a buffer is not shortened */
    SHIM_SEND,  /* send, sendmsg, and IORING_OP_SEND, IORING_OP_SENDMSG */
    SHIM_POLL,  /* IORING_OP_POLL_ADD */
    SHIM_WAKE,  /* the same for the descriptor that wakes the loop */
    SHIM_READ,  /* shortened: read in full and told in part, as some kernels do with an eventfd */
    SHIM_WRITE,
    SHIM_EVENTFD,
    SHIM_TIMERFD_CREATE,
    SHIM_TIMERFD_SETTIME,
    SHIM_EPOLL_CREATE,
    SHIM_EPOLL_CTL,
    SHIM_EPOLL_WAIT,
    SHIM_GETSOCKOPT,
    SHIM_SETSOCKOPT,
    SHIM_FCNTL,
    SHIM_FSTAT,
    SHIM_MMAP,
    SHIM_RING_SETUP,    /* io_uring_queue_init_params */
    SHIM_RING_REGISTER, /* io_uring_register */
    SHIM_RING_BUFFERS,  /* io_uring_register_buf_ring */
    SHIM_RING_ENTER,    /* io_uring_enter2; shortened: fewer submissions */
    SHIM_ALLOCATE,      /* malloc, calloc, realloc, posix_memalign; not under ThreadSanitizer */
    SHIM_EV_ALLOCATE,   /* the same, called by libev */
    SHIM_CALL_COUNT,
} shim_call;

enum { SHIM_FOR_EVER = 0xffffffffu };

typedef struct shim_fault {
    shim_call call;
    uint32_t nth;      /* the first to be touched, counted from 1 since shim_arm; 0 means 1 */
    uint32_t count;    /* how many from there on; 0 means 1; SHIM_FOR_EVER */
    int error;         /* errno to fail with; 0: let it go through */
    size_t at_most;    /* transfers: shortened to so many bytes; 0: not shortened */
    uint32_t delay_us; /* before it */
} shim_fault;

/* Plans this thread's faults and counts its calls from zero. The array stays as it is until shim_disarm. Where two
 * faults name the same call, the first one is played. */
void shim_arm(const shim_fault *faults, size_t count);
void shim_disarm(void);
/* How many calls of a kind this thread has made since shim_arm; stays readable after shim_disarm. */
uint32_t shim_calls(shim_call call);
/* How many faults took effect since shim_arm. */
uint32_t shim_faults_played(void);
/* False: this kernel cannot answer with a chosen result, so faults on ring operations are not played. */
bool shim_ring_faults_possible(void);
/* False under ThreadSanitizer, which owns the allocator. */
bool shim_allocation_faults_possible(void);

#endif
