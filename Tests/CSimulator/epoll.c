// SPDX-License-Identifier: Apache-2.0
/* epoll.c: level-triggered readiness. Each call looks at every descriptor anew; chance adds what Linux may add: events
 * in another order, one that comes a call later, one that turns out false. */
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "calls.h"

typedef struct sim_item {
    sim_file *file;
    int fd;
    uint32_t events;
    epoll_data_t data;
} sim_item;

typedef struct sim_epoll {
    sim_file file;
    sim_item *items;
    size_t count, capacity;
} sim_epoll;

static sim_epoll *epoll_of(int fd) {
    sim_file *file = sim_fd_file(fd);
    return file && file->kind == SIM_EPOLL ? (sim_epoll *)file : NULL;
}

static size_t item_at(const sim_epoll *epoll, const sim_file *file, int fd) {
    size_t index = 0;
    while (index < epoll->count && (epoll->items[index].file != file || epoll->items[index].fd != fd))
        index++;
    return index;
}

/* The description is gone, and with it every registration of it. */
void sim_epoll_forget(sim_file *file, sim_file *gone) {
    sim_epoll *epoll = (sim_epoll *)file;
    for (size_t index = epoll->count; index-- > 0;)
        if (epoll->items[index].file == gone)
            epoll->items[index] = epoll->items[--epoll->count];
}

void sim_epoll_released(sim_file *file) {
    free(((sim_epoll *)file)->items);
    free(file);
}

uint32_t sim_epoll_poll(sim_file *file) {
    sim_epoll *epoll = (sim_epoll *)file;
    for (size_t index = 0; index < epoll->count; index++)
        if (sim_file_poll(epoll->items[index].file) & epoll->items[index].events)
            return EPOLLIN;
    return 0;
}

int sim_epoll_create_call(int flags) {
    sim_kernel *kernel = sim_enter_call(-1);
    sim_epoll *epoll = calloc(1, sizeof *epoll);
    sim_file_init(kernel, &epoll->file, SIM_EPOLL, false);
    return (int)sim_answer(kernel, sim_fd_open(kernel, &epoll->file, flags & EPOLL_CLOEXEC));
}

static int epoll_add(sim_epoll *epoll, sim_item item) {
    if (epoll->count == epoll->capacity) {
        epoll->capacity = epoll->capacity ? epoll->capacity * 2 : 16;
        epoll->items = realloc(epoll->items, epoll->capacity * sizeof *epoll->items);
    }
    epoll->items[epoll->count++] = item;
    return 0;
}

static int epoll_control(sim_epoll *epoll, int operation, int fd, const struct epoll_event *event) {
    sim_file *file = sim_fd_file(fd);
    if (!epoll || (!file && (sim_owns(fd) || syscall(SYS_fcntl, fd, F_GETFD) < 0)))
        return -EBADF;
    if (!file)
        return -EPERM; /* what is not ours is a file or a device */
    size_t index = item_at(epoll, file, fd);
    bool known = index < epoll->count;
    switch (operation) {
    case EPOLL_CTL_ADD:
        if (known)
            return -EEXIST;
        return epoll_add(epoll, (sim_item){.file = file, .fd = fd, .events = event->events, .data = event->data});
    case EPOLL_CTL_MOD:
        if (!known)
            return -ENOENT;
        epoll->items[index].events = event->events;
        epoll->items[index].data = event->data;
        return 0;
    case EPOLL_CTL_DEL:
        if (!known)
            return -ENOENT;
        epoll->items[index] = epoll->items[--epoll->count];
        return 0;
    default:
        return -EINVAL;
    }
}

int sim_epoll_ctl_call(int epoll, int operation, int fd, struct epoll_event *event) {
    sim_kernel *kernel = sim_enter_call(epoll);
    return kernel ? (int)sim_answer(kernel, epoll_control(epoll_of(epoll), operation, fd, event)) : -1;
}

static bool is_own(const sim_file *file) { return file->kind == SIM_EVENTFD || file->kind == SIM_TIMERFD; }

static int by_change(const void *left, const void *right) {
    uint64_t first = ((const sim_item *)left)->file->changed, second = ((const sim_item *)right)->file->changed;
    return first < second ? -1 : first > second;
}

/* What is ready, at most max; *held: something is, and comes with the next call. */
static int epoll_collect(sim_epoll *epoll, struct epoll_event *events, int max, bool *held) {
    sim_kernel *kernel = epoll->file.kernel;
    const sim_odds *odds = &kernel->config.odds;
    int count = 0;
    *held = false;
    qsort(epoll->items, epoll->count, sizeof *epoll->items, by_change);
    size_t start = epoll->count && sim_chance(kernel, odds->reordered) ? sim_below(kernel, (uint32_t)epoll->count) : 0;
    for (size_t step = 0; step < epoll->count && count < max; step++) {
        sim_item *item = &epoll->items[(start + step) % epoll->count];
        uint32_t mask = sim_file_poll(item->file) & (item->events | EPOLLERR | EPOLLHUP);
        if (mask && sim_chance(kernel, odds->held_back)) {
            *held = true;
            continue;
        }
        if (!mask && !is_own(item->file) && sim_fault(kernel, odds->false_ready))
            mask = item->events & EPOLLIN;
        if (mask)
            events[count++] = (struct epoll_event){.events = mask, .data = item->data};
    }
    for (int index = count - 1; index > 0 && sim_chance(kernel, odds->reordered); index--) {
        int other = (int)sim_below(kernel, (uint32_t)index + 1);
        struct epoll_event event = events[index];
        events[index] = events[other];
        events[other] = event;
    }
    return count;
}

int sim_epoll_wait_call(int fd, struct epoll_event *events, int max, int timeout_ms) {
    sim_kernel *kernel = sim_enter_call(fd);
    if (!kernel)
        return -1;
    sim_epoll *epoll = epoll_of(fd);
    if (!epoll)
        return (int)sim_answer(kernel, -EBADF);
    bool interrupted = sim_fault(kernel, kernel->config.odds.interrupted);
    if (interrupted && !kernel->process_wide)
        return (int)sim_answer(kernel, -EINTR);
    /* libev never waits for ever; as long as this is as good as. */
    bool forever = timeout_ms < 0 || (!kernel->process_wide && timeout_ms >= SIM_NEVER_MS);
    uint64_t deadline_ns = forever ? SIM_NEVER_NS : sim_now(kernel) + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        bool held;
        sim_progress(kernel);
        int count = epoll_collect(epoll, events, max, &held);
        if (count > 0 || timeout_ms == 0)
            return (int)sim_answer(kernel, count);
        /* Only a sleep is interrupted where suites say what one pass brings, as on Linux. */
        if (interrupted)
            return (int)sim_answer(kernel, -EINTR);
        if (!held && !sim_sleep(kernel, deadline_ns))
            return (int)sim_answer(kernel, 0);
    }
}
