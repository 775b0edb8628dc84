//! Damages made by hand, one at a time: what opening the feed sets right, what it tells of it, and what it leaves alone.

use crate::common;

use common::{Faulty, block, blocks, create, create_copy, file, key_pair, pull, verify};
use multifeed_core::feed::Problem;
use multifeed_core::{
    Durability, Feed, FileKind, MemoryStorage, Multifeed, Options, Recovered, Slot, Storage, StoreError, VerifyCursor,
    VerifyStep, merkle, prepare,
};
use multifeed_proto::{Data, FeedKey, Node};

const N: u8 = 60;
const HEADER: u64 = 32;
const NODE: u64 = 40;
const SIGNATURE: u64 = 64;

/// A writer's folder: blocks 0 to 100, by four in an append.
fn written() -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, N, Some("w"));
    for start in (0..100).step_by(4) {
        feed.append(&mut disk, &blocks(N, start..start + 4)).unwrap();
    }
    disk
}

/// A copy of a feed that grew to these lengths one after the other, with all blocks up to `held`, and the last one of each length.
fn copied(lengths: &[u64], held: u64) -> MemoryStorage {
    let (mut disk, mut copied) = (MemoryStorage::new(), MemoryStorage::new());
    let mut feed = create(&mut disk, 0, N, None);
    let mut copy = create_copy(&mut copied, 0, N);
    for length in lengths {
        feed.append(&mut disk, &blocks(N, feed.len()..*length)).unwrap();
        for index in (copy.len()..held.min(*length)).chain([length - 1]) {
            pull((&mut feed, &mut disk), (&mut copy, &mut copied), index);
        }
    }
    copy.flush(&mut copied).unwrap();
    copied
}

fn flip(disk: &mut MemoryStorage, kind: FileKind, at: u64) {
    let byte = disk.contents(file(0, kind)).unwrap()[at as usize];
    disk.write_at(file(0, kind), at, &[byte ^ 1]).unwrap();
}

fn cut(disk: &mut MemoryStorage, kind: FileKind, less: u64) {
    let len = disk.contents(file(0, kind)).unwrap().len() as u64;
    disk.truncate(file(0, kind), len - less).unwrap();
}

/// Marks a tree node, or takes its mark away.
fn flip_mark(disk: &mut MemoryStorage, node: u64) {
    let (page, within) = (node / 16384, node % 16384);
    let at = HEADER + page * 3328 + 1024 + within / 8;
    let byte = disk.contents(file(0, FileKind::Bitfield)).unwrap()[at as usize];
    disk.write_at(file(0, FileKind::Bitfield), at, &[byte ^ (128 >> (within % 8))]).unwrap();
}

/// The start of a block in `data`.
fn offset(index: u64) -> u64 {
    (0..index).map(|i| block(N, i).len() as u64).sum()
}

fn leaf(index: u64, block: &[u8]) -> Node {
    Node { index: 2 * index, hash: merkle::leaf_hash(block), size: block.len() as u64 }
}

fn write_node(disk: &mut MemoryStorage, node: &Node) {
    let bytes = [&node.hash[..], &node.size.to_be_bytes()].concat();
    disk.write_at(file(0, FileKind::Tree), HEADER + node.index * NODE, &bytes).unwrap();
}

/// Another block of the same size in a block's place, with its leaf: they fit each other, and nothing else.
fn forge(disk: &mut MemoryStorage, index: u64) -> Node {
    let other = vec![b'!'; block(N, index).len()];
    disk.write_at(file(0, FileKind::Data), offset(index), &other).unwrap();
    let leaf = leaf(index, &other);
    write_node(disk, &leaf);
    leaf
}

/// The folder in a store that was left without being closed, and whose journal knows nothing of it.
fn left_open(mut disk: MemoryStorage) -> MemoryStorage {
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    store.writer(Some("another"), || key_pair(99)).unwrap();
    drop(store);
    disk.reopen();
    disk
}

fn opened(disk: &mut MemoryStorage) -> Multifeed<&mut MemoryStorage> {
    disk.reopen();
    Multifeed::open(disk, Options::default()).unwrap()
}

/// The numbers of a report, in the order of its fields: checked, marked, length, unmarked blocks and nodes, regained, mended.
fn numbers(report: &Recovered) -> [u64; 7] {
    [
        report.blocks_checked,
        report.marked_length,
        report.length,
        report.blocks_unmarked,
        report.nodes_unmarked,
        report.blocks_regained,
        report.signatures_mended,
    ]
}

/// Opens the feed, sees that all that it has now is right and stays so, and returns what was reported.
fn set_right(disk: &mut MemoryStorage) -> (Feed, Option<Recovered>) {
    let mut feed = Feed::open(disk, Slot(0)).unwrap();
    assert_eq!(verify(&mut feed, disk), []);
    assert_eq!(Feed::open(disk, Slot(0)).unwrap().recovered(), None);
    let told = feed.recovered().cloned();
    (feed, told)
}

