// SPDX-License-Identifier: Apache-2.0
/* loop_core.h: the umbrella. The data plane of both loops, in plain C11. */
#ifndef LOOP_CORE_H
#define LOOP_CORE_H

#include "lc_op.h"
#include "lc_loop.h"
#include "lc_datagram.h"
#include "lc_net.h"
#include "lc_pipe.h"
#include "lc_probe.h"
#include "lc_signals.h"
#include "lc_spawn.h"
#include "lc_socket.h"
#include "lc_swift.h"
#include "lc_thread.h"

#endif
