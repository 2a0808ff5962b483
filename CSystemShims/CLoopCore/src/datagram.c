// SPDX-License-Identifier: Apache-2.0
/* datagram.c: datagrams on their way in and out: a batch that the kernel fills, a queue that it empties.
 *
 * Owns both and the two polls. Leaves to the owner when to poll, and making and naming sockets to datagram_socket.c. Its
 * one surprise: an error of the socket's own (an ICMP message) is told by the kernel to whichever call comes next, also
 * to a send that has nothing to do with it. Such a send is made once more, and the error kept for the receiver. */
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "internal.h"

/* In the queue: this, then the address if there is one, then the bytes, up to a multiple of eight. */
typedef struct lc__outgoing {
    uint32_t size; /* of all of it */
    uint32_t length;
    uint32_t address_length; /* 0: none */
    uint32_t padding;
} lc__outgoing;

struct lc_datagram {
    lc_op read;
    lc_op write;
    lc_loop *loop;
    void *object;
    lc_datagram *next_all, **link_all;
    int32_t fd;
    int32_t error; /* kept for the next take */
    sa_family_t family;
    bool drained : 1; /* the last batch was not full, so there was no more */
    bool closed : 1;
    /* The batch; one piece of memory, of which `messages` is the start. */
    struct mmsghdr *messages;
    lc_address *addresses;
    uint32_t batch_max;
    uint32_t count; /* received */
    uint32_t next;  /* of those, the first that was not taken */
    uint32_t budget;
    uint64_t budget_tick;
    /* The queue. */
    uint8_t *out;
    size_t out_capacity;
    size_t out_head;
    size_t out_tail;
    size_t unsent;
    _Atomic(uint32_t) token;
    /* The file a local socket is bound to. */
    lc_socket_file file;
};

static size_t lc__eights(size_t size) { return (size + 7) & ~(size_t)7; }

/* ---- life ---- */

static int lc__datagram_make_batch(lc_datagram *datagram, uint32_t size_max, uint32_t batch_max) {
    size_t count = batch_max;
    size_t heads = count * (sizeof(struct mmsghdr) + sizeof(lc_address) + sizeof(struct iovec));
    size_t part = lc__eights(size_max);
    if (part > (PTRDIFF_MAX - heads) / count)
        return -ENOMEM;
    /* Untouched pages cost nothing, so room for the largest datagrams is only address space until they come. */
    uint8_t *memory = malloc(heads + count * part);
    if (!memory)
        return -ENOMEM;
    memset(memory, 0, heads);
    datagram->messages = (struct mmsghdr *)memory;
    struct iovec *vectors = (struct iovec *)(datagram->messages + count);
    datagram->addresses = (lc_address *)(vectors + count);
    uint8_t *bytes = memory + heads;
    for (size_t index = 0; index < count; index++, bytes += part) {
        vectors[index] = (struct iovec){.iov_base = bytes, .iov_len = size_max};
        datagram->messages[index].msg_hdr = (struct msghdr){.msg_name = &datagram->addresses[index].storage,
                                                            .msg_namelen = sizeof datagram->addresses[index].storage,
                                                            .msg_iov = &vectors[index],
                                                            .msg_iovlen = 1};
    }
    datagram->batch_max = batch_max;
    return 0;
}

int lc_datagram_adopt(lc_loop *loop, int fd, uint32_t size_max, uint32_t batch_max, lc_datagram **out) {
    if (loop->closed)
        return -EBADF;
    int domain, result = lc__socket_take_over(fd, SOCK_DGRAM, &domain);
    if (result < 0)
        return result;
    lc__fd *entry = lc__fd_entry(loop, fd);
    if (!entry)
        return -ENOMEM;
    if (entry->owner || entry->poll_read || entry->poll_write)
        return -EBUSY;
    lc_datagram *datagram = calloc(1, sizeof *datagram);
    if (!datagram)
        return -ENOMEM;
    if (batch_max == 0)
        batch_max = LC__DATAGRAM_BATCH;
    result = lc__datagram_make_batch(datagram, size_max ? size_max : LC__DATAGRAM_SIZE,
                                     batch_max < LC__DATAGRAM_BATCH_MAX ? batch_max : LC__DATAGRAM_BATCH_MAX);
    if (result < 0) {
        free(datagram);
        return result;
    }
    datagram->loop = loop;
    datagram->fd = fd;
    datagram->family = (sa_family_t)domain;
    datagram->read = (lc_op){.fd = fd, .opcode = LC_OP_POLL_READ, .word = LC_WORD_DATAGRAM};
    datagram->write = (lc_op){.fd = fd, .opcode = LC_OP_POLL_WRITE, .word = LC_WORD_DATAGRAM};
    datagram->next_all = loop->all_datagrams;
    datagram->link_all = &loop->all_datagrams;
    if (datagram->next_all)
        datagram->next_all->link_all = &datagram->next_all;
    loop->all_datagrams = datagram;
    entry->owner = datagram;
    *out = datagram;
    return 0;
}

