// SPDX-License-Identifier: Apache-2.0
/* errors.c: one classification of errno, and the names of the codes. */
#include <limits.h>
#include "internal.h"

bool lc__error_is_retry(int error) { return error == -EINTR || error == -EAGAIN; }

bool lc__error_is_exhaustion(int error) {
    return error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM;
}

/* accept(2) reports what befell the connection, not the listener: the next one may be fine. */
bool lc__error_is_aborted_peer(int error) {
    switch (-error) {
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM:
        return true;
    default:
        return false;
    }
}

const char *lc_errno_name(int error) {
    static _Thread_local char unknown[24];
    unsigned code = error < 0 ? 0 - (unsigned)error : (unsigned)error; /* INT_MIN has no positive twin */
    const char *name = code <= INT_MAX ? strerrorname_np((int)code) : NULL;
    if (name)
        return name;
    snprintf(unknown, sizeof unknown, "errno %u", code);
    return unknown;
}
