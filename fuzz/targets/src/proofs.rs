//! Data messages, right ones, altered ones and made-up ones, to a feed and to a simple verifier that knows the whole history.
//!
//! The verifier has no hash function and no key. It follows a message upward by the places of its nodes alone, and looks each of them up in
//! the true tree. If the way ends in roots, it asks whether the writer signed that length with that signature. Nobody can make
//! another block or node hash to the same, so a feed has to accept exactly what this accepts, and hold afterwards what this holds.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use multifeed_core::fuzzing::{self, Remembered};
use multifeed_core::limits::{MAX_FEED_BLOCKS, MAX_PROOF_NODES};
use multifeed_core::merkle::{self, index as flat};
use multifeed_core::{Answer, Feed, KeyPair, MemoryStorage, ProofError, PutError, Slot, VerifyCursor, prepare};
use multifeed_proto::{Data, Node, Request};

/// Blocks of the history.
const BLOCKS: u64 = 29;

#[derive(Debug, Arbitrary)]
struct Input {
    /// At which lengths the writer signed, beside the last one.
    signed: u32,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    /// A right answer to a request, with edits. Its digest is the feed's own, or any.
    Answer { index: u8, digest: Option<u8>, hash: bool, edits: Vec<Edit> },
    /// True nodes in any order, and any signature of the writer's.
    Made { index: u8, value: bool, nodes: Vec<u8>, signed: Option<u8>, edits: Vec<Edit> },
    /// What is staged is written; or the feed is opened again.
    Flush { reopen: bool },
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Index(u64),
    Value(Option<Vec<u8>>),
    OtherValue(u8),
    Hash {
        node: u8,
        bits: u8,
    },
    Place {
        node: u8,
        place: u64,
    },
    OtherNode {
        node: u8,
        other: u8,
    },
    /// Moves bytes from one node's size to its neighbour's.
    Shift {
        node: u8,
        bytes: u8,
    },
    Size {
        node: u8,
        size: u64,
    },
    Insert {
        at: u8,
        other: u8,
    },
    Repeat {
        at: u8,
        count: u8,
    },
    Remove {
        at: u8,
    },
    Swap {
        a: u8,
        b: u8,
    },
    Signature {
        at: u8,
        bits: u8,
    },
    OtherSignature {
        length: u8,
    },
    NoSignature,
}

/// Everything that is true of the feed.
struct History {
    key_pair: KeyPair,
    blocks: Vec<Bytes>,
    /// By their place; `None` if a node spans more than there is.
    nodes: Vec<Option<Node>>,
    /// The signature of each length, as the writer makes it.
    signatures: Vec<[u8; 64]>,
}

/// What a reader holds.
#[derive(Clone, Debug, Default)]
struct Held {
    blocks: BTreeSet<u64>,
    nodes: BTreeSet<u64>,
    length: u64,
}

/// Gives a feed Data messages, and the model the same.
pub fn proofs(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    thread_local! {
        static HISTORY: OnceCell<History> = const { OnceCell::new() };
    }
    let _once = Remembered::begin();
    HISTORY.with(|history| run(history.get_or_init(History::new), &input));
}

