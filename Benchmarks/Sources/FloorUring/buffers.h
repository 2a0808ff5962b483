// SPDX-License-Identifier: Apache-2.0
/* buffers.h: the group of buffers the kernel receives into, and what each of them still owes.
 *
 * A buffer is leased from a receive's completion until the send's. While leased, its chunk says which bytes are
 * left to send and which buffer of the same connection comes next. */
#ifndef FLOOR_URING_BUFFERS_H
#define FLOOR_URING_BUFFERS_H

#include "limits.h"

#include <liburing.h>
#include <stdint.h>

#define BUFFER_GROUP 0
#define BUFFER_NONE  UINT16_MAX

struct chunk {
    uint32_t begin;
    uint32_t end;
    uint16_t next; /* BUFFER_NONE at the end of a connection's list */
};

struct buffers {
    struct io_uring_buf_ring *ring;
    unsigned char *bytes;
    unsigned unpublished_count; /* returned, not yet visible to the kernel */
    unsigned leased_count;
    struct chunk chunks[BUFFER_COUNT];
};

/* Makes the memory and registers it with the ring. Ends the program when either is refused. */
void buffers_open(struct buffers *buffers, struct io_uring *ring);

/* Marks a buffer as ours after a receive of `length` bytes. */
void buffers_lease(struct buffers *buffers, uint16_t id, uint32_t length);

/* Gives a buffer back; the kernel sees it after buffers_publish(). */
void buffers_return(struct buffers *buffers, uint16_t id);

/* Shows all returned buffers to the kernel with one release store per tick instead of one each. */
void buffers_publish(struct buffers *buffers);

static inline unsigned char *buffer_bytes(const struct buffers *buffers, uint16_t id) {
    return buffers->bytes + (size_t)id * BUFFER_BYTES;
}

#endif
