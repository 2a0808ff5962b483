// SPDX-License-Identifier: Apache-2.0
/* op.c: the life of one operation: its states, its lists, and to whom a result goes.
 *
 * The backends call in with what the kernel said; streams and listeners call in with what they want. Nothing here makes
 * a system call. */
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "internal.h"

void lc__op_submit(lc_loop *loop, lc_op *op) {
    assert(op->state == LC_STATE_IDLE);
    op->state = LC_STATE_QUEUED;
    op->flags &= LC_FLAG_ONE_ANSWER; /* if the SQ was full, it is queued once more */
    op->next_queued = NULL;
    if (loop->queued_tail)
        loop->queued_tail->next_queued = op;
    else
        loop->queued_head = op;
    loop->queued_tail = op;
    loop->stats.queued++;
}

/* Waits for buffers, first come first served. Asking again before one is back would only be refused again. */
void lc__op_starve(lc_loop *loop, lc_op *op) {
    assert(op->state == LC_STATE_IDLE);
    op->state = LC_STATE_STARVED;
    op->next_queued = NULL;
    if (loop->starved_tail)
        loop->starved_tail->next_queued = op;
    else
        loop->starved_head = op;
    loop->starved_tail = op;
    loop->stats.starved++;
}

static void lc__op_leave_starved(lc_loop *loop, lc_op *op) {
    lc_op *before = NULL;
    for (lc_op *at = loop->starved_head; at != op; at = at->next_queued)
        before = at;
    if (before)
        before->next_queued = op->next_queued;
    else
        loop->starved_head = op->next_queued;
    if (loop->starved_tail == op)
        loop->starved_tail = before;
    op->state = LC_STATE_IDLE;
}

/* One buffer each: a multishot receive would take all of them for itself, and the others would be refused again. As long
 * as completions are left to read, some of what counts as held may be taken already. */
void lc__op_feed_starved(lc_loop *loop) {
    if (!loop->starved_head || lc__proactor_is_behind(loop))
        return;
    for (uint32_t held = loop->shared->held; held > 0 && loop->starved_head; held--) {
        lc_op *op = loop->starved_head;
        lc__op_leave_starved(loop, op);
        lc__op_submit(loop, op);
        op->flags |= LC_FLAG_ONE_ANSWER;
    }
}

/* Who asks while others wait for buffers waits behind them; asking the kernel would be to jump the queue. */
void lc__op_submit_receive(lc_loop *loop, lc_op *op) {
    if (loop->starved_head)
        lc__op_starve(loop, op);
    else
        lc__op_submit(loop, op);
}

static void lc__op_leave_place(lc_loop *loop, lc_op *op) {
    lc__fd *entry = lc__fd_entry(loop, op->fd);
    lc_op **place = op->opcode == LC_OP_POLL_READ ? &entry->poll_read : &entry->poll_write;
    if (*place == op)
        *place = NULL;
}

/* Other results than those of receives and sends. */
LC__RARE void lc__op_completed_rarely(lc_loop *loop, lc_op *op, int result, bool more) {
    switch ((lc_opcode)op->opcode) {
    case LC_OP_ROOM:
        lc__stream_room(lc__container_of(op, lc_stream, send));
        break;
    case LC_OP_CONNECT:
        lc__stream_connected(lc__container_of(op, lc_stream, send), result);
        break;
    case LC_OP_ACCEPT:
        lc__listener_accepted(lc__container_of(op, lc_listener, accept), result, more);
        break;
    case LC_OP_POLL_READ:
    case LC_OP_POLL_WRITE: {
        if (!op->address) /* a watcher keeps its place until it is taken away */
            lc__op_leave_place(loop, op);
        op->result = result;
        op->state = LC_STATE_DONE;
        lc__ready_push(loop, &op->node, LC_KIND_OP);
        break;
    }
    case LC_OP_RECEIVE:
    case LC_OP_SEND:
    case LC_OP_NONE:
        assert(!"an operation without an opcode completed");
        break;
    }
}

/* Ends an operation that the kernel does not hold. */
void lc__op_ended(lc_loop *loop, lc_op *op) {
    op->state = LC_STATE_IDLE;
    op->flags = 0;
    lc__op_completed(loop, op, -ECANCELED, false, NULL);
}

static void lc__op_list_cancel(lc_loop *loop, lc_op *op) {
    op->flags |= LC_FLAG_CANCEL_ASKED | LC_FLAG_CANCEL_LISTED;
    op->next_queued = loop->cancel_head;
    loop->cancel_head = op;
}

/* A wish. What the kernel holds ends with its own last completion; the rest ends here, or when its turn to start
 * comes. Asking twice, or asking for what has ended, does nothing. */
void lc__op_ask_cancel(lc_loop *loop, lc_op *op) {
    switch ((lc_state)op->state) {
    case LC_STATE_IDLE:
    case LC_STATE_DONE:
        break;
    case LC_STATE_QUEUED:
        op->flags |= LC_FLAG_CANCEL_ASKED;
        break;
    case LC_STATE_STARVED:
        lc__op_leave_starved(loop, op);
        lc__op_ended(loop, op);
        break;
    case LC_STATE_ARMED:
        lc__selector_disarm(loop, op);
        lc__op_ended(loop, op);
        break;
    case LC_STATE_IN_KERNEL:
        if (!(op->flags & LC_FLAG_CANCEL_ASKED))
            lc__op_list_cancel(loop, op);
        break;
    }
}

/* The kernel was asked, and let it go on. */
void lc__op_ask_cancel_again(lc_loop *loop, lc_op *op) {
    if (!(op->flags & LC_FLAG_CANCEL_LISTED))
        lc__op_list_cancel(loop, op);
}