fn run(history: &History, input: &Input) {
    // Which lengths the writer signed: those at which a batch ended.
    let signed: BTreeSet<u64> =
        (1..=BLOCKS).filter(|length| *length == BLOCKS || input.signed >> (length % 32) & 1 == 1).collect();
    let mut source_disk = MemoryStorage::new();
    let mut source = history.write(&mut source_disk, &signed);
    let mut disk = MemoryStorage::new();
    let made = Feed::create(&mut disk, Slot(0), history.key_pair.public_key(), None, None);
    let mut feed = made.unwrap_or_else(|error| panic!("a feed on a sound disk: {error}"));
    let mut held = Held::default();
    for step in input.steps.iter().take(48) {
        let mut data = match step {
            Step::Answer { index, digest, hash, .. } => {
                let index = u64::from(*index) % BLOCKS;
                let nodes = digest.map_or_else(|| feed.digest(index), u64::from);
                let request = Request { index, bytes: 0, hash: *hash, nodes };
                match source.answer(&mut source_disk, &request) {
                    Ok(Answer::Data(data)) => data,
                    other => panic!("{request:?}: {other:?}"),
                }
            }
            Step::Made { index, value, nodes, signed, .. } => {
                let index = u64::from(*index) % (BLOCKS + 2);
                Data {
                    index,
                    value: history.blocks.get(index as usize).filter(|_| *value).cloned(),
                    nodes: nodes.iter().take(12).filter_map(|node| history.node((*node).into())).collect(),
                    signature: signed.map(|length| history.signatures[usize::from(length) % history.signatures.len()]),
                }
            }
            Step::Flush { reopen } => {
                feed.flush(&mut disk).unwrap_or_else(|error| panic!("writing to a sound disk: {error}"));
                if *reopen {
                    feed = Feed::open(&mut disk, Slot(0)).unwrap_or_else(|error| panic!("what it wrote: {error}"));
                }
                check(history, &mut feed, &mut disk, &held);
                continue;
            }
        };
        let honest = matches!(step, Step::Answer { digest: None, edits, .. } if edits.is_empty());
        if let Step::Answer { edits, .. } | Step::Made { edits, .. } = step {
            for edit in edits.iter().take(6) {
                history.edit(edit, &mut data);
            }
        }
        if let Step::Answer { index: 128.., .. } | Step::Made { index: 128.., .. } = step
            && data.value.is_none()
        {
            compare(history, &mut feed, &mut disk, &mut held, &data);
            continue;
        }
        let expected = history.accepts(&held, &data);
        assert!(!honest || expected.is_some(), "the model refuses an honest answer: {data:?}");
        let index = data.index;
        let told = format!("{data:?}");
        match (feed.put(&mut disk, prepare(data)), expected) {
            (Ok(_), Some(now)) => held = now,
            (Err(PutError::Proof(ProofError::Conflict(conflict))), _) => {
                panic!("block {index}: a conflict with one history: {conflict:?}")
            }
            (Err(PutError::Store(error)), _) => panic!("block {index}: {error} on a sound disk, after {told}"),
            (Ok(put), None) => panic!("block {index}: {put:?}, and the model refuses it: {told}"),
            (Err(error), Some(_)) => panic!("block {index}: {error}, and the model accepts it: {told}"),
            (Err(_), None) => {}
        }
        assert_eq!((feed.len(), feed.downloaded()), (held.length, held.blocks.len() as u64));
    }
    check(history, &mut feed, &mut disk, &held);
    // Whatever came before, an honest writer can still bring the rest.
    for index in 0..BLOCKS {
        let request = Request { index, bytes: 0, hash: false, nodes: feed.digest(index) };
        let Ok(Answer::Data(data)) = source.answer(&mut source_disk, &request) else {
            panic!("no answer to {request:?}")
        };
        feed.put(&mut disk, prepare(data)).unwrap_or_else(|error| panic!("an honest block {index}: {error}"));
        held.blocks.insert(index);
    }
    feed.flush(&mut disk).unwrap_or_else(|error| panic!("writing to a sound disk: {error}"));
    assert_eq!((feed.len(), feed.downloaded()), (BLOCKS, BLOCKS));
    let mut cursor = VerifyCursor::default();
    let step = feed.verify_step(&mut disk, &mut cursor, usize::MAX);
    let step = step.unwrap_or_else(|error| panic!("{error}"));
    assert!(step.done && step.findings.is_empty(), "{:?}", step.findings);
}

/// Has a feed hold a message against its whole history, and the model the same: there is only one.
fn compare(history: &History, feed: &mut Feed, disk: &mut MemoryStorage, held: &mut Held, data: &Data) {
    let whole = history.accepts(&Held::default(), data);
    let leaf = data.index.saturating_mul(2);
    // What is held of a pair of leaves gives the sizes that its parent does not.
    let fits = |node: &Node| node.index / 4 != leaf / 4 || !held.nodes.contains(&node.index) || history.is_true(node);
    let expected = whole.filter(|_| data.nodes.iter().take(2).all(fits));
    let told = format!("{data:?}, with {held:?}");
    match (fuzzing::compare(feed, disk, data), expected) {
        (Ok(grew), Some(now)) => {
            let grows = now.length > held.length && (held.length == 0 || data.index == held.length);
            assert_eq!(grew, grows, "{told}");
            if grows {
                held.length = now.length;
                let certain = held.nodes.contains(&flat::sibling(leaf)).then_some(leaf);
                now.nodes.into_iter().chain(certain).for_each(|node| held.hold(node));
            }
        }
        (Err(PutError::Proof(ProofError::Conflict(conflict))), _) => {
            panic!("a conflict with one history: {conflict:?}, after {told}")
        }
        (Err(PutError::Store(error)), _) => panic!("{error} on a sound disk, after {told}"),
        (Ok(grew), None) => panic!("accepted (grew: {grew}), and the model refuses it: {told}"),
        (Err(error), Some(_)) => panic!("{error}, and the model accepts it: {told}"),
        (Err(_), None) => {}
    }
    assert_eq!((feed.len(), feed.downloaded()), (held.length, held.blocks.len() as u64));
}

