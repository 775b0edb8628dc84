//! What every adapter has to do alike, as tests over real sockets on loopback.
//!
//! An adapter's tests say how to run, sleep and replicate ([`Adapter`]), and [`conformance!`](crate::conformance!) makes each scenario
//! a test of theirs. The scenarios wait for events, never for time; one time-out for each, far off, ends a test that hangs.

pub mod basic;
pub mod corestores;
pub mod ends;
pub mod extensions;
pub mod flow;
pub mod live;
pub mod networker;
pub mod policy;
pub mod reads;
pub mod removal;
pub mod slow_links;
pub mod state;
pub mod streams;
mod wire;

use std::future::Future;
use std::net::TcpStream;
use std::time::Duration;

use multifeed_driver::{
    Error, Feed, Multifeed, Networker, Options, ProtocolStream, Replicate, Replication, Role, StreamOptions, SyncError,
    Totals,
};

pub use wire::{Gate, Proxy, pair};

use crate::blocks::block;

/// What an adapter's tests bring.
pub trait Adapter: 'static {
    /// The adapter's kind of TCP stream.
    type Stream: Send + 'static;

    /// Runs a test to its end on the adapter's runtime.
    fn run(test: impl Future<Output = ()> + Send + 'static);

    /// Waits.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + Send;

    /// Two ends of a TCP connection on loopback, non-blocking, for a session.
    fn pair() -> (TcpStream, TcpStream) {
        pair()
    }

    /// Makes a TCP stream one of the adapter's. Called inside [`run`](Self::run).
    fn stream(tcp: TcpStream) -> Self::Stream;

    /// The adapter's own `replicate`.
    fn replicate(multi: &Multifeed, stream: Self::Stream, role: Role, options: Replicate) -> Replication;

    /// The adapter's own `open_stream`.
    fn open_stream(stream: Self::Stream, role: Role, options: StreamOptions) -> ProtocolStream;

    /// The adapter's own `connect` of a networker.
    fn connect(
        networker: &Networker,
        stream: Self::Stream,
        role: Role,
    ) -> Result<multifeed_driver::ConnectionId, multifeed_driver::NetworkerError>;
}

/// How long a scenario may take. Only a hang comes near it, however busy the machine is.
const HANG: Duration = Duration::from_secs(600);

/// Runs a scenario, and fails it when it hangs.
pub fn run<A: Adapter>(scenario: impl Future<Output = ()> + Send + 'static) {
    A::run(futures_lite::future::or(scenario, async {
        A::sleep(HANG).await;
        panic!("the scenario hangs");
    }));
}

/// Makes each scenario a test of an [`Adapter`].
#[macro_export]
macro_rules! conformance {
    ($adapter:ty) => {
        $crate::conformance!($adapter, basic: two_empty_ones_end_with_nothing, one_writer, both_write, blocks_of_0_bytes_to_4_mib,
            thousands_of_blocks, feeds_are_found_by_key_and_name, writers_are_found_again, own_key_pairs, a_key_that_the_application_keeps, reads_and_errors, files_outlive_their_multifeed, sync_twice, equal_ones_say_next_to_nothing, user_data_arrives);
        $crate::conformance!($adapter, corestores: multifeeds_of_one_corestore, a_corestore_is_held_by_each_of_its_handles, closing_one_multifeed_of_a_corestore, plain_cores_of_a_corestore);
        $crate::conformance!($adapter, live: late_writers_and_late_blocks, gossip_over_a_middle, events_tell_of_feeds_and_blocks, every_feed_is_listed_once, one_live_side);
        $crate::conformance!($adapter, networker: a_networker_carries_what_both_sides_have, root_keys_that_differ_are_reported, two_connections_to_one_peer_become_one);
        $crate::conformance!($adapter, flow: both_directions_full_with_one_slot, a_call_knows_the_sessions_before_it, a_stuck_reader_stops_nobody_else, a_stuck_store_times_nobody_out, a_session_that_only_waits_ends,
            large_messages_take_turns, a_slow_message_gives_way_to_others, a_reader_that_is_stuck_gives_way_to_others, a_full_disk_is_our_own_fault, calls_go_on_during_a_sync, an_accepted_call_completes, many_sessions_at_once);
        $crate::conformance!($adapter, reads: fetching_waits_for_a_block, fetching_ends_with_typed_errors, dropping_a_fetch_ends_it,
            downloads_of_ranges_and_blocks, streams_of_blocks, live_streams_end_with_their_multifeed, a_stream_waits_for_its_reader, a_sink_splits_and_batches, seeks, updates, clearing_and_auditing, what_is_given_up_is_fetched_again, events_of_a_feed, transfers_can_be_switched, signatures_and_roots, key_pairs_come_and_go, handles_cross_threads);
        $crate::conformance!($adapter, policy: a_feed_of_nothing_comes_with_its_first_block, offers_past_the_limit_are_told,
            a_policy_says_what_is_told_and_taken, a_policy_that_changes_acts_on_running_sessions, what_a_remote_brings_is_bounded);
        $crate::conformance!($adapter, state: in_sync_again_and_again, waiting_for_in_sync_ends, holes_are_named,
            what_is_synced_to_disk_outlives_a_power_cut, handles_show_what_is_reported, a_writer_comes_back_by_its_key_pair);
        $crate::conformance!($adapter, streams: several_multifeeds_on_one_stream, equal_ones_share_a_stream, a_root_key_that_one_side_lacks_ends_alone, late_joins_and_leaves,
            a_stream_of_ones_own_meets_a_shared_one, a_stuck_store_holds_up_others_for_a_while, a_store_that_is_behind_catches_up, a_failing_store_fails_alone, joining_what_cannot_be_joined,
            remotes_are_judged_by_their_key, a_stream_that_is_watched, one_feed_alone, a_feed_that_the_remote_lacks);
        $crate::conformance!($adapter, extensions: extensions_on_a_stream, extensions_on_a_feeds_channel, what_is_sent_once_both_speak_it_is_heard, extensions_fail_by_typed_errors, messages_that_nobody_takes, a_session_judges_its_remote);
        $crate::conformance!($adapter, removal: a_removed_feed_is_gone_until_somebody_brings_it, removals_change_numbers_and_order, banned_feeds_are_not_synced, own_writers_are_removed_by_name);
        $crate::conformance!($adapter, ends: peers_vanish_and_come_back, another_root_key, another_version, another_client,
            dropping_a_sync_ends_it, closing_during_a_sync, closing_twice, garbage_instead_of_a_handshake, silence_instead_of_a_handshake, silence_later, replicating_when_closed, dropping_all_handles_closes);
    };
    ($adapter:ty, $module:ident: $($scenario:ident),+ $(,)?) => {
        $(
            #[test]
            fn $scenario() {
                $crate::conformance::run::<$adapter>($crate::conformance::$module::$scenario::<$adapter>());
            }
        )+
    };
}

