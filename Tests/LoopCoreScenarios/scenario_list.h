// SPDX-License-Identifier: Apache-2.0
/* scenario_list.h: every scenario, by file: SCENARIO(function, name). F, T and Z numbers are rows of the feature list.
 * SCENARIO_REAL(function, name, reason): one that a simulated kernel cannot play. */

/* calls_and_timers.c */
SCENARIO(calls_run_in_order, "T1 calls run once, in the order they were queued")
SCENARIO(earlier_calls_then_io_then_timers, "T2 earlier calls, then I/O, then timers")
SCENARIO(what_a_pass_adds_runs_in_the_next, "T3 what a pass adds runs in the next")
SCENARIO(a_cancelled_call_is_skipped, "T4 T10 a cancelled call is skipped, and cancelled once")
SCENARIO(a_nearer_timer_shortens_the_sleep, "T5 a nearer timer shortens the sleep of one armed before it")
SCENARIO(deadlines_at_the_edges, "T6 T7 F32 deadlines long past, at zero, and at the end of time")
SCENARIO(timers_are_never_early, "T8 a thousand timers below a millisecond, none early")
SCENARIO(equal_deadlines_fire_in_the_order_set, "T9 equal deadlines fire in the order they were set")
SCENARIO(timers_in_a_batch_may_cancel_each_other, "T10 a due timer may cancel the next one")
SCENARIO(very_many_timers_half_cancelled, "T11 F31 very many timers, half of them cancelled, in exact order")
SCENARIO(calls_without_end_starve_nobody, "Z10 calls without end starve neither I/O nor timers")

/* faults_time.c */
SCENARIO(the_wall_clock_jumps_by_a_day, "F29 a wall clock that jumps by a day moves no timer")
SCENARIO(a_stopped_process_goes_on, "F30 a process that is stopped for a while fires each timer once, in order")
SCENARIO(far_deadlines_one_by_one, "F32 far deadlines, one by one: neither fire, nor spin, nor hold others up")
SCENARIO(a_handler_slower_than_its_timer, "F33 a handler that takes ten times its timer's period holds up no I/O")
SCENARIO(half_a_millisecond_a_thousand_times, "F34 half a millisecond, a thousand times: never early")
SCENARIO(an_idle_loop_sleeps, "F84 an idle loop sleeps")

/* inbox.c */
SCENARIO(posts_from_four_threads, "T12 posts from four threads, each once, each thread's in order")
SCENARIO(no_wake_is_lost, "T12 a post that meets a loop about to sleep wakes it")
SCENARIO(posts_to_an_awake_loop_write_nothing, "T12 posts to an awake loop write nothing")
SCENARIO(posts_that_race_with_close, "T12 posts that race with close are seen once or refused")
SCENARIO(a_closed_loop_refuses, "T12 a closed loop refuses everything")
SCENARIO(close_hands_out_what_did_not_run, "close hands out what did not run, in order")
SCENARIO(stop_from_another_thread, "stop from another thread ends a sleep")
SCENARIO(jobs_keep_their_order_and_the_woken_one_is_set_aside, "jobs keep their order, and the woken one is set aside")

/* stress_inbox.c */
SCENARIO(posts_from_eight_threads, "F35 posts from eight threads, each once and in order, with sleeps in between")
SCENARIO(posts_past_the_close_from_eight_threads, "F37 posts from eight threads during and after close")
SCENARIO(leases_past_the_close_from_eight_threads, "F37 leases come back from eight threads during and after close")
SCENARIO(the_last_job_ends_its_loop, "F37 the last job ends its loop while its enqueuer wakes it")
SCENARIO(a_post_to_itself_runs_in_the_next_pass, "F38 a post of an idle loop to itself runs in the next pass")
SCENARIO(posts_without_end_starve_nobody, "F39 posts to itself without end starve neither I/O nor timers")

/* streams.c */
SCENARIO(echo_tcp, "echo of 1 byte to 1 MiB over TCP")
SCENARIO(echo_unix, "echo of 1 byte to 1 MiB over a Unix socket")
SCENARIO(echo_without_each_feature, "Z9 Z14 echo without each optional feature, and on each selector")
SCENARIO(many_small_sends_stay_in_order, "many small sends stay in order")
SCENARIO(many_buffers_leave_in_order, "more buffers than one gathering send carries leave in order")
SCENARIO(least_send_buffer_slow_reader_unix,
         "F11 the least send buffer and a slow reader over a Unix socket: exact, and no more than allowed in memory")
