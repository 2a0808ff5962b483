// SPDX-License-Identifier: Apache-2.0
/* lc_thread.h: threads beside the loop's, for calls that block. */
#ifndef LC_THREAD_H
#define LC_THREAD_H

/* Starts a thread of that name (15 bytes at most) that nobody joins, and calls body(context) on it. Thread: any. */
int lc_thread_start(const char *name, void (*body)(void *), void *context);
/* Processors that this process may run on; at least 1. Thread: any. */
int lc_processor_count(void);

#endif
