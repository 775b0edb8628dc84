//! Opening a feed that nobody changed since the store was closed.

use multifeed_proto::{FeedKey, Node};

use super::Feed;
use super::cache::{decode, read_alone};
use super::files::{BLOCKS_OF_A_PAGE, Files, HEADER, NODE, headers};
use crate::bitfield::{Bitfield, DEFAULT_PAGE_BYTES};
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::limits::{MAX_FEED_BLOCKS, MAX_FEED_BYTES};
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Slot, Storage};

impl Feed {
    /// Opens a remote feed by what is known of it, if its files are those that the checkpoint was stamped for. Else `None`, and nothing is changed.
    ///
    /// What is read is next to nothing, however long the feed is.
    pub(super) fn open_unchanged<S: Storage + ?Sized>(
        storage: &mut S,
        slot: Slot,
        key: FeedKey,
        local_name: &Option<String>,
        mark: &Checkpoint,
    ) -> Result<Option<Feed>, StoreError> {
        let Some(stamp) = &mark.stamp else { return Ok(None) };
        // Opened first: that takes the lock which keeps a hypercore out.
        let Some(bitfield) = load(&mut Files { storage, slot }, mark)? else { return Ok(None) };
        if storage.stamp(slot, true) != Some(stamp.files) {
            return Ok(None);
        }
        let mut roots = Vec::new();
        let (mut known, _) = stamp.roots.as_chunks::<NODE>();
        for root in flat::full_roots(mark.length) {
            let node = match known.split_off_first() {
                Some(known) => decode(root, known),
                None => read_alone(storage, slot, root)?.map(|(node, _)| node),
            };
            let Some(node) = node.filter(|_| bitfield.node(root)) else { return Ok(None) };
            roots.push(node);
        }
        let bytes = roots.iter().fold(0u64, |bytes, root: &Node| bytes.saturating_add(root.size));
        if bytes > MAX_FEED_BYTES || !mark.has_root(&merkle::root_hash(&roots)) {
            return Ok(None);
        }
        let verified = mark.seal.map(|seal| (mark.length, seal.signature));
        if verified.is_none() && mark.length > 0 {
            return Ok(None);
        }
        let mut feed = Self::new(slot, key, None, local_name.clone(), bitfield);
        feed.set_roots(roots);
        (feed.verified, feed.unchanged) = (verified, true);
        feed.trim();
        Ok(Some(feed))
    }

    /// Whether its files were, when it was opened, as the journal had them.
    pub(crate) fn was_unchanged(&self) -> bool {
        self.unchanged
    }
}

/// The bitfield that a mark has, for a file that need not be read for it.
fn load<S: Storage + ?Sized>(files: &mut Files<'_, S>, mark: &Checkpoint) -> Result<Option<Bitfield>, StoreError> {
    let [(_, ours), ..] = headers(DEFAULT_PAGE_BYTES);
    let mut header = [0; HEADER];
    let count = match files.read(FileKind::Bitfield, 0, &mut header) {
        Err(unread) if unread.is_unreadable() => return Ok(None),
        count => count?,
    };
    let page_bytes = usize::from(u16::from_be_bytes([header[5], header[6]]));
    if count < HEADER || header[..4] != ours[..4] || !Bitfield::is_page_size(page_bytes) {
        return Ok(None);
    }
    let stored = files.len(FileKind::Bitfield)?.unwrap_or(0).saturating_sub(HEADER as u64);
    let pages = stored.div_ceil(page_bytes as u64);
    if pages > MAX_FEED_BLOCKS / BLOCKS_OF_A_PAGE {
        return Ok(None);
    }
    let mut bitfield = Bitfield::load(page_bytes, pages);
    Ok(bitfield.load_marks(&mark.pages).then_some(bitfield))
}
