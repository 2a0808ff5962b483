// SPDX-License-Identifier: Apache-2.0
/* registry.c: which loops there are, by number, for those who name a loop without keeping it alive.
 *
 * A handle is copied more often than it is used, so it holds a number rather than a counted reference. Any thread adds,
 * removes and looks up, without a lock: a fork could catch one closed. Blocks are never freed; there are as many as the
 * most loops at a time need. */
#include "internal.h"

enum { LC__REGISTRY_BLOCK = 64 };

/* The number is written last when an entry is taken and first when it is left, so who reads it finds its loop. */
typedef struct lc__registry_entry {
    _Atomic(uint64_t) number; /* 0: free */
    _Atomic(lc_loop *) loop;
} lc__registry_entry;

typedef struct lc__registry_block {
    lc__registry_entry entries[LC__REGISTRY_BLOCK];
    _Atomic(struct lc__registry_block *) next;
} lc__registry_block;

static lc__registry_block lc__registry;
static _Atomic(uint64_t) lc__registry_last; /* numbers are given once */

static const uint64_t lc__registry_taken = UINT64_MAX;

/* The next block, made if there is none. Of two threads that make one at the same time, one frees its own. */
static lc__registry_block *lc__registry_next(lc__registry_block *block) {
    lc__registry_block *next = atomic_load_explicit(&block->next, memory_order_acquire);
    if (next)
        return next;
    lc__registry_block *made = calloc(1, sizeof *made);
    if (!made)
        return NULL;
    if (atomic_compare_exchange_strong(&block->next, &next, made))
        return made;
    free(made);
    return next;
}

static bool lc__registry_take(lc__registry_entry *entry, lc_loop *loop) {
    uint64_t number = 0;
    if (!atomic_compare_exchange_strong(&entry->number, &number, lc__registry_taken))
        return false;
    loop->number = atomic_fetch_add(&lc__registry_last, 1) + 1;
    atomic_store_explicit(&entry->loop, loop, memory_order_relaxed);
    atomic_store_explicit(&entry->number, loop->number, memory_order_release);
    return true;
}

int lc__registry_add(lc_loop *loop) {
    for (lc__registry_block *block = &lc__registry; block; block = lc__registry_next(block))
        for (size_t index = 0; index < LC__REGISTRY_BLOCK; index++)
            if (lc__registry_take(&block->entries[index], loop))
                return 0;
    return -ENOMEM;
}

static lc__registry_entry *lc__registry_find(uint64_t number) {
    lc__registry_block *block = &lc__registry;
    for (; block; block = atomic_load_explicit(&block->next, memory_order_acquire))
        for (size_t index = 0; index < LC__REGISTRY_BLOCK; index++)
            if (atomic_load_explicit(&block->entries[index].number, memory_order_acquire) == number)
                return &block->entries[index];
    return NULL;
}

void lc__registry_remove(lc_loop *loop) {
    lc__registry_entry *entry = loop->number ? lc__registry_find(loop->number) : NULL;
    if (entry)
        atomic_store_explicit(&entry->number, 0, memory_order_release);
}

uint64_t lc_loop_number(const lc_loop *loop) { return loop->number; }

lc_loop *lc_loop_numbered(uint64_t number) {
    lc_loop *running = lc_loop_current();
    if (running && running->number == number)
        return running;
    lc__registry_entry *entry = number ? lc__registry_find(number) : NULL;
    return entry ? atomic_load_explicit(&entry->loop, memory_order_relaxed) : NULL;
}
