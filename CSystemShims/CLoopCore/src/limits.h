// SPDX-License-Identifier: Apache-2.0
/* limits.h: every bound of the core, each with its reason. */
#ifndef LC_LIMITS_H
#define LC_LIMITS_H

enum {
    /* Submission entries: one tick rarely queues more; when it does, the rest goes in the next. */
    LC__SUBMISSION_COUNT = 512,
    /* Completions: room for several ticks of multishot answers before the kernel has to keep them in a list. */
    LC__COMPLETION_COUNT = 4096,
    /* Buffers in a group: the largest power of two that the kernel's 16-bit numbers allow in a ring of buffers. */
    LC__BUFFER_COUNT_MAX = 32768,
    /* Receive group of the proactor. The kernel walks a ring in order, so every buffer goes cold once per round: a
     * small group stays in cache and still covers what one kernel entry can complete. */
    LC__RING_BUFFER_COUNT = 128,
    LC__RING_BUFFER_SIZE = 16 * 1024,
    /* Receive group of the selector: last returned, first reused, so its size costs no cache. */
    LC__POOL_BUFFER_COUNT = 64,
    LC__POOL_BUFFER_SIZE = 64 * 1024,
    /* Heap buffers for outgoing copies: this large, and this many kept for reuse. */
    LC__SEND_BUFFER_SIZE = 16 * 1024,
    LC__SEND_BUFFERS_KEPT = 64,
    /* Buffers in one gathering send. The kernel allows 1024; past 64 the copy dominates. */
    LC__GATHER_MAX = 64,
    /* Gather vectors prepared per tick; a stream that finds none left sends its first buffer alone. */
    LC__GATHER_ARENA = 1024,
    /* Reads of one stream per pass: past this a busy peer waits for the others. */
    LC__READS_PER_PASS = 16,
    /* Answers of one multishot after which the kernel may lose a reset behind the bytes (K22). */
    LC__ANSWERS_TRUSTED = 31,
    /* Received leases a stream may hold that nobody asked for, before its receive is cancelled. */
    LC__UNREAD_MAX = 8,
    /* Connections accepted for a listener that nobody accepts from, before its accept is cancelled. */
    LC__ACCEPT_PENDING_MAX = 64,
    /* Datagrams per system call, each way; the sender's vectors lie on the stack. The kernel takes 1024 at most. */
    LC__DATAGRAM_BATCH = 32,
    LC__DATAGRAM_BATCH_MAX = 1024,
    /* Bytes kept of one datagram: more than UDP has. */
    LC__DATAGRAM_SIZE = 65536,
    /* Memory of the queue of datagrams: at first, and the most that is kept when it is empty. */
    LC__DATAGRAM_QUEUE_MIN = 4096,
    LC__DATAGRAM_QUEUE_KEPT = 256 * 1024,
    /* Completions taken per pass. Everything the CQ can hold is normal; a bound keeps timers punctual. */
    LC__REAP_MAX = 4096,
    /* Longest sleep: a day, so that a far deadline never overflows a timeout. */
    LC__SLEEP_MAX_S = 24 * 3600,
    /* Accept back-off after EMFILE and its like: from 100 ms, doubled up to 1 s. */
    LC__BACKOFF_MIN_MS = 100,
    LC__BACKOFF_MAX_MS = 1000,
    /* How long close waits for the kernel to let go of something more before it gives lent memory up for lost. */
    LC__CLOSE_WAIT_MS = 5000,
    /* Cache lines of a waiting task worth fetching ahead: its header and the frames behind it. */
    LC__TASK_LINES = 14,
    /* Table growth: descriptors and calls per chunk, streams per slab. */
    LC__CHUNK = 256,
    LC__SLAB = 32,
};

#endif
