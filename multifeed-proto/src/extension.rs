//! Extension names and their numbers (abstract-extension): each side sends its names sorted, and then uses a name's
//! index in its own list as the id.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// The extensions of a stream or a channel, ours and the remote's.
#[derive(Debug, Default)]
pub struct Extensions {
    /// Ours, sorted.
    names: Vec<String>,
    /// The remote's, as its Options gave them.
    remote: Vec<String>,
    /// For each of the remote's, its index in ours.
    ids: Vec<Option<usize>>,
    /// Whether our names changed since they were announced.
    changed: bool,
}

impl Extensions {
    /// Registers a name of ours. `false` where it was there already.
    pub fn add(&mut self, name: &str) -> bool {
        match self.names.binary_search_by(|known| compare(known, name)) {
            Ok(_) => false,
            Err(at) => {
                self.names.insert(at, name.into());
                self.changed = true;
                self.ids = matches(&self.names, &self.remote);
                true
            }
        }
    }

    /// Our names, where they must go out in an Options message before the next use: once after each change.
    pub fn announce(&mut self) -> Option<&[String]> {
        core::mem::take(&mut self.changed).then_some(self.names.as_slice())
    }

    /// The id that we use for a name of ours.
    pub fn id(&self, name: &str) -> Option<u64> {
        self.names.binary_search_by(|known| compare(known, name)).ok().map(|at| at as u64)
    }

    /// The remote's Options came, in place of those before.
    pub fn update(&mut self, remote: Vec<String>) {
        self.ids = matches(&self.names, &remote);
        self.remote = remote;
    }

    /// The name of ours that a remote's id means. `None` for what we do not know, and before its Options.
    pub fn name(&self, id: u64) -> Option<&str> {
        let at = (*self.ids.get(usize::try_from(id).ok()?)?)?;
        self.names.get(at).map(String::as_str)
    }
}

/// The order of JS's strings: by UTF-16 code unit, which is not that of code points.
fn compare(a: &str, b: &str) -> Ordering {
    a.encode_utf16().cmp(b.encode_utf16())
}

/// Merges two sorted lists as the reference does, so that a name which the remote has out of order gets lost here too.
fn matches(ours: &[String], remote: &[String]) -> Vec<Option<usize>> {
    let mut ids = Vec::with_capacity(remote.len());
    let mut at = 0;
    for name in remote {
        while ours.get(at).is_some_and(|own| compare(own, name).is_lt()) {
            at += 1;
        }
        ids.push(ours.get(at).filter(|own| *own == name).map(|_| at));
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::vec;

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

    #[test]
    fn ids_are_indices_in_the_senders_list() {
        let mut extensions = extensions(&["b", "d", "a"]);
        assert_eq!((extensions.id("a"), extensions.id("d"), extensions.id("c")), (Some(0), Some(2), None));
        assert_eq!(extensions.name(0), None, "before the remote's Options");
        extensions.update(names(&["0", "a", "c", "d"]));
        assert_eq!(
            [0, 1, 2, 3, 4, u64::MAX].map(|id| extensions.name(id)),
            [None, Some("a"), None, Some("d"), None, None]
        );
        extensions.add("c");
        assert_eq!(extensions.name(2), Some("c"), "a name added later matches names that came before");
    }

    #[test]
    fn unsorted_names_get_lost_as_in_js() {
        let mut extensions = extensions(&["a", "b", "c"]);
        extensions.update(names(&["b", "a", "c", "c"]));
        assert_eq!([0, 1, 2, 3].map(|id| extensions.name(id)), [Some("b"), None, Some("c"), Some("c")]);
    }

    #[test]
    fn the_order_is_that_of_utf16() {
        // U+FF5E is above the surrogates in UTF-16, U+1F600 above U+FF5E as a code point.
        let mut extensions = extensions(&["\u{ff5e}", "\u{1f600}"]);
        assert_eq!(extensions.announce(), Some(&names(&["\u{1f600}", "\u{ff5e}"])[..]));
    }

    #[test]
    fn announced_once_after_each_change() {
        let mut extensions = extensions(&["a"]);
        assert_eq!(extensions.announce(), Some(&vec!["a".to_owned()][..]));
        assert_eq!(extensions.announce(), None);
        assert!(!extensions.add("a"));
        assert_eq!(extensions.announce(), None);
        assert!(extensions.add("b"));
        assert!(extensions.announce().is_some());
    }
}
