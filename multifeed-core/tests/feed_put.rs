//! Blocks from peers: what is proven is kept, what is not leaves no trace.

use crate::common;

use bytes::Bytes;
use common::{Random, block, blocks, create, create_copy, file, key_pair, pull, verify};
use multifeed_core::limits::{MAX_BLOCK_BYTES, MAX_FEED_BLOCKS, MAX_FEED_BYTES, MAX_MESSAGE_BYTES, MAX_PROOF_NODES};
use multifeed_core::merkle;
use multifeed_core::{
    Answer, AppendError, Feed, FileKind, KeyPair, MemoryStorage, ProofError, Put, PutError, Slot, Storage, prepare,
};
use multifeed_proto::{Data, Node, Request};

/// A writer with so many blocks, and an empty copy.
struct Pair {
    disk: MemoryStorage,
    writer: Feed,
    copy_disk: MemoryStorage,
    copy: Feed,
}

fn pair(n: u8, length: u64) -> Pair {
    let mut disk = MemoryStorage::new();
    let mut writer = create(&mut disk, 0, n, None);
    writer.append(&mut disk, &blocks(n, 0..length)).unwrap();
    let mut copy_disk = MemoryStorage::new();
    let copy = create_copy(&mut copy_disk, 0, n);
    Pair { disk, writer, copy_disk, copy }
}

