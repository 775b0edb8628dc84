//! Every cut of some hundred histories. `MULTIFEED_CUTS=COUNT` or `COUNT,FIRST` tries more, or others; the example `cuts` tells how
//! far it has come.

use anyhow::Result;
use multifeed_testkit::cuts::try_histories;

#[test]
fn every_cut_of_random_histories() -> Result<()> {
    let asked = std::env::var("MULTIFEED_CUTS").unwrap_or_default();
    let mut numbers = asked.split(',').map(str::parse::<u64>);
    let count = numbers.next().and_then(Result::ok).unwrap_or(200);
    let first = numbers.next().and_then(Result::ok).unwrap_or(0);
    let tried = try_histories(first, count, 29)?;
    println!("{tried:?}");
    assert_eq!(tried.histories, count);
    // All of it came to pass.
    assert!(tried.cuts > 100 * count && tried.synced_on > count && tried.recovered > count, "{tried:?}");
    assert!(tried.cut_back > 0, "{tried:?}");
    Ok(())
}
