//! What the store's thread reports to the handles.

use multifeed_core::{MultifeedEvent, PeerEvent, SessionId, SetId, Storage, SyncError};

use crate::shared::multifeed_events::EventQueue;
use crate::shared::session_events::SyncEvent;
use crate::store::thread::Store;
use crate::store::thread::holders::Opened;

impl<S: Storage> Store<S> {
    /// Passes on what a session has for the application. The feeds' handles show it by then.
    pub(super) fn pass_events(&mut self, peer: SessionId) {
        let mut told = false;
        while let Some(event) = self.multi.poll_peer_event(peer) {
            if !std::mem::replace(&mut told, true) {
                self.tell();
            }
            let Some(connected) = self.peers.get_mut(&peer) else {
                continue;
            };
            let event = match event {
                PeerEvent::Connected { remote_public_key, handshake_hash } => {
                    SyncEvent::Connected { remote_public_key, handshake_hash }
                }
                PeerEvent::Ready(handshake) => SyncEvent::Ready(handshake),
                PeerEvent::RemoteFeeds { keys } => SyncEvent::RemoteFeeds { keys },
                PeerEvent::Feed { key, name } => SyncEvent::Feed { key, name },
                PeerEvent::OffersRefused { feeds, limit } => SyncEvent::OffersRefused { feeds, limit },
                PeerEvent::LimitReached(error) => SyncEvent::LimitReached(error),
                PeerEvent::DiskFull(error) => SyncEvent::DiskFull { reason: error.to_string() },
                PeerEvent::SpaceFreed => SyncEvent::SpaceFreed,
                PeerEvent::TooLarge { key, index, size } => SyncEvent::TooLarge { key, index, size },
                PeerEvent::SlowBlock { key, index, size, per_second } => {
                    SyncEvent::SlowBlock { key, index, size, per_second }
                }
                PeerEvent::Damaged { key, block, error } => {
                    let repairable = error.is_of_one_place() && self.multi.find(&key).is_some();
                    let error = self.multi.told(error);
                    SyncEvent::Damaged { key, block, reason: error.to_string(), code: error.code(), repairable }
                }
                PeerEvent::Conflict { key, conflict } => SyncEvent::Conflict { key, conflict },
                PeerEvent::WriterBehind { key, held, len } => SyncEvent::WriterBehind { key, held, len },
                PeerEvent::Progress(progress) => SyncEvent::Progress(progress),
                PeerEvent::Closed(end) => {
                    connected.end = Some(end.map_err(|error| match error {
                        SyncError::Store(error) => SyncError::Store(self.multi.told(error)),
                        error => error,
                    }));
                    continue;
                }
                _ => continue,
            };
            connected.link.sync.push(event);
        }
    }

    /// Reports to the handles what happened to the feeds.
    pub(super) fn tell(&mut self) {
        let mut renumbered = false;
        while let Some(event) = self.multi.poll_event() {
            renumbered |= matches!(event, MultifeedEvent::Removed { .. } | MultifeedEvent::Moved { .. });
            match event {
                MultifeedEvent::Feed { id, .. } => self.tell_of_new(SetId::ALL, id),
                MultifeedEvent::Included { set, id } => self.tell_of_new(set, id),
                MultifeedEvent::Blocks { id } => self.publish(id, EventQueue::blocks),
                MultifeedEvent::Removed { id, .. } => {
                    self.watchers.forget(id);
                    self.inboxes.forget(id);
                    let Ok(info) = self.multi.info(id) else { continue };
                    for Opened { shared, .. } in self.holders.multifeeds.values() {
                        if let Some(feed) = shared.table.remove(info.clone()) {
                            shared.publish(|queue| queue.removed(&feed));
                        }
                    }
                }
                MultifeedEvent::Moved { id, name } => {
                    let Ok(slot) = self.multi.slot_of(id) else { continue };
                    for Opened { shared, .. } in self.holders.multifeeds.values() {
                        if let Some(feed) = shared.table.move_to(id, slot, name.clone()) {
                            shared.publish(|queue| queue.renamed(&feed));
                        }
                    }
                }
                MultifeedEvent::Conflict { id, conflict, .. } => {
                    self.publish(id, |queue, feed| queue.conflict(feed, &conflict));
                }
                MultifeedEvent::WriterBehind { id, .. } => self.publish(id, EventQueue::writer_behind),
                _ => {}
            }
        }
        if renumbered || self.multi.unsupported() != self.unsupported {
            self.unsupported = self.multi.unsupported();
            self.holders.store.note_found(&self.multi);
        }
        self.end_waits();
        while let Some((feed, event)) = self.multi.poll_feed_event() {
            let peers = &self.peers;
            let event = event.map_peer(|peer| peers.get(&peer).map(|connected| connected.link.id));
            if !self.watchers.tell(feed, event) {
                // The id was the store's own.
                let _ = self.multi.watch(feed, false);
            }
        }
    }
}
