// SPDX-License-Identifier: Apache-2.0
/* proactor.c: the completion backend; the one file that includes <liburing.h>.
 *
 * Owns the ring, its set-up flags, SQE filling, the kernel's ring of receive buffers and the walk over CQEs. Leaves the
 * order of phases to loop.c, leases to buffers.c, the meaning of results to op.c. Runs on the loop's thread; the ring is
 * SINGLE_ISSUER where the kernel knows that, so a slip shows as -EEXIST rather than as a race. A full SQ is ordinary:
 * the operation stays queued and is prepared in the next tick. */
#include <liburing.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* user_data: slot (32), generation (24), tag (8). Never a pointer: a late completion must not reach whoever lives at an
 * address now. */
enum { LC__TAG_OP = 1, LC__TAG_CANCEL = 2, LC__TAG_WAKE = 3 };

static uint64_t lc__user_data(uint32_t slot, uint32_t generation, unsigned tag) {
    return (uint64_t)slot | (uint64_t)(generation & 0xffffff) << 32 | (uint64_t)tag << 56;
}

typedef struct lc__slot {
    lc_op *op;           /* NULL while free */
    uint32_t generation; /* bumped when the slot is freed */
    uint32_t next_free;
} lc__slot;

enum { LC__NO_SLOT = 0xffffffff, LC__NOT_REGISTERED = 0xffffffff, LC__BUFFER_GROUP = 0 };

struct lc__proactor {
    struct io_uring ring;
    bool open;       /* a loop that moved and got no new ring has none */
    uint64_t thread; /* the one that enabled the ring; 0: none yet */
    uint32_t features;
    uint32_t registered; /* the ring's index among the thread's registered ones; LC__NOT_REGISTERED */
    bool wake_armed;
    lc__slot *slots;
    uint32_t slot_count;
    uint32_t free_slot;
    struct io_uring_buf_ring *buffers; /* NULL: receives bring a buffer of their own */
    size_t buffers_size;
    int buffers_new; /* added since the tail was last published */
    uint32_t vectors_used;
    uint32_t messages_used;
    struct iovec vectors[LC__GATHER_ARENA]; /* stable until the SQEs that name them are consumed */
    struct msghdr messages[LC__GATHER_ARENA / 2];
};

/* ---- set-up ---- */

static uint32_t lc__setup_flags(uint32_t features) {
    uint32_t flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    if (features & LC_FEATURE_SINGLE_ISSUER)
        flags |= IORING_SETUP_SINGLE_ISSUER;
    if (features & LC_FEATURE_DEFER_TASKRUN)
        flags |= IORING_SETUP_DEFER_TASKRUN;
    if (features & LC_FEATURE_COOP_TASKRUN)
        flags |= IORING_SETUP_COOP_TASKRUN;
    if (features & (LC_FEATURE_COOP_TASKRUN | LC_FEATURE_DEFER_TASKRUN))
        flags |= IORING_SETUP_TASKRUN_FLAG;
    if (features & LC_FEATURE_SUBMIT_ALL)
        flags |= IORING_SETUP_SUBMIT_ALL;
    return flags;
}

/* liburing maps the rings by system calls that ThreadSanitizer does not see, so it takes a new ring for what lay at the
 * same address before. It is told that each ring ends before a later one begins. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
void __tsan_acquire(void *address);
void __tsan_release(void *address);
static char lc__rings;
#define LC__RING_BEGINS() __tsan_acquire(&lc__rings)
#define LC__RING_ENDS()   __tsan_release(&lc__rings)
#endif
#endif
#ifndef LC__RING_BEGINS
#define LC__RING_BEGINS() ((void)0)
#define LC__RING_ENDS()   ((void)0)
#endif

/* The ladder: what a kernel does not know is dropped, newest first. DEFER_TASKRUN needs SINGLE_ISSUER. */
static int lc__setup(struct io_uring *ring, uint32_t submissions, uint32_t completions, uint32_t *features) {
    static const uint32_t ladder[] = {0, LC_FEATURE_DEFER_TASKRUN, LC_FEATURE_SINGLE_ISSUER, LC_FEATURE_COOP_TASKRUN,
                                      LC_FEATURE_SUBMIT_ALL};
    uint32_t wanted = *features;
    if (!(wanted & LC_FEATURE_SINGLE_ISSUER))
        wanted &= ~(uint32_t)LC_FEATURE_DEFER_TASKRUN;
    int result = -EINVAL;
    for (size_t step = 0; step < sizeof ladder / sizeof *ladder; step++) {
        wanted &= ~ladder[step];
        for (;;) {
            struct io_uring_params params = {.flags = lc__setup_flags(wanted), .cq_entries = completions};
            result = io_uring_queue_init_params(submissions, ring, &params);
            /* Locked memory may allow a smaller ring. */
            if (result == -ENOMEM && submissions > 64) {
                submissions /= 2;
                completions /= 2;
                continue;
            }
            break;
        }
        if (result != -EINVAL)
            break;
    }
    if (result < 0)
        return result;
    if (!(ring->features & IORING_FEAT_EXT_ARG)) {
        io_uring_queue_exit(ring);
        return -EINVAL;
    }
    io_uring_ring_dontfork(ring);
    LC__RING_BEGINS();
    *features = wanted;
    return 0;
}