/// The feed holds what the model holds, and all of it is right.
fn check(history: &History, feed: &mut Feed, disk: &mut MemoryStorage, held: &Held) {
    for index in 0..BLOCKS {
        let block = feed.get_verified(disk, index).unwrap_or_else(|error| panic!("block {index}: {error}"));
        let expected = held.blocks.contains(&index).then(|| &history.blocks[index as usize]);
        assert_eq!(block.as_ref(), expected, "block {index}");
    }
    for node in 0..2 * BLOCKS {
        assert_eq!(fuzzing::node(feed.bitfield(), node), held.nodes.contains(&node), "node {node}");
    }
    assert_eq!(feed.len(), held.length);
    let mut cursor = VerifyCursor::default();
    let step = feed.verify_step(disk, &mut cursor, usize::MAX).unwrap_or_else(|error| panic!("{error}"));
    assert!(step.findings.is_empty(), "{:?}", step.findings);
}

impl History {
    fn new() -> Self {
        let key_pair = KeyPair::from_seed(&[9; 32]);
        // Some are empty, some are equal.
        let blocks: Vec<Bytes> =
            (0..BLOCKS).map(|at| vec![at as u8 / 2; (at as usize * 7) % 31]).map(Bytes::from).collect();
        let mut nodes: Vec<Option<Node>> = vec![None; 2 * BLOCKS as usize];
        for (at, block) in blocks.iter().enumerate() {
            let (index, hash) = (2 * at as u64, merkle::leaf_hash(block));
            nodes[2 * at] = Some(Node { index, hash, size: block.len() as u64 });
        }
        for depth in 1..8 {
            for index in (0..2 * BLOCKS).filter(|index| flat::depth(*index) == depth) {
                let Some((left, right)) = flat::children(index) else { continue };
                let of = |node: u64| nodes.get(node as usize).copied().flatten();
                if let (Some(left), Some(right)) = (of(left), of(right)) {
                    nodes[index as usize] = merkle::parent(&left, &right);
                }
            }
        }
        let mut history = Self { key_pair, blocks, nodes, signatures: Vec::new() };
        history.signatures = (1..=BLOCKS).map(|length| history.sign(length)).collect();
        history
    }

    fn node(&self, index: u64) -> Option<Node> {
        self.nodes.get(usize::try_from(index).ok()?).copied().flatten()
    }

    fn sign(&self, length: u64) -> [u8; 64] {
        let roots: Vec<Node> = flat::full_roots(length).filter_map(|root| self.node(root)).collect();
        self.key_pair.sign(&merkle::signable(&merkle::root_hash(&roots), length))
    }

    /// The writer's own feed, with a batch up to each length that it signed.
    fn write(&self, disk: &mut MemoryStorage, signed: &BTreeSet<u64>) -> Feed {
        let made = Feed::create(disk, Slot(0), self.key_pair.public_key(), Some(&self.key_pair), Some("writer"));
        let mut feed = made.unwrap_or_else(|error| panic!("a feed on a sound disk: {error}"));
        let mut from = 0;
        for length in signed {
            let batch = &self.blocks[from..*length as usize];
            feed.append(disk, batch).unwrap_or_else(|error| panic!("appending on a sound disk: {error}"));
            from = *length as usize;
        }
        feed
    }

    /// What is held once this was accepted; `None`: it has to be refused.
    fn accepts(&self, held: &Held, data: &Data) -> Option<Held> {
        let absurd = |node: &Node| node.index >= 2 * MAX_FEED_BLOCKS - 1;
        if data.index >= MAX_FEED_BLOCKS || data.nodes.len() > MAX_PROOF_NODES || data.nodes.iter().any(absurd) {
            return None;
        }
        let leaf = 2 * data.index;
        let mut rest = data.nodes.iter();
        let claim = match &data.value {
            Some(value) if self.blocks.get(usize::try_from(data.index).ok()?) == Some(value) => None,
            Some(_) => return None,
            None => Some(take(&mut rest, leaf).filter(|node| self.has_true_hash(node))?),
        };
        if let Some(node) = claim
            && held.nodes.contains(&leaf)
        {
            return self.is_true(node).then(|| held.clone());
        }

        let mut fresh = BTreeSet::new();
        let mut top = leaf;
        // Without the block, the sizes of a pair of leaves are proven by their sum alone.
        let mut pair = false;
        let mut ends_in_roots = false;
        while !held.nodes.contains(&top) {
            let sibling = flat::sibling(top);
            match (take(&mut rest, sibling), claim) {
                (Some(node), Some(claim)) if top == leaf && !held.nodes.contains(&sibling) => {
                    if !self.has_true_hash(node) || !self.sums([claim, node]) {
                        return None;
                    }
                    pair = true;
                }
                (Some(node), _) if self.is_true(node) => {
                    fresh.insert(sibling);
                }
                (Some(_), _) => return None,
                (None, _) if held.nodes.contains(&sibling) => {}
                (None, _) => {
                    ends_in_roots = true;
                    break;
                }
            }
            if top != leaf || !pair {
                fresh.insert(top);
            }
            top = flat::parent(top);
        }
        if !pair && claim.is_some_and(|claim| !self.is_true(claim)) {
            return None;
        }
        let mut now = held.clone();
        if ends_in_roots {
            let last = rest.as_slice().last().map_or(0, |node| flat::right_span(node.index));
            let length = flat::right_span(top).max(last) / 2 + 1;
            for root in flat::full_roots(length) {
                let given = if root == top { None } else { take(&mut rest, root) };
                match given {
                    None if root == top => {}
                    Some(node) if self.is_true(node) => {}
                    None if held.nodes.contains(&root) => {}
                    _ => return None,
                }
                fresh.insert(root);
            }
            let signature = self.signatures.get(usize::try_from(length - 1).ok()?);
            if signature != Some(&data.signature?) || !fresh.contains(&top) {
                return None;
            }
            now.length = now.length.max(length);
        }
        for node in fresh {
            now.hold(node);
        }
        if data.value.is_some() {
            now.blocks.insert(data.index);
        }
        Some(now)
    }

