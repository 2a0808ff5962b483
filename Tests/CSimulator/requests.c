// SPDX-License-Identifier: Apache-2.0
/* requests.c: operations in the kernel: each is attempted when it is submitted and whenever its file has changed, until
 * its last completion. What it names is read and written only in between, so a sanitizer sees memory that went early. */
#include <fcntl.h>
#include "uring.h"

enum { SHOTS_MAX = 32, POISON_UNUSED = 0xa5, RECEIVE_MAX = 1 << 20 };

bool sim_request_names_memory(const sim_request *request) { return request->address || request->vectors; }

void sim_request_work(sim_request *request) {
    sim_ring *ring = request->ring;
    if (request->has_work)
        return;
    request->has_work = true;
    if (ring->work_count == ring->work_capacity) {
        ring->work_capacity = ring->work_capacity ? ring->work_capacity * 2 : 64;
        ring->work = realloc(ring->work, ring->work_capacity * sizeof *ring->work);
    }
    ring->work[ring->work_count++] = request;
    if (ring->flags & IORING_SETUP_TASKRUN_FLAG)
        __atomic_or_fetch(&ring->sq_flags, IORING_SQ_TASKRUN, __ATOMIC_RELAXED);
}

static uint32_t wanted_events(const sim_request *request) {
    switch (request->opcode) {
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        return POLLOUT | POLLERR | POLLHUP;
    case IORING_OP_POLL_ADD:
        return request->events | POLLERR | POLLHUP;
    default:
        return POLLIN | POLLERR | POLLHUP | POLLRDHUP;
    }
}

sim_request *sim_request_wake(sim_request *request) {
    sim_request *next = request->next_here;
    if (request->connecting || sim_file_poll(request->file) & wanted_events(request))
        sim_request_work(request);
    return next;
}

void sim_request_drop(sim_request *request) {
    sim_ring *ring = request->ring;
    *request->link = request->next;
    if (request->next)
        request->next->link = request->link;
    if (request->link_here) {
        *request->link_here = request->next_here;
        if (request->next_here)
            request->next_here->link_here = request->link_here;
    }
    for (size_t index = 0; request->has_work && index < ring->work_count; index++)
        if (ring->work[index] == request)
            ring->work[index] = NULL;
    if (request->file)
        sim_file_release(request->file);
    free(request->vectors);
    free(request->copy);
    free(request);
}

static void finish(sim_request *request, int result, uint32_t flags) {
    sim_complete(request->ring, request->user_data, result, flags);
    sim_request_drop(request);
}

/* One answer of several. False: it was the last, because the CQ is full or because it pleased the kernel. */
static bool shot(sim_request *request, int result, uint32_t flags) {
    sim_kernel *kernel = request->ring->file.kernel;
    bool room = request->ring->cq_tail - __atomic_load_n(&request->ring->cq_head, __ATOMIC_ACQUIRE) <
                    request->ring->cq_entries &&
                request->ring->waiting_count == 0;
    if (!room || sim_chance(kernel, kernel->config.odds.multishot_ends)) {
        kernel->stats.multishots_ended++;
        finish(request, result, flags);
        return false;
    }
    sim_complete(request->ring, request->user_data, result, flags | IORING_CQE_F_MORE);
    return true;
}

/* ---- receive ---- */

static void receive_selected(sim_request *request, sim_socket *socket) {
    for (int shots = 0; shots < SHOTS_MAX; shots++) {
        const struct io_uring_buf *buffer = sim_group_peek(request->ring);
        if (!buffer) {
            finish(request, -ENOBUFS, 0);
            return;
        }
        size_t length = buffer->len < RECEIVE_MAX ? buffer->len : RECEIVE_MAX;
        uint8_t *bytes = malloc(length);
        ssize_t result = sim_socket_receive(socket, bytes, length, 0);
        if (result > 0) {
            sim_group_use(request->ring, buffer);
            memcpy((uint8_t *)(uintptr_t)buffer->addr, bytes, (size_t)result);
        }
        free(bytes);
        if (result == -EAGAIN)
            return;
        if (result <= 0) {
            finish(request, (int)result, 0);
            return;
        }
        uint32_t flags = IORING_CQE_F_BUFFER | (uint32_t)buffer->bid << IORING_CQE_BUFFER_SHIFT;
        if (!request->multishot) {
            finish(request, (int)result, flags);
            return;
        }
        if (!shot(request, (int)result, flags))
            return;
    }
    sim_request_work(request);
}

