// SPDX-License-Identifier: Apache-2.0
/* faults_shim_setup.c: loops, rings and sockets that cannot be made, or only with less than was asked for. */
#include <fcntl.h>
#include "scenario.h"
#include "shim.h"

/* A loop that could not be made gives the errno and leaves no descriptor. */
static int refused(scenario *s, const lc_options *options, const shim_fault *fault, int expected) {
    lc_loop *loop = NULL;
    int before = scenario_fd_count();
    shim_arm(fault, 1);
    int result = lc_loop_create(options, &loop);
    shim_disarm();
    if (result == 0)
        lc_loop_free(loop);
    CHECK_EQ(result, expected);
    CHECK_GE(shim_faults_played(), 1);
    CHECK(loop == NULL);
    if (s->isolated)
        CHECK_EQ(scenario_fd_count(), before);
    return 0;
}

/* Byte for byte, and to the end, on the loop at hand. */
static int echo_works(scenario *s, size_t size) {
    static _Thread_local uint8_t bytes[40000];
    endpoint e = {.echo = true, .seed = size};
    bool end = false;
    TRY(endpoint_open(s, &e, true));
    CHECK_EQ(lc_stream_start_receiving(e.stream), 0);
    pattern_fill(bytes, size, size, 0);
    TRY(peer_send(s, &e, bytes, size));
    PUMP_UNTIL(peer_receive_some(s, &e, size, size, &end), e.peer_received == size);
    CHECK_CALL(shutdown(e.peer, SHUT_WR));
    RUN_UNTIL(e.ends == 1);
    CHECK_EQ(e.errors, 0);
    TRY(endpoint_close(s, &e));
    return scenario_settle(s);
}