static int lc__buffers_register(struct io_uring *ring, uint32_t count, struct io_uring_buf_ring **out, size_t *size) {
    *size = lc__whole_pages((size_t)count * sizeof(struct io_uring_buf));
    void *memory = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)memory, .ring_entries = count, .bgid = LC__BUFFER_GROUP};
    int result = io_uring_register_buf_ring(ring, &registration, 0);
    if (result < 0) {
        munmap(memory, *size);
        return result;
    }
    *out = memory;
    io_uring_buf_ring_init(*out);
    return 0;
}

static uint32_t lc__features_wanted(const lc_loop *loop) {
    uint32_t all = LC_FEATURE_DEFER_TASKRUN | LC_FEATURE_SINGLE_ISSUER | LC_FEATURE_COOP_TASKRUN |
                   LC_FEATURE_SUBMIT_ALL | LC_FEATURE_MULTISHOT_ACCEPT | LC_FEATURE_BUFFER_RING |
                   LC_FEATURE_REGISTERED_RING;
    return all & ~loop->options.features_off;
}

static int lc__ring_open(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    const lc_options *options = &loop->options;
    uint32_t submissions = options->submission_count ? options->submission_count : LC__SUBMISSION_COUNT;
    uint32_t completions = options->completion_count ? options->completion_count : LC__COMPLETION_COUNT;
    if (completions < submissions)
        completions = submissions;
    proactor->features = lc__features_wanted(loop);
    int result = lc__setup(&proactor->ring, submissions, completions, &proactor->features);
    proactor->open = result == 0;
    return result;
}

/* Saves a descriptor look-up per entry. Registered rings are the thread's, by index: liburing's own call would, from
 * another thread, take that one's entry away. */
static void lc__ring_register(struct lc__proactor *proactor) {
    struct io_uring_rsrc_update update = {.offset = LC__NOT_REGISTERED, .data = (uint64_t)proactor->ring.ring_fd};
    unsigned ring = (unsigned)proactor->ring.ring_fd;
    if ((proactor->features & LC_FEATURE_REGISTERED_RING) &&
        io_uring_register(ring, IORING_REGISTER_RING_FDS, &update, 1) == 1)
        proactor->registered = update.offset;
    else
        proactor->features &= ~(uint32_t)LC_FEATURE_REGISTERED_RING;
}

static void lc__ring_unregister(struct lc__proactor *proactor) {
    if (proactor->registered != LC__NOT_REGISTERED && proactor->thread == lc__thread_serial()) {
        struct io_uring_rsrc_update update = {.offset = proactor->registered};
        io_uring_register((unsigned)proactor->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &update, 1);
    }
    proactor->registered = LC__NOT_REGISTERED;
}

static void lc__ring_close(struct lc__proactor *proactor) {
    if (!proactor->open)
        return;
    proactor->open = false;
    lc__ring_unregister(proactor);
    LC__RING_ENDS();
    io_uring_queue_exit(&proactor->ring);
    if (proactor->buffers)
        munmap(proactor->buffers, proactor->buffers_size);
    proactor->buffers = NULL;
    proactor->buffers_new = 0;
    proactor->wake_armed = false;
    proactor->thread = 0;
    proactor->vectors_used = proactor->messages_used = 0;
}

