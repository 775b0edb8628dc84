//! Making nodes of a damaged page of `tree` again of `data` and of the nodes around it.
//!
//! A page is rebuilt by guesses at which of its nodes are wrong. The nodes that are taken for right, and the blocks in `data`, tell where blocks begin and
//! how long they are; of their bytes leaves are made, and of these the nodes above. A guess cannot do harm: only what leads to a node that is
//! proven, or to the roots of a length that is signed, is written. So a sector that was written to the wrong place proves nothing.
//!
//! Of two blocks beside each other of which only the sum is known, or of one that its own signature covers, the length is searched for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use multifeed_proto::Node;

use super::Feed;
use super::covered::Cover;
use super::files::{Files, HEADER, NODE, node_offset};
use super::repaired::Repair;
use super::verify::{LEAF_COST, NODE_COST, SIGNATURE_COST};
use crate::error::StoreError;
use crate::merkle::{self, index as flat};
use crate::storage::{FileKind, Storage};

/// Bytes of `tree` that are lost together.
const PAGE: u64 = 4096;
/// What looking at the nodes of a page counts against a slice's bytes.
pub(super) const PAGE_COST: usize = PAGE as usize / NODE * NODE_COST;
/// Bytes of a block whose length is searched for.
const MAX_SEARCHED: u64 = 8192;
/// Lengths that are tried at once by a signature: each costs two checks, as JS signed in two ways.
const SIGNED_AT_ONCE: u64 = 16;
/// Lengths that are tried at once by a hash.
const HASHED_AT_ONCE: u64 = 256;
/// Nodes above a page of which it is asked whether a signature covers them.
const MOST_TOPS: usize = 4;

/// A page of `tree` that is being rebuilt, under one node that is proven.
#[derive(Debug, Clone)]
pub(super) struct Region {
    /// The page's nodes.
    nodes: Range<u64>,
    top: Node,
    /// Where the first block under `top` begins in `data`.
    start: u64,
    /// Nodes that are lost, or fit nothing around them.
    suspects: BTreeSet<u64>,
    /// These, and those that do not fit all around them.
    misfits: BTreeSet<u64>,
    guess: Guess,
    /// Those of its nodes that are right.
    proven: BTreeSet<u64>,
    /// Leaves that were made of blocks, by this guess.
    made: BTreeMap<u64, Node>,
    /// Leaves whose block was looked for in vain, with what was known of its place.
    tried: BTreeSet<(u64, bool)>,
    /// The leaf whose length is searched for, and the next length to try.
    search: Option<(u64, u64)>,
}

/// Which nodes of the page are taken for wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    Suspects,
    /// All from the first misfit to the last.
    Between,
    Page,
}

/// What a node fits of the two below it, and of those beside and above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// Also if they are not there.
    All,
    Some,
    /// Also if it is lost.
    Nothing,
}

/// What is known of a region's nodes.
#[derive(Debug, Default)]
struct Known {
    sizes: BTreeMap<u64, u64>,
    /// Where a leaf's block begins, and where it ends.
    places: BTreeMap<u64, (Option<u64>, Option<u64>)>,
    nodes: BTreeMap<u64, Node>,
}

impl Region {
    fn is_wrong(&self, node: u64) -> bool {
        let is_guessed = match (self.guess, self.misfits.first(), self.misfits.last()) {
            (Guess::Between, Some(first), Some(last)) => (*first..=*last).contains(&node),
            (Guess::Page, ..) => self.nodes.contains(&node),
            _ => self.suspects.contains(&node),
        };
        is_guessed && !self.proven.contains(&node)
    }

    /// Whether a node of the page is this one or below it.
    fn reaches(&self, node: u64) -> bool {
        flat::left_span(node) < self.nodes.end && self.nodes.start <= flat::right_span(node)
    }

    /// The next guess. `None`: there is none.
    fn guess_again(&mut self) -> Option<()> {
        self.guess = match self.guess {
            Guess::Suspects => Guess::Between,
            Guess::Between => Guess::Page,
            Guess::Page => return None,
        };
        self.made.clear();
        self.tried.clear();
        self.search = None;
        Some(())
    }
}

