//! What a repair did.

use std::mem;
use std::ops::Range;

/// What a repair did, or one slice of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repair {
    /// Blocks that were marked as held and do not have their hash, as ranges, ascending: they are no longer held, and can be fetched again. What was given up
    /// and then joined is not among them.
    pub dropped: Vec<Range<u64>>,
    /// Nodes of the tree that were made again of what is below them, or are those that the signature is over.
    pub nodes_made: u64,
    /// Nodes of the tree that nothing proves: they are no longer held, and come again with the blocks below them.
    pub nodes_dropped: u64,
    /// Signatures of earlier lengths that were made again, in a feed that is written here.
    pub signatures_made: u64,
    /// Signatures of earlier lengths that were taken out: the newest one proves all that they did.
    pub signatures_dropped: u64,
    /// Other folders of the feed, without a secret key, that held nothing more than it does now: they are removed.
    pub folders_joined: u64,
    /// Blocks that were only in these folders, and are in the feed now, as ranges. What was given up in the feed before and came from them counts here alone.
    pub joined: Vec<Range<u64>>,
    /// Whether all was looked at.
    pub done: bool,
}

impl Repair {
    /// Adds what the next slice did.
    pub fn add(&mut self, next: Repair) {
        for dropped in next.dropped {
            match self.dropped.last_mut() {
                Some(last) if last.end == dropped.start => last.end = dropped.end,
                _ => self.dropped.push(dropped),
            }
        }
        self.nodes_made += next.nodes_made;
        self.nodes_dropped += next.nodes_dropped;
        self.signatures_made += next.signatures_made;
        self.signatures_dropped += next.signatures_dropped;
        self.folders_joined += next.folders_joined;
        for joined in next.joined {
            self.dropped = mem::take(&mut self.dropped).into_iter().flat_map(|it| without(it, &joined)).collect();
            self.joined.push(joined);
        }
        self.done = next.done;
    }
}

/// What is in a range and not in another one.
fn without(range: Range<u64>, other: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let parts = [range.start..range.end.min(other.start), range.start.max(other.end)..range.end];
    parts.into_iter().filter(|part| !part.is_empty())
}
