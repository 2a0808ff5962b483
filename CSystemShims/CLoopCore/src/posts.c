// SPDX-License-Identifier: Apache-2.0
/* posts.c: records for calls from other threads, by the page.
 *
 * A record is taken by one thread and given back by another, which is what allocators are worst at. So a thread takes
 * records one after the other from a page of its own, and giving one back only counts. Whoever gives back the last
 * keeps the page for another thread, or frees it. A call costs no malloc, neither side waits for the other's, and
 * records that are next to each other in the inbox are so in memory. */
#include <pthread.h>
#include "internal.h"

enum { LC__POST_PAGE_SIZE = 16 * 1024, LC__POST_HEADER_SIZE = 64, LC__POST_PAGES_KEPT = 256 };
enum { LC__POST_COUNT = (LC__POST_PAGE_SIZE - LC__POST_HEADER_SIZE) / sizeof(lc_post) };

typedef struct lc__post_page {
    _Atomic(uint32_t) owed; /* records that have not been given back, taken or not */
} lc__post_page;

/* What a thread has to do with posts: the page it takes from, and the one it gave records of back last. Neither page
 * can go while it is here, because it still owes what is left, or what was not yet counted. */
typedef struct lc__post_thread {
    lc__post_page *from;
    uint32_t left;
    lc__post_page *back;
    uint32_t back_count;
    bool is_known; /* its end will be told */
} lc__post_thread;

static _Thread_local lc__post_thread lc__posts;
static pthread_key_t lc__posts_key;
static pthread_once_t lc__posts_once = PTHREAD_ONCE_INIT;
static int lc__posts_key_error;

/* ---- pages that nobody uses ---- */

/* Memory that was just used is the fastest there is. Any thread puts in and takes out, by exchanging a slot. */
static _Atomic(lc__post_page *) lc__posts_kept[LC__POST_PAGES_KEPT];

static void lc__posts_keep(lc__post_page *page) {
    for (size_t slot = 0; slot < LC__POST_PAGES_KEPT; slot++) {
        lc__post_page *empty = NULL;
        /* Release: whoever takes the page out finds it as it was left. */
        if (!atomic_load_explicit(&lc__posts_kept[slot], memory_order_relaxed) &&
            atomic_compare_exchange_strong_explicit(&lc__posts_kept[slot], &empty, page, memory_order_release,
                                                    memory_order_relaxed))
            return;
    }
    free(page);
}

static lc__post_page *lc__posts_page(void) {
    for (size_t slot = 0; slot < LC__POST_PAGES_KEPT; slot++) {
        lc__post_page *page = NULL;
        if (atomic_load_explicit(&lc__posts_kept[slot], memory_order_relaxed))
            page = atomic_exchange_explicit(&lc__posts_kept[slot], NULL, memory_order_acquire);
        if (page)
            return page;
    }
    void *memory = NULL;
    return posix_memalign(&memory, LC__POST_PAGE_SIZE, LC__POST_PAGE_SIZE) == 0 ? memory : NULL;
}

/* The release half orders the use of these records before the page is used again, the acquire half sees that of all
 * others. */
static void lc__posts_give_back(lc__post_page *page, uint32_t count) {
    if (count && atomic_fetch_sub_explicit(&page->owed, count, memory_order_acq_rel) == count)
        lc__posts_keep(page);
}

/* ---- threads ---- */

/* What it did not take nobody will. Another destructor may post after this one: the thread is made known once more. */
static void lc__posts_thread_ends(void *value) {
    lc__post_thread thread = *(lc__post_thread *)value;
    lc__posts = (lc__post_thread){0};
    lc__posts_give_back(thread.from, thread.left);
    lc__posts_give_back(thread.back, thread.back_count);
}

static void lc__posts_make_key(void) {
    lc__posts_key_error = pthread_key_create(&lc__posts_key, lc__posts_thread_ends);
}

static bool lc__posts_know_thread(void) {
    pthread_once(&lc__posts_once, lc__posts_make_key);
    if (!lc__posts.is_known && !lc__posts_key_error)
        lc__posts.is_known = pthread_setspecific(lc__posts_key, &lc__posts) == 0;
    return lc__posts.is_known;
}

static bool lc__posts_next_page(void) {
    if (!lc__posts_know_thread())
        return false;
    lc__post_page *page = lc__posts_page();
    if (!page)
        return false;
    atomic_store_explicit(&page->owed, LC__POST_COUNT, memory_order_relaxed);
    lc__posts.from = page;
    lc__posts.left = LC__POST_COUNT;
    return true;
}

lc_post *lc_post_make(void) {
    if (!lc__posts.left && !lc__posts_next_page())
        return NULL;
    lc_post *posts = (lc_post *)(void *)((char *)lc__posts.from + LC__POST_HEADER_SIZE);
    return posts + (LC__POST_COUNT - lc__posts.left--);
}

/* Counted together for as long as they come from one page, as an atomic subtraction is dearer than all else here. */
void lc_post_free(lc_post *post) {
    lc__post_page *page = (lc__post_page *)((uintptr_t)post & ~(uintptr_t)(LC__POST_PAGE_SIZE - 1));
    if (page != lc__posts.back) {
        lc__posts_give_back(lc__posts.back, lc__posts.back_count);
        lc__posts.back = page;
        lc__posts.back_count = 0;
    }
    lc__posts.back_count++;
    if (!lc__posts.is_known && !lc__posts_know_thread()) {
        lc__posts_give_back(page, lc__posts.back_count);
        lc__posts.back = NULL;
        lc__posts.back_count = 0;
    }
}
