//! Names of cores: in their file, and in namespaces.

/// What stands between the names of nested namespaces.
const SEPARATOR: &str = ":";

/// The most bytes that a LEB128 number of 53 bits takes, as JS has them.
const MAX_VARINT: usize = 8;

/// A namespace of a corestore: what its default core is called.
///
/// Cores that are asked for by name do not depend on it, as in JS: two namespaces of one corestore share them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Option<String>);

impl Namespace {
    /// Returns the namespace of the corestore itself, whose default core is `default`.
    pub fn root() -> Self {
        Self::default()
    }

    /// Returns the namespace of this name in this one. Nested names are joined by `:`, as in JS. If JS is given bytes it takes their hex digits.
    pub fn namespace(&self, name: &str) -> Self {
        Self(Some(match &self.0 {
            None => name.to_owned(),
            Some(outer) => [outer, SEPARATOR, name].concat(),
        }))
    }

    /// Returns the name of the default core.
    pub fn default_name(&self) -> &str {
        self.0.as_deref().unwrap_or("default")
    }
}

/// A core's `name` file: its length as a LEB128 number, and the bytes.
pub(super) fn encode(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAX_VARINT + name.len());
    let mut left = name.len();
    while left > 0x7f {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes.extend_from_slice(name);
    bytes
}

/// The name in such a file; `None` if it is not one.
pub(super) fn decode(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().take(MAX_VARINT).position(|byte| byte & 0x80 == 0)?;
    let digits = bytes.get(..=end)?.iter().rev();
    let len = digits.fold(0u64, |len, byte| len << 7 | u64::from(byte & 0x7f));
    let name = bytes.get(end + 1..)?;
    (!name.is_empty() && name.len() as u64 == len).then_some(name)
}

/// The most bytes that the file of such a name has.
pub(super) fn file_bytes(name_bytes: usize) -> usize {
    name_bytes.saturating_add(MAX_VARINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_from_its_file_and_nothing_else_does() {
        for len in [1, 2, 127, 128, 300, 16_383, 16_384, 70_000] {
            let name = vec![7; len];
            let file = encode(&name);
            assert_eq!(decode(&file), Some(&name[..]));
            assert!(decode(&file[..file.len() - 1]).is_none(), "{len}");
            assert!(decode(&[&file[..], b"x"].concat()).is_none(), "{len}");
        }
        assert_eq!(encode(b"chat"), b"\x04chat");
        for wrong in [&b""[..], b"\0", b"\x04", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7fab", b"\x80"] {
            assert!(decode(wrong).is_none(), "{wrong:?}");
        }
    }
}
