//! Channels: which are open on which side, under which numbers, and whether the remote proved that it knows their keys
//! (hypercore-protocol's `Channelizer`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::crypto::capability::Split;
use crate::error::{MessageError, SessionError};
use crate::extension::Extensions;
use crate::ids::{Root, Token};
use crate::key::{DiscoveryKey, FeedKey};
use crate::machine::Machine;
use crate::wire::frame;

/// Whose a channel is on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A multifeed's: a root key's channel.
    Root(Root),
    /// The caller's: a feed's channel.
    Feed(Token),
}

/// Closed channels of feeds that are remembered while the remote does not answer.
const CLOSING: usize = 1024;

/// The channels of a stream.
#[derive(Debug)]
pub(crate) struct Channels {
    /// The next local id. They are never used again.
    next: u32,
    channels: BTreeMap<DiscoveryKey, Channel>,
    remote: BTreeMap<u32, Remote>,
    tokens: BTreeMap<Token, Local>,
    roots: BTreeMap<Root, Local>,
    /// Channels that we closed, by the remote's ids, until it answers; no more than [`CLOSING`] of feeds.
    closing: BTreeMap<u32, Owner>,
}

/// A channel that at least one side opened.
#[derive(Debug)]
struct Channel {
    side: Side,
    ours: Option<Ours>,
    remote: Option<u32>,
    /// What the remote's Open carried, while we have no key to check it with. None if it has not the size of one: that is
    /// as wrong, and must not cost what the remote likes.
    capability: Option<[u8; 32]>,
}

/// Who has opened a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Nobody,
    Ours,
    Theirs,
    Both,
}

/// What changes that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// We open it; the remote's Open, if there is one, proves that it knows the key.
    Open,
    /// We would open it, and the remote's Open does not prove it; or we tell that we will not.
    Refuse,
    /// We close it.
    Close,
    /// The remote opens it, and proves that it knows the key, if we have one to check with.
    RemoteOpen,
    /// The remote closes it.
    RemoteClose,
}

impl Machine for Side {
    type Input = Step;
    const START: Self = Self::Nobody;
    const MOVES: &'static [(Self, Step, Self)] = &[
        (Self::Nobody, Step::Open, Self::Ours),
        (Self::Nobody, Step::RemoteOpen, Self::Theirs),
        (Self::Ours, Step::RemoteOpen, Self::Both),
        (Self::Theirs, Step::Open, Self::Both),
        (Self::Theirs, Step::Refuse, Self::Nobody),
        (Self::Theirs, Step::RemoteClose, Self::Nobody),
        (Self::Ours, Step::Close, Self::Nobody),
        (Self::Ours, Step::RemoteClose, Self::Nobody),
        (Self::Both, Step::Close, Self::Nobody),
        (Self::Both, Step::RemoteClose, Self::Nobody),
    ];
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
    /// Both sides opened it.
    both: bool,
    options: Options,
}

/// What our Options on a feed's channel say.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The application's own, and the remote's, if there are any.
    pub(crate) extensions: Option<Box<Extensions>>,
    /// As the caller's own Options message set it.
    pub(crate) ack: bool,
}

