// SPDX-License-Identifier: Apache-2.0
/* lc_pipe.h: calls on the ends of pipes, and on what is used as one. No loop here; any thread. */
#ifndef LC_PIPE_H
#define LC_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum lc_pipe_kind {
    LC_PIPE_FIFO = 1,
    LC_PIPE_SOCKET,
    LC_PIPE_DEVICE, /* a character device, as terminals are */
} lc_pipe_kind;

/* A pipe whose ends are closed on exec and, as a child expects, block. */
int lc_pipe_make(int *read_end, int *write_end);
/* Which kind it is. -EPERM: a file, a directory or a block device. -EINVAL: something else, or not open this way. */
int lc_pipe_kind_of(int fd, bool write);
/* Sets it non-blocking and closed on exec. */
int lc_pipe_prepare(int fd);

/* Bytes read, 0 at the end. -EAGAIN: none now. A terminal whose other end is gone is at its end. */
ptrdiff_t lc_pipe_read(int fd, lc_pipe_kind kind, void *bytes, size_t length);
/* Bytes written. -EAGAIN: no room now. -EPIPE: nobody reads; raises no SIGPIPE. */
ptrdiff_t lc_pipe_write(int fd, lc_pipe_kind kind, const void *bytes, size_t length);
/* Whether nobody will read any more. */
bool lc_pipe_reader_left(int fd);

#endif
