//! A piece of JSON, kept as its text.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

/// A JSON value as its text: what a handshake's `userData` holds. It is checked to be JSON, but never expanded, so a
/// remote's costs what its text costs.
#[derive(Clone)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Makes a value from its JSON text; `None` if that is not one JSON value.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        RawValue::from_string(text.into()).ok().map(Self)
    }

    /// Makes a value from the bytes of its text, such as an extension's message; `None` if they are not one JSON value.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::new(core::str::from_utf8(bytes).ok()?)
    }

    /// Returns the JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    pub(crate) fn from_raw(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }

    /// Makes an object of a text that was put together of names and values; null if it is none after all.
    pub(crate) fn object(text: &str) -> Self {
        Self::new(text).unwrap_or_else(|| Self(RawValue::NULL.to_owned()))
    }
}

impl From<Json> for Bytes {
    /// The JSON text: an extension's message, say.
    fn from(json: Json) -> Self {
        Self::copy_from_slice(json.as_str().as_bytes())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for Json {
    /// Equal texts; two ways to write one value are not equal.
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Json {}
