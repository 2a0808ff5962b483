// SPDX-License-Identifier: Apache-2.0
/* uring.c: rings: set-up, registration, entering, submissions and completions.
 *
 * As with DEFER_TASKRUN, operations go on only while the program is in the kernel. The rules that Linux enforces are
 * enforced here; those that it only states in manuals are findings. */
#include "uring.h"

enum { REGISTERED_MAX = 16, WORK_ROUNDS = 4, ENTRIES_MAX = 32768 };

static _Thread_local sim_ring *registered[REGISTERED_MAX];

/* ---- set-up ---- */

static unsigned power_of_two(unsigned value) {
    unsigned power = 1;
    while (power < value)
        power *= 2;
    return power;
}

static uint32_t known_flags(uint32_t lacks) {
    uint32_t flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    if (!(lacks & SIM_LACKS_SUBMIT_ALL))
        flags |= IORING_SETUP_SUBMIT_ALL;
    if (!(lacks & SIM_LACKS_COOP_TASKRUN))
        flags |= IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    if (!(lacks & SIM_LACKS_SINGLE_ISSUER))
        flags |= IORING_SETUP_SINGLE_ISSUER;
    if (!(lacks & SIM_LACKS_DEFER_TASKRUN))
        flags |= IORING_SETUP_DEFER_TASKRUN;
    return flags;
}

static void show_rings(sim_ring *ring, struct io_uring *user) {
    memset(user, 0, sizeof *user);
    user->sq = (struct io_uring_sq){.khead = &ring->sq_head,
                                    .ktail = &ring->sq_tail,
                                    .kring_mask = &ring->sq_mask,
                                    .kring_entries = &ring->sq_entries,
                                    .kflags = &ring->sq_flags,
                                    .kdropped = &ring->cq_overflow,
                                    .array = ring->array,
                                    .sqes = ring->sqes,
                                    .ring_mask = ring->sq_mask,
                                    .ring_entries = ring->sq_entries};
    user->cq = (struct io_uring_cq){.khead = &ring->cq_head,
                                    .ktail = &ring->cq_tail,
                                    .kring_mask = &ring->cq_mask,
                                    .kring_entries = &ring->cq_entries,
                                    .kflags = &ring->sq_flags,
                                    .koverflow = &ring->cq_overflow,
                                    .cqes = ring->cqes,
                                    .ring_mask = ring->cq_mask,
                                    .ring_entries = ring->cq_entries};
    user->flags = ring->flags;
    user->features = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG;
}

int sim_ring_setup_call(unsigned entries, struct io_uring *user, struct io_uring_params *params) {
    sim_kernel *kernel = sim_enter_call(-1);
    uint32_t lacks = kernel->config.lacks;
    unsigned completions = params->cq_entries;
    if (params->flags & IORING_SETUP_CLAMP) {
        entries = entries < ENTRIES_MAX ? entries : ENTRIES_MAX;
        completions = completions < 2 * ENTRIES_MAX ? completions : 2 * ENTRIES_MAX;
    }
    bool fits = entries > 0 && entries <= ENTRIES_MAX && completions > 0 && completions <= 2 * ENTRIES_MAX &&
                power_of_two(completions) >= power_of_two(entries);
    int result = lacks & SIM_LACKS_IO_URING            ? -ENOSYS
                 : params->flags & ~known_flags(lacks) ? -EINVAL
                 : !fits                               ? -EINVAL
                                                       : 0;
    if (result < 0) {
        sim_leave_call(kernel);
        return result;
    }
    sim_ring *ring = calloc(1, sizeof *ring);
    ring->flags = params->flags;
    ring->disabled = params->flags & IORING_SETUP_R_DISABLED;
    ring->thread = pthread_self();
    ring->sq_entries = power_of_two(entries);
    ring->cq_entries = power_of_two(completions);
    ring->sq_mask = ring->sq_entries - 1;
    ring->cq_mask = ring->cq_entries - 1;
    ring->sqes = calloc(ring->sq_entries, sizeof *ring->sqes);
    ring->cqes = calloc(ring->cq_entries, sizeof *ring->cqes);
    ring->array = calloc(ring->sq_entries, sizeof *ring->array);
    show_rings(ring, user);
    ring->user = user;
    sim_file_init(kernel, &ring->file, SIM_RING, false);
    int fd = sim_fd_open(kernel, &ring->file, true);
    sim_leave_call(kernel);
    if (fd < 0)
        return fd;
    user->ring_fd = user->enter_ring_fd = fd;
    return 0;
}

static sim_ring *ring_of(int fd) {
    sim_file *file = sim_fd_file(fd);
    return file && file->kind == SIM_RING ? (sim_ring *)file : NULL;
}

void sim_ring_released(sim_file *file) {
    sim_ring *ring = (sim_ring *)file;
    while (ring->requests)
        sim_request_drop(ring->requests);
    for (size_t index = 0; index < REGISTERED_MAX; index++)
        if (registered[index] == ring)
            registered[index] = NULL;
    sim_group_free(&ring->group);
    free(ring->work);
    free(ring->waiting);
    free(ring->sqes);
    free(ring->cqes);
    free(ring->array);
    free(ring);
}

