//! What applications say in a MANIFEST beside its keys.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt;

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::json::Json;

/// The most bytes that fields of ours can have: what a default peer of ours takes, and with the longest list of keys one message.
const MOST_BYTES: usize = 256 * 1024;

/// Members of a MANIFEST beside `keys`: what an application says of the feeds that it offers, for the other side to choose by (the
/// options of multifeed's `offerFeeds`). A JSON object, its members by name; of equal names the last one counts, as in JS.
#[derive(Clone, PartialEq, Eq)]
pub struct ManifestFields(Json);

impl ManifestFields {
    /// Makes fields of ours. `None` if the text is no JSON object, has a member `keys`, or more than 256 KiB.
    pub fn new(json: &Json) -> Option<Self> {
        if json.as_str().len() > MOST_BYTES {
            return None;
        }
        let mut json = serde_json::Deserializer::from_str(json.as_str());
        let members = json.deserialize_map(Object).ok().and_then(|members| json.end().ok().map(|()| members))?;
        if members.contains_key("keys") {
            return None;
        }
        Some(Self::of(&members).unwrap_or_else(|| Self(Json::object("{}"))))
    }

    /// Returns the fields as one JSON object.
    pub fn json(&self) -> &Json {
        &self.0
    }

    /// Returns a member's value, if it is there.
    pub fn get(&self, name: &str) -> Option<Json> {
        let mut json = serde_json::Deserializer::from_str(self.0.as_str());
        json.deserialize_map(Object).ok()?.get(name).map(|value| Json::from_raw(value))
    }

    /// Returns the fields of a remote's; `None` if there are none.
    pub(super) fn of(members: &BTreeMap<String, &RawValue>) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let mut text = String::from("{");
        for (at, (name, value)) in members.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            text.push_str(&format!("{comma}{}:{}", serde_json::Value::from(name.as_str()), value.get()));
        }
        text.push('}');
        Some(Self(Json::object(&text)))
    }

    /// The members as they stand between an object's braces.
    pub(super) fn members(&self) -> &str {
        let text = self.0.as_str();
        text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
    }

    /// Bytes on the heap.
    pub(crate) fn len(&self) -> usize {
        self.0.as_str().len()
    }
}

impl fmt::Debug for ManifestFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An object's members, their values as they were written.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = BTreeMap<String, &'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, &'de RawValue>().map_err(A::Error::custom)? {
            members.insert(name, value);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Option<ManifestFields> {
        ManifestFields::new(&Json::new(text).expect("JSON"))
    }

    #[test]
    fn only_an_object_without_keys_is_fields() {
        for text in ["1", "[]", "null", "\"a\"", r#"{"keys":[]}"#, r#"{"a":1,"k\u0065ys":2}"#] {
            assert_eq!(fields(text), None, "{text}");
        }
        let long = |bytes: usize| fields(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - r#"{"a":""}"#.len())));
        assert!(long(262_144).is_some() && long(262_145).is_none());
        assert_eq!(fields("{}").expect("fields").members(), "");
    }

    #[test]
    fn members_are_found_by_name_and_the_last_one_counts() {
        let fields = fields(r#" {"b": {"x": [1, 2]}, "a\n": "1", "b": 2.50, "": null} "#).expect("fields");
        assert_eq!(fields.json().as_str(), r#"{"":null,"a\n":"1","b":2.50}"#);
        assert_eq!(fields.get("b"), Json::new("2.50"));
        assert_eq!(fields.get("a\n"), Json::new("\"1\""));
        assert_eq!(fields.get("c"), None);
        assert!(format!("{fields:?}").contains("2.50"), "{fields:?}");
    }
}
