// SPDX-License-Identifier: Apache-2.0
/* buffers.c: leases: who holds which bytes, how they come back, what happens when few are left.
 *
 * Owns the group's memory and the heap buffers. The proactor's free buffers lie in the kernel's ring, which proactor.c
 * keeps; the selector's lie in a list here, last returned first used. Leases may outlive the loop: the memory goes with
 * the last of them. */
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* References before the loop closes: more than leases can ever be, so that an early zero is impossible. */
#define LC__REFERENCES_OPEN ((int64_t)1 << 40)

/* What mmap takes and munmap gives back, whatever they are asked for. ThreadSanitizer, though, forgets of a range given
 * back only the pages that lie wholly within it, and would take the next ring there for this memory. */
size_t lc__whole_pages(size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) & ~(page - 1);
}

static uint32_t lc__power_of_two(uint32_t value) {
    uint32_t power = 1;
    while (power < value && power < LC__BUFFER_COUNT_MAX)
        power *= 2;
    return power;
}

int lc__shared_create(const lc_options *options, lc_loop *loop, struct lc_shared **out) {
    bool ring = options->backend == LC_BACKEND_PROACTOR;
    uint32_t count = options->buffer_count ? options->buffer_count
                     : ring                ? LC__RING_BUFFER_COUNT
                                           : LC__POOL_BUFFER_COUNT;
    uint32_t size = options->buffer_size ? options->buffer_size : ring ? LC__RING_BUFFER_SIZE : LC__POOL_BUFFER_SIZE;
    count = lc__power_of_two(count);
    if (size > PTRDIFF_MAX / count)
        return -ENOMEM;
    struct lc_shared *shared = calloc(1, sizeof *shared);
    if (!shared)
        return -ENOMEM;
    shared->eventfd = -1;
    shared->loop = loop;
    shared->buffer_count = count;
    shared->buffer_size = size;
    shared->memory_size = lc__whole_pages((size_t)count * size);
    atomic_init(&shared->references, LC__REFERENCES_OPEN);
    int result = lc__inbox_init(shared);
    if (result < 0) {
        free(shared);
        return result;
    }
    shared->buffers = calloc(count, sizeof *shared->buffers);
    /* Untouched pages cost nothing, so a generous group is only address space until it is used. */
    void *memory = mmap(NULL, shared->memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!shared->buffers || memory == MAP_FAILED) {
        if (memory != MAP_FAILED)
            munmap(memory, shared->memory_size);
        free(shared->buffers);
        close(shared->eventfd);
        free(shared);
        return -ENOMEM;
    }
    shared->memory = memory;
    for (uint32_t bid = 0; bid < count; bid++) {
        shared->buffers[bid] = (lc_buffer){
            .base = shared->memory + (size_t)bid * size, .capacity = size, .bid = (uint16_t)bid, .shared = shared};
        if (!ring)
            lc__queue_push(&shared->free_pool, &shared->buffers[bid].node);
    }
    shared->held = count;
    *out = shared;
    return 0;
}

static void lc__shared_free(struct lc_shared *shared) {
    while (shared->send_pool.head)
        free(lc__container_of(lc__queue_pop(&shared->send_pool), lc_buffer, node));
    if (shared->memory)
        munmap(shared->memory, shared->memory_size);
    free(shared->buffers);
    close(shared->eventfd);
    free(shared);
}

static void lc__shared_add(struct lc_shared *shared, int64_t change) {
    if (atomic_fetch_add(&shared->references, change) + change == 0)
        lc__shared_free(shared);
}

/* From now on each lease counts as one reference, and the loop as one. */
void lc__shared_detach(struct lc_shared *shared) {
    lc__shared_add(shared, (int64_t)shared->leased + 1 - LC__REFERENCES_OPEN);
}

void lc__shared_unref(struct lc_shared *shared) { lc__shared_add(shared, -1); }

/* A group buffer while a quarter of the group is left, else a heap one: whoever keeps leases for long cannot starve the
 * other streams. */
static bool lc__group_is_low(const struct lc_shared *shared) { return shared->held <= shared->buffer_count / 4; }

