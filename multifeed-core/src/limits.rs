//! The bounds of feeds, sessions and stores, each with its name and its reason.

use std::time::Duration;

/// The most blocks that a feed can have, 2^30: a longer one is refused by every peer and in every file.
///
/// Nodes, signatures and pages of the bitfield have their fixed places in the files, as JS has them. So what one block of such a feed is
/// proven by lies in sparse files of up to 220 GB. What is not held costs no memory, and no time when the feed is opened. How long feeds
/// may be that peers bring is [`Limits::feed_blocks`]. Index arithmetic is safe far beyond this.
pub const MAX_FEED_BLOCKS: u64 = 1 << 30;

/// The most bytes that a feed can have, 2^53: what JS peers can count exactly.
pub const MAX_FEED_BYTES: u64 = 1 << 53;

/// The largest message body on the wire, in bytes, without its header varint: JS ends a stream at one byte more.
pub const MAX_MESSAGE_BYTES: usize = 8_388_608;

/// The most nodes that a proof can have: a sibling on each level, a full root for each level left, and the leaf.
pub const MAX_PROOF_NODES: usize = 2 * 53 + 1;

/// The most bytes that one node of a proof takes in a Data message: its tag and length, and index, hash and size each
/// with its tag.
const MAX_NODE_BYTES: usize = 2 + (1 + 8) + (2 + 32) + (1 + 8);

/// The largest block that can be appended, in bytes: its Data message, with the largest proof and a signature, still
/// passes as one message.
pub const MAX_BLOCK_BYTES: usize = MAX_MESSAGE_BYTES - (1 + 8) - (1 + 4) - MAX_PROOF_NODES * MAX_NODE_BYTES - (2 + 64);