/* Phase 1. A full SQ is ordinary here too: the rest is asked in the next tick. */
void lc__op_cancel_listed(lc_loop *loop) {
    lc_op *op;
    while ((op = loop->cancel_head) && lc__proactor_cancel(loop, op)) {
        loop->cancel_head = op->next_queued;
        op->flags &= (uint8_t)~LC_FLAG_CANCEL_LISTED;
    }
}

/* It ended by itself before the kernel was asked. */
void lc__op_leave_cancels(lc_loop *loop, lc_op *op) {
    lc_op **link = &loop->cancel_head;
    while (*link != op)
        link = &(*link)->next_queued;
    *link = op->next_queued;
}

/* ---- one-shot operations of the public interface ---- */

lc_op *lc_op_make(lc_loop *loop) {
    if (!loop->free_ops) {
        lc_op *slab = lc__slab_make(loop, sizeof(lc_op), LC__SLAB);
        if (!slab)
            return NULL;
        for (size_t index = 0; index < LC__SLAB; index++) {
            slab[index].next_queued = loop->free_ops;
            loop->free_ops = &slab[index];
        }
    }
    lc_op *op = loop->free_ops;
    loop->free_ops = op->next_queued;
    *op = (lc_op){.fd = -1};
    return op;
}

void lc_op_release(lc_loop *loop, lc_op *op) {
    assert(op->state == LC_STATE_IDLE || op->state == LC_STATE_DONE);
    op->state = LC_STATE_IDLE;
    op->next_queued = loop->free_ops;
    loop->free_ops = op;
}

/* Linux 6.9 to 6.15 call a process descriptor a regular file. */
static bool lc__is_process(int fd) {
    struct statfs status;
    return fstatfs(fd, &status) == 0 && status.f_type == 0x50494446; /* PID_FS_MAGIC */
}

/* Regular files, directories and some devices have no readiness: epoll refuses them, and io_uring calls them ready at
 * once. Refused here, so that both loops say the same. */
static int lc__check_pollable(int fd) {
    struct stat status;
    if (fstat(fd, &status) < 0)
        return -errno;
    if (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode))
        return lc__is_process(fd) ? 0 : -EPERM;
    if (!S_ISCHR(status.st_mode))
        return 0;
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        return lc__error_is_exhaustion(-errno) ? -errno : 0; /* no epoll here: the selector in use has to tell */
    int result = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN}) < 0 ? -errno : 0;
    close(epoll);
    return result;
}

static int lc__op_poll(lc_loop *loop, lc_op *op, int fd, bool write, const void *watcher) {
    if (loop->closed || fd < 0)
        return -EBADF;
    int result = lc__check_pollable(fd);
    if (result < 0)
        return result;
    lc__fd *entry = lc__fd_entry(loop, fd);
    if (!entry)
        return -ENOMEM;
    if (entry->owner)
        return -EEXIST;
    lc_op **place = write ? &entry->poll_write : &entry->poll_read;
    if (*place && !(watcher && (*place)->address))
        return -EBUSY;
    *place = op;
    op->fd = fd;
    op->address = watcher;
    op->opcode = write ? LC_OP_POLL_WRITE : LC_OP_POLL_READ;
    lc__op_submit(loop, op);
    return 0;
}

int lc_op_poll(lc_loop *loop, lc_op *op, int fd, bool write, uint64_t word) {
    op->word = word;
    return lc__op_poll(loop, op, fd, write, NULL);
}

int lc_op_watch(lc_loop *loop, lc_op *op, int fd, bool write, const void *watcher) {
    op->word = 0;
    return lc__op_poll(loop, op, fd, write, watcher);
}

/* Whether the descriptor is one that can be polled was found out when the watch began. That it is still open is looked
 * at each time: libev aborts the program over one that is not. */
int lc_op_watch_again(lc_loop *loop, lc_op *op) {
    assert(op->state == LC_STATE_DONE && op->address);
    if (loop->closed || fcntl(op->fd, F_GETFD) < 0)
        return -EBADF;
    if (lc__fd_entry(loop, op->fd)->owner) /* closed, and the number is a stream's or listener's now */
        return -EEXIST;
    op->state = LC_STATE_IDLE;
    lc__op_submit(loop, op);
    return 0;
}

static lc__fd *lc__fd_known(const lc_loop *loop, int fd) {
    uint32_t chunk = (uint32_t)fd / LC__CHUNK;
    if (fd < 0 || chunk >= loop->fd_chunk_count || !loop->fd_chunks[chunk])
        return NULL;
    return &loop->fd_chunks[chunk][(uint32_t)fd % LC__CHUNK];
}

bool lc_loop_owns_descriptor(const lc_loop *loop, int fd) {
    const lc__fd *entry = lc__fd_known(loop, fd);
    return entry && entry->owner;
}

const void *lc_op_watcher(const lc_loop *loop, int fd, bool write) {
    const lc__fd *entry = lc__fd_known(loop, fd);
    const lc_op *op = !entry ? NULL : write ? entry->poll_write : entry->poll_read;
    return op ? op->address : NULL;
}

void lc_op_unwatch(lc_loop *loop, lc_op *op) {
    lc__op_leave_place(loop, op);
    if (!loop->closed)
        lc__op_ask_cancel(loop, op);
}

const void *lc_op_watcher_left_over(const lc_loop *loop, int *fd) {
    int end = (int)(loop->fd_chunk_count * LC__CHUNK);
    for (; *fd < end; ++*fd) {
        const void *watcher = lc_op_watcher(loop, *fd, false);
        if (!watcher)
            watcher = lc_op_watcher(loop, *fd, true);
        if (watcher)
            return watcher;
    }
    return NULL;
}

void lc_op_cancel(lc_loop *loop, lc_op *op) { lc__op_ask_cancel(loop, op); }