impl Pair {
    fn answer(&mut self, request: Request) -> Data {
        match self.writer.answer(&mut self.disk, &request).unwrap() {
            Answer::Data(data) => data,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    fn data(&mut self, index: u64) -> Data {
        let nodes = self.copy.digest(index);
        self.answer(Request { index, bytes: 0, hash: false, nodes })
    }

    fn put(&mut self, data: Data) -> Result<Put, PutError> {
        self.copy.put(&mut self.copy_disk, prepare(data))
    }

    fn pull(&mut self, index: u64) -> Put {
        pull((&mut self.writer, &mut self.disk), (&mut self.copy, &mut self.copy_disk), index)
    }

    /// What the copy is, to be compared.
    fn state(&self) -> (u64, u64, u64, usize, Vec<u8>, Vec<u64>) {
        let copy = &self.copy;
        let digests = (0..64).map(|index| copy.digest(index)).collect();
        (copy.len(), copy.byte_len(), copy.downloaded(), copy.staged_bytes(), copy.bitfield().rle_range(0, 0), digests)
    }

    fn refused(&mut self, data: Data) -> ProofError {
        let before = self.state();
        match self.put(data.clone()) {
            Err(PutError::Proof(error)) => {
                assert!(self.state() == before, "{error}: something was kept");
                error
            }
            other => panic!("{other:?}: {data:?}"),
        }
    }
}

#[test]
fn any_order_fills_a_copy() {
    for seed in 1..30 {
        let mut random = Random(seed);
        let length = 1 + u64::from(random.below(80));
        let mut pair = pair(seed as u8, length);
        let mut grew = 0;
        while let Some(missing) = pair.copy.bitfield().next_missing(0, length) {
            let index = match random.below(2) {
                0 => missing,
                _ => u64::from(random.below(length as u32)),
            };
            if pair.copy.has(index) {
                continue;
            }
            match pair.pull(index) {
                Put::Stored { grew: true } => grew += 1,
                Put::Stored { grew: false } => {}
                other => panic!("{other:?}"),
            }
            assert_eq!(pair.copy.get(&mut pair.copy_disk, index).unwrap().unwrap(), block(seed as u8, index));
            if random.below(5) == 0 {
                pair.copy.flush(&mut pair.copy_disk).unwrap();
            }
        }
        assert_eq!(grew, 1, "the first proof has the whole length");
        pair.copy.flush(&mut pair.copy_disk).unwrap();
        for kind in [FileKind::Data, FileKind::Tree] {
            assert_eq!(pair.disk.contents(file(0, kind)), pair.copy_disk.contents(file(0, kind)));
        }
        assert_eq!(verify(&mut pair.copy, &mut pair.copy_disk), []);
        // And it can serve in its turn.
        let mut third_disk = MemoryStorage::new();
        let mut third = create_copy(&mut third_disk, 0, seed as u8);
        for index in 0..length {
            pull((&mut pair.copy, &mut pair.copy_disk), (&mut third, &mut third_disk), index);
        }
        assert_eq!(third.downloaded(), length);
    }
}

#[test]
fn sparse_copies_serve_each_other_while_the_feed_grows() {
    let n = 31;
    let mut all = 0;
    for seed in 1..200 {
        let mut random = Random(seed);
        let mut pair = pair(n, 1);
        let mut third_disk = MemoryStorage::new();
        let mut third = create_copy(&mut third_disk, 0, n);
        let mut answered = 0;
        for _ in 0..60 {
            let length = pair.writer.len();
            if random.below(3) == 0 {
                let more = 1 + u64::from(random.below(6));
                pair.writer.append(&mut pair.disk, &blocks(n, length..length + more)).unwrap();
                continue;
            }
            let index = u64::from(random.below(length as u32));
            if !pair.copy.has(index) {
                pair.pull(index);
            }
            // A hash alone, as JS asks for news.
            if random.below(6) == 0 {
                let data = pair.answer(Request { index: length - 1, bytes: 0, hash: true, nodes: 0 });
                pair.put(data).unwrap();
                assert_eq!(pair.copy.len(), length);
            }
            // What is staged is not served.
            if random.below(8) > 0 {
                pair.copy.flush(&mut pair.copy_disk).unwrap();
            }
            let index = u64::from(random.below(length as u32));
            let request = Request { index, bytes: 0, hash: false, nodes: third.digest(index) };
            if let Answer::Data(data) = pair.copy.answer(&mut pair.copy_disk, &request).unwrap() {
                third.put(&mut third_disk, prepare(data)).unwrap();
                assert_eq!(third.get(&mut third_disk, index).unwrap().unwrap(), block(n, index));
                answered += 1;
            }
        }
        all += answered;
        for (mut feed, mut disk) in [(pair.copy, pair.copy_disk), (third, third_disk)] {
            feed.flush(&mut disk).unwrap();
            let mut again = Feed::open(&mut disk, Slot(0)).unwrap();
            assert_eq!(again.recovered(), None);
            assert_eq!((again.len(), again.byte_len()), (feed.len(), feed.byte_len()), "seed {seed}");
            assert_eq!(again.downloaded(), feed.downloaded());
            assert_eq!(verify(&mut again, &mut disk), []);
        }
    }
    assert!(all > 200 * 4, "{all}");
}

#[test]
fn every_altered_part_is_refused() {
    for held in [&[][..], &[0], &[5, 20]] {
        let mut pair = pair(32, 37);
        for index in held {
            pair.pull(*index);
        }
        for index in [0, 7, 31, 36] {
            if pair.copy.has(index) {
                continue;
            }
            let good = pair.data(index);
            let mut bad = Vec::new();
            let mut value = good.value.clone().unwrap().to_vec();
            value.push(1);
            bad.push(Data { value: Some(value.into()), ..good.clone() });
            bad.push(Data { value: Some(Bytes::new()), ..good.clone() });
            bad.push(Data { index: index ^ 1, ..good.clone() });
            bad.push(Data { index: index + 64, ..good.clone() });
            for position in 0..good.nodes.len() {
                let change = |change: fn(&mut Node)| {
                    let mut data = good.clone();
                    change(&mut data.nodes[position]);
                    data
                };
                bad.push(change(|node| node.hash[31] ^= 1));
                bad.push(change(|node| node.size += 1));
                bad.push(change(|node| node.index += 2));
                bad.push(change(|node| node.size = u64::MAX));
                bad.push(change(|node| node.index = u64::MAX));
                let mut data = good.clone();
                data.nodes.remove(position);
                bad.push(data);
            }
            if let Some(mut signature) = good.signature {
                bad.push(Data { signature: None, ..good.clone() });
                signature[0] ^= 1;
                bad.push(Data { signature: Some(signature), ..good.clone() });
            }
            for data in bad {
                pair.refused(data);
            }
            assert!(matches!(pair.put(good).unwrap(), Put::Stored { .. }));
        }
        pair.copy.flush(&mut pair.copy_disk).unwrap();
        assert_eq!(verify(&mut pair.copy, &mut pair.copy_disk), []);
    }
}

#[test]
fn what_no_feed_can_have_is_refused() {
    let mut pair = pair(33, 4);
    let good = pair.data(1);
    let node = good.nodes[0];
    for data in [
        Data { index: MAX_FEED_BLOCKS, ..good.clone() },
        Data { index: u64::MAX, ..good.clone() },
        Data { nodes: vec![node; 10_000], ..good.clone() },
        Data { value: None, nodes: vec![], ..good.clone() },
        Data { nodes: vec![Node { index: 2 * MAX_FEED_BLOCKS, ..node }], ..good.clone() },
    ] {
        assert!(matches!(pair.refused(data), ProofError::Malformed { .. }));
    }
}

/// Valid roots and their signature, beside a block that is under none of them. JS takes it.
#[test]
fn a_signature_over_other_blocks_proves_nothing() {
    let mut pair = pair(34, 8);
    let whole = pair.answer(Request { index: 0, bytes: 0, hash: true, nodes: 0 });
    let mut path = Node { index: 0, ..whole.nodes[0] };
    for sibling in &whole.nodes[1..] {
        path = merkle::parent(&path, sibling).unwrap();
    }
    assert_eq!(path.index, 7);
    let forged = Data { index: 0, value: Some("forged".into()), nodes: vec![path], signature: whole.signature };
    assert!(matches!(pair.refused(forged), ProofError::MissingRoot { node: 0, .. }));
}

#[test]
fn a_second_history_is_the_writers_fault() {
    let n = 35;
    let mut pair = pair(n, 10);
    for index in 0..10 {
        pair.pull(index);
    }
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    // The same key pair, elsewhere, went another way after 6 blocks.
    let mut fork_disk = MemoryStorage::new();
    let mut fork = create(&mut fork_disk, 0, n, None);
    fork.append(&mut fork_disk, &blocks(n, 0..6)).unwrap();
    fork.append(&mut fork_disk, &vec![Bytes::from_static(b"otherwise"); 8]).unwrap();
    let request = Request { index: 7, bytes: 0, hash: false, nodes: 0 };
    let Answer::Data(data) = fork.answer(&mut fork_disk, &request).unwrap() else { panic!() };
    let ProofError::Conflict(conflict) = pair.refused(data.clone()) else { panic!() };
    assert_eq!((conflict.length, conflict.held_length, conflict.node), (14, 10, 14));
    assert!(conflict.held_signature.is_some());
    assert_eq!(Some(conflict.signature), data.signature);
    // Without its signature it is the peer's.
    assert!(matches!(pair.refused(Data { signature: None, ..data }), ProofError::Mismatch { .. }));
    // And what both histories have in common is no conflict.
    let request = Request { index: 1, bytes: 0, hash: false, nodes: 1 };
    let Answer::Data(data) = fork.answer(&mut fork_disk, &request).unwrap() else { panic!() };
    assert_eq!(pair.put(data).unwrap(), Put::Known);
}

/// Nothing shows it when the second one comes. Between the roots that are held and those that come, hashes are missing, and hypercore has no
/// other proof of a longer feed.
#[test]
fn two_histories_that_came_one_after_the_other_are_told_once_they_touch() {
    for flushed in [false, true] {
        let mut pair = pair(3, 4);
        let mut other_disk = pair.disk.clone();
        let mut other = Feed::open(&mut other_disk, Slot(0)).unwrap();
        other.append(&mut other_disk, &[Bytes::from("theirs"), Bytes::from("too")]).unwrap();
        pair.writer.append(&mut pair.disk, &blocks(3, 4..10)).unwrap();
        for index in 0..6 {
            pull((&mut other, &mut other_disk), (&mut pair.copy, &mut pair.copy_disk), index);
        }
        assert_eq!(pair.pull(9), Put::Stored { grew: true });
        if flushed {
            pair.copy.flush(&mut pair.copy_disk).unwrap();
            pair.copy = Feed::open(&mut pair.copy_disk, Slot(0)).unwrap();
        }
        for (index, node) in [(6, 9), (7, 9), (5, 10), (4, 8)] {
            let before = pair.state();
            let whole = pair.answer(Request { index, bytes: 0, hash: false, nodes: 0 });
            let error = pair.put(whole).unwrap_err();
            let PutError::Proof(ProofError::Conflict(conflict)) = error else { panic!("{index}: {error}") };
            assert_eq!((conflict.length, conflict.held_length, conflict.node), (6, 10, node), "{index}");
            let roots = |feed: &mut Feed, disk: &mut MemoryStorage, len| feed.roots_at(disk, len).unwrap().unwrap();
            assert_eq!(conflict.root_hash, merkle::root_hash(&roots(&mut other, &mut other_disk, 6)));
            assert_eq!(conflict.held_root_hash, merkle::root_hash(&roots(&mut pair.writer, &mut pair.disk, 10)));
            assert!(conflict.held_signature.is_some_and(|held| held != conflict.signature));
            assert_eq!(pair.state(), before);
        }
        // What is of the longer one goes on.
        assert_eq!(pair.pull(8), Put::Stored { grew: false });
    }
}

/// As above, with an older history that was signed once in thousands of blocks: the signature lies as far from what it is over.
#[test]
fn two_histories_are_told_however_far_away_the_older_one_is_signed() {
    for (older, longer) in [(8192 + 5000, 20_000), (16_383, 16_385), (8193, 30_000)] {
        for flushed in [false, true] {
            let mut pair = pair(3, 4);
            let mut other_disk = pair.disk.clone();
            let mut other = Feed::open(&mut other_disk, Slot(0)).unwrap();
            other.append(&mut other_disk, &vec![Bytes::from("theirs"); older as usize - 4]).unwrap();
            pair.writer.append(&mut pair.disk, &vec![Bytes::from("ours"); longer as usize - 4]).unwrap();
            pull((&mut other, &mut other_disk), (&mut pair.copy, &mut pair.copy_disk), 5);
            assert_eq!(pair.pull(longer - 1), Put::Stored { grew: true });
            if flushed {
                pair.copy.flush(&mut pair.copy_disk).unwrap();
                pair.copy = Feed::open(&mut pair.copy_disk, Slot(0)).unwrap();
            }
            for index in [6, 100, 8191] {
                let before = pair.state();
                let whole = pair.answer(Request { index, bytes: 0, hash: false, nodes: 0 });
                let error = pair.put(whole).unwrap_err();
                let PutError::Proof(ProofError::Conflict(conflict)) = error else { panic!("{index}: {error}") };
                assert_eq!((conflict.length, conflict.held_length), (older, longer), "{index}");
                assert_eq!(pair.state(), before);
            }
        }
    }
}

/// A node that rotted on the disk is nobody's lie, and no second history, whatever is signed since.
#[test]
fn a_damaged_node_is_not_taken_for_another_history() {
    let (mut held_below, mut grown_past) = (0, 0);
    for (held, len) in [(6, 6), (6, 9), (6, 16), (8, 8), (8, 20), (13, 40)] {
        for node in 0..2 * held - 1 {
            let mut pair = pair(3, held);
            for index in (0..held).step_by(2) {
                pair.pull(index);
            }
            pair.writer.append(&mut pair.disk, &blocks(3, held..len)).unwrap();
            pair.copy.flush(&mut pair.copy_disk).unwrap();
            let is_root = merkle::index::full_roots(held).any(|root| root == node);
            let (tree, at) = (file(0, FileKind::Tree), 32 + 40 * node);
            let mut bytes = [0; 40];
            pair.copy_disk.read_at(tree, at, &mut bytes).unwrap();
            if is_root || bytes == [0; 40] {
                continue;
            }
            bytes[5] ^= 1;
            pair.copy_disk.write_at(tree, at, &bytes).unwrap();
            pair.copy = Feed::open(&mut pair.copy_disk, Slot(0)).unwrap();
            for index in 0..len {
                let whole = pair.answer(Request { index, bytes: 0, hash: false, nodes: 0 });
                let case = format!("{held} of {len}, node {node}, block {index}");
                match pair.put(whole) {
                    Ok(_) => {}
                    Err(PutError::Store(error)) => {
                        // It is seen as not fitting the node above it.
                        let nodes = [node, merkle::index::parent(node)];
                        let told = nodes.iter().any(|node| error.to_string().contains(&format!("node {node} ")));
                        assert!(told, "{case}: {error}");
                        held_below += usize::from(index < held);
                        grown_past += usize::from(index >= held);
                    }
                    Err(error) => panic!("{case}: {error}"),
                }
            }
        }
    }
    assert!(held_below > 10 && grown_past == 0, "{held_below}, {grown_past}");
}

#[test]
fn a_hash_alone_grows_the_feed_and_poisons_nothing() {
    let mut pair = pair(36, 20);
    let mut data = pair.answer(Request { index: 8, bytes: 0, hash: true, nodes: 0 });
    assert_eq!(data.value, None);
    assert_eq!((data.nodes[0].index, data.nodes[1].index), (16, 18));
    // A parent's hash covers the sum of the sizes: this passes as well as the true one, in JS too.
    data.nodes[0].size += 1;
    data.nodes[1].size -= 1;
    assert_eq!(pair.put(data).unwrap(), Put::Proven { grew: true });
    assert_eq!(pair.copy.len(), 20);
    assert_eq!(pair.copy.downloaded(), 0);
    for index in [8, 9, 0, 19] {
        assert_eq!(pair.pull(index), Put::Stored { grew: false });
    }
    // The last leaf here is certain: its neighbour is held.
    let nodes = pair.copy.digest(1);
    let data = pair.answer(Request { index: 1, bytes: 0, hash: true, nodes });
    assert_eq!(pair.put(data).unwrap(), Put::Known);
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    assert_eq!(verify(&mut pair.copy, &mut pair.copy_disk), []);
}

#[test]
fn nothing_is_answered_for_what_is_not_here() {
    let mut pair = pair(37, 12);
    pair.pull(4);
    let ask = |pair: &mut Pair, index, hash| {
        let request = Request { index, bytes: 0, hash, nodes: 0 };
        pair.copy.answer(&mut pair.copy_disk, &request).unwrap()
    };
    assert!(matches!(ask(&mut pair, 4, false), Answer::Nothing));
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    assert!(matches!(ask(&mut pair, 4, false), Answer::Data(_)));
    assert!(matches!(ask(&mut pair, 5, false), Answer::Nothing));
    assert!(matches!(ask(&mut pair, 5, true), Answer::Data(Data { value: None, .. })));
    assert!(matches!(ask(&mut pair, 0, true), Answer::Nothing));
    for index in [12, MAX_FEED_BLOCKS, u64::MAX / 2 + 1, u64::MAX] {
        assert!(matches!(ask(&mut pair, index, false), Answer::Nothing));
        assert!(matches!(ask(&mut pair, index, true), Answer::Nothing));
    }
    for nodes in [u64::MAX, u64::MAX - 1, 3, 1 << 63] {
        pair.copy.answer(&mut pair.copy_disk, &Request { index: 4, bytes: 0, hash: false, nodes }).unwrap();
    }
}

#[test]
fn a_seek_finds_the_block_that_holds_the_byte() {
    let mut pair = pair(38, 30);
    let mut offset = 0;
    for i in 0..30 {
        let size = block(38, i).len() as u64;
        for at in [offset, offset + size.saturating_sub(1)] {
            if size > 0 {
                assert_eq!(pair.writer.seek(&mut pair.disk, at).unwrap(), Some(i));
            }
        }
        offset += size;
    }
    assert_eq!(pair.writer.seek(&mut pair.disk, offset).unwrap(), Some(30));
    assert_eq!(pair.writer.seek(&mut pair.disk, offset + 1).unwrap(), None);
    let data = pair.answer(Request { index: 3, bytes: 1, hash: false, nodes: 1 });
    assert_eq!(data.index, 0);
    assert!(!data.nodes.is_empty());
    let data = pair.answer(Request { index: 3, bytes: offset + 9, hash: false, nodes: 1 });
    assert_eq!((data.index, data.nodes.len()), (3, 0));
}

#[test]
fn a_block_that_could_not_be_served_is_not_appended() {
    let mut pair = pair(39, 1);
    let largest = Bytes::from(vec![7; MAX_BLOCK_BYTES]);
    let too_large = Bytes::from(vec![7; MAX_BLOCK_BYTES + 1]);
    let error = pair.writer.append(&mut pair.disk, &[Bytes::new(), too_large]).unwrap_err();
    assert_eq!(error.code(), "ERR_BLOCK_TOO_LARGE");
    assert!(matches!(error, AppendError::BlockTooLarge { position: 1, .. }));
    assert_eq!(pair.writer.len(), 1);
    pair.writer.append(&mut pair.disk, &[largest.clone(), Bytes::from_static(b"x")]).unwrap();
    assert_eq!(pair.pull(1), Put::Stored { grew: true });
    assert_eq!(pair.copy.get(&mut pair.copy_disk, 1).unwrap().unwrap(), largest);
    let error = pair.copy.append(&mut pair.copy_disk, &[]).unwrap_err();
    assert_eq!(error.code(), "ERR_READ_ONLY");
}

/// JS appends blocks of up to 8 MiB, whose message then ends a peer's stream.
#[test]
fn a_block_of_a_js_store_that_is_too_large_is_named() {
    let mut pair = pair(40, 0);
    let block = vec![1; MAX_MESSAGE_BYTES];
    // As JS writes it: append refuses, so the files are made by hand.
    let leaf = Node { index: 0, hash: merkle::leaf_hash(&block), size: block.len() as u64 };
    let secret = key_pair(40).secret_key();
    let signing = ed25519_dalek::SigningKey::from_keypair_bytes(&secret).unwrap();
    let message = merkle::signable(&merkle::root_hash(&[leaf]), 1);
    let signature = ed25519_dalek::Signer::sign(&signing, &message).to_bytes();
    pair.disk.write_at(file(0, FileKind::Data), 0, &block).unwrap();
    let node = [&leaf.hash[..], &leaf.size.to_be_bytes()].concat();
    pair.disk.write_at(file(0, FileKind::Tree), 32, &node).unwrap();
    pair.disk.write_at(file(0, FileKind::Signatures), 32, &signature).unwrap();
    let mut writer = Feed::open(&mut pair.disk, Slot(0)).unwrap();
    assert_eq!(writer.recovered().unwrap().blocks_regained, 1);
    let request = Request { index: 0, bytes: 0, hash: false, nodes: 0 };
    let size = block.len() as u64;
    match writer.answer(&mut pair.disk, &request).unwrap() {
        Answer::TooLarge { index: 0, size: told } => assert_eq!(told, size),
        other => panic!("{other:?}"),
    }
    assert_eq!(writer.get(&mut pair.disk, 0).unwrap().unwrap().len() as u64, size);
    assert_eq!(verify(&mut writer, &mut pair.disk), []);
}

#[test]
fn signatures_of_the_root_hash_alone_count_too() {
    let mut pair = pair(41, 3);
    let mut data = pair.answer(Request { index: 1, bytes: 0, hash: false, nodes: 0 });
    let leaf = |i: u64| Node { index: 2 * i, hash: merkle::leaf_hash(&block(41, i)), size: block(41, i).len() as u64 };
    let roots = [merkle::parent(&leaf(0), &leaf(1)).unwrap(), leaf(2)];
    let signing = ed25519_dalek::SigningKey::from_keypair_bytes(&key_pair(41).secret_key()).unwrap();
    let signature = ed25519_dalek::Signer::sign(&signing, &merkle::root_hash(&roots)).to_bytes();
    assert_ne!(data.signature, Some(signature));
    data.signature = Some(signature);
    assert_eq!(pair.put(data).unwrap(), Put::Stored { grew: true });
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    let mut copy = Feed::open(&mut pair.copy_disk, Slot(0)).unwrap();
    assert_eq!((copy.recovered(), copy.len()), (None, 3));
    assert_eq!(verify(&mut copy, &mut pair.copy_disk), []);
}

#[test]
fn damage_is_named_by_feed_file_and_block() {
    let mut pair = pair(42, 30);
    for (kind, offset, expected) in [
        (FileKind::Data, 40, "data"),
        (FileKind::Tree, 32 + 40 * 9, "tree"),
        (FileKind::Tree, 32 + 40 * 7, "tree"),
        (FileKind::Signatures, 32 + 64 * 29, "signatures"),
    ] {
        let mut disk = pair.disk.clone();
        let mut writer = Feed::open(&mut disk, Slot(0)).unwrap();
        let mut byte = [0];
        disk.read_at(file(0, kind), offset, &mut byte).unwrap();
        disk.write_at(file(0, kind), offset, &[byte[0] ^ 1]).unwrap();
        let findings = verify(&mut writer, &mut disk);
        assert!(!findings.is_empty(), "{kind}");
        assert!(findings.iter().any(|finding| finding.files()[0].name() == expected), "{findings:?}");
        let text = findings[0].to_string();
        assert!(text.contains(&writer.key().to_string()) && text.contains("block"), "{text}");
        if kind == FileKind::Data {
            assert_eq!(findings.len(), 1);
            let offset = |i: u64| (0..i).map(|i| block(42, i).len()).sum::<usize>();
            let damaged = findings[0].block();
            assert!((offset(damaged)..offset(damaged + 1)).contains(&40));
        }
    }
    pair.disk.truncate(file(0, FileKind::Data), 50).unwrap();
    let findings = verify(&mut pair.writer, &mut pair.disk);
    assert!(findings.len() > 10);
}

#[test]
fn a_key_that_is_no_point_proves_nothing_and_does_not_panic() {
    let mut disk = MemoryStorage::new();
    let key = multifeed_proto::FeedKey::new([0xff; 32]);
    let mut copy = Feed::create(&mut disk, Slot(0), key, None, None).unwrap();
    let mut pair = pair(43, 3);
    let data = pair.data(0);
    assert!(matches!(
        copy.put(&mut disk, prepare(data)),
        Err(PutError::Proof(ProofError::BadSignature { length: 3, .. }))
    ));
    let other = KeyPair::from_seed(&[1; 32]);
    let error = Feed::create(&mut disk, Slot(1), key, Some(&other), None).unwrap_err();
    assert_eq!(error.code(), "ERR_KEY_MISMATCH");
}

#[test]
fn what_a_proof_brought_is_told() {
    let mut pair = pair(44, 9);
    let hash = |pair: &mut Pair, index| pair.answer(Request { index, bytes: 0, hash: true, nodes: 0 });
    let whole = |pair: &mut Pair, index| pair.answer(Request { index, bytes: 0, hash: false, nodes: 0 });
    let data = hash(&mut pair, 8);
    assert_eq!(pair.put(data).unwrap(), Put::Proven { grew: true });
    // The length and its signature are known: only blocks are new.
    let data = whole(&mut pair, 3);
    assert_eq!(pair.put(data).unwrap(), Put::Stored { grew: false });
    let data = whole(&mut pair, 3);
    assert_eq!(pair.put(data).unwrap(), Put::Known);
    let data = pair.answer(Request { index: 5, bytes: 0, hash: true, nodes: pair.copy.digest(5) });
    assert_eq!(pair.put(data).unwrap(), Put::Proven { grew: false });
    // A block that was cleared comes again, to the same place.
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    pair.copy.clear(&mut pair.copy_disk, 3..4).unwrap();
    let data = whole(&mut pair, 3);
    assert_eq!(pair.put(data).unwrap(), Put::Stored { grew: false });
    pair.copy.flush(&mut pair.copy_disk).unwrap();
    let mut copy = Feed::open(&mut pair.copy_disk, Slot(0)).unwrap();
    assert_eq!(copy.get(&mut pair.copy_disk, 3).unwrap().unwrap(), block(44, 3));
    assert_eq!(verify(&mut copy, &mut pair.copy_disk), []);
}

#[test]
fn sizes_of_two_leaves_that_nothing_proves_do_not_make_a_true_block_look_false() {
    // With other nodes to prove above the two, and with none.
    for length in [9, 4] {
        let mut pair = pair(45, length);
        let mut data = pair.answer(Request { index: 2, bytes: 0, hash: true, nodes: 0 });
        if length == 4 {
            // The node beside the one above them is held.
            pair.pull(0);
            data.nodes.truncate(2);
        }
        let [first, second] = &mut data.nodes[..2] else { panic!("{data:?}") };
        assert_eq!((first.index, second.index), (4, 6));
        // The node above them covers the sum only.
        (first.size, second.size) = (first.size + 1, second.size - 1);
        pair.put(data).unwrap();
        for index in [2, 3] {
            assert_eq!(pair.pull(index), Put::Stored { grew: false });
            assert_eq!(pair.copy.get(&mut pair.copy_disk, index).unwrap().unwrap(), block(45, index));
        }
    }
}

#[test]
fn nodes_past_all_feeds_are_named_before_anything_is_looked_at() {
    let mut pair = pair(46, 9);
    let whole = pair.data(2);
    let with = |nodes: Vec<Node>| Data { nodes, ..whole.clone() };
    let mut why = |data: Data| match pair.put(data) {
        Err(PutError::Proof(ProofError::Malformed { index: 2, why })) => why,
        Err(PutError::Proof(_)) => "",
        other => panic!("{other:?}"),
    };
    let node = |index, size| Node { index, hash: [1; 32], size };
    let last = 2 * MAX_FEED_BLOCKS - 2;
    let size = whole.value.as_ref().unwrap().len() as u64;
    for (nodes, expected) in [
        (vec![node(6, MAX_FEED_BYTES - 1000)], ""),
        (vec![node(6, MAX_FEED_BYTES + 1)], "a node is past all feeds"),
        // The roots of three blocks.
        (vec![node(1, MAX_FEED_BYTES - size)], ""),
        (vec![node(1, MAX_FEED_BYTES - size + 1)], "its length is past all feeds"),
        (vec![node(last, 1)], ""),
        // Over twice as many blocks as a feed has.
        (vec![node(last + 1, 1)], "a node is past all feeds"),
        (vec![node(last + 2, 1)], "a node is past all feeds"),
        (vec![node(9, 1); MAX_PROOF_NODES], ""),
        (vec![node(9, 1); MAX_PROOF_NODES + 1], "it has more nodes than any proof"),
    ] {
        assert_eq!(why(with(nodes.clone())), expected, "{:?}", nodes[0]);
    }
}
