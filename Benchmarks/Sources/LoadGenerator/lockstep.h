// SPDX-License-Identifier: Apache-2.0
/* lockstep.h: the exchange in waves. */
#ifndef LOAD_LOCKSTEP_H
#define LOAD_LOCKSTEP_H

#include "run.h"

/* Exchanges all messages in waves, after which the server sleeps. Returns 0 or a negated errno. */
int lockstep_exchange(struct run *run);

#endif
