//! Multifeed's own conversation (multifeed's `mux.js`): a handshake, and then, each way on its own, what is offered
//! (MANIFEST), what of it is requested (REQUEST_FEEDS), and what will be replicated (REPLICATE_FEEDS).

mod fields;
mod json;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::config::RootConfig;
use crate::error::SessionError;
use crate::event::{Event, Origin, RemoteHandshake};
use crate::ids::Root;
use crate::key::FeedKey;
use crate::limits::Limits;
use crate::machine::Machine;

pub use fields::ManifestFields;
pub(crate) use json::put_keys;

/// Keys in one message of ours; longer lists are sent as several. Half of what a default peer of ours takes in one.
const KEYS_IN_MESSAGE: usize = 50_000;

/// The four extensions of multifeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Handshake,
    Manifest,
    Request,
    Replicate,
}

/// Where what the exchange says goes to.
pub(crate) trait Sink {
    /// Sends the remote the names of our extensions, unless they were sent.
    fn introduce(&mut self);
    /// Our handshake, to be sent.
    fn handshake(&mut self, json: &[u8]);
    /// A feed list, to be sent, and what a manifest says beside it.
    fn keys(&mut self, kind: Kind, keys: &[FeedKey], fields: Option<&ManifestFields>);
    /// Whether what is sent goes over the root key's own channel, as corestore-multifeed's does.
    fn on_channel(&self) -> bool;
    /// The extensions that both sides speak on the stream, multifeed's own left out.
    fn shared_extensions(&self) -> Vec<Arc<str>>;
    /// Those that both sides speak on the root key's own channel, if its lists are sent there.
    fn shared_root_extensions(&self) -> Vec<Arc<str>>;
    /// An event for the caller.
    fn event(&mut self, event: Event);
}

/// The exchange of one multifeed on one stream.
#[derive(Debug)]
pub(crate) struct Exchange {
    root: Root,
    config: RootConfig,
    stage: Stage,
    /// It ended with an error.
    failed: bool,
    /// The remote's handshake, if it came before the root key's channel was verified.
    early_handshake: Option<RemoteHandshake>,
    /// What we offered: what the remote may request.
    offered: BTreeSet<FeedKey>,
    /// What we requested: what the remote may say that it replicates.
    requested: BTreeSet<FeedKey>,
    /// A REQUEST_FEEDS of ours went out.
    asked: bool,
    /// An empty answer waits for it.
    held_answer: bool,
    /// The remote is a corestore-multifeed of JS: it closes the root key's channel when it gets an empty REQUEST_FEEDS or
    /// REPLICATE_FEEDS while no feed is open, and needs neither.
    shy: bool,
    /// The caller's lists, until it is ready.
    waiting: VecDeque<List>,
    waiting_keys: usize,
    /// The remote's lists, until it is ready.
    early: VecDeque<List>,
    early_keys: usize,
    early_fields: usize,
    /// Keys in all of the remote's manifests.
    offers: u64,
    /// Keys that we offered and requested, also after the end.
    named: usize,
}

/// A feed list.
#[derive(Debug)]
struct List {
    kind: Kind,
    keys: Vec<FeedKey>,
    /// What a manifest says beside it.
    fields: Option<ManifestFields>,
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The remote has not proved that it knows the root key.
    Waiting,
    /// It has. Our handshake is held until the remote's is there, or it turns out that it need not be.
    Verified,
    /// Our handshake went out.
    Greeted,
    /// Its handshake was accepted.
    Ready,
    /// Nothing more is said.
    Over,
}

/// What brings it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The remote's Open of the root key's channel is there, and so is ours.
    Verified,
    /// Our handshake is held no longer.
    Released,
    /// The remote's handshake agrees with ours.
    Accepted,
    /// The root key's channel closed, in the dialect of corestore-multifeed; or time, a version or a client did not agree.
    End,
}

