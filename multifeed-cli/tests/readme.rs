//! What the README shows is what is compiled and run.

use crate::common;

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../multifeed/examples/sync.rs"]
mod example;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use common::{Store, block_on};

const README: &str = include_str!("../../README.md");

/// The README's code blocks of a language.
fn code(language: &str) -> Vec<&'static str> {
    README.split("\n```").filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

#[test]
fn the_rust_is_that_of_the_example() -> Result<()> {
    let rust = include_str!("../../multifeed/examples/sync.rs");
    let shown = code("rust").pop().context("no Rust in the README")?;
    ensure!(rust.contains(shown), "the README's Rust is not that of examples/sync.rs");
    Ok(())
}

#[test]
fn the_rust_of_the_readme_syncs() -> Result<()> {
    let (store, other) = (Store::new()?, Store::new()?);
    store.append("served", &[b"one", b"two"])?;
    let (server, address) = store.serve(&["--once"])?;
    block_on(async { example::sync(&address.to_string(), other.text()).await.map_err(|error| anyhow!("{error}")) })?;
    server.ended(0)?;
    ensure!(store.checked()? == other.checked()? && store.facts()?.len() == 2, "not in sync");
    Ok(())
}

#[test]
fn the_files_that_the_readme_links_to_are_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?;
    for link in README.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        if link.starts_with("https://") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        ensure!(root.join(file).exists(), "{link} is not there");
        // As the pages of the repository name their headings.
        let anchor = |line: &str| line.trim_start_matches(['#', ' ']).to_lowercase().replace(' ', "-").replace(',', "");
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        let is_there = text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
        ensure!(heading.is_empty() || is_there, "{file} has no heading {heading}");
    }
    Ok(())
}