SCENARIO(least_send_buffer_slow_reader_tcp,
         "F11 the least send buffer and a slow reader over TCP: exact, and no more than allowed in memory")
SCENARIO(peer_that_finished_still_reads, "F8 a peer that finished sending still reads")
SCENARIO(finished_stream_still_reads, "F9 a half-close follows what was queued, and receiving goes on")
SCENARIO(peer_resets_while_reading, "F5 a reset by the peer ends reading, once")
SCENARIO(peer_resets_while_writing, "F6 a reset by the peer ends writing and returns every lease")
SCENARIO(write_after_the_peer_closed_tcp, "F7 writing after the peer closed raises no SIGPIPE, over TCP")
SCENARIO(write_after_the_peer_closed_unix, "F7 writing after the peer closed raises no SIGPIPE, over a Unix socket")
SCENARIO(close_with_a_receive_armed, "Z12 close with a receive armed reaches the peer")
SCENARIO(abort_with_a_receive_armed, "Z12 abort with a receive armed reaches the peer")
SCENARIO(abort_with_reset, "Z12 abort with reset tells the peer ECONNRESET")
SCENARIO(close_sends_what_is_queued_first, "close sends what is queued first")
SCENARIO(a_polite_close_may_turn_into_an_abort, "a close that flushes may turn into an abort")
SCENARIO(a_released_stream_goes_on_flushing, "a released stream that is closing goes on flushing")
SCENARIO(a_stream_released_on_another_thread, "a stream released on another thread closes")
SCENARIO(a_release_elsewhere_while_the_close_is_told, "a release on another thread while the close is being told")
SCENARIO(a_cancelled_wait_loses_no_bytes, "Z7 a cancelled wait loses no bytes")
SCENARIO(a_stale_token_cancels_nothing, "a stale token cancels nothing")
SCENARIO(a_paused_stream_pushes_back, "Z9 a paused stream pushes back on its peer")
SCENARIO(connect_and_talk, "connect, and bytes queued before it is through")
SCENARIO(a_half_close_while_connecting, "F9 a half-close asked for while connecting comes once connected")
SCENARIO(connect_refused, "F55 connect refused")
SCENARIO(close_while_connecting, "F56 Z8 close while connecting")
SCENARIO(what_a_stream_cannot_be_made_of, "what a stream cannot be made of stays the caller's")

/* buffers.c */
SCENARIO(leases_outlive_the_loop, "Z7 leases outlive the loop and come back from another thread")
SCENARIO(leases_return_while_the_loop_closes, "Z7 leases come back from another thread while the loop closes")
SCENARIO(leases_return_from_other_threads, "leases come back from other threads while the loop runs")
SCENARIO(a_hoarder_starves_nobody, "F16 Z9 who holds every lease starves nobody")
SCENARIO(many_senders_share_one_buffer, "Z9 64 senders share one buffer of 64 bytes")
SCENARIO(many_senders_share_a_few_buffers, "Z9 64 senders share eight buffers of 64 bytes")
SCENARIO(a_starved_stream_closes, "Z9 a stream that waits for a buffer closes")

/* listeners.c */
SCENARIO(accepts_two_hundred, "accepts two hundred connections")
SCENARIO(accepts_one_per_wait, "one wait, one connection")
SCENARIO(a_cancelled_accept_loses_no_connection, "Z8 a cancelled accept loses no connection")
SCENARIO(accepting_without_descriptors,
         "F1 EMFILE at accept is told once per shortage, without a spin, and ends with the next close")
SCENARIO(a_closed_listener_refuses, "Z12 a closed listener refuses connections")
SCENARIO(a_listener_closes_among_streams, "Z12 a listener that closes among streams leaves no timer")
SCENARIO(untaken_connections_close_with_the_listener, "Z8 connections nobody took close with their listener")
SCENARIO(an_idle_listener_accepts_little, "a listener nobody accepts from leaves connections to the kernel")
SCENARIO(what_a_listener_cannot_be_made_of, "what a listener cannot be made of")

/* polls.c */
SCENARIO(pipes_and_eventfds_become_ready, "pipes and eventfds become ready")
SCENARIO(a_full_pipe_becomes_writable, "a full pipe becomes writable")
SCENARIO(what_cannot_be_polled, "what cannot be polled: EPERM, EBADF, EEXIST, EBUSY")
SCENARIO(a_cancelled_poll_is_told_once, "a cancelled poll is told once")
SCENARIO(a_batch_cut_short_survives_a_cancel, "Z11 a batch cut short survives a cancel in the middle of it")
SCENARIO(many_polls_at_once, "Z11 many polls at once")

