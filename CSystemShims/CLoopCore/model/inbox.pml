// SPDX-License-Identifier: Apache-2.0
/* inbox.pml: the wake-up protocol of src/inbox.c, and the life of what it lives in, for the model checker SPIN.
 *
 * Four threads: a poster, a thread that gives back leases or enqueues jobs, one that stops the loop or does not, and
 * the loop itself, which runs, sleeps, and, once stopped, closes. SPIN visits every order of their steps. Each block
 * names the C function it mirrors; a change there wants the same change here. `make model` runs all of it.
 *
 * SPIN's own memory is sequentially consistent, so each thread has a store buffer: what the C stores with less than
 * seq_cst enters it and reaches memory at any later time, first in, first out. A seq_cst store and a seq_cst
 * read-modify-write wait until their thread's buffer is empty. The exchange of the take is acquire only, and does not.
 * As the C stands only the loop's clearing of `asleep` is such a store; the mutations add others.
 *
 * What is checked: an accepted message is run once and a refused one never; one thread's messages run in its order; a
 * sleep costs one write; nothing touches the shared memory or the eventfd once they are gone, and in the end they are
 * gone; nobody waits for ever, least of all the loop while a message or a stop is outstanding (an invalid end state).
 *
 * -DPROACTOR models the eventfd as io_uring's multishot poll sees it, an event per write; otherwise it is readable for
 * as long as it holds a count, as epoll sees it. Each other switch takes one part of the protocol away; `make model`
 * fails unless SPIN finds what goes wrong without it. */

#define MESSAGES 4   /* 1 and 2 from the poster, 3 and 4 from the other */
#define NONE 0       /* NULL */
#define CLOSED 5     /* LC__INBOX_CLOSED */
#define POISON 6     /* in a node whose link was not written yet */
#ifndef FULL
#define FULL 1       /* the eventfd holds no more; the kernel's limit is 2^64 - 2, but whoever reads takes all */
#endif
#ifdef NO_HEADROOM
#define OPEN 1
#else
#define OPEN 8       /* LC__REFERENCES_OPEN: more than leases can ever be */
#endif

/* struct lc_shared */
byte inbox = NONE;
bit asleep = 0;
bit stop = 0;
short references = OPEN;
bool freed = false;    /* the memory, by lc__shared_free() */
bool fd_open = true;   /* the eventfd, closed with it */
byte counter = 0;      /* the eventfd's */
#ifdef PROACTOR
bit event = 0; /* a completion of the poll on the eventfd waits in the ring */
#endif
byte next[6] = POISON; /* lc_node.next, by message */

/* The loop object: whoever posts or stops keeps it alive, and so does a job that has not run. The last one frees it. */
byte owners = 4;
bool is_job[5] = false; /* one of 3 and 4 is a job, the other one a lease */
byte leased = 1;        /* lc_shared.leased: the loop's own count */

/* What the checks need to know, and no thread of the C could. */
bit accepted[5] = 0;
byte ran[5] = 0;
bit announced = 0; /* a sleep nobody has woken yet */
bool idle = false; /* it ended in a sleep nobody has a reason to end */
byte finished = 0;

/* ---- store buffers ---- */

#define POSTER 0
#define OTHER 1
#define STOPPER 2
#define LOOP 3
#define BUFFERED 2
#define AT_ASLEEP 10
#define AT_STOP 11 /* and a message's number: its link */

typedef store_buffer {
    byte count;
    byte where[BUFFERED];
    byte what[BUFFERED]
};
store_buffer buffer[4];

#define drained(thread) (buffer[thread].count == 0)

inline store_relaxed(thread, place, value) {
    atomic {
        buffer[thread].count < BUFFERED;
        buffer[thread].where[buffer[thread].count] = place;
        buffer[thread].what[buffer[thread].count] = value;
        buffer[thread].count++
    }
}