lc_buffer *lc__buffer_heap(lc_loop *loop, size_t capacity) {
    struct lc_shared *shared = loop->shared;
    lc_buffer *buffer = NULL;
    if (capacity <= LC__SEND_BUFFER_SIZE) {
        capacity = LC__SEND_BUFFER_SIZE;
        if (shared->send_pool.head)
            buffer = lc__container_of(lc__queue_pop(&shared->send_pool), lc_buffer, node);
    }
    if (!buffer) {
        buffer = malloc(sizeof *buffer + capacity);
        if (!buffer)
            return NULL;
    }
    *buffer = (lc_buffer){
        .base = (uint8_t *)(buffer + 1), .capacity = (uint32_t)capacity, .bid = LC_BID_HEAP, .shared = shared};
    shared->leased++;
    return buffer;
}

static lc_buffer *lc__buffer_from_pool(struct lc_shared *shared) {
    lc_buffer *buffer = lc__container_of(lc__queue_pop(&shared->free_pool), lc_buffer, node);
    buffer->lent = 1;
    buffer->offset = 0;
    buffer->length = 0;
    shared->held--;
    shared->leased++;
    return buffer;
}

/* Without memory, what is left of the group is better than nothing. */
LC__RARE static lc_buffer *lc__buffer_lease_when_low(lc_loop *loop) {
    lc_buffer *copy = lc__buffer_heap(loop, LC__SEND_BUFFER_SIZE);
    loop->stats.copied_out += copy != NULL;
    return copy || !loop->shared->held ? copy : lc__buffer_from_pool(loop->shared);
}

lc_buffer *lc__buffer_lease(lc_loop *loop) {
    return lc__group_is_low(loop->shared) ? lc__buffer_lease_when_low(loop) : lc__buffer_from_pool(loop->shared);
}

/* The group's own goes back at once, unless there is no memory for a copy. */
LC__RARE static lc_buffer *lc__buffer_copied_out(lc_loop *loop, lc_buffer *buffer) {
    lc_buffer *copy = lc__buffer_heap(loop, buffer->length);
    if (!copy)
        return buffer;
    memcpy(copy->base, buffer->base, buffer->length);
    copy->length = buffer->length;
    loop->stats.copied_out++;
    lc__buffer_return_here(loop, buffer);
    return copy;
}

lc_buffer *lc__buffer_taken(lc_loop *loop, uint16_t bid, uint32_t length) {
    struct lc_shared *shared = loop->shared;
    assert(bid < shared->buffer_count && length <= shared->buffer_size);
    lc_buffer *buffer = &shared->buffers[bid];
    assert(!buffer->lent);
    buffer->lent = 1;
    buffer->offset = 0;
    buffer->length = length;
    shared->held--;
    shared->leased++;
    return lc__group_is_low(shared) ? lc__buffer_copied_out(loop, buffer) : buffer;
}

LC__RARE static void lc__buffer_heap_return(struct lc_shared *shared, lc_buffer *buffer) {
    if (buffer->capacity == LC__SEND_BUFFER_SIZE && shared->send_pool.count < LC__SEND_BUFFERS_KEPT)
        lc__queue_push(&shared->send_pool, &buffer->node);
    else
        free(buffer);
}

void lc__buffer_return_here(lc_loop *loop, lc_buffer *buffer) {
    struct lc_shared *shared = loop->shared;
    assert(buffer->shared == shared && shared->leased > 0);
    shared->leased--;
    if (buffer->bid == LC_BID_HEAP) {
        lc__buffer_heap_return(shared, buffer);
        return;
    }
    assert(buffer->lent);
    shared->held++;
    if (lc__is_proactor(loop)) {
        lc__proactor_buffer_back(loop, buffer);
    } else {
        buffer->lent = 0;
        buffer->node.next = shared->free_pool.head;
        shared->free_pool.head = &buffer->node;
        if (!shared->free_pool.tail)
            shared->free_pool.tail = &buffer->node;
        shared->free_pool.count++;
    }
}

void lc_buffer_return(lc_buffer *buffer) {
    struct lc_shared *shared = buffer->shared;
    lc_loop *current = lc_loop_current();
    if (current && current->shared == shared) {
        lc__buffer_return_here(current, buffer);
        return;
    }
    /* The reference keeps the eventfd and the list alive while this thread may still look at them: once the push is
     * seen, the loop may count the lease as back, close and free everything else. */
    atomic_fetch_add(&shared->references, 1);
    buffer->node.kind = LC_KIND_BUFFER;
    if (lc__inbox_push(shared, &buffer->node) < 0) {
        if (buffer->bid == LC_BID_HEAP)
            free(buffer);
        lc__shared_add(shared, -1);
    }
    lc__shared_add(shared, -1);
}
