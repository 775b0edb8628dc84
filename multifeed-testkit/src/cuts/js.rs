//! Whether JS opens a store that was cut and set right by ours.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use multifeed_core::fuzzing::Remembered;
use multifeed_core::{Durability, FileId, FileKind, MemoryStorage, Multifeed, Options, Storage};

use super::{Cut, History, Kind};
use crate::blocks::FeedDigest;
use crate::js::{self, JsFeed};
use crate::random::Random;

/// Stores that one JS process opens.
const AT_ONCE: usize = 100;

/// A feed: its key, its length, how many blocks of it are held, and their digest.
type Facts = (String, u64, u64, String);

/// Takes one cut of each of `count` histories from `first` on, kills and power cuts in turn, opens the store and closes it; then JS
/// opens it, finds it sound, and sees the same feeds with the same blocks. How many feeds those were.
///
/// # Errors
///
/// The first store that JS sees otherwise, with its seed and cut.
pub fn js_opens_a_sample(first: u64, count: u64) -> Result<u64> {
    let _once = Remembered::begin();
    let mut feeds = 0;
    let seeds: Vec<u64> = (first..first + count).collect();
    for some in seeds.chunks(AT_ONCE) {
        let folder = tempfile::tempdir()?;
        let (mut dirs, mut expected) = (Vec::new(), Vec::new());
        for seed in some {
            let (name, disk, facts) = cut(*seed).with_context(|| format!("history {seed}"))?;
            let dir = folder.path().join(&name);
            write(disk, &dir)?;
            dirs.push(dir);
            expected.push((name, facts));
        }
        for ((name, facts), audited) in expected.into_iter().zip(js::audit_all(&dirs)?) {
            // A feed of which nothing came has no length to sign.
            ensure!(audited.iter().all(JsFeed::is_sound), "{name}: {audited:?}");
            let seen: Vec<Facts> = audited
                .into_iter()
                .map(|feed| (feed.key, feed.length, feed.downloaded, feed.hash.unwrap_or_default()))
                .collect();
            ensure!(seen == facts, "{name}: JS sees {seen:?}, ours {facts:?}");
            feeds += facts.len() as u64;
        }
    }
    Ok(feeds)
}

/// Some cut of a history, opened and closed: its name, the disk, and what ours sees.
fn cut(seed: u64) -> Result<(String, MemoryStorage, Vec<Facts>)> {
    let history = History::new(Kind::Folder, seed)?;
    // Without any sync a power cut leaves marks of blocks that are gone, which only a read finds: JS has them too.
    let kill = seed.is_multiple_of(2) || history.durability == Durability::None;
    let cut = if kill { Cut::Kill } else { Cut::Power };
    let last = history.record().changes().len() as u64;
    let at = usize::try_from(Random::new(seed).between(0, last))?;
    let mut disk = history.disk(cut, at)?;
    let options = Options { durability: history.durability, ..Options::default() };
    let mut store = Multifeed::open(&mut disk, options)?;
    let mut facts = Vec::new();
    for id in store.feeds().collect::<Vec<_>>() {
        let info = store.info(id).unwrap();
        let mut digest = FeedDigest::new();
        for index in (0..info.len).filter(|index| store.has(id, *index)).collect::<Vec<_>>() {
            if let Some(block) = store.get(id, index)? {
                digest.update(index, &block);
            }
        }
        facts.push((info.key.to_string(), info.len, info.downloaded, digest.finish()));
    }
    facts.sort();
    store.close()?;
    disk.reopen();
    Ok((format!("seed-{seed}-{cut:?}-{at}"), disk, facts))
}

/// Writes a disk to a folder, laid out as JS has it.
fn write(mut disk: MemoryStorage, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for slot in disk.list()? {
        std::fs::create_dir_all(dir.join(slot.to_string()))?;
        for kind in FileKind::ALL {
            put(&disk, FileId::new(slot, kind), dir.join(slot.to_string()).join(kind.name()))?;
        }
    }
    for kind in FileKind::EVERY.into_iter().filter(|kind| kind.is_beside()) {
        put(&disk, FileId::beside(kind), dir.join(kind.name()))?;
    }
    Ok(())
}

fn put(disk: &MemoryStorage, file: FileId, path: PathBuf) -> Result<()> {
    if let Some(bytes) = disk.contents(file) {
        std::fs::write(path, bytes)?;
    }
    Ok(())
}
