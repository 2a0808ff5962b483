// SPDX-License-Identifier: Apache-2.0
/* kernel.c: descriptors, chance, time, and sleep.
 *
 * Each kernel has a range of descriptor numbers of its own, given out lowest first as Linux does, so that one seed
 * gives one history whatever else the process does. A kernel belongs to the thread that began it, and is single-threaded
 * but for threads that join it in turn; only the process-wide one is shared by threads that run at the same time. */
#include <assert.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "shim_internal.h"
#include "sim.h"

enum {
    KERNELS_MAX = 16,
    DESCRIPTORS_MAX = 2048,                        /* of one kernel */
    PROCESS_FIRST = KERNELS_MAX * DESCRIPTORS_MAX, /* the process-wide kernel has the rest */
    PROCESS_MAX = SIM_FD_COUNT - PROCESS_FIRST,
};
static_assert(PROCESS_MAX > DESCRIPTORS_MAX, "the process-wide kernel has the largest range");

static sim_descriptor table[SIM_FD_COUNT];
static _Atomic(sim_kernel *) kernels[KERNELS_MAX];
static _Atomic(sim_kernel *) process_kernel;
_Thread_local sim_kernel *sim_here;

/* ---- chance ---- */

/* splitmix64: one word of state, every seed is a good one. */
uint64_t sim_random(sim_kernel *kernel) {
    uint64_t z = (kernel->random += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t sim_below(sim_kernel *kernel, uint32_t bound) { return (uint32_t)(sim_random(kernel) % bound); }

/* Where a thread has a plan of faults, the plan alone says what happens to it. */
static _Thread_local unsigned depth; /* of calls that this thread is in */
static _Thread_local bool planned;

bool sim_chance(sim_kernel *kernel, uint16_t odds) {
    if (kernel->process_wide && planned)
        return false;
    return odds && sim_below(kernel, 1000) < odds;
}

bool sim_fault(sim_kernel *kernel, uint16_t odds) {
    bool happens = sim_chance(kernel, odds);
    kernel->stats.faults += happens;
    return happens;
}

size_t sim_shortened(sim_kernel *kernel, size_t length, uint16_t odds) {
    return length > 1 && sim_chance(kernel, odds) ? 1 + sim_random(kernel) % (length - 1) : length;
}

void sim_find(sim_kernel *kernel, const char *format, ...) {
    if (kernel->finding[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(kernel->finding, sizeof kernel->finding, format, arguments);
    va_end(arguments);
}

/* ---- life ---- */

static void init_lock(sim_kernel *kernel) {
    pthread_mutex_init(&kernel->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&kernel->changed, &monotonic);
}

static sim_kernel *kernel_make(const sim_config *config) {
    sim_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel)
        abort();
    init_lock(kernel);
    kernel->config = *config;
    if (!kernel->config.socket_buffer)
        kernel->config.socket_buffer = 16 * 1024;
    kernel->random = config->seed * 0xd1342543de82ef95u + 1;
    kernel->now_ns = 1000000000000u;
    kernel->next_port = kernel->port_first = 20000;
    kernel->port_last = 60000;
    return kernel;
}

void sim_begin(const sim_config *config) {
    sim_kernel *kernel = kernel_make(config);
    for (;;) {
        for (size_t slot = 0; slot < KERNELS_MAX; slot++) {
            sim_kernel *nobody = NULL;
            if (atomic_compare_exchange_strong(&kernels[slot], &nobody, kernel)) {
                sim_here = kernel;
                return;
            }
        }
        sched_yield(); /* all ranges are taken: tests that run at the same time end */
    }
}

static size_t first_index(const sim_kernel *kernel) {
    if (kernel->process_wide)
        return PROCESS_FIRST;
    size_t slot = 0;
    while (atomic_load(&kernels[slot]) != kernel)
        slot++;
    return slot * DESCRIPTORS_MAX;
}

static size_t index_count(const sim_kernel *kernel) { return kernel->process_wide ? PROCESS_MAX : DESCRIPTORS_MAX; }

int sim_end(void) {
    sim_kernel *kernel = sim_here;
    int open = (int)kernel->descriptors;
    size_t first = first_index(kernel);
    pthread_mutex_lock(&kernel->lock);
    for (size_t index = first; index < first + index_count(kernel); index++)
        if (table[index].file)
            sim_fd_close(SIM_FD_FIRST + (int)index);
    pthread_mutex_unlock(&kernel->lock);
    sim_here = NULL;
    atomic_store(&kernels[first / DESCRIPTORS_MAX], NULL);
    pthread_mutex_destroy(&kernel->lock);
    pthread_cond_destroy(&kernel->changed);
    free(kernel);
    return open;
}

/* A child has this kernel as it was, and it alone: nobody else is inside. */
static void fork_begins(void) { pthread_mutex_lock(&atomic_load(&process_kernel)->lock); }
static void fork_ends(void) { pthread_mutex_unlock(&atomic_load(&process_kernel)->lock); }
static void child_begins(void) { init_lock(atomic_load(&process_kernel)); }

void sim_begin_process(const sim_config *config) {
    sim_kernel *kernel = kernel_make(config);
    kernel->process_wide = true;
    if (!atomic_exchange(&process_kernel, kernel))
        pthread_atfork(fork_begins, fork_ends, child_begins);
}

void sim_renew_process(void) {
    sim_kernel *before = atomic_load(&process_kernel);
    if (!before)
        return;
    memset(table + PROCESS_FIRST, 0, PROCESS_MAX * sizeof *table);
    sim_begin_process(&before->config);
}

bool sim_is_process_wide(void) { return atomic_load_explicit(&process_kernel, memory_order_relaxed) != NULL; }
void sim_set_odds(const sim_odds *odds) { sim_here->config.odds = *odds; }
sim_kernel *sim_current(void) { return sim_here ? sim_here : atomic_load(&process_kernel); }
void sim_join(sim_kernel *kernel) { sim_here = kernel; }
void sim_leave(void) { sim_here = NULL; }
const char *sim_finding(void) { return sim_here->finding[0] ? sim_here->finding : NULL; }
void sim_advance(uint64_t ns) { sim_here->now_ns += ns; }
uint32_t sim_open_descriptors(void) { return sim_current()->descriptors; }
sim_stats sim_get_stats(void) { return sim_here->stats; }

/* ---- entering ---- */

static sim_kernel *kernel_of(int fd) {
    if (!sim_owns(fd))
        return sim_current();
    size_t index = (size_t)(fd - SIM_FD_FIRST);
    if (index >= SIM_FD_COUNT)
        return sim_current();
    return atomic_load(index < PROCESS_FIRST ? &kernels[index / DESCRIPTORS_MAX] : &process_kernel);
}

sim_kernel *sim_enter_call(int fd) {
    sim_kernel *kernel = kernel_of(fd);
    if (!kernel) { /* a number of a kernel that has ended */
        errno = EBADF;
        return NULL;
    }
    /* What goes on in a kernel is not a call of the thread's plan. */
    if (depth++ == 0) {
        planned = shim_this.armed;
        shim_this.armed = false;
    }
    pthread_mutex_lock(&kernel->lock);
    kernel->stats.calls++;
    return kernel;
}

void sim_leave_call(sim_kernel *kernel) {
    pthread_mutex_unlock(&kernel->lock);
    if (--depth == 0) {
        shim_this.armed = planned;
        planned = false;
    }
}

ssize_t sim_answer(sim_kernel *kernel, ssize_t result) {
    sim_leave_call(kernel);
    if (result >= 0)
        return result;
    errno = (int)-result;
    return -1;
}

/* ---- descriptors ---- */

/* Never used again, unlike the C library's. */
static uint64_t this_thread(void) {
    static _Atomic uint64_t last;
    static _Thread_local uint64_t mine;
    if (!mine)
        mine = atomic_fetch_add(&last, 1) + 1;
    return mine;
}

void sim_file_init(sim_kernel *kernel, sim_file *file, sim_kind kind, bool nonblocking) {
    file->kernel = kernel;
    file->kind = kind;
    file->nonblocking = nonblocking;
    file->references = 1;
    file->link = &kernel->files;
    file->next = kernel->files;
    if (file->next)
        file->next->link = &file->next;
    kernel->files = file;
}

void sim_file_hold(sim_file *file) { file->references++; }

static bool in_epoll_only(const sim_file *file) { return file->kind != SIM_EPOLL && file->kind != SIM_RING; }

void sim_file_release(sim_file *file) {
    if (--file->references > 0)
        return;
    if (in_epoll_only(file))
        for (sim_file *other = file->kernel->files; other; other = other->next)
            if (other->kind == SIM_EPOLL)
                sim_epoll_forget(other, file);
    *file->link = file->next;
    if (file->next)
        file->next->link = file->link;
    switch (file->kind) {
    case SIM_SOCKET:
        sim_socket_released((sim_socket *)file);
        break;
    case SIM_EPOLL:
        sim_epoll_released(file);
        break;
    case SIM_RING:
        sim_ring_released(file);
        break;
    default:
        sim_special_released(file);
        break;
    }
}

static int free_from(sim_kernel *kernel, int lowest) {
    size_t first = first_index(kernel), end = first + index_count(kernel);
    size_t from = sim_owns(lowest) ? (size_t)(lowest - SIM_FD_FIRST) : first + (size_t)lowest;
    struct rlimit limit;
    if (kernel->process_wide && getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < end - first)
        end = first + limit.rlim_cur;
    for (size_t index = from < first ? first : from; index < end; index++)
        if (!table[index].file)
            return SIM_FD_FIRST + (int)index;
    return -EMFILE;
}

int sim_fd_free(sim_kernel *kernel) { return free_from(kernel, 0); }

int sim_fd_open_from(sim_kernel *kernel, int lowest, sim_file *file, bool close_on_exec) {
    int fd = free_from(kernel, lowest);
    if (fd < 0) {
        sim_file_release(file);
        return fd;
    }
    table[fd - SIM_FD_FIRST] = (sim_descriptor){.file = file, .close_on_exec = close_on_exec, .opener = this_thread()};
    kernel->descriptors++;
    return fd;
}

int sim_fd_open(sim_kernel *kernel, sim_file *file, bool close_on_exec) {
    return sim_fd_open_from(kernel, 0, file, close_on_exec);
}

sim_file *sim_fd_file(int fd) {
    size_t index = (size_t)(fd - SIM_FD_FIRST);
    return sim_owns(fd) && index < SIM_FD_COUNT ? table[index].file : NULL;
}

int sim_fd_close(int fd) {
    sim_file *file = sim_fd_file(fd);
    if (!file)
        return -EBADF;
    table[fd - SIM_FD_FIRST].file = NULL;
    file->kernel->descriptors--;
    sim_file_release(file);
    return 0;
}

uint32_t sim_file_poll(sim_file *file) {
    switch (file->kind) {
    case SIM_SOCKET:
        return sim_socket_poll((sim_socket *)file);
    case SIM_EPOLL:
        return sim_epoll_poll(file);
    case SIM_RING:
        return 0;
    default:
        return sim_special_poll(file);
    }
}

void sim_file_changed(sim_file *file) {
    file->changed = ++file->kernel->changes;
    for (sim_request *request = file->requests; request;)
        request = sim_request_wake(request);
    if (file->kernel->process_wide)
        pthread_cond_broadcast(&file->kernel->changed);
}

/* ---- time ---- */

static uint64_t real_now(void) {
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Looking at the clock takes time too. */
uint64_t sim_now(sim_kernel *kernel) {
    if (kernel->process_wide)
        return real_now();
    return kernel->frozen ? kernel->now_ns : (kernel->now_ns += 1 + sim_below(kernel, 100));
}

void sim_progress(sim_kernel *kernel) {
    for (sim_file *file = kernel->files; file; file = file->next) {
        if (file->kind == SIM_TIMERFD && sim_timer_fire(file))
            sim_file_changed(file);
        else if (file->kind == SIM_SOCKET && sim_socket_progress((sim_socket *)file))
            sim_file_changed(file);
    }
}

/* Timers, and connects that give up. */
static uint64_t next_timer(const sim_kernel *kernel) {
    uint64_t next_ns = SIM_NEVER_NS;
    for (sim_file *file = kernel->files; file; file = file->next) {
        uint64_t at_ns = SIM_NEVER_NS;
        if (file->kind == SIM_TIMERFD)
            at_ns = sim_timer_next(file);
        else if (file->kind == SIM_SOCKET && ((sim_socket *)file)->state == SIM_CONNECTING &&
                 ((sim_socket *)file)->give_up_ns)
            at_ns = ((sim_socket *)file)->give_up_ns;
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    return next_ns;
}

static bool any_connecting(const sim_kernel *kernel) {
    for (sim_file *file = kernel->files; file; file = file->next)
        if (file->kind == SIM_SOCKET && sim_socket_can_connect((sim_socket *)file))
            return true;
    return false;
}

static bool sleep_for_real(sim_kernel *kernel, uint64_t deadline_ns) {
    uint64_t next_ns = next_timer(kernel);
    uint64_t until_ns = next_ns < deadline_ns ? next_ns : deadline_ns;
    /* Connects take their time: look again soon. */
    if (any_connecting(kernel) && until_ns > real_now() + 1000000u)
        until_ns = real_now() + 1000000u;
    if (until_ns == SIM_NEVER_NS) {
        pthread_cond_wait(&kernel->changed, &kernel->lock);
    } else {
        struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
        pthread_cond_timedwait(&kernel->changed, &kernel->lock, &until);
    }
    return real_now() < deadline_ns;
}

bool sim_sleep(sim_kernel *kernel, uint64_t deadline_ns) {
    kernel->stats.sleeps++;
    if (kernel->process_wide)
        return sleep_for_real(kernel, deadline_ns);
    if (any_connecting(kernel))
        return true;
    uint64_t next_ns = next_timer(kernel);
    uint64_t until_ns = next_ns < deadline_ns ? next_ns : deadline_ns;
    /* Whether the outside is faster than the next deadline is a matter of chance. */
    bool is_long = until_ns > kernel->now_ns + 1000; /* else what the loop sleeps for may be due already */
    if (kernel->config.idle && is_long && (until_ns == SIM_NEVER_NS || sim_chance(kernel, 600))) {
        kernel->frozen = true; /* or the outside could see a deadline pass that the loop sleeps for */
        pthread_mutex_unlock(&kernel->lock);
        bool acted = kernel->config.idle(kernel->config.context);
        pthread_mutex_lock(&kernel->lock);
        kernel->frozen = false;
        if (acted)
            return true;
    }
    if (until_ns == SIM_NEVER_NS) {
        sim_find(kernel, "the loop is asleep for good: no event, no deadline, and nobody outside who would act");
        return false;
    }
    if (kernel->now_ns < until_ns)
        kernel->now_ns = until_ns + sim_below(kernel, 50000); /* waking up takes a while */
    return next_ns < deadline_ns;
}

/* ---- the whole process ---- */

static bool is_of_kind(const sim_file *file, const char *kind) {
    static const char *const names[] = {[SIM_SOCKET] = "socket:",
                                        [SIM_PIPE] = "pipe:",
                                        [SIM_EVENTFD] = "anon_inode:[eventfd]",
                                        [SIM_TIMERFD] = "anon_inode:[timerfd]",
                                        [SIM_EPOLL] = "anon_inode:[eventpoll]",
                                        [SIM_RING] = "anon_inode:[io_uring]"};
    return strncmp(names[file->kind], kind, strlen(kind)) == 0;
}

/* opener: 0 means anybody. */
static unsigned count_descriptors(const char *kind, uint64_t opener, int *highest) {
    sim_kernel *kernel = atomic_load(&process_kernel);
    unsigned count = 0;
    if (!kernel)
        return 0;
    pthread_mutex_lock(&kernel->lock);
    for (int index = PROCESS_FIRST; index < SIM_FD_COUNT; index++) {
        const sim_descriptor *descriptor = &table[index];
        if (!descriptor->file || !is_of_kind(descriptor->file, kind) || (opener && descriptor->opener != opener))
            continue;
        count++;
        if (highest)
            *highest = SIM_FD_FIRST + index;
    }
    pthread_mutex_unlock(&kernel->lock);
    return count;
}

unsigned sim_process_descriptors(const char *kind, int *highest) { return count_descriptors(kind, 0, highest); }

unsigned sim_thread_descriptors(const char *kind, int *highest) {
    return count_descriptors(kind, this_thread(), highest);
}

void sim_limit_ports(uint16_t first, uint16_t last) {
    sim_kernel *kernel = sim_current();
    kernel->next_port = kernel->port_first = first;
    kernel->port_last = last;
}

int sim_process_number(int number) { return sim_is_process_wide() ? SIM_FD_FIRST + PROCESS_FIRST + number : number; }

/* LOOP_KERNEL=simulated puts a test process on the simulated kernel before anything in it runs; LOOP_SEED is its seed.
 * It does there what no test can object to: it gives up sends and multishots early, meets cancels late, takes few
 * submissions at a time. Reads stay whole and in order, since suites say "these bytes, in this order". */
__attribute__((constructor)) static void begin_process_if_asked(void) {
    const char *kernel = getenv("LOOP_KERNEL"), *seed = getenv("LOOP_SEED");
    if (!kernel || strcmp(kernel, "simulated") != 0)
        return;
    sim_config config = {.seed = seed ? strtoull(seed, NULL, 0) : 1, .socket_buffer = 256 * 1024};
    config.odds =
        (sim_odds){.short_write = 100, .interrupted = 50, .multishot_ends = 50, .cancel_late = 200, .short_submit = 50};
    sim_begin_process(&config);
}