/// Only what was not marked counts as found again.
#[test]
fn marks_of_an_older_bitfield_are_made_again_and_counted_once() {
    let mut disk = copied(&[30, 90], 90);
    let older = copied(&[30], 30).contents(file(0, FileKind::Bitfield)).unwrap();
    disk.write_at(file(0, FileKind::Bitfield), 0, &older).unwrap();
    let (feed, told) = set_right(&mut disk);
    let told = told.unwrap();
    assert_eq!((feed.len(), feed.downloaded()), (90, 90));
    assert_eq!((told.marked_length, told.blocks_regained, told.blocks_unmarked), (30, 60, 0), "{told}");
}

#[test]
fn a_clean_feed_is_opened_without_a_write() {
    let mut empty_blocks = MemoryStorage::new();
    create(&mut empty_blocks, 0, N, None).append(&mut empty_blocks, &["".into(), "".into()]).unwrap();
    // In the place of a node that the feed does not have: what an append that was cut left.
    let mut large = copied(&[10_000], 3);
    write_node(&mut large, &Node { index: 16383, hash: [7; 32], size: 7 });
    for disk in [written(), copied(&[30, 90], 90), copied(&[30, 90], 5), large, empty_blocks] {
        let mut disk = Faulty::new(disk, 0, 4);
        let feed = Feed::open(&mut disk, Slot(0)).unwrap();
        assert!(!disk.failed && feed.recovered().is_none() && !feed.is_empty());
    }
}

#[test]
fn what_was_set_right_is_told_in_numbers() {
    // All marks are gone.
    let mut disk = written();
    disk.truncate(file(0, FileKind::Bitfield), HEADER).unwrap();
    let told = set_right(&mut disk).1.unwrap();
    assert_eq!(numbers(&told), [0, 0, 100, 0, 0, 100, 0]);
    let text = "folder 0 said a length of 0 blocks, and has 100 now; blocks that were not marked, and are there: 100";
    assert_eq!(told.to_string(), text);
    // The last leaf, which its parent proves.
    let mut disk = written();
    cut(&mut disk, FileKind::Tree, 1);
    assert_eq!(numbers(&set_right(&mut disk).1.unwrap()), [0, 100, 100, 0, 1, 0, 0]);
    // The newest signature.
    let mut disk = written();
    cut(&mut disk, FileKind::Signatures, SIGNATURE);
    let told = set_right(&mut disk).1.unwrap();
    assert_eq!((numbers(&told), told.signed_again), ([0, 100, 100, 0, 0, 0, 0], true));
    let text = "folder 0 has a length of 100 blocks, as it said; its newest signature was made again";
    assert_eq!(told.to_string(), text);

    // Of a copy: blocks are lost one by one, and the length stays.
    let mut disk = copied(&[90], 90);
    cut(&mut disk, FileKind::Data, block(N, 89).len() as u64 + 1);
    let (copy, told) = set_right(&mut disk);
    assert_eq!((numbers(&told.unwrap()), copy.downloaded()), ([0, 90, 90, 2, 0, 0, 0], 88));
    // Its last leaf: zeros stand in its place, and its block proves it.
    let mut disk = copied(&[90], 90);
    write_node(&mut disk, &Node { index: 2 * 89, hash: [0; 32], size: 0 });
    let (copy, told) = set_right(&mut disk);
    assert_eq!((numbers(&told.unwrap()), copy.downloaded()), ([0, 90, 90, 0, 0, 0, 0], 90));
}

#[test]
fn the_last_block_says_nothing_of_those_before_it_where_it_is_empty() {
    assert!(block(N, 20).is_empty());
    let mut disk = copied(&[21], 21);
    cut(&mut disk, FileKind::Data, 1);
    let (copy, _) = set_right(&mut disk);
    assert!(copy.has(20) && !copy.has(19) && copy.has(18));
}

#[test]
fn where_the_file_ends_there_are_no_zeros() {
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, N, None);
    for block in ["first".into(), vec![0; 10].into()] {
        feed.append(&mut disk, &[block]).unwrap();
    }
    cut(&mut disk, FileKind::Data, 4);
    let feed = Feed::open(&mut disk, Slot(0)).unwrap();
    assert_eq!((feed.len(), feed.has(0), feed.has(1)), (2, true, false));
    assert_eq!(feed.recovered().unwrap().lost, [1]);
}

/// Without the journal nobody knows whether somebody saw the last append: another one in its place would be a second history. If its roots are not
/// there to be gone on from, the feed is refused; its blocks may be lost.
#[test]
fn a_writer_that_lost_its_roots_is_refused_and_not_one_that_lost_blocks() {
    for (lost, blocks_lost) in [(1, vec![99]), (block(N, 99).len() as u64 + 1, vec![99, 98])] {
        let mut disk = written();
        cut(&mut disk, FileKind::Data, lost);
        let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
        let told = feed.recovered().unwrap();
        assert_eq!((numbers(told), &told.lost), ([0, 100, 100, blocks_lost.len() as u64, 0, 0, 0], &blocks_lost));
        assert_eq!(feed.append(&mut disk, &blocks(N, 100..101)).unwrap(), 100..101);
        assert_eq!(verify(&mut Feed::open(&mut disk, Slot(0)).unwrap(), &mut disk), []);
    }
    // The leaf of the last block alone is made again: its signature proves what is left of `data`.
    let mut disk = written();
    cut(&mut disk, FileKind::Tree, NODE + 1);
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    assert_eq!((feed.len(), feed.downloaded(), verify(&mut feed, &mut disk)), (100, 100, vec![]));
    for (kind, lost) in [(FileKind::Tree, 3 * NODE), (FileKind::Tree, 9 * NODE)] {
        let mut disk = written();
        cut(&mut disk, kind, lost);
        let error = Feed::open(&mut disk, Slot(0)).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { slot: Slot(0), file, .. } if file == kind),
            "{kind} {lost}: {error}"
        );
    }
}

