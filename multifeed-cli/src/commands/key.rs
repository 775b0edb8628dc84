//! `multifeed key export` and `multifeed key import`: a writer's key pair, to go on elsewhere.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use multifeed_tokio::core::{FileId, FileKind, Slot};
use multifeed_tokio::{Feed, FeedKey, FileStorage, KeyPair, Multifeed, Options, Storage, StoreError};
use serde::{Deserialize, Serialize};

use super::find;
use super::folder::is_corestore;
use super::opening::{cannot_open, close, open, wait_for_lock};
use super::reading::{close_read, open_to_read};
use crate::args::{Global, KeyExport, KeyImport};
use crate::error::{CliError, code};
use crate::output::{Output, WriterLine, count, one_line};

/// What an exported file begins with.
const KIND: &str = "writer key";
const VERSION: u32 = 1;

/// Bytes of an exported file, at the most.
const MOST_BYTES: u64 = 64 * 1024;

const BOTH_APPEND: &str =
    "append at one place alone: if two append to one feed apart, they sign two histories, and peers refuse both";

/// A writer, as a file holds it.
#[derive(Serialize, Deserialize)]
struct Exported {
    multifeed: String,
    version: u32,
    name: String,
    key: String,
    secret_key: String,
    /// Blocks that it had then: without these nothing may be appended.
    length: u64,
}

pub(super) async fn export(
    args: &KeyExport,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let Some(reading) = open_to_read(global, options, output).await? else { return Err(no_store(&args.feed, global)) };
    let result = match find(&reading.multi, &args.feed) {
        Ok(feed) => export_to(&feed, &args.file, output).await,
        Err(error) => Err(error),
    };
    close_read(&reading.multi, result, output).await
}

async fn export_to(feed: &Feed, path: &Path, output: &Output) -> Result<(), CliError> {
    let (key, name, length) = (feed.key().to_string(), feed.name(), feed.len());
    let pair = feed.key_pair().await?.ok_or_else(|| {
        let message = format!("feed {key} is not written here: there is no secret key of it");
        CliError::new(code::READ_ONLY, message)
    })?;
    let secret_key = hex::encode(*pair.secret_key());
    let exported =
        Exported { multifeed: KIND.into(), version: VERSION, name: name.clone(), key: key.clone(), secret_key, length };
    let failed = |error: std::io::Error| CliError::new(code::IO, format!("{}: {error}", path.display()));
    let text = serde_json::to_string(&exported).map_err(|error| failed(error.into()))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(failed)?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    written.map_err(|error| {
        // Half a key is none.
        let _ = std::fs::remove_file(path);
        failed(error)
    })?;
    output.warn(&format!("whoever has {} can write the feed; {BOTH_APPEND}", path.display()));
    let people = || {
        let (name, blocks) = (one_line(&name), count(length, "block"));
        format!("exported the key of {name} ({key}), which has {blocks}")
    };
    output.print(people, &WriterLine { key: key.clone(), name: name.clone(), length })
}

pub(super) async fn import(
    args: KeyImport,
    global: &Global,
    options: Options,
    output: &Output,
) -> Result<(), CliError> {
    let exported = read(&args.file)?;
    if is_corestore(global) {
        let message =
            "a corestore takes no key: the keys of its writers are derived from its `master_key` and their names";
        return Err(CliError::new(code::OTHER_STORE, message));
    }
    let pair = pair_of(&exported, &args.file)?;
    let name = args.name.unwrap_or_else(|| exported.name.clone());
    if exported.length > 0 && matches!(global.store.try_exists(), Ok(false)) {
        return Err(sync_first(&exported, "there is no store"));
    }
    let multi = open(global, options.clone(), output).await?;
    let is_here = match check(&multi, &pair.public_key(), &name, &exported) {
        Ok(false) => multi.writer_with(name.as_str(), pair.clone()).await.map(|_| false).map_err(CliError::from),
        checked => checked,
    };
    if close(&multi, is_here, output).await? {
        put(global, &options, &pair, &name).await?;
    }
    let multi = open(global, options, output).await?;
    let result = match multi.feed(pair.public_key()) {
        Some(feed) if feed.writable() => Ok((feed.name(), feed.len())),
        _ => Err(CliError::new(code::INTERNAL, "the key was written, and the feed cannot be appended to")),
    };
    let (name, length) = close(&multi, result, output).await?;
    output.warn(BOTH_APPEND);
    let key = pair.public_key().to_string();
    let people = || {
        let (name, blocks) = (one_line(&name), count(length, "block"));
        format!("imported the key of {name} ({key}), which has {blocks}: it is written here now")
    };
    output.print(people, &WriterLine { key: key.clone(), name: name.clone(), length })
}

