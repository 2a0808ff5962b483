// SPDX-License-Identifier: Apache-2.0
/* backend_fd.c: the descriptor that somebody else's loop can wait at.
 *
 * The ring's is known. libev keeps its epoll descriptor to itself, so it is looked for: it is the one that watches the
 * eventfd of this loop, and the kernel lists in /proc what an epoll descriptor watches. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include "internal.h"

/* fdinfo of an epoll descriptor has a line "tfd: <watched>  events: ..." for each one it watches. */
static bool lc__epoll_watches(int directory, const char *name, int watched) {
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!file) {
        if (fd >= 0)
            close(fd);
        return false;
    }
    char line[256];
    int number;
    bool found = false;
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "tfd: %d", &number) == 1 && number == watched;
    fclose(file);
    return found;
}

static int lc__find_epoll(int watched) {
    DIR *directory = opendir("/proc/thread-self/fdinfo");
    if (!directory)
        return -1;
    int found = -1;
    const struct dirent *entry;
    while (found < 0 && (entry = readdir(directory))) {
        char path[64], target[64];
        if (snprintf(path, sizeof path, "/proc/thread-self/fd/%.20s", entry->d_name) >= (int)sizeof path)
            continue;
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0)
            continue;
        target[length] = '\0';
        if (strcmp(target, "anon_inode:[eventpoll]") == 0 &&
            lc__epoll_watches(dirfd(directory), entry->d_name, watched))
            found = atoi(entry->d_name);
    }
    closedir(directory);
    return found;
}

int lc_loop_backend_fd(const lc_loop *loop) {
    if (lc__is_proactor(loop))
        return lc__proactor_fd(loop);
    return strcmp(lc__selector_name(loop), "epoll") == 0 ? lc__find_epoll(loop->shared->eventfd) : -1;
}