impl Machine for Stage {
    type Input = Step;
    const START: Self = Self::Waiting;
    const MOVES: &'static [(Self, Step, Self)] = &[
        (Self::Waiting, Step::Verified, Self::Verified),
        (Self::Verified, Step::Released, Self::Greeted),
        (Self::Greeted, Step::Accepted, Self::Ready),
        (Self::Waiting, Step::End, Self::Over),
        (Self::Verified, Step::End, Self::Over),
        (Self::Greeted, Step::End, Self::Over),
        (Self::Ready, Step::End, Self::Over),
    ];
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Handshake, Self::Manifest, Self::Request, Self::Replicate];

    /// The extension's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "MULTIFEED_HANDSHAKE",
            Self::Manifest => "MULTIFEED_MANIFEST",
            Self::Request => "MULTIFEED_REQUEST_FEEDS",
            Self::Replicate => "MULTIFEED_REPLICATE_FEEDS",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Exchange {
    pub(crate) fn new(root: Root, config: RootConfig) -> Self {
        Self {
            root,
            config,
            stage: Stage::START,
            failed: false,
            early_handshake: None,
            offered: BTreeSet::new(),
            requested: BTreeSet::new(),
            asked: false,
            held_answer: false,
            shy: false,
            waiting: VecDeque::new(),
            waiting_keys: 0,
            early: VecDeque::new(),
            early_keys: 0,
            early_fields: 0,
            offers: 0,
            named: 0,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the root key's channel is verified and the remote's handshake was accepted.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }

    /// Whether it is still to become ready.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting | Stage::Verified | Stage::Greeted)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Whether it ended with an error.
    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Keys of the caller's that wait for it to be ready.
    pub(crate) fn waiting_keys(&self) -> usize {
        self.waiting_keys
    }

    /// Counts the keys that we offered and requested: at most as many channels follow from this exchange.
    pub(crate) fn named(&self) -> usize {
        self.named
    }

    /// The remote proved that it knows the root key. It gets our extensions; our handshake is [held](Self::release).
    ///
    /// A JS peer sends its handshake when it gets our Open. If it reads our handshake together with that Open, and the two do
    /// not agree, it drops the stream before its own leaves, and we never learn why.
    pub(crate) fn verified(&mut self, sink: &mut impl Sink) {
        if !self.stage.on(Step::Verified) {
            return;
        }
        sink.introduce();
        if let Some(handshake) = self.early_handshake.take() {
            self.release(sink);
            self.accept(handshake, sink);
        }
    }

    /// Sends our handshake, if it was held.
    pub(crate) fn release(&mut self, sink: &mut impl Sink) {
        if self.stage.on(Step::Released) {
            self.greet(sink);
        }
    }

    /// Sends our handshake.
    pub(crate) fn greet(&mut self, sink: &mut impl Sink) {
        sink.handshake(&self.handshake());
    }

    /// Bytes of our handshake.
    pub(crate) fn handshake_len(&self) -> usize {
        self.handshake().len()
    }

    /// Nothing more is said.
    pub(crate) fn end(&mut self) {
        self.stage.on(Step::End);
        (self.offered, self.requested) = (BTreeSet::new(), BTreeSet::new());
        (self.waiting, self.waiting_keys) = (VecDeque::new(), 0);
        (self.early, self.early_keys, self.early_fields, self.early_handshake) = (VecDeque::new(), 0, 0, None);
    }

    /// It is about to end with an error.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// A message of the remote's.
    pub(crate) fn receive(
        &mut self,
        kind: Kind,
        body: &[u8],
        limits: &Limits,
        sink: &mut impl Sink,
    ) -> Result<(), SessionError> {
        if self.is_over() {
            return Ok(());
        }
        if kind == Kind::Handshake {
            if body.len() > limits.handshake_bytes {
                return Err(SessionError::limit("handshake_bytes", limits.handshake_bytes));
            }
            // Before it is checked, so that the remote learns our values too.
            self.release(sink);
            // A second one is checked as in JS, and otherwise means nothing.
            let handshake = json::parse_handshake(body, &self.config.client, &self.config.version)?;
            match self.stage {
                Stage::Waiting | Stage::Verified => self.early_handshake = Some(handshake),
                Stage::Greeted => self.accept(handshake, sink),
                Stage::Ready | Stage::Over => {}
            }
            return Ok(());
        }
        let list = json::parse_list(kind, body, limits)?;
        let (keys, fields) = (&list.keys, list.fields.as_ref().map_or(0, ManifestFields::len));
        if kind == Kind::Manifest {
            self.offers = self.offers.saturating_add(keys.len() as u64);
            if self.offers > limits.offers_total {
                return Err(SessionError::Limit { what: "offers_total", limit: limits.offers_total });
            }
        }
        if self.is_ready() {
            self.handle(list, sink);
            return Ok(());
        }
        // A JS peer may send MANIFEST before HANDSHAKE.
        self.early_keys += keys.len();
        self.early_fields += fields;
        if self.early.len() >= limits.early_messages {
            return Err(SessionError::limit("early_messages", limits.early_messages));
        }
        if self.early_keys > limits.manifest_keys {
            return Err(SessionError::limit("manifest_keys", limits.manifest_keys));
        }
        if self.early_fields > limits.manifest_fields_bytes {
            return Err(SessionError::limit("manifest_fields_bytes", limits.manifest_fields_bytes));
        }
        self.early.push_back(list);
        Ok(())
    }

    /// The caller offers feeds.
    pub(crate) fn offer(&mut self, keys: &[FeedKey], fields: Option<&ManifestFields>, sink: &mut impl Sink) {
        if self.is_ready() {
            self.offered.extend(keys);
            self.named = self.named.max(self.offered.len() + self.requested.len());
            send(Kind::Manifest, keys, fields, sink);
        } else {
            self.wait(Kind::Manifest, keys, fields);
        }
    }

    /// The caller requests feeds.
    pub(crate) fn request(&mut self, keys: &[FeedKey], sink: &mut impl Sink) {
        if !self.is_ready() {
            return self.wait(Kind::Request, keys, None);
        }
        self.requested.extend(keys);
        self.named = self.named.max(self.offered.len() + self.requested.len());
        self.asked = true;
        if self.shy && keys.is_empty() {
            return sink.event(Event::Replicate { root: self.root, keys: Vec::new(), origin: Origin::Remote });
        }
        send(Kind::Request, keys, None, sink);
        if core::mem::take(&mut self.held_answer) {
            sink.keys(Kind::Replicate, &[], None);
        }
    }

    fn handshake(&self) -> Vec<u8> {
        let RootConfig { client, version, live, user_data, .. } = &self.config;
        json::handshake(client, version, *live, user_data.as_ref())
    }

    fn wait(&mut self, kind: Kind, keys: &[FeedKey], fields: Option<&ManifestFields>) {
        if self.is_over() {
            return;
        }
        self.waiting_keys += keys.len();
        self.waiting.push_back(List { kind, keys: keys.to_vec(), fields: fields.cloned() });
    }

    fn accept(&mut self, mut handshake: RemoteHandshake, sink: &mut impl Sink) {
        self.stage.on(Step::Accepted);
        if sink.on_channel() && handshake.live.is_none() {
            // Ours says it; corestore-multifeed does not, and always is.
            self.shy = true;
            handshake.live = Some(true);
        }
        handshake.extensions = sink.shared_extensions();
        handshake.root_extensions = sink.shared_root_extensions();
        sink.event(Event::Ready { root: self.root, remote: handshake });
        self.waiting_keys = 0;
        for List { kind, keys, fields } in core::mem::take(&mut self.waiting) {
            match kind {
                Kind::Manifest => self.offer(&keys, fields.as_ref(), sink),
                _ => self.request(&keys, sink),
            }
        }
        (self.early_keys, self.early_fields) = (0, 0);
        for list in core::mem::take(&mut self.early) {
            self.handle(list, sink);
        }
    }

    /// A feed list of the remote's; its keys are sorted and without duplicates.
    fn handle(&mut self, List { kind, mut keys, fields }: List, sink: &mut impl Sink) {
        match kind {
            Kind::Handshake => {}
            Kind::Manifest => sink.event(Event::Manifest { root: self.root, keys, fields }),
            Kind::Request => {
                cut(&mut keys, &self.offered);
                // JS closes and ends when it gets an empty answer before its own manifest was answered; a peer that asks
                // for the same nothing over and over is answered once.
                match (keys.is_empty(), self.shy, self.asked) {
                    (true, true, _) => {}
                    (true, false, false) => self.held_answer = true,
                    _ => send(Kind::Replicate, &keys, None, sink),
                }
                sink.event(Event::Replicate { root: self.root, keys, origin: Origin::Local });
            }
            Kind::Replicate => {
                cut(&mut keys, &self.requested);
                sink.event(Event::Replicate { root: self.root, keys, origin: Origin::Remote });
            }
        }
    }
}

/// Leaves what is known, and gives the rest's memory back: the list waits until the caller polls it.
fn cut(keys: &mut Vec<FeedKey>, known: &BTreeSet<FeedKey>) {
    keys.retain(|key| known.contains(key));
    keys.shrink_to_fit();
}

/// Sends a list, as several messages if it is long, each with the fields, and also when it is empty.
fn send(kind: Kind, keys: &[FeedKey], fields: Option<&ManifestFields>, sink: &mut impl Sink) {
    if keys.is_empty() {
        sink.keys(kind, keys, fields);
    }
    for keys in keys.chunks(KEYS_IN_MESSAGE) {
        sink.keys(kind, keys, fields);
    }
}

#[cfg(test)]
mod tests;