int lc__proactor_create(lc_loop *loop) {
    struct lc__proactor *proactor = calloc(1, sizeof *proactor);
    if (!proactor)
        return -ENOMEM;
    proactor->free_slot = LC__NO_SLOT;
    proactor->registered = LC__NOT_REGISTERED;
    loop->proactor = proactor;
    int result = lc__ring_open(loop);
    if (result < 0) {
        loop->proactor = NULL;
        free(proactor);
    }
    return result;
}

void lc__proactor_destroy(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    if (!proactor)
        return;
    /* K4: a forked child never had the ring's mappings, so something else may lie where they would be. */
    if (!lc_loop_is_forked(loop))
        lc__ring_close(proactor);
    else if (proactor->open)
        close(proactor->ring.ring_fd);
    loop->proactor = NULL;
    free(proactor->slots);
    free(proactor);
}

uint32_t lc__proactor_features(const lc_loop *loop) { return loop->proactor ? loop->proactor->features : 0; }

bool lc__proactor_owned_here(const lc_loop *loop) {
    return loop->proactor->thread == 0 || loop->proactor->thread == lc__thread_serial();
}

/* Gives every buffer that nobody leases to the kernel. */
static void lc__buffers_fill(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    struct lc_shared *shared = loop->shared;
    if (!(proactor->features & LC_FEATURE_BUFFER_RING))
        return;
    int result =
        lc__buffers_register(&proactor->ring, shared->buffer_count, &proactor->buffers, &proactor->buffers_size);
    if (result < 0) {
        proactor->features &= ~(uint32_t)LC_FEATURE_BUFFER_RING;
        return;
    }
    for (uint32_t bid = 0; bid < shared->buffer_count; bid++)
        if (!shared->buffers[bid].lent)
            lc__proactor_buffer_back(loop, &shared->buffers[bid]);
}

/* A request belongs to the thread that entered the kernel with it, so the ring is enabled by the thread that runs the
 * loop. A loop that moves to another thread gets a new ring, if the old one has nothing in the kernel. */
int lc__proactor_bind(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    uint64_t here = lc__thread_serial();
    if (proactor->thread == here)
        return 0;
    if (proactor->thread) {
        if (loop->stats.in_kernel)
            return -EXDEV;
        lc__ring_close(proactor);
    }
    if (!proactor->open) {
        int result = lc__ring_open(loop);
        if (result < 0)
            return result;
    }
    /* K2: liburing 2.3 declares io_uring_enable_rings but does not export it. */
    int result = io_uring_register((unsigned)proactor->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (result < 0)
        return result;
    proactor->thread = here;
    lc__ring_register(proactor);
    lc__buffers_fill(loop);
    return 0;
}

int lc__proactor_probe(uint32_t *features) {
    struct io_uring ring;
    *features = ~(uint32_t)0 >> 25; /* all seven */
    int result = lc__setup(&ring, 8, 16, features);
    if (result < 0) {
        *features = 0;
        return result;
    }
    struct io_uring_buf_ring *buffers;
    size_t size;
    if (lc__buffers_register(&ring, 8, &buffers, &size) < 0)
        *features &= ~(uint32_t)LC_FEATURE_BUFFER_RING;
    io_uring_queue_exit(&ring);
    if (*features & LC_FEATURE_BUFFER_RING)
        munmap(buffers, size);
    return 0;
}

/* ---- slots ---- */

LC__RARE static bool lc__slots_grow(struct lc__proactor *proactor) {
    uint32_t count = proactor->slot_count ? proactor->slot_count * 2 : 256;
    lc__slot *slots = realloc(proactor->slots, count * sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t slot = count; slot-- > proactor->slot_count;) {
        slots[slot] = (lc__slot){.generation = 1, .next_free = proactor->free_slot};
        proactor->free_slot = slot;
    }
    proactor->slots = slots;
    proactor->slot_count = count;
    return true;
}

static uint32_t lc__slot_take(struct lc__proactor *proactor, lc_op *op) {
    if (proactor->free_slot == LC__NO_SLOT && !lc__slots_grow(proactor))
        return LC__NO_SLOT;
    uint32_t slot = proactor->free_slot;
    proactor->free_slot = proactor->slots[slot].next_free;
    proactor->slots[slot].op = op;
    op->slot = slot;
    return slot;
}

static void lc__slot_free(struct lc__proactor *proactor, uint32_t slot) {
    proactor->slots[slot].op = NULL;
    proactor->slots[slot].generation++;
    proactor->slots[slot].next_free = proactor->free_slot;
    proactor->free_slot = slot;
}

/* ---- submitting ---- */

/* An SQE for the operation, or NULL: the SQ is full, or there is no memory for a slot. */
static struct io_uring_sqe *lc__sqe_for(lc_loop *loop, lc_op *op) {
    struct lc__proactor *proactor = loop->proactor;
    if (lc__slot_take(proactor, op) == LC__NO_SLOT)
        return NULL;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&proactor->ring);
    if (!sqe)
        lc__slot_free(proactor, op->slot);
    return sqe;
}

