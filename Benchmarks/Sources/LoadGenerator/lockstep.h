// SPDX-License-Identifier: Apache-2.0
/* lockstep.h: the exchange in waves. */
#ifndef LOAD_LOCKSTEP_H
#define LOAD_LOCKSTEP_H

#include "run.h"

/* Takes a real-time priority if it may, so that connects, waves and closes are each there in whole before the server
 * runs; remembers what was before. */
void lockstep_go_first(struct priority *before);

void lockstep_step_back(const struct priority *before);

/* Exchanges all messages in waves, after which the server sleeps. Returns 0 or a negated errno. */
int lockstep_exchange(struct run *run);

#endif