/// What is left of a file that had so many bytes: nothing, no header, parts of it, and where an entry, a block or a page ends.
fn left_of(kind: FileKind, len: u64, blocks: u64) -> Vec<u64> {
    let ends = match kind {
        FileKind::Signatures => vec![HEADER, HEADER + SIGNATURE, HEADER + (blocks - 1) * SIGNATURE],
        FileKind::Tree => vec![HEADER, HEADER + NODE, HEADER + (2 * blocks).saturating_sub(3) * NODE],
        FileKind::Bitfield => vec![HEADER, HEADER + 1024, HEADER + 1030, HEADER + 3072, HEADER + 3328],
        _ => vec![1, offset(blocks - 1)],
    };
    let parts = [0, 31, len / 2, len * 3 / 4, len.saturating_sub(1), len];
    let mut left: Vec<u64> = ends.into_iter().chain(parts).filter(|left| *left <= len).collect();
    left.sort_unstable();
    left.dedup();
    left
}

/// No journal knows a feed of JS's: if its marks are lost it is opened with all of its blocks, or not at all, whatever else is lost with them.
#[test]
fn a_writer_whose_marks_are_lost_is_never_opened_shorter() {
    const KINDS: [FileKind; 4] = [FileKind::Bitfield, FileKind::Signatures, FileKind::Tree, FileKind::Data];
    let (mut whole, mut refused) = (0, 0);
    for (length, at_once) in [(1, 1), (2, 1), (7, 7), (100, 1), (100, 4), (8192, 1024)] {
        let mut disk = MemoryStorage::new();
        let mut feed = create(&mut disk, 0, N, Some("w"));
        while feed.len() < length {
            feed.append(&mut disk, &blocks(N, feed.len()..(feed.len() + at_once).min(length))).unwrap();
        }
        let len = |kind| disk.contents(file(0, kind)).map_or(0, |contents| contents.len() as u64);
        // Two of the four files are cut, or one, somewhere; of a long feed the marks are among them.
        let firsts = if length > 100 { &KINDS[..1] } else { &KINDS };
        for &first in firsts {
            for second in KINDS {
                for left in left_of(first, len(first), length) {
                    for rest in left_of(second, len(second), length) {
                        let mut cut = disk.clone();
                        for (kind, left) in [(first, left), (second, rest)] {
                            match left {
                                0 => cut.lose(file(0, kind)),
                                left if len(kind) > left => cut.truncate(file(0, kind), left).unwrap(),
                                _ => {}
                            }
                        }
                        let before = KINDS.map(|kind| cut.contents(file(0, kind)));
                        let case = format!("{length} by {at_once}, {first} {left}, {second} {rest}");
                        match Feed::open(&mut cut, Slot(0)) {
                            Ok(feed) => {
                                whole += 1;
                                assert_eq!(feed.len(), length, "{case}: {:?}", feed.recovered());
                            }
                            Err(error) => {
                                refused += 1;
                                assert!(matches!(error, StoreError::Damaged { slot: Slot(0), .. }), "{case}: {error}");
                                assert!(before == KINDS.map(|kind| cut.contents(file(0, kind))), "{case}");
                            }
                        }
                    }
                }
            }
        }
        for kind in [FileKind::Signatures, FileKind::Bitfield] {
            let mut cut = disk.clone();
            cut.lose(file(0, kind));
            assert_eq!(Feed::open(&mut cut, Slot(0)).unwrap().len(), length, "{kind}: the other files tell all of it");
        }
    }
    assert!(whole > 100 && refused > 100, "{whole}, {refused}");
}

/// What JS makes of a writer before its first block, and what is left of a first block that was never signed.
#[test]
fn an_empty_writer_is_opened_where_all_of_its_files_are_empty() {
    let mut disk = MemoryStorage::new();
    create(&mut disk, 0, N, Some("w"));
    let kinds = [FileKind::Bitfield, FileKind::Signatures, FileKind::Tree, FileKind::Data];
    for gone in 0..16 {
        let mut disk = disk.clone();
        kinds.iter().enumerate().filter(|(at, _)| gone >> at & 1 == 1).for_each(|(_, kind)| disk.lose(file(0, *kind)));
        let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
        feed.append(&mut disk, &blocks(N, 0..3)).unwrap();
        assert_eq!(feed.len(), 3);
    }
    for (kind, at) in [(FileKind::Data, 0), (FileKind::Tree, HEADER), (FileKind::Signatures, HEADER)] {
        let mut disk = disk.clone();
        disk.write_at(file(0, kind), at, &[7]).unwrap();
        let error = Feed::open(&mut disk, Slot(0)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { file, .. } if file == kind), "{kind}: {error}");
    }
}

