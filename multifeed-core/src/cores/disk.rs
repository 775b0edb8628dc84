//! Whether the disk takes anything new.

use std::time::Duration;

use crate::error::StoreError;

/// The free space of a store's disk, as far as it was looked at.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Why nothing new is taken.
    full: Option<StoreError>,
    /// When it is looked at next.
    next_look: Duration,
    /// Bytes that may come before it is looked at again.
    room: u64,
}

impl Disk {
    pub(crate) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Why nothing new is taken.
    pub(crate) fn why(&self) -> Option<&StoreError> {
        self.full.as_ref()
    }

    pub(crate) fn set_full(&mut self, why: Option<StoreError>) {
        self.full = why;
    }

    /// Counts bytes that are about to be written. False if the disk has to be looked at before more come.
    pub(crate) fn has_room(&mut self, bytes: u64) -> bool {
        self.room = self.room.saturating_sub(bytes);
        self.room > 0
    }

    pub(crate) fn set_room(&mut self, bytes: u64) {
        self.room = bytes;
    }

    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next_look
    }

    /// Sets when the disk is looked at next.
    pub(crate) fn look_at(&mut self, time: Duration) {
        self.next_look = time;
    }
}
