//! The words of errors.

use std::path::PathBuf;

use multifeed_proto::{DiscoveryKey, FeedKey};

use crate::feed::local_name::is_object_property;
use crate::storage::{FileKind, Found, Slot};

/// The folder of a feed: by its number, or, if it has none, as in a corestore, by its path there.
pub(crate) fn home(slot: Slot, key: &FeedKey) -> String {
    if slot == Slot::NOWHERE { core(&key.discovery_key()) } else { format!("folder {slot}") }
}

/// A core, by the path of its folder in the corestore.
pub(crate) fn core(core: &DiscoveryKey) -> String {
    let core = core.to_string();
    format!("core {}/{}/{core}", &core[..2], &core[2..4])
}

/// A core that is about to be told something of, with the feed's key and name by which a person knows it.
pub(super) fn core_of(key: &FeedKey, name: &Option<String>) -> String {
    let start: String = key.to_string().chars().take(8).collect();
    let name = name.as_ref().map_or_else(String::new, |name| format!(", named `{name}`"));
    format!("{} (feed {start}…{name})", core(&key.discovery_key()))
}

pub(super) fn place(slot: Option<Slot>, file: Option<FileKind>, path: &Option<PathBuf>) -> String {
    match (path, slot, file) {
        (Some(path), _, _) => path.display().to_string(),
        // What makes a core a writer's.
        (None, Some(Slot::NOWHERE), Some(FileKind::LocalName)) => "`name`".to_owned(),
        (None, Some(Slot::NOWHERE), Some(file)) => format!("`{}`", file.name()),
        (None, Some(Slot::NOWHERE), None) => "its folder".to_owned(),
        (None, _, Some(file)) if file.is_beside() => format!("`{}`", file.name()),
        (None, Some(slot), Some(file)) => format!("`{}` of folder {slot}", file.name()),
        (None, Some(slot), None) => format!("folder {slot}"),
        (None, None, _) => "the store".to_owned(),
    }
}

pub(super) fn writer_of(key: &Option<FeedKey>, name: &Option<String>) -> String {
    match (name, key) {
        (Some(name), Some(key)) => format!("the writer `{name}` of feed {key}"),
        (None, Some(key)) => format!("the writer of feed {key}"),
        (_, None) => "a writer".to_owned(),
    }
}

pub(super) fn blocks_were(blocks: u64) -> String {
    if blocks == 1 { "1 block was".to_owned() } else { format!("{blocks} blocks were") }
}

pub(super) fn how_many(blocks: u64) -> String {
    if blocks == 1 { "1 block".to_owned() } else { format!("{blocks} blocks") }
}

/// What to do about a writer's folder of which less is here than was signed.
pub(super) const TO_CATCH_UP: &str = "Nothing can be appended to it, as that would be a second history, until the rest is here: \
     sync with a peer that has it, or put the newest folder back. If neither can be, write under another name";

/// What is wrong with a list of feeds, and what helps.
pub(super) fn lost_list(held: Option<u64>, known: u64) -> String {
    let entries = |count: u64| if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") };
    let what = match held {
        None => format!("is gone, and had {}", entries(known)),
        Some(held) if held < known => {
            format!("has {held} of {}: it is an older copy, or its end is lost", entries(known))
        }
        Some(_) => {
            format!(
                "has another history than the one of {} that was written here: it was made anew elsewhere",
                entries(known)
            )
        }
    };
    format!(
        "{what}. No peer has it, so that no sync brings it back: put its folder back. If it is lost for good, it can be made anew from the cores that \
         are here (`rebuild_list`, verify --rebuild-list). Until then no feed is added; writers that are here can be appended to"
    )
}

pub(super) fn put_back(key: &Option<FeedKey>, name: &Option<String>) -> &'static str {
    match name {
        // Another writer has it.
        None if key.is_some() => "Put the folder back",
        Some(name) if is_object_property(name) => {
            "Put the folder back: another feed cannot have that name, which every JavaScript object has a property of"
        }
        _ => "Put the folder back, or make another feed under that name (--new-key)",
    }
}

pub(super) fn old_place(slot: &Option<Slot>) -> String {
    slot.map_or_else(|| "a folder that is another feed's now".to_owned(), |slot| format!("folder {slot}"))
}

pub(super) fn js_sees(slot: &Option<Slot>) -> String {
    let told = |slot: &Slot| {
        format!(". Until then JavaScript opens no folder from number {slot} on, and may put its next feed there")
    };
    slot.as_ref().map(told).unwrap_or_default()
}

pub(super) fn advice(found: Found) -> &'static str {
    match found {
        Found::Link => "not used: put what it leads to in its place, or allow links (`follow_links`, --follow-links)",
        Found::DanglingLink => {
            "not used: put back what it leads to, such as a disk that is out, or a copy in its place"
        }
        Found::BehindLink => {
            "left as it is: nothing is deleted, cut, replaced or renamed through a link; do that in the store that it leads to"
        }
        Found::HardLink => "not used: put a copy in its place, or allow links (`follow_links`, --follow-links)",
        _ => "not used: move it away",
    }
}

/// Which feed has a key pair that was given for a new writer, and what helps.
pub(super) fn key_in_use(key: &FeedKey, name: &str, written: bool) -> String {
    match written {
        true => {
            format!("feed {key} has that key: it is the writer \"{name}\" here, which can be asked for by that name")
        }
        false => format!(
            "feed {key} has that key: it came from a peer, and is here as \"{name}\". To write it here, remove it and make the writer; or give its signer when \
             the store is opened"
        ),
    }
}
