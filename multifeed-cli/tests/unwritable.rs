//! A file that cannot grow, by a real limit of the system: the feed that it is of comes no further, and the others do.
#![cfg(unix)]

use crate::common;

use std::process::Command;

use anyhow::{Result, ensure};
use common::{Running, Store, js_facts};
use multifeed_testkit::js::JsPeer;

/// Runs the command with a limit of 64 blocks of the shell (of 512 or 1,024 bytes) for a file. The signal of that is ignored, so that a write past
/// it fails with EFBIG, as on a file system with short files.
fn limited(args: &[&str]) -> Result<Running> {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_multifeed")]).args(args);
    command.env_remove("MULTIFEED_KEY").env_remove("RUST_LOG");
    Running::start_command(command)
}

#[test]
fn a_feed_whose_file_cannot_grow_keeps_no_other_from_a_js_peer() -> Result<()> {
    let key = "11".repeat(32);
    let (mut js, address) = JsPeer::listen(&["--key", &key])?;
    js.append("small", 30, 100, 1)?;
    let large = js.append("large", 10, 20_000, 2)?;
    js.append("other", 30, 100, 3)?;
    let store = Store::new()?;
    let address = address.to_string();
    for round in 0..2 {
        let args = [&store.option()[..], &["--json", "sync", &address, "--key", &key]].concat();
        let mut events = limited(&args)?.ended(1)?;
        let error = events.pop();
        ensure!(error.as_ref().is_some_and(|error| error["code"] == "ERR_STORE_IO"), "round {round}: {error:?}");
        let damaged: Vec<_> = events.iter().filter(|event| event["event"] == "damaged").collect();
        ensure!(damaged.len() == 1 && damaged[0]["key"] == *large, "round {round}: {events:?}");
        let facts = store.checked()?;
        ensure!(facts.iter().filter(|feed| feed.downloaded == 30).count() == 2, "round {round}: {facts:?}");
        ensure!(facts.iter().all(|feed| feed.key != large || feed.downloaded < 10), "round {round}: {facts:?}");
    }
    let args = [&store.option()[..], &["--json", "sync", &address, "--key", &key]].concat();
    Running::start(&args)?.ended(0)?;
    ensure!(store.checked()? == js_facts(&js.feeds()?)?, "not all came");
    js.close()
}
