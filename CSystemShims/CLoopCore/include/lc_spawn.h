// SPDX-License-Identifier: Apache-2.0
/* lc_spawn.h: child processes: start one, learn of its end, send it signals. No loop here; any thread. */
#ifndef LC_SPAWN_H
#define LC_SPAWN_H

#include <stdbool.h>
#include <stdint.h>

/* In the child, `target` becomes what `source` is here. */
typedef struct lc_spawn_descriptor {
    int32_t source;
    int32_t target;
} lc_spawn_descriptor;

/* What was being done when it failed. */
typedef enum lc_spawn_step {
    LC_SPAWN_PREPARE = 0, /* nothing was started */
    LC_SPAWN_GROUP,       /* its process group or session */
    LC_SPAWN_DESCRIPTORS, /* its descriptors */
    LC_SPAWN_DIRECTORY,   /* its working directory */
    LC_SPAWN_EXECUTE,     /* the program itself */
} lc_spawn_step;

enum { LC_SPAWN_SAME_GROUP = -1 };

typedef struct lc_spawn {
    const char *const *paths;               /* programs to try in turn, NULL-terminated, as execvp does with PATH */
    const char *const *arguments;           /* from the program's name on, NULL-terminated */
    const char *const *environment;         /* "NAME=value", NULL-terminated */
    const char *directory;                  /* working directory; NULL: this one's */
    const lc_spawn_descriptor *descriptors; /* each target once; sources and targets may overlap */
    uint32_t descriptor_count;
    int32_t process_group; /* LC_SPAWN_SAME_GROUP, 0 for one of its own, or one to join */
    bool new_session;      /* and with it a new group */
    bool keep_others;      /* do not close what is neither a target nor standard input, output or error */
} lc_spawn;

typedef struct lc_child {
    int32_t pid;
    int32_t pidfd; /* the caller's to close */
} lc_child;

/* Starts a program, and returns once it executes. All signals have their default action there, and none is blocked.
 * On an error there is no child left, and *step tells how far it came. */
int lc_spawn_start(const lc_spawn *spawn, lc_child *out, lc_spawn_step *step);

typedef struct lc_child_end {
    int32_t code;   /* exit code, if signal is 0 */
    int32_t signal; /* what ended it, or 0 */
} lc_child_end;

/* Reaps. 1: *out tells how it ended. 0: it still runs. -ECHILD: somebody else has reaped it, or nobody has to. */
int lc_child_reap(int pidfd, lc_child_end *out);
/* Waits so long for its end, and reaps as above. */
int lc_child_reap_within(int pidfd, int milliseconds, lc_child_end *out);
/* A child that is gone is no error. */
int lc_child_signal(int pidfd, int signal);

/* This process's environment. */
const char *const *lc_environment(void);

#endif