    fn is_true(&self, node: &Node) -> bool {
        self.node(node.index).as_ref() == Some(node)
    }

    fn has_true_hash(&self, node: &Node) -> bool {
        self.node(node.index).is_some_and(|own| own.hash == node.hash)
    }

    fn sums(&self, pair: [&Node; 2]) -> bool {
        let own = pair.map(|node| self.node(node.index).map_or(0, |own| own.size));
        pair[0].size.checked_add(pair[1].size) == own[0].checked_add(own[1])
    }

    fn edit(&self, edit: &Edit, data: &mut Data) {
        let other = |place: u8| self.node(u64::from(place) % (2 * BLOCKS - 1));
        let count = data.nodes.len();
        let at = |place: u8| usize::from(place) % count.max(1);
        let node = |data: &mut Data, place: u8, change: &dyn Fn(&mut Node)| {
            if let Some(node) = data.nodes.get_mut(at(place)) {
                change(node);
            }
        };
        match edit {
            Edit::Index(index) => data.index = *index,
            Edit::Value(value) => data.value = value.clone().map(Bytes::from),
            Edit::OtherValue(index) => data.value = self.blocks.get(usize::from(*index) % self.blocks.len()).cloned(),
            Edit::Hash { node: place, bits } => node(data, *place, &|node| node.hash[usize::from(*place) % 32] ^= bits),
            Edit::Place { node: place, place: to } => node(data, *place, &|node| node.index = *to),
            Edit::OtherNode { node: place, other: to } => {
                if let Some(other) = other(*to) {
                    node(data, *place, &|node| *node = other);
                }
            }
            Edit::Shift { node: place, bytes } => {
                let bytes = u64::from(*bytes);
                node(data, *place, &|node| node.size = node.size.wrapping_add(bytes));
                node(data, place.wrapping_add(1), &|node| node.size = node.size.wrapping_sub(bytes));
            }
            Edit::Size { node: place, size } => node(data, *place, &|node| node.size = *size),
            Edit::Insert { at: place, other: from } => {
                if let Some(other) = other(*from) {
                    data.nodes.insert(usize::from(*place) % (count + 1), other);
                }
            }
            Edit::Repeat { at: place, count } => {
                if let Some(node) = data.nodes.get(at(*place)).copied() {
                    data.nodes.extend(std::iter::repeat_n(node, (*count).into()));
                }
            }
            Edit::Remove { at: place } if count > 0 => {
                data.nodes.remove(at(*place));
            }
            Edit::Remove { .. } => {}
            Edit::Swap { a, b } if count > 0 => data.nodes.swap(at(*a), at(*b)),
            Edit::Swap { .. } => {}
            Edit::Signature { at, bits } => {
                if let Some(signature) = &mut data.signature {
                    signature[usize::from(*at) % 64] ^= bits;
                }
            }
            Edit::OtherSignature { length } => {
                data.signature = Some(self.signatures[usize::from(*length) % self.signatures.len()]);
            }
            Edit::NoSignature => data.signature = None,
        }
    }
}

impl Held {
    /// Holds a node, and each parent whose two children are held then.
    fn hold(&mut self, node: u64) {
        let mut node = node;
        while self.nodes.insert(node) && self.nodes.contains(&flat::sibling(node)) {
            node = flat::parent(node);
        }
    }
}

fn take<'a>(rest: &mut std::slice::Iter<'a, Node>, index: u64) -> Option<&'a Node> {
    let first = rest.as_slice().first().filter(|node| node.index == index)?;
    rest.next();
    Some(first)
}
