// SPDX-License-Identifier: Apache-2.0
/* rings.c: the functions of liburing that the core calls, and faults on what a ring is asked to do.
 *
 * io_uring_enter2 names a ring by descriptor, or by its index among those the thread has registered; so rings are
 * remembered by both. Numbers of descriptors are not unique where threads have tables of their own, hence the thread
 * is remembered too. Before an entry that submits, its SQEs are looked at, each once. */
#include <dlfcn.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "shim_internal.h"
#include "simulator.h"

enum { RINGS_MAX = 1024, REGISTERED_MAX = 16, WAKE_TAG = 3 };

size_t shim_cut_message(struct msghdr *message, size_t length);

/* ---- the real ones ---- */

typedef _Atomic(void *) real_function;

/* Not a call of this thread's plan, whatever it does inside. */
static void *real(real_function *place, const char *name) {
    void *function = atomic_load_explicit(place, memory_order_acquire);
    if (!function) {
        bool armed = shim_this.armed;
        shim_this.armed = false;
        function = dlsym(RTLD_NEXT, name);
        shim_this.armed = armed;
        atomic_store_explicit(place, function, memory_order_release);
    }
    return function;
}

#define REAL(name, result, parameters)                                                                                 \
    static real_function real_##name;                                                                                  \
    typedef result(*name##_function) parameters;                                                                       \
    static name##_function get_##name(void) { return (name##_function)real(&real_##name, #name); }

REAL(io_uring_queue_init_params, int, (unsigned, struct io_uring *, struct io_uring_params *))
REAL(io_uring_queue_exit, void, (struct io_uring *))
REAL(io_uring_register, int, (unsigned, unsigned, const void *, unsigned))
REAL(io_uring_register_buf_ring, int, (struct io_uring *, struct io_uring_buf_reg *, unsigned))
REAL(io_uring_enter2, int, (unsigned, unsigned, unsigned, unsigned, void *, size_t))

/* ---- rings, remembered ---- */

typedef struct ring_record {
    struct io_uring *ring; /* NULL: free */
    const void *thread;    /* where it was made: the address of that thread's plan */
    int fd;
    unsigned seen; /* the tail up to which its SQEs have been looked at */
} ring_record;

static pthread_mutex_t records_lock = PTHREAD_MUTEX_INITIALIZER;
static ring_record records[RINGS_MAX];
static _Thread_local struct io_uring *registered[REGISTERED_MAX];

static void remember(struct io_uring *ring) {
    pthread_mutex_lock(&records_lock);
    ring_record *place = NULL;
    for (size_t index = 0; index < RINGS_MAX; index++) {
        ring_record *record = &records[index];
        /* A ring that was never taken apart, as in a forked child, is gone once its place is used anew. */
        if (record->ring == ring || (record->thread == &shim_this && record->fd == ring->ring_fd))
            record->ring = NULL;
        if (!record->ring && !place)
            place = record;
    }
    if (place)
        *place = (ring_record){.ring = ring, .thread = &shim_this, .fd = ring->ring_fd};
    pthread_mutex_unlock(&records_lock);
}

static void forget(struct io_uring *ring) {
    pthread_mutex_lock(&records_lock);
    for (size_t index = 0; index < RINGS_MAX; index++)
        if (records[index].ring == ring)
            records[index].ring = NULL;
    pthread_mutex_unlock(&records_lock);
    for (size_t index = 0; index < REGISTERED_MAX; index++)
        if (registered[index] == ring)
            registered[index] = NULL;
}

/* By ring, or by descriptor: this thread's own first. */
static ring_record *find(const struct io_uring *ring, int fd) {
    ring_record *found = NULL;
    pthread_mutex_lock(&records_lock);
    for (size_t index = 0; index < RINGS_MAX; index++) {
        ring_record *record = &records[index];
        if (!record->ring || (ring ? record->ring != ring : record->fd != fd))
            continue;
        if (!found || record->thread == &shim_this)
            found = record;
    }
    pthread_mutex_unlock(&records_lock);
    return found;
}

static ring_record *entered(unsigned fd, unsigned flags) {
    if (sim_owns((int)fd)) {
        const struct io_uring *ring = sim_route_ring_named((int)fd, flags);
        return ring ? find(ring, -1) : NULL;
    }
    if (!(flags & IORING_ENTER_REGISTERED_RING))
        return find(NULL, (int)fd);
    return fd < REGISTERED_MAX && registered[fd] ? find(registered[fd], -1) : NULL;
}

static void note_registration(int fd, unsigned opcode, const struct io_uring_rsrc_update *updates, int count) {
    for (int index = 0; index < count; index++) {
        if (updates[index].offset >= REGISTERED_MAX)
            continue;
        const ring_record *record = opcode == IORING_REGISTER_RING_FDS ? find(NULL, fd) : NULL;
        registered[updates[index].offset] = record ? record->ring : NULL;
    }
}

/* ---- what is asked of a ring ---- */

static bool call_of(const struct io_uring_sqe *sqe, shim_call *call) {
    switch (sqe->opcode) {
    case IORING_OP_ACCEPT:
        *call = SHIM_ACCEPT;
        return true;
    case IORING_OP_CONNECT:
        *call = SHIM_CONNECT;
        return true;
    case IORING_OP_RECV:
        *call = SHIM_RECV;
        return true;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        *call = SHIM_SEND;
        return true;
    case IORING_OP_POLL_ADD:
        *call = sqe->user_data >> 56 == WAKE_TAG ? SHIM_WAKE : SHIM_POLL; /* the tag is the core's */
        return true;
    default:
        return false;
    }
}

static void make_failing(struct io_uring_sqe *sqe, int error) {
    uint64_t user_data = sqe->user_data;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = IORING_OP_NOP;
    sqe->fd = -1;
    sqe->user_data = user_data;
    sqe->rw_flags = NOP_INJECT_RESULT;
    sqe->len = (uint32_t)-error;
}

static void shorten(struct io_uring_sqe *sqe, const shim_fault *fault) {
    if (sqe->opcode == IORING_OP_SENDMSG) {
        struct msghdr *message = (struct msghdr *)(uintptr_t)sqe->addr;
        size_t whole = 0;
        for (size_t index = 0; index < message->msg_iovlen; index++)
            whole += message->msg_iov[index].iov_len;
        size_t length = shim_shorten(fault, whole);
        if (length == whole)
            return;
        shim_cut_message(message, length);
    } else if (sqe->opcode == IORING_OP_SEND ||
               (sqe->opcode == IORING_OP_RECV && !(sqe->flags & IOSQE_BUFFER_SELECT))) {
        size_t length = shim_shorten(fault, sqe->len);
        if (length == sqe->len)
            return;
        sqe->len = (uint32_t)length;
    }
    sqe->msg_flags &= ~(uint32_t)MSG_WAITALL;
}

/* The SQEs that an entry of `count` submissions takes, but for those an earlier entry has left behind. */
static void look_at_submissions(ring_record *record, unsigned count) {
    struct io_uring_sq *sq = &record->ring->sq;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE), tail = __atomic_load_n(sq->ktail, __ATOMIC_ACQUIRE);
    unsigned end = tail - head < count ? tail : head + count;
    unsigned mask = *sq->kring_mask;
    if ((int)(record->seen - head) < 0 || (int)(record->seen - tail) > 0)
        record->seen = head;
    for (; (int)(end - record->seen) > 0; record->seen++) {
        struct io_uring_sqe *sqe = &sq->sqes[record->seen & mask];
        shim_call call;
        const shim_fault *fault = call_of(sqe, &call) ? shim_meet(call) : NULL;
        if (fault && fault->error && shim_ring_faults_possible())
            make_failing(sqe, fault->error);
        else if (fault && fault->error)
            shim_this.played--; /* it goes through, which was to be told by shim_ring_faults_possible */
        else if (fault && !fault->error && fault->at_most)
            shorten(sqe, fault);
    }
}

