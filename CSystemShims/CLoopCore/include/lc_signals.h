// SPDX-License-Identifier: Apache-2.0
/* lc_signals.h: signals of the process, told to any number of loops. */
#ifndef LC_SIGNALS_H
#define LC_SIGNALS_H

#include "lc_loop.h"

/* One loop's wish to be told of one signal. Delivered as LC_KIND_SIGNAL, once however often the signal came since. */
typedef struct lc_signal lc_signal;

/* True if a handler can be had: not for SIGKILL and SIGSTOP, nor for faults, which come back as soon as their handler
 * returns. Thread: any. */
bool lc_signal_is_allowed(int number);

/* Tells the loop of the signal from now on. At most one per loop and number: the caller sees to that. -EINVAL: no such
 * signal, or one that is not allowed. -ENOMEM. Thread: the loop's. */
int lc_signal_add(lc_loop *loop, int number, lc_signal **out);
/* The end of it: nothing is delivered any more. The last one of a signal brings back what the process did before, unless
 * somebody else has changed that. Thread: the loop's, also once it is closed. */
void lc_signal_remove(lc_signal *signal);
int lc_signal_number(const lc_signal *signal);
/* The record around a delivered node. */
lc_signal *lc_node_signal(lc_node *node);

#endif