/// Whatever is left of it: what the tree, the signatures and the blocks prove of a remote's feed is marked again.
#[test]
fn a_copy_whose_marks_are_lost_is_there_all_the_same() {
    for (lengths, held) in [(vec![90], 90), (vec![3, 40, 90], 90), (vec![90], 7), (vec![9000, 20_000], 20_000)] {
        let whole = copied(&lengths, held);
        let marks = whole.contents(file(0, FileKind::Bitfield)).unwrap().len() as u64;
        let before = Feed::open(&mut whole.clone(), Slot(0)).unwrap();
        for left in [0, 31, HEADER, HEADER + 3, HEADER + (marks - HEADER) / 2] {
            let mut disk = whole.clone();
            match left {
                0 => disk.lose(file(0, FileKind::Bitfield)),
                left => disk.truncate(file(0, FileKind::Bitfield), left).unwrap(),
            }
            let (copy, told) = set_right(&mut disk);
            let case = format!("{lengths:?}, {held}, {left}: {told:?}");
            assert_eq!((copy.len(), copy.downloaded()), (before.len(), before.downloaded()), "{case}");
            assert!(told.is_some_and(|told| told.length == before.len()) || left > HEADER + 3, "{case}");
        }
    }
}

#[test]
fn js_can_read_empty_blocks_whose_data_file_is_gone() {
    let mut whole = MemoryStorage::new();
    create(&mut whole, 0, N, None).append(&mut whole, &["".into(), "".into()]).unwrap();
    let mut disk = MemoryStorage::new();
    for kind in FileKind::ALL.into_iter().filter(|kind| *kind != FileKind::Data) {
        if let Some(bytes) = whole.contents(file(0, kind)) {
            disk.replace(file(0, kind), &bytes).unwrap();
        }
    }
    Feed::open(&mut disk, Slot(0)).unwrap();
    assert_eq!(disk.contents(file(0, FileKind::Data)), Some(Vec::new()));
}

#[test]
fn a_block_that_fits_nothing_but_its_leaf_is_not_held() {
    let mut disk = copied(&[90], 90);
    forge(&mut disk, 89);
    let copy = Feed::open(&mut disk, Slot(0)).unwrap();
    // Nor is the one beside it, which no leaf proves now.
    assert_eq!((copy.downloaded(), copy.has(89)), (88, false));
}

#[test]
fn a_leaf_that_is_not_marked_is_found_again_where_it_can_be_proven() {
    for index in [40, 41] {
        let node = 2 * index;
        let whole = copied(&[90], 90);
        // It is in its place.
        let mut disk = whole.clone();
        flip_mark(&mut disk, node);
        let (copy, told) = set_right(&mut disk);
        assert_eq!((numbers(&told.unwrap()), copy.downloaded()), ([0, 90, 90, 0, 0, 0, 0], 90), "{index}");
        // It is made again from its block.
        let mut disk = whole.clone();
        flip_mark(&mut disk, node);
        write_node(&mut disk, &Node { index: node, hash: [0; 32], size: 0 });
        let (copy, told) = set_right(&mut disk);
        assert!(told.is_some() && copy.downloaded() == 90, "{index}");
        assert!(disk.contents(file(0, FileKind::Tree)) == whole.contents(file(0, FileKind::Tree)), "{index}");
        // That is another block.
        flip_mark(&mut disk, node);
        write_node(&mut disk, &Node { index: node, hash: [0; 32], size: 0 });
        flip(&mut disk, FileKind::Data, offset(index));
        let copy = Feed::open(&mut disk, Slot(0)).unwrap();
        assert_eq!(numbers(copy.recovered().unwrap()), [0, 90, 90, 1, 0, 0, 0], "{index}");
        assert!(!copy.has(index) && copy.downloaded() == 89, "{index}");
        // It is another leaf.
        let mut disk = whole.clone();
        flip_mark(&mut disk, node);
        forge(&mut disk, index);
        assert!(!Feed::open(&mut disk, Slot(0)).unwrap().has(index), "{index}");
    }
}

#[test]
fn a_node_over_two_pages_of_the_bitfield_is_marked_again() {
    let mut disk = copied(&[16390], 1);
    let before = disk.contents(file(0, FileKind::Bitfield));
    flip_mark(&mut disk, 16383);
    assert!(disk.contents(file(0, FileKind::Bitfield)) != before);
    let (copy, _) = set_right(&mut disk);
    assert_eq!((copy.len(), copy.downloaded()), (16390, 2));
    assert!(disk.contents(file(0, FileKind::Bitfield)) == before);
}