/// What remotes may make a multifeed hold. The defaults leave room for what real JS peers do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Feeds in one store that are not written here: those that remotes brought, and those that were added by their keys. Offers past it are not
    /// taken. Feeds that are written here are not counted, so nobody else can take their room. About 2 kB of memory each. Default 131,072.
    pub feeds: usize,
    /// Blocks of a feed of somebody else's. Of one whose writer signed a greater length no more is taken from a remote. What is here of it stays and
    /// is served. [`PeerEvent::LimitReached`](crate::PeerEvent::LimitReached) reports it, once for each session. Default 16,777,216 (2^24), at most
    /// [`MAX_FEED_BLOCKS`]: a block a second for half a year, or 1 TiB of 64 KiB blocks. JS reads the whole bitfield of such a feed, 7 MB, when it
    /// opens the feed, and keeps it in memory. Its other files have at most this length times 144 bytes (80 of `tree`, 64 of `signatures`), mostly
    /// holes; a disk without sparse files has to write them out.
    pub feed_blocks: u64,
    /// Bytes of a feed of somebody else's. A writer can claim any, and a block's place in the file is the sum of the sizes before it: far out
    /// most disks take no write. Of a feed whose writer signed more, nothing is taken that lies past this, and
    /// [`PeerEvent::LimitReached`](crate::PeerEvent::LimitReached) reports it. Default 2^40 (1 TiB), at most [`MAX_FEED_BYTES`]. Disks whose files
    /// are smaller (4 GiB on FAT32) want a smaller one.
    pub feed_bytes: u64,
    /// Feeds that are not here and that the remote of one session may offer; more are not requested, and reported by
    /// [`PeerEvent::OffersRefused`](crate::PeerEvent::OffersRefused). About 200 bytes each while the session lasts. Default 131,072.
    pub feeds_offered: usize,
    /// Of those, how many the remote is asked for at once: about 2 kB each, and what of one was proven. The others wait until a block of one
    /// came, or the remote turns out to have none. As many more may wait for blocks that are late. Default 1,024.
    pub feeds_asked: usize,
    /// Feeds of a session whose channels are open and on which something is under way; the others wait for their turn. It may be twice as many
    /// while the remote opens others than we do. In a live session a channel stays open when its feed is done, and does not count then.
    /// Default 1,024.
    pub feeds_open: usize,
    /// What one remote may bring, unless its [`Policy`](crate::Policy) says otherwise.
    pub peer: PeerLimits,
    /// Names of remotes ([`Replicate::source`](crate::Replicate::source)) of which it is remembered what they brought, about 100 bytes each.
    /// When there are more, the one that brought least and has no session is forgotten. Default 4,096.
    pub sources: usize,
    /// Bytes that the disk of the store keeps free: while it has fewer, nothing new is fetched, and the rest goes on. Needs a storage that knows its
    /// [free space](crate::Storage::free_space). Default 0: until the disk is full.
    pub keep_free: u64,
    /// Requests that a remote may have waiting for one feed. JS has up to 32 in flight, we 256 to JS and
    /// 1,024 to ours, and some more that somebody waits for. Default 4,096; one more ends its session.
    pub requests_queued: usize,
    /// Wants that a remote may have waiting for one feed. JS has up to 16. Default 64; one more ends its session.
    pub wants_queued: usize,
    /// Runs of new blocks waiting to be announced for one feed to one remote; past it, it is sent the bitfield instead. Default 256.
    pub announcements_queued: usize,
    /// Bytes of verified blocks held before they are written. Default 4 MiB.
    pub staged_bytes: usize,
    /// How long a remote may leave what it was asked about a feed unanswered, until it is given up. The time counts while no bytes come of
    /// an answer to that, or to anything else that was asked at about that time or before. Time in which the remote is not read, or was
    /// not sent the request, does not count. Default 20 s, as in JS.
    pub request_timeout: Duration,
    /// Bytes a second of an answer that is under way: one that comes slower is given up after [`request_timeout`](Self::request_timeout).
    /// Default 256.
    pub slowest_rate: u64,
    /// How long a session that is not live goes on with a JS peer while nothing is missing here, and nothing was asked or is under way either
    /// way. Such a peer may never say that it is done. Default 5 s.
    pub idle_end: Duration,
    /// How long a session that is not live waits for a block of a feed of which neither side has one, if its remote is a JS peer that passes on
    /// feeds of others. JS offers those before it has anything of them. Default 1 s.
    pub relay_wait: Duration,
    /// Bytes of a writer's name. Default 255.
    pub name_bytes: usize,
    /// Things that the application may wait for at once, in the whole store. Default 65,536; one more is refused.
    pub wants: usize,
    /// Events of a watched feed that wait to be taken; when there are more, the oldest are lost and counted. Default 1,024.
    pub feed_events: usize,
    /// Feeds that keep what was read of their files, about 230 KB each at the most; the others keep what they hold, and no more.
    /// Default 64.
    pub feeds_in_use: usize,
    /// Names of the application's own extensions on one feed's channel, of at most 256 bytes each. Default 64.
    pub extensions: usize,
    /// Bytes of messages of such extensions that wait for one peer, or for the application, each with 64 bytes for itself. One message is
    /// always taken. Default 1 MiB.
    pub extension_bytes: usize,
    /// Such messages that wait for the application; later ones are lost. Default 1,024.
    pub extension_messages: usize,
    /// Feeds that are banned, about 40 bytes of memory each. If the store has more already, by a greater limit or another hand, they stay
    /// banned, and no others can be. Default 65,536.
    pub banned: usize,
    /// Bytes of `multifeed.blocked` that are read: a person may write notes there. Of a longer file the rest is reported, and no feed can be
    /// banned or unbanned. Default 16 MiB; never less than `banned` keys take.
    pub banned_bytes: usize,
    /// Bytes of `multifeed.journal`. A longer one is taken for that of a store that was not closed, and of which nothing is known.
    /// 65,536 feeds take 5 to 10 MB, and 130 MB if all of them are long by claim alone. Default 256 MiB.
    pub journal_bytes: u64,
    /// Folders that do not exist and of which `multifeed.journal` may tell: those of writers that are missing. One that tells of more is taken for
    /// that of a store that was not closed, and of which nothing is known. Default 65,536, about 160 bytes of memory each.
    pub journal_absent: usize,
    /// Bytes of zeros that opening a store reads of its feeds' files, in search of what is behind them. Holes that the system tells of are
    /// passed over, and do not count. A feed that would take more is not opened, and is among the [problems](crate::Multifeed::problems).
    /// Default 1 GiB.
    pub opening_zeros: u64,
    /// Second histories of which the evidence is kept, about half a kilobyte each; those found after them are reported, and not kept.
    /// Default 256.
    pub conflicts: usize,
    /// Bytes of one message of a [reconciliation](crate::reconcile). Default 1 MiB, which ours never pass.
    pub reconcile_bytes: usize,
    /// Ranges in one such message. Default 16,384, which ours never pass.
    pub reconcile_ranges: usize,
    /// Such messages that a remote may send in a session. Two stores of 10^9 feeds need fewer than 20 each. Default 32.
    pub reconcile_messages: usize,
    /// Ranges of missing blocks that are listed in the totals of a session; those after them are counted. Default 256.
    pub hole_ranges: usize,
    /// Feeds whose folders could not be opened that a session reports by key as it begins; it is not in sync with any number of them. Default
    /// 1,024.
    pub unopened_reports: usize,
    /// Cores of a [`Corestore`](crate::Corestore) that are open at once, about 2 kB each; when one more is used, the one that was used longest
    /// ago is written, fsynced and closed. Default 1,024; JS keeps 1,000.
    pub cores_open: usize,
    /// Cores that [`Corestore::list`](crate::Corestore::list) lists, about 200 bytes each. Default 1,048,576.
    pub cores_listed: usize,
    /// Bytes of a core's name. JS has no bound; multifeed's names have about 100. Default 4,096.
    pub core_name_bytes: usize,
}

