// SPDX-License-Identifier: Apache-2.0
/* found.c: what only the simulated kernel has found so far, each as short as it gets, over many seeds. On the real kernel
 * the moment at which these go wrong cannot be hit at will. */
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include "model.h"

#pragma weak sim_begin
#pragma weak sim_end
#pragma weak sim_finding

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            snprintf(failure, size, "found.c:%d: expected %s", __LINE__, #condition);                                  \
            return -1;                                                                                                 \
        }                                                                                                              \
    } while (0)

typedef int (*found_body)(lc_loop *loop, char *failure, size_t size);

static int on_kernel(uint64_t seed, uint32_t lacks, uint32_t backend, found_body body, char *failure, size_t size) {
    sim_config config = {.seed = seed, .lacks = lacks, .socket_buffer = 4096};
    config.odds = (sim_odds){.short_read = 200,
                             .short_write = 300,
                             .held_back = 300,
                             .reordered = 500,
                             .short_submit = 200,
                             .slow_connect = 300};
    sim_begin(&config);
    lc_loop *loop;
    lc_options options = {.backend = backend};
    int result = lc_loop_create(&options, &loop);
    EXPECT(result == 0);
    EXPECT(lc_loop_enter(loop) == 0);
    result = body(loop, failure, size);
    lc_loop_leave(loop);
    lc_loop_free(loop);
    if (result == 0 && sim_finding()) {
        snprintf(failure, size, "%s", sim_finding());
        result = -1;
    }
    sim_end();
    return result;
}

/* Passes; takes what the stream has. *last: what the latest take said, if any had something to say. */
static void pass(lc_loop *loop, lc_stream *stream, int *last, size_t *bytes) {
    (void)lc_now_ns(); /* looking lets time pass */
    lc_loop_tick(loop, false);
    for (lc_node *node; (node = lc_loop_next(loop));) {
        if (node->kind == LC_KIND_SEND)
            lc_stream_send_waiter(stream);
        if (node->kind != LC_KIND_RECEIVE)
            continue;
        lc_stream_receive_waiter(stream);
        lc_buffer *buffer;
        int result;
        while ((result = lc_stream_take(stream, &buffer)) == 1) {
            *bytes += lc_buffer_length(buffer);
            lc_buffer_return(buffer);
        }
        if (result != -EAGAIN)
            *last = result;
        else
            lc_stream_wait_receive(stream, 1);
    }
}

/* ---- a receive that waits on a socket that connects ---- */

static int connect_error(lc_loop *loop, char *failure, size_t size) {
    struct sockaddr_in nobody = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    lc_stream *stream;
    EXPECT(lc_stream_connect(loop, (struct sockaddr *)&nobody, sizeof nobody, &stream) == 0);
    EXPECT(lc_stream_wait_receive(stream, 1) == 0);
    EXPECT(lc_stream_wait_send(stream, 2, SIZE_MAX) == 0);
    int last = 1;
    size_t bytes = 0;
    for (int round = 0; round < 1000 && (last == 1 || lc_stream_send_waits(stream)); round++)
        pass(loop, stream, &last, &bytes);
    EXPECT(lc_stream_connect_result(stream) == -ECONNREFUSED);
    EXPECT(last == -ECONNREFUSED);
    lc_stream_release(stream);
    return 0;
}

int model_found_connect_error(uint64_t seed, uint32_t backend, char *failure, size_t size) {
    return on_kernel(seed, 0, backend, connect_error, failure, size);
}

/* ---- a send that is under way when the connection is reset ---- */

static int pair_over_tcp(int fds[2], char *failure, size_t size) {
    struct sockaddr_in home = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof home;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(bind(listening, (struct sockaddr *)&home, sizeof home) == 0 && listen(listening, 1) == 0);
    EXPECT(getsockname(listening, (struct sockaddr *)&home, &length) == 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(connect(fds[0], (struct sockaddr *)&home, sizeof home) == 0);
    fds[1] = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    EXPECT(fds[1] >= 0);
    close(listening);
    return 0;
}

/* The peer's bytes may be lost with the reset; then no end may be told. */
static int cut_short(lc_loop *loop, char *failure, size_t size) {
    static char bytes[64 * 1024];
    int fds[2];
    if (pair_over_tcp(fds, failure, size) != 0)
        return -1;
    lc_stream *stream;
    EXPECT(lc_stream_adopt(loop, fds[0], &stream) == 0);
    EXPECT(lc_stream_send_copy(stream, bytes, sizeof bytes) == 0);
    int last = 1;
    size_t received = 0;
    for (int round = 0; round < 3; round++) {
        pass(loop, stream, &last, &received);
        recv(fds[1], bytes, 1 + (size_t)round, MSG_DONTWAIT);
    }
    ssize_t sent = send(fds[1], bytes, 100, MSG_DONTWAIT);
    EXPECT(sent > 0);
    close(fds[1]); /* with bytes unread: a reset */
    pass(loop, stream, &last, &received);
    lc_stream_wait_receive(stream, 1);
    for (int round = 0; round < 1000 && last == 1; round++)
        pass(loop, stream, &last, &received);
    EXPECT(last == -ECONNRESET || (last == 0 && received == (size_t)sent) || last == -EPIPE);
    lc_stream_release(stream);
    return 0;
}

int model_found_cut_short(uint64_t seed, uint32_t backend, char *failure, size_t size) {
    return on_kernel(seed, 0, backend, cut_short, failure, size);
}

/* ---- a descriptor that leaves before the kernel has said that it does not know its receive ---- */

static int left_early(lc_loop *loop, char *failure, size_t size) {
    int fds[2], fd = -1, last = 1;
    size_t received = 0;
    if (pair_over_tcp(fds, failure, size) != 0)
        return -1;
    /* Both ends receive, so that an entry may take the first of them and leave the second for the next. */
    lc_stream *stream, *peer;
    EXPECT(lc_stream_adopt(loop, fds[1], &peer) == 0 && lc_stream_adopt(loop, fds[0], &stream) == 0);
    EXPECT(lc_stream_start_receiving(peer) == 0 && lc_stream_start_receiving(stream) == 0);
    pass(loop, stream, &last, &received);
    int begun = lc_stream_begin_leave(stream);
    EXPECT(begun == 0 || (begun == -EAGAIN && lc_stream_wait_send(stream, 1, 0) == 0));
    for (int round = 0; round < 1000 && lc_stream_send_waits(stream); round++)
        pass(loop, stream, &last, &received);
    EXPECT(lc_stream_leave(stream, &fd) == 0 && fd == fds[0]);
    lc_stream_release(stream);
    lc_stream_release(peer);
    close(fd);
    return 0;
}

int model_found_left_early(uint64_t seed, uint32_t backend, char *failure, size_t size) {
    return on_kernel(seed, SIM_LACKS_MULTISHOT_RECEIVE, backend, left_early, failure, size);
}