void sim_ring_exit_call(struct io_uring *user) {
    sim_kernel *kernel = sim_enter_call(user->ring_fd);
    if (!kernel)
        return;
    sim_ring *ring = ring_of(user->ring_fd);
    for (sim_request *request = ring ? ring->requests : NULL; request; request = request->next)
        if (sim_request_names_memory(request))
            sim_find(kernel, "a ring was closed while an operation in it names the program's memory");
    sim_fd_close(user->ring_fd);
    sim_leave_call(kernel);
}

bool sim_ring_has_work(sim_file *file) { return ((sim_ring *)file)->work_count > 0; }

/* ---- registration ---- */

static sim_ring **registered_at(int number) {
    int index = number - SIM_FD_FIRST;
    return index >= 0 && index < REGISTERED_MAX ? &registered[index] : NULL;
}

static int ring_register(sim_ring *ring, struct io_uring_rsrc_update *update) {
    if (ring->file.kernel->config.lacks & SIM_LACKS_REGISTERED_RINGS)
        return -EINVAL;
    for (int index = 0; index < REGISTERED_MAX; index++) {
        if (registered[index])
            continue;
        registered[index] = ring_of((int)update->data);
        update->offset = (uint32_t)(SIM_FD_FIRST + index); /* above the real ones, so that a number tells whose it is */
        return 1;
    }
    return -EBUSY;
}

int sim_ring_register_call(int fd, unsigned opcode, void *argument, unsigned count) {
    (void)count;
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -EBADF;
    sim_ring *ring = ring_of(fd);
    int result = ring ? 0 : -EBADF;
    struct io_uring_rsrc_update *update = argument;
    if (ring && opcode == IORING_REGISTER_ENABLE_RINGS) {
        result = ring->disabled ? 0 : -EBADFD;
        ring->disabled = false;
        ring->thread = pthread_self();
    } else if (ring && opcode == IORING_REGISTER_RING_FDS) {
        result = ring_register(ring, update);
    } else if (ring && opcode == IORING_UNREGISTER_RING_FDS) {
        sim_ring **entry = registered_at((int)update->offset);
        result = entry && *entry;
        if (result)
            *entry = NULL;
    } else if (ring) {
        result = -EINVAL;
    }
    sim_leave_call(kernel);
    return result;
}

int sim_ring_buffers_call(struct io_uring *user, struct io_uring_buf_reg *registration) {
    sim_kernel *kernel = sim_enter_call(user->ring_fd);
    if (!kernel)
        return -EBADF;
    sim_ring *ring = ring_of(user->ring_fd);
    int result = !ring                                           ? -EBADF
                 : kernel->config.lacks & SIM_LACKS_BUFFER_RINGS ? -EINVAL
                                                                 : sim_group_register(ring, registration);
    sim_leave_call(kernel);
    return result;
}

/* ---- completions ---- */

static unsigned ready_count(const sim_ring *ring) {
    return ring->cq_tail - __atomic_load_n(&ring->cq_head, __ATOMIC_ACQUIRE);
}

static void post(sim_ring *ring, struct io_uring_cqe cqe) {
    ring->cqes[ring->cq_tail & ring->cq_mask] = cqe;
    __atomic_store_n(&ring->cq_tail, ring->cq_tail + 1, __ATOMIC_RELEASE);
}

bool sim_complete(sim_ring *ring, uint64_t user_data, int result, uint32_t flags) {
    sim_kernel *kernel = ring->file.kernel;
    struct io_uring_cqe cqe = {.user_data = user_data, .res = result, .flags = flags};
    kernel->stats.completions++;
    if (ring->waiting_count == 0 && ready_count(ring) < ring->cq_entries) {
        post(ring, cqe);
        return true;
    }
    kernel->stats.overflows++;
    if (ring->waiting_count == ring->waiting_capacity) {
        ring->waiting_capacity = ring->waiting_capacity ? ring->waiting_capacity * 2 : 16;
        ring->waiting = realloc(ring->waiting, ring->waiting_capacity * sizeof *ring->waiting);
    }
    ring->waiting[ring->waiting_count++] = cqe;
    __atomic_or_fetch(&ring->sq_flags, IORING_SQ_CQ_OVERFLOW, __ATOMIC_RELAXED);
    return false;
}

static void flush_overflow(sim_ring *ring) {
    size_t count = 0;
    while (count < ring->waiting_count && ready_count(ring) < ring->cq_entries)
        post(ring, ring->waiting[count++]);
    ring->waiting_count -= count;
    if (count > 0)
        memmove(ring->waiting, ring->waiting + count, ring->waiting_count * sizeof *ring->waiting);
    if (ring->waiting_count == 0)
        __atomic_and_fetch(&ring->sq_flags, ~(unsigned)IORING_SQ_CQ_OVERFLOW, __ATOMIC_RELAXED);
}

/* ---- entering ---- */

