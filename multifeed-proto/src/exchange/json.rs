//! The JSON of multifeed's messages, read without building more than the keys that it holds.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

use bytes::{BufMut, BytesMut};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Kind, List, ManifestFields};
use crate::error::{ExchangeError, SessionError};
use crate::event::RemoteHandshake;
use crate::json::Json;
use crate::key::FeedKey;
use crate::limits::Limits;

/// Characters of a remote's value that an error keeps.
const VALUE_CHARS: usize = 256;

/// Our handshake.
pub(super) fn handshake(client: &str, version: &str, live: bool, user_data: Option<&Json>) -> Vec<u8> {
    let mut json = String::from("{\"client\":");
    push_string(client, &mut json);
    json.push_str(",\"version\":");
    push_string(version, &mut json);
    json.push_str(if live { ",\"live\":true" } else { ",\"live\":false" });
    if let Some(user_data) = user_data {
        json.push_str(",\"userData\":");
        json.push_str(user_data.as_str());
    }
    json.push('}');
    json.into_bytes()
}

/// Writes a feed list: `{"keys":[…]}` for a manifest, with its fields behind, `[…]` for the others. Its length is known beforehand, so
/// that `head` can write what stands in front.
pub(crate) fn put_keys(
    kind: Kind,
    keys: &[FeedKey],
    fields: Option<&ManifestFields>,
    out: &mut BytesMut,
    head: impl FnOnce(&mut BytesMut, usize),
) {
    let members = fields.map_or("", ManifestFields::members);
    let (open, close): (&[u8], &[u8]) = match (kind, members) {
        (Kind::Manifest, "") => (b"{\"keys\":[", b"]}"),
        (Kind::Manifest, _) => (b"{\"keys\":[", b"],"),
        _ => (b"[", b"]"),
    };
    let end: &[u8] = if members.is_empty() { b"" } else { b"}" };
    // 64 digits and two quotes each, and commas between.
    let len = open.len() + close.len() + (67 * keys.len()).saturating_sub(1) + members.len() + end.len();
    head(out, len);
    out.reserve(len);
    out.put_slice(open);
    for (at, key) in keys.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        let mut text = [b'"'; 66];
        if let Some(digits) = text.get_mut(1..65) {
            // The sizes are constants, so it cannot fail.
            let _ = hex::encode_to_slice(key.as_bytes(), digits);
        }
        out.put_slice(&text);
    }
    out.put_slice(close);
    out.put_slice(members.as_bytes());
    out.put_slice(end);
}

/// Reads and checks a remote's handshake: versions agree when their major numbers do, then the clients must be equal.
pub(super) fn parse_handshake(body: &[u8], client: &str, version: &str) -> Result<RemoteHandshake, SessionError> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        version: Option<&'a RawValue>,
        #[serde(borrow)]
        client: Option<&'a RawValue>,
        #[serde(borrow, rename = "userData")]
        user_data: Option<&'a RawValue>,
        #[serde(borrow)]
        live: Option<&'a RawValue>,
    }

    let malformed = ExchangeError::Json(Kind::Handshake.name());
    // serde would take a list for the struct's fields in order.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(malformed.into());
    }
    let raw: Raw<'_> = serde_json::from_slice(body).map_err(|_| malformed)?;
    let remote_version = raw.version.and_then(string);
    let major_agrees = |remote: &String| major(version).is_some() && major(version) == major(remote);
    let Some(remote_version) = remote_version.filter(major_agrees) else {
        return Err(SessionError::VersionMismatch { us: version.into(), them: raw.version.map(shown) });
    };
    let Some(remote_client) = raw.client.and_then(string).filter(|remote| remote == client) else {
        return Err(SessionError::ClientMismatch { us: client.into(), them: raw.client.map(shown) });
    };
    Ok(RemoteHandshake {
        version: remote_version,
        client: remote_client,
        user_data: raw.user_data.map(Json::from_raw),
        live: raw.live.and_then(|live| live.get().parse().ok()),
        extensions: Vec::new(),
        root_extensions: Vec::new(),
    })
}

