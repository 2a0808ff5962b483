// SPDX-License-Identifier: Apache-2.0
/* ends.c: the addresses of a stream's two ends, as they were at the start: the kernel forgets the peer's with a reset,
 * and both with the descriptor. */
#include <netinet/in.h>
#include "internal.h"

/* An IPv4 address and port, as the network has them: the common case, kept in the stream itself. */
typedef struct lc__end {
    uint16_t port;
    uint8_t address[4];
} lc__end;

/* Any others: one behind the other. */
typedef struct lc__ends {
    uint8_t lengths[2]; /* 0: none */
    uint8_t bytes[];
} lc__ends;

static lc__ends *lc__stream_ends_apart(const lc_stream *stream) {
    lc__ends *ends;
    memcpy(&ends, stream->ends, sizeof ends);
    return ends;
}

static_assert(sizeof(lc__end[2]) <= sizeof((lc_stream *)0)->ends, "both ends fit");

void lc__stream_note_ends(lc_stream *stream) {
    lc_address ends[2];
    size_t total = 0;
    bool ipv4 = true;
    for (int peer = 0; peer < 2; peer++) {
        int result = peer ? lc_address_peer(stream->fd, &ends[peer]) : lc_address_local(stream->fd, &ends[peer]);
        if (result < 0 || ends[peer].length <= sizeof ends[peer].storage.ss_family)
            ends[peer].length = 0; /* gone, or a Unix socket without a name */
        total += ends[peer].length;
        ipv4 &= ends[peer].length > 0 && ends[peer].storage.ss_family == AF_INET;
    }
    lc__stream_forget_ends(stream);
    if (ipv4) {
        for (int peer = 0; peer < 2; peer++) {
            const struct sockaddr_in *from = (const struct sockaddr_in *)&ends[peer].storage;
            lc__end end = {.port = from->sin_port};
            memcpy(end.address, &from->sin_addr, sizeof from->sin_addr);
            memcpy(stream->ends + peer * sizeof end, &end, sizeof end);
        }
        stream->ends_inline = true;
        return;
    }
    lc__ends *apart = total > 0 ? malloc(sizeof *apart + total) : NULL;
    if (!apart)
        return;
    uint8_t *to = apart->bytes;
    for (int peer = 0; peer < 2; to += ends[peer++].length) {
        apart->lengths[peer] = (uint8_t)ends[peer].length; /* at most 110 */
        memcpy(to, &ends[peer].storage, ends[peer].length);
    }
    memcpy(stream->ends, &apart, sizeof apart);
    stream->ends_apart = true;
}

void lc__stream_forget_ends(lc_stream *stream) {
    if (stream->ends_apart)
        free(lc__stream_ends_apart(stream));
    stream->ends_apart = stream->ends_inline = false;
}

int lc_stream_end_address(const lc_stream *stream, bool peer, lc_address *out) {
    *out = (lc_address){0};
    if (stream->ends_inline) {
        struct sockaddr_in *to = (struct sockaddr_in *)&out->storage;
        lc__end end;
        memcpy(&end, stream->ends + peer * sizeof end, sizeof end);
        to->sin_family = AF_INET;
        to->sin_port = end.port;
        memcpy(&to->sin_addr, end.address, sizeof to->sin_addr);
        out->length = sizeof *to;
    } else if (stream->ends_apart) {
        const lc__ends *apart = lc__stream_ends_apart(stream);
        out->length = apart->lengths[peer];
        memcpy(&out->storage, apart->bytes + (peer ? apart->lengths[0] : 0), out->length);
    }
    return out->length > 0 ? 0 : -ENOTCONN;
}
