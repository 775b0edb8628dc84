//! Tries random histories of a store, cut at every moment: `cargo run --release -p multifeed-testkit --example cuts -- [COUNT [FIRST
//! [SYNC_EVERY]]]`. One failing seed is told, and replays with `-- 1 SEED 1`.

use std::time::Instant;

use multifeed_testkit::cuts::try_histories;

fn main() -> anyhow::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |default| numbers.next().unwrap_or(Ok(default));
    let (count, first, sync_every) = (next(100)?, next(0)?, next(16)?);
    let start = Instant::now();
    let mut total = multifeed_testkit::cuts::Tried::default();
    let mut at = first;
    while at < first + count {
        let some = 100.min(first + count - at);
        total = total + try_histories(at, some, sync_every)?;
        at += some;
        println!("{total:?}, {:?}", start.elapsed());
    }
    Ok(())
}