/// What opening a channel ourselves leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LocalOpen {
    /// The caller sends its Open; `complete` if the remote's was there before.
    Open { id: u32, discovery_key: DiscoveryKey, complete: bool },
    /// The remote's Open, which was there before, carried no proof: the caller answers with a Close that has the discovery key.
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
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            channels: BTreeMap::new(),
            remote: BTreeMap::new(),
            tokens: BTreeMap::new(),
            roots: BTreeMap::new(),
            closing: BTreeMap::new(),
        }
    }

    /// We open a channel.
    pub(crate) fn open(&mut self, owner: Owner, key: FeedKey, split: &Split) -> LocalOpen {
        if self.local(owner).is_some() {
            return LocalOpen::TokenInUse;
        }
        let discovery_key = key.discovery_key();
        let known = self.channels.get(&discovery_key);
        let side = known.map_or(Side::START, |channel| channel.side);
        let Some(next) = side.next(Step::Open) else { return LocalOpen::KeyInUse };
        let Some(id) = self.take_id() else { return LocalOpen::Exhausted };
        let known = self.channels.get(&discovery_key);
        if known.is_some_and(|channel| !split.verify(&key, channel.capability.as_ref().map(<[u8; 32]>::as_slice))) {
            self.forget(&discovery_key, Step::Refuse);
            return LocalOpen::Unproven { id, discovery_key };
        }
        let channel = self.channels.entry(discovery_key).or_insert(Channel::START);
        channel.side = next;
        channel.ours = Some(Ours { id, owner, key });
        channel.capability = None;
        if let Some(remote) = channel.remote.and_then(|remote| self.remote.get_mut(&remote)) {
            remote.owner = Some(owner);
        }
        let complete = next == Side::Both;
        let local = Local { id, discovery_key, both: complete, options: Options::default() };
        match owner {
            Owner::Root(root) => drop(self.roots.insert(root, local)),
            Owner::Feed(token) => drop(self.tokens.insert(token, local)),
        }
        LocalOpen::Open { id, discovery_key, complete }
    }

    /// The remote opened a channel: whose it is, if we had opened it too. At most `limit` of the remote's
    /// stay open.
    pub(crate) fn remote_open(
        &mut self,
        id: u32,
        discovery_key: DiscoveryKey,
        capability: Option<Vec<u8>>,
        split: &Split,
        (limit, named): (usize, usize),
    ) -> Result<Option<Owner>, SessionError> {
        let known = self.channels.get(&discovery_key);
        let side = known.map_or(Side::START, |channel| channel.side);
        let next = side.next(Step::RemoteOpen).filter(|_| id != 0 && !self.remote.contains_key(&id));
        let next = next.ok_or(MessageError::OpenTwice)?;
        let ours = known.and_then(|channel| channel.ours.as_ref());
        if ours.is_some_and(|ours| !split.verify(&ours.key, capability.as_deref())) {
            return Err(SessionError::Capability(discovery_key));
        }
        if self.remote.len() >= limit.saturating_add(named) {
            return Err(SessionError::limit("channels", limit));
        }
        let owner = ours.map(|ours| ours.owner);
        self.remote.insert(id, Remote { discovery_key, owner });
        self.closing.remove(&id);
        let channel = self.channels.entry(discovery_key).or_insert(Channel::START);
        channel.side = next;
        channel.remote = Some(id);
        channel.capability = capability.filter(|_| owner.is_none()).and_then(|bytes| bytes.try_into().ok());
        if let Some(local) = owner.and_then(|owner| self.local_mut(owner)) {
            local.both = true;
        }
        Ok(owner)
    }

    /// Closes a channel from our side: returns its local id, if it was open.
    pub(crate) fn close(&mut self, owner: Owner) -> Option<u32> {
        let local = self.local(owner)?;
        let (id, discovery_key) = (local.id, local.discovery_key);
        let channel = self.forget(&discovery_key, Step::Close)?;
        if let Some(remote) = channel.remote
            && (matches!(owner, Owner::Root(_)) || self.closing.len() < CLOSING)
        {
            self.closing.insert(remote, owner);
        }
        Some(id)
    }

    /// Refuses to open a channel of the remote's: returns the local id that this uses up, if there is such a channel.
    pub(crate) fn refuse(&mut self, discovery_key: &DiscoveryKey) -> Option<u32> {
        self.channels.get(discovery_key)?.side.next(Step::Refuse)?;
        let id = self.take_id()?;
        self.forget(discovery_key, Step::Refuse)?;
        Some(id)
    }

    /// The remote closed a channel, by its id or by its discovery key.
    pub(crate) fn remote_close(&mut self, id: u32, discovery_key: Option<DiscoveryKey>) -> RemoteClose {
        match self.closing.remove(&id) {
            Some(owner @ Owner::Root(_)) => return RemoteClose { answer: None, owner: Some(owner) },
            // The caller knows that it is closed.
            Some(Owner::Feed(_)) => return RemoteClose::default(),
            None => {}
        }
        let named = self.remote.get(&id).map(|remote| remote.discovery_key);
        let channel = named.or(discovery_key).and_then(|discovery_key| self.forget(&discovery_key, Step::RemoteClose));
        let ours = channel.and_then(|channel| channel.ours);
        RemoteClose { answer: ours.as_ref().map(|ours| ours.id), owner: ours.map(|ours| ours.owner) }
    }

    /// Whose channel a remote's id stands for, if both sides opened it.
    pub(crate) fn route(&self, id: u32) -> Option<Owner> {
        self.remote.get(&id)?.owner
    }

    /// The feed's channel that a remote's id stood for, if we closed it and the remote did not yet.
    pub(crate) fn closing(&self, id: u32) -> Option<Token> {
        match self.closing.get(&id)? {
            Owner::Feed(token) => Some(*token),
            Owner::Root(_) => None,
        }
    }

    /// The local id of a channel that we opened.
    pub(crate) fn local_id(&self, owner: Owner) -> Option<u32> {
        self.local(owner).map(|local| local.id)
    }

    /// The local id of a feed's channel, and whether both sides opened it, with what our Options there say.
    pub(crate) fn options(&mut self, token: Token) -> Option<(u32, bool, &mut Options)> {
        self.tokens.get_mut(&token).map(|local| (local.id, local.both, &mut local.options))
    }

    /// Returns the extensions of a feed's channel, if the application registered any.
    pub(crate) fn extensions(&self, token: Token) -> Option<&Extensions> {
        self.tokens.get(&token)?.options.extensions.as_deref().filter(|extensions| extensions.is_spoken())
    }

    /// The feeds' channels that we opened, of those in a range.
    pub(crate) fn tokens(&self, range: RangeInclusive<Token>) -> Vec<Token> {
        if range.is_empty() { Vec::new() } else { self.tokens.range(range).map(|(token, _)| *token).collect() }
    }

    fn local(&self, owner: Owner) -> Option<&Local> {
        match owner {
            Owner::Root(root) => self.roots.get(&root),
            Owner::Feed(token) => self.tokens.get(&token),
        }
    }

    fn local_mut(&mut self, owner: Owner) -> Option<&mut Local> {
        match owner {
            Owner::Root(root) => self.roots.get_mut(&root),
            Owner::Feed(token) => self.tokens.get_mut(&token),
        }
    }

    fn take_id(&mut self) -> Option<u32> {
        let id = self.next;
        if id >= frame::CHANNELS {
            return None;
        }
        self.next += 1;
        Some(id)
    }

    fn forget(&mut self, discovery_key: &DiscoveryKey, step: Step) -> Option<Channel> {
        self.channels.get(discovery_key)?.side.next(step)?;
        let channel = self.channels.remove(discovery_key)?;
        if let Some(id) = channel.remote {
            self.remote.remove(&id);
        }
        match channel.ours.as_ref().map(|ours| ours.owner) {
            Some(Owner::Root(root)) => drop(self.roots.remove(&root)),
            Some(Owner::Feed(token)) => drop(self.tokens.remove(&token)),
            None => {}
        }
        Some(channel)
    }
}