#[test]
fn a_copy_goes_back_to_the_newest_length_that_is_signed() {
    for older in [[3, 7], [3, 1100], [1020, 1026]] {
        let whole = copied(&[older[0], older[1], 1200], 3);
        let mut disk = whole.clone();
        flip(&mut disk, FileKind::Signatures, HEADER + 1199 * SIGNATURE);
        let (copy, _) = set_right(&mut disk);
        assert_eq!(copy.len(), older[1]);
        // What is past it is cut off: a signature that comes to stand after it would not be of one history with it.
        let len = HEADER + older[1] * SIGNATURE;
        assert_eq!(disk.contents(file(0, FileKind::Signatures)).unwrap().len() as u64, len);
        let mut disk = whole.clone();
        flip(&mut disk, FileKind::Signatures, HEADER + 1199 * SIGNATURE);
        flip(&mut disk, FileKind::Signatures, HEADER + (older[1] - 1) * SIGNATURE);
        assert_eq!(set_right(&mut disk).0.len(), older[0]);
    }
}

#[test]
fn a_writer_is_signed_again_only_where_all_of_it_is_there() {
    for damage in [0, 1] {
        let mut disk = written();
        flip(&mut disk, FileKind::Signatures, HEADER + 99 * SIGNATURE);
        match damage {
            0 => flip(&mut disk, FileKind::Data, 3),
            // A root of length 100, over blocks 64 to 96.
            _ => flip(&mut disk, FileKind::Tree, HEADER + 159 * NODE),
        }
        match Feed::open(&mut disk, Slot(0)) {
            Ok(feed) => assert_eq!((feed.len(), feed.recovered().unwrap().signed_again), (96, false), "{damage}"),
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{damage}: {error}"),
        }
    }
}

#[test]
fn a_block_of_any_size_that_js_wrote_is_there_after_opening() {
    // No append of ours takes such a block: the files are made by hand.
    let block = vec![1; 2 * multifeed_core::limits::MAX_MESSAGE_BYTES + 1];
    let leaf = leaf(0, &block);
    let message = merkle::signable(&merkle::root_hash(&[leaf]), 1);
    let signing = ed25519_dalek::SigningKey::from_keypair_bytes(&key_pair(N).secret_key()).unwrap();
    let mut disk = MemoryStorage::new();
    create(&mut disk, 0, N, None);
    disk.write_at(file(0, FileKind::Data), 0, &block).unwrap();
    write_node(&mut disk, &leaf);
    let signature = ed25519_dalek::Signer::sign(&signing, &message).to_bytes();
    disk.write_at(file(0, FileKind::Signatures), HEADER, &signature).unwrap();
    let (mut feed, told) = set_right(&mut disk);
    assert_eq!((feed.len(), told.unwrap().blocks_regained), (1, 1));
    // Now that it is marked, too.
    let (_, told) = set_right(&mut disk);
    assert_eq!(told, None);
    assert!(feed.get(&mut disk, 0).unwrap().unwrap() == block);
}

#[test]
fn what_was_signed_after_a_clean_end_is_not_cut_back() {
    // Closed at five blocks; then somebody who knows no journal appends ten; then the disk loses the last three.
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    store.append(id, &blocks(N, 0..5)).unwrap();
    store.close().unwrap();
    disk.reopen();
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    (5..15).for_each(|at| _ = feed.append(&mut disk, &blocks(N, at..at + 1)).unwrap());
    let mut tree_cut = disk.clone();
    disk.truncate(file(0, FileKind::Data), offset(12)).unwrap();
    let store = opened(&mut disk);
    let id = store.find_name("w").unwrap();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!((store.info(id).unwrap().len, store.info(id).unwrap().downloaded), (15, 12));
    drop(store);

    tree_cut.truncate(file(0, FileKind::Tree), HEADER + 2 * 12 * NODE).unwrap();
    let before = FileKind::ALL.map(|kind| tree_cut.contents(file(0, kind)));
    let store = opened(&mut tree_cut);
    assert_eq!(store.problems().iter().map(|problem| problem.code()).collect::<Vec<_>>(), ["ERR_STORE_DAMAGED"]);
    assert!(before == FileKind::ALL.map(|kind| store.storage().contents(file(0, kind))));
}

/// A store with a writer of ten synced blocks and three that are not, which is left without being closed.
fn synced_and_left() -> MemoryStorage {
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    (0..10).for_each(|at| _ = store.append(id, &blocks(N, at..at + 1)).unwrap());
    store.sync().unwrap();
    (10..13).for_each(|at| _ = store.append(id, &blocks(N, at..at + 1)).unwrap());
    drop(store);
    disk
}

#[test]
fn signatures_of_a_writer_that_are_torn_are_made_again() {
    let whole = synced_and_left();
    let signatures = whole.contents(file(0, FileKind::Signatures)).unwrap();
    // The newest one, that of the length that was synced, one before and one after it.
    for (length, mended, again) in [(13, 1, false), (10, 0, true), (11, 1, false)] {
        let mut disk = whole.clone();
        flip(&mut disk, FileKind::Signatures, HEADER + (length - 1) * SIGNATURE);
        let store = opened(&mut disk);
        let [told] = store.recovered() else { panic!("{length}: {:?}", store.recovered()) };
        assert_eq!((numbers(told), told.signed_again), ([3, 13, 13, 0, 0, 0, mended], again), "{length}");
        assert_eq!((told.unclean, told.synced_length), (true, Some(10)));
        drop(store);
        assert!(disk.contents(file(0, FileKind::Signatures)).unwrap() == signatures, "{length}");
        set_right(&mut disk);
    }
}

