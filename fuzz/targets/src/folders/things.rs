//! What somebody hostile puts into a store: links and special files in place of its files, and a journal that lies.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use multifeed_core::{FileKind, Slot};

use super::{Base, FOLDERS, Files};

/// Files that are not of a feed, and stand beside the folders.
const BESIDE: [&str; 4] = ["multifeed.lock", "multifeed.journal", "multifeed.conflicts", "multifeed.blocked"];

/// Bytes of each file outside of the store that are looked at.
const LOOKED_AT: u64 = 1 << 20;

/// Something in place of a file or of a folder.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) struct Thing {
    slot: u8,
    /// Which file of the folder, or the folder, or one beside it.
    name: u8,
    /// The one that is being replaced.
    temporary: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Kind {
    /// To a copy of what stood there.
    Link,
    /// To 64 bytes that are nobody else's business.
    Secret,
    Dangling,
    HardLink,
    Socket,
    Pipe,
    Folder,
    File,
    /// A file of this many GiB, and nothing in it.
    Huge(u16),
}

impl Thing {
    pub(super) fn slot(&self) -> Option<Slot> {
        (!self.is_beside()).then(|| Slot(u32::from(self.slot) % (FOLDERS + 2)))
    }

    pub(super) fn is_beside(&self) -> bool {
        usize::from(self.name) % 12 >= 8
    }

    fn path(&self) -> PathBuf {
        let name = match usize::from(self.name) % 12 {
            feed @ 0..7 => format!("{}/{}", self.slot().unwrap_or_default(), FileKind::ALL[feed]),
            7 => self.slot().unwrap_or_default().to_string(),
            beside => BESIDE[beside - 8].to_owned(),
        };
        if self.temporary { format!("{name}.tmp") } else { name }.into()
    }
}

/// A store on a real disk, with things in it, and what they lead to.
pub(super) struct Outside {
    dir: tempfile::TempDir,
    before: BTreeMap<PathBuf, Vec<u8>>,
    /// The things that were put, and whether each is a link.
    put: Vec<(PathBuf, bool)>,
}

impl Outside {
    pub(super) fn new(files: &Files, things: &[Thing]) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        let mut outside = Self { dir, before: BTreeMap::new(), put: Vec::new() };
        fs::create_dir(outside.elsewhere()).unwrap_or_else(|error| panic!("a folder: {error}"));
        for (file, bytes) in files {
            let path = outside.store().join(if file.kind.is_beside() { String::new() } else { file.slot.to_string() });
            let written = fs::create_dir_all(&path).and_then(|()| fs::write(path.join(file.kind.name()), bytes));
            written.unwrap_or_else(|error| panic!("a file: {error}"));
        }
        for (number, thing) in things.iter().take(6).enumerate() {
            // A thing in the place of a folder that holds another, or behind one, cannot be put.
            let _ = outside.put(thing, &number.to_string());
        }
        outside.before = outside.look();
        outside
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn elsewhere(&self) -> PathBuf {
        self.dir.path().join("elsewhere")
    }

    fn put(&mut self, thing: &Thing, name: &str) -> std::io::Result<()> {
        let (at, target) = (self.store().join(thing.path()), self.elsewhere().join(name));
        if self.put.iter().any(|(put, _)| put.starts_with(&at) || at.starts_with(put)) {
            return Ok(());
        }
        fs::create_dir_all(at.parent().unwrap_or(Path::new("/")))?;
        match thing.kind {
            // What stood there is kept elsewhere.
            // There are no hard links to folders.
            Kind::HardLink if at.is_dir() => return Ok(()),
            Kind::Link | Kind::HardLink if at.exists() => fs::rename(&at, &target)?,
            Kind::Dangling => {}
            _ => fs::write(&target, [0x5a; 64])?,
        }
        if at.is_dir() {
            fs::remove_dir_all(&at)?;
        } else if at.exists() {
            fs::remove_file(&at)?;
        }
        match thing.kind {
            Kind::Link | Kind::Secret | Kind::Dangling => {
                #[cfg(unix)]
                std::os::unix::fs::symlink(&target, &at)?;
            }
            Kind::HardLink => fs::hard_link(&target, &at)?,
            #[cfg(unix)]
            Kind::Socket => drop(std::os::unix::net::UnixListener::bind(&at)?),
            #[cfg(all(unix, not(target_vendor = "apple")))]
            Kind::Pipe => {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                mknodat(CWD, &at, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
            }
            Kind::Folder => fs::create_dir(&at)?,
            Kind::File => fs::write(&at, [7; 32])?,
            Kind::Huge(size) => return fs::File::create(&at)?.set_len(u64::from(size) << 30),
            #[cfg(not(unix))]
            Kind::Socket => return Ok(()),
            #[cfg(any(not(unix), target_vendor = "apple"))]
            Kind::Pipe => return Ok(()),
        }
        // What a crash left of a file is the store's to take away, and what has a file's name may be one.
        let is_ours = thing.kind == Kind::File && usize::from(thing.name) % 12 != 7
            || thing.temporary && (thing.kind == Kind::HardLink || thing.name % 12 == 7)
            || thing.kind == Kind::Folder && usize::from(thing.name) % 12 == 7;
        if !is_ours {
            self.put.push((at, matches!(thing.kind, Kind::Link | Kind::Secret | Kind::Dangling)));
        }
        Ok(())
    }

    /// All files elsewhere, with what is in them.
    fn look(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.elsewhere()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let read = fs::File::open(entry.path()).and_then(|file| {
                    // One that is huge by claim alone has its length instead of its end.
                    let mut bytes = file.metadata()?.len().to_le_bytes().to_vec();
                    file.take(LOOKED_AT).read_to_end(&mut bytes).map(|_| bytes)
                });
                match read {
                    Ok(bytes) => _ = found.insert(entry.path(), bytes),
                    Err(_) => folders.push(entry.path()),
                }
            }
        }
        found
    }

    /// Nothing elsewhere has changed, or nothing of it is lost, and the things are where they were.
    pub(super) fn check(&self, followed: bool) {
        let now = self.look();
        if followed {
            for (path, bytes) in &self.before {
                let len = |bytes: &Vec<u8>| bytes.first_chunk().map_or(0, |len| u64::from_le_bytes(*len));
                assert!(now.get(path).is_some_and(|now| len(now) >= len(bytes)), "{} was cut", path.display());
            }
        } else {
            assert_eq!(now, self.before, "something outside of the store has changed");
        }
        for (at, is_link) in &self.put {
            // A folder may have another number now, with all that is in it.
            let folders = fs::read_dir(self.store()).into_iter().flatten().flatten().map(|entry| entry.path());
            let moved = folders.map(|folder| folder.join(at.file_name().unwrap_or_default()));
            let is_it = |at: &Path| fs::symlink_metadata(at).is_ok_and(|meta| meta.is_symlink() == *is_link);
            assert!(is_it(at) || moved.into_iter().any(|at| is_it(&at)), "{} is gone", at.display());
        }
    }
}

