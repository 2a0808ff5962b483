// SPDX-License-Identifier: Apache-2.0
/* selector.c: the readiness backend; the one file that includes <ev.h>.
 *
 * Owns the watchers, in a table by descriptor, and the timerfd. Leaves the order of phases to loop.c and what a stream
 * does with readiness to stream.c. Runs on the loop's thread. libev only collects: its callbacks put watchers on a
 * list, newest first, which undoes that libev calls them in reverse order. libev's own timers round to a millisecond,
 * so one timerfd carries the earliest deadline of ours. */
#include <ev.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include "internal.h"

/* What is known of a descriptor. A watcher's `data` is the operation it was armed for. */
typedef struct lc__watch {
    ev_io read; /* armed once for a stream's life, unless nobody reads */
    struct lc__watch *next_fired;
    int32_t fd;
    uint8_t fired; /* LC__FIRED_*, not yet reaped */
    bool listed;   /* on one of the two lists; stays there even if what fired was disarmed since */
} lc__watch;

enum { LC__FIRED_READ = 1u << 0, LC__FIRED_WRITE = 1u << 1, LC__FIRED_ERROR = 1u << 2 /* libev watches no more */ };

static_assert(sizeof(lc__watch) == 64, "a readable descriptor touches one line");

/* A table by descriptor. Chunks never move: libev keeps pointers into them. */
typedef struct lc__table {
    void **chunks;
    uint32_t chunk_count;
} lc__table;

struct lc__selector {
    struct ev_loop *ev;
    ev_io wake;
    ev_io timer;
    int timerfd;
    bool wake_fired;
    bool timer_fired;
    uint64_t timer_ns;  /* what the timerfd is set to; 0: nothing */
    lc__watch *fired;   /* collected in this entry, the latest first */
    lc__watch *reaping; /* being worked off, in the kernel's order */
    lc__table watches;  /* of lc__watch */
    lc__table writes;   /* of ev_io, armed only while the kernel's buffer is full: most descriptors never need one */
};

/* Memory of `size` for the descriptor, zero at first; NULL: none is left. */
static void *lc__table_at(lc__table *table, int fd, size_t size) {
    uint32_t chunk = (uint32_t)fd / LC__CHUNK;
    if (chunk >= table->chunk_count) {
        void **chunks = realloc(table->chunks, (chunk + 1) * sizeof *chunks);
        if (!chunks)
            return NULL;
        memset(chunks + table->chunk_count, 0, (chunk + 1 - table->chunk_count) * sizeof *chunks);
        table->chunks = chunks;
        table->chunk_count = chunk + 1;
    }
    if (!table->chunks[chunk]) {
        void *memory = NULL;
        if (posix_memalign(&memory, 64, LC__CHUNK * size) != 0)
            return NULL;
        table->chunks[chunk] = memset(memory, 0, LC__CHUNK * size);
    }
    return (char *)table->chunks[chunk] + (uint32_t)fd % LC__CHUNK * size;
}

static void lc__table_free(lc__table *table) {
    for (uint32_t chunk = 0; chunk < table->chunk_count; chunk++)
        free(table->chunks[chunk]);
    free(table->chunks);
}

static lc__watch *lc__watch_for(lc_loop *loop, int fd) {
    lc__watch *watch = lc__table_at(&loop->selector->watches, fd, sizeof(lc__watch));
    if (watch)
        watch->fd = fd;
    return watch;
}

/* The watcher for writing; NULL also if none has ever been armed near there, unless `make`. */
static ev_io *lc__write_watcher(lc_loop *loop, int fd, bool make) {
    lc__table *writes = &loop->selector->writes;
    uint32_t chunk = (uint32_t)fd / LC__CHUNK;
    if (!make && (chunk >= writes->chunk_count || !writes->chunks[chunk]))
        return NULL;
    return lc__table_at(writes, fd, sizeof(ev_io));
}

static bool lc__write_armed(lc_loop *loop, int fd) {
    const ev_io *io = lc__write_watcher(loop, fd, false);
    return io && ev_is_active(io);
}

