// SPDX-License-Identifier: Apache-2.0
/* stream.c: one connection's messages: started, sent, compared, timed. */
#include "run.h"
#include "samples.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static bool may_start(const struct run *run, const struct stream *stream) {
    if (run->phase == PHASE_DRAIN)
        return false;
    return run->start_limit == 0 || stream->started_count < run->start_limit;
}

/* Mixed sizes are a fixed series, every octave from 16 bytes to 64 KiB as often as the others: the 64-bit finaliser of
 * SplitMix over which stream and which message this is. */
static uint64_t message_bytes(const struct run *run, const struct stream *stream, uint64_t number) {
    if (!run->options->mixed_sizes)
        return run->options->message_bytes;
    uint64_t word = (number + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)(stream - run->streams) * 0xd1b54a32d192ed03ull;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ull;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebull;
    word ^= word >> 31;
    uint64_t octave = 16ull << word % 12;
    return octave + (word >> 32) % (octave + 1);
}

static void start_message(struct run *run, struct stream *stream) {
    uint64_t bytes = message_bytes(run, stream, stream->started_count);
    if (stream->started_count == stream->finished_count)
        stream->finish_at = stream->queued + bytes;
    stream->started_ns[stream->started_count % run->options->depth] = run->now_ns;
    stream->started_count++;
    stream->queued += bytes;
    run->in_flight_count++;
}

static int finish_message(struct run *run, struct stream *stream) {
    uint64_t started_ns = stream->started_ns[stream->finished_count % run->options->depth];
    stream->finished_count++;
    if (stream->started_count > stream->finished_count)
        stream->finish_at += message_bytes(run, stream, stream->finished_count);
    run->in_flight_count--;
    if (run->phase != PHASE_MEASURE)
        return 0;

    run->result->echo_count++;
    if (samples_append(run->samples, run->now_ns - started_ns) < 0) {
        return run_fail(run, ENOMEM, "growing the latency samples");
    }
    return 0;
}

static int watch(struct run *run, struct stream *stream, bool to_write) {
    if (stream->waits_to_write == to_write)
        return 0;
    struct epoll_event event = {.events = to_write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = stream};
    if (epoll_ctl(run->epoll, EPOLL_CTL_MOD, stream->fd, &event) < 0)
        return run_fail(run, errno, "epoll_ctl");
    stream->waits_to_write = to_write;
    return 0;
}

int stream_send(struct run *run, struct stream *stream) {
    while (stream->sent < stream->queued) {
        uint64_t left = stream->queued - stream->sent;
        size_t piece = left < PIECE_BYTES_MAX ? (size_t)left : PIECE_BYTES_MAX;
        ssize_t sent = send(stream->fd, pattern_at(stream->origin + stream->sent), piece, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return watch(run, stream, true);
        if (sent < 0)
            return run_fail(run, errno, "sending to the server");
        stream->sent += (uint64_t)sent;
    }
    return watch(run, stream, false);
}

int stream_start(struct run *run, struct stream *stream) {
    for (uint32_t count = 0; count < run->options->depth && may_start(run, stream); count++) {
        start_message(run, stream);
    }
    return stream_send(run, stream);
}

int stream_receive(struct run *run, struct stream *stream) {
    ssize_t received = recv(stream->fd, run->scratch, sizeof run->scratch, 0);
    if (received < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (received < 0)
        return run_fail(run, errno, "receiving from the server");
    if (received == 0)
        return run_fail(run, ECONNRESET, "the server closed a connection");
    run->now_ns = run_clock_ns();
    run->progress_ns = run->now_ns;

    if (memcmp(run->scratch, pattern_at(stream->origin + stream->received), (size_t)received) != 0) {
        run->result->mismatch_count++;
    }
    stream->received += (uint64_t)received;
    if (stream->received > stream->sent)
        return run_fail(run, EPROTO, "the server sent more than it was sent");

    if (run->phase == PHASE_MEASURE)
        run->result->byte_count += (uint64_t)received;

    while (stream->finished_count < stream->started_count && stream->received >= stream->finish_at) {
        int result = finish_message(run, stream);
        if (result < 0)
            return result;
        if (may_start(run, stream))
            start_message(run, stream);
    }
    return stream_send(run, stream);
}
