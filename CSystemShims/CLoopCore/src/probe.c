// SPDX-License-Identifier: Apache-2.0
/* probe.c: what the backends found, asked once per process, and in words what an errno of ring set-up means. */
#include <limits.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include "internal.h"

static int lc__read_sysctl(const char *path) {
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    int value = -1;
    if (fscanf(file, "%d", &value) != 1)
        value = -1;
    fclose(file);
    return value;
}

static int lc__io_uring_sysctl(void) { return lc__read_sysctl("/proc/sys/kernel/io_uring_disabled"); }

void lc_probe_explain(int error, char *cause, char *advice) {
    int code = error < 0 && error != INT_MIN ? -error : error;
    int sysctl_value = lc__io_uring_sysctl();
    switch (code) {
    case 0:
        cause[0] = advice[0] = '\0';
        return;
    case ENOSYS:
        snprintf(cause, LC_PROBE_TEXT, "this kernel has no io_uring, or a seccomp filter hides it (ENOSYS)");
        snprintf(advice, LC_PROBE_TEXT,
                 "use Linux 6.1 or later, or allow io_uring_setup, io_uring_enter and "
                 "io_uring_register in the container's seccomp profile");
        return;
    case EPERM:
        if (sysctl_value > 0) {
            snprintf(cause, LC_PROBE_TEXT, "the sysctl kernel.io_uring_disabled is %d (EPERM)", sysctl_value);
            snprintf(advice, LC_PROBE_TEXT,
                     sysctl_value == 1
                         ? "set kernel.io_uring_disabled=0, run with CAP_SYS_ADMIN, or join kernel.io_uring_group"
                         : "set kernel.io_uring_disabled=0");
        } else {
            snprintf(cause, LC_PROBE_TEXT, "a seccomp filter or security module refuses io_uring (EPERM)");
            snprintf(advice, LC_PROBE_TEXT,
                     "allow io_uring_setup, io_uring_enter and io_uring_register in the "
                     "container's seccomp profile");
        }
        return;
    case EINVAL:
        snprintf(cause, LC_PROBE_TEXT, "this kernel's io_uring lacks what the loop needs (EINVAL)");
        snprintf(advice, LC_PROBE_TEXT, "use Linux 6.1 or later");
        return;
    case ENOMEM:
        snprintf(cause, LC_PROBE_TEXT, "not enough lockable memory for the ring (ENOMEM)");
        snprintf(advice, LC_PROBE_TEXT, "raise RLIMIT_MEMLOCK (ulimit -l), or ask for smaller rings");
        return;
    case EMFILE:
    case ENFILE:
        snprintf(cause, LC_PROBE_TEXT, "no file descriptor is left (%s)", lc_errno_name(code));
        snprintf(advice, LC_PROBE_TEXT, "raise RLIMIT_NOFILE (ulimit -n), or close descriptors");
        return;
    default:
        snprintf(cause, LC_PROBE_TEXT, "io_uring set-up failed (%s: %s)", lc_errno_name(code), strerror(code));
        snprintf(advice, LC_PROBE_TEXT, "see io_uring_setup(2)");
        return;
    }
}

void lc_probe_run(lc_probe *out) {
    memset(out, 0, sizeof *out);
    out->proactor_error = lc__proactor_probe(&out->proactor_features);
    lc_probe_explain(out->proactor_error, out->proactor_cause, out->proactor_advice);
    snprintf(out->selector_name, sizeof out->selector_name, "%s", lc__selector_probe());
    out->io_uring_disabled = lc__io_uring_sysctl();
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0)
        out->memlock_limit = limit.rlim_cur;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        out->nofile_limit = limit.rlim_cur;
        out->nofile_limit_max = limit.rlim_max;
    }
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(out->kernel, sizeof out->kernel, "%.60s", name.release);
}

static lc_probe lc__probe_answer;
static pthread_once_t lc__probe_once = PTHREAD_ONCE_INIT;
static void lc__probe_ask(void) { lc_probe_run(&lc__probe_answer); }

const lc_probe *lc_probe_get(void) {
    pthread_once(&lc__probe_once, lc__probe_ask);
    return &lc__probe_answer;
}