/* Leaves and frees the scenario's loop, and makes another one under these faults; it is entered by the caller. */
static int remake(scenario *s, const shim_fault *faults, size_t count) {
    TRY(scenario_finish(s));
    lc_loop *loop = NULL;
    shim_arm(faults, count);
    int result = lc_loop_create(&s->options, &loop);
    shim_disarm();
    CHECK_EQ(result, 0);
    pthread_mutex_lock(&s->lock);
    s->loop = loop;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

/* ---- F41 ---- */

int a_ring_is_refused(scenario *s) {
    static const struct {
        int error;
        const char *name;
    } refusals[] = {{EPERM, "EPERM"}, {ENOSYS, "ENOSYS"}, {ENOMEM, "ENOMEM"}, {EMFILE, "EMFILE"}, {EINVAL, "EINVAL"}};
    if (!scenario_is_proactor(s))
        return 0;
    for (size_t index = 0; index < sizeof refusals / sizeof *refusals; index++) {
        int error = refusals[index].error;
        shim_fault fault = {.call = SHIM_RING_SETUP, .count = SHIM_FOR_EVER, .error = error};
        TRY(refused(s, &s->options, &fault, -error));
        /* Asked again only where asking for less may help: features one by one, or a smaller ring. */
        uint32_t tries = error == EINVAL ? 5 : error == ENOMEM && !s->tiny ? 4 : 1;
        CHECK_EQ(shim_calls(SHIM_RING_SETUP), tries);
        lc_probe probe;
        shim_arm(&fault, 1);
        lc_probe_run(&probe);
        shim_disarm();
        CHECK_EQ(probe.proactor_error, -error);
        CHECK_EQ(probe.proactor_features, 0);
        CHECK(strstr(probe.proactor_cause, refusals[index].name) != NULL);
        CHECK_GT(strlen(probe.proactor_advice), 0);
        CHECK(strcmp(probe.selector_name, "epoll") == 0); /* the other backend is not touched by it */
    }
    return 0;
}

int a_ring_is_had_at_a_second_try(scenario *s) {
    if (!scenario_is_proactor(s))
        return 0;
    uint32_t all = lc_loop_features(s->loop), before = ~0u;
    for (uint32_t count = 1; count <= 4; count++) {
        shim_fault fault = {.call = SHIM_RING_SETUP, .count = count, .error = EINVAL};
        TRY(remake(s, &fault, 1));
        CHECK_EQ(shim_faults_played(), count);
        CHECK_EQ(lc_loop_enter(s->loop), 0);
        uint32_t features = lc_loop_features(s->loop);
        CHECK_LT(features, before); /* one less with each refusal */
        CHECK_EQ(features & ~all, 0);
        before = features;
        TRY(echo_works(s, 30000));
    }
    for (uint32_t count = 1; count <= 3 && !s->tiny; count++) {
        shim_fault fault = {.call = SHIM_RING_SETUP, .count = count, .error = ENOMEM};
        TRY(remake(s, &fault, 1));
        CHECK_EQ(shim_faults_played(), count);
        CHECK_EQ(lc_loop_enter(s->loop), 0);
        CHECK_EQ(lc_loop_features(s->loop), all);
        TRY(echo_works(s, 30000));
    }
    return 0;
}

/* A loop that moves to another thread needs a new ring. Without one it cannot run, and what it had is gone; it must not
 * be given back a second time, for its number may be somebody else's by now. */

static int run_there(scenario *s, void *context) {
    lc_loop *loop = context;
    CHECK_EQ(lc_loop_enter(loop), 0);
    CHECK_GE(lc_loop_tick(loop, false), 0);
    while (lc_loop_next(loop))
        continue;
    lc_loop_leave(loop);
    return 0;
}

int a_moved_loop_gets_no_ring(scenario *s) {
    enum { OTHERS = 8 };
    if (!scenario_is_proactor(s))
        return 0;
    for (int again = 0; again <= 1; again++) {
        lc_loop *loop;
        helper there;
        int others[OTHERS];
        lc_loop_leave(s->loop);
        CHECK_EQ(lc_loop_create(&s->options, &loop), 0);
        TRY(helper_start(s, &there, run_there, loop));
        TRY(helper_join(s, &there));
        /* What the wake's poll holds in the first thread's ring ends with that thread. */
        shim_fault fault = {.call = SHIM_RING_SETUP, .count = SHIM_FOR_EVER, .error = EMFILE};
        shim_arm(&fault, 1);
        int result = lc_loop_enter(loop), second = lc_loop_enter(loop);
        shim_disarm();
        CHECK_EQ(result, -EMFILE);
        CHECK_EQ(second, -EMFILE);
        /* One of these has the number the ring had. */
        for (int index = 0; index < OTHERS; index++) {
            others[index] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
            CHECK_CALL(others[index]);
        }
        if (again) { /* and it may well be had later */
            CHECK_EQ(lc_loop_enter(loop), 0);
            CHECK_GE(lc_loop_tick(loop, false), 0);
            while (lc_loop_next(loop))
                continue;
            lc_loop_leave(loop);
        }
        CHECK_EQ(lc_loop_close(loop), 0);
        lc_loop_free(loop);
        for (int index = 0; index < OTHERS; index++)
            CHECK_CALL(close(others[index]));
        CHECK_EQ(lc_loop_enter(s->loop), 0);
    }
    return 0;
}

/* ---- F42 ---- */

int a_ring_is_not_registered(scenario *s) {
    static const int errors[] = {EPERM, EINVAL};
    if (!scenario_is_proactor(s))
        return 0;
    for (size_t index = 0; index < 2; index++) {
        /* The first call enables the ring, the second one registers it. */
        shim_fault faults[] = {{.call = SHIM_RING_REGISTER, .nth = 2, .error = errors[index]},
                               {.call = SHIM_RING_BUFFERS, .error = errors[index]}};
        for (int which = 1; which <= 3; which++) {
            TRY(remake(s, NULL, 0));
            uint32_t wanted = lc_loop_features(s->loop);
            shim_arm(which == 2 ? &faults[1] : faults, which == 3 ? 2 : 1);
            int result = lc_loop_enter(s->loop);
            shim_disarm();
            CHECK_EQ(result, 0);
            CHECK_EQ(shim_faults_played(), which == 3 ? 2 : 1);
            uint32_t lost = wanted & ~lc_loop_features(s->loop);
            CHECK_EQ(lost, (which & 1 ? LC_FEATURE_REGISTERED_RING : 0) | (which & 2 ? LC_FEATURE_BUFFER_RING : 0));
            TRY(echo_works(s, 40000));
        }
    }
    /* Nor is there memory for the ring of buffers. */
    TRY(remake(s, NULL, 0));
    shim_fault fault = {.call = SHIM_MMAP, .error = ENOMEM};
    shim_arm(&fault, 1);
    int result = lc_loop_enter(s->loop);
    shim_disarm();
    CHECK_EQ(result, 0);
    CHECK_EQ(shim_faults_played(), 1);
    CHECK_EQ(lc_loop_features(s->loop) & LC_FEATURE_BUFFER_RING, 0);
    return echo_works(s, 40000);
}

int a_ring_is_not_enabled(scenario *s) {
    static const int errors[] = {EPERM, EINVAL, EBADFD};
    if (!scenario_is_proactor(s))
        return 0;
    for (size_t index = 0; index < 3; index++) {
        TRY(remake(s, NULL, 0));
        shim_fault fault = {.call = SHIM_RING_REGISTER, .error = errors[index]};
        shim_arm(&fault, 1);
        int result = lc_loop_enter(s->loop);
        shim_disarm();
        CHECK_EQ(result, -errors[index]);
        CHECK(lc_loop_current() == NULL);
        CHECK(!lc_loop_is_running(s->loop));
        if (index == 1) { /* given up */
            lc_loop *loop = s->loop;
            scenario_forget_loop(s);
            CHECK_EQ(lc_loop_close(loop), 0);
            lc_loop_free(loop);
            TRY(remake(s, NULL, 0));
        }
        CHECK_EQ(lc_loop_enter(s->loop), 0); /* tried again */
        TRY(echo_works(s, 20000));
    }
    return 0;
}

/* ---- F74 ---- */

int a_loop_lacks_a_part(scenario *s) {
    static const shim_fault always[] = {{.call = SHIM_EVENTFD, .error = EMFILE},
                                        {.call = SHIM_EVENTFD, .error = ENFILE},
                                        {.call = SHIM_EVENTFD, .error = ENOMEM},
                                        {.call = SHIM_MMAP, .error = ENOMEM}};
    static const shim_fault selector[] = {
        {.call = SHIM_TIMERFD_CREATE, .error = EMFILE},     {.call = SHIM_TIMERFD_CREATE, .error = ENOMEM},
        {.call = SHIM_EPOLL_CREATE, .error = EMFILE},       {.call = SHIM_EPOLL_CREATE, .error = ENFILE},
        {.call = SHIM_EPOLL_CREATE, .error = ENOMEM},       {.call = SHIM_EPOLL_CTL, .nth = 1, .error = ENOMEM},
        {.call = SHIM_EPOLL_CTL, .nth = 2, .error = ENOMEM}};
    static const shim_fault proactor[] = {{.call = SHIM_RING_SETUP, .count = SHIM_FOR_EVER, .error = ENOMEM},
                                          {.call = SHIM_RING_SETUP, .error = ENFILE}};
    for (size_t index = 0; index < sizeof always / sizeof *always; index++)
        TRY(refused(s, &s->options, &always[index], -always[index].error));
    if (scenario_is_proactor(s)) {
        for (size_t index = 0; index < sizeof proactor / sizeof *proactor; index++)
            TRY(refused(s, &s->options, &proactor[index], -proactor[index].error));
        return 0;
    }
    lc_options options = s->options;
    for (uint32_t choice = LC_SELECTOR_BEST; choice <= LC_SELECTOR_EPOLL; choice++) {
        options.selector = choice;
        for (size_t index = 0; index < sizeof selector / sizeof *selector; index++)
            TRY(refused(s, &options, &selector[index], -selector[index].error));
    }
    return 0;
}

/* Where there is no epoll at all, the next best is taken, unless epoll was asked for. */
int there_is_no_epoll(scenario *s) {
    if (scenario_is_proactor(s))
        return 0;
    shim_fault fault = {.call = SHIM_EPOLL_CREATE, .count = SHIM_FOR_EVER, .error = ENOSYS};
    lc_options options = s->options;
    options.selector = LC_SELECTOR_EPOLL;
    TRY(refused(s, &options, &fault, -ENOSYS));
    TRY(remake(s, &fault, 1));
    CHECK(strcmp(lc_loop_backend_name(s->loop), "poll") == 0);
    CHECK_EQ(lc_loop_enter(s->loop), 0);
    return echo_works(s, 40000);
}

/* ---- F57 ---- */

int listening_is_refused(scenario *s) {
    static const shim_fault faults[] = {{.call = SHIM_SOCKET, .error = EMFILE},
                                        {.call = SHIM_SOCKET, .error = EAFNOSUPPORT},
                                        {.call = SHIM_SETSOCKOPT, .nth = 1, .error = ENOMEM},
                                        {.call = SHIM_SETSOCKOPT, .nth = 2, .error = ENOPROTOOPT},
                                        {.call = SHIM_SETSOCKOPT, .nth = 3, .error = ENOBUFS},
                                        {.call = SHIM_BIND, .error = EADDRINUSE},
                                        {.call = SHIM_BIND, .error = EADDRNOTAVAIL},
                                        {.call = SHIM_BIND, .error = EACCES},
                                        {.call = SHIM_LISTEN, .error = EADDRINUSE}};
    int before = scenario_fd_count();
    lc_address wanted;
    CHECK_EQ(lc_address_parse("127.9.0.2", 0, &wanted), 0);
    for (size_t index = 0; index < sizeof faults / sizeof *faults; index++) {
        int fd = -77;
        shim_arm(&faults[index], 1);
        int result = lc_socket_listen(&wanted, 8, true, &fd);
        shim_disarm();
        CHECK_EQ(result, -faults[index].error);
        CHECK_EQ(shim_faults_played(), 1);
        CHECK_EQ(fd, -77);
        if (s->isolated)
            CHECK_EQ(scenario_fd_count(), before);
    }
    return 0;
}

/* A descriptor that could not be adopted is still the caller's, and can be adopted later. */
int adopting_fails_half_way(scenario *s) {
    static const shim_fault faults[] = {{.call = SHIM_GETSOCKOPT, .nth = 1, .error = ENOBUFS},
                                        {.call = SHIM_GETSOCKOPT, .nth = 2, .error = EFAULT},
                                        {.call = SHIM_FCNTL, .nth = 1, .error = EBADF},
                                        {.call = SHIM_FCNTL, .nth = 2, .error = EPERM},
                                        {.call = SHIM_FCNTL, .nth = 3, .error = EINVAL}};
    for (size_t index = 0; index < sizeof faults / sizeof *faults; index++) {
        int fds[2], listening;
        lc_address address;
        lc_stream *stream = NULL;
        lc_listener *listener = NULL;
        TRY(pair_unix(s, fds));
        shim_arm(&faults[index], 1);
        int result = lc_stream_adopt(s->loop, fds[0], &stream);
        shim_disarm();
        CHECK_EQ(result, -faults[index].error);
        CHECK_EQ(shim_faults_played(), 1);
        CHECK(stream == NULL);
        CHECK_EQ(scenario_stats(s).streams, 0);
        endpoint e = {0};
        TRY(endpoint_adopt(s, &e, fds));
        TRY(endpoint_close(s, &e));
        TRY(scenario_settle(s));

        if (index == 1)
            continue; /* a listener is asked about once only */
        TRY(listen_anywhere(s, 8, &listening, &address));
        shim_arm(&faults[index], 1);
        result = lc_listener_adopt(s->loop, listening, &listener);
        shim_disarm();
        CHECK_EQ(result, -faults[index].error);
        CHECK(listener == NULL);
        CHECK_EQ(lc_listener_adopt(s->loop, listening, &listener), 0);
        lc_listener_release(listener);
        TRY(scenario_settle(s));
    }
    return 0;
}

int connecting_cannot_begin(scenario *s) {
    int listening, before = scenario_fd_count();
    lc_address address;
    TRY(listen_anywhere(s, 8, &listening, &address));
    static const shim_fault faults[] = {{.call = SHIM_SOCKET, .error = EMFILE}, {.call = SHIM_SOCKET, .error = EACCES}};
    for (size_t index = 0; index < 2; index++) {
        lc_stream *stream = NULL;
        shim_arm(&faults[index], 1);
        int result = lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &stream);
        shim_disarm();
        CHECK_EQ(result, -faults[index].error);
        CHECK(stream == NULL);
        CHECK_EQ(scenario_stats(s).streams, 0);
    }
    /* An option that is only for speed may be refused. */
    endpoint e = {.peer = -1};
    shim_fault fault = {.call = SHIM_SETSOCKOPT, .error = ENOPROTOOPT};
    shim_arm(&fault, 1);
    int result = lc_stream_connect(s->loop, (struct sockaddr *)&address.storage, address.length, &e.stream);
    shim_disarm();
    CHECK_EQ(result, 0);
    CHECK_EQ(shim_faults_played(), 1);
    lc_stream_set_word(e.stream, (uint64_t)(uintptr_t)&e);
    CHECK_EQ(lc_stream_send_copy(e.stream, "x", 1), 0);
    CHECK_EQ(lc_stream_wait_send(e.stream, 1, 0), 0);
    RUN_UNTIL(e.sends == 1);
    CHECK_EQ(lc_stream_connect_result(e.stream), 0);
    CHECK_EQ(lc_stream_send_error(e.stream), 0);
    TRY(endpoint_close(s, &e));
    TRY(scenario_settle(s));
    CHECK_CALL(close(listening));
    if (s->isolated)
        CHECK_EQ(scenario_fd_count(), before);
    return 0;
}
