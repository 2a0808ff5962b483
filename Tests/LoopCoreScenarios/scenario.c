// SPDX-License-Identifier: Apache-2.0
/* scenario.c: the frame around each scenario: a thread of its own, a loop, a time limit, and zero at the end. */
#include <dirent.h>
#include <stdarg.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <linux/close_range.h>
#include "scenario.h"
#include "simulator.h"

/* Far beyond what any scenario takes, on the slowest machine and under the slowest sanitizer. */
enum { SCENARIO_LIMIT_S = 60, SCENARIO_LONG_LIMIT_S = 300, SCENARIO_GRACE_S = 30, SCENARIO_FD_LIMIT_MS = 10000 };

/* ---- expectations ---- */

static pthread_mutex_t fail_lock = PTHREAD_MUTEX_INITIALIZER;

int scenario_fail(scenario *s, const char *file, int line, const char *format, ...) {
    const char *base = strrchr(file, '/');
    pthread_mutex_lock(&fail_lock);
    if (!s->failed && s->failure_size > 0) {
        int used = snprintf(s->failure, s->failure_size, "%s:%d: ", base ? base + 1 : file, line);
        va_list arguments;
        va_start(arguments, format);
        if (used > 0 && (size_t)used < s->failure_size)
            vsnprintf(s->failure + used, s->failure_size - (size_t)used, format, arguments);
        va_end(arguments);
    }
    s->failed = true;
    pthread_mutex_unlock(&fail_lock);
    return -1;
}

bool scenario_long(void) {
    const char *wanted = getenv("LOOP_LONG");
    return wanted && strcmp(wanted, "1") == 0;
}

static unsigned scenario_limit_s(void) { return scenario_long() ? SCENARIO_LONG_LIMIT_S : SCENARIO_LIMIT_S; }

bool scenario_late(const scenario *s) { return lc_now_ns() > s->deadline_ns; }

/* ---- the loop ---- */

lc_options scenario_options(uint32_t backend, bool tiny) {
    lc_options options = {.backend = backend};
    if (tiny) {
        options.buffer_count = 1;
        options.buffer_size = 64;
        options.reap_batch_max = 1;
        options.accept_batch_max = 1;
        options.submission_count = 2;
        options.completion_count = 4;
    }
    return options;
}

bool scenario_is_proactor(const scenario *s) { return s->backend == LC_BACKEND_PROACTOR; }

static int scenario_open(scenario *s) {
    lc_loop *loop;
    CHECK_EQ(lc_loop_create(&s->options, &loop), 0);
    pthread_mutex_lock(&s->lock);
    s->loop = loop;
    pthread_mutex_unlock(&s->lock);
    CHECK_EQ(lc_loop_enter(loop), 0);
    return 0;
}

lc_stats scenario_stats(const scenario *s) {
    lc_stats stats;
    lc_loop_stats(s->loop, &stats);
    return stats;
}

int scenario_check_zero(scenario *s) {
    lc_stats now = scenario_stats(s);
    CHECK_EQ(now.queued, 0);
    CHECK_EQ(now.in_kernel, 0);
    CHECK_EQ(now.armed, 0);
    CHECK_EQ(now.leased, 0);
    CHECK_EQ(now.timers, 0);
    CHECK_EQ(now.streams, 0);
    return 0;
}

void scenario_forget_loop(scenario *s) {
    pthread_mutex_lock(&s->lock);
    s->loop = NULL;
    pthread_mutex_unlock(&s->lock);
}

int scenario_finish(scenario *s) {
    if (!s->loop)
        return 0;
    lc_loop *loop = s->loop;
    /* What was let go of still has completions to come. */
    for (;;) {
        lc_stats now = scenario_stats(s);
        if ((!now.queued && !now.in_kernel && !now.armed && !now.streams) || scenario_late(s))
            break;
        TRY(scenario_pass(s, false));
    }
    lc_loop_verify(loop);
    TRY(scenario_check_zero(s));
    lc_loop_leave(loop);
    CHECK_EQ(lc_loop_close(loop), 0);
    CHECK(lc_loop_is_closed(loop));
    CHECK(lc_loop_drop_next(loop) == NULL);
    lc_loop_verify(loop);
    TRY(scenario_check_zero(s));
    scenario_forget_loop(s);
    lc_loop_free(loop);
    return 0;
}

int scenario_reopen(scenario *s) {
    TRY(scenario_finish(s));
    return scenario_open(s);
}

/* After a failure: best effort, so that the next scenario starts in order. */
static void scenario_abandon(scenario *s) {
    lc_loop *loop = s->loop;
    if (!loop)
        return;
    if (lc_loop_current() == loop)
        lc_loop_leave(loop);
    if (lc_loop_is_running(loop))
        return; /* a helper still runs it: leaking it is the lesser evil */
    scenario_forget_loop(s);
    lc_loop_free(loop);
}

int scenario_fd_count(void) {
    DIR *directory = opendir("/proc/thread-self/fd");
    if (!directory)
        return -1;
    int count = -1; /* the directory's own */
    for (struct dirent *entry; (entry = readdir(directory));)
        count += entry->d_name[0] != '.';
    closedir(directory);
    return count + (int)sim_thread_descriptors("", NULL);
}