static void lc__sqe_done(lc_loop *loop, struct io_uring_sqe *sqe, lc_op *op) {
    io_uring_sqe_set_data64(sqe, lc__user_data(op->slot, loop->proactor->slots[op->slot].generation, LC__TAG_OP));
    op->state = LC_STATE_IN_KERNEL;
    loop->stats.in_kernel++;
}

/* Without the kernel's choice of buffer, each receive brings one. */
static void lc__prep_receive_alone(lc_loop *loop, struct io_uring_sqe *sqe, lc_op *op) {
    lc_buffer *buffer = lc__buffer_heap(loop, LC__SEND_BUFFER_SIZE);
    op->flags |= LC_FLAG_OWN_BUFFER;
    op->address = buffer;
    if (buffer)
        io_uring_prep_recv(sqe, op->fd, buffer->base, buffer->capacity, 0);
    else
        io_uring_prep_nop(sqe); /* its answer sends the receive round again */
}

static void lc__prep_receive(lc_loop *loop, struct io_uring_sqe *sqe, lc_op *op) {
    if (!(loop->proactor->features & LC_FEATURE_BUFFER_RING)) {
        lc__prep_receive_alone(loop, sqe, op);
        return;
    }
    if (lc__container_of(op, lc_stream, receive)->local || (op->flags & LC_FLAG_ONE_ANSWER)) {
        io_uring_prep_recv(sqe, op->fd, NULL, 0, 0); /* K16, K8 */
    } else {
        io_uring_prep_recv_multishot(sqe, op->fd, NULL, 0, 0);
        op->flags |= LC_FLAG_MULTISHOT;
    }
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = LC__BUFFER_GROUP;
}

bool lc__proactor_start(lc_loop *loop, lc_op *op) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring_sqe *sqe = lc__sqe_for(loop, op);
    if (!sqe)
        return false;
    switch ((lc_opcode)op->opcode) {
    case LC_OP_ACCEPT:
        /* No address: it would be one buffer for all answers. Asked for when wanted. */
        if (proactor->features & LC_FEATURE_MULTISHOT_ACCEPT) {
            io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            op->flags |= LC_FLAG_MULTISHOT;
        } else {
            io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        }
        break;
    case LC_OP_CONNECT:
        io_uring_prep_connect(sqe, op->fd, op->address, op->length);
        break;
    case LC_OP_RECEIVE:
        lc__prep_receive(loop, sqe, op);
        break;
    case LC_OP_POLL_READ:
        io_uring_prep_poll_add(sqe, op->fd, POLLIN | POLLRDHUP);
        break;
    case LC_OP_POLL_WRITE:
    case LC_OP_ROOM:
        io_uring_prep_poll_add(sqe, op->fd, POLLOUT);
        break;
    case LC_OP_SEND:
    case LC_OP_NONE:
        assert(!"not started from the queue");
        break;
    }
    lc__sqe_done(loop, sqe, op);
    return true;
}

/* WAITALL lets the kernel finish a short send itself; what it leaves nevertheless goes with the next. */
enum { LC__SEND_FLAGS = MSG_NOSIGNAL | MSG_WAITALL };

