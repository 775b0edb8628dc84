//! Tries random histories of a store, cut at every moment: `cargo run --release -p multifeed-testkit --example cuts -- [corestore] [COUNT [FIRST
//! [SYNC_EVERY]]]`. It reports one failing seed, which replays with `-- 1 SEED 1`. With `corestore` the store is in one.

use std::time::Instant;

use multifeed_testkit::cuts::{Kind, try_histories};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).peekable();
    let kind = if arguments.next_if_eq("corestore").is_some() { Kind::Corestore } else { Kind::Folder };
    let mut numbers = arguments.map(|text| text.parse::<u64>());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (count, first, sync_every) = (next(100)?, next(0)?, next(16)?);
    let start = Instant::now();
    let mut total = multifeed_testkit::cuts::Tried::default();
    let mut at = first;
    while at < first + count {
        let some = 100.min(first + count - at);
        total = total + try_histories(kind, at, some, sync_every)?;
        at += some;
        println!("{total:?}, {:?}", start.elapsed());
    }
    Ok(())
}
