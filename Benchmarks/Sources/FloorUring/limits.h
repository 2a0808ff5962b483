// SPDX-License-Identifier: Apache-2.0
/* limits.h: every bound of the io_uring floor, each with its reason. */
#ifndef FLOOR_URING_LIMITS_H
#define FLOOR_URING_LIMITS_H

/* Room for one send and one receive per connection of the largest scenario in a single entry. */
#define SUBMISSION_COUNT 2048u

/* Four answers per question: a multishot receive may answer several times between two entries, and a full
 * completion queue costs a detour through the kernel's overflow list. */
#define COMPLETION_COUNT 8192u

/* Both are what the library's own buffer groups default to, so neither side wins by memory.
 * The count is a power of two, as the kernel's ring demands. */
#define BUFFER_COUNT 128u
#define BUFFER_BYTES (16u * 1024u)

#endif
