// SPDX-License-Identifier: Apache-2.0
// liburing as the distribution ships it; only CLoopCore's proactor.c includes this.
#include <liburing.h>
