// SPDX-License-Identifier: Apache-2.0
/* files.c: pipes, eventfds, timerfds, and the calls that make and use them. */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include "calls.h"

typedef struct sim_pipe {
    sim_file file;
    struct sim_pipe *peer; /* NULL once it is gone */
    bool writes;
    sim_queue in; /* of the end that reads */
} sim_pipe;

typedef struct sim_eventfd {
    sim_file file;
    uint64_t count;
} sim_eventfd;

typedef struct sim_timerfd {
    sim_file file;
    uint64_t next_ns; /* 0: not set */
    uint64_t interval_ns;
    uint64_t expirations;
} sim_timerfd;

/* ---- queues ---- */

size_t sim_queue_room(const sim_queue *queue) { return queue->capacity - queue->count; }

/* Large ones are no part of the heap, which suites measure, and take memory only as far as they have been filled. */
enum { MAPPED_MIN = 64 * 1024 };

static void *queue_memory(size_t capacity) {
    if (capacity < MAPPED_MIN)
        return malloc(capacity);
    void *memory = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void sim_queue_put(sim_queue *queue, const uint8_t *bytes, size_t length) {
    if (!queue->bytes)
        queue->bytes = queue_memory(queue->capacity);
    size_t at = (queue->head + queue->count) % queue->capacity;
    size_t first = length < queue->capacity - at ? length : queue->capacity - at;
    memcpy(queue->bytes + at, bytes, first);
    memcpy(queue->bytes, bytes + first, length - first);
    queue->count += length;
}

void sim_queue_take(sim_queue *queue, uint8_t *bytes, size_t length) {
    size_t first = length < queue->capacity - queue->head ? length : queue->capacity - queue->head;
    if (length > 0) {
        memcpy(bytes, queue->bytes + queue->head, first);
        memcpy(bytes + first, queue->bytes, length - first);
        queue->count -= length;
        queue->head = queue->count > 0 ? (queue->head + length) % queue->capacity : 0;
    }
}

void sim_queue_free(sim_queue *queue) {
    if (queue->bytes && queue->capacity >= MAPPED_MIN)
        munmap(queue->bytes, queue->capacity);
    else
        free(queue->bytes);
}

/* ---- polling ---- */

uint32_t sim_special_poll(sim_file *file) {
    if (file->kind == SIM_EVENTFD) {
        uint64_t count = ((sim_eventfd *)file)->count;
        return (count > 0 ? POLLIN : 0) | (count < UINT64_MAX - 1 ? POLLOUT : 0);
    }
    if (file->kind == SIM_TIMERFD)
        return ((sim_timerfd *)file)->expirations > 0 ? POLLIN : 0;
    sim_pipe *pipe = (sim_pipe *)file;
    if (pipe->writes)
        return !pipe->peer ? POLLOUT | POLLERR : sim_queue_room(&pipe->peer->in) > 0 ? POLLOUT : 0;
    return (pipe->in.count > 0 ? POLLIN : 0) | (pipe->peer ? 0 : POLLHUP);
}

void sim_special_released(sim_file *file) {
    if (file->kind == SIM_PIPE) {
        sim_pipe *pipe = (sim_pipe *)file;
        if (pipe->peer) {
            pipe->peer->peer = NULL;
            sim_file_changed(&pipe->peer->file);
        }
        sim_queue_free(&pipe->in);
    }
    free(file);
}

uint64_t sim_timer_next(sim_file *file) {
    uint64_t next_ns = ((sim_timerfd *)file)->next_ns;
    return next_ns ? next_ns : SIM_NEVER_NS;
}

bool sim_timer_fire(sim_file *file) {
    sim_timerfd *timer = (sim_timerfd *)file;
    uint64_t now_ns = file->kernel->process_wide ? sim_now(file->kernel) : file->kernel->now_ns;
    if (!timer->next_ns || timer->next_ns > now_ns)
        return false;
    timer->expirations++;
    timer->next_ns = timer->interval_ns ? timer->next_ns + timer->interval_ns : 0;
    return true;
}

/* ---- calls ---- */

int sim_eventfd_call(unsigned count, int flags) {
    sim_kernel *kernel = sim_enter_call(-1);
    sim_eventfd *event = calloc(1, sizeof *event);
    event->count = count;
    sim_file_init(kernel, &event->file, SIM_EVENTFD, flags & EFD_NONBLOCK);
    return (int)sim_answer(kernel, sim_fd_open(kernel, &event->file, flags & EFD_CLOEXEC));
}

int sim_timerfd_create_call(int clock, int flags) {
    (void)clock;
    sim_kernel *kernel = sim_enter_call(-1);
    sim_timerfd *timer = calloc(1, sizeof *timer);
    sim_file_init(kernel, &timer->file, SIM_TIMERFD, flags & TFD_NONBLOCK);
    return (int)sim_answer(kernel, sim_fd_open(kernel, &timer->file, flags & TFD_CLOEXEC));
}

static uint64_t nanoseconds(struct timespec time) {
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int sim_timerfd_settime_call(int fd, int flags, const struct itimerspec *value) {
    sim_kernel *kernel = sim_enter_call(fd);
    sim_file *file = sim_fd_file(fd);
    if (!file || file->kind != SIM_TIMERFD)
        return (int)sim_answer(kernel, file ? -EINVAL : -EBADF);
    sim_timerfd *timer = (sim_timerfd *)file;
    uint64_t at_ns = nanoseconds(value->it_value);
    timer->next_ns = at_ns && !(flags & TFD_TIMER_ABSTIME) ? sim_now(kernel) + at_ns : at_ns;
    timer->interval_ns = nanoseconds(value->it_interval);
    timer->expirations = 0;
    sim_file_changed(file);
    return (int)sim_answer(kernel, 0);
}

int sim_pipe_call(int fds[2], int flags) {
    sim_kernel *kernel = sim_enter_call(-1);
    int result[2];
    sim_pipe *ends[2];
    for (int end = 0; end < 2; end++) {
        ends[end] = calloc(1, sizeof *ends[end]);
        ends[end]->writes = end == 1;
        ends[end]->in.capacity = 64 * 1024;
        sim_file_init(kernel, &ends[end]->file, SIM_PIPE, flags & O_NONBLOCK);
    }
    ends[0]->peer = ends[1];
    ends[1]->peer = ends[0];
    for (int end = 0; end < 2; end++)
        result[end] = sim_fd_open(kernel, &ends[end]->file, flags & O_CLOEXEC);
    if (result[0] < 0 || result[1] < 0) {
        sim_fd_close(result[0]);
        sim_fd_close(result[1]);
        return (int)sim_answer(kernel, -EMFILE);
    }
    memcpy(fds, result, sizeof result);
    return (int)sim_answer(kernel, 0);
}

static ssize_t counter_read(uint64_t *count, void *bytes, size_t length) {
    if (length < sizeof *count)
        return -EINVAL;
    if (*count == 0)
        return -EAGAIN;
    memcpy(bytes, count, sizeof *count);
    *count = 0;
    return sizeof *count;
}

static ssize_t pipe_read(sim_pipe *pipe, void *bytes, size_t length) {
    if (pipe->writes)
        return -EBADF;
    if (pipe->in.count == 0)
        return pipe->peer ? -EAGAIN : 0;
    size_t count = length < pipe->in.count ? length : pipe->in.count;
    sim_queue_take(&pipe->in, bytes, count);
    if (pipe->peer)
        sim_file_changed(&pipe->peer->file);
    return (ssize_t)count;
}

static ssize_t file_read(sim_file *file, void *bytes, size_t length) {
    switch (file->kind) {
    case SIM_EVENTFD:
        return counter_read(&((sim_eventfd *)file)->count, bytes, length);
    case SIM_TIMERFD:
        return counter_read(&((sim_timerfd *)file)->expirations, bytes, length);
    case SIM_PIPE:
        return pipe_read((sim_pipe *)file, bytes, length);
    case SIM_SOCKET:
        return sim_socket_receive((sim_socket *)file, bytes, length, 0);
    default:
        return -EINVAL;
    }
}

static ssize_t file_write(sim_file *file, const void *bytes, size_t length) {
    if (file->kind == SIM_EVENTFD) {
        sim_eventfd *event = (sim_eventfd *)file;
        uint64_t added;
        if (length < sizeof added)
            return -EINVAL;
        memcpy(&added, bytes, sizeof added);
        if (added > UINT64_MAX - 1 - event->count)
            return -EAGAIN;
        event->count += added;
        sim_file_changed(file);
        return sizeof added;
    }
    if (file->kind == SIM_SOCKET)
        return sim_socket_send((sim_socket *)file, &(struct iovec){(void *)(uintptr_t)bytes, length}, 1);
    sim_pipe *pipe = (sim_pipe *)file;
    if (file->kind != SIM_PIPE || !pipe->writes)
        return -EBADF;
    if (!pipe->peer)
        return -EPIPE;
    size_t room = sim_queue_room(&pipe->peer->in);
    if (room == 0)
        return -EAGAIN;
    size_t count = length < room ? length : room;
    sim_queue_put(&pipe->peer->in, bytes, count);
    sim_file_changed(&pipe->peer->file);
    return (ssize_t)count;
}

ssize_t sim_read_call(int fd, void *bytes, size_t length) {
    sim_kernel *kernel = sim_enter_call(fd);
    sim_file *file = kernel ? sim_fd_file(fd) : NULL;
    if (!file)
        return kernel ? sim_answer(kernel, -EBADF) : -1;
    if (file->kind != SIM_SOCKET && !kernel->process_wide && sim_fault(kernel, kernel->config.odds.interrupted))
        return sim_answer(kernel, -EINTR);
    ssize_t result;
    while ((result = file_read(file, bytes, length)) == -EAGAIN && !file->nonblocking)
        if (!sim_sleep(kernel, SIM_NEVER_NS))
            break;
    return sim_answer(kernel, result);
}

ssize_t sim_write_call(int fd, const void *bytes, size_t length) {
    sim_kernel *kernel = sim_enter_call(fd);
    sim_file *file = kernel ? sim_fd_file(fd) : NULL;
    if (!file)
        return kernel ? sim_answer(kernel, -EBADF) : -1;
    if (file->kind != SIM_SOCKET && !kernel->process_wide && sim_fault(kernel, kernel->config.odds.interrupted))
        return sim_answer(kernel, -EINTR);
    ssize_t result;
    while ((result = file_write(file, bytes, length)) == -EAGAIN && !file->nonblocking)
        if (!sim_sleep(kernel, SIM_NEVER_NS))
            break;
    return sim_answer(kernel, result);
}