int scenario_eventfd(const scenario *s) {
    int found = -1;
    if (sim_is_process_wide())
        return sim_thread_descriptors("anon_inode:[eventfd]", &found) == 1 ? found : -1;
    for (int fd = 3; s->isolated && fd < 64; fd++) {
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        if (strcmp(target, "anon_inode:[eventfd]") != 0)
            continue;
        if (found >= 0)
            return -1;
        found = fd;
    }
    return found;
}

/* The kernel takes a ring apart in its own time, and with it the files its operations held. */
static int scenario_check_fds(scenario *s) {
    uint64_t until_ns = lc_now_ns() + (uint64_t)SCENARIO_FD_LIMIT_MS * 1000000u;
    while (scenario_fd_count() != s->fd_count && lc_now_ns() < until_ns)
        sched_yield();
    CHECK_EQ(scenario_fd_count(), s->fd_count);
    return 0;
}

static int scenario_play(scenario *s) {
    s->fd_count = scenario_fd_count();
    CHECK_GE(s->fd_count, 0);
    TRY(scenario_open(s));
    TRY(s->body(s));
    TRY(scenario_finish(s));
    return s->isolated ? scenario_check_fds(s) : 0;
}

/* A descriptor table of this thread's own, with the standard streams in it: whatever else the process does meanwhile,
 * counts come out exact, and no other socket is kept open here. Threads made from here share it. ThreadSanitizer
 * tracks descriptors by number for the whole process, so there it stays one table, and nothing is counted. */
static bool scenario_isolate(void) {
    return !SCENARIO_TSAN && syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_UNSHARE) == 0;
}

static void *scenario_thread(void *argument) {
    scenario *s = argument;
    if (scenario_play(s) < 0 || s->failed)
        scenario_abandon(s);
    return NULL;
}

static bool scenario_join(pthread_t thread, unsigned seconds) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    return pthread_timedjoin_np(thread, NULL, &until) == 0;
}

static void scenario_init(scenario *s, scenario_body body, uint32_t backend, bool tiny, char *failure, size_t size) {
    *s = (scenario){.backend = backend, .tiny = tiny, .body = body, .failure = failure, .failure_size = size};
    s->options = scenario_options(backend, tiny);
    s->deadline_ns = lc_now_ns() + (uint64_t)scenario_limit_s() * 1000000000u;
    pthread_mutex_init(&s->lock, NULL);
    if (size > 0)
        failure[0] = '\0';
}

/* Shares the scenario's descriptor table, as whoever wakes its loop must. */
static void *scenario_watchdog(void *argument) {
    scenario *s = argument;
    s->isolated = scenario_isolate();
    pthread_t thread;
    int error = pthread_create(&thread, NULL, scenario_thread, s);
    if (error) {
        scenario_fail(s, __FILE__, __LINE__, "no thread for the scenario: %s", strerror(error));
    } else if (!scenario_join(thread, scenario_limit_s())) {
        /* Asleep for good? A stop wakes it, and its next look at the clock fails the scenario. */
        pthread_mutex_lock(&s->lock);
        if (s->loop)
            lc_loop_stop(s->loop);
        pthread_mutex_unlock(&s->lock);
        if (!scenario_join(thread, SCENARIO_GRACE_S)) {
            fprintf(stderr, "loop-core scenario \"%s\" (backend %u, %s) hangs\n", s->name, s->backend,
                    s->tiny ? "tiny" : "ordinary");
            abort();
        }
    }
    return NULL;
}

int scenario_run(scenario_body body, const char *name, uint32_t backend, bool tiny, char *failure, size_t size) {
    scenario s;
    scenario_init(&s, body, backend, tiny, failure, size);
    s.name = name;
    pthread_t watchdog;
    int error = pthread_create(&watchdog, NULL, scenario_watchdog, &s);
    if (error)
        scenario_fail(&s, __FILE__, __LINE__, "no thread for the scenario: %s", strerror(error));
    else
        pthread_join(watchdog, NULL);
    pthread_mutex_destroy(&s.lock);
    return s.failed ? -1 : 0;
}

/* ---- a child process ---- */

/* The compiler's, where coverage is measured: writes the counters, which _exit would not. */
extern int __llvm_profile_write_file(void) __attribute__((weak));

_Noreturn void scenario_child_ends(int status) {
    if (__llvm_profile_write_file)
        __llvm_profile_write_file();
    _exit(status);
}

static void child_play(const scenario *parent, scenario_body body, int report) {
    enum { REPORT = 3 };
    char failure[512];
    /* No descriptors but its own, and none above a gap: some scenarios count what is left below the limit. */
    if (report != REPORT && dup2(report, REPORT) < 0)
        _exit(3);
    if (syscall(SYS_close_range, REPORT + 1u, ~0u, 0) < 0)
        _exit(4);
    report = REPORT;
    sim_renew_process();
    scenario s;
    scenario_init(&s, body, parent->backend, parent->tiny, failure, sizeof failure);
    s.name = parent->name;
    s.isolated = true;
    if (scenario_play(&s) < 0 || s.failed) {
        ssize_t written = write(report, failure, strlen(failure));
        scenario_child_ends(written < 0 ? 2 : 1);
    }
    scenario_child_ends(0);
}

