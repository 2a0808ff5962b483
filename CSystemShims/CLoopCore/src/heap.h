// SPDX-License-Identifier: Apache-2.0
/* heap.h: a 4-ary heap of deadlines with back-pointers, so any entry leaves in O(log n).
 *
 * Four children share a cache line and a half and halve the depth of a binary heap. The sequence number makes equal
 * deadlines fire in the order they were set. Keys live in one array; the record only knows its index. */
#ifndef LC_HEAP_H
#define LC_HEAP_H

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include "lc_loop.h"

typedef struct lc__heap_entry {
    uint64_t deadline_ns;
    uint64_t sequence;
    lc_call *call;
} lc__heap_entry;

typedef struct lc__heap {
    lc__heap_entry *entries;
    uint32_t count;
    uint32_t capacity;
    uint64_t sequence;
} lc__heap;

static inline bool lc__heap_before(const lc__heap_entry *a, const lc__heap_entry *b) {
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->sequence < b->sequence;
}

static inline void lc__heap_place(lc__heap *heap, uint32_t index, lc__heap_entry entry) {
    heap->entries[index] = entry;
    entry.call->heap_index = index;
}

static inline void lc__heap_up(lc__heap *heap, uint32_t index, lc__heap_entry entry) {
    while (index > 0) {
        uint32_t parent = (index - 1) / 4;
        if (!lc__heap_before(&entry, &heap->entries[parent]))
            break;
        lc__heap_place(heap, index, heap->entries[parent]);
        index = parent;
    }
    lc__heap_place(heap, index, entry);
}

static inline void lc__heap_down(lc__heap *heap, uint32_t index, lc__heap_entry entry) {
    for (;;) {
        uint64_t first = (uint64_t)index * 4 + 1;
        if (first >= heap->count)
            break;
        uint64_t last = first + 4 < heap->count ? first + 4 : heap->count;
        uint32_t least = (uint32_t)first;
        for (uint64_t child = first + 1; child < last; child++)
            if (lc__heap_before(&heap->entries[child], &heap->entries[least]))
                least = (uint32_t)child;
        if (!lc__heap_before(&heap->entries[least], &entry))
            break;
        lc__heap_place(heap, index, heap->entries[least]);
        index = least;
    }
    lc__heap_place(heap, index, entry);
}

static inline int lc__heap_push(lc__heap *heap, uint64_t deadline_ns, lc_call *call) {
    if (heap->count == heap->capacity) {
        uint32_t capacity = heap->capacity ? heap->capacity * 2 : 64;
        lc__heap_entry *entries = realloc(heap->entries, (size_t)capacity * sizeof *entries);
        if (!entries)
            return -ENOMEM;
        heap->entries = entries;
        heap->capacity = capacity;
    }
    lc__heap_entry entry = {.deadline_ns = deadline_ns, .sequence = heap->sequence++, .call = call};
    lc__heap_up(heap, heap->count++, entry);
    return 0;
}

/* Before a removal, while the record to be removed is on its way from memory: what will fill the gap is known. */
static inline void lc__heap_prefetch_last(const lc__heap *heap) {
    if (heap->count)
        __builtin_prefetch(heap->entries[heap->count - 1].call, 1);
}

static inline void lc__heap_remove(lc__heap *heap, uint32_t index) {
    lc__heap_entry last = heap->entries[--heap->count];
    if (index == heap->count)
        return;
    if (index > 0 && lc__heap_before(&last, &heap->entries[(index - 1) / 4]))
        lc__heap_up(heap, index, last);
    else
        lc__heap_down(heap, index, last);
}

#endif