LC__RARE static void lc__prep_send_gathered(lc_stream *stream, struct io_uring_sqe *sqe) {
    struct lc__proactor *proactor = stream->loop->proactor;
    struct iovec *vectors = &proactor->vectors[proactor->vectors_used];
    struct msghdr *message = &proactor->messages[proactor->messages_used++];
    size_t total;
    uint32_t count = lc__stream_gather(stream, vectors, LC__GATHER_MAX, &total);
    proactor->vectors_used += count;
    *message = (struct msghdr){.msg_iov = vectors, .msg_iovlen = count};
    io_uring_prep_sendmsg(sqe, stream->fd, message, LC__SEND_FLAGS);
    stream->send.in_flight = count;
}

/* One send in flight per stream: two could overtake each other once the socket's buffer is full. */
bool lc__proactor_send(lc_stream *stream) {
    lc_loop *loop = stream->loop;
    struct io_uring_sqe *sqe = lc__sqe_for(loop, &stream->send);
    if (!sqe)
        return false;
    if (stream->out.count > 1 && loop->proactor->vectors_used <= LC__GATHER_ARENA - LC__GATHER_MAX) {
        lc__prep_send_gathered(stream, sqe);
    } else {
        lc_buffer *buffer = lc__container_of(stream->out.head, lc_buffer, node);
        io_uring_prep_send(sqe, stream->fd, buffer->base + buffer->offset, buffer->length, LC__SEND_FLAGS);
        stream->send.in_flight = 1;
    }
    lc__sqe_done(loop, sqe, &stream->send);
    return true;
}

static int lc__ring_enter(lc_loop *loop, unsigned wait_count, struct __kernel_timespec *timeout) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring *ring = &proactor->ring;
    if (proactor->buffers_new) {
        io_uring_buf_ring_advance(proactor->buffers, proactor->buffers_new); /* one release store per batch */
        proactor->buffers_new = 0;
    }
    struct io_uring_sq *sq = &ring->sq;
    if (sq->sqe_head != sq->sqe_tail) {
        sq->sqe_head = sq->sqe_tail;
        /* Release: the kernel reads the SQEs after it reads the tail. */
        io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    }
    unsigned submit_count = sq->sqe_tail - io_uring_smp_load_acquire(sq->khead);
    struct io_uring_getevents_arg argument = {.ts = (uint64_t)(uintptr_t)timeout};
    unsigned flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    bool registered = proactor->registered != LC__NOT_REGISTERED;
    if (registered)
        flags |= IORING_ENTER_REGISTERED_RING;
    loop->stats.enters++;
    int result = io_uring_enter2(registered ? proactor->registered : (unsigned)ring->ring_fd, submit_count, wait_count,
                                 flags, (sigset_t *)&argument, sizeof argument);
    if (io_uring_smp_load_acquire(sq->khead) == sq->sqe_tail)
        proactor->vectors_used = proactor->messages_used = 0;
    return result;
}

/* The eventfd of the inbox, polled for as long as the kernel likes. */
static void lc__arm_wake(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring_sqe *sqe = proactor->wake_armed ? NULL : io_uring_get_sqe(&proactor->ring);
    if (!sqe)
        return;
    io_uring_prep_poll_multishot(sqe, loop->shared->eventfd, POLLIN);
    io_uring_sqe_set_data64(sqe, lc__user_data(0, 0, LC__TAG_WAKE));
    proactor->wake_armed = true;
}

bool lc__proactor_settled(const lc_loop *loop) {
    const struct lc__proactor *proactor = loop->proactor;
    const struct io_uring *ring = &proactor->ring;
    return proactor->wake_armed && io_uring_cq_ready(ring) == 0 && io_uring_sq_ready(ring) == 0;
}

int lc__proactor_fd(const lc_loop *loop) { return loop->proactor->ring.ring_fd; }

