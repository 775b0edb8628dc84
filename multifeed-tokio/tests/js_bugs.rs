//! Bugs of the JS packages that an application or a folder sets off, and that are not here. Those that a remote sets off stand
//! in `docs/threat-model.md`, each with its test.

use crate::common;

use common::{facts, held, join_js, js, js_facts, memory, run, sync, sync_js};
use multifeed_testkit::js::{self as testkit, JsFeed, JsPeer};
use multifeed_tokio::{Error, Json, Multifeed, Options, Replicate, StaticKeyPair};
use serde_json::json;

/// JS: a later feed's folder has that number, the feed fails, and the sync hangs.
#[test]
fn a_writer_named_like_a_number_is_in_nobodys_way() {
    run(async {
        let (m1, m2) = (memory().await, memory().await);
        let named = m1.writer("1").await.unwrap();
        named.append("ours").await.unwrap();
        m2.writer(None).await.unwrap().append("theirs").await.unwrap();
        sync(&m1, &m2).await;
        let (mut peer, address) = js(|| JsPeer::listen(&[]));
        js(|| peer.append("js", 3, 3, 1));
        sync_js(&m1, &mut peer, address).await;
        assert_eq!(m1.feeds().len(), 3);
        assert_eq!(m1.feed_by_name("1"), Some(named));
    });
}

/// JS: a copy on disk of empty blocks alone has no `data` file, and none of its blocks can be read. One that ours wrote can be, by JS too.
#[test]
fn a_copy_of_empty_blocks_can_be_read() {
    run(async {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let store = dirs[0].path().to_str().unwrap();
        let (mut js_copy, js_address) = js(|| JsPeer::listen(&["--store", store]));
        let (mut writer, address) = js(|| JsPeer::listen(&[]));
        js(|| writer.append("empty", 3, 0, 1));
        let ours = Multifeed::open(dirs[1].path(), Options::default()).await.unwrap();
        sync_js(&ours, &mut writer, address).await;
        join_js(&ours, js_address, Replicate::default()).await.finish().await.unwrap();
        js(|| js_copy.wait(1, 3, testkit::TIMEOUT));
        ours.close().await.unwrap();
        js(|| js_copy.close());
        let [js_copy, ours] = dirs.each_ref().map(|dir| js(|| testkit::audit(dir.path())).remove(0));
        assert_eq!((ours.downloaded, ours.is_sound()), (3, true), "{ours:?}");
        assert_eq!((js_copy.downloaded, js_copy.hash), (3, None));
    });
}

/// JS: the writer overwrites the feed in folder 0.
#[test]
fn a_writer_after_close_is_an_error_and_harms_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        multi.writer("first").await.unwrap().append("kept").await.unwrap();
        let before = facts(&multi).await;
        multi.close().await.unwrap();
        assert!(matches!(multi.writer("second").await, Err(Error::Closed)));
        let audited = js(|| testkit::audit(dir.path()));
        assert!(audited.len() == 1 && audited.iter().all(JsFeed::is_sound));
        assert_eq!(js_facts(&audited), before);
    });
}

/// JS: the end of the longer name stays behind the shorter one.
#[test]
fn a_shorter_name_replaces_a_longer_one() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        // What a creation left that was cut short: a name, and no key.
        std::fs::create_dir(dir.path().join("0")).unwrap();
        std::fs::write(dir.path().join("0/localname"), "a name that is long").unwrap();
        let multi = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        let key = multi.writer("short").await.unwrap().key().to_string();
        multi.close().await.unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("0/localname")).unwrap(), "short");
        let made = js(|| testkit::make(dir.path(), &json!({"writers": [{"name": "short"}]})));
        assert_eq!((made.len(), made[0].key.clone(), made[0].name.as_deref()), (1, key, Some("short")));
    });
}

/// JS: what the handshake's JSON carries is all of the options, secret keys included.
#[test]
fn a_handshake_tells_no_secrets() {
    run(async {
        let mut options = Options::default();
        options.session.static_key = Some(StaticKeyPair::from_secret_key([7; 32]));
        let multi = Multifeed::in_memory(options).await.unwrap();
        let (mut peer, address) = js(|| JsPeer::listen(&[]));
        let with_data = Replicate { user_data: Json::new("{}"), ..Replicate::default() };
        join_js(&multi, address, with_data).await.finish().await.unwrap();
        let header = js(|| peer.event("handshake"))["header"].clone();
        let told: Vec<_> = header.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(told.contains(&"version"), "{told:?}");
        assert!(told.iter().all(|name| ["client", "live", "userData", "version"].contains(name)), "{told:?}");
    });
}

/// JS: five open files for each feed of a remote's, until the process dies of it.
#[cfg(target_os = "linux")]
#[test]
fn many_feeds_need_few_open_files() {
    run(async {
        const FEEDS: usize = 400;
        let dir = tempfile::tempdir().unwrap();
        let source = memory().await;
        for number in 0..FEEDS {
            source.writer(format!("w{number}").as_str()).await.unwrap().append("x").await.unwrap();
        }
        let here = dir.path().canonicalize().unwrap();
        // Those below the folder: other tests of this process have files too.
        let files = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(&here))).count()
        };
        let copy = Multifeed::open(dir.path(), Options::default()).await.unwrap();
        sync(&source, &copy).await;
        assert_eq!(copy.feeds().len(), FEEDS);
        let open = files();
        assert!((1..=256).contains(&open), "{open} open files for {FEEDS} feeds");
        copy.close().await.unwrap();
        assert_eq!(files(), 0);
    });
}

/// JS: the error of a session is reported up to four times.
#[test]
fn a_session_tells_its_end_once() {
    run(async {
        let multi = memory().await;
        let (mut peer, address) = js(|| JsPeer::listen(&["--live"]));
        let key = js(|| peer.append("js", 5, 5, 1));
        let mut sync = join_js(&multi, address, Replicate::live()).await;
        held(&multi, &key, 5).await;
        js(|| peer.call(json!({"cmd": "destroy", "reset": true})));
        while sync.next().await.is_some() {}
        assert!(sync.next().await.is_none());
        sync.finish().await.unwrap_err();
        // The multifeed goes on.
        multi.writer("after").await.unwrap().append("x").await.unwrap();
    });
}
