// SPDX-License-Identifier: Apache-2.0
/* queue.h: a first-in first-out list of nodes. Header-only, allocation-free. */
#ifndef LC_QUEUE_H
#define LC_QUEUE_H

#include "lc_op.h"

typedef struct lc__queue {
    lc_node *head;
    lc_node *tail;
    size_t count;
} lc__queue;

static inline void lc__queue_push(lc__queue *queue, lc_node *node) {
    node->next = NULL;
    if (queue->tail)
        queue->tail->next = node;
    else
        queue->head = node;
    queue->tail = node;
    queue->count++;
}

static inline void lc__queue_push_first(lc__queue *queue, lc_node *node) {
    node->next = queue->head;
    queue->head = node;
    if (!queue->tail)
        queue->tail = node;
    queue->count++;
}

static inline lc_node *lc__queue_pop(lc__queue *queue) {
    lc_node *node = queue->head;
    if (!node)
        return NULL;
    queue->head = node->next;
    if (!queue->head)
        queue->tail = NULL;
    queue->count--;
    node->next = NULL;
    return node;
}

/* Moves everything from `from` behind what `to` holds. */
static inline void lc__queue_append(lc__queue *to, lc__queue *from) {
    if (!from->head)
        return;
    if (to->tail)
        to->tail->next = from->head;
    else
        to->head = from->head;
    to->tail = from->tail;
    to->count += from->count;
    *from = (lc__queue){0};
}

#endif