static void receive(sim_request *request) {
    sim_socket *socket = sim_socket_of(request->file);
    if (!socket) {
        finish(request, -ENOTSOCK, 0);
    } else if (request->selects_buffer) {
        receive_selected(request, socket);
    } else {
        ssize_t result = sim_socket_receive(socket, request->address, request->length, 0);
        if (result != -EAGAIN)
            finish(request, (int)result, 0);
    }
}

/* ---- send ---- */

static void check_untouched(sim_request *request) {
    size_t at = 0;
    for (size_t index = 0; index < request->vector_count; index++) {
        const struct iovec *vector = &request->vectors[index];
        if (memcmp(vector->iov_base, request->copy + at, vector->iov_len) != 0)
            sim_find(request->ring->file.kernel, "bytes of a send were changed while the kernel had them");
        at += vector->iov_len;
    }
}

/* What is left of the vectors after the bytes that are out. */
static size_t rest_of(const sim_request *request, struct iovec *rest) {
    size_t skip = request->sent, count = 0;
    for (size_t index = 0; index < request->vector_count; index++) {
        struct iovec vector = request->vectors[index];
        if (skip >= vector.iov_len) {
            skip -= vector.iov_len;
            continue;
        }
        rest[count++] = (struct iovec){(uint8_t *)vector.iov_base + skip, vector.iov_len - skip};
        skip = 0;
    }
    return count;
}

static void send_bytes(sim_request *request) {
    sim_kernel *kernel = request->ring->file.kernel;
    sim_socket *socket = sim_socket_of(request->file);
    if (!socket) {
        finish(request, -ENOTSOCK, 0);
        return;
    }
    check_untouched(request);
    struct iovec *rest = malloc((request->vector_count + 1) * sizeof *rest);
    ssize_t result = sim_socket_send(socket, rest, rest_of(request, rest));
    free(rest);
    if (result == -EAGAIN)
        return;
    if (result < 0) {
        finish(request, request->sent > 0 ? (int)request->sent : (int)result, 0);
        return;
    }
    request->sent += (size_t)result;
    bool whole = request->sent == request->total;
    /* With WAITALL the kernel goes on by itself, and gives up before the end now and then. */
    if (whole || !(request->flags & MSG_WAITALL) || sim_chance(kernel, kernel->config.odds.short_write))
        finish(request, (int)request->sent, 0);
    else
        sim_request_work(request);
}

/* ---- accept, connect, poll ---- */

static void accept_connections(sim_request *request) {
    sim_kernel *kernel = request->ring->file.kernel;
    sim_socket *listener = sim_socket_of(request->file), *child;
    for (int shots = 0; shots < SHOTS_MAX; shots++) {
        int result = listener ? sim_socket_accept(listener, &child) : -ENOTSOCK;
        if (result == -EAGAIN)
            return;
        if (result == 0) {
            child->file.nonblocking = request->flags & SOCK_NONBLOCK;
            result = sim_fd_open(kernel, &child->file, request->flags & SOCK_CLOEXEC);
        }
        if (result < 0 || !request->multishot) {
            finish(request, result, 0);
            return;
        }
        if (!shot(request, result, 0))
            return;
    }
    sim_request_work(request);
}