#[test]
fn a_secret_key_that_is_gone_is_told_from_a_name_that_was_left() {
    for (journal, file_) in [(true, FileKind::SecretKey), (false, FileKind::LocalName)] {
        let mut disk = MemoryStorage::new();
        let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
        let id = store.writer(Some("w"), || key_pair(N)).unwrap();
        store.append(id, &blocks(N, 0..2)).unwrap();
        store.close().unwrap();
        disk.lose(file(0, FileKind::SecretKey));
        if !journal {
            disk.lose(file(0, FileKind::Journal));
        }
        let store = opened(&mut disk);
        let [StoreError::Damaged { file, .. }] = store.problems() else { panic!("{:?}", store.problems()) };
        assert_eq!(*file, file_);
        assert_eq!(store.find(&key_pair(N).public_key()).map(|id| store.info(id).unwrap().downloaded), Some(2));
    }
}

#[test]
fn what_was_not_synced_of_a_writer_is_told_in_numbers() {
    let mut disk = synced_and_left();
    cut(&mut disk, FileKind::Data, 1);
    let store = opened(&mut disk);
    assert_eq!(numbers(&store.recovered()[0]), [2, 13, 12, 1, 1, 0, 0]);
    drop(store);
    // Two blocks, of which the signatures are there: the writer goes on all the same, as nobody saw them.
    let mut disk = synced_and_left();
    cut(&mut disk, FileKind::Data, block(N, 12).len() as u64 + 1);
    let store = opened(&mut disk);
    assert_eq!((store.problems().len(), numbers(&store.recovered()[0])), (0, [1, 13, 11, 2, 4, 0, 0]));
    drop(store);
    // Of the marks, those that came last are gone; and all.
    let mut shorter = MemoryStorage::new();
    create(&mut shorter, 0, N, None).append(&mut shorter, &blocks(N, 0..10)).unwrap();
    let mut disk = synced_and_left();
    disk.replace(file(0, FileKind::Bitfield), &shorter.contents(file(0, FileKind::Bitfield)).unwrap()).unwrap();
    assert_eq!(numbers(&opened(&mut disk).recovered()[0]), [3, 10, 13, 0, 0, 3, 0]);
    let mut disk = synced_and_left();
    disk.truncate(file(0, FileKind::Bitfield), HEADER).unwrap();
    assert_eq!(numbers(&opened(&mut disk).recovered()[0]), [13, 0, 13, 0, 0, 13, 0]);
}

#[test]
fn what_a_crash_left_of_a_new_writer_is_taken_as_far_as_it_is_whole() {
    // Its marks came to the disk, and of its blocks the second did not. Nobody saw them.
    let mut disk = MemoryStorage::new();
    let mut store = Multifeed::open(&mut disk, Options::default()).unwrap();
    let id = store.writer(Some("w"), || key_pair(N)).unwrap();
    (0..3).for_each(|at| _ = store.append(id, &blocks(N, at..at + 1)).unwrap());
    drop(store);
    flip(&mut disk, FileKind::Data, offset(1));
    let store = opened(&mut disk);
    assert_eq!((store.problems().len(), numbers(&store.recovered()[0])), (0, [1, 3, 1, 2, 3, 0, 0]));
    drop(store);
    assert_eq!(set_right(&mut disk).0.len(), 1);
}

#[test]
fn a_writer_that_no_journal_knows_is_not_searched_for_damage() {
    // A crash of JS's cannot be told from bit rot: what is marked stays marked, and verifying it tells.
    let mut disk = left_open(written());
    flip(&mut disk, FileKind::Data, offset(50));
    let store = opened(&mut disk);
    assert_eq!((store.recovered().len(), store.problems().len()), (0, 0));
    drop(store);
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    let found: Vec<_> = verify(&mut feed, &mut disk).into_iter().map(|finding| finding.problem).collect();
    assert_eq!(found, [Problem::BlockDamaged { block: 50 }]);
}

#[test]
fn a_copy_whose_writes_all_came_to_the_disk_loses_nothing() {
    for lengths in [&[30, 90][..], &[1020, 1026, 1100]] {
        let length = *lengths.last().unwrap();
        let mut disk = left_open(copied(lengths, length));
        let store = opened(&mut disk);
        assert_eq!(store.recovered(), []);
        drop(store);
        let (copy, _) = set_right(&mut disk);
        assert_eq!((copy.len(), copy.downloaded()), (length, length));
    }
}

#[test]
fn a_copy_keeps_what_came_after_it_was_synced() {
    let mut disk = copied(&[30], 30);
    let options = Options { durability: Durability::Always, ..Options::default() };
    let mut store = Multifeed::open(&mut disk, options).unwrap();
    store.sync().unwrap();
    assert_eq!(store.synced_len(store.feeds().next().unwrap()), 30);
    drop(store);
    let grown = copied(&[30, 90], 90);
    for kind in FileKind::ALL {
        if let Some(bytes) = grown.contents(file(0, kind)) {
            disk.replace(file(0, kind), &bytes).unwrap();
        }
    }
    let store = opened(&mut disk);
    assert_eq!(store.recovered(), []);
    drop(store);
    let (copy, _) = set_right(&mut disk);
    assert_eq!((copy.len(), copy.downloaded()), (90, 90));
}

