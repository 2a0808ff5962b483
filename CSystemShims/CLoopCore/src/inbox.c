// SPDX-License-Identifier: Apache-2.0
/* inbox.c: the door for other threads: a list anyone may push to, and a wake for a loop that sleeps.
 *
 * Owns the list, the asleep flag and the eventfd. What a node means is loop.c's business. Any thread pushes; only the
 * loop's thread takes. Most pushes cost no system call: only the one that finds the loop asleep writes.
 *
 * Model-checked: model/inbox.pml, `make model`. */
#include <sys/eventfd.h>
#include <unistd.h>
#include "internal.h"

static_assert(offsetof(struct lc_shared, asleep) >= 128, "producers' line and the flag's line are apart");

/* In the list's head: no more pushes. */
#define LC__INBOX_CLOSED ((lc_node *)1)

int lc__inbox_init(struct lc_shared *shared) {
    shared->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return shared->eventfd < 0 ? -errno : 0;
}

/* Publish, then look for a sleeper. Pairs with lc__inbox_before_sleep(), its mirror image: announce sleep, then look
 * for work. Both stores and both loads are sequentially consistent, so in their one order each side's look comes after
 * its own store, and at least one side sees the other. With acquire and release alone both could look too early, and a
 * call would wait for the next unrelated event. The exchange makes sure that one producer per sleep writes. */
void lc__inbox_wake(struct lc_shared *shared) {
    if (atomic_load(&shared->asleep) && atomic_exchange(&shared->asleep, 0)) {
        uint64_t one = 1;
        ssize_t written;
        do
            written = write(shared->eventfd, &one, sizeof one);
        while (written < 0 && errno == EINTR);
        /* EAGAIN: the counter is full, so the loop has a wake to read already. */
    }
}

int lc__inbox_push(struct lc_shared *shared, lc_node *node) {
    lc_node *head = atomic_load_explicit(&shared->inbox, memory_order_relaxed);
    do {
        if (head == LC__INBOX_CLOSED)
            return -EBADF;
        node->next = head;
    } while (!atomic_compare_exchange_weak(&shared->inbox, &head, node));
    lc__inbox_wake(shared);
    return 0;
}

/* False: there is work, do not sleep. */
bool lc__inbox_before_sleep(struct lc_shared *shared) {
    atomic_store(&shared->asleep, 1);
    if (atomic_load(&shared->inbox) || atomic_load(&shared->stop)) {
        atomic_store_explicit(&shared->asleep, 0, memory_order_relaxed);
        return false;
    }
    return true;
}

void lc__inbox_after_sleep(struct lc_shared *shared) {
    atomic_store_explicit(&shared->asleep, 0, memory_order_relaxed);
}

static lc_node *lc__inbox_reversed(lc_node *head) {
    lc_node *reversed = NULL;
    while (head) {
        lc_node *next = head->next;
        head->next = reversed;
        reversed = head;
        head = next;
    }
    return reversed;
}

/* Everything pushed so far, oldest first. */
lc_node *lc__inbox_take(struct lc_shared *shared) {
    lc_node *head = atomic_load_explicit(&shared->inbox, memory_order_relaxed);
    if (!head || head == LC__INBOX_CLOSED)
        return NULL;
    /* Acquire pairs with the release half of the push: the node's contents are visible. */
    return lc__inbox_reversed(atomic_exchange_explicit(&shared->inbox, NULL, memory_order_acquire));
}

/* The last take: a push sees the mark and is refused, or came before it and is in the list returned. */
lc_node *lc__inbox_close(struct lc_shared *shared) {
    lc_node *head = atomic_exchange(&shared->inbox, LC__INBOX_CLOSED);
    return head == LC__INBOX_CLOSED ? NULL : lc__inbox_reversed(head);
}

/* K1: the eventfd is polled and read here with read(2); a read kept in the ring can hang on some kernels. */
void lc__inbox_clear_wake(lc_loop *loop) {
    uint64_t count;
    ssize_t got;
    do
        got = read(loop->shared->eventfd, &count, sizeof count);
    while (got < 0 && errno == EINTR);
    if (got > 0)
        loop->stats.wakes++;
}
