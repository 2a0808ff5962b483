// SPDX-License-Identifier: Apache-2.0
/* fuzz_address.c: any bytes as the text of an address, as an address, and as an errno.
 *
 * Every buffer is as large as it is said to be and not a byte larger, so that AddressSanitizer sees who goes beyond. */
#include <errno.h>
#include <limits.h>
#include "fuzz.h"
#include "loop_core.h"

enum { TEXT_MIN = 64, REPEATS = 500 };

static void *exactly(size_t size) {
    void *memory = malloc(size);
    if (!memory)
        abort();
    memset(memory, 0x55, size);
    return memory;
}

/* ---- addresses ---- */

/* With room for `size` bytes the text is there with its end, or there is an error. */
static int format_into(const lc_address *address, const char *whole, int port, size_t size, fuzz_outcome *outcome) {
    char *text = exactly(size);
    int result = lc_address_format(address, text, size);
    bool same = size > strlen(whole) && memcmp(text, whole, strlen(whole) + 1) == 0;
    free(text);
    if (size > strlen(whole))
        FUZZ_RULE(result == port && same, "%zu bytes for %s: %d, not %d", size, whole, result, port);
    else
        FUZZ_RULE(result == -ENOSPC, "%zu bytes for %s: %d", size, whole, result);
    return 0;
}

static int format(const lc_address *address, fuzz_outcome *outcome) {
    char *whole = exactly(TEXT_MIN);
    int port = lc_address_format(address, whole, TEXT_MIN), result = 0;
    int family = address->storage.ss_family;
    fuzz_digest(outcome, &port, sizeof port);
    if (family != AF_INET && family != AF_INET6)
        result = port == -EAFNOSUPPORT ? 0 : fuzz_fail(outcome, "formatting family %d said %d", family, port);
    else if (port < 0 || port > UINT16_MAX)
        result = fuzz_fail(outcome, "formatting an address said %d", port);
    else
        for (size_t size = 0; size < TEXT_MIN && result == 0; size++)
            result = format_into(address, whole, port, size, outcome);
    free(whole);
    return result;
}

/* What was read as an address can be written, and read again as the same. */
static int round_trip(const char *host, uint16_t port, const lc_address *address, fuzz_outcome *outcome) {
    size_t span = strspn(host, "0123456789abcdefABCDEF:.%");
    FUZZ_RULE(host[span] == '\0' && span <= 56, "text with byte %u at %zu is an address", (uint8_t)host[span], span);
    char text[TEXT_MIN];
    int written = lc_address_format(address, text, sizeof text);
    FUZZ_RULE(written == port, "port %u comes back as %d", port, written);
    lc_address again;
    FUZZ_RULE(lc_address_parse(text, port, &again) == 0, "%s comes back as %s, which is no address", host, text);
    FUZZ_RULE(memcmp(address, &again, sizeof again) == 0, "%s comes back as %s, another address", host, text);
    return format(address, outcome);
}

/* As Swift hands it over: a text ends at its first zero byte, whatever lies behind that. */
static int parse(const uint8_t *bytes, size_t count, size_t repeats, uint16_t port, fuzz_outcome *outcome) {
    char *host = exactly(count * repeats + 1);
    for (size_t repeat = 0; repeat < repeats && count > 0; repeat++)
        memcpy(host + repeat * count, bytes, count);
    host[count * repeats] = '\0';
    lc_address address;
    int parsed = lc_address_parse(host, port, &address), result = 0;
    fuzz_digest(outcome, &parsed, sizeof parsed);
    if (parsed == 0)
        result = round_trip(host, port, &address, outcome);
    else if (parsed != -EINVAL)
        result = fuzz_fail(outcome, "reading an address said %d", parsed);
    free(host);
    return result;
}

/* ---- errors ---- */

static bool ends(const char *text, size_t size) { return memchr(text, '\0', size) != NULL; }

static int name(int error, fuzz_outcome *outcome) {
    char first[64];
    snprintf(first, sizeof first, "%s", lc_errno_name(error));
    FUZZ_RULE(first[0] && strlen(first) < 24, "errno %d is called %s", error, first);
    if (error != INT_MIN)
        FUZZ_RULE(strcmp(first, lc_errno_name(-error)) == 0, "errno %d is called %s, and negated %s", error, first,
                  lc_errno_name(-error));
    char *cause = exactly(LC_PROBE_TEXT), *advice = exactly(LC_PROBE_TEXT);
    lc_probe_explain(error, cause, advice);
    bool whole = ends(cause, LC_PROBE_TEXT) && ends(advice, LC_PROBE_TEXT);
    bool said = whole && (error == 0) == (cause[0] == '\0') && (error == 0) == (advice[0] == '\0');
    free(cause);
    free(advice);
    FUZZ_RULE(said, "errno %d is not explained", error);
    return 0;
}

int fuzz_address(const uint8_t *bytes, size_t count, fuzz_outcome *outcome) {
    *outcome = (fuzz_outcome){0};
    fuzz_input input = {bytes, count};
    uint32_t word = fuzz_take_word(&input);
    int error;
    memcpy(&error, &word, sizeof error);
    if (name(error, outcome) != 0)
        return -1;
    if (parse(input.next, input.left, 1, (uint16_t)word, outcome) != 0 ||
        parse(input.next, input.left, word >> 24 == 0xff ? REPEATS : 2, (uint16_t)word, outcome) != 0)
        return -1;
    lc_address address;
    fuzz_take(&input, &address, sizeof address);
    return format(&address, outcome);
}