/* ---- whether a NOP can answer with a chosen result ---- */

static pthread_once_t probe_once = PTHREAD_ONCE_INIT;
static bool probe_answer;

static void probe(void) {
    struct io_uring ring;
    struct io_uring_params params = {0};
    struct io_uring_cqe *cqe;
    if (get_io_uring_queue_init_params()(2, &ring, &params) < 0)
        return;
    make_failing(io_uring_get_sqe(&ring), EPROTO);
    if (io_uring_submit_and_wait(&ring, 1) == 1 && io_uring_peek_cqe(&ring, &cqe) == 0)
        probe_answer = cqe->res == -EPROTO;
    get_io_uring_queue_exit()(&ring);
}

bool shim_ring_faults_possible(void) {
    if (sim_is_process_wide())
        return true;
    bool armed = shim_this.armed;
    shim_this.armed = false;
    pthread_once(&probe_once, probe);
    shim_this.armed = armed;
    return probe_answer;
}

/* ---- interposed ---- */

SHIM_FUNCTION(int, io_uring_queue_init_params,
              (unsigned entries, struct io_uring *ring, struct io_uring_params *params)) {
    int error = shim_refused(SHIM_RING_SETUP);
    if (error)
        return -error;
    int result = sim_wants_new(__builtin_return_address(0))
                     ? sim_route_io_uring_queue_init_params(entries, ring, params)
                     : get_io_uring_queue_init_params()(entries, ring, params);
    if (result >= 0)
        remember(ring);
    return result;
}