static unsigned submit(sim_ring *ring, unsigned count) {
    sim_kernel *kernel = ring->file.kernel;
    unsigned tail = __atomic_load_n(&ring->sq_tail, __ATOMIC_ACQUIRE);
    unsigned there = tail - ring->sq_head;
    count = count < there ? count : there;
    if (count > 1 && sim_fault(kernel, kernel->config.odds.short_submit))
        count = 1 + sim_below(kernel, count - 1);
    for (unsigned done = 0; done < count; done++) {
        /* Liburing fills the array when it submits; a program of its own that leaves it out means the identity. */
        struct io_uring_sqe *sqe = &ring->sqes[ring->sq_head & ring->sq_mask];
        sim_request_submit(ring, sqe);
        memset(sqe, 0xee, sizeof *sqe); /* from here on it is the program's */
        __atomic_store_n(&ring->sq_head, ring->sq_head + 1, __ATOMIC_RELEASE);
    }
    return count;
}

/* One round of whatever can go on, in an order of the kernel's choosing. */
static void run_work(sim_ring *ring) {
    sim_kernel *kernel = ring->file.kernel;
    size_t count = ring->work_count;
    for (size_t index = count; index-- > 1 && sim_chance(kernel, kernel->config.odds.reordered);) {
        size_t other = sim_below(kernel, (uint32_t)index + 1);
        sim_request *request = ring->work[index];
        ring->work[index] = ring->work[other];
        ring->work[other] = request;
    }
    for (size_t index = 0; index < count; index++) {
        sim_request *request = ring->work[index];
        if (!request)
            continue;
        ring->work[index] = NULL;
        request->has_work = false;
        if (sim_chance(kernel, kernel->config.odds.held_back))
            sim_request_work(request);
        else
            sim_request_attempt(request);
    }
    size_t kept = 0;
    for (size_t index = 0; index < ring->work_count; index++)
        if (ring->work[index])
            ring->work[kept++] = ring->work[index];
    ring->work_count = kept;
    if (kept == 0)
        __atomic_and_fetch(&ring->sq_flags, ~(unsigned)IORING_SQ_TASKRUN, __ATOMIC_RELAXED);
}

static int enter_refused(sim_ring *ring) {
    static const int errors[] = {EINTR, EAGAIN, EBUSY};
    sim_kernel *kernel = ring->file.kernel;
    if (ring->disabled)
        return -EBADFD;
    if (ring->flags & IORING_SETUP_SINGLE_ISSUER && !pthread_equal(ring->thread, pthread_self()))
        return -EEXIST;
    if (sim_fault(kernel, kernel->config.odds.enter_fails))
        return -errors[sim_below(kernel, sizeof errors / sizeof *errors)];
    return 0;
}

static int enter(sim_ring *ring, unsigned submit_count, unsigned wait_count, uint64_t deadline_ns) {
    sim_kernel *kernel = ring->file.kernel;
    sim_group_check_in(ring);
    int submitted = (int)submit(ring, submit_count);
    for (;;) {
        sim_progress(kernel);
        flush_overflow(ring);
        for (int round = 0; round < WORK_ROUNDS && ring->work_count > 0; round++)
            run_work(ring);
        if (ready_count(ring) >= wait_count || (submitted > 0 && (unsigned)submitted < submit_count))
            return submitted;
        if (ring->work_count > 0)
            continue;
        if (deadline_ns != SIM_NEVER_NS && sim_now(kernel) >= deadline_ns)
            return submitted > 0 ? submitted : -ETIME;
        if (!sim_sleep(kernel, deadline_ns) && deadline_ns == SIM_NEVER_NS)
            return submitted > 0 ? submitted : -EINTR;
    }
}

/* An entry names a registered ring by its index. */
static int entered_fd(int fd, unsigned flags) {
    sim_ring **entry = flags & IORING_ENTER_REGISTERED_RING ? registered_at(fd) : NULL;
    return entry && *entry ? (*entry)->user->ring_fd : fd;
}

const struct io_uring *sim_ring_named_call(int fd, unsigned flags) {
    fd = entered_fd(fd, flags);
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return NULL;
    const sim_ring *ring = ring_of(fd);
    sim_leave_call(kernel);
    return ring ? ring->user : NULL;
}

int sim_ring_enter_call(int fd, unsigned submit_count, unsigned wait_count, unsigned flags, const void *argument) {
    fd = entered_fd(fd, flags);
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -EBADF;
    sim_ring *ring = ring_of(fd);
    int result = ring ? enter_refused(ring) : -EBADF;
    if (result == 0) {
        uint64_t deadline_ns = SIM_NEVER_NS;
        const struct io_uring_getevents_arg *extended = flags & IORING_ENTER_EXT_ARG ? argument : NULL;
        if (extended && extended->ts) {
            const struct __kernel_timespec *timeout = (const void *)(uintptr_t)extended->ts;
            deadline_ns = sim_now(kernel) + (uint64_t)timeout->tv_sec * 1000000000u + (uint64_t)timeout->tv_nsec;
        }
        result = enter(ring, submit_count, flags & IORING_ENTER_GETEVENTS ? wait_count : 0, deadline_ns);
    }
    sim_leave_call(kernel);
    return result;
}