/// A journal whose checksums are right.
#[derive(Debug, Arbitrary)]
pub(super) struct Forged {
    closed: bool,
    first_new: u8,
    entries: Vec<Entry>,
}

#[derive(Debug, Arbitrary)]
struct Entry {
    slot: u8,
    flags: u8,
    /// The key of which feed, or of none.
    key: u8,
    length: u8,
    last: Option<u8>,
    root: u64,
    seal: [u8; 16],
    stamp: [u8; 8],
    /// Roots that the stamp speaks for.
    roots: Vec<[u8; 20]>,
    pages: Vec<(u8, Vec<u8>)>,
}

impl Forged {
    /// The file: see the journal's own description of it.
    pub(super) fn bytes(&self, base: &Base) -> Vec<u8> {
        let mut bytes = b"multifeed-journal 1\n".to_vec();
        bytes.extend_from_slice(if self.closed { b"c\n\0\0" } else { b"o\n\0\0" });
        bytes.extend_from_slice(&u32::from(self.first_new).to_le_bytes());
        bytes.resize(32, 0);
        for (number, entry) in (0u64..).zip(self.entries.iter().take(8)) {
            let body = entry.bytes(base);
            let mut sum = blake2b_simd::Params::new().hash_length(8).to_state();
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(sum.update(&number.to_le_bytes()).update(&body).finalize().as_bytes());
            bytes.extend_from_slice(&body);
        }
        bytes
    }
}

impl Entry {
    fn bytes(&self, base: &Base) -> Vec<u8> {
        let name = |which: u8| {
            let key = base.keys.get(usize::from(which)).map_or([0; 32], |(key, _)| *key.as_bytes());
            let hash = blake2b_simd::Params::new().hash_length(8).personal(b"multifeed key").hash(&key);
            hash.as_bytes().to_vec()
        };
        let mut bytes = u32::from(self.slot % 9).to_le_bytes().to_vec();
        // That of a writer has another form.
        bytes.push(self.flags & !64);
        bytes.extend_from_slice(&name(self.key % 5));
        let removal = self.flags & 16 != 0;
        let length = match (removal, self.last) {
            (false, _) => u64::from(self.length),
            (true, None) => u64::MAX,
            (true, Some(last)) => u64::from(last % 9),
        };
        bytes.extend_from_slice(&length.to_le_bytes());
        match self.last {
            Some(last) if removal => bytes.extend_from_slice(&name(last % 5)),
            _ => bytes.extend_from_slice(&self.root.to_le_bytes()),
        }
        if self.flags & 4 != 0 {
            bytes.extend_from_slice(&self.seal);
        }
        if self.flags & 128 != 0 {
            let roots = &self.roots[..self.roots.len().min(4)];
            bytes.extend_from_slice(&self.stamp);
            bytes.push(roots.len() as u8);
            roots.iter().for_each(|root| bytes.extend_from_slice(&[*root, *root].concat()));
        }
        let pages = if removal { &[] } else { &self.pages[..self.pages.len().min(4)] };
        bytes.extend_from_slice(&(pages.len() as u32).to_le_bytes());
        for (page, marks) in pages {
            bytes.extend_from_slice(&u32::from(*page).to_le_bytes());
            bytes.extend_from_slice(&(marks.len() as u16).to_le_bytes());
            bytes.extend_from_slice(marks);
        }
        bytes
    }
}
