// SPDX-License-Identifier: Apache-2.0
/* thread.c: starting threads, cold. No loop here. */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>
#include "internal.h"
#include "lc_thread.h"

typedef struct lc__thread_start {
    void (*body)(void *);
    void *context;
    char name[16];
} lc__thread_start;

static void *lc__thread_body(void *memory) {
    lc__thread_start start = *(lc__thread_start *)memory;
    free(memory);
    pthread_setname_np(pthread_self(), start.name);
    start.body(start.context);
    return NULL;
}

int lc_thread_start(const char *name, void (*body)(void *), void *context) {
    lc__thread_start *start = calloc(1, sizeof *start);
    if (!start)
        return -ENOMEM;
    start->body = body;
    start->context = context;
    strncpy(start->name, name, sizeof start->name - 1);
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (!error) {
        pthread_t thread;
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        error = pthread_create(&thread, &attributes, lc__thread_body, start);
        pthread_attr_destroy(&attributes);
    }
    if (error)
        free(start);
    return -error;
}

int lc_processor_count(void) {
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
        return CPU_COUNT(&allowed) > 0 ? CPU_COUNT(&allowed) : 1;
    /* More processors than the set has room for. */
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}
