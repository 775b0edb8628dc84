//! The tests that docs/threat-model.md and docs/from-js.md name are there.

use std::fs;
use std::path::Path;

/// The tests that a line names: what stands in backticks and has a file and a function.
fn named(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|code| code.split_once(".rs::"))
}

fn is_there(root: &Path, file: &str, test: &str) -> bool {
    let Ok(text) = fs::read_to_string(root.join(file).with_extension("rs")) else { return false };
    // Scenarios are generic over the adapter.
    let starts = [format!(" fn {test}("), format!("\nfn {test}("), format!(" fn {test}<")];
    let Some(before) = starts.iter().find_map(|start| Some(text.split_once(start)?.0)) else { return false };
    if file.contains("/conformance/") {
        // A scenario, which the macro makes a test of in each adapter.
        let scenarios = fs::read_to_string(root.join("multifeed-testkit/src/conformance/mod.rs")).unwrap();
        return is_listed(&scenarios, file, test);
    }
    // Its own attributes, not those of the function in front of it.
    before
        .rsplit('}')
        .next()
        .is_some_and(|attributes| attributes.contains("#[test]") || attributes.contains("#[tokio::test"))
}

/// Whether the macro makes a scenario a test, under the name of its module, which is its file's.
fn is_listed(scenarios: &str, file: &str, test: &str) -> bool {
    let module = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap();
    let lists = scenarios.split("$crate::conformance!($adapter, ").skip(1).filter_map(|list| list.split_once(");"));
    let mut names = lists.filter_map(|(list, _)| list.split_once(':')).filter(|(name, _)| *name == module);
    names.any(|(_, list)| list.split(',').any(|name| name.trim() == test))
}

#[test]
fn every_act_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| act") && !line.starts_with("| bug"))
        .collect();
    assert!(rows.len() > 50, "{} acts", rows.len());
    for row in rows {
        assert!(named(row).count() > 0, "no test: {row}");
        for (file, test) in named(row) {
            assert!(is_there(root, file, test), "there is no test {test} in {file}.rs");
        }
    }
    assert!(!is_there(root, "multifeed-proto/tests/hostile", "no_such_test"));
    assert!(!is_there(root, "multifeed-proto/tests/hostile", "ends"), "a helper is no test");
    let ends = "multifeed-testkit/src/conformance/ends";
    assert!(is_there(root, ends, "another_version"));
    assert!(!is_there(root, ends, "mismatch"), "a helper is no scenario");
    let scenarios = fs::read_to_string(root.join("multifeed-testkit/src/conformance/mod.rs")).unwrap();
    for part in ["another", "version", "another_versio", "nother_version", "one_writer"] {
        assert!(!is_listed(&scenarios, ends, part), "{part} is only a part of a name, or another module's");
    }
}

/// The tables that map JS's methods to ours: each row has a test, or says in words that there is none.
#[test]
fn every_method_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let tables = fs::read_to_string(root.join("docs/from-js.md")).unwrap();
    let suites = files(&root.join("multifeed-tokio/tests"));
    let scenarios = files(&root.join("multifeed-testkit/src/conformance"));
    let (mut rows, mut without) = (0, 0);
    for row in tables.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| npm")) {
        rows += 1;
        let shown = row.trim_end_matches('|').rsplit_once('|').unwrap().1.trim();
        if !shown.contains('`') {
            assert!(shown.ends_with("missing") || shown == "not planned", "no test: {row}");
            without += 1;
            continue;
        }
        let mut file = None;
        for name in shown.split('`').skip(1).step_by(2) {
            if suites.iter().any(|suite| suite == name) {
                file = Some(format!("multifeed-tokio/tests/{name}"));
                continue;
            }
            let found = match &file {
                Some(path) => is_there(root, path, name),
                None => scenarios
                    .iter()
                    .any(|module| is_there(root, &format!("multifeed-testkit/src/conformance/{module}"), name)),
            };
            assert!(found, "there is no test {name}: {row}");
        }
    }
    assert!(rows > 40 && without < 10, "{rows} rows, {without} without a test");
}

/// The names of the Rust files in a folder.
fn files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned())).collect()
}

/// Every code that an error has stands in docs/errors.md, and no other.
#[test]
fn every_code_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let codes = |text: &str, quote: char| -> std::collections::BTreeSet<String> {
        let is_code = |word: &&str| {
            word.len() > 4 && word.starts_with("ERR_") && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        text.split(quote).skip(1).step_by(2).filter(is_code).map(str::to_owned).collect()
    };
    let explained = codes(&fs::read_to_string(root.join("docs/errors.md")).unwrap(), '`');
    let mut given = std::collections::BTreeSet::new();
    for name in ["cli", "core", "driver", "proto", "swarm"] {
        for file in sources(&root.join(format!("multifeed-{name}/src"))) {
            let text = fs::read_to_string(file).unwrap();
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            // Each line alone: a quote may stand in a comment.
            given.extend(product.lines().flat_map(|line| codes(line, '"')));
        }
    }
    // How the command recognises those of the store, and what its own tests make up.
    given.retain(|code| !["ERR_STORE", "ERR_X"].contains(&code.as_str()));
    assert!(given.len() > 60, "{given:?}");
    assert_eq!(explained.difference(&given).collect::<Vec<_>>(), Vec::<&String>::new(), "explained, and not given");
    assert_eq!(given.difference(&explained).collect::<Vec<_>>(), Vec::<&String>::new(), "given, and not explained");
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}
