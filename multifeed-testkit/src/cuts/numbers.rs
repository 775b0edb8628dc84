//! What JS would find in a store, by its folders: it opens them from 0 on until one has no `key`, and keeps the feeds by name.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use multifeed_core::{FileId, FileKind, MemoryStorage, Slot, Storage};

/// Bytes of `key` that JS reads to see whether there is a feed.
const READ: usize = 4;
const KEY: usize = 32;

/// JS finds every feed that has its key: no gap is before it, and no other one has its key or its name.
pub(super) fn check_numbers(mut disk: MemoryStorage) -> Result<()> {
    let slots = disk.list()?;
    let key = |slot| disk.contents(FileId::new(slot, FileKind::Key)).unwrap_or_default();
    let end = Slot((0..).take_while(|slot| key(Slot(*slot)).len() >= READ).count().try_into()?);
    let (mut keys, mut names) = (BTreeMap::new(), BTreeMap::new());
    for slot in slots {
        let key = key(slot);
        if key.len() != KEY {
            continue;
        }
        ensure!(slot < end, "JS stops at folder {end}, and there is a feed in folder {slot}");
        let name = disk.contents(FileId::new(slot, FileKind::LocalName)).filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| slot.to_string().into_bytes());
        for (what, other) in [("key", keys.insert(key, slot)), ("name", names.insert(name, slot))] {
            if let Some(other) = other {
                bail!("folders {other} and {slot} have one {what}");
            }
        }
    }
    Ok(())
}
