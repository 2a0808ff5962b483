// SPDX-License-Identifier: Apache-2.0
/* load_generator.h: a closed-loop echo client in one thread on level-triggered epoll.
 *
 * Every connection keeps `depth` messages in flight: a message that came back whole is replaced by a new one, so
 * a slow server is asked less, not queued up against. All echoed bytes are compared with those sent. */
#ifndef LOAD_GENERATOR_H
#define LOAD_GENERATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_options {
    uint16_t port; /* on 127.0.0.1 */
    uint32_t connection_count;
    uint32_t source_count; /* addresses from 127.0.0.2 on, in turn; 0: the kernel picks */
    uint32_t message_bytes;
    bool mixed_sizes; /* 16 bytes to 64 KiB by a fixed series, whatever `message_bytes` says */
    uint32_t depth;
    uint64_t warmup_ns; /* echoes before this are not counted */
    uint64_t measure_ns;
    uint64_t echo_count_each; /* not 0: exactly so many echoes per connection, both times above are ignored */
    bool lockstep;            /* with echo_count_each and server_pid: in waves, see lockstep.c */
    int cpu;                  /* the calling thread stays on it during the run; negative: anywhere */
    int server_pid;           /* whose CPU time to read at both ends of the measured time; 0: nobody's */
};

/* Latencies in nanoseconds, saturating at 4.29 s. Owned by the caller, starts zeroed, grows as needed and can be
 * handed in again: a run begins by setting `count` to 0. */
struct load_samples {
    uint32_t *ns;
    size_t count;
    size_t capacity;
};

struct load_result {
    uint64_t echo_count; /* within the measured time */
    uint64_t byte_count; /* that came back within the measured time */
    uint64_t measured_ns;
    uint64_t mismatch_count; /* receives whose bytes were not those sent */
    uint64_t server_cpu_ns;
    uint64_t disturbed_count; /* waves of which the server saw a part before the rest was sent */
    char error[256];          /* a sentence when load_run() failed, else empty */
};

/* Runs to the end on the calling thread, which may wait up to 5 s for a silent server.
 * Returns 0, or a negated errno with the reason in `result->error`. */
int load_run(const struct load_options *options, struct load_samples *samples, struct load_result *result);

/* Frees the memory and leaves `samples` ready for another run. */
void load_samples_free(struct load_samples *samples);

/* The CPUs the calling thread may use, at most `capacity` of them, ascending. Returns how many. */
size_t load_allowed_cpus(int *cpus, size_t capacity);

/* The calling thread stays on this CPU from now on. Returns 0 or a negated errno. */
int load_stay_on(int cpu);

#endif
