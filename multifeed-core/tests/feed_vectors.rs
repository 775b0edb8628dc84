//! Folders, trees and digests as the real packages write and answer them (recorded by `interop/vectors/folders.js`).

use crate::common;

use std::collections::BTreeSet;

use common::{block, blocks, create, file, key_pair, pull, verify};
use multifeed_core::merkle::{self, HeldNodes, index};
use multifeed_core::{Feed, FileKind, MemoryStorage, Slot, Storage};
use serde_json::Value;

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn folders() -> Value {
    vectors(include_str!("vectors/folders.json"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn kind(name: &str) -> FileKind {
    FileKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap()
}

/// The folder that a case recorded; `None` if its files are too large to be recorded whole.
fn stored(case: &Value) -> Option<MemoryStorage> {
    let mut storage = MemoryStorage::new();
    for (path, recorded) in case["files"].as_object().unwrap() {
        let (slot, name) = path.split_once('/').unwrap();
        let bytes = hex::decode(recorded["hex"].as_str()?).unwrap();
        storage.write_at(file(slot.parse().unwrap(), kind(name)), 0, &bytes).unwrap();
    }
    Some(storage)
}

fn same_files(case: &Value, storage: &mut MemoryStorage) {
    let name = case["name"].as_str().unwrap();
    let files = case["files"].as_object().unwrap();
    let mut ours = Vec::new();
    for slot in storage.list().unwrap() {
        for kind in FileKind::ALL {
            if let Some(bytes) = storage.contents(file(slot.0, kind)) {
                ours.push((format!("{slot}/{kind}"), bytes));
            }
        }
    }
    let names: BTreeSet<&str> = ours.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, files.keys().map(String::as_str).collect(), "{name}");
    for (path, bytes) in &ours {
        match files[path]["hex"].as_str() {
            Some(recorded) => assert!(hex::encode(bytes) == recorded, "{name}: {path} differs"),
            None => {
                assert_eq!(bytes.len() as u64, number(&files[path]["length"]), "{name}: {path}");
                let hash = blake2b_simd::Params::new().hash_length(32).hash(bytes);
                assert_eq!(hash.to_hex().as_str(), files[path]["blake2b"], "{name}: {path}");
            }
        }
    }
}

#[test]
fn our_folders_are_jss_to_the_byte() {
    for case in list(&folders()["writers"]) {
        let mut storage = MemoryStorage::new();
        for (slot, writer) in list(&case["writers"]).iter().enumerate() {
            let n = number(&writer["n"]) as u8;
            let mut feed = create(&mut storage, slot as u32, n, writer["writer"].as_str());
            for batch in list(&writer["batches"]) {
                let start = feed.len();
                let end = start + number(batch);
                assert_eq!(feed.append(&mut storage, &blocks(n, start..end)).unwrap(), start..end);
            }
        }
        same_files(case, &mut storage);
    }
}

#[test]
fn jss_folders_open_verify_and_grow() {
    let mut opened = 0;
    for case in list(&folders()["writers"]) {
        let Some(mut storage) = stored(case) else { continue };
        for (slot, writer) in list(&case["writers"]).iter().enumerate() {
            let n = number(&writer["n"]) as u8;
            let mut feed = Feed::open(&mut storage, Slot(slot as u32)).unwrap();
            assert_eq!(feed.recovered(), None);
            assert!(feed.writable());
            assert_eq!(feed.key(), key_pair(n).public_key());
            assert_eq!(feed.local_name(), writer["writer"].as_str());
            let length = list(&writer["batches"]).iter().map(number).sum();
            assert_eq!(feed.len(), length);
            assert_eq!(feed.downloaded(), length);
            assert_eq!(verify(&mut feed, &mut storage), []);

            feed.append(&mut storage, &blocks(n, length..length + 9)).unwrap();
            let mut feed = Feed::open(&mut storage, Slot(slot as u32)).unwrap();
            assert_eq!(feed.recovered(), None);
            for i in 0..length + 9 {
                assert_eq!(feed.get(&mut storage, i).unwrap().unwrap(), block(n, i));
            }
            assert_eq!(verify(&mut feed, &mut storage), []);
            opened += 1;
        }
    }
    assert!(opened >= 6);
}

#[test]
fn cleared_blocks_are_not_held_and_nothing_else_is_lost() {
    for case in list(&folders()["cleared"]) {
        let mut storage = stored(case).unwrap();
        let n = number(&case["writers"][0]["n"]) as u8;
        let cleared = number(&case["from"])..number(&case["to"]);
        let mut feed = Feed::open(&mut storage, Slot(0)).unwrap();
        assert_eq!(feed.recovered(), None, "{}", case["name"]);
        assert_eq!(feed.len(), 40);
        for i in 0..40 {
            let expected = (!cleared.contains(&i)).then(|| block(n, i));
            assert_eq!(feed.get(&mut storage, i).unwrap(), expected);
        }
        assert_eq!(verify(&mut feed, &mut storage), []);
        feed.append(&mut storage, &blocks(n, 40..50)).unwrap();
        let mut feed = Feed::open(&mut storage, Slot(0)).unwrap();
        assert_eq!(feed.recovered(), None);
        assert_eq!(feed.get(&mut storage, 45).unwrap().unwrap(), block(n, 45));
        assert_eq!(verify(&mut feed, &mut storage), []);
    }
}

#[test]
fn sparse_copies_open_tell_jss_digests_and_fill_up() {
    for case in list(&folders()["sparse"]) {
        let mut storage = stored(case).unwrap();
        let (n, length) = (number(&case["n"]) as u8, number(&case["length"]));
        let held: BTreeSet<u64> = list(&case["held"]).iter().map(number).collect();
        let mut feed = Feed::open(&mut storage, Slot(0)).unwrap();
        assert_eq!(feed.recovered(), None, "{}", case["name"]);
        assert!(!feed.writable());
        assert_eq!(feed.len(), length);
        assert_eq!((0..length).filter(|i| feed.has(*i)).collect::<BTreeSet<_>>(), held);
        assert_eq!(verify(&mut feed, &mut storage), []);
        for i in &held {
            assert_eq!(feed.get(&mut storage, *i).unwrap().unwrap(), block(n, *i));
        }
        for digest in list(&case["digests"]) {
            assert_eq!(feed.digest(number(&digest[0])), number(&digest[1]), "{}: block {}", case["name"], digest[0]);
        }

        let mut source_storage = MemoryStorage::new();
        let mut source = create(&mut source_storage, 0, n, None);
        source.append(&mut source_storage, &blocks(n, 0..length)).unwrap();
        for i in (0..length).filter(|i| !held.contains(i)) {
            pull((&mut source, &mut source_storage), (&mut feed, &mut storage), i);
        }
        feed.flush(&mut storage).unwrap();
        assert_eq!(verify(&mut feed, &mut storage), []);
        assert_eq!(
            storage.contents(file(0, FileKind::Data)),
            source_storage.contents(file(0, FileKind::Data)),
            "{}",
            case["name"]
        );
        assert_eq!(storage.contents(file(0, FileKind::Tree)), source_storage.contents(file(0, FileKind::Tree)));
    }
}

/// hypercore's tree index over plain sets.
#[derive(Default)]
struct Tree {
    nodes: BTreeSet<u64>,
}

impl Tree {
    fn set(&mut self, mut node: u64) {
        while self.nodes.insert(node) && self.nodes.contains(&index::sibling(node)) {
            node = index::parent(node);
        }
    }
}

impl HeldNodes for Tree {
    fn holds(&self, node: u64) -> bool {
        self.nodes.contains(&node)
    }
}

#[test]
fn digests_and_proofs_are_jss() {
    let mut proofs = 0;
    for (number_, case) in list(&vectors(include_str!("vectors/tree.json"))).iter().enumerate() {
        let mut whole = Tree::default();
        for block in 0..number(&case["length"]) {
            whole.set(2 * block);
        }
        let mut copy = Tree::default();
        for node in list(&case["sets"]) {
            copy.set(number(node));
        }
        assert_eq!(merkle::length(&whole), number(&case["wholeBlocks"]), "tree {number_}");
        assert_eq!(merkle::length(&copy), number(&case["blocks"]), "tree {number_}");
        for question in list(&case["questions"]) {
            let (node, digest) = (number(&question["index"]), number(&question["digest"]));
            let itself = question["hash"].as_bool().unwrap();
            assert_eq!(merkle::digest(&copy, node), number(&question["copyDigest"]), "tree {number_}: {question}");
            assert_eq!(merkle::verified_by(&copy, node), number(&question["verifiedBy"]), "tree {number_}: {question}");
            for (tree, answer) in [(&whole, &question["whole"]), (&copy, &question["copy"])] {
                let proof = merkle::proof(tree, node, digest, itself);
                assert_eq!(proof.is_none(), answer.is_null(), "tree {number_}: {question}");
                let Some(proof) = proof else { continue };
                assert_eq!(
                    proof.nodes,
                    list(&answer[0]).iter().map(number).collect::<Vec<_>>(),
                    "{number_}: {question}"
                );
                assert_eq!(2 * proof.signed_length, number(&answer[1]), "tree {number_}: {question}");
                proofs += 1;
            }
        }
    }
    assert!(proofs > 500, "{proofs}");
}