/// A new multifeed in memory.
pub(crate) async fn memory() -> Multifeed {
    memory_with(Options::default()).await
}

pub(crate) async fn memory_with(options: Options) -> Multifeed {
    Multifeed::in_memory(options).await.expect("memory opens")
}

/// A writer with this many made-up blocks.
pub(crate) async fn filled(multi: &Multifeed, name: &str, seed: u32, count: u32, size: usize) -> Feed {
    let feed = multi.writer(name).await.expect("a writer");
    fill(&feed, seed, count, size).await;
    feed
}

/// Appends made-up blocks, which continue those of the feed.
pub(crate) async fn fill(feed: &Feed, seed: u32, count: u32, size: usize) {
    let start = u32::try_from(feed.len()).expect("a short feed");
    let blocks: Vec<_> = (start..start + count).map(|index| block(seed, index, size)).collect();
    let range = feed.append_batch(blocks).await.expect("an append");
    assert_eq!(range, u64::from(start)..u64::from(start + count));
}

/// Starts a session between two multifeeds: ours is the initiator.
pub(crate) fn connect<A: Adapter>(a: &Multifeed, b: &Multifeed, options: &Replicate) -> (Replication, Replication) {
    connect_with::<A>(a, options.clone(), b, options.clone())
}

pub(crate) fn connect_with<A: Adapter>(
    a: &Multifeed,
    for_a: Replicate,
    b: &Multifeed,
    for_b: Replicate,
) -> (Replication, Replication) {
    let (left, right) = A::pair();
    (
        A::replicate(a, A::stream(left), Role::Initiator, for_a),
        A::replicate(b, A::stream(right), Role::Responder, for_b),
    )
}

/// Syncs two multifeeds until both have everything.
pub(crate) async fn sync<A: Adapter>(a: &Multifeed, b: &Multifeed) -> (Totals, Totals) {
    let (left, right) = connect::<A>(a, b, &Replicate::default());
    let (left, right) = futures_lite::future::zip(left.finish(), right.finish()).await;
    (left.expect("a clean end of the initiator"), right.expect("a clean end of the responder"))
}

/// Waits for both ends of a session.
pub(crate) async fn ends(a: Replication, b: Replication) -> (Result<Totals, SyncError>, Result<Totals, SyncError>) {
    futures_lite::future::zip(a.finish(), b.finish()).await
}

/// Ends a live session from one side, once both report that they are in sync, and waits for both, which have to end well.
pub(crate) async fn hang_up(by: Replication, other: Replication) {
    let (here, there) = futures_lite::future::zip(by.in_sync(), other.in_sync()).await;
    here.expect("in sync here");
    there.expect("in sync there");
    leave(by, other).await;
}

/// Ends a session from one side as it is, and waits for both, which have to end well.
pub(crate) async fn leave(by: Replication, other: Replication) {
    by.close();
    let (by, other) = ends(by, other).await;
    by.unwrap();
    other.unwrap();
}

/// Checks that a multifeed holds all blocks of a feed, byte for byte.
pub(crate) async fn assert_same(feed: &Feed, there: &Multifeed) {
    let copy = there.feed(feed.key()).expect("the feed is there");
    assert_eq!((copy.len(), copy.downloaded(), copy.byte_len()), (feed.len(), feed.len(), feed.byte_len()));
    for index in 0..feed.len() {
        let (ours, theirs) = (feed.get(index).await.expect("a read"), copy.get(index).await.expect("a read"));
        assert!(ours.is_some() && ours == theirs, "block {index} differs");
    }
}

/// Waits until a multifeed holds this many blocks of a feed, by its events.
pub(crate) async fn held(there: &Multifeed, key: multifeed_driver::FeedKey, blocks: u64) -> Feed {
    let mut events = there.events();
    loop {
        if let Some(feed) = there.feed(key)
            && feed.downloaded() >= blocks
        {
            return feed;
        }
        events.next().await.expect("the multifeed is open");
    }
}

pub(crate) fn is_closed<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Closed))
}