static void lc__fire(lc_loop *loop, lc__watch *watch, unsigned fired, int events) {
    if (!watch->listed) {
        watch->listed = true;
        watch->next_fired = loop->selector->fired;
        loop->selector->fired = watch;
    }
    watch->fired |= (uint8_t)(fired | (events & EV_ERROR ? LC__FIRED_ERROR : 0));
}

static void lc__on_readable(struct ev_loop *ev, ev_io *io, int events) {
    lc__fire(ev_userdata(ev), lc__container_of(io, lc__watch, read), LC__FIRED_READ, events);
}

static void lc__on_writable(struct ev_loop *ev, ev_io *io, int events) {
    lc_loop *loop = ev_userdata(ev);
    lc__fire(loop, lc__watch_for(loop, io->fd), LC__FIRED_WRITE, events);
}

static void lc__on_wake(struct ev_loop *ev, ev_io *io, int events) {
    (void)io, (void)events;
    ((lc_loop *)ev_userdata(ev))->selector->wake_fired = true;
}

static void lc__on_timer(struct ev_loop *ev, ev_io *io, int events) {
    (void)io, (void)events;
    ((lc_loop *)ev_userdata(ev))->selector->timer_fired = true;
}

/* ---- choosing a selector ---- */

static unsigned lc__selector_flag(uint32_t selector) {
    switch (selector) {
    case LC_SELECTOR_EPOLL:
        return EVBACKEND_EPOLL;
    case LC_SELECTOR_POLL:
        return EVBACKEND_POLL;
    case LC_SELECTOR_SELECT:
        return EVBACKEND_SELECT;
    default:
        return 0;
    }
}

static const char *lc__selector_flag_name(unsigned backend) {
    switch (backend) {
    case EVBACKEND_EPOLL:
        return "epoll";
    case EVBACKEND_POLL:
        return "poll";
    case EVBACKEND_SELECT:
        return "select";
    default:
        return "unknown";
    }
}

/* NOENV: the environment must not swap the selector. NOSIGMASK: signal masks are the program's business. */
static struct ev_loop *lc__selector_open(unsigned backend) {
    return ev_loop_new(backend | EVFLAG_NOENV | EVFLAG_NOSIGMASK);
}

/* Being compiled in is not being there: each candidate counts only once a loop could be made with it. Want of
 * descriptors or memory says nothing about a candidate, and must be seen. libev's backends on other completion
 * interfaces are experimental and left alone. */
static struct ev_loop *lc__selector_open_best(uint32_t wanted) {
    if (wanted != LC_SELECTOR_BEST)
        return lc__selector_open(lc__selector_flag(wanted));
    static const unsigned order[] = {EVBACKEND_EPOLL, EVBACKEND_POLL, EVBACKEND_SELECT};
    for (size_t index = 0; index < sizeof order / sizeof *order; index++) {
        if (!(ev_supported_backends() & order[index]))
            continue;
        errno = 0;
        struct ev_loop *ev = lc__selector_open(order[index]);
        if (ev || lc__error_is_exhaustion(-errno))
            return ev;
    }
    return NULL;
}

const char *lc__selector_probe(void) {
    struct ev_loop *ev = lc__selector_open_best(LC_SELECTOR_BEST);
    if (!ev)
        return "none";
    const char *name = lc__selector_flag_name(ev_backend(ev));
    ev_loop_destroy(ev);
    return name;
}

const char *lc__selector_name(const lc_loop *loop) {
    return loop->selector ? lc__selector_flag_name(ev_backend(loop->selector->ev)) : "closed";
}

/* ---- life ---- */

