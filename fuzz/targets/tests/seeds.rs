//! Every target holds on the committed seeds.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

use multifeed_fuzz_targets::TARGETS;

#[test]
fn every_target_holds_on_its_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("seeds");
    for (name, target) in TARGETS {
        let mut files: Vec<_> = fs::read_dir(seeds.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            // The name of the seed stands before a panic below.
            println!("{}", file.display());
            target(&fs::read(file).unwrap());
        }
    }
}
