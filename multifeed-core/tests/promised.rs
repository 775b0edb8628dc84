//! Requests to a remote of ours count on what the answers before them bring: each node of the tree comes once. When an answer fails to come, those
//! after it are asked for again, and nobody is blamed.

use crate::common;
use crate::link;

use std::time::Duration;

use bytes::Bytes;
use common::file;
use link::{Link, Store, closed, findings, run, store, sync};
use multifeed_core::{FileKind, KeyPair, Multifeed, Options, PeerEvent, Replicate, Storage};

const BLOCKS: u64 = 600;

fn block(index: u64) -> Bytes {
    vec![index as u8; 10].into()
}

fn written() -> Store {
    let mut store = store();
    let id = store.writer(Some("w"), || KeyPair::from_seed(&[1; 32])).unwrap();
    store.append(id, &(0..BLOCKS).map(block).collect::<Vec<_>>()).unwrap();
    store.commit(Duration::ZERO);
    store
}

/// The blocks of the only feed that are held, each of which is what it has to be.
fn held(store: &mut Store, case: &str) -> Vec<u64> {
    let id = store.feeds().next().unwrap();
    let held: Vec<u64> = (0..BLOCKS).filter(|&index| store.has(id, index)).collect();
    for &index in &held {
        assert_eq!(store.get(id, index).unwrap(), Some(block(index)), "{case}");
    }
    assert_eq!(findings(store, id), [], "{case}");
    held
}

#[test]
fn each_node_comes_once_and_only_from_ours() {
    let bytes = [true, false].map(|ours| {
        let mut stores = [written(), store()];
        let sender = Replicate { reconcile: Some(ours), ..Replicate::default() };
        let mut link = Link::new(&mut stores, [0, 1], [sender, Replicate::default()], Default::default());
        run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
        link.totals(1);
        assert_eq!(held(&mut stores[1], "all").len() as u64, BLOCKS);
        link.ends[1].1.session().totals().bytes_in / BLOCKS
    });
    // A block with all else takes 18 bytes here, and a node 40.
    assert!(bytes[0] < 18 + 45 && bytes[1] > 18 + 60, "{bytes:?} bytes a block");
}

/// An answer that is refused may have nodes on which those after it counted.
#[test]
fn what_counted_on_a_refused_answer_comes_all_the_same() {
    let blocks = [0, 1, 64, 150, 151, 300, 598].map(|block| (FileKind::Data, 10 * block + 3));
    let nodes = [1, 3, 131, 255, 301, 767].map(|node| (FileKind::Tree, 32 + 40 * node + 3));
    for (kind, at) in blocks.into_iter().chain(nodes) {
        let case = format!("byte {at} of {kind}");
        let mut disk = closed(&written());
        let mut byte = [0];
        disk.read_at(file(0, kind), at, &mut byte).unwrap();
        disk.write_at(file(0, kind), at, &[byte[0] ^ 0x20]).unwrap();
        let refused = [true, false].map(|ours| {
            let mut stores = [Multifeed::open(disk.clone(), Options::default()).unwrap(), store(), written()];
            let sender = Replicate { reconcile: Some(ours), ..Replicate::default() };
            let mut link = Link::new(&mut stores, [0, 1], [sender, Replicate::default()], Default::default());
            run(&mut stores, std::slice::from_mut(&mut link), Duration::ZERO);
            let damage = |event: &&PeerEvent| matches!(event, PeerEvent::Damaged { .. });
            assert_eq!(link.events[0].iter().filter(damage).count(), 1, "{case}: {:?}", link.events[0]);
            (0..2).for_each(|side| _ = link.totals(side));
            let refused = BLOCKS - held(&mut stores[1], &case).len() as u64;
            // And the rest comes of whoever is whole.
            sync(&mut stores, [2, 1]).totals(0);
            assert_eq!(held(&mut stores[1], &case).len() as u64, BLOCKS, "{case}");
            refused
        });
        // No more than if nothing counted on anything.
        assert!((1..=refused[1]).contains(&refused[0]), "{case}: {refused:?} refused");
    }
}
