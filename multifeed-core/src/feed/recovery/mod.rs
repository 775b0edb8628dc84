//! Opening a feed after whatever happened to it: docs/recovery.md has the table of what is done.
//!
//! What the journal knows is trusted if the files fit it. The rest is proven downward from signatures, for both roles. A writer is then as long as what
//! is signed and whole, and refuses to be shorter than it was; a reader's feed loses blocks, which come again. If less is here than the journal
//! knows, nothing is changed before a remote brings something.

mod hidden;
mod lengths;
mod older;
mod reader;
mod recheck;
mod remake;
mod repair;
pub(super) mod report;
mod unended;
mod writer;

use self::report::Recovered;
pub(super) use self::unended::Refused;
use super::Feed;
use crate::cores::journal::Checkpoint;
use crate::error::StoreError;
use crate::merkle;
use crate::storage::Storage;

/// What the last block held tells of `data`.
enum State {
    /// It is there, and so `data` goes as far as any block before it.
    Whole,
    /// It is empty, and lies past the end of `data`: whether those before it are there it does not tell.
    SaysNothing,
    Missing,
    /// The disk does not give it. The file goes as far as it should, and the disk may give it again: it stays marked, as any that rotted.
    Unreadable,
}

impl Feed {
    /// Finds the length, and makes marks and files agree. See [`Feed::open`] for what is looked at. What is wrong with a file and cannot be set right is
    /// added to `told`.
    pub(super) fn recover<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: Option<&Checkpoint>,
        unclean: bool,
        told: &mut Vec<StoreError>,
    ) -> Result<(), StoreError> {
        let mut report = Recovered::new(self.key, self.slot);
        report.marked_length = merkle::length(&self.bitfield);
        report.unclean = unclean;
        report.synced_length = known.filter(|mark| mark.synced).map(|mark| mark.length);
        match self.writable() {
            true => self.recover_writer(storage, known, report),
            false => self.recover_reader(storage, known, report, told),
        }
    }

    /// Writes what was set right, and keeps the report of it, if there was anything.
    fn write_repairs<S: Storage + ?Sized>(&mut self, storage: &mut S, report: Recovered) -> Result<(), StoreError> {
        self.keep_data_file(storage)?;
        if self.bitfield.is_dirty()
            || !self.staged.is_empty()
            || report.marked_length != report.length
            || report.synced_lost > 0
            || !report.lost.is_empty()
        {
            self.flush(storage)?;
            self.recovered = Some(Box::new(report));
        }
        Ok(())
    }
}

/// Whether the journal knows this root hash of a length.
fn is_known(known: Option<&Checkpoint>, length: u64, root_hash: &[u8; 32]) -> bool {
    known.is_some_and(|mark| mark.length == length && mark.has_root(root_hash))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::cores::journal::{Journal, VerifiedSignature};
    use crate::feed::Opening;
    use crate::feed::files::{HEADER, SIGNATURE};
    use crate::keys::key_pair::KeyPair;
    use crate::keys::signer::Signers;
    use crate::limits::Limits;
    use crate::storage::{FileId, FileKind, MemoryStorage, Slot};

    #[test]
    fn a_sealed_signature_is_not_verified_anew_and_any_other_is() {
        let (slot, pair) = (Slot(0), KeyPair::from_seed(&[1; 32]));
        let mut disk = MemoryStorage::new();
        let mut feed = Feed::create(&mut disk, slot, pair.public_key(), Some(&pair), None).unwrap();
        feed.append(&mut disk, &[Bytes::from("block")]).unwrap();
        let good = feed.mark(true);
        assert!(good.seal.is_some());
        // Something that is no signature, which only a seal can make pass for one.
        disk.write_at(FileId::new(slot, FileKind::Signatures), HEADER as u64, &[7; SIGNATURE]).unwrap();
        let believed =
            good.seal.map(|seal| VerifiedSignature { signature: VerifiedSignature::checksum(&[7; SIGNATURE]), ..seal });
        let sealed = Checkpoint { seal: believed, ..good.clone() };
        let reopen = |mark: Checkpoint| {
            let mut journal = Journal::default();
            journal.note(slot, mark);
            Feed::open_known(
                &mut disk.clone(),
                slot,
                &journal,
                &mut Opening::new(&Limits::default(), &Signers::default()),
            )
            .unwrap()
        };
        assert_eq!(reopen(sealed.clone()).recovered(), None);
        let others = [
            good.clone(),
            Checkpoint { seal: None, ..good.clone() },
            Checkpoint { length: 0, ..sealed.clone() },
            Checkpoint { root: [0; 8], ..sealed.clone() },
            Checkpoint { key: [0; 8], ..sealed },
        ];
        for mark in others {
            let feed = reopen(mark);
            assert!(feed.recovered().is_some_and(|recovered| recovered.signed_again));
            assert_eq!(feed.mark(true), good);
        }
    }
}