int lc__selector_create(lc_loop *loop) {
    struct lc__selector *selector = calloc(1, sizeof *selector);
    if (!selector)
        return -ENOMEM;
    selector->timerfd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (selector->timerfd < 0) {
        int error = -errno;
        free(selector);
        return error;
    }
    errno = 0;
    selector->ev = lc__selector_open_best(loop->options.selector);
    if (!selector->ev) {
        int error = errno ? -errno : -ENOSYS;
        close(selector->timerfd);
        free(selector);
        return error;
    }
    loop->selector = selector;
    ev_set_userdata(selector->ev, loop);
    /* The wake watcher also keeps ev_run from returning when nothing else is watched. */
    ev_io_init(&selector->wake, lc__on_wake, loop->shared->eventfd, EV_READ);
    ev_io_start(selector->ev, &selector->wake);
    ev_io_init(&selector->timer, lc__on_timer, selector->timerfd, EV_READ);
    ev_io_start(selector->ev, &selector->timer);
    /* epoll is told in the first entry; a loop that it does not watch these for could sleep for ever. */
    ev_run(selector->ev, EVRUN_NOWAIT);
    if (ev_is_active(&selector->wake) && ev_is_active(&selector->timer))
        return 0;
    lc__selector_destroy(loop);
    return -ENOMEM;
}

void lc__selector_destroy(lc_loop *loop) {
    struct lc__selector *selector = loop->selector;
    if (!selector)
        return;
    loop->selector = NULL;
    ev_loop_destroy(selector->ev);
    close(selector->timerfd);
    lc__table_free(&selector->watches);
    lc__table_free(&selector->writes);
    free(selector);
}

/* ---- arming ---- */

static bool lc__op_is_write(const lc_op *op) {
    return op->opcode == LC_OP_SEND || op->opcode == LC_OP_CONNECT || op->opcode == LC_OP_POLL_WRITE ||
           op->opcode == LC_OP_ROOM;
}

/* Right before libev sleeps, after it has told epoll of what was armed. K21: what epoll has refused is pending already,
 * and libev would sleep nevertheless. */
static void lc__before_sleep(struct ev_loop *ev) {
    ev_set_loop_release_cb(ev, NULL, NULL);
    if (ev_pending_count(ev) > 0)
        lc__inbox_wake(((lc_loop *)ev_userdata(ev))->shared);
}

static void lc__selector_arm(lc_loop *loop, lc_op *op) {
    lc__watch *watch = lc__watch_for(loop, op->fd);
    bool is_write = lc__op_is_write(op);
    ev_io *io = !watch ? NULL : is_write ? lc__write_watcher(loop, op->fd, true) : &watch->read;
    if (!io) {
        lc__op_completed(loop, op, -ENOMEM, false, NULL);
        return;
    }
    if (!ev_is_active(io)) {
        /* A number that was closed and opened again is a new descriptor to libev only after ev_io_set. */
        ev_io_init(io, is_write ? lc__on_writable : lc__on_readable, op->fd, is_write ? EV_WRITE : EV_READ);
        ev_io_start(loop->selector->ev, io);
        ev_set_loop_release_cb(loop->selector->ev, lc__before_sleep, NULL);
    }
    io->data = op;
    op->state = LC_STATE_ARMED;
    loop->stats.armed++;
}

/* The caller sets the state that follows. */
void lc__selector_disarm(lc_loop *loop, lc_op *op) {
    assert(op->state == LC_STATE_ARMED);
    lc__watch *watch = lc__watch_for(loop, op->fd);
    bool is_write = lc__op_is_write(op);
    ev_io_stop(loop->selector->ev, is_write ? lc__write_watcher(loop, op->fd, false) : &watch->read);
    watch->fired &= (uint8_t) ~(is_write ? LC__FIRED_WRITE : LC__FIRED_READ);
    loop->stats.armed--;
}

/* Before close(2): libev must not believe that it still watches the number. */
void lc__selector_forget(lc_loop *loop, int fd) {
    lc__watch *watch = lc__watch_for(loop, fd);
    if (!watch)
        return;
    ev_io_stop(loop->selector->ev, &watch->read);
    if (lc__write_armed(loop, fd))
        ev_io_stop(loop->selector->ev, lc__write_watcher(loop, fd, false));
    watch->fired = 0;
}

static void lc__selector_connect(lc_loop *loop, lc_op *op) {
    int result = connect(op->fd, op->address, op->length) < 0 ? -errno : 0;
    if (result == -EINPROGRESS || result == -EINTR)
        lc__selector_arm(loop, op);
    else
        lc__op_completed(loop, op, result, false, NULL);
}

