//! Damage of the file, told from what a power cut leaves of it.
//!
//! A cut leaves an end that is missing, or sectors of a record that are zeros. A record that is neither and has another checksum was
//! changed after it was written, and what it and those behind it said is lost: also which writers there were. That is noted in the header, so that
//! the file still says so once it is written anew.

use super::checkpoint::start;
use super::{FILE, File, HEADER, Journal, MAGIC, RECORD, checksum};
use crate::error::StoreError;
use crate::limits::Limits;
use crate::storage::Storage;

/// Where in the header the note stands: a byte that is 1 if the file was damaged, else 0.
pub(super) const NOTE: usize = 22;
const SECTOR: u64 = 512;
/// Bytes behind a torn record that are searched for the next one, and bytes that are hashed for that.
const SEARCHED: usize = 64 << 10;
const HASHED: usize = 4 << 20;

impl Journal {
    /// What is wrong with the file, if that may have lost who writers were.
    pub(crate) fn damage(&self) -> Option<StoreError> {
        let what = self.damage.as_ref()?;
        let (until, or_else) = match self.file {
            File::Unreadable => (
                "Nothing is written to the store as long as it cannot be read: let it be read, or put it back. ",
                "If that cannot be, and no writer is missing",
            ),
            _ => ("", "If no writer is missing"),
        };
        let why = format!(
            "{what}: it may name writers that are missing. {until}Put back folders that are gone; a new writer is made only if that is asked \
             for (--new-key). {or_else}, end the processes that have the store open, and delete this file"
        );
        Some(StoreError::damaged(FILE.slot, FILE.kind, why))
    }

    /// The disk does not give the file, or not all of it.
    pub(super) fn cannot_be_read(&mut self, error: &StoreError) {
        (self.file, self.open, self.unclean) = (File::Unreadable, false, true);
        self.note_damage(error.to_string());
    }

    pub(super) fn note_damage(&mut self, what: impl Into<String>) {
        self.damage.get_or_insert_with(|| what.into());
    }
}

/// Whether a power cut while the file was made leaves such a header.
pub(super) fn is_torn_header(bytes: &[u8]) -> bool {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.len() < HEADER && bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())])
        || MAGIC.starts_with(&bytes[..end])
}

/// Whether the record of this number, which is not whole, is one that a power cut does not leave.
pub(super) fn is_damaged<S: Storage + ?Sized>(
    storage: &mut S,
    (offset, len): (u64, u64),
    number: u64,
    limits: &Limits,
) -> Result<bool, StoreError> {
    let mut read = |at: u64, buffer: &mut [u8]| {
        storage.read_at(FILE, at, buffer).map_err(|error| StoreError::from_file(FILE, "read", error))
    };
    let mut size = [0; 4];
    if read(offset, &mut size)? < size.len() {
        return Ok(false);
    }
    let size = u64::from(u32::from_le_bytes(size));
    let claimed = offset + RECORD as u64 + size;
    let (mut at, mut sector) = (offset, [0; SECTOR as usize]);
    while at < claimed.min(len) {
        let next = ((at / SECTOR + 1) * SECTOR).min(claimed).min(len);
        let count = (next - at) as usize;
        let count = read(at, &mut sector[..count])?;
        if sector[..count].iter().all(|byte| *byte == 0) {
            return Ok(false);
        }
        at = next;
    }
    if claimed <= len || size > limits.journal_bytes {
        return Ok(true);
    }
    // The size itself may be what is wrong: then the next record is there.
    let mut rest = vec![0; usize::try_from(len - offset).unwrap_or(usize::MAX).min(SEARCHED)];
    let count = read(offset, &mut rest)?;
    rest.truncate(count);
    let mut hashed = 0;
    for at in RECORD..rest.len() {
        let Some((size, more)) = rest[at..].split_first_chunk() else { break };
        let Some((sum, more)) = more.split_first_chunk::<8>() else { break };
        let size = u32::from_le_bytes(*size) as usize;
        let Some(body) = more.get(..size).filter(|body| !body.is_empty()) else { continue };
        hashed += size;
        if hashed > HASHED {
            break;
        }
        if start(checksum(number + 1).update(body).finalize().as_bytes()) == *sum {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cores::journal::{Checkpoint, name};
    use crate::storage::{MemoryStorage, Slot};
    use multifeed_proto::FeedKey;

    /// A file of four records, and where they begin.
    fn written() -> (Vec<u8>, Vec<usize>) {
        let mut disk = MemoryStorage::new();
        let mut journal = Journal::default();
        journal.begin(&mut disk, 0, true).unwrap();
        let mut starts = Vec::new();
        for slot in 0..4 {
            starts.push(disk.len(FILE).unwrap().unwrap() as usize);
            let key = name(&FeedKey::new([slot as u8 + 1; 32]));
            journal.note(Slot(slot), Checkpoint { key, length: 0x0101_0101, root: [7; 8], ..Checkpoint::default() });
            journal.write(&mut disk, true).unwrap();
        }
        (disk.contents(FILE).unwrap(), starts)
    }

    fn damage_of(bytes: &[u8]) -> Option<StoreError> {
        let mut disk = MemoryStorage::new();
        disk.write_at(FILE, 0, bytes).unwrap();
        Journal::read(&mut disk, &Limits::default()).unwrap().damage()
    }

    #[test]
    fn every_byte_that_changed_is_noticed_and_no_end_that_a_power_cut_leaves() {
        let (bytes, starts) = written();
        let last = *starts.last().unwrap();
        for at in (0..MAGIC.len()).chain(HEADER..bytes.len()) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            // A greater size of the last one looks like a record whose end is missing.
            let seen = at < last || at >= last + 4;
            assert!(!seen || damage_of(&changed).is_some(), "byte {at}");
        }
        for len in 0..=bytes.len() {
            assert!(damage_of(&bytes[..len]).is_none(), "{len} bytes");
            // The file is as long as it was to be, and the last record's sector was not written.
            if starts.contains(&len) || len == 0 {
                let zeros = vec![0; bytes.len() - len];
                assert!(damage_of(&[&bytes[..len], &zeros].concat()).is_none(), "zeros from {len}");
            }
        }
    }

    #[test]
    fn it_is_told_as_long_as_the_file_is_there() {
        let (mut bytes, starts) = written();
        bytes[starts[1] + RECORD + 20] ^= 1;
        let mut disk = MemoryStorage::new();
        disk.write_at(FILE, 0, &bytes).unwrap();
        for _ in 0..2 {
            let mut journal = Journal::read(&mut disk, &Limits::default()).unwrap();
            assert!(journal.damage().is_some());
            journal.begin(&mut disk, 4, true).unwrap();
            assert!(Journal::read(&mut disk, &Limits::default()).unwrap().damage().is_some());
            journal.close(&mut disk, true).unwrap();
            assert!(Journal::read(&mut disk, &Limits::default()).unwrap().damage().is_some());
        }
    }
}