static void connect_socket(sim_request *request) {
    sim_socket *socket = sim_socket_of(request->file);
    if (!socket) {
        finish(request, -ENOTSOCK, 0);
        return;
    }
    if (!request->connecting) {
        request->connecting = true;
        int result = sim_socket_connect(socket, (struct sockaddr *)&request->peer, request->length);
        if (result != -EINPROGRESS)
            finish(request, result, 0);
        else if (socket->state != SIM_CONNECTING)
            sim_request_work(request);
        return;
    }
    if (socket->state == SIM_CONNECTING)
        return;
    int error = socket->error;
    socket->error = 0;
    /* Whoever took the error before leaves this for the connect. */
    finish(request, socket->state == SIM_DEAD && !error ? -ECONNABORTED : -error, 0);
}

static void poll_file(sim_request *request) {
    uint32_t mask = sim_file_poll(request->file) & wanted_events(request);
    if (!mask)
        return;
    if (request->multishot)
        shot(request, (int)mask, 0);
    else
        finish(request, (int)mask, 0);
}

/* ---- cancel ---- */

static sim_request *request_named(sim_ring *ring, uint64_t user_data) {
    for (sim_request *request = ring->requests; request; request = request->next)
        if (request->user_data == user_data && request->opcode != IORING_OP_ASYNC_CANCEL)
            return request;
    return NULL;
}

/* The answer of the cancel and the last completion of its target, in either order; a target that has something to say
 * may say it first, and then both are true: it is finished, and there was nothing to cancel. */
static void cancel(sim_ring *ring, uint64_t target, uint64_t user_data) {
    sim_kernel *kernel = ring->file.kernel;
    sim_request *request = request_named(ring, target);
    if (!request) {
        sim_complete(ring, user_data, -ENOENT, 0);
        return;
    }
    if (sim_chance(kernel, kernel->config.odds.cancel_late)) {
        sim_request_attempt(request);
        request = request_named(ring, target);
        kernel->stats.cancels_met_result++;
        if (!request) {
            sim_complete(ring, user_data, -ENOENT, 0);
            return;
        }
        if (sim_chance(kernel, 500)) {
            request->cancel = true; /* running: it ends at its next turn */
            sim_request_work(request);
            sim_complete(ring, user_data, -EALREADY, 0);
            return;
        }
    }
    kernel->stats.cancelled++;
    bool first = sim_chance(kernel, 500);
    if (first)
        sim_complete(ring, user_data, 0, 0);
    /* Kernels up to 6.4 end a multishot receive in another way. */
    bool old = request->selects_buffer && sim_chance(kernel, kernel->config.odds.cancel_late);
    int result = request->sent > 0 ? (int)request->sent : old ? -ENOBUFS : -ECANCELED;
    finish(request, result, 0);
    if (!first)
        sim_complete(ring, user_data, old ? -ENOENT : 0, 0);
}

/* ---- attempts ---- */

void sim_request_attempt(sim_request *request) {
    sim_kernel *kernel = request->ring->file.kernel;
    if (request->cancel) {
        kernel->stats.cancelled++;
        bool polls = request->opcode == IORING_OP_POLL_ADD;
        int result = !polls && sim_chance(kernel, 300) ? -EINTR : -ECANCELED;
        finish(request, request->sent > 0 ? (int)request->sent : result, 0);
        return;
    }
    switch (request->opcode) {
    case IORING_OP_RECV:
        receive(request);
        break;
    case IORING_OP_SEND:
    case IORING_OP_SENDMSG:
        send_bytes(request);
        break;
    case IORING_OP_ACCEPT:
        accept_connections(request);
        break;
    case IORING_OP_CONNECT:
        connect_socket(request);
        break;
    case IORING_OP_POLL_ADD:
        poll_file(request);
        break;
    case IORING_OP_NOP:
        finish(request, request->flags & NOP_INJECT_RESULT ? (int)request->length : 0, 0);
        break;
    default:
        finish(request, -EINVAL, 0);
        break;
    }
}

/* ---- submission ---- */

static void copy_send(sim_request *request, const struct iovec *vectors, size_t count) {
    request->vectors = malloc((count + 1) * sizeof *vectors);
    memcpy(request->vectors, vectors, count * sizeof *vectors);
    request->vector_count = count;
    for (size_t index = 0; index < count; index++)
        request->total += vectors[index].iov_len;
    request->copy = malloc(request->total + 1);
    size_t at = 0;
    for (size_t index = 0; index < count; at += vectors[index++].iov_len)
        memcpy(request->copy + at, vectors[index].iov_base, vectors[index].iov_len);
}