/* Phase 1. Receives and accepts only wait here: the attempt itself is made when somebody takes. */
void lc__selector_start(lc_loop *loop, lc_op *op) {
    if (op->opcode == LC_OP_CONNECT)
        lc__selector_connect(loop, op);
    else
        lc__selector_arm(loop, op);
}

/* ---- bytes ---- */

/* The stream has been told that there is no more to come, or why. */
static int lc__selector_receive_ended(lc_stream *stream, int error) {
    stream->maybe_ready = false;
    stream->end = error == 0;
    stream->receive_error = error;
    stream->told = true;
    if (stream->receive.state == LC_STATE_ARMED) {
        lc__selector_disarm(stream->loop, &stream->receive);
        stream->receive.state = LC_STATE_IDLE;
    }
    return error;
}

LC__RARE static int lc__selector_received_nothing(lc_stream *stream, lc_buffer *buffer, int error) {
    if (error == 0)
        error = lc__stream_end(stream);
    lc__buffer_return_here(stream->loop, buffer);
    if (error != -EAGAIN)
        return lc__selector_receive_ended(stream, error);
    stream->maybe_ready = false;
    return error;
}

int lc__selector_receive(lc_stream *stream, lc_buffer **out) {
    lc_loop *loop = stream->loop;
    lc_buffer *buffer = lc__buffer_lease(loop);
    if (!buffer)
        return lc__selector_receive_ended(stream, -ENOMEM);
    ssize_t got;
    do
        got = recv(stream->fd, buffer->base, buffer->capacity, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        /* A short read has drained the socket; asking again to hear EAGAIN would cost a system call. */
        stream->maybe_ready = got == (ssize_t)buffer->capacity;
        buffer->length = (uint32_t)got;
        *out = buffer;
        return 1;
    }
    return lc__selector_received_nothing(stream, buffer, got < 0 ? -errno : 0);
}

static ssize_t lc__selector_send_queued(lc_stream *stream, size_t *total) {
    if (stream->out.count == 1) {
        lc_buffer *buffer = lc__container_of(stream->out.head, lc_buffer, node);
        *total = buffer->length;
        return send(stream->fd, buffer->base + buffer->offset, buffer->length, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    struct iovec vectors[LC__GATHER_MAX];
    struct msghdr message = {.msg_iov = vectors};
    message.msg_iovlen = lc__stream_gather(stream, vectors, LC__GATHER_MAX, total);
    return sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* What the kernel does not take stays in the buffer. True: the buffer has served. The kernel tells of an error once, so
 * it counts here. */
bool lc__selector_send_now(lc_stream *stream, lc_buffer *buffer) {
    ssize_t sent;
    do
        sent = send(stream->fd, buffer->base + buffer->offset, buffer->length, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN) {
        lc__stream_broke(stream, -errno);
        return true;
    }
    if (sent <= 0)
        return false;
    buffer->offset += (uint32_t)sent;
    buffer->length -= (uint32_t)sent;
    return buffer->length == 0;
}

void lc__selector_send(lc_stream *stream) {
    while (stream->out.head) {
        size_t total;
        ssize_t sent = lc__selector_send_queued(stream, &total);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            lc__stream_sent(stream, -errno);
            return;
        }
        if (sent > 0)
            lc__stream_sent(stream, (int)sent);
        if (sent < (ssize_t)total) {
            lc__selector_arm(stream->loop, &stream->send);
            return;
        }
    }
}

/* ---- entering and reaping ---- */

static void lc__selector_set_timer(lc_loop *loop) {
    struct lc__selector *selector = loop->selector;
    uint64_t deadline_ns;
    if (!lc_loop_next_deadline(loop, &deadline_ns))
        return;
    /* Set already, and early enough: a wake before its time costs less than a system call per deadline. */
    if (selector->timer_ns && selector->timer_ns <= deadline_ns)
        return;
    selector->timer_ns = deadline_ns;
    struct itimerspec value = {
        .it_value = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)}};
    timerfd_settime(selector->timerfd, TFD_TIMER_ABSTIME, &value, NULL);
}

int lc__selector_enter(lc_loop *loop, bool wait) {
    struct lc__selector *selector = loop->selector;
    if (selector->reaping)
        wait = false;
    if (wait)
        lc__selector_set_timer(loop);
    loop->stats.enters++;
    ev_run(selector->ev, wait ? EVRUN_ONCE : EVRUN_NOWAIT);
    return 0;
}