int lc_datagram_fd(const lc_datagram *datagram) { return datagram->fd; }
void lc_datagram_set_object(lc_datagram *datagram, void *object) { datagram->object = object; }
void *lc_datagram_object(const lc_datagram *datagram) { return datagram->object; }

void lc_datagram_keep_path(lc_datagram *datagram) {
    lc_address address;
    if (lc_address_local(datagram->fd, &address) == 0)
        lc_socket_file_note(&datagram->file, &address);
}

static void lc__datagram_close_now(lc_datagram *datagram) {
    close(datagram->fd);
    datagram->closed = true;
    datagram->count = datagram->next = 0;
    free(datagram->messages);
    datagram->messages = NULL;
    lc_datagram_drop_queue(datagram);
}

void lc_datagram_close(lc_datagram *datagram) {
    if (datagram->closed)
        return;
    lc_loop *loop = datagram->loop;
    assert(datagram->read.state == LC_STATE_IDLE && datagram->write.state == LC_STATE_IDLE);
    lc__fd_entry(loop, datagram->fd)->owner = NULL;
    if (!lc__is_proactor(loop))
        lc__selector_forget(loop, datagram->fd);
    lc_socket_file_remove(&datagram->file);
    lc__datagram_close_now(datagram);
    lc__listener_descriptor_freed(loop);
}

void lc_datagram_release(lc_datagram *datagram) {
    datagram->object = NULL;
    if (datagram->loop->closed)
        return; /* freed with the loop */
    lc_datagram_close(datagram);
    *datagram->link_all = datagram->next_all;
    if (datagram->next_all)
        datagram->next_all->link_all = datagram->link_all;
    free(datagram);
}

/* The loop is closing: the kernel holds no poll any more, or never tells of it. */
void lc__datagrams_close(lc_loop *loop) {
    for (lc_datagram *datagram = loop->all_datagrams; datagram; datagram = datagram->next_all) {
        if (datagram->closed)
            continue;
        lc_socket_file_remove(&datagram->file);
        lc__datagram_close_now(datagram);
    }
}

void lc__datagrams_free(lc_loop *loop) {
    for (lc_datagram *datagram = loop->all_datagrams, *next; datagram; datagram = next) {
        next = datagram->next_all;
        free(datagram);
    }
}

lc_datagram *lc_datagram_left_over(lc_loop *loop, lc_datagram **place) {
    do
        *place = *place ? (*place)->next_all : loop->all_datagrams;
    while (*place && !(*place)->object);
    return *place;
}

/* ---- readiness ---- */

void lc_datagram_poll(lc_datagram *datagram, bool write) {
    lc__fd *entry = lc__fd_entry(datagram->loop, datagram->fd);
    lc_op *op = write ? &datagram->write : &datagram->read;
    *(write ? &entry->poll_write : &entry->poll_read) = op; /* where the loop's close finds it */
    lc__op_submit(datagram->loop, op);
}

void lc_datagram_cancel_poll(lc_datagram *datagram, bool write) {
    lc__op_ask_cancel(datagram->loop, write ? &datagram->write : &datagram->read);
}

lc_datagram *lc_datagram_polled(lc_op *op, bool *write) {
    assert(op->word == LC_WORD_DATAGRAM);
    op->state = LC_STATE_IDLE;
    *write = op->opcode == LC_OP_POLL_WRITE;
    lc_datagram *datagram = *write ? lc__container_of(op, lc_datagram, write) : lc__container_of(op, lc_datagram, read);
    if (op->result < 0 && op->result != -ECANCELED)
        lc_datagram_note_error(datagram, op->result);
    return datagram;
}

/* ---- receiving ---- */

bool lc_datagram_has_news(const lc_datagram *datagram) {
    return datagram->next < datagram->count || datagram->error != 0;
}

void lc_datagram_note_error(lc_datagram *datagram, int error) {
    if (datagram->error == 0)
        datagram->error = error;
}

bool lc_datagram_has_error(const lc_datagram *datagram) { return datagram->error != 0; }

int lc_datagram_take_error(lc_datagram *datagram) {
    int error = datagram->error;
    datagram->error = 0;
    return error;
}

