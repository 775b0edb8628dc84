//! What leaves a store whose disk rots, by random histories: what the writer wrote, or nothing. If nothing rots, no answer fails.
//!
//! `MULTIFEED_ROT=COUNT` runs more of them.

use bytes::Bytes;
use multifeed_proto::Request;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::files::{node_offset, signature_offset};
use super::{Answer, Feed, VerifyCursor};
use crate::keys::key_pair::KeyPair;
use crate::prepare;
use crate::storage::{FileId, FileKind, MemoryStorage, Slot, Storage};

const STEPS: usize = 120;

/// A feed that receives from its writer, or is written here, and whose files rot.
struct History {
    rng: StdRng,
    large: bool,
    rots: bool,
    /// The writer's own, which does not rot.
    truth: (Feed, MemoryStorage),
    signatures: Vec<[u8; 64]>,
    here: (Feed, MemoryStorage),
    served: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let pair = KeyPair::from_seed(&[1; 32]);
        let make = |pair: Option<&KeyPair>, key| {
            let mut disk = MemoryStorage::new();
            (Feed::create(&mut disk, Slot(0), key, pair, None).unwrap(), disk)
        };
        let truth = make(Some(&pair), pair.public_key());
        let here = make(seed.is_multiple_of(3).then_some(&pair), pair.public_key());
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, large: seed % 5 == 1, rots: seed % 4 != 2, truth, signatures: Vec::new(), here, served: 0 }
    }

    fn block(&self, index: u64) -> Bytes {
        let large = [5_000, 20_000, 70_000, 0, 1][(index % 5) as usize];
        let size = if self.large { large } else { index * 7 % 11 };
        (0..size).map(|at| (at * 31 + index * 17 + 1) as u8).collect::<Vec<_>>().into()
    }

    /// Some blocks in a row.
    fn some(&mut self, most: u64) -> std::ops::Range<u64> {
        let start = self.rng.random_range(0..self.truth.0.length);
        start..(start + self.rng.random_range(1..most)).min(self.truth.0.length)
    }

    /// False if the feed can't go on: it is a writer's that is damaged.
    fn step(&mut self, kind: usize) -> bool {
        match kind {
            0 => return self.append(),
            1..=4 => self.receive(),
            5 => _ = self.here.0.flush(&mut self.here.1),
            6 => self.here.0.trim(),
            7 => {
                let range = self.some(5);
                let _ = self.here.0.clear(&mut self.here.1, range);
            }
            8 => _ = self.here.0.audit_step(&mut self.here.1, 0, 1 << 20),
            9 => {
                let mut cursor = VerifyCursor::default();
                for _ in 0..5 {
                    let _ = self.here.0.verify_step(&mut self.here.1, &mut cursor, 1 << 20);
                }
            }
            10 | 11 if self.rots => self.rot(),
            10 | 11 => self.receive(),
            12 => return self.open_again(),
            13 => {
                for index in self.some(20) {
                    let read = self.here.0.get_verified(&mut self.here.1, index);
                    assert!(read.is_err() || read.is_ok_and(|read| read.is_none_or(|read| read == self.block(index))));
                }
            }
            _ => self.ask(),
        }
        true
    }

    fn append(&mut self) -> bool {
        let length = self.truth.0.length;
        let blocks: Vec<_> = (length..length + self.rng.random_range(1..12)).map(|index| self.block(index)).collect();
        self.truth.0.append(&mut self.truth.1, &blocks).unwrap();
        let signature = self.truth.0.signature(&mut self.truth.1, length + blocks.len() as u64).unwrap().unwrap();
        self.signatures.push(signature);
        let (feed, disk) = &mut self.here;
        !feed.writable() || (feed.length == length && feed.append(disk, &blocks).is_ok())
    }

    fn receive(&mut self) {
        for index in self.some(6) {
            let nodes = self.here.0.digest(index);
            let request = Request { index, bytes: 0, hash: self.rng.random_range(0..8) == 0, nodes };
            if let Ok(Answer::Data(data)) = self.truth.0.answer(&mut self.truth.1, &request) {
                let _ = self.here.0.put(&mut self.here.1, prepare(data));
            }
        }
    }

    /// A bit flips, or a node or a signature is zeros.
    fn rot(&mut self) {
        let kind = [FileKind::Tree, FileKind::Data, FileKind::Data, FileKind::Signatures][self.rng.random_range(0..4)];
        let file = FileId::new(Slot(0), kind);
        let header = if kind == FileKind::Data { 0 } else { 32 };
        let len = self.here.1.len(file).unwrap().unwrap_or(0);
        if len <= header {
            return;
        }
        let at = self.rng.random_range(header..len);
        let (at, size) = match (kind, self.rng.random_range(0..3)) {
            (FileKind::Tree, 0) => (node_offset((at - header) / 40), 40),
            (FileKind::Signatures, 0) => (signature_offset((at - header) / 64), 64),
            _ => (at, 1),
        };
        let mut bytes = vec![0; size];
        let count = self.here.1.read_at(file, at, &mut bytes).unwrap();
        if size == 1 {
            bytes[0] ^= 1 << self.rng.random_range(0..8);
        } else {
            bytes.fill(0);
        }
        self.here.1.write_at(file, at, &bytes[..count]).unwrap();
    }

    fn open_again(&mut self) -> bool {
        if self.here.0.flush(&mut self.here.1).is_err() {
            return false;
        }
        match Feed::open(&mut self.here.1, Slot(0)) {
            Ok(feed) => self.here.0 = feed,
            Err(_) => return false,
        }
        true
    }

    /// Requests with digests that a remote may have.
    fn ask(&mut self) {
        let kind = self.rng.random_range(0..6);
        for index in self.some(20) {
            let nodes = match kind {
                0 | 1 => 0,
                2 => 1,
                3 => 2,
                4 => self.rng.random_range(0..64),
                _ => (2 << self.rng.random_range(0..6)) | 1,
            };
            let seeks = self.rng.random_range(0..12) == 0;
            let bytes = if seeks { self.rng.random_range(0..=self.truth.0.byte_length) } else { 0 };
            let request = Request { index, bytes, hash: self.rng.random_range(0..6) == 0, nodes };
            let answer = self.here.0.answer(&mut self.here.1, &request);
            assert!(self.rots || answer.is_ok(), "{request:?}: {answer:?}");
            let Ok(Answer::Data(data)) = answer else { continue };
            self.served += 1;
            let (truth, disk) = &mut self.truth;
            for node in &data.nodes {
                let other = truth.bitfield.node(node.index).then(|| truth.node(disk, node.index).unwrap());
                assert!(other.is_none_or(|other| other == *node), "{request:?}: {node:?}");
            }
            let signature = data.signature;
            assert!(signature.is_none_or(|signature| self.signatures.contains(&signature)), "{request:?}: signature");
            assert!(data.value.is_none_or(|value| value == self.block(data.index)), "{request:?}: block");
        }
    }
}

#[test]
fn what_leaves_a_store_that_rots_is_what_was_written() {
    let count = std::env::var("MULTIFEED_ROT").map_or(150, |count| count.parse().unwrap());
    let mut served = 0;
    for seed in 0..count {
        let mut history = History::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            let mut kind = 0;
            for _ in 0..STEPS {
                if !history.step(kind) {
                    break;
                }
                kind = history.rng.random_range(0..20);
            }
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
        served += history.served;
    }
    assert!(served as u64 > 50 * count, "{served} answers");
}
