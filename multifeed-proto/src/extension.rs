//! Extension names and their numbers (abstract-extension): each side sends its names sorted, and then uses a name's
//! index in its own list as the id.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::error::ApiMisuse;
use crate::exchange::Kind;
use crate::limits::Limits;

/// What the names of this project's own extensions begin with.
const NAMESPACE: &str = "multifeed/";

/// The extensions of a stream or a channel, ours and the remote's.
#[derive(Debug, Default)]
pub struct Extensions {
    /// Ours, sorted.
    ours: Vec<Own>,
    /// The remote's, as its Options gave them.
    remote: Vec<String>,
    /// For each of the remote's, its index in ours.
    ids: Vec<Option<usize>>,
    /// Whether the names that we announce changed since they were announced.
    changed: bool,
}

#[derive(Debug)]
struct Own {
    name: Arc<str>,
    /// We say that we speak it; otherwise it is only understood.
    announced: bool,
}

impl Extensions {
    /// Registers a name of ours. `false` if it was there already.
    pub fn add(&mut self, name: &str) -> bool {
        let at = self.listen(name);
        let Some(own) = self.ours.get_mut(at).filter(|own| !own.announced) else { return false };
        own.announced = true;
        self.changed = true;
        true
    }

    /// Registers a name of the application's.
    pub(crate) fn register(&mut self, name: &str, limits: &Limits) -> Result<(), ApiMisuse> {
        if self.announced(name).is_some() {
            return Err(ApiMisuse::ExtensionTaken(name.to_string()));
        }
        if !self.has_room_for(name, limits) {
            return Err(ApiMisuse::NoRoomForExtension(name.to_string()));
        }
        self.add(name);
        Ok(())
    }

    /// Understands a name, without saying so to the remote. Returns its place.
    pub(crate) fn listen(&mut self, name: &str) -> usize {
        let found = self.find(name);
        if let Err(at) = found {
            self.ours.insert(at, Own { name: name.into(), announced: false });
            self.ids = matches(&self.ours, &self.remote);
        }
        found.unwrap_or_else(|at| at)
    }

    /// Whether any name is announced, or will be.
    pub(crate) fn is_spoken(&self) -> bool {
        self.ours.iter().any(|own| own.announced)
    }

    /// Whether peers with such limits as ours take the Options that say one more name.
    pub(crate) fn has_room_for(&self, name: &str, limits: &Limits) -> bool {
        // Each with a tag and a length; and room for the four that are multifeed's, and for what else Options say.
        let bytes = |name: &str| name.len() + 4;
        let announced = || self.ours.iter().filter(|own| own.announced);
        let sum: usize = announced().map(|own| bytes(&own.name)).sum();
        announced().count() + 4 < limits.extensions && sum + bytes(name) + 200 < limits.options_bytes
    }

    /// Returns our names, if they must go out in an Options message before the next use: once after each change.
    pub fn announce(&mut self) -> Option<Vec<String>> {
        core::mem::take(&mut self.changed).then(|| self.names())
    }

    /// Returns the names that we announce, sorted.
    pub fn names(&self) -> Vec<String> {
        self.ours.iter().filter(|own| own.announced).map(|own| own.name.to_string()).collect()
    }

    /// Returns the id that we use for a name of ours.
    pub fn id(&self, name: &str) -> Option<u64> {
        let at = self.announced(name)?;
        Some(self.ours.iter().take(at).filter(|own| own.announced).count() as u64)
    }

    /// Takes the remote's Options, in place of those before.
    pub fn update(&mut self, remote: Vec<String>) {
        self.ids = matches(&self.ours, &remote);
        self.remote = remote;
    }

    /// Returns the name of ours that a remote's id means. `None` for what we do not know, and before its Options.
    pub fn name(&self, id: u64) -> Option<&Arc<str>> {
        let at = (*self.ids.get(usize::try_from(id).ok()?)?)?;
        self.ours.get(at).map(|own| &own.name)
    }

    /// Whether the remote's id stands for a name at all, be it one that we do not know.
    pub(crate) fn is_named(&self, id: u64) -> bool {
        usize::try_from(id).is_ok_and(|id| id < self.ids.len())
    }