/// Fails unless the store knows of all that the writer had when it was exported, and of no more. Whether it has the feed, which it needs not if that had no block.
fn check(multi: &Multifeed, key: &FeedKey, name: &str, exported: &Exported) -> Result<bool, CliError> {
    let length = exported.length;
    let named = multi.feeds().into_iter().find(|feed| feed.name() == name && feed.key() != *key);
    if let Some(other) = named {
        let message =
            format!("`{name}` is the name of feed {} here: --name gives this writer another one", other.key());
        return Err(CliError::new(code::NAME_TAKEN, message));
    }
    let Some(feed) = multi.feed(*key) else {
        return if length == 0 { Ok(false) } else { Err(sync_first(exported, "this store has none of it")) };
    };
    if feed.writable() || feed.lost_key() {
        let message = format!("feed {key} is a writer of this store already, named {}", one_line(&feed.name()));
        return Err(CliError::new(code::OCCUPIED, message));
    }
    match (feed.len(), feed.downloaded()) {
        (here, _) if here > length => {
            let message = format!(
                "feed {key} had {} when its key was exported, and has {} here: its writer went on; export it again, and append there no more",
                count(length, "block"),
                count(here, "block")
            );
            Err(CliError::new(code::WRITER_OLDER, message))
        }
        // A block that is not held is one that was cleared, or comes later: the length is proven, and nothing is signed in its place.
        (here, _) if here < length => Err(sync_first(exported, &format!("this store knows of {here}"))),
        _ => Ok(true),
    }
}

fn sync_first(exported: &Exported, here: &str) -> CliError {
    let (key, had) = (&exported.key, count(exported.length, "block"));
    let message = format!(
        "feed {key} had {had} when its key was exported, and {here}: sync first with a peer that has them, or what is appended here would be a second history"
    );
    CliError::new(code::WRITER_OLDER, message)
}

/// Puts the secret key and the name beside a feed that is here, as JS has a writer.
async fn put(global: &Global, options: &Options, pair: &KeyPair, name: &str) -> Result<(), CliError> {
    let open =
        async || FileStorage::open_with(&global.store, options.files.clone()).map_err(multifeed_tokio::Error::Store);
    let mut storage = wait_for_lock(global, open).await.map_err(|error| cannot_open(error, global))?;
    let slot = slot_of(&mut storage, &pair.public_key());
    let put = slot.and_then(|slot| {
        let slot = slot.ok_or(std::io::ErrorKind::NotFound)?;
        // Without the secret key the name means nothing.
        for (kind, bytes) in [(FileKind::LocalName, name.as_bytes()), (FileKind::SecretKey, &pair.secret_key()[..])] {
            let file = FileId::new(slot, kind);
            storage.replace(file, bytes)?;
            storage.sync(file)?;
        }
        Ok(())
    });
    put.and_then(|()| storage.close())
        .map_err(|error| CliError::from(multifeed_tokio::Error::Store(StoreError::from_store("write", error))))
}

fn slot_of(storage: &mut FileStorage, key: &FeedKey) -> std::io::Result<Option<Slot>> {
    for slot in storage.list()? {
        let mut bytes = [0; 32];
        let file = FileId::new(slot, FileKind::Key);
        if storage.len(file)?.is_some() && storage.read_at(file, 0, &mut bytes)? == 32 && bytes == *key.as_bytes() {
            return Ok(Some(slot));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Exported, CliError> {
    let failed = |error: std::io::Error| CliError::new(code::IO, format!("{}: {error}", path.display()));
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text)).map_err(failed)?;
    let exported: Option<Exported> = serde_json::from_slice(&text).ok();
    exported.filter(|exported| exported.multifeed == KIND && exported.version == VERSION).ok_or_else(|| {
        let message = format!("{}: this is no file of `multifeed key export`", path.display());
        CliError::new(code::KEY_MISMATCH, message)
    })
}

fn pair_of(exported: &Exported, path: &Path) -> Result<KeyPair, CliError> {
    let mut secret = [0; 64];
    let pair = hex::decode_to_slice(&exported.secret_key, &mut secret)
        .ok()
        .and_then(|()| KeyPair::from_secret_key(&secret).ok());
    pair.filter(|pair| pair.public_key().to_string() == exported.key).ok_or_else(|| {
        let message =
            format!("{}: the secret key is not that of feed {}: the file is damaged", path.display(), exported.key);
        CliError::new(code::KEY_MISMATCH, message)
    })
}

fn no_store(feed: &str, global: &Global) -> CliError {
    CliError::new(code::FEED, format!("no feed {feed}: there is no store at {}", global.store.display()))
}
