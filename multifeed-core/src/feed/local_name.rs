//! What a feed may be called.

use multifeed_proto::FeedKey;

/// The properties that every JavaScript object has, in Node.js 20. JS keeps its feeds in one by their names.
const OBJECT_PROPERTIES: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Returns whether a writer of this name is lost to a JS app. It is if every JavaScript object has a property of that name: `writer` there
/// gives that, which is no feed. One that is named `__proto__` is not counted either, so that the next writer goes into a folder which is
/// taken.
///
/// [`Multifeed::writer`](crate::Multifeed::writer) makes none. A store that has one, from JS or an earlier build, opens as any other.
pub fn is_object_property(name: &str) -> bool {
    OBJECT_PROPERTIES.contains(&name)
}

/// Whether a feed of this key was given this name because its number was somebody else's name.
pub(crate) fn is_key_name(name: &str, key: &FeedKey) -> bool {
    name.strip_prefix(&*key.to_string()).is_some_and(|rest| rest.bytes().all(|byte| byte == b'.'))
}