/* closing.c */
SCENARIO(a_descriptor_number_comes_back, "F24 Z5 a descriptor number that comes back brings no old news")
SCENARIO(close_with_a_hundred_streams_queued, "close with a hundred streams queued")
SCENARIO(close_with_a_hundred_streams_under_way, "close with a hundred streams under way")
SCENARIO(entering_is_guarded, "entering twice, or a second loop on one thread, is refused")
SCENARIO(a_loop_moves_between_threads, "Z6 a loop moves between threads from run to run")
SCENARIO(a_loop_with_work_in_the_kernel_stays, "Z6 a loop with work in the kernel stays on its thread")
SCENARIO(closing_a_strangers_loop_leaves_ours_alone, "Z6 closing a loop of another thread leaves this thread's alone")
SCENARIO(closing_a_strangers_loop_of_an_older_kernel, "Z6 closing a loop of another thread, without SINGLE_ISSUER")
SCENARIO(closing_on_another_thread_tells_who_waits, "F23 Z6 closing on another thread tells who waits")
SCENARIO(a_forked_child_cannot_run_the_loop, "F27 Z14 a forked child cannot run the loop, and does not disturb it")

/* faults_shim_self.c */
SCENARIO(planned_errors_are_played, "the shim: planned errors are played, on the calls they name")
SCENARIO(planned_lengths_are_kept, "the shim: planned lengths are kept")
SCENARIO(planned_allocations_fail, "the shim: planned allocations fail, on one thread")
SCENARIO(a_planned_delay_takes_its_time, "the shim: a planned delay takes its time")
SCENARIO(operations_of_a_ring_count_as_calls, "the shim: operations of a ring count as the calls they stand for")

/* faults_operations.c */
SCENARIO(twenty_thousand_polls_fire_at_once, "F14 twenty thousand polls fire at once, and each is told once")
SCENARIO(multishots_go_on_after_an_overflow, "F14 multishot operations go on after an overflow")
SCENARIO(cancels_race_with_bytes, "F18 cancels race with bytes: one answer each, and no byte is lost")
SCENARIO(cancels_race_with_readiness, "F18 cancels race with readiness: one answer each")

/* faults_buffers.c */
SCENARIO(a_thousand_senders_share_eight_buffers, "F15 a thousand senders share eight buffers, each in its turn")
SCENARIO(who_has_nothing_to_receive_holds_up_nobody, "F15 who was refused a buffer it did not need holds up nobody")
SCENARIO(memory_goes_with_the_last_completion, "F17 memory goes with the last completion, whoever let go before")
SCENARIO(an_accept_ends_with_its_listener, "F17 an accept that is under way ends with its listener")

/* faults_cancels.c */
SCENARIO(cancels_that_mean_nobody, "F19 cancels that mean nobody, or somebody told already, do nothing")
SCENARIO(cancels_from_within, "F20 a cancel from within its own delivery: no second one, and none within another")
SCENARIO(the_first_of_a_batch_ends_the_second, "F26 the first stream of a batch ends the second, which brings no bytes")
SCENARIO(the_first_of_a_batch_ends_another_kind, "F26 the first of a batch ends a listener or a poll behind it")

/* faults_closing.c */
SCENARIO(close_with_everything_pending,
         "F21 close with everything pending: each is told once, and the peer sees the end")
SCENARIO(close_with_ten_thousand_in_flight, "F22 a loop closes with ten thousand operations in flight")
SCENARIO(a_running_loop_refuses_to_close, "F23 a running loop refuses to close, from within and from another thread")
SCENARIO(a_loop_with_work_is_closed_by_a_stranger, "F23 a loop with work in the kernel is closed on another thread")
SCENARIO(use_from_the_wrong_thread, "F46 use from the wrong thread is refused")
SCENARIO(two_threads_enter_at_once, "F46 of two threads that enter at once, one is let in at a time")

/* faults_fork.c */
SCENARIO(a_polled_number_changes_its_owner, "F24 a polled number changes its owner within a pass")
SCENARIO(a_duplicate_outlives_the_original, "F25 a duplicate that outlives the original works, and keeps nobody awake")
SCENARIO_REAL(children_leave_the_parents_loop_alone,
              "F27 a child that exits, calls exec or closes leaves its parent's loop alone",
              "descriptors shared with a child")
SCENARIO_REAL(peers_of_a_forked_server_see_the_end, "F28 peers see the end at once although a child lives",
              "descriptors shared with a child")

