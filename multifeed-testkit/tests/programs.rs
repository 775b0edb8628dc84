//! Every file of tests belongs to a program that is built: a package that lists its programs leaves out in silence what it does not list.

use std::fs;
use std::path::Path;

/// The names of the test files of a package that are in none of its programs.
fn left_out(package: &Path) -> Vec<String> {
    let manifest = fs::read_to_string(package.join("Cargo.toml")).unwrap();
    let Ok(files) = fs::read_dir(package.join("tests")) else { return Vec::new() };
    if !manifest.contains("autotests = false") {
        return Vec::new();
    }
    let all = fs::read_to_string(package.join("tests/all.rs")).unwrap();
    let names = files.filter_map(|file| Some(file.unwrap().file_name().to_str()?.strip_suffix(".rs")?.to_owned()));
    let is_there = |name: &str| {
        manifest.contains(&format!("[[test]]\nname = \"{name}\"\n"))
            || all.lines().any(|line| line == format!("mod {name};"))
    };
    names.filter(|name| !is_there(name)).collect()
}

#[test]
fn every_file_of_tests_is_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut packages = 0;
    for entry in fs::read_dir(root).unwrap() {
        let package = entry.unwrap().path();
        if package.join("Cargo.toml").is_file() && package.join("tests/all.rs").is_file() {
            packages += 1;
            assert_eq!(left_out(&package), Vec::<String>::new(), "{}", package.display());
        }
    }
    assert_eq!(packages, 6, "packages with tests/all.rs");
}
