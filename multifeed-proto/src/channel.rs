//! Channels: which are open on which side, under which numbers, and whether the remote proved that it knows their keys
//! (hypercore-protocol's `Channelizer`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::crypto::capability::Split;
use crate::error::{MessageError, SessionError};
use crate::event::Token;
use crate::key::{DiscoveryKey, FeedKey};
use crate::wire::frame;

/// Whose a channel is on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The session's own: the root key's.
    Root,
    /// The caller's.
    Feed(Token),
}

/// The channels of a stream.
#[derive(Debug)]
pub(crate) struct Channels {
    root: DiscoveryKey,
    /// The remote opened the root key's channel once.
    root_came: bool,
    /// The root key's channel on the remote's side, while our Close of it is not answered.
    root_closing: Option<u32>,
    root_local: Option<u32>,
    /// The next local id. They are never used again.
    next: u32,
    channels: BTreeMap<DiscoveryKey, Channel>,
    remote: BTreeMap<u32, Remote>,
    tokens: BTreeMap<Token, Local>,
}

/// A channel that at least one side opened.
#[derive(Debug)]
struct Channel {
    ours: Option<Ours>,
    remote: Option<u32>,
    /// What the remote's Open carried, while we have no key to check it with. None where it has not the size of one: that is
    /// as wrong, and must not cost what the remote likes.
    capability: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Ours {
    id: u32,
    owner: Owner,
    key: FeedKey,
}

/// What a remote's channel id stands for.
#[derive(Debug)]
struct Remote {
    discovery_key: DiscoveryKey,
    /// Set once both sides opened it.
    owner: Option<Owner>,
}

#[derive(Debug)]
struct Local {
    id: u32,
    discovery_key: DiscoveryKey,
}

/// What opening a channel ourselves leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LocalOpen {
    /// Its Open is to be sent; `complete` where the remote's was there before.
    Open { id: u32, discovery_key: DiscoveryKey, complete: bool },
    /// The remote's Open, which was there before, carried no proof: it is to be told by a Close with the discovery key.
    Unproven { id: u32, discovery_key: DiscoveryKey },
    /// The token is in use.
    TokenInUse,
    /// This key's channel is open under another token.
    KeyInUse,
    /// All ids have been used.
    Exhausted,
}

/// What a remote's Close leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteClose {
    /// The local id, to be answered with a Close.
    pub(crate) answer: Option<u32>,
    /// Whose channel it was.
    pub(crate) owner: Option<Owner>,
}

