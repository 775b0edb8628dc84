//! Some seeds of the simulation; `cargo run --release -p multifeed-testkit --example simulation -- FIRST COUNT` runs as many as you
//! like.
#![allow(missing_docs)]

use multifeed_testkit::simulation::{Checked, Report, Setup, run, run_with};

#[test]
fn seeds() {
    let mut total = Report::default();
    for seed in 0..200 {
        let report = run(seed).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(report.stores >= 3 && report.feeds >= 5, "{report:?}");
        total.blocks += report.blocks;
        total.ended += report.ended;
        total.broken += report.broken;
        total.crashes += report.crashes;
        total.disk_faults += report.disk_faults;
        total.partitions += report.partitions;
    }
    println!("{total:?}");
    // It is a simulation of something: all that is to happen does.
    let Report { blocks, ended, broken, crashes, disk_faults, partitions, .. } = total;
    assert!([blocks, ended, broken, crashes, disk_faults, partitions].iter().all(|count| *count > 200), "{total:?}");
}

/// On slow and late links every store gets everything too. No session says falsely that it has something, or that the remote has or lacks
/// it.
#[test]
fn seeds_on_slow_links() {
    let mut claimed = 0;
    for seed in 0..30 {
        let report = run_with(seed, Setup { slow_links: true, claims: Checked::ALL })
            .unwrap_or_else(|error| panic!("{error:#}"));
        claimed += report.claims;
    }
    assert!(claimed > 3_000, "{claimed} claims");
}

#[test]
fn a_seed_is_the_same_again() {
    for seed in [7, 8, 9] {
        let first = run(seed).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(run(seed).unwrap_or_else(|error| panic!("{error:#}")), first);
        assert_ne!(run(seed + 100).unwrap_or_else(|error| panic!("{error:#}")).digest, first.digest);
    }
}
