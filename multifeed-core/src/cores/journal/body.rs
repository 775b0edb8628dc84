//! A record as it is read: a piece at a time, since a forged one may have any size.

use super::checkpoint::start;
use super::{FILE, RECORD, checksum};
use crate::error::StoreError;
use crate::storage::Storage;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Why a record is read no further.
#[derive(Debug)]
pub(super) enum Stop {
    Io(StoreError),
    /// It is none of ours, whatever its checksum says.
    Malformed,
    /// It tells of more folders that do not exist than is believed.
    Absent,
}

/// The body of a record.
pub(super) struct Body<'a, S: ?Sized> {
    storage: &'a mut S,
    /// What was read, up to `at` of the file, and of that what was not taken yet.
    buffer: Vec<u8>,
    taken: usize,
    at: u64,
    end: u64,
}

impl<'a, S: Storage + ?Sized> Body<'a, S> {
    /// The record at an offset of a file of this length, if it is whole.
    pub(super) fn find(storage: &'a mut S, offset: u64, len: u64, number: u64) -> Result<Option<Self>, StoreError> {
        let start_of_body = offset + RECORD as u64;
        let mut body = Self { storage, buffer: Vec::new(), taken: 0, at: offset, end: start_of_body };
        if start_of_body > len {
            return Ok(None);
        }
        let (size, sum) = match (body.take(), body.take::<8>()) {
            (Ok(size), Ok(sum)) => (u32::from_le_bytes(size), sum),
            (Err(Stop::Io(error)), _) | (_, Err(Stop::Io(error))) => return Err(error),
            _ => return Ok(None),
        };
        body.end += u64::from(size);
        if body.end > len {
            return Ok(None);
        }
        let mut state = checksum(number);
        while body.at < body.end {
            body.taken = body.buffer.len();
            match body.fill(1) {
                Ok(()) => _ = state.update(&body.buffer[body.taken..]),
                Err(Stop::Io(error)) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
        // One that is short is there already.
        (body.at, body.taken) = if body.buffer.len() as u64 == u64::from(size) {
            (body.end, 0)
        } else {
            (start_of_body, body.buffer.len())
        };
        Ok((start(state.finalize().as_bytes()) == sum).then_some(body))
    }

    /// Returns its end in the file.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.end && self.taken == self.buffer.len()
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.bytes(N)?.first_chunk().copied().ok_or(Stop::Malformed)
    }

    /// The next bytes, which are few.
    pub(super) fn bytes(&mut self, count: usize) -> Result<&[u8], Stop> {
        self.fill(count)?;
        let bytes = &self.buffer[self.taken..self.taken + count];
        self.taken += count;
        Ok(bytes)
    }

    /// Has so many bytes in the buffer.
    fn fill(&mut self, count: usize) -> Result<(), Stop> {
        let left = self.buffer.len() - self.taken;
        if left >= count {
            return Ok(());
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let more = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(PIECE.max(count) - left);
        self.buffer.resize(left + more, 0);
        let read = self.storage.read_at(FILE, self.at, &mut self.buffer[left..]);
        let read = read.map_err(|error| Stop::Io(StoreError::from_file(FILE, "read", error)))?;
        self.at += read as u64;
        if read < more || left + more < count { Err(Stop::Malformed) } else { Ok(()) }
    }
}