#[test]
fn a_copy_keeps_what_its_signatures_prove() {
    let whole = left_open(copied(&[30, 60, 90], 90));
    let told = |damage: &dyn Fn(&mut MemoryStorage)| {
        let mut disk = whole.clone();
        damage(&mut disk);
        let store = opened(&mut disk);
        let [told] = store.recovered() else { panic!("{:?}", store.recovered()) };
        assert!(told.unclean && told.synced_length.is_none());
        let told = numbers(told);
        drop(store);
        let (mut copy, _) = set_right(&mut disk);
        for index in 0..90 {
            if let Some(held) = copy.get(&mut disk, index).unwrap() {
                assert_eq!(held, block(N, index));
            }
        }
        told
    };
    // A block; a signature that was torn; a leaf, and so its block and its neighbour's leaf, which it would prove.
    assert_eq!(told(&|disk| flip(disk, FileKind::Data, offset(50))), [90, 90, 90, 1, 0, 0, 0]);
    assert_eq!(told(&|disk| flip(disk, FileKind::Signatures, HEADER + 59 * SIGNATURE)), [90, 90, 90, 0, 0, 0, 1]);
    assert_eq!(told(&|disk| flip(disk, FileKind::Tree, HEADER + 80 * NODE)), [90, 90, 90, 2, 2, 0, 0]);
    // Two blocks that fit their leaves, and these the node above them, which does not fit the rest.
    let forged = told(&|disk| {
        let (left, right) = (forge(disk, 52), forge(disk, 53));
        write_node(disk, &merkle::parent(&left, &right).unwrap());
    });
    assert_eq!(forged, [90, 90, 90, 4, 6, 0, 0]);
}

#[test]
fn an_unsigned_feed_is_proven_by_its_key() {
    // JS makes such feeds: the key is the root hash, and nothing is signed.
    let leaves = [0, 1].map(|index| leaf(index, &block(N, index)));
    let key = FeedKey::new(merkle::root_hash(&[merkle::parent(&leaves[0], &leaves[1]).unwrap()]));
    let mut disk = MemoryStorage::new();
    let mut feed = Feed::create(&mut disk, Slot(0), key, None, None).unwrap();
    for index in 0..2 {
        let nodes = if index == 0 { vec![leaves[1]] } else { Vec::new() };
        let data = Data { index, value: Some(block(N, index)), nodes, signature: None };
        feed.put(&mut disk, prepare(data)).unwrap();
    }
    feed.flush(&mut disk).unwrap();
    let mut disk = left_open(disk);
    let store = opened(&mut disk);
    assert_eq!((store.recovered().len(), store.problems().len()), (0, 0));
    drop(store);
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    assert_eq!((feed.len(), feed.downloaded()), (2, 2));
    assert_eq!(verify(&mut feed, &mut disk), []);
    // Nothing proves another feed that is not signed.
    let mut disk = left_open(copied(&[2], 2));
    disk.truncate(file(0, FileKind::Signatures), HEADER).unwrap();
    drop(opened(&mut disk));
    assert_eq!(Feed::open(&mut disk, Slot(0)).unwrap().downloaded(), 0);
}

#[test]
fn findings_name_the_first_block_they_are_about() {
    let problems = |disk: &mut MemoryStorage, damage: &dyn Fn(&mut MemoryStorage)| {
        let mut feed = Feed::open(disk, Slot(0)).unwrap();
        damage(disk);
        let found = verify(&mut feed, disk);
        let text: Vec<_> = found.iter().map(|finding| finding.to_string()).collect();
        let found: Vec<_> =
            found.iter().map(|finding| (finding.problem, finding.files()[0], finding.block())).collect();
        (found, text.concat())
    };
    // The node over blocks 44 to 47, which is not that of its children. The one above it is not named: what is wrong is below it.
    let (found, text) = problems(&mut written(), &|disk| flip(disk, FileKind::Tree, HEADER + 91 * NODE));
    let damaged = |node, block| (Problem::NodeDamaged { node }, FileKind::Tree, block);
    assert_eq!(found, [damaged(91, 44)]);
    assert!(text.contains("block 44: tree node 91 is not that of its children"), "{text}");
    let (found, _) = problems(&mut written(), &|disk| write_node(disk, &Node { index: 91, hash: [0; 32], size: 0 }));
    assert!(found.contains(&(Problem::NodeMissing { node: 91 }, FileKind::Tree, 44)), "{found:?}");
    let (found, _) = problems(&mut written(), &|disk| flip(disk, FileKind::Signatures, HEADER + 59 * SIGNATURE));
    assert_eq!(found, [(Problem::SignatureInvalid { length: 60 }, FileKind::Signatures, 59)]);
    let (found, text) = problems(&mut copied(&[30], 30), &|disk| cut(disk, FileKind::Signatures, SIGNATURE));
    assert_eq!(found, [(Problem::SignatureMissing { length: 30 }, FileKind::Signatures, 29)]);
    assert!(text.contains("block 29: the signature of length 30 is missing"), "{text}");
    // What is not marked is not held, whatever stands in its place.
    let mut disk = copied(&[30], 1);
    flip_mark(&mut disk, 5);
    let other = Node { index: 5, hash: [7; 32], size: 7 };
    assert_eq!(problems(&mut disk, &|disk| write_node(disk, &other)).0, []);
}