    /// The names that both sides announced.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Arc<str>> {
        // The remote may say one several times.
        let both = |(at, own): &(usize, &Own)| own.announced && self.ids.contains(&Some(*at));
        self.ours.iter().enumerate().filter(both).map(|(_, own)| &own.name)
    }

    /// Returns whether the remote said that it speaks a name of ours.
    pub fn remote_speaks(&self, name: &str) -> bool {
        self.find(name).is_ok_and(|at| self.ids.contains(&Some(at)))
    }

    /// Whether the remote said that it speaks any of multifeed's own.
    pub(crate) fn speaks_multifeed(&self) -> bool {
        Kind::ALL.iter().any(|kind| self.remote_speaks(kind.name()))
    }

    /// Whether the remote announced an extension of this project's, whether or not we speak it here.
    pub(crate) fn is_kin(&self) -> bool {
        self.remote.iter().any(|name| name.starts_with(NAMESPACE))
    }

    /// Whether it speaks one that we do not know.
    pub(crate) fn has_unknown(&self) -> bool {
        self.ids.contains(&None)
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.ours.binary_search_by(|own| compare(&own.name, name))
    }

    fn announced(&self, name: &str) -> Option<usize> {
        self.find(name).ok().filter(|&at| self.ours.get(at).is_some_and(|own| own.announced))
    }
}

/// The order of JS's strings: by UTF-16 code unit, which is not that of code points.
fn compare(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// Merges two sorted lists as the reference does, so that a name which the remote has out of order gets lost here too.
fn matches(ours: &[Own], remote: &[String]) -> Vec<Option<usize>> {
    let mut ids = Vec::with_capacity(remote.len());
    let mut at = 0;
    for name in remote {
        while ours.get(at).is_some_and(|own| compare(&own.name, name).is_lt()) {
            at += 1;
        }
        ids.push(ours.get(at).filter(|own| *own.name == **name).map(|_| at));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    fn extensions(names: &[&str]) -> Extensions {
        let mut extensions = Extensions::default();
        for name in names {
            extensions.add(name);
        }
        extensions
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn name(extensions: &Extensions, id: u64) -> Option<&str> {
        extensions.name(id).map(|name| &**name)
    }

    #[test]
    fn ids_are_indices_in_the_senders_list() {
        let mut extensions = extensions(&["b", "d", "a"]);
        assert_eq!((extensions.id("a"), extensions.id("d"), extensions.id("c")), (Some(0), Some(2), None));
        assert_eq!(name(&extensions, 0), None, "before the remote's Options");
        extensions.update(names(&["0", "a", "c", "d"]));
        assert_eq!(
            [0, 1, 2, 3, 4, u64::MAX].map(|id| name(&extensions, id)),
            [None, Some("a"), None, Some("d"), None, None]
        );
        assert_eq!([0, 3, 4, u64::MAX].map(|id| extensions.is_named(id)), [true, true, false, false]);
        extensions.add("c");
        assert_eq!(name(&extensions, 2), Some("c"), "a name added later matches names that came before");
        assert_eq!(["a", "b", "c"].map(|name| extensions.remote_speaks(name)), [true, false, true]);
        extensions.update(names(&["a", "c", "c", "c"]));
        assert_eq!(Vec::from_iter(extensions.shared().map(|name| &**name)), ["a", "c"]);
    }

    #[test]
    fn what_is_only_understood_is_not_announced_and_takes_no_id() {
        let mut extensions = extensions(&["b", "d"]);
        extensions.listen("a");
        extensions.listen("c");
        extensions.listen("d");
        assert_eq!(extensions.announce(), Some(names(&["b", "d"])));
        assert_eq!(["a", "b", "c", "d"].map(|name| extensions.id(name)), [None, Some(0), None, Some(1)]);
        extensions.update(names(&["a", "c", "d"]));
        assert_eq!([0, 1, 2].map(|id| name(&extensions, id)), [Some("a"), Some("c"), Some("d")]);
        assert_eq!(extensions.announce(), None);
        assert!(extensions.add("a"));
        assert_eq!((extensions.announce(), extensions.id("d")), (Some(names(&["a", "b", "d"])), Some(2)));
    }

    #[test]
    fn unsorted_names_get_lost_as_in_js() {
        let mut extensions = extensions(&["a", "b", "c"]);
        extensions.update(names(&["b", "a", "c", "c"]));
        assert_eq!([0, 1, 2, 3].map(|id| name(&extensions, id)), [Some("b"), None, Some("c"), Some("c")]);
    }

    #[test]
    fn the_order_is_that_of_utf16() {
        // U+FF5E is above the surrogates in UTF-16, U+1F600 above U+FF5E as a code point.
        let mut extensions = extensions(&["\u{ff5e}", "\u{1f600}"]);
        assert_eq!(extensions.announce(), Some(names(&["\u{1f600}", "\u{ff5e}"])));
    }

    #[test]
    fn announced_once_after_each_change() {
        let mut extensions = extensions(&["a"]);
        assert_eq!(extensions.announce(), Some(names(&["a"])));
        assert_eq!(extensions.announce(), None);
        assert!(!extensions.add("a"));
        assert_eq!(extensions.announce(), None);
        assert!(extensions.add("b"));
        assert!(extensions.announce().is_some());
    }
}
