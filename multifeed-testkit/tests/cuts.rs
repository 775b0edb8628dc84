//! Every cut of some hundred histories. `MULTIFEED_CUTS=COUNT` or `COUNT,FIRST` tries more, or others; the example `cuts` tells how
//! far it has come.

use anyhow::Result;
use multifeed_testkit::cuts::{Kind, js_opens_a_sample, try_histories};

#[test]
fn every_cut_of_random_histories() -> Result<()> {
    let asked = std::env::var("MULTIFEED_CUTS").unwrap_or_default();
    let mut numbers = asked.split(',').map(str::parse::<u64>);
    let count = numbers.next().and_then(Result::ok).unwrap_or(200);
    let first = numbers.next().and_then(Result::ok).unwrap_or(0);
    let tried = try_histories(Kind::Folder, first, count, 29)?;
    println!("{tried:?}");
    assert_eq!(tried.histories, count);
    // All of it came to pass.
    assert!(tried.cuts > 100 * count && tried.synced_on > count && tried.recovered > count, "{tried:?}");
    assert!(tried.cut_back > 0 && tried.faults > count, "{tried:?}");
    Ok(())
}

/// The same histories in a corestore, with its list of feeds: fewer of them, as most of it is the same code.
#[test]
fn every_cut_of_random_histories_in_a_corestore() -> Result<()> {
    let asked = std::env::var("MULTIFEED_CUTS_CORESTORE").ok().and_then(|text| text.parse().ok());
    let count = asked.unwrap_or(60);
    let tried = try_histories(Kind::Corestore, 0, count, 29)?;
    println!("{tried:?}");
    assert!(tried.cuts > 100 * count && tried.synced_on > count && tried.recovered > count, "{tried:?}");
    assert!(tried.cut_back > 0 && tried.faults > count, "{tried:?}");
    Ok(())
}

/// History 5133 clears blocks of a copy, fetches them again, and is cut before they are on the disk.
#[test]
fn a_cleared_block_that_came_again_and_was_lost_is_not_held() -> Result<()> {
    assert_eq!(try_histories(Kind::Folder, 5133, 1, 1)?.histories, 1);
    Ok(())
}

/// In history 10707 the disk does not give a block that was not synced while the store is opened after a cut: that is no reason to cut it off. In 11402 it
/// does not give the journal. What the crash left of a writer's feed is not made again as long as nobody knows how far that was synced. In 100638 it gives the
/// zeros in a block's place, and not where the hole ends: that block was lost by the cut, as it is if the disk says that too.
#[test]
fn what_the_disk_does_not_give_for_once_is_not_cut_off() -> Result<()> {
    for seed in [10_707, 11_402, 100_638] {
        assert_eq!(try_histories(Kind::Folder, seed, 1, 1)?.histories, 1);
    }
    Ok(())
}

/// `MULTIFEED_CUTS_JS=COUNT` looks at more.
#[test]
fn js_opens_what_is_left_after_a_cut() -> Result<()> {
    let asked = std::env::var("MULTIFEED_CUTS_JS").ok().and_then(|text| text.parse().ok());
    let count = asked.unwrap_or(60);
    let feeds = js_opens_a_sample(0, count)?;
    println!("{feeds} feeds of {count} stores");
    assert!(feeds > count);
    Ok(())
}
