//! The bitfield of a feed and the sets of sessions, against plain lists of bits.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Unstructured};
use multifeed_core::Bitfield;
use multifeed_core::bitfield::rle;
use multifeed_core::fuzzing::{self, Wanted};
use multifeed_core::merkle::{self, index as flat};

/// Blocks that the operations are about: the first two and a half pages.
const BLOCKS: u64 = 20_480;
const PAGE_BLOCKS: u64 = 8192;
/// Block bits, node bits, then the index.
const PAGE: [usize; 3] = [1024, 2048, 512];

#[derive(Debug, Arbitrary)]
enum Step {
    Set {
        block: u16,
        held: bool,
    },
    /// Many at once, so that whole bytes and pages fill up.
    SetRun {
        block: u16,
        count: u16,
        held: bool,
    },
    SetNode {
        node: u16,
    },
    ClearNode {
        node: u16,
    },
    Ask {
        from: u16,
        to: u16,
    },
    Rle {
        start: u16,
        length: u16,
    },
    Digest {
        block: u16,
        digest: u8,
        itself: bool,
    },
    Roots {
        blocks: u64,
        node: u64,
    },
    Insert {
        index: u16,
        far: bool,
    },
    Remove {
        index: u16,
        far: bool,
    },
    RemoveRange {
        start: u16,
        count: u16,
        far: bool,
    },
    SetWord {
        word: u8,
        members: u64,
    },
    First {
        start: u16,
        count: u16,
        far: bool,
    },
    Reload,
}

/// A bitfield, a set, and what they should hold.
struct Both {
    bits: Bitfield,
    blocks: Vec<bool>,
    nodes: Vec<bool>,
    wanted: Wanted,
    members: BTreeSet<u64>,
    /// Every third member, to be excepted.
    except: Wanted,
    excepted: BTreeSet<u64>,
}

/// Changes a bitfield and a set, and asks them and their models the same.
pub fn bitfields(data: &[u8]) {
    let Ok(steps) = Vec::<Step>::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut both = Both {
        bits: Bitfield::new(),
        blocks: vec![false; BLOCKS as usize],
        nodes: vec![false; 2 * BLOCKS as usize],
        wanted: Wanted::default(),
        members: BTreeSet::new(),
        except: Wanted::default(),
        excepted: BTreeSet::new(),
    };
    for step in steps.iter().take(64) {
        both.apply(step);
    }
    both.compare();
    both.check_index();
}

