// SPDX-License-Identifier: Apache-2.0
/* floor_support.h: what both floors do once, before their loop starts.
 *
 * Nothing here runs per request, so the floors differ only in how they talk to the kernel. */
#ifndef FLOOR_SUPPORT_H
#define FLOOR_SUPPORT_H

#include <stdbool.h>
#include <stdint.h>

struct floor_arguments {
    uint16_t port;    /* after `--port`; 0, also the default, lets the kernel pick */
    bool shares_port; /* `--share-port`: other processes may listen there too, the kernel spreads connections */
};

/* Other arguments end the program with a usage line. */
struct floor_arguments floor_arguments_parse(int argument_count, char **arguments);

/* A listening IPv4 socket on the loopback address, close-on-exec. Accepted sockets inherit its TCP_NODELAY.
 * `type_flags` is 0 or SOCK_NONBLOCK. Ends the program when the port is taken. */
int floor_listen(struct floor_arguments arguments, int type_flags);

/* Prints `listening on 127.0.0.1:PORT` and flushes: whoever started us waits for this line. */
void floor_announce(int listener);

/* What a floor did. A request is what one receive delivered, so pipelined messages may share one. */
struct floor_counts {
    uint64_t requests;
    uint64_t calls;       /* all system calls of the steady state */
    uint64_t ticks;       /* rounds of the loop */
    uint64_t entries;     /* system calls to submit or to wait */
    uint64_t completions; /* completions or readiness events taken */
};

/* Prints the closing lines: one for people, one of the form that `loopbench serve` prints as well, with the context
 * switches of the whole life added. */
void floor_farewell(const struct floor_counts *counts);

/* Soft descriptor limit to the hard one: a thousand connections do not fit the usual 1024. */
void floor_raise_descriptor_limit(void);

/* Says what failed and why, then exits with 1. `error` is a positive errno. */
_Noreturn void floor_fail(const char *what, int error);

/* SIGINT and SIGTERM as a descriptor to watch. They are blocked in the calling thread and in those it makes later, so
 * there is no moment in which one could be missed. Returns a negated errno on failure. */
int floor_signals(void);

#endif