/* One store reaches memory, whenever it likes. */
inline write_back(thread) {
    d_step {
        buffer[thread].count > 0;
        if
        :: buffer[thread].where[0] == AT_ASLEEP ->
            assert(!freed);
            asleep = buffer[thread].what[0];
            if
            :: asleep -> announced = 1
            :: else
            fi
        :: buffer[thread].where[0] == AT_STOP ->
            assert(!freed);
            stop = buffer[thread].what[0]
        :: else ->
            next[buffer[thread].where[0]] = buffer[thread].what[0]
        fi;
        buffer[thread].where[0] = buffer[thread].where[1];
        buffer[thread].what[0] = buffer[thread].what[1];
        buffer[thread].where[1] = 0;
        buffer[thread].what[1] = 0;
        buffer[thread].count--
    }
}

active proctype memory() {
end:
    do
    :: write_back(POSTER)
    :: write_back(OTHER)
    :: write_back(STOPPER)
    :: write_back(LOOP)
    od
}

/* ---- buffers.c: references ---- */

/* lc__shared_add(), and lc__shared_free() when it was the last. */
inline shared_add(thread, change) {
    atomic {
        drained(thread);
        assert(!freed);
        references = references + (change);
        if
        :: references == 0 ->
            freed = true;
            fd_open = false
        :: else
        fi
    }
}

/* The owner lets go of the loop; the last one calls lc_loop_free(), which calls lc__shared_unref(). */
inline loop_unowned(thread) {
    atomic {
        owners--;
        if
        :: owners == 0 -> shared_add(thread, -1)
        :: else
        fi
    }
}

/* ---- inbox.c: any thread ---- */

/* write(2) to the eventfd. EAGAIN when it is full: nothing changes. */
inline eventfd_write() {
    d_step {
        assert(fd_open);
        if
        :: counter < FULL ->
            counter++
#ifdef PROACTOR
            ; event = 1
#endif
        :: else
        fi
    }
}

/* lc__inbox_wake() behind its first look, whose answer is in `seen`. */
inline inbox_wake_if_seen(thread) {
    if
    :: seen ->
        atomic {
            drained(thread);
            assert(!freed);
#ifndef NO_EXCHANGE
            seen = asleep;
#endif
            asleep = 0;
            if
            :: seen ->
                assert(announced); /* one write per sleep */
                announced = 0
            :: else
            fi
        }
        if
        :: seen -> eventfd_write()
        :: else
        fi
    :: else
    fi;
    seen = 0
}

/* lc__inbox_wake() */
inline inbox_wake(thread) {
    atomic { assert(!freed); seen = asleep }
    inbox_wake_if_seen(thread)
}

/* lc__inbox_push(); `refused` is its answer. An exchange that fails loads the head again, so what was loaded before the
 * one that succeeds makes no difference: load, link and exchange are one step. */
inline inbox_push(thread, message) {
#ifdef NO_PRODUCER_FENCE
    /* With less than seq_cst the look behind the exchange may be answered before it is done. */
    atomic { assert(!freed); seen = asleep }
#endif
#ifdef PUSH_IN_TWO_STEPS
    atomic { assert(!freed); head = inbox }
#endif
    atomic {
#ifdef PUSH_RELAXED
        store_relaxed(thread, message, inbox); /* the link is still on its way when the node is there */
#else
        drained(thread);
#endif
        assert(!freed);
        if
        :: inbox == CLOSED ->
            refused = true
        :: else ->
#ifdef PUSH_IN_TWO_STEPS
            next[message] = head;
            head = NONE;
#else
#ifndef PUSH_RELAXED
            next[message] = inbox;
#endif
#endif
            inbox = message;
            accepted[message] = 1
        fi
    }
    if
    :: refused -> seen = 0
    :: else ->
#ifdef NO_PRODUCER_FENCE
        inbox_wake_if_seen(thread)
#else
        inbox_wake(thread)
#endif
    fi
}

/* ---- the threads that are not the loop ---- */

