//! The scenarios over links with a bandwidth and a delay.

use std::net::TcpStream;
use std::time::Duration;

use super::wire::blocking_listener;
use crate::throttle::Throttle;

/// Both directions of a slow link: 1 MB/s, and 25 ms there and 25 ms back.
const LINK: Throttle = Throttle { rate: 1_000_000, delay: Duration::from_millis(25), buffer: 256 * 1024 };

/// Scenarios that do not run over a slow link, and why.
pub const EXCEPTIONS: &[(&str, &str)] = &[
    ("blocks_of_0_bytes_to_4_mib", MEGABYTES),
    ("thousands_of_blocks", MEGABYTES),
    ("both_directions_full_with_one_slot", MEGABYTES),
    ("large_messages_take_turns", MEGABYTES),
    ("a_slow_message_gives_way_to_others", MEGABYTES),
    ("closing_during_a_sync", MEGABYTES),
    ("feeds_are_found_by_key_and_name", NO_LINK),
    ("writers_are_found_again", NO_LINK),
    ("a_corestore_is_held_by_each_of_its_handles", NO_LINK),
    ("an_accepted_call_completes", NO_LINK),
    ("a_sink_splits_and_batches", NO_LINK),
    ("live_streams_end_with_their_multifeed", NO_LINK),
    ("replicating_when_closed", NO_LINK),
    ("closing_twice", NO_LINK),
    ("a_stuck_reader_stops_nobody_else", OWN_LINK),
    ("a_reader_that_is_stuck_gives_way_to_others", OWN_LINK),
    ("a_stuck_store_times_nobody_out", SHORT_TIMES),
    ("a_session_that_only_waits_ends", SHORT_TIMES),
    ("a_stuck_store_holds_up_others_for_a_while", SHORT_TIMES),
    ("a_store_that_is_behind_catches_up", SHORT_TIMES),
    ("a_stream_that_is_watched", SHORT_TIMES),
    ("silence_later", OWN_LINK),
    ("peers_vanish_and_come_back", OWN_LINK),
    ("garbage_instead_of_a_handshake", OWN_LINK),
    ("silence_instead_of_a_handshake", OWN_LINK),
    ("handles_show_what_is_reported", "a hundred round trips, one after another"),
    ("streams_of_blocks", "six hundred round trips: a stream fetches a block as its reader asks for it"),
    ("a_stream_waits_for_its_reader", "looks after 50 ms whether anything came unasked, which is one round trip here"),
    (
        "transfers_can_be_switched",
        "looks after 30 ms whether anything came unasked, which is less than a round trip here",
    ),
];

const MEGABYTES: &str = "moves megabytes, which take as many seconds";
const NO_LINK: &str = "has no session whose link matters";
const OWN_LINK: &str = "brings a link of its own, which it cuts, holds or writes to by hand";
const SHORT_TIMES: &str = "holds a store up and gives sessions times that are not much longer than a round trip here";

/// Two ends of a slow link, non-blocking.
///
/// # Panics
///
/// There is no port.
pub fn pair() -> (TcpStream, TcpStream) {
    let listener = blocking_listener();
    let address = LINK.listen(listener.local_addr().expect("an address")).expect("a port");
    let left = TcpStream::connect(address).expect("a connection");
    let (right, _) = listener.accept().expect("a connection");
    for stream in [&left, &right] {
        stream.set_nodelay(true).expect("a socket");
        stream.set_nonblocking(true).expect("a socket");
    }
    (left, right)
}

/// Makes each scenario that a slow link does not rule out a test of an [`Adapter`](super::Adapter) whose `pair` is [`pair`].
#[macro_export]
macro_rules! conformance_on_slow_links {
    ($adapter:ty) => {
        $crate::conformance!($adapter, basic: two_empty_ones_end_with_nothing, one_writer, both_write, own_key_pairs, a_key_that_the_application_keeps,
            reads_and_errors, files_outlive_their_multifeed, sync_twice, equal_ones_say_next_to_nothing, user_data_arrives);
        $crate::conformance!($adapter, corestores: multifeeds_of_one_corestore, closing_one_multifeed_of_a_corestore, plain_cores_of_a_corestore);
        $crate::conformance!($adapter, live: late_writers_and_late_blocks, gossip_over_a_middle, events_tell_of_feeds_and_blocks,
            every_feed_is_listed_once, one_live_side);
        $crate::conformance!($adapter, networker: a_networker_carries_what_both_sides_have, root_keys_that_differ_are_reported, two_connections_to_one_peer_become_one);
        $crate::conformance!($adapter, flow: a_full_disk_is_our_own_fault, a_call_knows_the_sessions_before_it, calls_go_on_during_a_sync, many_sessions_at_once);
        $crate::conformance!($adapter, reads: fetching_waits_for_a_block, fetching_ends_with_typed_errors, dropping_a_fetch_ends_it,
            downloads_of_ranges_and_blocks, seeks, updates, clearing_and_auditing, what_is_given_up_is_fetched_again, events_of_a_feed,
            signatures_and_roots, key_pairs_come_and_go, handles_cross_threads);
        $crate::conformance!($adapter, policy: a_feed_of_nothing_comes_with_its_first_block, offers_past_the_limit_are_told,
            a_policy_says_what_is_told_and_taken, a_policy_that_changes_acts_on_running_sessions, what_a_remote_brings_is_bounded);
        $crate::conformance!($adapter, state: in_sync_again_and_again, waiting_for_in_sync_ends, holes_are_named,
            what_is_synced_to_disk_outlives_a_power_cut, a_writer_comes_back_by_its_key_pair);
        $crate::conformance!($adapter, streams: several_multifeeds_on_one_stream, equal_ones_share_a_stream, a_root_key_that_one_side_lacks_ends_alone,
            late_joins_and_leaves, a_stream_of_ones_own_meets_a_shared_one, a_failing_store_fails_alone,
            joining_what_cannot_be_joined, remotes_are_judged_by_their_key, one_feed_alone, a_feed_that_the_remote_lacks);
        $crate::conformance!($adapter, extensions: extensions_on_a_stream, extensions_on_a_feeds_channel, what_is_sent_once_both_speak_it_is_heard,
            extensions_fail_by_typed_errors, messages_that_nobody_takes, a_session_judges_its_remote);
        $crate::conformance!($adapter, removal: a_removed_feed_is_gone_until_somebody_brings_it, removals_change_numbers_and_order,
            banned_feeds_are_not_synced, own_writers_are_removed_by_name);
        $crate::conformance!($adapter, ends: another_root_key, another_version, another_client, dropping_a_sync_ends_it,
            dropping_all_handles_closes);
    };
}
