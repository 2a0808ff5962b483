// SPDX-License-Identifier: Apache-2.0
/* random.h: SplitMix64: one word of state, and any seed will do. A generator may also have choices that were made for
 * it, a string of bytes: it draws from those first, as few for a draw as it needs, so that changing one byte changes one
 * choice; and from its state once they are used up. */
#ifndef MODEL_RANDOM_H
#define MODEL_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct model_choices {
    const uint8_t *next;
    size_t left;
} model_choices;

typedef struct model_random {
    uint64_t state;
    model_choices *choices; /* NULL: none; else shared by all generators of a run */
} model_random;

static inline uint64_t model_random_next(model_random *random) {
    uint64_t value = (random->state += 0x9e3779b97f4a7c15u);
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

/* A generator for part `part` of what `seed` decides; a part's draws do not move those of another. */
static inline model_random model_random_part(uint64_t seed, uint64_t part) {
    model_random random = {.state = seed};
    random.state = model_random_next(&random) ^ part * 0xd1342543de82ef95u;
    model_random_next(&random);
    return random;
}

/* 0 ..< limit; 0 for a limit of 0. */
static inline uint64_t model_random_below(model_random *random, uint64_t limit) {
    if (limit == 0)
        return 0;
    if (!random->choices || random->choices->left == 0)
        return model_random_next(random) % limit;
    uint64_t value = 0;
    for (uint64_t rest = limit - 1; rest > 0 && random->choices->left > 0; rest >>= 8, random->choices->left--)
        value = value << 8 | *random->choices->next++;
    return value % limit;
}

/* low ... high, every order of magnitude about as often as the next. */
static inline uint64_t model_random_size(model_random *random, uint64_t low, uint64_t high) {
    unsigned bits = 0;
    while (bits < 63 && high >> bits)
        bits++;
    uint64_t top = (uint64_t)1 << model_random_below(random, bits + 1u);
    uint64_t value = model_random_below(random, top) + 1;
    return value < low ? low : value > high ? high : value;
}

#endif
