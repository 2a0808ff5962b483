// SPDX-License-Identifier: Apache-2.0
/* pattern.h: the bytes all connections send.
 *
 * A stream repeats PATTERN_PERIOD bytes; the period is prime, so no message size is a multiple of it and a chunk
 * that is lost, doubled or overtaken shows as a mismatch. The table holds one period and then the longest piece
 * anyone sends or compares, so every piece is contiguous. */
#ifndef LOAD_PATTERN_H
#define LOAD_PATTERN_H

#include <stddef.h>
#include <stdint.h>

#define PATTERN_PERIOD  4093u
#define PIECE_BYTES_MAX (64u * 1024u)

/* Fills the table. Call before the first run; again is harmless. */
void pattern_prepare(void);

/* At least PIECE_BYTES_MAX bytes of the stream from `position` on. */
const unsigned char *pattern_at(uint64_t position);

#endif