/// Reads a feed list, sorted and without duplicates. Any entry that is not a key refuses it whole.
pub(super) fn parse_list(kind: Kind, body: &[u8], limits: &Limits) -> Result<List, SessionError> {
    let failure = Cell::new(Failure::Json);
    let mut json = serde_json::Deserializer::from_slice(body);
    let list = Keys { limit: limits.manifest_keys, failure: &failure };
    let read = match kind {
        Kind::Manifest => json.deserialize_map(Manifest { keys: list, fields_bytes: limits.manifest_fields_bytes }),
        _ => list.deserialize(&mut json).map(|keys| (keys, None)),
    };
    let read = read.and_then(|read| json.end().map(|()| read));
    let (mut keys, fields) = read.map_err(|error| match failure.get() {
        Failure::Key if error.is_data() => ExchangeError::Key(kind.name()).into(),
        Failure::Limit => SessionError::limit("manifest_keys", limits.manifest_keys),
        Failure::Fields => SessionError::limit("manifest_fields_bytes", limits.manifest_fields_bytes),
        Failure::Json | Failure::Key => ExchangeError::Json(kind.name()).into(),
    })?;
    keys.sort_unstable();
    keys.dedup();
    // A list that waits costs what it means, not what was sent.
    keys.shrink_to_fit();
    Ok(List { kind, keys, fields })
}

/// The major number as JS's `parseInt(version.split('.')[0])` reads it: leading white space, a sign, `0x`, and as many digits
/// as there are. None is NaN, which equals nothing.
fn major(version: &str) -> Option<f64> {
    let text = version.split('.').next()?.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, text) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None => (10, text),
    };
    let mut digits = text.chars().map_while(|c| c.to_digit(radix)).peekable();
    digits.peek()?;
    let number = digits.fold(0.0, |sum, digit| sum * f64::from(radix) + f64::from(digit));
    Some(if negative { -number } else { number })
}

fn push_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

fn string(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

/// A remote's value for an error: a string's content, or the JSON of anything else.
fn shown(raw: &RawValue) -> String {
    let text = string(raw).unwrap_or_else(|| raw.get().into());
    text.chars().take(VALUE_CHARS).collect()
}

#[derive(Clone, Copy)]
enum Failure {
    Json,
    Key,
    Limit,
    Fields,
}

/// A list of keys.
#[derive(Clone, Copy)]
struct Keys<'a> {
    limit: usize,
    failure: &'a Cell<Failure>,
}

impl<'de> DeserializeSeed<'de> for Keys<'_> {
    type Value = Vec<FeedKey>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Keys<'_> {
    type Value = Vec<FeedKey>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut keys = Vec::new();
        while let Some(key) = seq.next_element_seed(Entry(self.failure))? {
            if keys.len() >= self.limit {
                self.failure.set(Failure::Limit);
                return Err(A::Error::custom("too many keys"));
            }
            keys.push(key);
        }
        Ok(keys)
    }
}

/// A key in a list.
struct Entry<'a>(&'a Cell<Failure>);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = FeedKey;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FeedKey, D::Error> {
        let failure = self.0;
        let before = failure.replace(Failure::Key);
        let key = deserializer.deserialize_str(self)?;
        failure.set(before);
        Ok(key)
    }
}

impl<'de> Visitor<'de> for Entry<'_> {
    type Value = FeedKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key of 64 hex digits")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FeedKey, E> {
        FeedKey::from_hex(text.as_bytes()).map_err(E::custom)
    }
}

/// An object with a list under `keys`; whatever else applications put there are its fields.
struct Manifest<'a> {
    keys: Keys<'a>,
    fields_bytes: usize,
}

impl<'de> Visitor<'de> for Manifest<'_> {
    type Value = (Vec<FeedKey>, Option<ManifestFields>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut keys, mut fields, mut bytes) = (None, BTreeMap::new(), 0);
        while let Some(name) = map.next_key::<String>()? {
            if name == "keys" {
                // As in JS, the last one counts.
                keys = Some(map.next_value_seed(self.keys)?);
                continue;
            }
            let value: &'de RawValue = map.next_value()?;
            // With its quotes, its colon and a comma.
            bytes += name.len() + value.get().len() + 4;
            if bytes > self.fields_bytes {
                self.keys.failure.set(Failure::Fields);
                return Err(A::Error::custom("too many bytes of fields"));
            }
            fields.insert(name, value);
        }
        let keys = keys.ok_or_else(|| A::Error::missing_field("keys"))?;
        Ok((keys, ManifestFields::of(&fields)))
    }
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn major_numbers_are_read_as_js_reads_them() {
        for (version, number) in
            [("4.0.0", 4.0), ("120", 120.0), (" +0x1F.2", 31.0), ("-0X10", -16.0), ("-7-8", -7.0), ("1e3", 1.0)]
        {
            assert_eq!(major(version), Some(number), "{version}");
        }
        for version in ["", ".4", "-", "0x", "x4"] {
            assert_eq!(major(version), None, "{version}");
        }
    }
}
