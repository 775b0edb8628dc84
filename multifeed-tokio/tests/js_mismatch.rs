//! JS peers that cannot sync with us, and check: releases of multifeed 6 with another version or client.

use crate::common;

use common::*;
use multifeed_testkit::js::JsPeer;
use multifeed_tokio::{Replicate, Role, SyncError};

/// How a session with such a release ends, here and at the JS peer.
async fn mismatch(role: Role, ours_live: bool, option: [&str; 2], theirs_live: bool) -> (SyncError, serde_json::Value) {
    let multi = memory().await;
    multi.writer("ours").await.unwrap().append("block").await.unwrap();
    let mut options = option.to_vec();
    if theirs_live {
        options.push("--live");
    }
    let mut peer = js(|| JsPeer::spawn(&options));
    js(|| peer.append("theirs", 1, 10, 1));
    let stream = socket(&mut peer, role).await;
    let sync = multi.replicate(stream, role, Replicate { live: ours_live, ..Replicate::default() });
    let error = sync.finish().await.unwrap_err();
    assert_eq!(multi.feeds().len(), 1, "a feed came over");
    let told = js(|| peer.event("error"));
    assert_eq!(js(|| peer.feeds()).len(), 1, "a feed went over");
    (error, told)
}

/// Both sides report the code and both values, whichever side connects, and whichever is live: 24 sessions.
#[test]
fn a_js_release_that_checks_and_does_not_agree() {
    run(async {
        for (option, code, us, them) in [
            (["--version", "5.0.0"], "ERR_VERSION_MISMATCH", "4.0.0", "5.0.0"),
            (["--version", "3.9.9"], "ERR_VERSION_MISMATCH", "4.0.0", "3.9.9"),
            (["--client", "CABAL"], "ERR_CLIENT_MISMATCH", "MULTIFEED", "CABAL"),
        ] {
            for role in [Role::Initiator, Role::Responder] {
                for (ours_live, theirs_live) in [(false, false), (true, false), (false, true), (true, true)] {
                    let (error, told) = mismatch(role, ours_live, option, theirs_live).await;
                    let case = format!("{option:?}, {role:?}, live: {ours_live}, {theirs_live}: {error}; {told}");
                    let ours = (error.code(), error.us(), error.them());
                    assert_eq!(ours, (code, Some(us.into()), Some(them.into())), "{case}");
                    assert_eq!(
                        (&told["code"], &told["us"], &told["them"]),
                        (&code.into(), &them.into(), &us.into()),
                        "{case}"
                    );
                }
            }
        }
    });
}
