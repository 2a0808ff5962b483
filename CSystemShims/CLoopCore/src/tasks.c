// SPDX-License-Identifier: Apache-2.0
/* tasks.c: Swift tasks that wait at a stream without the runtime's help, and how a cancel finds them.
 *
 * A task parks by leaving its job: its continuation is noted in the task, and nothing else is told. For the runtime it
 * still runs, which costs nothing to begin and nothing to end: no record of the wait, no lock, no look-up of an
 * executor, no job enqueued. The loop that holds it runs it again as a job. See docs/design.md, "A task that waits".
 *
 * Tasks that the loop spawned are known by address in a table, from their first instruction to their last, so one cancel
 * handler serves all waits of a task. All of this is on the loop's thread. */
#include "internal.h"

#if defined(__clang__)

/* Weak: plain C links without the runtime. */
__attribute__((swiftcall, weak)) void *swift_continuation_init(void *context, uint64_t flags);
__attribute__((swiftcall, weak)) void *swift_task_getCurrent(void);

/* The context of an async call, as Swift's calling convention has it; what follows is room for the runtime's record of a
 * continuation. */
typedef struct lc__async_context {
    struct lc__async_context *parent;
    void (*resume)(void);
    uint64_t continuation[6];
} lc__async_context;

/* As Swift sees it: nonisolated(nonsending) func (OpaquePointer) async. The two words are the caller's isolation, nil
 * here. Returning suspends the caller; running the task as a job resumes it. */
__attribute__((swiftasynccall)) void lc_park_receive(__attribute__((swift_async_context)) lc__async_context *context,
                                                     uint64_t isolation, uint64_t witness, lc_stream *stream) {
    (void)isolation, (void)witness;
    lc_stream_wait_receive(stream, (uintptr_t)swift_continuation_init(context, 0) | LC_WAITER_PARKED);
}

/* What a caller of an async function knows of it: where it is, and how large a context it wants. */
__asm__(".pushsection .rodata\n"
        ".globl lc_park_receiveTu\n"
        ".p2align 3\n"
        "lc_park_receiveTu:\n"
        ".long lc_park_receive - lc_park_receiveTu\n"
        ".long 64\n"
        ".popsection\n");
static_assert(sizeof(lc__async_context) == 64, "as lc_park_receiveTu says");

bool lc_stream_may_park(lc_stream *stream) {
    if (stream->receive.word || stream->started)
        return false;
    lc__task *task = lc__task_find(stream->loop, (uintptr_t)swift_task_getCurrent());
    if (!task || task->cancelled)
        return false;
    task->stream = stream; /* where a cancel will look for it */
    lc__token_next(&stream->receive_token);
    return true;
}

lc_task_id lc_task_enter(lc_loop *loop) {
    uintptr_t task = (uintptr_t)swift_task_getCurrent();
    if (lc__task_add(loop, task) < 0)
        return (lc_task_id){0};
    return (lc_task_id){.task = task, .number = lc__task_find(loop, task)->number};
}

#endif

/* ---- the table: open addressing, the next free place ---- */

static uint32_t lc__task_place(const lc__task_table *table, uintptr_t task) {
    return (uint32_t)((uint64_t)(task >> 4) * 0x9e3779b97f4a7c15u >> 32) & (table->capacity - 1);
}

lc__task *lc__task_find(lc_loop *loop, uintptr_t task) {
    const lc__task_table *table = &loop->tasks;
    if (!table->count)
        return NULL;
    for (uint32_t place = lc__task_place(table, task);; place = (place + 1) & (table->capacity - 1)) {
        lc__task *entry = &table->entries[place];
        if (entry->task == task)
            return entry;
        if (!entry->task)
            return NULL;
    }
}

static void lc__task_put(lc__task_table *table, lc__task entry) {
    uint32_t place = lc__task_place(table, entry.task);
    while (table->entries[place].task)
        place = (place + 1) & (table->capacity - 1);
    table->entries[place] = entry;
}

int lc__task_add(lc_loop *loop, uintptr_t task) {
    lc__task_table *table = &loop->tasks;
    if ((table->count + 1) * 2 > table->capacity) {
        lc__task_table larger = {
            .capacity = table->capacity ? table->capacity * 2 : 64, .count = table->count, .number = table->number};
        larger.entries = calloc(larger.capacity, sizeof *larger.entries);
        if (!larger.entries)
            return -ENOMEM;
        for (uint32_t place = 0; place < table->capacity; place++)
            if (table->entries[place].task)
                lc__task_put(&larger, table->entries[place]);
        free(table->entries);
        *table = larger;
    }
    lc__task_put(table, (lc__task){.task = task, .number = ++table->number});
    table->count++;
    return 0;
}

/* NULL: it has left, or was never noted. */
static lc__task *lc__task_named(lc_loop *loop, lc_task_id id) {
    lc__task *entry = id.task ? lc__task_find(loop, (uintptr_t)id.task) : NULL;
    return entry && entry->number == id.number ? entry : NULL;
}

/* Entries behind the one that goes move up, so that none is cut off from its place. */
void lc_task_leave(lc_loop *loop, lc_task_id id) {
    lc__task *entry = lc__task_named(loop, id);
    if (!entry)
        return;
    lc__task_table *table = &loop->tasks;
    uint32_t mask = table->capacity - 1;
    uint32_t hole = (uint32_t)(entry - table->entries);
    for (uint32_t place = (hole + 1) & mask; table->entries[place].task; place = (place + 1) & mask) {
        uint32_t home = lc__task_place(table, table->entries[place].task);
        if (((place - home) & mask) < ((place - hole) & mask))
            continue;
        table->entries[hole] = table->entries[place];
        hole = place;
    }
    table->entries[hole] = (lc__task){0};
    table->count--;
}

/* A cancel that another thread asked comes by way of the inbox. Its task may have ended by then, and a new one may have
 * begun where that was. */
void lc_task_cancel(lc_loop *loop, lc_task_id id) {
    lc__task *entry = lc__task_named(loop, id);
    if (!entry)
        return;
    entry->cancelled = true;
    /* The stream may be somebody else's by now; its memory is a stream's as long as the loop lives. */
    lc_stream *stream = entry->stream;
    if (stream && stream->receive.word == (id.task | LC_WAITER_PARKED))
        lc_stream_cancel_receive(stream, lc_stream_receive_token(stream));
}