impl Feed {
    /// Rebuilds the page of `tree` that a node is in.
    pub(super) fn rebuild_page<S: Storage + ?Sized>(&mut self, storage: &mut S, node: u64) -> Result<(), StoreError> {
        let Some((mut regions, _)) = self.next_regions(storage, node)? else { return Ok(()) };
        for region in &mut regions {
            while self.rebuild_next(storage, region, &mut Repair::default())?.is_some() {}
        }
        Ok(())
    }

    /// The next page of `tree` from a node on that has any, with those of its nodes that do not fit, under each node that is proven. Also returns the node to go on
    /// from; `None`: there are no more.
    pub(super) fn next_regions<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        from: u64,
    ) -> Result<Option<(Vec<Region>, u64)>, StoreError> {
        let Some(first) = self.bitfield.next_node(from, 2 * self.length) else { return Ok(None) };
        let page = node_offset(first) / PAGE;
        let node_at = |offset: u64| offset.saturating_sub(HEADER as u64) / NODE as u64;
        let nodes = node_at(page * PAGE)..node_at((page + 1) * PAGE - 1) + 1;
        let (mut suspects, mut misfits) = (BTreeSet::new(), BTreeSet::new());
        let mut next = nodes.start;
        while let Some(node) = self.bitfield.next_node(next, nodes.end) {
            next = node + 1;
            let fit = self.fit_of(storage, node)?;
            suspects.extend((fit == Fit::Nothing).then_some(node));
            misfits.extend((fit != Fit::All).then_some(node));
        }
        let mut regions = Vec::new();
        for root in self.roots.clone() {
            let under = |node: &&u64| (flat::left_span(root.index)..=flat::right_span(root.index)).contains(*node);
            let misfits: BTreeSet<_> = misfits.iter().filter(under).copied().collect();
            if let (Some(first), Some(last)) = (misfits.first(), misfits.last()) {
                let (top, start) = self.proven_above(storage, root, *first, *last)?;
                regions.push(Region {
                    nodes: nodes.clone(),
                    top,
                    start,
                    suspects: suspects.clone(),
                    misfits,
                    guess: Guess::Suspects,
                    proven: BTreeSet::new(),
                    made: BTreeMap::new(),
                    tried: BTreeSet::new(),
                    search: None,
                });
            }
        }
        Ok(Some((regions, nodes.end.max(first + 1))))
    }

    /// What a node that is held fits, of those below it, and of those beside and above it, as far as these are there.
    fn fit_of<S: Storage + ?Sized>(&mut self, storage: &mut S, index: u64) -> Result<Fit, StoreError> {
        let Some(node) = self.marked_readable_node(storage, index)? else { return Ok(Fit::Nothing) };
        let root = self.roots.iter().find(|root| root.index == index).copied();
        let below = self.children(storage, index)?.map(|(left, right)| merkle::parent(&left, &right) == Some(node));
        let above = match root {
            Some(root) => Some(root == node),
            None => {
                let beside = self.marked_readable_node(storage, flat::sibling(index))?;
                let above = self.marked_readable_node(storage, flat::parent(index))?;
                beside.zip(above).map(|(beside, above)| merkle::parent_of(node, beside) == Some(above))
            }
        };
        Ok(match [below, above] {
            both if !both.contains(&Some(false)) => Fit::All,
            both if !both.contains(&Some(true)) => Fit::Nothing,
            _ => Fit::Some,
        })
    }

    /// A node above these two that is proven, and where the first block below it begins.
    fn proven_above<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        root: Node,
        first: u64,
        last: u64,
    ) -> Result<(Node, u64), StoreError> {
        let mut top = first;
        for _ in 0..MOST_TOPS {
            while flat::right_span(top) < last || top == first {
                top = flat::parent(top);
            }
            if flat::depth(top) >= flat::depth(root.index) {
                break;
            }
            if let Some(node) = self.marked_readable_node(storage, top)?
                && let Cover::Signed { start } = self.cover(storage, node)?
            {
                return Ok((node, start));
            }
            top = flat::parent(top);
        }
        let before = self.roots.iter().take_while(|before| before.index != root.index);
        let start = before.fold(0u64, |sum, before| sum.saturating_add(before.size));
        Ok((root, start))
    }

    /// Looks for one more block of a region, or tries some of its lengths, and writes what that proves. Returns what it cost; `None`: all was tried.
    pub(super) fn rebuild_next<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        region: &mut Region,
        step: &mut Repair,
    ) -> Result<Option<usize>, StoreError> {
        let known = self.known_of(storage, region)?;
        if let Some(cost) = self.make_next_leaf(storage, region, &known)? {
            return Ok(Some(cost));
        }
        self.take_proven(storage, region, &known, region.top, step)?;
        let mut is_left = false;
        for &index in &region.misfits {
            is_left = is_left || self.fit_of(storage, index)? != Fit::All;
        }
        if !is_left {
            return Ok(None);
        }
        if let Some(cost) = self.search_on(storage, region, &known, step)? {
            return Ok(Some(cost));
        }
        Ok(region.guess_again().map(|()| PAGE_COST))
    }

    fn known_of<S: Storage + ?Sized>(&mut self, storage: &mut S, region: &Region) -> Result<Known, StoreError> {
        let mut known = Known::default();
        self.learn(storage, region, region.top.index, &mut known)?;
        known.sizes.insert(region.top.index, region.top.size);
        let end = region.start.checked_add(region.top.size);
        place(region, region.top.index, (Some(region.start), end), &mut known);
        Ok(known)
    }

    /// The sizes and nodes under a node: as they are stored, if they are taken for right, or made of those below them.
    fn learn<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        region: &Region,
        index: u64,
        known: &mut Known,
    ) -> Result<(), StoreError> {
        let mut node = region.made.get(&index).copied();
        if node.is_none() && !region.is_wrong(index) {
            node = self.marked_readable_node(storage, index)?;
        }
        let mut size = node.map(|node| node.size);
        if let Some((left, right)) = flat::children(index).filter(|_| region.reaches(index)) {
            self.learn(storage, region, left, known)?;
            self.learn(storage, region, right, known)?;
            size = size.or_else(|| known.sizes.get(&left)?.checked_add(*known.sizes.get(&right)?));
            node = known.parent(left, right).or(node);
        }
        known.sizes.extend(size.map(|size| (index, size)));
        known.nodes.extend(node.map(|node| (index, node)));
        Ok(())
    }

    /// Makes one leaf more of its block. Returns what that cost; `None`: there is none whose block could be found.
    fn make_next_leaf<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        region: &mut Region,
        known: &Known,
    ) -> Result<Option<usize>, StoreError> {
        for (&index, &place) in &known.places {
            let both = place.0.is_some() && place.1.is_some();
            if region.made.contains_key(&index) || !region.is_wrong(index) || !self.has(index / 2) {
                continue;
            }
            let stored = self.marked_readable_node(storage, index)?;
            let found = match (place, stored) {
                ((Some(start), Some(end)), _) => end.checked_sub(start).map(|size| (start, size)),
                ((Some(start), None), Some(stored)) => Some((start, stored.size)),
                ((None, Some(end)), Some(stored)) => end.checked_sub(stored.size).map(|start| (start, stored.size)),
                _ => None,
            };
            let Some((start, size)) = found else { continue };
            if start.saturating_add(size) > self.byte_length || !region.tried.insert((index, both)) {
                continue;
            }
            let hash = match self.hash_in_data(storage, start, size) {
                Err(error) if error.is_unreadable() => None,
                hash => hash?,
            };
            let leaf = hash.map(|hash| Node { index, hash, size });
            if let Some(leaf) = leaf.filter(|leaf| both || stored == Some(*leaf)) {
                region.made.insert(index, leaf);
            }
            return Ok(Some(PAGE_COST.saturating_add(usize::try_from(size).unwrap_or(usize::MAX))));
        }
        Ok(None)
    }

    /// Writes what is known under a node that is proven, as far as it makes that node.
    fn take_proven<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        region: &mut Region,
        known: &Known,
        proven: Node,
        step: &mut Repair,
    ) -> Result<(), StoreError> {
        if self.bitfield.node(proven.index) && self.readable_node(storage, proven.index)? != Some(proven) {
            self.make_again(&proven, step);
        }
        region.proven.insert(proven.index);
        let Some((left, right)) = flat::children(proven.index).filter(|_| region.reaches(proven.index)) else {
            return Ok(());
        };
        let mut candidates = Vec::with_capacity(2);
        for index in [left, right] {
            let stored = self.marked_readable_node(storage, index)?;
            candidates.push([known.nodes.get(&index).copied(), stored]);
        }
        let pairs = candidates[0]
            .iter()
            .flatten()
            .flat_map(|left| candidates[1].iter().flatten().map(move |right| (left, right)));
        let mut pairs = pairs.filter(|(left, right)| merkle::parent(left, right) == Some(proven));
        if let Some((left, right)) = pairs.next().map(|(left, right)| (*left, *right)) {
            self.take_proven(storage, region, known, left, step)?;
            self.take_proven(storage, region, known, right, step)?;
        }
        Ok(())
    }

    /// Tries some lengths of a block of which only the beginning is known, or also the end of the one after it. Returns what that cost; `None`: there is no
    /// such block, or all its lengths were tried.
    fn search_on<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        region: &mut Region,
        known: &Known,
        step: &mut Repair,
    ) -> Result<Option<usize>, StoreError> {
        for (&index, &place) in &known.places {
            let (Some(start), None) = place else { continue };
            // The next place that is known bounds it.
            let mut after = known.places.range(index + 1..).flat_map(|(_, (start, end))| [*start, *end]);
            let Some(most) = after.find_map(|place| place?.checked_sub(start)) else { continue };
            let is_searched = |leaf: u64| !known.nodes.contains_key(&leaf) && self.has(leaf / 2);
            if !is_searched(index)
                || region.search.is_some_and(|(leaf, next)| leaf > index || (leaf == index && next > most))
            {
                continue;
            }
            let pair = match known.places.get(&(index + 2)) {
                Some((None, Some(end))) if is_searched(index + 2) && most <= MAX_SEARCHED => Some(*end),
                _ => None,
            };
            let aim = match pair {
                Some(_) => self.node_over(region, known, index, index + 2, storage)?.map(Aim::Node),
                None => None,
            };
            let aim = match aim {
                Some(aim) => Some(aim),
                None => self.signature_over(storage, known, index)?,
            };
            let Some(aim) = aim else { continue };
            let first = region.search.filter(|(leaf, _)| *leaf == index).map_or(0, |(_, next)| next);
            let at_once = if matches!(aim, Aim::Node(_)) { HASHED_AT_ONCE } else { SIGNED_AT_ONCE };
            let last = most.min(MAX_SEARCHED).min(first + at_once - 1);
            region.search = Some((index, last + 1));
            if last + 1 > MAX_SEARCHED {
                region.search = Some((index, u64::MAX));
            }
            let mut bytes = vec![0; most.min(MAX_SEARCHED) as usize];
            let count = match (Files { storage, slot: self.slot }).read(FileKind::Data, start, &mut bytes) {
                Err(error) if error.is_unreadable() => 0,
                count => count?,
            };
            let leaf = |index, bytes: &[u8]| Node { index, hash: merkle::leaf_hash(bytes), size: bytes.len() as u64 };
            for size in first..=last.min(count as u64) {
                let made = leaf(index, &bytes[..size as usize]);
                match &aim {
                    Aim::Node(over) => {
                        let after = leaf(index + 2, &bytes[size as usize..most as usize]);
                        if known.above(over.index, &[made, after]) == Some(*over) {
                            region.made.extend([(index, made), (index + 2, after)]);
                            break;
                        }
                    }
                    Aim::Signed { length, signature, roots } => {
                        let mut roots = roots.clone();
                        let Some(last) = flat::full_roots(*length).last() else { break };
                        let Some(over) = known.above(last, &[made]) else { break };
                        roots.push(over);
                        if self.signature_is_valid(&merkle::root_hash(&roots), *length, signature) {
                            region.made.insert(index, made);
                            let known = self.known_of(storage, region)?;
                            self.take_proven(storage, region, &known, over, step)?;
                            break;
                        }
                    }
                }
            }
            let tried = (last + 1 - first) as usize;
            return Ok(Some(match aim {
                Aim::Node(_) => tried * (LEAF_COST + most as usize),
                Aim::Signed { .. } => 2 * tried * SIGNATURE_COST,
            }));
        }
        Ok(None)
    }

    /// The lowest node over two leaves that is proven or taken for right, if all else that makes it is known.
    fn node_over<S: Storage + ?Sized>(
        &mut self,
        region: &Region,
        known: &Known,
        first: u64,
        second: u64,
        storage: &mut S,
    ) -> Result<Option<Node>, StoreError> {
        let mut over = flat::parent(first);
        let blank = |index| Node { index, hash: [0; 32], size: 0 };
        while flat::depth(over) <= flat::depth(region.top.index) {
            if over == region.top.index {
                return Ok(Some(region.top));
            }
            if flat::left_span(over) <= first && second <= flat::right_span(over) {
                if known.above(over, &[blank(first), blank(second)]).is_none() {
                    return Ok(None);
                }
                if !region.is_wrong(over)
                    && let Some(node) = self.marked_readable_node(storage, over)?
                {
                    return Ok(Some(node));
                }
            }
            over = flat::parent(over);
        }
        Ok(None)
    }

    /// The signature of the length that ends with a leaf, if all else that makes its roots is known.
    fn signature_over<S: Storage + ?Sized>(
        &mut self,
        storage: &mut S,
        known: &Known,
        leaf: u64,
    ) -> Result<Option<Aim>, StoreError> {
        let length = leaf / 2 + 1;
        let Some(signature) = self.readable_signature(storage, length)? else { return Ok(None) };
        let mut roots = Vec::new();
        for root in flat::full_roots(length) {
            if flat::right_span(root) >= leaf {
                let blank = Node { index: leaf, hash: [0; 32], size: 0 };
                return Ok(known.above(root, &[blank]).map(|_| Aim::Signed { length, signature, roots }));
            }
            let node = match known.nodes.get(&root) {
                Some(node) => Some(*node),
                None => self.marked_readable_node(storage, root)?,
            };
            let Some(node) = node else { return Ok(None) };
            roots.push(node);
        }
        Ok(None)
    }
}

