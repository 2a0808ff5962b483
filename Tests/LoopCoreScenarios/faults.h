// SPDX-License-Identifier: Apache-2.0
/* faults.h: what the scenarios about peers and the network share: a server, clients in number, and limits. */
#ifndef FAULTS_H
#define FAULTS_H

#include "scenario.h"

/* A listener whose connections become endpoints. Those of streams that were let go are used again. */
typedef struct server {
    lc_listener *listener;
    lc_address address;
    endpoint *ends;
    uint32_t *unused; /* indices into ends, the next one last */
    uint32_t end_max, unused_count;
    uint32_t accepted; /* ever */
    bool echo;
    int (*opened)(scenario *s, endpoint *e); /* may be NULL */
} server;

int server_open(scenario *s, server *v, uint32_t end_max);
/* Lets go of one connection. */
void server_drop(server *v, endpoint *e);
/* Lets go of all that is left, and of the listener. */
int server_close(scenario *s, server *v);

/* Connects clients first to first + count - 1, and has each accepted. Many of them come from several addresses, as one
 * has too few ports. */
int clients_connect(scenario *s, server *v, int *clients, uint32_t first, uint32_t count);

/* Room for `wanted` connections with both ends in this process, or for as many as the limit allows, which is said on
 * standard error. For child processes: the limit is the whole process's. */
int raise_connection_limit(scenario *s, uint32_t wanted, uint32_t *got);
/* Says on standard error what this machine does not allow to be tested. */
void say_skipped(const scenario *s, const char *what);

/* For child processes: a network of their own, where only they are. False: not allowed here. */
bool network_of_ones_own(void);
int loopback_up(scenario *s, bool up);
/* The ports that connections come from, in a network of one's own. False: not allowed here. */
bool limit_local_ports(int first, int last);

uint64_t thread_cpu_ns(void);
/* Bytes of heap in use, and of memory resident, in this process. */
size_t heap_in_use(void);
size_t memory_resident(void);

#endif