impl Channels {
    pub(crate) fn new(root: DiscoveryKey) -> Self {
        Self {
            root,
            root_came: false,
            root_closing: None,
            root_local: None,
            next: 1,
            channels: BTreeMap::new(),
            remote: BTreeMap::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// We open a channel.
    pub(crate) fn open(&mut self, owner: Owner, key: FeedKey, split: &Split) -> LocalOpen {
        if let Owner::Feed(token) = owner
            && self.tokens.contains_key(&token)
        {
            return LocalOpen::TokenInUse;
        }
        let discovery_key = key.discovery_key();
        let known = self.channels.get(&discovery_key);
        if known.is_some_and(|channel| channel.ours.is_some()) || (owner != Owner::Root && discovery_key == self.root) {
            return LocalOpen::KeyInUse;
        }
        let id = self.next;
        if id >= frame::CHANNELS {
            return LocalOpen::Exhausted;
        }
        self.next += 1;
        if known.is_some_and(|channel| !split.verify(&key, channel.capability.as_ref().map(<[u8; 32]>::as_slice))) {
            self.forget(&discovery_key);
            return LocalOpen::Unproven { id, discovery_key };
        }
        let channel =
            self.channels.entry(discovery_key).or_insert(Channel { ours: None, remote: None, capability: None });
        channel.ours = Some(Ours { id, owner, key });
        channel.capability = None;
        let remote = channel.remote.and_then(|remote| self.remote.get_mut(&remote));
        let complete = remote.map(|remote| remote.owner = Some(owner)).is_some();
        match owner {
            Owner::Root => self.root_local = Some(id),
            Owner::Feed(token) => drop(self.tokens.insert(token, Local { id, discovery_key })),
        }
        LocalOpen::Open { id, discovery_key, complete }
    }

    /// The remote opened a channel: whose it is, where we had opened it too. At most `limit` of the remote's stay open.
    pub(crate) fn remote_open(
        &mut self,
        id: u32,
        discovery_key: DiscoveryKey,
        capability: Option<Vec<u8>>,
        split: &Split,
        limit: usize,
    ) -> Result<Option<Owner>, SessionError> {
        let known = self.channels.get(&discovery_key);
        if id == 0 || self.remote.contains_key(&id) || known.is_some_and(|channel| channel.remote.is_some()) {
            return Err(MessageError::OpenTwice.into());
        }
        let ours = known.and_then(|channel| channel.ours.as_ref());
        if let Some(ours) = ours
            && !split.verify(&ours.key, capability.as_deref())
        {
            return Err(SessionError::Capability(discovery_key));
        }
        // As in JS: what we opened ourselves may come at any time, anything else only after the root key's channel.
        let is_root = discovery_key == self.root;
        if ours.is_none() && !is_root && !self.root_came {
            return Err(SessionError::RootKeyMismatch { us: self.root, them: discovery_key });
        }
        if self.remote.len() >= limit {
            return Err(SessionError::limit("channels", limit));
        }
        let owner = ours.map(|ours| ours.owner);
        self.root_came |= is_root;
        self.remote.insert(id, Remote { discovery_key, owner });
        let channel =
            self.channels.entry(discovery_key).or_insert(Channel { ours: None, remote: None, capability: None });
        channel.remote = Some(id);
        channel.capability = capability.filter(|_| owner.is_none()).and_then(|bytes| bytes.try_into().ok());
        Ok(owner)
    }

    /// We close a channel: its local id, where it was open.
    pub(crate) fn close(&mut self, owner: Owner) -> Option<u32> {
        let (id, discovery_key) = match owner {
            Owner::Root => (self.root_local?, self.root),
            Owner::Feed(token) => self.tokens.get(&token).map(|local| (local.id, local.discovery_key))?,
        };
        let channel = self.forget(&discovery_key)?;
        if owner == Owner::Root {
            self.root_closing = channel.remote;
        }
        Some(id)
    }

    /// The remote closed a channel, by its id or by its discovery key.
    pub(crate) fn remote_close(&mut self, id: u32, discovery_key: Option<DiscoveryKey>) -> RemoteClose {
        if self.root_closing == Some(id) {
            self.root_closing = None;
            return RemoteClose { answer: None, owner: Some(Owner::Root) };
        }
        let named = self.remote.get(&id).map(|remote| remote.discovery_key);
        let channel = named.or(discovery_key).and_then(|discovery_key| self.forget(&discovery_key));
        let ours = channel.and_then(|channel| channel.ours);
        RemoteClose { answer: ours.as_ref().map(|ours| ours.id), owner: ours.map(|ours| ours.owner) }
    }

    /// Whose channel a remote's id stands for, where both sides opened it.
    pub(crate) fn route(&self, id: u32) -> Option<Owner> {
        self.remote.get(&id)?.owner
    }

    /// The local id of a channel that we opened.
    pub(crate) fn local_id(&self, token: Token) -> Option<u32> {
        self.tokens.get(&token).map(|local| local.id)
    }

    fn forget(&mut self, discovery_key: &DiscoveryKey) -> Option<Channel> {
        let channel = self.channels.remove(discovery_key)?;
        if let Some(id) = channel.remote {
            self.remote.remove(&id);
        }
        match channel.ours.as_ref().map(|ours| ours.owner) {
            Some(Owner::Root) => self.root_local = None,
            Some(Owner::Feed(token)) => drop(self.tokens.remove(&token)),
            None => {}
        }
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DEFAULT_ROOT_KEY;

    const KEY: FeedKey = FeedKey::new([7; 32]);
    const FEED: Owner = Owner::Feed(Token(1));

    fn splits() -> (Split, Split) {
        (Split { tx: [1; 32], rx: [2; 32] }, Split { tx: [2; 32], rx: [1; 32] })
    }

    /// Our channels with the root's open on both sides (local id 1, remote id 1).
    fn channels() -> (Channels, Split, Split) {
        let (ours, theirs) = splits();
        let root = DEFAULT_ROOT_KEY;
        let mut channels = Channels::new(root.discovery_key());
        assert!(matches!(channels.open(Owner::Root, root, &ours), LocalOpen::Open { id: 1, complete: false, .. }));
        let capability = Some(theirs.capability(&root).to_vec());
        let owner = channels.remote_open(1, root.discovery_key(), capability, &ours, 8);
        assert_eq!(owner, Ok(Some(Owner::Root)));
        (channels, ours, theirs)
    }

    fn remote_open(
        channels: &mut Channels,
        id: u32,
        key: FeedKey,
        split: &Split,
        theirs: &Split,
    ) -> Result<Option<Owner>, SessionError> {
        channels.remote_open(id, key.discovery_key(), Some(theirs.capability(&key).to_vec()), split, 8)
    }

    fn is_empty(channels: &Channels) -> bool {
        channels.channels.len() == 1 && channels.remote.len() == 1 && channels.tokens.is_empty()
    }

    #[test]
    fn opens_in_either_order() {
        let (mut channels, ours, theirs) = channels();
        assert!(matches!(channels.open(FEED, KEY, &ours), LocalOpen::Open { id: 2, complete: false, .. }));
        assert_eq!(channels.route(5), None);
        assert_eq!(remote_open(&mut channels, 5, KEY, &ours, &theirs), Ok(Some(FEED)));
        assert_eq!((channels.route(5), channels.local_id(Token(1))), (Some(FEED), Some(2)));

        let other = FeedKey::new([8; 32]);
        assert_eq!(remote_open(&mut channels, 6, other, &ours, &theirs), Ok(None));
        assert_eq!(channels.route(6), None);
        let second = Owner::Feed(Token(2));
        assert!(matches!(channels.open(second, other, &ours), LocalOpen::Open { id: 3, complete: true, .. }));
        assert_eq!(channels.route(6), Some(second));
    }

    #[test]
    fn closes_from_either_side_leave_nothing_behind() {
        let (mut channels, ours, theirs) = channels();
        channels.open(FEED, KEY, &ours);
        remote_open(&mut channels, 5, KEY, &ours, &theirs).unwrap();
        assert_eq!(channels.close(FEED), Some(2));
        assert!(is_empty(&channels));
        assert_eq!(channels.close(FEED), None);
        assert_eq!(channels.remote_close(5, None), RemoteClose::default());

        // Ids are not used again.
        assert!(matches!(channels.open(FEED, KEY, &ours), LocalOpen::Open { id: 3, complete: false, .. }));
        remote_open(&mut channels, 6, KEY, &ours, &theirs).unwrap();
        assert_eq!(channels.remote_close(6, None), RemoteClose { answer: Some(3), owner: Some(FEED) });
        assert!(is_empty(&channels));

        channels.open(FEED, KEY, &ours);
        let by_key = channels.remote_close(77, Some(KEY.discovery_key()));
        assert_eq!(by_key, RemoteClose { answer: Some(4), owner: Some(FEED) });
        assert!(is_empty(&channels));

        remote_open(&mut channels, 9, KEY, &ours, &theirs).unwrap();
        assert_eq!(channels.remote_close(9, None), RemoteClose::default());
        assert!(is_empty(&channels));
    }

    #[test]
    fn a_wrong_capability_is_fatal_where_we_opened_first() {
        let (mut channels, ours, _) = channels();
        channels.open(FEED, KEY, &ours);
        let dk = KEY.discovery_key();
        // Ours sent back to us is wrong too: the two sides' capabilities differ.
        for capability in [None, Some(Vec::new()), Some(alloc::vec![0; 32]), Some(ours.capability(&KEY).to_vec())] {
            assert_eq!(channels.remote_open(5, dk, capability, &ours, 8), Err(SessionError::Capability(dk)));
            assert_eq!(channels.route(5), None);
        }
    }

    #[test]
    fn a_wrong_capability_is_told_where_the_remote_opened_first() {
        let (mut channels, ours, _) = channels();
        let discovery_key = KEY.discovery_key();
        assert_eq!(channels.remote_open(5, discovery_key, None, &ours, 8), Ok(None));
        assert_eq!(channels.open(FEED, KEY, &ours), LocalOpen::Unproven { id: 2, discovery_key });
        assert!(is_empty(&channels));
        // Its answer means nothing any more, and the id that the Close used up is gone.
        assert_eq!(channels.remote_close(5, None), RemoteClose::default());
        assert!(matches!(channels.open(FEED, KEY, &ours), LocalOpen::Open { id: 3, .. }));
    }

    #[test]
    fn opens_that_break_the_rules() {
        let (mut channels, ours, theirs) = channels();
        let twice = Err(SessionError::Message(MessageError::OpenTwice));
        assert_eq!(remote_open(&mut channels, 0, KEY, &ours, &theirs), twice);
        assert_eq!(remote_open(&mut channels, 1, KEY, &ours, &theirs), twice);
        assert_eq!(remote_open(&mut channels, 2, KEY, &ours, &theirs), Ok(None));
        assert_eq!(remote_open(&mut channels, 3, KEY, &ours, &theirs), twice);
        for n in 3..9 {
            assert_eq!(remote_open(&mut channels, n, FeedKey::new([100 + n as u8; 32]), &ours, &theirs), Ok(None));
        }
        let full = Err(SessionError::limit("channels", 8));
        assert_eq!(remote_open(&mut channels, 9, FeedKey::new([9; 32]), &ours, &theirs), full);
        channels.open(FEED, FeedKey::new([50; 32]), &ours);
        assert_eq!(channels.open(FEED, FeedKey::new([51; 32]), &ours), LocalOpen::TokenInUse);
        assert_eq!(channels.open(Owner::Feed(Token(2)), FeedKey::new([50; 32]), &ours), LocalOpen::KeyInUse);
        assert_eq!(channels.open(Owner::Feed(Token(2)), DEFAULT_ROOT_KEY, &ours), LocalOpen::KeyInUse);
    }

    #[test]
    fn the_root_must_come_first() {
        let (ours, theirs) = splits();
        let root = DEFAULT_ROOT_KEY.discovery_key();
        let mut channels = Channels::new(root);
        channels.open(Owner::Root, DEFAULT_ROOT_KEY, &ours);
        let them = KEY.discovery_key();
        let error = SessionError::RootKeyMismatch { us: root, them };
        assert_eq!(remote_open(&mut channels, 1, KEY, &ours, &theirs), Err(error));
    }

    #[test]
    fn the_root_closes_once() {
        let (mut channels, ..) = channels();
        assert_eq!(channels.close(Owner::Root), Some(1));
        assert_eq!(channels.close(Owner::Root), None);
        assert_eq!(channels.remote_close(1, None), RemoteClose { answer: None, owner: Some(Owner::Root) });
        assert_eq!(channels.remote_close(1, None), RemoteClose::default());
    }
}
