// SPDX-License-Identifier: Apache-2.0
/* unix.c: Unix sockets of either type: their paths and abstract names, and the files that stand for them. No loop here. */
#include <stddef.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "internal.h"

enum { NAME_OFFSET = offsetof(struct sockaddr_un, sun_path) };

static_assert(sizeof((lc_socket_file *)0)->path > sizeof((struct sockaddr_un *)0)->sun_path, "a path and its end fit");

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

int lc_address_unix_name(const lc_address *address, const char **name) {
    const struct sockaddr_un *unix_address = (const struct sockaddr_un *)&address->storage;
    *name = unix_address->sun_path;
    if (address->length == 0)
        return 0;
    if (address->length < sizeof(sa_family_t) || unix_address->sun_family != AF_UNIX)
        return -EAFNOSUPPORT;
    size_t length = address->length > NAME_OFFSET ? address->length - NAME_OFFSET : 0;
    if (length > sizeof unix_address->sun_path)
        length = sizeof unix_address->sun_path;
    return (int)(length == 0 || unix_address->sun_path[0] == 0 ? length : strnlen(unix_address->sun_path, length));
}

/* ---- files ---- */

/* The path of an address, with a zero byte behind it; false if no file stands for it. */
static bool lc__socket_path(const lc_address *address, char path[sizeof((lc_socket_file *)0)->path]) {
    const char *name;
    int length = lc_address_unix_name(address, &name);
    if (length <= 0 || name[0] == 0)
        return false;
    memcpy(path, name, (size_t)length);
    path[length] = 0;
    return true;
}

void lc_socket_file_note(lc_socket_file *file, const lc_address *address) {
    struct stat status;
    *file = (lc_socket_file){.process = getpid()};
    if (!lc__socket_path(address, file->path) || lstat(file->path, &status) < 0) {
        file->path[0] = 0;
        return;
    }
    file->device = status.st_dev;
    file->number = status.st_ino;
}

void lc_socket_file_remove(lc_socket_file *file) {
    struct stat status;
    if (file->path[0] != 0 && file->process == getpid() && lstat(file->path, &status) == 0 &&
        status.st_dev == file->device && status.st_ino == file->number)
        unlink(file->path);
    file->path[0] = 0;
}

/* Removes a socket's file if nobody is bound to it any more. */
static bool lc__remove_stale(const lc_address *address, int type) {
    char path[sizeof((lc_socket_file *)0)->path];
    struct stat status;
    if (!lc__socket_path(address, path) || lstat(path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    int probe = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0)
        return false;
    /* Whoever is there accepts, has no room left, or is of the other type. */
    bool refused =
        connect(probe, (const struct sockaddr *)&address->storage, address->length) < 0 && errno == ECONNREFUSED;
    close(probe);
    return refused && (unlink(path) == 0 || errno == ENOENT);
}

int lc__bind(int fd, const lc_address *address) {
    const struct sockaddr *place = (const struct sockaddr *)&address->storage;
    if (bind(fd, place, address->length) == 0)
        return 0;
    int error = errno, type;
    socklen_t size = sizeof type;
    if (error != EADDRINUSE || place->sa_family != AF_UNIX || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
        !lc__remove_stale(address, type))
        return -error;
    return bind(fd, place, address->length) < 0 ? -errno : 0;
}