int scenario_in_child(scenario *s, scenario_body body) {
    int report[2];
    CHECK_CALL(syscall(SYS_pipe2, report, 0)); /* of the real kernel, even on a simulated one */
    pid_t child = fork();
    CHECK_CALL(child);
    if (child == 0)
        child_play(s, body, report[1]);
    close(report[1]);
    char text[512];
    size_t length = 0;
    for (;;) {
        struct pollfd wait = {.fd = report[0], .events = POLLIN};
        if (poll(&wait, 1, (int)(scenario_limit_s() + SCENARIO_GRACE_S / 2) * 1000) <= 0) {
            kill(child, SIGKILL);
            break;
        }
        ssize_t got = read(report[0], text + length, sizeof text - 1 - length);
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    text[length] = '\0';
    close(report[0]);
    int status;
    CHECK_CALL(waitpid(child, &status, 0));
    if (!WIFEXITED(status))
        return scenario_fail(s, __FILE__, __LINE__, "the child died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return scenario_fail(s, __FILE__, __LINE__, "in the child: %s", text);
    return 0;
}

/* ---- passes ---- */

static int on_call(scenario *s, lc_node *node) {
    const lc_call *call = (const lc_call *)(const void *)((char *)node - offsetof(lc_call, node));
    CHECK(s->on.call != NULL);
    return s->on.call(s, (lc_kind)node->kind, call->word);
}

static int on_send(scenario *s, lc_stream *stream) {
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    CHECK(e != NULL);
    e->last_waiter = lc_stream_send_waiter(stream);
    CHECK_NE(e->last_waiter, 0);
    e->sends++;
    e->sends_cancelled += lc_stream_take_send_cancelled(stream);
    return 0;
}

static int on_closed(scenario *s, lc_stream *stream) {
    endpoint *e = (endpoint *)(uintptr_t)lc_stream_word(stream);
    CHECK(e != NULL);
    CHECK(lc_stream_is_closed(stream));
    e->last_waiter = lc_stream_closed_waiter(stream);
    CHECK_NE(e->last_waiter, 0);
    e->closes++;
    return 0;
}

int scenario_deliver(scenario *s, lc_node *node) {
    lc_stream *stream = lc_node_stream(node);
    switch ((lc_kind)node->kind) {
    case LC_KIND_CALL:
    case LC_KIND_SLEEP:
        return on_call(s, node);
    case LC_KIND_POST:
        CHECK(s->on.post != NULL);
        return s->on.post(s, (lc_post *)(void *)((char *)node - offsetof(lc_post, node)));
    case LC_KIND_JOB_TASK:
    case LC_KIND_JOB_SERIAL:
        CHECK(s->on.job != NULL);
        return s->on.job(s, (lc_job *)(void *)((char *)node - offsetof(lc_job, node)), (lc_kind)node->kind);
    case LC_KIND_OP:
        CHECK(s->on.op != NULL);
        return s->on.op(s, (lc_op *)(void *)node);
    case LC_KIND_RECEIVE:
        return s->on.receive ? s->on.receive(s, stream) : endpoint_received(s, stream);
    case LC_KIND_SEND:
        return s->on.send ? s->on.send(s, stream) : on_send(s, stream);
    case LC_KIND_CLOSED:
        return s->on.closed ? s->on.closed(s, stream) : on_closed(s, stream);
    case LC_KIND_ACCEPT:
        CHECK(s->on.accept != NULL);
        return s->on.accept(s, lc_node_listener(node));
    default:
        return scenario_fail(s, __FILE__, __LINE__, "an internal entry was handed out, kind %d", (int)node->kind);
    }
}

int scenario_pass(scenario *s, bool wait) {
    s->passes++;
    CHECK_GE(lc_loop_tick(s->loop, wait), 0);
    lc_node *node;
    while ((node = lc_loop_next(s->loop)))
        TRY(scenario_deliver(s, node));
    if (!s->verify_never)
        lc_loop_verify(s->loop);
    if (scenario_late(s))
        return scenario_fail(s, __FILE__, __LINE__, "time ran out");
    return 0;
}

int scenario_settle(scenario *s) {
    for (int pass = 0; pass < 16; pass++)
        TRY(scenario_pass(s, false));
    return 0;
}

/* ---- threads ---- */

static void *helper_main(void *argument) {
    helper *h = argument;
    h->result = h->play(h->s, h->context);
    return NULL;
}

int helper_start(scenario *s, helper *h, int (*play)(scenario *s, void *context), void *context) {
    *h = (helper){.s = s, .play = play, .context = context};
    CHECK_EQ(pthread_create(&h->thread, NULL, helper_main, h), 0);
    return 0;
}

int helper_join(scenario *s, helper *h) {
    CHECK_EQ(pthread_join(h->thread, NULL), 0);
    return h->result;
}