/* What this kernel is too old for. */
static bool is_unknown(const sim_ring *ring, const struct io_uring_sqe *sqe) {
    uint32_t lacks = ring->file.kernel->config.lacks;
    if (sqe->opcode == IORING_OP_ACCEPT && sqe->ioprio & IORING_ACCEPT_MULTISHOT)
        return lacks & SIM_LACKS_MULTISHOT_ACCEPT;
    return sqe->opcode == IORING_OP_RECV && sqe->ioprio & IORING_RECV_MULTISHOT && lacks & SIM_LACKS_MULTISHOT_RECEIVE;
}

static void read_submission(sim_request *request, const struct io_uring_sqe *sqe) {
    request->flags = sqe->msg_flags;
    request->length = sqe->len;
    switch (sqe->opcode) {
    case IORING_OP_RECV:
        request->multishot = sqe->ioprio & IORING_RECV_MULTISHOT;
        request->selects_buffer = sqe->flags & IOSQE_BUFFER_SELECT;
        if (!request->selects_buffer) {
            request->address = (uint8_t *)(uintptr_t)sqe->addr;
            memset(request->address, POISON_UNUSED, request->length);
        }
        break;
    case IORING_OP_SEND:
        copy_send(request, &(struct iovec){(void *)(uintptr_t)sqe->addr, sqe->len}, 1);
        break;
    case IORING_OP_SENDMSG: {
        const struct msghdr *message = (const struct msghdr *)(uintptr_t)sqe->addr;
        copy_send(request, message->msg_iov, message->msg_iovlen);
        break;
    }
    case IORING_OP_ACCEPT:
        request->multishot = sqe->ioprio & IORING_ACCEPT_MULTISHOT;
        request->flags = sqe->accept_flags;
        break;
    case IORING_OP_CONNECT:
        request->length = (uint32_t)sqe->off;
        if (request->length > sizeof request->peer)
            request->length = sizeof request->peer;
        memcpy(&request->peer, (const void *)(uintptr_t)sqe->addr, request->length);
        break;
    case IORING_OP_POLL_ADD:
        request->multishot = sqe->len & IORING_POLL_ADD_MULTI;
        request->events = sqe->poll32_events;
        break;
    default:
        break;
    }
}

void sim_request_submit(sim_ring *ring, const struct io_uring_sqe *sqe) {
    sim_kernel *kernel = ring->file.kernel;
    kernel->stats.calls++;
    if (sqe->opcode == IORING_OP_ASYNC_CANCEL) {
        cancel(ring, sqe->addr, sqe->user_data);
        return;
    }
    sim_file *file = sqe->opcode == IORING_OP_NOP ? NULL : sim_fd_file(sqe->fd);
    if (sqe->opcode != IORING_OP_NOP && !file) {
        sim_complete(ring, sqe->user_data, -EBADF, 0);
        return;
    }
    if (is_unknown(ring, sqe)) {
        sim_complete(ring, sqe->user_data, -EINVAL, 0);
        return;
    }
    sim_request *request = calloc(1, sizeof *request);
    request->ring = ring;
    request->opcode = sqe->opcode;
    request->user_data = sqe->user_data;
    request->link = &ring->requests;
    request->next = ring->requests;
    if (request->next)
        request->next->link = &request->next;
    ring->requests = request;
    if (file) {
        sim_file_hold(file);
        request->file = file;
        request->link_here = &file->requests;
        request->next_here = file->requests;
        if (request->next_here)
            request->next_here->link_here = &request->next_here;
        file->requests = request;
    }
    read_submission(request, sqe);
    /* Tried at once, as Linux does, unless it happens to be put off. */
    if (request->opcode != IORING_OP_CONNECT && sim_chance(kernel, kernel->config.odds.held_back))
        sim_request_work(request);
    else
        sim_request_attempt(request);
}