/* faults_limits.c */
SCENARIO(locked_memory_is_exhausted, "F44 with little lockable memory a loop is smaller, or refused with the reason")
SCENARIO(loops_come_and_go, "F45 two thousand loops come and go, and leave nothing behind")

/* faults_session.c */
SCENARIO(a_session_without_each_feature, "F43 a session goes the same way without each optional feature")
SCENARIO(a_storm_of_signals_is_not_seen, "F47 a storm of signals is not seen")

/* faults_load.c */
SCENARIO(a_flood_starves_no_quiet_peer, "F40 one connection floods, and 99 quiet ones are answered within a few passes")
SCENARIO(slow_peers_cost_what_they_send, "F52 a thousand peers that send a byte now and then cost what they send")
SCENARIO(very_many_connections, "F53 very many connections, each is answered, and each takes little memory")
SCENARIO(peers_come_and_go, "F54 peers come and go as fast as they can, and leave nothing behind")

/* faults_streams.c */
SCENARIO(peer_resets_with_much_queued,
         "F6 a reset with 10 MB queued is told to everybody who waits, and all is released")
SCENARIO(writing_to_nobody_kills_nobody, "F7 writing to a peer that is gone with SIGPIPE at its default")
SCENARIO(bytes_one_by_one, "F13 bytes sent and read one by one are exact")
SCENARIO(two_sends_on_a_full_socket, "F83 two sends queued at once on a full socket stay in order")

/* faults_accept.c */
SCENARIO(peers_that_reset, "F5 resets before and after accept and in the middle of reading are told once each")
SCENARIO_REAL(peers_that_are_killed,
              "F71 a peer that is killed is an end or a reset, once, and everything is given back",
              "another process is the peer")
SCENARIO(where_nobody_can_listen, "F57 EADDRINUSE, EADDRNOTAVAIL, EACCES and no port left to listen on")

/* faults_connect.c */
SCENARIO(connections_that_fail, "F55 refused, unreachable, timed out, network down: the matching error, once")
SCENARIO(connections_given_up, "F56 a connection given up while pending is told once, closed, and never succeeds")
SCENARIO(connections_without_ports, "F57 no port left to connect from: EADDRNOTAVAIL, once, until one is free")
/* faults_shim_accept.c */
SCENARIO(accept_lacks_something,
         "F2 V5 EMFILE, ENFILE, ENOBUFS, ENOMEM at accept: told once, paused, and then accepted")
SCENARIO(a_second_shortage_is_told_again, "F2 a second shortage is told again")
SCENARIO(a_pause_without_a_timer, "F73 a pause of accepting for which no timer can be had ends nevertheless")
SCENARIO(an_accept_lost_its_peer,
         "F3 V5 ECONNABORTED, EPROTO, EINTR at accept: the next connection comes, without a pause")
SCENARIO(an_accept_that_always_fails, "F4 EBADF, EFAULT, ENOTSOCK at accept: told once, asked ever more rarely")

/* faults_shim_streams.c */
SCENARIO(a_receive_fails_for_good, "F4 EBADF, EFAULT, ENOTSOCK at recv: told once, not asked again")
SCENARIO(a_send_fails_for_good, "F4 EBADF, EFAULT, ENOTSOCK at send: told once, what was queued goes back")
SCENARIO(a_connect_fails_for_good, "F4 EBADF, EFAULT, ENOTSOCK at connect: told once")
SCENARIO(a_connect_cannot_be_asked_about, "F4 a connect that cannot be asked about has failed")
SCENARIO(the_nth_send_is_one_byte, "F12 each send of a transfer in turn shortened to one byte arrives whole")
SCENARIO(every_nth_send_is_one_byte, "F12 every n-th send shortened to one byte arrives whole")
SCENARIO(a_send_is_interrupted, "F12 a send that is interrupted is asked again, and arrives whole")
SCENARIO(echoed_leases_leave_byte_by_byte, "F12 echoed leases leave byte by byte")

/* faults_shim_setup.c */
SCENARIO(a_ring_is_refused,
         "F41 a ring refused with EPERM, ENOSYS, ENOMEM, EMFILE, EINVAL: that errno, and the cause in words")
