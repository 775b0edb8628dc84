//! Which remote hears of which feed, and what is taken from whom.

use std::fmt;

use multifeed_proto::{FeedKey, ManifestFields, PeerKey, RemoteHandshake};

use crate::limits::PeerLimits;

/// The remote of a session, as a [`Policy`] sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remote {
    /// Its static key; zeros if the session did not report it. Anyone can have made one up: it says who the remote is only to someone who knows
    /// that key as somebody's.
    pub public_key: PeerKey,
    /// What it said in the multifeed handshake, its application's user data included.
    pub handshake: RemoteHandshake,
}

/// What an application decides of its sessions: which feeds a remote hears of, which of the remote's are wanted, and how much it may
/// bring. Each method's default is what JS does: everything is shared, and everything wanted.
///
/// It is given to a store ([`Options::policy`](crate::Options::policy)), or to a session in place of the store's
/// ([`Replicate::policy`](crate::Replicate::policy)). It is asked on the store's own thread whenever a feed could be announced or
/// opened. Its answers should be quick, and may be others the next time. A channel that is open then stays as it is, until
/// [`Multifeed::policy_changed`](crate::Multifeed::policy_changed) has all sessions ask again. What it refuses does not get past it by another
/// way. A remote that opens the channel of a feed that is not offered to it gets nothing. A feed that is not offered is not compared in a
/// [reconciliation](crate::reconcile) either.
///
/// A feed that is offered and not wanted is only served to the remote, and one that is wanted and not offered only fetched from it. One that
/// is neither is refused: its channel is not opened.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Whether a feed of this store is offered to the remote, and served to it. `writer` is its name if we write it.
    fn offers(&self, key: &FeedKey, writer: Option<&str>, remote: &Remote) -> bool {
        let _ = (key, writer, remote);
        true
    }

    /// Whether a feed is fetched from the remote, be it in this store already or not.
    fn wants(&self, key: &FeedKey, remote: &Remote) -> bool {
        let _ = (key, remote);
        true
    }

    /// Takes out of a list of feeds that the remote offers what is not wanted. It decides by what the remote's application says of them in
    /// `fields`: the members of the MANIFEST beside its `keys`, which JS applications give to `offerFeeds`. The keys are sorted. Asked once
    /// for each list, before [`wants`](Self::wants) is for each key that is left; for a feed in several lists the last one counts.
    fn choose(&self, keys: &mut Vec<FeedKey>, fields: Option<&ManifestFields>, remote: &Remote) {
        let _ = (keys, fields, remote);
    }

    /// Returns what the remote's application gets to know of the feeds that are about to be offered to it.
    fn fields(&self, keys: &[FeedKey], remote: &Remote) -> Option<ManifestFields> {
        let _ = (keys, remote);
        None
    }

    /// What the remote may bring; `None` for the store's [`Limits::peer`](crate::Limits::peer).
    fn limits(&self, remote: &Remote) -> Option<PeerLimits> {
        let _ = remote;
        None
    }
}