static int lc__datagram_receive(lc_datagram *datagram) {
    /* A busy peer waits its turn after some batches. */
    if (datagram->budget_tick != datagram->loop->stats.ticks) {
        datagram->budget_tick = datagram->loop->stats.ticks;
        datagram->budget = LC__READS_PER_PASS;
    }
    if (datagram->budget == 0)
        return -EAGAIN;
    datagram->budget--;
    for (uint32_t index = 0; index < datagram->count; index++)
        datagram->messages[index].msg_hdr.msg_namelen = sizeof datagram->addresses[index].storage;
    datagram->next = datagram->count = 0;
    int got;
    do
        got = recvmmsg(datagram->fd, datagram->messages, datagram->batch_max, MSG_DONTWAIT, NULL);
    while (got < 0 && errno == EINTR);
    datagram->drained = got >= 0 && got < (int)datagram->batch_max;
    if (got < 0)
        return -errno;
    datagram->count = (uint32_t)got;
    for (uint32_t index = 0; index < datagram->count; index++)
        datagram->addresses[index].length = datagram->messages[index].msg_hdr.msg_namelen;
    return got > 0 ? 0 : -EAGAIN;
}

int lc_datagram_take(lc_datagram *datagram, bool wait, lc_datagram_view *out) {
    if (datagram->closed)
        return -ESHUTDOWN;
    if (datagram->next == datagram->count) {
        if (datagram->error)
            return lc_datagram_take_error(datagram);
        if (wait && datagram->drained) {
            datagram->drained = false;
            return -EAGAIN;
        }
        int result = lc__datagram_receive(datagram);
        if (result < 0)
            return result;
    }
    uint32_t index = datagram->next++;
    const struct mmsghdr *message = &datagram->messages[index];
    *out = (lc_datagram_view){.bytes = message->msg_hdr.msg_iov->iov_base,
                              .length = message->msg_len,
                              .truncated = message->msg_hdr.msg_flags & MSG_TRUNC,
                              .address = &datagram->addresses[index]};
    return 1;
}

void lc_datagram_next_token(lc_datagram *datagram) { lc__token_next(&datagram->token); }

uint32_t lc_datagram_token(const lc_datagram *datagram) {
    return atomic_load_explicit(&datagram->token, memory_order_relaxed);
}

/* ---- sending ---- */

/* Whether a refusal may be about an earlier datagram. Local sockets have no such errors. */
static bool lc__datagram_may_be_old(const lc_datagram *datagram, bool again) {
    return !again && datagram->family != AF_UNIX;
}