int lc__proactor_enter(lc_loop *loop, int64_t timeout_ns) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring *ring = &proactor->ring;
    lc__arm_wake(loop);
    if (!proactor->wake_armed)
        timeout_ns = 0; /* the SQ was full; asleep now, nobody could wake us */
    bool completed = io_uring_cq_ready(ring) > 0;
    unsigned flags = __atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED);
    if (flags & IORING_SQ_CQ_OVERFLOW)
        loop->stats.overflows++;
    /* With TASKRUN_FLAG the kernel says when it has something: a pass that has nothing to submit and need not wait
     * can stay out of it. */
    bool deferred = proactor->features & (LC_FEATURE_DEFER_TASKRUN | LC_FEATURE_COOP_TASKRUN);
    if (timeout_ns == 0 && ring->sq.sqe_head == ring->sq.sqe_tail && !proactor->buffers_new && deferred &&
        !(flags & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) &&
        ring->sq.sqe_tail == io_uring_smp_load_acquire(ring->sq.khead))
        return 0;
    struct __kernel_timespec timeout = {.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
    bool wait = timeout_ns != 0 && !completed;
    int result = lc__ring_enter(loop, wait ? 1 : 0, timeout_ns > 0 && wait ? &timeout : NULL);
    if (result >= 0)
        return 0;
    switch (-result) {
    case ETIME:  /* the deadline */
    case EINTR:  /* a signal */
    case EBUSY:  /* the CQ is full: reap, then again */
    case EAGAIN: /* the kernel is short of memory for requests: likewise */
        return 0;
    default:
        return result;
    }
}

bool lc__proactor_is_behind(const lc_loop *loop) {
    const struct io_uring *ring = &loop->proactor->ring;
    return io_uring_cq_ready(ring) > 0 || (__atomic_load_n(ring->sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW);
}

bool lc__proactor_cancel(lc_loop *loop, lc_op *op) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&proactor->ring);
    if (!sqe)
        return false;
    uint32_t generation = proactor->slots[op->slot].generation;
    io_uring_prep_cancel64(sqe, lc__user_data(op->slot, generation, LC__TAG_OP), 0);
    io_uring_sqe_set_data64(sqe, lc__user_data(op->slot, generation, LC__TAG_CANCEL));
    return true;
}

/* ---- reaping ---- */

void lc__proactor_buffer_back(lc_loop *loop, lc_buffer *buffer) {
    struct lc__proactor *proactor = loop->proactor;
    buffer->lent = 0;
    if (!proactor || !proactor->buffers)
        return; /* not bound yet, or closing: it is given with the rest, or never */
    struct lc_shared *shared = loop->shared;
    io_uring_buf_ring_add(proactor->buffers, buffer->base, buffer->capacity, buffer->bid,
                          io_uring_buf_ring_mask(shared->buffer_count), proactor->buffers_new++);
}

/* The kernel does not know what was asked (K3): from now on ask for less. */
static bool lc__feature_refused(struct lc__proactor *proactor, lc_op *op, int result) {
    if (result != -EINVAL || !(op->flags & LC_FLAG_MULTISHOT))
        return false;
    uint32_t feature = op->opcode == LC_OP_ACCEPT ? LC_FEATURE_MULTISHOT_ACCEPT : LC_FEATURE_BUFFER_RING;
    proactor->features &= ~feature;
    return true;
}

/* NULL: it has ended. */
static lc_op *lc__op_of(const struct lc__proactor *proactor, const struct io_uring_cqe *cqe) {
    uint32_t index = (uint32_t)cqe->user_data;
    const lc__slot *slot = index < proactor->slot_count ? &proactor->slots[index] : NULL;
    return slot && (slot->generation & 0xffffff) == (cqe->user_data >> 32 & 0xffffff) ? slot->op : NULL;
}

/* K17: an operation may miss its cancel while the kernel takes it from one place to another. */
static void lc__reap_cancel(lc_loop *loop, const struct io_uring_cqe *cqe) {
    lc_op *op = lc__op_of(loop->proactor, cqe);
    if (op && (cqe->res == -ENOENT || cqe->res == -EALREADY))
        lc__op_ask_cancel_again(loop, op);
}

/* K22: a multishot that answered many times in a row, and then found the socket empty, may never hear of a reset that
 * came meanwhile. Asked anew, the kernel looks again. */
static void lc__count_answer(lc_loop *loop, lc_op *op, uint32_t flags) {
    if (op->answers < UINT8_MAX)
        op->answers++;
    if (flags & IORING_CQE_F_SOCK_NONEMPTY)
        return;
    bool many = op->answers > LC__ANSWERS_TRUSTED;
    op->answers = 0;
    if (many)
        lc__op_ask_cancel(loop, op);
}

