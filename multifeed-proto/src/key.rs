//! Public keys of feeds, and the discovery keys that stand for them on the wire.

use core::fmt;
use core::str::FromStr;

/// The public key of a feed (ed25519, 32 bytes); also the shape of the root key, that a session's two sides must share.
///
/// Anyone who knows it can read the feed, so the wire only carries its [`DiscoveryKey`]. Displayed as 64 lower-case hex
/// digits, parsed from either case. `Debug` prints the first eight, which name a feed and do not give it away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedKey([u8; 32]);

/// The root key of a multifeed that was given none: JS multifeed's built-in `encryptionKey` (its `index.js`).
pub const DEFAULT_ROOT_KEY: FeedKey = FeedKey([
    0xbe, 0xe8, 0x0f, 0xf3, 0xa4, 0xee, 0x5e, 0x72, 0x7d, 0xc4, 0x41, 0x97, 0xcb, 0x9d, 0x25, 0xbf, 0x8f, 0x19, 0xd5,
    0x0b, 0x0f, 0x3a, 0xd2, 0x98, 0x4c, 0xfe, 0x5b, 0x7d, 0x14, 0xe7, 0x5d, 0xe7,
]);

/// What names a feed's channel on the wire without giving its key away: BLAKE2b-256 over `hypercore`, keyed with the
/// feed's public key (hypercore-crypto's `discoveryKey`). Displayed, printed and parsed as a [`FeedKey`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryKey([u8; 32]);

/// The static public key of a peer, 32 bytes: what its Noise handshake proves that it has the other half of. Displayed, printed and parsed as a
/// [`FeedKey`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey([u8; 32]);

impl FeedKey {
    /// Returns a key from its 32 bytes. Any bytes are a key; whether they are a point on the curve shows when a signature is checked.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the discovery key that belongs to this key.
    pub fn discovery_key(&self) -> DiscoveryKey {
        DiscoveryKey(crate::crypto::blake2b_256(&self.0, &[b"hypercore"]))
    }

    /// A key from its 64 hex digits, as the feed lists carry it.
    pub(crate) fn from_hex(text: &[u8]) -> Result<Self, ParseKeyError> {
        parse(text).map(Self)
    }
}

impl DiscoveryKey {
    /// Returns a discovery key from its 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the discovery key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PeerKey {
    /// Returns a peer's key from its 32 bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the key's 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A text is not a key. The text is not part of the error: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseKeyError {
    /// It is too short or too long.
    #[error("a key has 64 hex digits, and this text has {characters} characters")]
    Length {
        /// How many characters it has.
        characters: usize,
    },
    /// A character of it is no hex digit.
    #[error("a key has 64 hex digits, and character {place} of this text is not one")]
    Digit {
        /// The place of the first such character; the text's first character is 1.
        place: usize,
    },
}

/// Bytes are not a key: a key has 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key has 32 bytes, and not {0}")]
pub struct KeyLengthError(
    /// How many there are.
    pub usize,
);

fn parse(text: &[u8]) -> Result<[u8; 32], ParseKeyError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| wrong_in(text))?;
    Ok(bytes)
}

/// What keeps a text from being a key.
fn wrong_in(text: &[u8]) -> ParseKeyError {
    // Each character has one byte that does not continue another.
    let characters = || text.iter().filter(|byte| **byte & 0xc0 != 0x80);
    match characters().position(|byte| !byte.is_ascii_hexdigit()) {
        Some(at) if characters().count() == 64 => ParseKeyError::Digit { place: at + 1 },
        _ => ParseKeyError::Length { characters: characters().count() },
    }
}

/// Writes the first four bytes of a key or a hash, as 8 hex digits and a mark that they are not all.
pub(crate) fn write_short(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for byte in bytes.iter().take(4) {
        write!(f, "{byte:02x}")?;
    }
    f.write_str("…")
}

fn display(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [0; 64];
    hex::encode_to_slice(bytes, &mut text).map_err(|_| fmt::Error)?;
    f.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

macro_rules! text_forms {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                display(&self.0, f)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                display(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_short(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(text: &str) -> Result<Self, ParseKeyError> {
                parse(text.as_bytes()).map(Self)
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; 32] {
            fn from(key: $name) -> Self {
                key.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = KeyLengthError;

            fn try_from(bytes: &[u8]) -> Result<Self, KeyLengthError> {
                bytes.try_into().map(Self).map_err(|_| KeyLengthError(bytes.len()))
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        /// As 64 hex digits.
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        /// From 64 hex digits.
        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a key, as 64 hex digits")
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_forms!(FeedKey);
text_forms!(DiscoveryKey);
text_forms!(PeerKey);

/// Noise's handshake hash, 64 bytes: equal on both sides of a stream, and on no other stream. An application can bind what it says to the stream
/// by it. What the two sides derive from it, others must not, so it prints nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandshakeHash([u8; 64]);

impl HandshakeHash {
    /// Returns the hash of these 64 bytes.
    pub const fn new(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// Returns the 64 bytes.
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for HandshakeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeHash(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;
    use alloc::format;
    use alloc::string::{String, ToString};

    #[test]
    fn text_forms_round_trip_in_either_case() {
        let text = "bee80ff3a4ee5e727dc44197cb9d25bf8f19d50b0f3ad2984cfe5b7d14e75de7";
        assert_eq!(DEFAULT_ROOT_KEY.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(DEFAULT_ROOT_KEY));
        assert_eq!(format!("{DEFAULT_ROOT_KEY:x}"), text);
    }

    #[test]
    fn a_text_that_is_no_key_is_described_and_not_repeated() {
        let text = DEFAULT_ROOT_KEY.to_string();
        for (wrong, expected) in [
            (text[1..].to_owned(), "a key has 64 hex digits, and this text has 63 characters"),
            (format!("{text}\n"), "a key has 64 hex digits, and this text has 65 characters"),
            (String::new(), "a key has 64 hex digits, and this text has 0 characters"),
            (text.replace('f', "x"), "a key has 64 hex digits, and character 6 of this text is not one"),
            (text.replacen('b', "ß", 1), "a key has 64 hex digits, and character 1 of this text is not one"),
            (text.replacen("be", "ß", 1), "a key has 64 hex digits, and this text has 63 characters"),
        ] {
            assert_eq!(wrong.parse::<FeedKey>().map_err(|error| error.to_string()), Err(expected.into()), "{wrong}");
        }
    }

    #[test]
    fn a_key_prints_as_its_first_digits_and_a_handshake_hash_not_at_all() {
        assert_eq!(format!("{DEFAULT_ROOT_KEY:?}"), "bee80ff3…");
        assert_eq!(format!("{:?}", PeerKey::new([0xab; 32])), "abababab…");
        assert_eq!(format!("{:?}", HandshakeHash::new([0xab; 64])), "HandshakeHash(..)");
    }

    #[test]
    fn a_key_is_made_of_32_bytes_and_no_other_number() {
        let bytes = <[u8; 32]>::from(DEFAULT_ROOT_KEY);
        assert_eq!(FeedKey::try_from(&bytes[..]), Ok(DEFAULT_ROOT_KEY));
        assert_eq!(DiscoveryKey::try_from(&bytes[1..]), Err(KeyLengthError(31)));
        assert_eq!(FeedKey::try_from(&[0; 33][..]), Err(KeyLengthError(33)));
    }
}
