// SPDX-License-Identifier: Apache-2.0
// libev as the distribution ships it; only CLoopCore's selector.c includes this.
#include <ev.h>