SHIM_FUNCTION(void, io_uring_queue_exit, (struct io_uring * ring)) {
    forget(ring);
    if (sim_owns(ring->ring_fd)) {
        sim_route_io_uring_queue_exit(ring);
        return;
    }
    get_io_uring_queue_exit()(ring);
}

SHIM_FUNCTION(int, io_uring_register, (unsigned fd, unsigned opcode, const void *argument, unsigned count)) {
    int error = shim_refused(SHIM_RING_REGISTER);
    if (error)
        return -error;
    SHIM_ROUTE((int)fd, io_uring_register, (fd, opcode, argument, count))
    int result = get_io_uring_register()(fd, opcode, argument, count);
    if (opcode == IORING_REGISTER_RING_FDS || opcode == IORING_UNREGISTER_RING_FDS)
        note_registration((int)fd, opcode, argument, result);
    return result;
}

SHIM_FUNCTION(int, io_uring_register_buf_ring,
              (struct io_uring * ring, struct io_uring_buf_reg *registration, unsigned flags)) {
    int error = shim_refused(SHIM_RING_BUFFERS);
    if (error)
        return -error;
    SHIM_ROUTE(ring->ring_fd, io_uring_register_buf_ring, (ring, registration, flags))
    return get_io_uring_register_buf_ring()(ring, registration, flags);
}

SHIM_FUNCTION(int, io_uring_enter2,
              (unsigned fd, unsigned to_submit, unsigned wait_count, unsigned flags, void *argument, size_t size)) {
    /* With IORING_ENTER_REGISTERED_RING `fd` is an index. */
    if (__builtin_expect(shim_this.armed, false)) {
        size_t submissions = to_submit;
        int error = shim_refused_or_shortened(SHIM_RING_ENTER, &submissions);
        if (error)
            return -error;
        to_submit = (unsigned)submissions;
        ring_record *record = to_submit ? entered(fd, flags) : NULL;
        if (record)
            look_at_submissions(record, to_submit);
    }
    SHIM_ROUTE((int)fd, io_uring_enter2, (fd, to_submit, wait_count, flags, argument, size))
    return get_io_uring_enter2()(fd, to_submit, wait_count, flags, argument, size);
}