SCENARIO(a_ring_is_had_at_a_second_try, "F41 a ring is had with fewer features, or smaller")
SCENARIO(a_moved_loop_gets_no_ring, "F41 a loop that moves and gets no ring closes nothing twice")
SCENARIO(a_ring_is_not_registered, "F42 without ring registration or buffer ring an echo is whole")
SCENARIO(a_ring_is_not_enabled, "F42 a ring that cannot be enabled: the errno, and a second try")
SCENARIO(a_loop_lacks_a_part, "F74 no eventfd, timerfd, epoll, memory map or ring: that errno, and nothing left")
SCENARIO(there_is_no_epoll, "F74 without epoll the next best is taken, unless epoll was asked for")
SCENARIO(listening_is_refused,
         "F57 EADDRINUSE, EADDRNOTAVAIL, EACCES and others at listening: that errno, and nothing left")
SCENARIO(adopting_fails_half_way, "F57 adopting that fails half-way leaves the descriptor to the caller")
SCENARIO(connecting_cannot_begin, "F57 connecting that cannot begin leaves nothing")

/* faults_shim_wake.c */
SCENARIO(a_wake_just_before_sleep, "F36 a wake in the moment before sleep is not lost")
SCENARIO(the_poll_for_the_wake_fails, "F36 the poll for the wake fails, and is asked again")
SCENARIO(a_full_counter_still_wakes, "F75 a full counter still wakes, and is drained")
SCENARIO(a_counter_that_will_not_be_read, "F75 a counter whose read fails or comes short still wakes, and is drained")
SCENARIO(a_wake_is_interrupted, "F75 a wake that is interrupted is written again")
SCENARIO(a_close_that_fails_is_not_repeated, "a close that fails after it has closed is not repeated")
SCENARIO(a_stream_is_closed_once, "a stream that is closed twice is closed once")

/* faults_shim_memory.c */
SCENARIO(making_a_loop_without_memory, "F73 each allocation of making a loop fails: ENOMEM, and nothing left")
SCENARIO(each_allocation_fails_once, "F73 each allocation of a session fails once: told or made good, and nothing left")
SCENARIO(each_allocation_fails_from_there_on,
         "F73 each allocation of a session and all after it fail: no crash, nothing left")
SCENARIO(streams_that_come_and_go_take_no_more_memory, "F54 streams that come and go take no more memory")
SCENARIO(messages_take_no_memory, "F54 a thousand messages take no memory that the first did not")
SCENARIO(a_copy_without_memory_queues_nothing, "F73 a write for which there is no memory queues none of it")
SCENARIO(receiving_without_memory, "F73 received bytes for which there is no memory are not lost")
SCENARIO(libev_without_memory, "F73 libev ends the process when it gets no memory")

/* faults_shim_watches.c */
SCENARIO(a_refused_watch_is_told, "F74 a descriptor that epoll has no room for: told, not forgotten")

/* found.c */
SCENARIO(a_closing_listener_does_not_back_off, "F79 a closing listener does not back off")
SCENARIO(a_reset_behind_many_bytes_is_told, "F5 a reset behind many bytes is told, once they are read")
SCENARIO(a_reset_that_a_send_met_is_no_end, "F79 a reset that a send met is no end to the reader")
SCENARIO(bytes_and_the_end_may_be_taken_piecemeal, "F79 bytes and the end may be taken one lease at a time")
SCENARIO(an_abort_ends_a_send_that_changes_hands, "F18 an abort ends a send that the kernel hands to a thread")
SCENARIO(a_stream_that_goes_takes_nobody_along, "F79 a stream that goes takes no other's bytes along")
SCENARIO(an_accepted_unix_socket_hears_the_end, "F62 an accepted Unix socket hears bytes and the end that come at once")

/* options.c */
SCENARIO(sizes_beyond_the_kernels, "F80 sizes beyond the kernel's mean as much as it has room for, and the loop works")
SCENARIO(options_without_sense, "F80 a backend or selector that there is none of is an errno")
SCENARIO(a_group_beyond_memory, "F80 more memory than there is is an errno")

/* room.c */
SCENARIO(room_is_told_once, "P8 room is told once, with a waiter beside it and without")
SCENARIO(room_is_told_at_the_mark, "P8 room is told at the mark: not before, and not only when all is out")
SCENARIO(a_broken_stream_tells_of_no_room, "P8 a stream that broke tells of no room")
SCENARIO(a_held_stream_waits_for_room, "P17 whoever sends a file is told of room when there is some, and once")
SCENARIO(a_held_stream_breaks_or_closes, "P17 whoever waits to send a file is told when the stream closes")

/* unread.c */
SCENARIO(unread_bytes_neither_pile_up_nor_spin, "Z9 bytes that nobody asks for neither pile up nor keep the loop awake")