/* 0: the kernel has it. */
static int lc__datagram_send_now(lc_datagram *datagram, const struct msghdr *message) {
    int old = 0;
    bool again = false;
    for (;;) {
        if (sendmsg(datagram->fd, message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
            lc_datagram_note_error(datagram, old);
            return 0;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && lc__datagram_may_be_old(datagram, again)) {
            again = true;
            old = -errno;
            continue;
        }
        int error = -errno;
        if (error != old) /* the same twice is its own */
            lc_datagram_note_error(datagram, old);
        return error;
    }
}

/* Room for so many bytes at the end of the queue. */
static int lc__datagram_reserve(lc_datagram *datagram, size_t size) {
    size_t used = datagram->out_tail - datagram->out_head;
    if (datagram->out_capacity - datagram->out_tail >= size)
        return 0;
    if (size > datagram->out_capacity - used || datagram->out_head < datagram->out_capacity / 2) {
        size_t capacity = datagram->out_capacity * 2;
        if (capacity < used + size)
            capacity = used + size;
        if (capacity < LC__DATAGRAM_QUEUE_MIN)
            capacity = LC__DATAGRAM_QUEUE_MIN;
        uint8_t *grown = malloc(capacity);
        if (!grown)
            return -ENOMEM;
        if (used)
            memcpy(grown, datagram->out + datagram->out_head, used);
        free(datagram->out);
        datagram->out = grown;
        datagram->out_capacity = capacity;
    } else {
        memmove(datagram->out, datagram->out + datagram->out_head, used);
    }
    datagram->out_head = 0;
    datagram->out_tail = used;
    return 0;
}

static int lc__datagram_queue(lc_datagram *datagram, const void *bytes, size_t length, const lc_address *address) {
    size_t address_length = address ? address->length : 0;
    size_t size = sizeof(lc__outgoing) + lc__eights(address_length) + lc__eights(length);
    int result = lc__datagram_reserve(datagram, size);
    if (result < 0)
        return result;
    uint8_t *place = datagram->out + datagram->out_tail;
    *(lc__outgoing *)place =
        (lc__outgoing){.size = (uint32_t)size, .length = (uint32_t)length, .address_length = (uint32_t)address_length};
    place += sizeof(lc__outgoing);
    if (address_length)
        memcpy(place, &address->storage, address_length);
    if (length)
        memcpy(place + lc__eights(address_length), bytes, length);
    datagram->out_tail += size;
    datagram->unsent += length + LC_DATAGRAM_OVERHEAD;
    return 1;
}

/* What can never be sent is told at once, also where others are queued before it. Of local sockets, the buffer's size
 * decides, and the kernel tells. */
static bool lc__datagram_is_too_large(const lc_datagram *datagram, size_t length) {
    switch (datagram->family) {
    case AF_INET:
        return length > 65535 - 20 - 8;
    case AF_INET6:
        return length > 65535 - 8;
    default:
        return length > INT32_MAX;
    }
}

int lc_datagram_send(lc_datagram *datagram, const void *bytes, size_t length, const lc_address *address) {
    if (datagram->closed)
        return -ESHUTDOWN;
    if (lc__datagram_is_too_large(datagram, length))
        return -EMSGSIZE;
    if (datagram->out_head == datagram->out_tail) {
        struct iovec vector = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
        struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
        if (address) {
            message.msg_name = (void *)(uintptr_t)&address->storage;
            message.msg_namelen = address->length;
        }
        int result = lc__datagram_send_now(datagram, &message);
        if (result != -EAGAIN)
            return result;
    }
    return lc__datagram_queue(datagram, bytes, length, address);
}

static void lc__datagram_pop(lc_datagram *datagram) {
    const lc__outgoing *first = (lc__outgoing *)(datagram->out + datagram->out_head);
    datagram->unsent -= first->length + LC_DATAGRAM_OVERHEAD;
    datagram->out_head += first->size;
    if (datagram->out_head == datagram->out_tail)
        datagram->out_head = datagram->out_tail = 0;
}

/* Fills messages with the first of the queue; returns how many. */
static uint32_t lc__datagram_gather(lc_datagram *datagram, struct mmsghdr *messages, struct iovec *vectors) {
    uint32_t count = 0;
    for (size_t at = datagram->out_head; at < datagram->out_tail && count < LC__DATAGRAM_BATCH; count++) {
        const lc__outgoing *outgoing = (lc__outgoing *)(datagram->out + at);
        uint8_t *place = datagram->out + at + sizeof *outgoing;
        messages[count].msg_hdr = (struct msghdr){.msg_iov = &vectors[count], .msg_iovlen = 1};
        if (outgoing->address_length) {
            messages[count].msg_hdr.msg_name = place;
            messages[count].msg_hdr.msg_namelen = outgoing->address_length;
        }
        vectors[count] =
            (struct iovec){.iov_base = place + lc__eights(outgoing->address_length), .iov_len = outgoing->length};
        at += outgoing->size;
    }
    return count;
}

int lc_datagram_flush(lc_datagram *datagram) {
    struct mmsghdr messages[LC__DATAGRAM_BATCH];
    struct iovec vectors[LC__DATAGRAM_BATCH];
    int progress = 0;
    int old = 0;
    bool again = false;
    while (datagram->out_head < datagram->out_tail) {
        uint32_t count = lc__datagram_gather(datagram, messages, vectors);
        int sent = sendmmsg(datagram->fd, messages, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN && lc__datagram_may_be_old(datagram, again)) {
            again = true;
            old = -errno;
            continue;
        }
        int error = sent < 0 ? -errno : 0;
        if (error != old)
            lc_datagram_note_error(datagram, old);
        old = 0;
        again = false;
        if (error == -EAGAIN)
            break;
        if (error < 0) {
            lc_datagram_note_error(datagram, error);
            sent = 1;
        }
        while (sent-- > 0)
            lc__datagram_pop(datagram);
        progress = 1;
    }
    if (datagram->out_head == datagram->out_tail && datagram->out_capacity > LC__DATAGRAM_QUEUE_KEPT)
        lc_datagram_drop_queue(datagram);
    return progress;
}

size_t lc_datagram_unsent(const lc_datagram *datagram) { return datagram->unsent; }

void lc_datagram_drop_queue(lc_datagram *datagram) {
    free(datagram->out);
    datagram->out = NULL;
    datagram->out_capacity = datagram->out_head = datagram->out_tail = 0;
    datagram->unsent = 0;
}
