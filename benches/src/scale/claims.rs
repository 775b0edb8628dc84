//! Feeds that are long by claim alone, beside as many ordinary ones of one block.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use crate::feeds::role;
use multifeed_benches::watch::report;

#[derive(Args)]
pub(crate) struct Claims {
    /// Feeds of each store.
    #[arg(long, default_value_t = 5000)]
    feeds: u32,
    /// The length that each feed of the second store signs, in blocks.
    #[arg(long, default_value_t = 1 << 30)]
    length: u64,
    /// How often each store is opened, in turn; the fastest counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// A folder with the two stores, `1` and that of the length; made if it is missing, and kept. By default it is a temporary one.
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Claims {
    pub(crate) fn run(self) -> Result<()> {
        let temporary = tempfile::tempdir()?;
        let root = self.keep.as_deref().unwrap_or(temporary.path());
        let stores = [1, self.length].map(|length| (length, root.join(length.to_string())));
        for (length, store) in &stores {
            if !store.exists() {
                let arguments = [self.feeds.to_string(), length.to_string()];
                report(role("claim")?.arg(store).args(arguments))?;
            }
        }
        let mut best = [(f64::MAX, 0, 0); 2];
        for _ in 0..self.rounds {
            for ((length, store), best) in stores.iter().zip(&mut best) {
                let opened = report(role("open")?.arg(store))?;
                let blocks = u64::from(self.feeds) * length + 1;
                ensure!(opened["feeds"] == self.feeds + 1 && opened["blocks"] == blocks, "{opened}");
                let memory = opened["bytes"].as_u64().unwrap_or_default();
                best.0 = best.0.min(opened["seconds"].as_f64().unwrap_or(f64::MAX));
                best.1 = memory.max(best.1);
                best.2 = if best.2 == 0 { memory } else { best.2.min(memory) };
            }
        }
        println!("| signed length | open, s | MB, least and most | files, MB | on the disk, MB |");
        println!("|---|---|---|---|---|");
        for ((length, store), (seconds, most, least)) in stores.iter().zip(best) {
            let (apparent, allocated) = sizes(store)?;
            let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            println!(
                "| {length} | {seconds:.3} | {} to {} | {} | {} |",
                mb(least),
                mb(most),
                mb(apparent),
                mb(allocated)
            );
        }
        Ok(())
    }
}

/// What the files of a store say they have, and what they take, in bytes.
fn sizes(store: &Path) -> Result<(u64, u64)> {
    let (mut apparent, mut allocated) = (0, 0);
    for folder in fs::read_dir(store)? {
        let folder = folder?;
        let files =
            if folder.file_type()?.is_dir() { fs::read_dir(folder.path())?.collect() } else { vec![Ok(folder)] };
        for file in files {
            let about = file?.metadata()?;
            apparent += about.len();
            allocated += about.blocks() * 512;
        }
    }
    Ok((apparent, allocated))
}