/// What a remote may bring: in one session, or in all that have the same [`Replicate::source`](crate::Replicate::source), since the store was
/// opened. At either bound the session goes on: the remote is served, and nothing more is fetched from
/// it that the bound is for. [`PeerEvent::LimitReached`](crate::PeerEvent::LimitReached) tells it once, as an error whose fault is
/// [`Fault::Limit`](multifeed_proto::Fault::Limit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// Feeds that were not in the store, and get their place there by its blocks (`peer.feeds`). Those that are here by then go on. No
    /// bound by default but the store's, [`Limits::feeds`].
    pub feeds: usize,
    /// Bytes of blocks, of all feeds together (`peer.bytes`): the block that reaches it is the last one that is kept. No bound by default.
    pub bytes: u64,
}

/// How large a feed of somebody else's may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedSize {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
}

impl FeedSize {
    /// As large as any feed.
    pub(crate) const MAX: Self = Self { blocks: MAX_FEED_BLOCKS, bytes: MAX_FEED_BYTES };
}

impl Limits {
    pub(crate) fn feed_size(&self) -> FeedSize {
        FeedSize { blocks: self.feed_blocks, bytes: self.feed_bytes }
    }
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { feeds: usize::MAX, bytes: u64::MAX }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            feeds: 131_072,
            feed_blocks: 1 << 24,
            feed_bytes: 1 << 40,
            feeds_offered: 131_072,
            feeds_asked: 1_024,
            feeds_open: 1_024,
            peer: PeerLimits::default(),
            sources: 4_096,
            keep_free: 0,
            requests_queued: 4_096,
            wants_queued: 64,
            announcements_queued: 256,
            staged_bytes: 4 << 20,
            request_timeout: Duration::from_secs(20),
            slowest_rate: 256,
            idle_end: Duration::from_secs(5),
            relay_wait: Duration::from_secs(1),
            name_bytes: 255,
            wants: 65_536,
            feed_events: 1_024,
            feeds_in_use: 64,
            extensions: 64,
            extension_bytes: 1024 * 1024,
            extension_messages: 1024,
            banned: 65_536,
            banned_bytes: 16 << 20,
            journal_bytes: 256 << 20,
            journal_absent: 65_536,
            opening_zeros: 1 << 30,
            conflicts: 256,
            reconcile_bytes: 1 << 20,
            reconcile_ranges: 16_384,
            reconcile_messages: 32,
            hole_ranges: 256,
            unopened_reports: 1_024,
            cores_open: 1_024,
            cores_listed: 1 << 20,
            core_name_bytes: 4_096,
        }
    }
}

/// What a message that waits takes beside its body, at the most.
const MESSAGE_OVERHEAD: usize = 64;

/// Returns the memory of a message of this size that waits.
pub fn message_cost(body: usize) -> usize {
    body.saturating_add(MESSAGE_OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use multifeed_proto::Node;

    /// The bytes that the body of a Data message takes (simple-hypercore-protocol's schema).
    fn data_message_bytes(index: u64, value: Option<usize>, nodes: &[Node], signed: bool) -> usize {
        let mut total = 1 + varint_bytes(index);
        if let Some(value) = value {
            total = total.saturating_add(1 + varint_bytes(value as u64)).saturating_add(value);
        }
        for node in nodes {
            // The inner message is at most 52 bytes, so its length takes one.
            total += 2 + (1 + varint_bytes(node.index)) + (2 + 32) + (1 + varint_bytes(node.size));
        }
        if signed {
            total += 2 + 64;
        }
        total
    }

    fn varint_bytes(value: u64) -> usize {
        let bits = 64 - value.leading_zeros() as usize;
        bits.div_ceil(7).max(1)
    }

    #[test]
    fn the_largest_block_with_the_largest_proof_is_one_message() {
        let node = Node { index: (1 << 54) - 1, hash: [1; 32], size: (1 << 54) - 1 };
        let nodes = vec![node; MAX_PROOF_NODES];
        let size = data_message_bytes((1 << 53) - 1, Some(MAX_BLOCK_BYTES), &nodes, true);
        assert!(size <= MAX_MESSAGE_BYTES, "{size}");
        assert!(size + 16 > MAX_MESSAGE_BYTES, "the bound gives room away: {size}");
    }

    #[test]
    fn varints_are_counted() {
        for (value, bytes) in [(0, 1), (127, 1), (128, 2), (16383, 2), (16384, 3), (u64::MAX, 10)] {
            assert_eq!(varint_bytes(value), bytes);
        }
    }
}
