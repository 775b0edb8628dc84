//! What is known to be on the disk of a feed.

use super::Feed;
use super::cache::encode;
use super::files::{BLOCKS_OF_A_PAGE, Files};
use crate::cores::journal::{Checkpoint, VerifiedSignature, Writer};
use crate::error::StoreError;
use crate::keys::signer::WriterKey;
use crate::merkle;
use crate::storage::{FileKind, Storage};

impl Feed {
    /// Makes all that was written outlive a power cut. What is staged is not written by it.
    ///
    /// # Errors
    /// The storage's error. Nobody knows then what of it is on the disk, also not if a second try goes well.
    pub fn sync<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        self.sync_key(storage)?;
        let mut files = Files { storage, slot: self.slot };
        // The bitfield last, as it is written: most of what is cut in the middle of this is then whole without it.
        [FileKind::Data, FileKind::Tree, FileKind::Signatures, FileKind::Bitfield]
            .into_iter()
            .try_for_each(|kind| files.sync(kind))
    }

    /// Fsyncs `key`, unless that was done before.
    pub(crate) fn sync_key<S: Storage + ?Sized>(&mut self, storage: &mut S) -> Result<(), StoreError> {
        if !self.key_synced {
            Files { storage, slot: self.slot }.sync(FileKind::Key)?;
            self.key_synced = true;
        }
        Ok(())
    }

    /// Whether the journal may note what is held: not of a writer of which more may have been signed than is here.
    pub(crate) fn is_known_to_be_whole(&self) -> bool {
        self.refusal().is_none()
    }

    /// What is held now, for the journal; nothing of it may be staged.
    pub(crate) fn mark(&self, synced: bool) -> Checkpoint {
        if let Some(known) = self.newer_mark() {
            let mut known = known.clone();
            if let Some(writer) = known.writer.as_mut().filter(|_| self.writable()) {
                writer.name.clone_from(&self.local_name);
            }
            return known;
        }
        let mut mark = Checkpoint::new(&self.key, self.length, &merkle::root_hash(&self.roots));
        mark.synced = synced;
        mark.writer_behind = self.is_writer_behind();
        mark.seal = self
            .verified
            .filter(|(length, _)| *length == self.length)
            .map(|(_, signature)| VerifiedSignature { signature, secret: self.secret_checksum() });
        match self.writable() {
            true => {
                mark.writer = Some(Box::new(Writer { key: self.key, name: self.local_name.clone() }));
                mark.pages = self.cleared_marks();
            }
            false => {
                mark.pages = self.bitfield.marks();
                mark.writer = self.unread_writer.as_ref().map(|unread| Box::new(unread.0.clone()));
            }
        }
        mark
    }

    /// What stands for the secret key in the journal.
    fn secret_checksum(&self) -> [u8; 8] {
        match self.writer_key.as_deref() {
            Some(WriterKey::Here(pair)) => VerifiedSignature::checksum(&pair.secret_key()),
            Some(WriterKey::Elsewhere(_)) => VerifiedSignature::ELSEWHERE,
            None => self.unread_writer.as_ref().map_or([0; 8], |unread| unread.1),
        }
    }

    /// Its roots as `tree` has them, if they may lie far apart.
    pub(crate) fn scattered_roots(&self) -> Box<[u8]> {
        let roots = self.roots.iter().filter(|_| self.length > BLOCKS_OF_A_PAGE);
        roots.flat_map(encode).collect()
    }

    /// What was known of a remote feed and is still held.
    pub(crate) fn checkpoint_within(&self, known: &Checkpoint) -> Checkpoint {
        let mut held = self.bitfield.clone();
        held.keep_only(&known.pages);
        Checkpoint { pages: held.marks(), stamp: None, ..known.clone() }
    }
}