/* lc_loop_post(), twice. A refused post is the caller's. */
active proctype poster() {
    byte head;
    bit seen;
    bool refused;
    inbox_push(POSTER, 1);
    inbox_push(POSTER, 2);
    atomic {
#ifndef POSTER_OWNS_NOTHING
        loop_unowned(POSTER);
#endif
        finished++
    }
}

/* lc_buffer_return() of a lease, or lc_loop_enqueue_job() of a job, both elsewhere than on the loop's thread. The lease
 * keeps the memory, the job keeps the loop, until the push is seen: from then on only the reference taken here does. */
inline give_away(message) {
    if
    :: is_job[message] ->
#ifndef NO_JOB_REFERENCE
        shared_add(OTHER, 1);
#endif
        inbox_push(OTHER, message);
#ifndef NO_JOB_REFERENCE
        shared_add(OTHER, -1);
#endif
        if
        :: refused -> loop_unowned(OTHER) /* it runs elsewhere, and is over */
        :: else
        fi
    :: else ->
#ifndef NO_LEASE_REFERENCE
        shared_add(OTHER, 1);
#endif
        inbox_push(OTHER, message);
        if
        :: refused -> shared_add(OTHER, -1) /* the lease's own, since the loop closed */
        :: else
        fi;
#ifndef NO_LEASE_REFERENCE
        shared_add(OTHER, -1)
#endif
    fi;
    refused = false
}

proctype other() {
    byte head;
    bit seen;
    bool refused;
    give_away(3);
    give_away(4);
    finished++
}

/* lc_loop_stop(), or never. */
active proctype stopper() {
    bit seen;
    if
    :: true ->
#ifdef NO_STOP_FENCE
        store_relaxed(STOPPER, AT_STOP, 1);
#else
        atomic { drained(STOPPER); assert(!freed); stop = 1 }
#endif
        inbox_wake(STOPPER)
    :: true
    fi;
    atomic { loop_unowned(STOPPER); finished++ }
}

/* ---- the loop's thread ---- */

/* Everything of the list at `head`, which nobody else reaches any more: lc__inbox_reversed(), then what
 * lc_loop_drain_inbox() or lc_loop_close() does with each node. */
inline run_list() {
    d_step {
        reversed = NONE;
        do
        :: head != NONE ->
            assert(head <= MESSAGES && next[head] != POISON);
            following = next[head];
#ifdef NO_REVERSAL
            if
            :: reversed == NONE -> reversed = head
            :: else
            fi;
#else
            next[head] = reversed;
            reversed = head;
#endif
            head = following
        :: else -> break
        od;
        head = reversed;
        do
        :: head != NONE ->
            assert(ran[head] == 0);
            assert((head != 2 || ran[1]) && (head != 4 || ran[3]));
            ran[head]++;
            if
            :: head < 3
            :: head >= 3 && is_job[head] -> owners--
            :: else -> leased--
            fi;
            following = next[head];
            next[head] = POISON;
            head = following
        :: else -> break
        od;
        reversed = NONE;
        following = NONE
    }
}

/* lc__inbox_take() and lc_loop_drain_inbox(). The first look is relaxed: unless this pass has seen the list already, it
 * may find it as empty as it was. */
inline drain_inbox() {
    atomic {
        assert(!freed);
        if
        :: head = inbox
        :: !must_see -> head = NONE
        fi
    }
    if
    :: head != NONE && head != CLOSED ->
#ifdef TAKE_IN_TWO_STEPS
        head = inbox;
        atomic { assert(!freed); inbox = NONE; run_list() }
#else
        atomic { assert(!freed); head = inbox; inbox = NONE; run_list() }
#endif
    :: else -> head = NONE
    fi
}

