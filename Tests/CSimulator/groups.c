// SPDX-License-Identifier: Apache-2.0
/* groups.c: provided buffers. While one is the kernel's it is filled with a pattern, and the pattern is looked for
 * again before the bytes arrive: whoever writes to a buffer after giving it back is found. */
#include "uring.h"

enum { POISON = 0xd7, EDGE = 512 }; /* of a large buffer, only both edges are looked at */

int sim_group_register(sim_ring *ring, const struct io_uring_buf_reg *registration) {
    sim_group *group = &ring->group;
    if (group->ring)
        return -EEXIST;
    if (registration->ring_entries == 0 || registration->ring_entries & (registration->ring_entries - 1))
        return -EINVAL;
    *group = (sim_group){.ring = (struct io_uring_buf_ring *)(uintptr_t)registration->ring_addr,
                         .count = registration->ring_entries,
                         .ours = calloc(65536, sizeof(bool))};
    return 0;
}

void sim_group_free(sim_group *group) { free(group->ours); }

static void poison(const struct io_uring_buf *buffer) {
    uint8_t *bytes = (uint8_t *)(uintptr_t)buffer->addr;
    if (buffer->len <= 2 * EDGE) {
        memset(bytes, POISON, buffer->len);
        return;
    }
    memset(bytes, POISON, EDGE);
    memset(bytes + buffer->len - EDGE, POISON, EDGE);
}

static bool is_poisoned(const struct io_uring_buf *buffer) {
    const uint8_t *bytes = (const uint8_t *)(uintptr_t)buffer->addr;
    for (uint32_t at = 0; at < buffer->len; at++) {
        if (at == EDGE && buffer->len > 2 * EDGE)
            at = buffer->len - EDGE;
        if (bytes[at] != POISON)
            return false;
    }
    return true;
}

void sim_group_check_in(sim_ring *ring) {
    sim_group *group = &ring->group;
    if (!group->ring)
        return;
    uint16_t tail = __atomic_load_n(&group->ring->tail, __ATOMIC_ACQUIRE);
    if ((uint16_t)(tail - group->head) > group->count)
        sim_find(ring->file.kernel, "more buffers were provided than the group has");
    for (; group->seen != tail; group->seen++) {
        const struct io_uring_buf *buffer = &group->ring->bufs[group->seen & (group->count - 1)];
        if (group->ours[buffer->bid])
            sim_find(ring->file.kernel, "buffer %u was provided while the kernel had it already", buffer->bid);
        group->ours[buffer->bid] = true;
        poison(buffer);
    }
}

const struct io_uring_buf *sim_group_peek(sim_ring *ring) {
    sim_group *group = &ring->group;
    sim_kernel *kernel = ring->file.kernel;
    sim_group_check_in(ring);
    if (!group->ring || group->head == group->seen || sim_fault(kernel, kernel->config.odds.no_buffers)) {
        kernel->stats.buffers_exhausted++;
        return NULL;
    }
    return &group->ring->bufs[group->head & (group->count - 1)];
}

void sim_group_use(sim_ring *ring, const struct io_uring_buf *buffer) {
    sim_group *group = &ring->group;
    if (!is_poisoned(buffer))
        sim_find(ring->file.kernel, "buffer %u was written to while the kernel had it", buffer->bid);
    group->ours[buffer->bid] = false;
    group->head++;
}
