//! Every scenario of the conformance suite runs over slow links, or says why it does not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use multifeed_testkit::conformance::slow_links::EXCEPTIONS;

/// The scenarios that the lists in a file make tests of.
fn listed(file: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/conformance");
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let lists = text.split("$crate::conformance!($adapter, ").skip(1).filter_map(|list| list.split_once(");"));
    let names = lists.filter_map(|(list, _)| list.split_once(':')).flat_map(|(_, names)| names.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

#[test]
fn every_scenario_runs_or_says_why_not() {
    let (all, slow) = (listed("mod.rs"), listed("slow_links.rs"));
    assert!(slow.len() > 40, "{} scenarios over slow links", slow.len());
    let excepted: BTreeSet<String> = EXCEPTIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(excepted.len(), EXCEPTIONS.len(), "an exception stands twice");
    assert_eq!(slow.intersection(&excepted).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(slow.union(&excepted).cloned().collect::<BTreeSet<_>>(), all);
}