/* lc__inbox_before_sleep(): `may_sleep` is its answer. */
inline inbox_before_sleep() {
#ifdef NO_CONSUMER_FENCE
    store_relaxed(LOOP, AT_ASLEEP, 1);
#else
    atomic { drained(LOOP); assert(!freed); asleep = 1; announced = 1 }
#endif
#ifndef NO_SECOND_LOOK
    atomic { assert(!freed); must_see = (inbox != NONE); may_sleep = !must_see }
#else
    may_sleep = true;
#endif
#ifndef NO_STOP_LOOK
    if
    :: may_sleep -> atomic { assert(!freed); may_sleep = !stop }
    :: else
    fi;
#endif
    if
    :: !may_sleep -> store_relaxed(LOOP, AT_ASLEEP, 0)
    :: else
    fi
}

/* lc__inbox_clear_wake(): read(2) from the eventfd. EAGAIN when it is empty: nothing changes. */
inline inbox_clear_wake() {
    d_step {
        assert(fd_open);
        counter = 0
    }
}

#ifdef PROACTOR
#define WOKEN (event)
#else
#define WOKEN (counter > 0)
#endif

#define outstanding(message) (accepted[message] && !ran[message])
/* Everybody else has finished and asked for nothing that has not happened: the loop may sleep for ever. */
#define nothing_to_do (finished == 3 && drained(POSTER) && drained(OTHER) && drained(STOPPER) && !stop \
    && !outstanding(1) && !outstanding(2) && !outstanding(3) && !outstanding(4))

proctype loop() {
    byte head, reversed, following;
    bool must_see, may_sleep, fired;
    bool timer = true; /* something else may end one sleep */

    /* lc_loop_tick(), and lc_loop_take_stop() after each */
pass:
    /* Phase 2, lc__phase_wait(): not while something is ready; its look at stop is relaxed, so it may be missed. */
    if
    :: inbox_before_sleep()
    :: may_sleep = false
    fi;
#ifdef CLEAR_AFTER_LOOK
    inbox_clear_wake();
#endif
    /* Phase 3, lc__phase_enter(), and lc__inbox_after_sleep() */
    atomic {
        if
        :: !may_sleep
        :: may_sleep && WOKEN
        :: may_sleep && timer -> timer = false
        :: may_sleep && nothing_to_do -> idle = true; goto over
        fi;
        may_sleep = false;
        fired = WOKEN;
        store_relaxed(LOOP, AT_ASLEEP, 0)
    }
    /* Phase 4 */
    drain_inbox();
    /* Phase 5, lc__selector_reap() and lc__proactor_reap() */
    atomic {
        must_see = false;
#ifdef PROACTOR
        fired = event;
        event = 0;
#endif
        if
        :: fired -> fired = false
        :: else -> goto passed
        fi
    }
    inbox_clear_wake();
passed:
    atomic {
        drained(LOOP);
        assert(!freed);
        if
        :: stop -> stop = 0
        :: else -> goto pass
        fi
    }

    /* lc_loop_close() */
    drain_inbox();
#ifdef CLOSE_WITHOUT_MARK
    atomic { drained(LOOP); assert(!freed); head = inbox; inbox = NONE; run_list() }
#else
#ifdef CLOSE_IN_TWO_STEPS
    head = inbox;
    atomic { drained(LOOP); assert(!freed); inbox = CLOSED; run_list() }
#else
    atomic { drained(LOOP); assert(!freed); head = inbox; inbox = CLOSED; run_list() } /* lc__inbox_close() */
#endif
#endif
    timer = false;
#ifdef FD_CLOSED_BY_CLOSE
    fd_open = false;
#endif
    shared_add(LOOP, leased + 1 - OPEN); /* lc__shared_detach() */
    loop_unowned(LOOP);
over:
    finished++
}

/* ---- the beginning and the end ---- */

init {
    byte message;
    atomic {
        if
        :: is_job[3] = true
        :: is_job[4] = true
        fi;
#ifdef POSTER_OWNS_NOTHING
        owners--;
#endif
        run other();
        run loop()
    }
    atomic {
        finished == 4;
        message = 1;
        do
        :: message <= MESSAGES ->
            assert(ran[message] == accepted[message]);
            message++
        :: else -> break
        od;
        assert(idle == !freed && fd_open == !freed)
    }
}