bool lc__selector_settle(lc_loop *loop) {
    struct lc__selector *selector = loop->selector;
    ev_run(selector->ev, EVRUN_NOWAIT); /* libev tells epoll of changes only in here */
    return !selector->reaping && !selector->fired && !selector->wake_fired && !selector->timer_fired;
}

static void lc__selector_readable(lc_loop *loop, lc_op *op) {
    if (op->state != LC_STATE_ARMED)
        return;
    if (op->opcode == LC_OP_RECEIVE) {
        lc__stream_receive_event(lc__container_of(op, lc_stream, receive));
    } else if (op->opcode == LC_OP_ACCEPT) {
        lc__listener_event(lc__container_of(op, lc_listener, accept));
    } else {
        lc__selector_disarm(loop, op);
        op->state = LC_STATE_IDLE;
        lc__op_completed(loop, op, POLLIN, false, NULL);
    }
}

static void lc__selector_writable(lc_loop *loop, lc_op *op) {
    if (op->state != LC_STATE_ARMED)
        return;
    lc__selector_disarm(loop, op);
    op->state = LC_STATE_IDLE;
    if (op->opcode == LC_OP_SEND) {
        lc__selector_send(lc__container_of(op, lc_stream, send));
    } else if (op->opcode == LC_OP_CONNECT) {
        int error = 0;
        socklen_t size = sizeof error;
        if (getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
            error = errno;
        lc__op_completed(loop, op, -error, false, NULL);
    } else {
        lc__op_completed(loop, op, POLLOUT, false, NULL);
    }
}

/* epoll had no room for the descriptor, or it was closed since it was asked for. libev takes it for a bad one either way,
 * and does not say why. */
static void lc__selector_refused(lc_loop *loop, lc_op *op) {
    if (op->state != LC_STATE_ARMED)
        return;
    lc__selector_disarm(loop, op);
    op->state = LC_STATE_IDLE;
    lc__op_completed(loop, op, fcntl(op->fd, F_GETFD) < 0 ? -EBADF : -ENOMEM, false, NULL);
}

/* Events of one descriptor that was closed, or of a watcher that was stopped, in between reach nobody. */
static void lc__selector_read_fired(lc_loop *loop, const ev_io *io, bool failed) {
    if (ev_is_active(io))
        lc__selector_readable(loop, io->data);
    else if (failed)
        lc__selector_refused(loop, io->data);
}

LC__APART static void lc__selector_write_fired(lc_loop *loop, const ev_io *io, bool failed) {
    if (ev_is_active(io))
        lc__selector_writable(loop, io->data);
    else if (failed)
        lc__selector_refused(loop, io->data);
}

void lc__selector_reap(lc_loop *loop) {
    struct lc__selector *selector = loop->selector;
    uint32_t left = loop->options.reap_batch_max ? loop->options.reap_batch_max : LC__REAP_MAX;
    if (selector->wake_fired) {
        selector->wake_fired = false;
        lc__inbox_clear_wake(loop);
    }
    if (selector->timer_fired) {
        selector->timer_fired = false;
        uint64_t expirations;
        if (read(selector->timerfd, &expirations, sizeof expirations) > 0)
            selector->timer_ns = 0;
    }
    if (!selector->reaping) {
        selector->reaping = selector->fired;
        selector->fired = NULL;
    }
    while (selector->reaping && left-- > 0) {
        lc__watch *watch = selector->reaping;
        selector->reaping = watch->next_fired;
        watch->listed = false;
        if (selector->reaping)
            __builtin_prefetch(selector->reaping->read.data, 1);
        unsigned fired = watch->fired;
        watch->fired = 0;
        loop->stats.completions++;
        if (fired & LC__FIRED_READ)
            lc__selector_read_fired(loop, &watch->read, fired & LC__FIRED_ERROR);
        if (fired & LC__FIRED_WRITE)
            lc__selector_write_fired(loop, lc__write_watcher(loop, watch->fd, false), fired & LC__FIRED_ERROR);
    }
}