LC__RARE static void lc__reap_rarely(lc_loop *loop, const struct io_uring_cqe *cqe) {
    struct lc__proactor *proactor = loop->proactor;
    uint32_t index = (uint32_t)cqe->user_data;
    int result = cqe->res;
    lc_buffer *buffer = NULL;
    /* By flag, not by sign of the result: some kernels attach a buffer to an error. */
    if (cqe->flags & IORING_CQE_F_BUFFER)
        buffer = lc__buffer_taken(loop, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT),
                                  result > 0 ? (uint32_t)result : 0);
    lc_op *op = lc__op_of(proactor, cqe);
    if (!op) {
        loop->stats.stale++;
        if (buffer)
            lc__buffer_return_here(loop, buffer);
        return;
    }
    bool more = cqe->flags & IORING_CQE_F_MORE;
    bool retry = false;
    bool own_buffer = op->flags & LC_FLAG_OWN_BUFFER;
    /* Whether the kernel knows what was asked, which a cancel came before, the next of its kind will find out. */
    if (result == -EINVAL && op->flags & LC_FLAG_MULTISHOT && op->flags & LC_FLAG_CANCEL_ASKED)
        result = -ECANCELED;
    if (!more) {
        lc__slot_free(proactor, index);
        loop->stats.in_kernel--;
        op->state = LC_STATE_IDLE;
        retry = lc__feature_refused(proactor, op, result);
        if (op->flags & LC_FLAG_CANCEL_LISTED)
            lc__op_leave_cancels(loop, op);
        op->flags = 0;
    }
    if (own_buffer && op->address) {
        buffer = (lc_buffer *)(uintptr_t)op->address;
        buffer->length = result > 0 ? (uint32_t)result : 0;
        op->address = NULL;
    } else if (own_buffer) {
        retry = true; /* the NOP that stood in for a receive without memory */
    }
    if (retry)
        result = -EINTR;
    if (more && buffer)
        lc__count_answer(loop, op, cqe->flags);
    lc__op_completed(loop, op, result, more, buffer);
}

/* First what a message comes to, almost always: a piece of it received, with more to come; and its answer sent. */
static void lc__reap_op(lc_loop *loop, const struct io_uring_cqe *cqe) {
    struct lc__proactor *proactor = loop->proactor;
    lc_op *op = lc__op_of(proactor, cqe);
    unsigned with = cqe->flags & (IORING_CQE_F_BUFFER | IORING_CQE_F_MORE);
    if (op && op->opcode == LC_OP_RECEIVE && with == (IORING_CQE_F_BUFFER | IORING_CQE_F_MORE) && cqe->res > 0) {
        lc_buffer *buffer =
            lc__buffer_taken(loop, (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT), (uint32_t)cqe->res);
        lc__count_answer(loop, op, cqe->flags);
        lc__stream_received(lc__container_of(op, lc_stream, receive), cqe->res, true, buffer);
    } else if (op && op->opcode == LC_OP_SEND && with == 0 && op->flags == 0) {
        lc__slot_free(proactor, op->slot);
        loop->stats.in_kernel--;
        op->state = LC_STATE_IDLE;
        lc__stream_sent(lc__container_of(op, lc_stream, send), cqe->res);
    } else {
        lc__reap_rarely(loop, cqe);
    }
}

void lc__proactor_reap(lc_loop *loop) {
    struct lc__proactor *proactor = loop->proactor;
    struct io_uring_cq *cq = &proactor->ring.cq;
    unsigned head = *cq->khead;
    unsigned ready = io_uring_smp_load_acquire(cq->ktail) - head;
    unsigned batch_max = loop->options.reap_batch_max ? loop->options.reap_batch_max : LC__REAP_MAX;
    unsigned count = ready < batch_max ? ready : batch_max;
    for (unsigned index = 0; index < count; index++) {
        const struct io_uring_cqe *cqe = &cq->cqes[(head + index) & cq->ring_mask];
        switch (cqe->user_data >> 56) {
        case LC__TAG_OP:
            lc__reap_op(loop, cqe);
            break;
        case LC__TAG_WAKE:
            lc__inbox_clear_wake(loop);
            if (!(cqe->flags & IORING_CQE_F_MORE))
                proactor->wake_armed = false;
            break;
        default:
            lc__reap_cancel(loop, cqe);
            break;
        }
    }
    loop->stats.completions += count;
    /* One release store for the batch: the kernel may reuse these entries. */
    io_uring_smp_store_release(cq->khead, head + count);
}