impl Both {
    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Set { block, held } => self.set(u64::from(block) % BLOCKS, held),
            Step::SetRun { block, count, held } => {
                let start = u64::from(block) % BLOCKS;
                for block in start..(start + u64::from(count)).min(BLOCKS) {
                    self.set(block, held);
                }
            }
            Step::SetNode { node } => {
                let node = u64::from(node) % (2 * BLOCKS - 1);
                fuzzing::set_node(&mut self.bits, node);
                self.set_node(node);
            }
            Step::ClearNode { node } => {
                let node = u64::from(node) % (2 * BLOCKS - 1);
                fuzzing::clear_node(&mut self.bits, node);
                self.nodes[node as usize] = false;
            }
            Step::Ask { from, to } => self.ask(from.into(), to.into()),
            Step::Rle { start, length } => self.run_length(start.into(), length.into()),
            Step::Digest { block, digest, itself } => self.digest(u64::from(block) % BLOCKS, digest.into(), itself),
            Step::Roots { blocks, node } => roots(blocks >> 2, node >> 2),
            Step::Insert { index, far } => {
                let index = place(index, far);
                assert_eq!(self.wanted.insert(index), self.members.insert(index));
                if index.is_multiple_of(3) {
                    self.except.insert(index);
                    self.excepted.insert(index);
                }
            }
            Step::Remove { index, far } => {
                let index = place(index, far);
                assert_eq!(self.wanted.remove(index), self.members.remove(&index));
            }
            Step::RemoveRange { start, count, far } => {
                let start = place(start, far);
                let range = start..start + u64::from(count);
                self.wanted.remove_range(range.clone());
                self.members.retain(|index| !range.contains(index));
            }
            Step::SetWord { word, members } => {
                self.wanted.set_word(word.into(), members);
                for bit in 0..64 {
                    let index = u64::from(word) * 64 + bit;
                    match members >> (63 - bit) & 1 {
                        1 => self.members.insert(index),
                        _ => self.members.remove(&index),
                    };
                }
            }
            Step::First { start, count, far } => {
                let start = place(start, far);
                let range = start..start + u64::from(count);
                assert_eq!(
                    self.wanted.first_in(range.clone(), None),
                    self.members.range(range.clone()).next().copied()
                );
                let expected = self.members.range(range.clone()).find(|index| !self.excepted.contains(index));
                assert_eq!(self.wanted.first_in(range, Some(&self.except)), expected.copied());
            }
            Step::Reload => {
                self.bits = fuzzing::reload(&self.bits, 3);
                self.compare();
            }
        }
        assert_eq!(self.wanted.count(), self.members.len() as u64);
    }

    fn set(&mut self, block: u64, held: bool) {
        let model = &mut self.blocks[block as usize];
        assert_eq!(fuzzing::set(&mut self.bits, block, held), *model != held);
        *model = held;
    }

    fn set_node(&mut self, node: u64) {
        let mut node = node;
        // A mark that was there already changes nothing above it.
        while node < self.nodes.len() as u64 && !std::mem::replace(&mut self.nodes[node as usize], true) {
            if !self.node(flat::sibling(node)) {
                return;
            }
            node = flat::parent(node);
        }
    }

    fn node(&self, node: u64) -> bool {
        usize::try_from(node).ok().and_then(|node| self.nodes.get(node)).copied().unwrap_or(false)
    }

    fn ask(&self, from: u64, to: u64) {
        let at = |block: u64| self.blocks.get(block as usize).copied().unwrap_or(false);
        assert_eq!(self.bits.get(from), at(from));
        assert_eq!(self.bits.next_held(from, to), (from..to).find(|block| at(*block)));
        assert_eq!(self.bits.next_missing(from, to), (from..to).find(|block| !at(*block)));
        assert_eq!(self.bits.last_held(to), (0..to).rev().find(|block| at(*block)));
        let word = (0..64).fold(0, |word, bit| word << 1 | u64::from(at(from / 64 * 64 + bit)));
        assert_eq!(self.bits.word(from / 64), word);
        assert_eq!(fuzzing::next_node(&self.bits, from, to), (from..to).find(|node| self.node(*node)));
        assert_eq!(fuzzing::node(&self.bits, from), self.node(from));
        let bare = (from..BLOCKS).find(|block| at(*block) && !self.node(2 * block));
        assert_eq!(fuzzing::next_without_leaf(&self.bits, from), bare);
    }

    fn run_length(&self, start: u64, length: u64) {
        let start = start / 8 * 8;
        let encoded = self.bits.rle_range(start, length);
        // Without both numbers it is the whole.
        let limit = if (start, length) == (0, 0) { 3 * PAGE[0] } else { length.div_ceil(8) as usize };
        let decoded = rle::decode(&encoded, limit);
        let decoded = decoded.unwrap_or_else(|error| panic!("what it wrote is refused: {error}"));
        let plain: Vec<u8> = (0..limit as u64)
            .map(|byte| {
                let bit = |bit| self.blocks.get((start + byte * 8 + bit) as usize).copied().unwrap_or(false);
                (0..8).fold(0, |sum, at| sum << 1 | u8::from(bit(at)))
            })
            .collect();
        let end = plain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let read_end = decoded.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // The last byte may hold bits of blocks behind the range.
        assert_eq!(decoded[..read_end], plain[..end]);
    }

    /// What a digest claims is held, and a proof against it brings what is then missing, and no more.
    fn digest(&self, block: u64, digest: u64, itself: bool) {
        let leaf = 2 * block;
        let ours = merkle::digest(&self.bits, leaf);
        if ours == 1 {
            assert!(self.node(leaf) || self.proves(leaf), "block {block}: all is said to be held");
        } else {
            let mut node = leaf;
            let mut bits = ours >> 1;
            let last = ours.checked_ilog2().unwrap_or(0);
            let mut level = 0;
            while bits > 0 {
                level += 1;
                // The highest bit is an ancestor if bit 0 is set.
                let ancestor = ours & 1 == 1 && level == last;
                let claimed = if ancestor { node } else { flat::sibling(node) };
                assert!(bits & 1 == 0 || self.node(claimed), "block {block}: node {claimed} is not held, {ours:b}");
                node = flat::parent(node);
                bits >>= 1;
            }
        }
        let Some(proof) = merkle::proof(&self.bits, leaf, digest, itself) else { return };
        for (at, node) in proof.nodes.iter().enumerate() {
            assert!(!proof.nodes[..at].contains(node), "node {node} twice");
        }
        assert_eq!(proof.nodes.first() == Some(&leaf), itself);
    }

    /// An ancestor is held, and the siblings on the way up to it are.
    fn proves(&self, leaf: u64) -> bool {
        let mut node = leaf;
        while node < self.nodes.len() as u64 {
            if self.node(node) {
                return true;
            }
            if !self.node(flat::sibling(node)) {
                return false;
            }
            node = flat::parent(node);
        }
        false
    }

    fn compare(&self) {
        for (block, held) in (0u64..).zip(&self.blocks) {
            assert_eq!(self.bits.get(block), *held, "block {block}");
        }
        for (node, held) in (0u64..).zip(&self.nodes) {
            assert_eq!(fuzzing::node(&self.bits, node), *held, "node {node}");
        }
        assert_eq!(self.bits.count(), self.blocks.iter().filter(|held| **held).count() as u64);
        let last = self.blocks.iter().rposition(|held| *held);
        assert!(self.bits.end() >= last.map_or(0, |last| last as u64 + 1));
        assert!(!self.bits.get(BLOCKS) && !self.bits.get(u64::MAX) && !fuzzing::node(&self.bits, u64::MAX));
    }

    /// The index in the file: exact above the block bits, and nowhere full if a block is missing, or JS would not look there.
    fn check_index(&self) {
        let pages: Vec<_> =
            (0..BLOCKS.div_ceil(PAGE_BLOCKS) as usize).map(|at| fuzzing::page(&self.bits, at)).collect();
        let byte = |node: u64| -> Option<u8> {
            let page = pages.get((node / PAGE[2] as u64) as usize)?.as_ref()?;
            page.get(PAGE[0] + PAGE[1] + (node % PAGE[2] as u64) as usize).copied()
        };
        let held = |at: u64| self.blocks.get(at as usize).copied().unwrap_or(false);
        for node in 0..(pages.len() * PAGE[2]) as u64 {
            let Some(byte) = byte(node) else { continue };
            let span = 1u64 << flat::depth(node);
            let first = flat::left_span(node) / 2 * 4;
            for part in 0..4 {
                let bytes = first + part * span..first + (part + 1) * span;
                let mut blocks = bytes.start * 8..bytes.end * 8;
                let state = byte >> (6 - 2 * part) & 3;
                if state == 0b11 {
                    assert!(blocks.all(held), "index byte {node} hides a hole");
                } else if span == 1 {
                    let (any, all) = (blocks.clone().any(held), blocks.all(held));
                    assert_eq!(state, if all { 0b11 } else { u8::from(any) }, "index byte {node}");
                }
            }
        }
    }
}

/// An index, near the start or past where 32 bits end.
fn place(index: u16, far: bool) -> u64 {
    u64::from(index) + if far { 1 << 40 } else { 0 }
}

/// The arithmetic of trees against its definition.
fn roots(blocks: u64, node: u64) {
    let mut at = 0;
    for root in flat::full_roots(blocks) {
        assert_eq!(flat::left_span(root) / 2, at, "the roots of {blocks} blocks");
        at = flat::right_span(root) / 2 + 1;
    }
    assert_eq!(at, blocks);
    let (parent, sibling) = (flat::parent(node), flat::sibling(node));
    assert_eq!(flat::parent(sibling), parent);
    let both = (node.min(sibling), node.max(sibling));
    assert_eq!(flat::children(parent), Some(both));
    assert_eq!(flat::node_at(flat::depth(node), flat::offset(node)), node);
    assert_eq!(
        (flat::left_span(parent), flat::right_span(parent)),
        (flat::left_span(both.0), flat::right_span(both.1))
    );
    assert!(flat::right_span(both.0) + 2 == flat::left_span(both.1));
}
