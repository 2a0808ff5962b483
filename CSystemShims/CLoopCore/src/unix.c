// SPDX-License-Identifier: Apache-2.0
/* unix.c: addresses of Unix sockets: paths, abstract names, and files that a server left behind. No loop here. */
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "internal.h"

enum { NAME_OFFSET = offsetof(struct sockaddr_un, sun_path) };

int lc_address_unix(const char *name, size_t length, lc_address *out) {
    struct sockaddr_un *address = (struct sockaddr_un *)&out->storage;
    bool abstract = length > 0 && name[0] == 0;
    memset(out, 0, sizeof *out);
    if (length < 1u + abstract || (!abstract && memchr(name, 0, length)))
        return -EINVAL;
    if (length + !abstract > sizeof address->sun_path)
        return -ENAMETOOLONG;
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, name, length);
    out->length = (socklen_t)(NAME_OFFSET + length + !abstract); /* a path ends with a zero byte, a name does not */
    return 0;
}

int lc_address_unix_name(const lc_address *address, char *name) {
    const struct sockaddr_un *unix_address = (const struct sockaddr_un *)&address->storage;
    if (address->storage.ss_family != AF_UNIX)
        return -EAFNOSUPPORT;
    size_t length = address->length > NAME_OFFSET ? address->length - NAME_OFFSET : 0;
    if (length > sizeof unix_address->sun_path)
        length = sizeof unix_address->sun_path;
    if (length > 0 && unix_address->sun_path[0] != 0)
        length = strnlen(unix_address->sun_path, length);
    memcpy(name, unix_address->sun_path, length);
    return (int)length;
}

int lc_unix_remove_stale(const lc_address *address) {
    const struct sockaddr_un *wanted = (const struct sockaddr_un *)&address->storage;
    char path[sizeof wanted->sun_path + 1] = {0};
    struct stat file;
    memcpy(path, wanted->sun_path, sizeof wanted->sun_path);
    if (wanted->sun_family != AF_UNIX || path[0] == 0 || lstat(path, &file) < 0 || !S_ISSOCK(file.st_mode))
        return -EADDRINUSE;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Whoever listens there accepts, or has no room left. */
    bool refused = connect(fd, (const struct sockaddr *)wanted, address->length) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!refused)
        return -EADDRINUSE;
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}
