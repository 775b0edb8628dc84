//! A feed's id of another store is an error here, or stands for nothing: one past the feeds that are here, and one in their range.

use std::time::Duration;

use multifeed_core::{
    AppendError, ExtensionError, FeedId, FeedSyncState, KeyPair, MemoryStorage, Multifeed, Options, RepairCursor,
    Replicate, SetId, SignatureSearch, StoreError, VerifyCursor, Want, WantError, WantOptions,
};

fn store() -> Multifeed<MemoryStorage> {
    Multifeed::open(MemoryStorage::new(), Options::default()).unwrap()
}

#[test]
fn an_id_of_another_store_is_an_error() {
    let (mut store, mut other) = (store(), store());
    for n in 0..3 {
        other.writer(Some(&format!("w{n}")), || KeyPair::from_seed(&[n; 32])).unwrap();
    }
    let own = store.writer(Some("own"), || KeyPair::from_seed(&[9; 32])).unwrap();
    store.append(own, &["a".into()]).unwrap();
    let ids = other.feeds().collect::<Vec<_>>();
    assert_eq!(format!("{:?}", [own, ids[0], ids[2]]), "[FeedId(0), FeedId(0), FeedId(2)]");
    for id in [ids[2], ids[0]] {
        is_refused(&mut store, own, id);
    }
}

fn is_refused(store: &mut Multifeed<MemoryStorage>, own: FeedId, id: FeedId) {
    assert!(matches!(store.info(id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.slot_of(id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.append(id, &["b".into()]), Err(AppendError::Store(StoreError::UnknownFeed))));
    assert!(matches!(store.get(id, 0), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.clear(id, 0..1), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.audit_step(id, 0, 1), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.verify_step(id, &mut VerifyCursor::default(), 1), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.locate(id, 0), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.roots_at(id, 1), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.verify_signature(id, 1, &[0; 64]), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.signature_step(id, 0, 64), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.remove(id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.remove_writer(id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.repair_step(id, &mut RepairCursor::default(), 1), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.sync_feed(id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.sync_step(Some(id)), (None, Err(StoreError::UnknownFeed))));
    assert!(matches!(store.cancel(id, 0..9), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.watch(id, true), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.set_transfer(id, Some(true), Some(false)), Err(StoreError::UnknownFeed)));
    assert_eq!(store.want(id, Want::Block(0), WantOptions::default()), Err(WantError::UnknownFeed));
    assert_eq!(store.register_extension(id, "x"), Err(ExtensionError::UnknownFeed));
    let peer = store.connect(Replicate::default());
    assert_eq!(store.send_extension(id, peer, "x", "y".into()), Err(ExtensionError::UnknownFeed));
    let set = store.add_set();
    store.include(set, own).unwrap();
    assert!(matches!(store.exclude(set, id), Err(StoreError::UnknownFeed)));
    assert!(store.is_in(set, own));
    assert!(matches!(store.include(set, id), Err(StoreError::UnknownFeed)));
    assert!(matches!(store.take_out_of(set, id), Err(StoreError::UnknownFeed)));

    assert!(!store.has(id, 0) && !store.is_in(set, id) && !store.is_in(SetId::ALL, id));
    assert!(store.is_removed(id) && !store.is_fetched(id));
    assert_eq!((store.count_held(id, 0..9), store.synced_len(id)), (0, 0));
    assert!(store.key_pair(id).is_none() && store.name_in(set, id).is_none() && store.sync_error(id).is_none());
    assert!(store.peers(id).is_empty() && store.extension_peers(id).is_empty());
    assert_eq!(store.feed_sync_state(id, Duration::ZERO), FeedSyncState::default());
    assert_eq!(store.poll_want(), None);
    assert!(store.poll_feed_event().is_none());

    // The store is as it was.
    store.commit(Duration::ZERO);
    assert_eq!((store.feeds().collect::<Vec<_>>(), store.info(own).unwrap().len), (vec![own], 1));
    assert!(matches!(store.signature_step(own, 0, 64), Ok(SignatureSearch::Found(1, _))));
}
