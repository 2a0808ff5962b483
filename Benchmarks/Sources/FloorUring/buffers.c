// SPDX-License-Identifier: Apache-2.0
/* buffers.c: memory of the buffer group and its way back to the kernel. */
#include "buffers.h"
#include "floor_support.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static void *pages(size_t length) {
    void *memory = NULL;
    int error = posix_memalign(&memory, (size_t)sysconf(_SC_PAGESIZE), length);
    if (error != 0)
        floor_fail("buffer memory", error);
    return memory;
}

static void add(struct buffers *buffers, uint16_t id) {
    io_uring_buf_ring_add(buffers->ring, buffer_bytes(buffers, id), BUFFER_BYTES, id,
                          io_uring_buf_ring_mask(BUFFER_COUNT), (int)buffers->unpublished_count++);
}

void buffers_open(struct buffers *buffers, struct io_uring *ring) {
    buffers->bytes = pages((size_t)BUFFER_COUNT * BUFFER_BYTES);
    buffers->ring = pages(BUFFER_COUNT * sizeof(struct io_uring_buf));
    io_uring_buf_ring_init(buffers->ring);

    struct io_uring_buf_reg registration = {
        .ring_addr = (uintptr_t)buffers->ring,
        .ring_entries = BUFFER_COUNT,
        .bgid = BUFFER_GROUP,
    };
    int result = io_uring_register_buf_ring(ring, &registration, 0);
    if (result < 0)
        floor_fail("registering the buffer ring (Linux 5.19 or later has it)", -result);

    for (unsigned id = 0; id < BUFFER_COUNT; id++)
        add(buffers, (uint16_t)id);
    buffers_publish(buffers);
}

void buffers_lease(struct buffers *buffers, uint16_t id, uint32_t length) {
    buffers->leased_count++;
    buffers->chunks[id] = (struct chunk){.begin = 0, .end = length, .next = BUFFER_NONE};
}

void buffers_return(struct buffers *buffers, uint16_t id) {
    buffers->leased_count--;
    add(buffers, id);
}

void buffers_publish(struct buffers *buffers) {
    if (buffers->unpublished_count == 0)
        return;
    io_uring_buf_ring_advance(buffers->ring, (int)buffers->unpublished_count);
    buffers->unpublished_count = 0;
}
