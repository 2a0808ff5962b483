// SPDX-License-Identifier: Apache-2.0
/* echo.c: the echo server a libuv user would write for speed.
 *
 * One loop on the main thread. Everybody receives into one shared buffer, and the answer is tried at once
 * (uv_try_write), so that in the ordinary case nothing is copied, allocated or waited for. What did not fit is copied,
 * and reading stops until it has gone, which bounds what a slow peer can make us hold. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static char scratch[64 * 1024];

struct rest {
    uv_write_t request;
    char bytes[];
};

static void fail(const char *what, int result) {
    fprintf(stderr, "libuv-echo: %s: %s\n", what, uv_strerror(result));
    exit(1);
}

static void on_closed(uv_handle_t *handle) { free(handle); }

static void close_stream(uv_stream_t *stream) {
    if (!uv_is_closing((uv_handle_t *)stream))
        uv_close((uv_handle_t *)stream, on_closed);
}

static void on_space(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer) {
    (void)handle;
    (void)suggested;
    *buffer = uv_buf_init(scratch, sizeof scratch);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer);

static void on_written(uv_write_t *request, int status) {
    uv_stream_t *stream = request->handle;
    free(request); /* the first member of its struct rest */
    if (status < 0)
        close_stream(stream);
    else if (!uv_is_closing((uv_handle_t *)stream))
        uv_read_start(stream, on_space, on_read);
}

static void write_rest(uv_stream_t *stream, const char *bytes, size_t length) {
    struct rest *rest = malloc(sizeof *rest + length);
    if (rest == NULL)
        return close_stream(stream);
    memcpy(rest->bytes, bytes, length);
    uv_buf_t left = uv_buf_init(rest->bytes, (unsigned)length);
    uv_read_stop(stream);
    if (uv_write(&rest->request, stream, &left, 1, on_written) < 0) {
        free(rest);
        close_stream(stream);
    }
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer) {
    if (count < 0)
        return close_stream(stream);
    if (count == 0)
        return;
    uv_buf_t answer = uv_buf_init(buffer->base, (unsigned)count);
    int sent = uv_try_write(stream, &answer, 1);
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent < 0)
        return close_stream(stream);
    if (sent < count)
        write_rest(stream, buffer->base + sent, (size_t)(count - sent));
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0)
        return;
    uv_tcp_t *connection = malloc(sizeof *connection);
    if (connection == NULL || uv_tcp_init(listener->loop, connection) < 0)
        return free(connection);
    if (uv_accept(listener, (uv_stream_t *)connection) < 0)
        return close_stream((uv_stream_t *)connection);
    uv_tcp_nodelay(connection, 1);
    uv_read_start((uv_stream_t *)connection, on_space, on_read);
}

static void on_signal(uv_signal_t *handle, int number) {
    (void)number;
    uv_stop(handle->loop);
}

static int port_from_arguments(int count, char **arguments) {
    if (count == 1)
        return 0;
    char *end = NULL;
    long port = count == 3 && strcmp(arguments[1], "--port") == 0 ? strtol(arguments[2], &end, 10) : -1;
    if (port < 0 || port > 65535 || end == arguments[2] || *end != '\0') {
        fprintf(stderr, "usage: %s [--port N]\n", arguments[0]);
        exit(64);
    }
    return (int)port;
}

static void announce(uv_tcp_t *listener) {
    struct sockaddr_in address;
    int length = sizeof address;
    int result = uv_tcp_getsockname(listener, (struct sockaddr *)&address, &length);
    if (result < 0)
        fail("getsockname", result);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
}

int main(int count, char **arguments) {
    struct sockaddr_in address;
    uv_ip4_addr("127.0.0.1", port_from_arguments(count, arguments), &address);
    signal(SIGPIPE, SIG_IGN);

    uv_loop_t *loop = uv_default_loop();
    uv_signal_t terminate, interrupt;
    uv_signal_init(loop, &terminate);
    uv_signal_init(loop, &interrupt);
    uv_signal_start(&terminate, on_signal, SIGTERM);
    uv_signal_start(&interrupt, on_signal, SIGINT);

    uv_tcp_t listener;
    uv_tcp_init(loop, &listener);
    int result = uv_tcp_bind(&listener, (struct sockaddr *)&address, 0);
    if (result < 0)
        fail("bind", result);
    result = uv_listen((uv_stream_t *)&listener, SOMAXCONN, on_connection);
    if (result < 0)
        fail("listen", result);
    announce(&listener);
    uv_run(loop, UV_RUN_DEFAULT);
    return 0;
}