#[test]
fn a_slice_of_verifying_is_about_as_long_as_it_was_told() {
    let mut disk = MemoryStorage::new();
    let mut feed = create(&mut disk, 0, N, None);
    // With what looking at a block costs, four make a slice to the byte.
    const SIZE: usize = 50_000 - 256;
    let large: Vec<_> = (0..20).map(|i| vec![i; SIZE].into()).collect();
    feed.append(&mut disk, &large).unwrap();
    for damaged in [false, true] {
        if damaged {
            (0..20).for_each(|i| flip(&mut disk, FileKind::Data, i * SIZE as u64));
            feed.trim();
        }
        let (mut cursor, mut steps) = (VerifyCursor::default(), Vec::new());
        while steps.last().is_none_or(|step: &VerifyStep| !step.done) {
            steps.push(feed.verify_step(&mut disk, &mut cursor, 200_000).unwrap());
        }
        assert!(steps[..4].iter().all(|step| step.blocks == 4), "{steps:?}");
        assert_eq!(steps.iter().map(|step| step.blocks).sum::<u64>(), 20);
        assert_eq!(steps.iter().map(|step| step.bytes).sum::<u64>(), if damaged { 0 } else { 20 * SIZE as u64 });
    }
    // However little that is, it comes to an end.
    let (mut cursor, mut steps) = (VerifyCursor::default(), 1);
    while !feed.verify_step(&mut disk, &mut cursor, 0).unwrap().done {
        steps += 1;
    }
    assert!(steps > 40, "{steps}");
    // A signature takes as long as 32 KiB, two to a slice; there are 25.
    let mut disk = written();
    let mut feed = Feed::open(&mut disk, Slot(0)).unwrap();
    let (mut cursor, mut steps) = (VerifyCursor::default(), 1);
    while !feed.verify_step(&mut disk, &mut cursor, 64 << 10).unwrap().done {
        steps += 1;
    }
    assert!((12..20).contains(&steps), "{steps}");
}

/// Of a writer's feed, which is refused if it lost more than one append: the file that is reported is the one that ends too early.
#[test]
fn a_writer_that_is_too_short_names_the_file_that_ends_too_early() {
    let bytes_from = |block: u64| offset(100) - offset(block);
    let cases = [
        // The length stays, and the blocks are given up.
        (FileKind::Data, bytes_from(90), None),
        (FileKind::Data, bytes_from(0), None),
        (FileKind::Tree, 40 * NODE, Some(FileKind::Tree)),
        (FileKind::Tree, 199 * NODE, Some(FileKind::Tree)),
        // These are made again of what the others hold.
        (FileKind::Signatures, 10 * SIGNATURE, None),
        (FileKind::Signatures, 100 * SIGNATURE, None),
        (FileKind::Bitfield, 3328, None),
        (FileKind::Bitfield, 3328 + HEADER, None),
    ];
    // As JS leaves it; known to the journal, closed, and cut after an append that it does not know.
    for (known, closed) in [(false, true), (true, true), (true, false)] {
        for (kind, less, named) in cases {
            let mut disk = written();
            if known {
                let mut store = opened(&mut disk);
                let id = store.find_name("w").unwrap();
                store.sync().unwrap();
                store.append(id, &blocks(N, 100..104)).unwrap();
                if closed {
                    store.close().unwrap();
                } else {
                    drop(store);
                }
                disk.reopen();
            }
            let appended = if known && kind == FileKind::Data { offset(104) - offset(100) } else { 0 };
            cut(&mut disk, kind, less + appended);
            let store = opened(&mut disk);
            let told: Vec<_> = store.problems().iter().map(|problem| (problem.slot(), problem.to_string())).collect();
            let case = format!("{kind} less {less}, {known}, {closed}: {told:?}");
            assert_eq!(told.len(), usize::from(named.is_some()), "{case}");
            for (slot, told) in told {
                let file = named.map_or("", FileKind::name);
                assert_eq!(slot, Some(Slot(0)), "{case}");
                match known {
                    false => assert!(told.starts_with(&format!("`{file}` of folder 0 is damaged")), "{case}"),
                    true => assert!(
                        told.contains("in folder 0 has ") && told.contains("and this store signed 10"),
                        "{case}"
                    ),
                }
            }
        }
    }
    // If none does, the one that told of that length: a root is another one, and so are a node and a block that it could be made again of.
    let mut disk = written();
    flip(&mut disk, FileKind::Tree, HEADER + 159 * NODE);
    flip(&mut disk, FileKind::Tree, HEADER + 175 * NODE);
    flip(&mut disk, FileKind::Data, offset(93));
    let opened = Feed::open(&mut disk, Slot(0));
    assert!(matches!(opened, Err(StoreError::Damaged { file: FileKind::Bitfield, .. })), "{opened:?}");
}
