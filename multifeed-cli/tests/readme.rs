//! What the README shows is what is compiled and run.

use crate::common;

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../multifeed/examples/sync.rs"]
mod example;

use std::path::{Path, PathBuf};

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

/// The pages of the repository: those at its root, in its folders, and in `docs`.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let folders = std::fs::read_dir(root)?.chain(std::fs::read_dir(root.join("docs"))?);
    let names = folders.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let names = names.into_iter().map(|path| if path.is_dir() { path.join("README.md") } else { path });
    Ok(names.filter(|path| path.extension().is_some_and(|ext| ext == "md") && path.is_file()).collect())
}

#[test]
fn the_files_that_the_pages_link_to_are_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no parent")?;
    let pages = pages(root)?;
    ensure!(pages.iter().any(|page| page.ends_with("docs/forks.md")) && pages.len() > 25, "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(&page)?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().context("no folder")?.join(file) };
            ensure!(file.exists(), "{}: {link} is not there", page.display());
            // As the pages of the repository name their headings.
            let is_kept = |c: &char| c.is_alphanumeric() || [' ', '-', '_'].contains(c);
            let anchor = |line: &str| -> String {
                let title = line.trim_start_matches('#').trim().to_lowercase();
                title.chars().filter(is_kept).map(|c| if c == ' ' { '-' } else { c }).collect()
            };
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let is_there = text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            ensure!(heading.is_empty() || is_there, "{}: {} has no heading {heading}", page.display(), file.display());
        }
    }
    Ok(())
}