/// What tells that a length is the right one.
enum Aim {
    Node(Node),
    Signed {
        length: u64,
        signature: [u8; super::files::SIGNATURE],
        /// All but the last.
        roots: Vec<Node>,
    },
}

impl Known {
    fn parent(&self, left: u64, right: u64) -> Option<Node> {
        merkle::parent(self.nodes.get(&left)?, self.nodes.get(&right)?)
    }

    /// The node over some leaves that these make, with what is known beside them.
    fn above(&self, index: u64, leaves: &[Node]) -> Option<Node> {
        let is_over = |leaf: &Node| flat::left_span(index) <= leaf.index && leaf.index <= flat::right_span(index);
        if !leaves.iter().any(is_over) {
            return self.nodes.get(&index).copied();
        }
        match flat::children(index) {
            None => leaves.iter().find(|leaf| leaf.index == index).copied(),
            Some((left, right)) => merkle::parent(&self.above(left, leaves)?, &self.above(right, leaves)?),
        }
    }
}

/// Notes where the blocks under a node begin and end, by its place and the sizes below it.
fn place(region: &Region, index: u64, place_: (Option<u64>, Option<u64>), known: &mut Known) {
    let Some((left, right)) = flat::children(index).filter(|_| region.reaches(index)) else {
        if region.nodes.contains(&index) {
            known.places.insert(index, place_);
        }
        return;
    };
    let (start, end) = place_;
    let of_left = start.zip(known.sizes.get(&left)).and_then(|(start, size)| start.checked_add(*size));
    let of_right = end.zip(known.sizes.get(&right)).and_then(|(end, size)| end.checked_sub(*size));
    let between = of_left.or(of_right);
    place(region, left, (start, between), known);
    place(region, right, (between, end), known);
}
