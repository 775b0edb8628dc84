//! A writer whose secret key the application keeps, and JS: on the wire, and in its folder.

use crate::common;

use std::error::Error;

use common::{facts, finish, js, js_facts, memory, run, socket};
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::js::{JsFeed, JsPeer, audit};
use multifeed_tokio::{FeedKey, KeyPair, Multifeed, Options, Replicate, Role, Signer};
use serde_json::json;

#[derive(Clone)]
struct Keychain(KeyPair);

impl Signer for Keychain {
    fn public_key(&self) -> FeedKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn Error + Send + Sync>> {
        Ok(self.0.sign(message))
    }
}

#[test]
fn js_fetches_what_a_signer_signed_and_reads_its_folder() {
    for role in [Role::Initiator, Role::Responder] {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_str().unwrap();
            let keychain = Keychain(KeyPair::from_seed(&[5; 32]));
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            let writer = multi.writer_with_signer("w", keychain.clone()).await.unwrap();
            writer.append_batch(blocks(20, 100, 1)).await.unwrap();
            writer.append("alone").await.unwrap();
            let mut peer = js(|| JsPeer::spawn(&[]));
            finish(multi.replicate(socket(&mut peer, role).await, role, Replicate::default())).await;
            let ours = facts(&multi).await;
            assert_eq!(js_facts(&js(|| peer.feeds())), ours);
            multi.close().await.unwrap();

            // JS reads the folder, and serves it; it cannot append.
            assert!(!dir.path().join("0/secret_key").exists());
            let audited = js(|| audit(dir.path()));
            assert!(audited.iter().all(|feed| feed.is_sound() && !feed.writable), "{audited:?}");
            assert_eq!((js_facts(&audited), audited[0].name.as_deref()), (ours.clone(), Some("w")));
            let mut peer = js(|| JsPeer::spawn(&["--store", path]));
            let append = json!({"cmd": "append", "name": "w", "count": 1, "size": 1, "seed": 1});
            tokio::task::block_in_place(|| peer.call(append)).unwrap_err();
            let other = memory().await;
            finish(other.replicate(socket(&mut peer, role).await, role, Replicate::default())).await;
            assert_eq!(facts(&other).await, ours);
            js(|| peer.close());

            // Nobody but its signer goes on with it.
            let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
            assert_eq!(multi.problems()[0].code(), "ERR_NO_SIGNER");
            let feed = multi.feed(keychain.public_key()).unwrap();
            assert_eq!(feed.append("not ours").await.unwrap_err().code(), "ERR_READ_ONLY");
            multi.close().await.unwrap();
            let multi = Multifeed::open(dir.path(), Options::default().with_signer(keychain.clone())).await.unwrap();
            assert!(multi.problems().is_empty() && multi.recovered().is_empty(), "{:?}", multi.problems());
            multi.writer("w").await.unwrap().append("once more").await.unwrap();
            let ours = facts(&multi).await;
            multi.close().await.unwrap();
            let audited = js(|| audit(dir.path()));
            assert!(audited.iter().all(JsFeed::is_sound), "{audited:?}");
            assert_eq!((js_facts(&audited), audited[0].length), (ours, 22));
        });
    }
}
