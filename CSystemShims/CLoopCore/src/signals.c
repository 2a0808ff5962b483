// SPDX-License-Identifier: Apache-2.0
/* signals.c: the process's one handler of signals, and who is told.
 *
 * A loop's wish is a record that is made ahead. The handler runs on whichever thread the kernel picks, in the middle of
 * anything: it takes no lock and no memory, but pushes the records of its signal to their loops' inboxes, which is a
 * compare-and-exchange, and perhaps a write to an eventfd. A record that is on its way already stays as it is, so a
 * storm of signals queues one entry per loop. All else runs on ordinary threads, under one lock.
 *
 * Surprise: a forked child has the handler, the records and the eventfds of its parent. It is given back what the
 * process did before; until then, and where fork hooks do not run, the handler sees that the process is another. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#include "internal.h"

#ifndef NSIG
#define NSIG _NSIG
#endif

struct lc_signal {
    lc_node node;              /* the inbox and the ready list, while queued */
    _Atomic(lc_signal *) next; /* under the lock; the handler reads it */
    _Atomic(bool) queued;      /* the handler makes it true and pushes; the loop makes it false and delivers */
    bool removed;              /* loop: to be freed when it is delivered */
    int32_t number;
    pid_t process;
    struct lc_shared *shared; /* one reference, so the handler can never meet a stranger's eventfd */
};

static _Atomic(lc_signal *) lc__signals[NSIG];
static struct sigaction lc__before[NSIG]; /* under the lock: what the process did, while we handle the signal */
static pthread_mutex_t lc__lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- the handler, and how a removal waits for it ---- */

/* Handlers under way, on the side that was current when they began. */
static _Atomic(uint32_t) lc__handlers[2];
static _Atomic(uint32_t) lc__side;

static void lc__on_signal(int number) {
    int error = errno;
    uint32_t side = atomic_load(&lc__side) & 1;
    atomic_fetch_add(&lc__handlers[side], 1);
    pid_t process = 0;
    for (lc_signal *signal = atomic_load(&lc__signals[number]); signal; signal = atomic_load(&signal->next)) {
        if (!process)
            process = getpid();
        if (signal->process != process || atomic_exchange(&signal->queued, true))
            continue;
        if (lc__inbox_push(signal->shared, &signal->node) < 0)
            atomic_store(&signal->queued, false); /* the loop is closed */
    }
    atomic_fetch_sub(&lc__handlers[side], 1);
    errno = error;
}

/* Returns once no handler holds a record that was unlinked before. Those that begin meanwhile count on the other side,
 * so the wait ends also in a storm; twice, as one may have looked at the side and not yet have counted itself. One on
 * this very thread has come to its end already. */
static void lc__wait_for_handlers(void) {
    for (int round = 0; round < 2; round++) {
        uint32_t side = atomic_fetch_add(&lc__side, 1) & 1;
        while (atomic_load(&lc__handlers[side]))
            sched_yield();
    }
}

/* ---- the lock ---- */

/* No signal is handled on a thread that holds it: a handler of the program's own might fork, which takes it too. */
static void lc__acquire(sigset_t *mask) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, mask);
    pthread_mutex_lock(&lc__lock);
}

static void lc__release(const sigset_t *mask) {
    pthread_mutex_unlock(&lc__lock);
    pthread_sigmask(SIG_SETMASK, mask, NULL);
}

/* ---- forks ---- */

static sigset_t lc__mask_of_fork; /* under the lock */

static void lc__before_fork(void) {
    sigset_t mask;
    lc__acquire(&mask);
    lc__mask_of_fork = mask;
}

static void lc__after_fork(void) {
    sigset_t mask = lc__mask_of_fork;
    lc__release(&mask);
}

static bool lc__is_ours(int number) {
    struct sigaction now;
    return sigaction(number, NULL, &now) == 0 && now.sa_handler == lc__on_signal;
}

/* Unless somebody else has taken the signal since. */
static void lc__restore(int number) {
    if (lc__is_ours(number))
        sigaction(number, &lc__before[number], NULL);
}

static void lc__signals_in_child(void) {
    for (int number = 1; number < NSIG; number++) {
        if (!atomic_load(&lc__signals[number]))
            continue;
        lc__restore(number);
        atomic_store(&lc__signals[number], NULL);
    }
    /* Whoever was in the handler is in the parent. */
    atomic_store(&lc__handlers[0], 0);
    atomic_store(&lc__handlers[1], 0);
    lc__after_fork();
}

static void lc__hook_forks(void) { pthread_atfork(lc__before_fork, lc__after_fork, lc__signals_in_child); }

/* ---- who is told ---- */

bool lc_signal_is_allowed(int number) {
    switch (number) {
    case SIGKILL:
    case SIGSTOP:
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
        return false;
    default:
        return number > 0 && number < NSIG;
    }
}

static int lc__link(lc_signal *signal) {
    int number = signal->number;
    lc_signal *first = atomic_load(&lc__signals[number]);
    if (!first || !lc__is_ours(number)) {
        struct sigaction action = {.sa_handler = lc__on_signal, .sa_flags = SA_RESTART | SA_ONSTACK}, before;
        sigfillset(&action.sa_mask);
        if (sigaction(number, &action, &before) < 0)
            return -errno;
        lc__before[number] = before;
    }
    atomic_store(&signal->next, first);
    atomic_store(&lc__signals[number], signal);
    return 0;
}

int lc_signal_add(lc_loop *loop, int number, lc_signal **out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!lc_signal_is_allowed(number))
        return -EINVAL;
    lc_signal *signal = calloc(1, sizeof *signal);
    if (!signal)
        return -ENOMEM;
    signal->node.kind = LC_KIND_SIGNAL;
    signal->number = number;
    signal->process = getpid();
    signal->shared = loop->shared;
    pthread_once(&once, lc__hook_forks);
    sigset_t mask;
    lc__acquire(&mask);
    int result = lc__link(signal);
    lc__release(&mask);
    if (result < 0) {
        free(signal);
        return result;
    }
    atomic_fetch_add(&signal->shared->references, 1);
    *out = signal;
    return 0;
}

static void lc__signal_free(lc_signal *signal) {
    lc__shared_unref(signal->shared);
    free(signal);
}

void lc_signal_remove(lc_signal *signal) {
    if (signal->process != getpid())
        return; /* the copy of it stays: it may be in the copy of the inbox */
    sigset_t mask;
    lc__acquire(&mask);
    _Atomic(lc_signal *) *link = &lc__signals[signal->number];
    while (atomic_load(link) != signal)
        link = &atomic_load(link)->next;
    /* The disposition first: a signal that comes now is the last one's still, or nobody's of ours. */
    if (link == &lc__signals[signal->number] && !atomic_load(&signal->next))
        lc__restore(signal->number);
    atomic_store(link, atomic_load(&signal->next));
    lc__wait_for_handlers();
    lc__release(&mask);
    signal->removed = true;
    if (!atomic_load(&signal->queued))
        lc__signal_free(signal);
}

/* Before the callback runs, so that what comes from now on is told anew. */
bool lc__signal_take(lc_signal *signal) {
    if (signal->removed) {
        lc__signal_free(signal);
        return false;
    }
    atomic_store(&signal->queued, false);
    return true;
}

int lc_signal_number(const lc_signal *signal) { return signal->number; }
lc_signal *lc_node_signal(lc_node *node) { return lc__container_of(node, lc_signal, node); }