impl Channel {
    const START: Self = Self { side: Side::START, ours: None, remote: None, capability: None };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::DEFAULT_ROOT_KEY;

    const KEY: FeedKey = FeedKey::new([7; 32]);
    const FEED: Owner = Owner::Feed(Token(1));
    const ROOT: Owner = Owner::Root(Root::FIRST);

    fn splits() -> (Split, Split) {
        (Split { tx: [1; 32], rx: [2; 32] }, Split { tx: [2; 32], rx: [1; 32] })
    }

    /// Our channels with the root's open on both sides (local id 1, remote id 1).
    fn channels() -> (Channels, Split, Split) {
        let (ours, theirs) = splits();
        let root = DEFAULT_ROOT_KEY;
        let mut channels = Channels::new();
        assert!(matches!(channels.open(ROOT, root, &ours), LocalOpen::Open { id: 1, complete: false, .. }));
        let capability = Some(theirs.capability(&root).to_vec());
        let owner = channels.remote_open(1, root.discovery_key(), capability, &ours, (8, 0));
        assert_eq!(owner, Ok(Some(ROOT)));
        (channels, ours, theirs)
    }

    fn remote_open(
        channels: &mut Channels,
        id: u32,
        key: FeedKey,
        split: &Split,
        theirs: &Split,
    ) -> Result<Option<Owner>, SessionError> {
        channels.remote_open(id, key.discovery_key(), Some(theirs.capability(&key).to_vec()), split, (8, 0))
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
        assert_eq!((channels.route(5), channels.local_id(FEED)), (Some(FEED), Some(2)));

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
            assert_eq!(channels.remote_open(5, dk, capability, &ours, (8, 0)), Err(SessionError::Capability(dk)));
            assert_eq!(channels.route(5), None);
        }
    }

    #[test]
    fn a_wrong_capability_is_told_where_the_remote_opened_first() {
        let (mut channels, ours, _) = channels();
        let discovery_key = KEY.discovery_key();
        assert_eq!(channels.remote_open(5, discovery_key, None, &ours, (8, 0)), Ok(None));
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
    fn channels_that_we_named_take_nobodys_room() {
        let (mut channels, ours, theirs) = channels();
        let mut open = |n: u8, named: usize| {
            let key = FeedKey::new([100 + n; 32]);
            let capability = Some(theirs.capability(&key).to_vec());
            channels.remote_open(n.into(), key.discovery_key(), capability, &ours, (8, named))
        };
        for n in 2..=8 {
            assert_eq!(open(n, 0), Ok(None));
        }
        assert_eq!(open(9, 0), Err(SessionError::limit("channels", 8)));
        assert_eq!((open(9, 2), open(10, 2)), (Ok(None), Ok(None)));
        assert_eq!(open(11, 2), Err(SessionError::limit("channels", 8)));
    }

    #[test]
    fn only_what_the_remote_alone_opened_can_be_refused() {
        let (mut channels, ours, theirs) = channels();
        let discovery_key = KEY.discovery_key();
        assert_eq!(channels.refuse(&discovery_key), None);
        remote_open(&mut channels, 5, KEY, &ours, &theirs).unwrap();
        assert_eq!(channels.refuse(&discovery_key), Some(2));
        assert!(is_empty(&channels));
        channels.open(FEED, KEY, &ours);
        assert_eq!(channels.refuse(&discovery_key), None);
        remote_open(&mut channels, 6, KEY, &ours, &theirs).unwrap();
        assert_eq!((channels.refuse(&discovery_key), channels.local_id(FEED)), (None, Some(3)));
    }

    #[test]
    fn the_root_closes_once() {
        let (mut channels, ..) = channels();
        assert_eq!(channels.close(ROOT), Some(1));
        assert_eq!(channels.close(ROOT), None);
        assert_eq!(channels.remote_close(1, None), RemoteClose { answer: None, owner: Some(ROOT) });
        assert_eq!(channels.remote_close(1, None), RemoteClose::default());
    }
}
