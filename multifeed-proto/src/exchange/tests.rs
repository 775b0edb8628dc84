use alloc::format;
use alloc::vec;

use super::*;
use crate::error::ExchangeError;
use crate::json::Json;
use crate::key::DEFAULT_ROOT_KEY;
use bytes::BytesMut;
use proptest::prelude::*;

#[derive(Default)]
struct Log {
    sent: Vec<(Kind, Vec<FeedKey>)>,
    fields: Vec<ManifestFields>,
    introduced: usize,
    handshakes: usize,
    on_channel: bool,
    events: Vec<Event>,
}

impl Sink for Log {
    fn introduce(&mut self) {
        self.introduced += 1;
    }

    fn handshake(&mut self, _json: &[u8]) {
        self.handshakes += 1;
    }

    fn keys(&mut self, kind: Kind, keys: &[FeedKey], fields: Option<&ManifestFields>) {
        self.sent.push((kind, keys.to_vec()));
        self.fields.extend(fields.cloned());
    }

    fn on_channel(&self) -> bool {
        self.on_channel
    }

    fn shared_root_extensions(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
    fn shared_extensions(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
}

const HANDSHAKE_TEXT: &str = r#"{"live":true,"_id":"ff","client":"MULTIFEED","version":"4.0.0"}"#;
const HANDSHAKE: &[u8] = HANDSHAKE_TEXT.as_bytes();

fn key(n: u8) -> FeedKey {
    FeedKey::new([n; 32])
}

fn list(keys: &[FeedKey]) -> Vec<u8> {
    let keys = keys.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>();
    format!("[{}]", keys.join(",")).into_bytes()
}

fn manifest(keys: &[FeedKey]) -> Vec<u8> {
    [b"{\"keys\":", &list(keys)[..], b"}"].concat()
}

fn ready() -> (Exchange, Log) {
    let (mut exchange, mut log) = (Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY)), Log::default());
    exchange.verified(&mut log);
    receive(&mut exchange, &mut log, Kind::Handshake, HANDSHAKE).unwrap();
    assert!(exchange.is_ready() && matches!(log.events[..], [Event::Ready { .. }]));
    log.events.clear();
    (exchange, log)
}

fn receive(exchange: &mut Exchange, log: &mut Log, kind: Kind, body: &[u8]) -> Result<(), SessionError> {
    exchange.receive(kind, body, &Limits::default(), log)
}

fn keys_of(kind: Kind, body: &[u8], limit: usize) -> Result<Vec<FeedKey>, SessionError> {
    let limits = Limits { manifest_keys: limit, ..Limits::default() };
    json::parse_list(kind, body, &limits).map(|list| list.keys)
}

fn fields(text: &str) -> Option<ManifestFields> {
    ManifestFields::new(&Json::new(text).unwrap())
}

fn parse(body: &str) -> Result<RemoteHandshake, SessionError> {
    json::parse_handshake(body.as_bytes(), "MULTIFEED", "4.0.0")
}

#[test]
fn our_handshake() {
    let json = json::handshake("MULTIFEED", "4.0.0", true, Json::new(r#"{"a": 1}"#).as_ref());
    assert_eq!(json, br#"{"client":"MULTIFEED","version":"4.0.0","live":true,"userData":{"a": 1}}"#);
    let json = json::handshake("a\"b", "4", false, None);
    assert_eq!(json, br#"{"client":"a\"b","version":"4","live":false}"#);
}

#[test]
fn handshakes_are_compared_as_js_does() {
    let accepted =
        parse(r#"{"version":"4.0.0","client":"MULTIFEED","userData":[1, 2],"live":false,"maxFeeds":3}"#).unwrap();
    assert_eq!((accepted.user_data, accepted.live), (Json::new("[1, 2]"), Some(false)));
    for same in ["4", "4.9.1", " 4", "+4.", "0x4", "04", "4abc", "\\t4"] {
        assert!(parse(&format!(r#"{{"version":"{same}","client":"MULTIFEED"}}"#)).is_ok(), "{same}");
    }
    for (other, them) in
        [("\"5.0.0\"", "5.0.0"), ("\"\"", ""), ("\"x\"", "x"), ("4", "4"), ("\"-4\"", "-4"), ("\"40\"", "40")]
    {
        let error = parse(&format!(r#"{{"version":{other},"client":"MULTIFEED"}}"#)).unwrap_err();
        assert_eq!(
            (error.code(), error.us().unwrap(), error.them().unwrap()),
            ("ERR_VERSION_MISMATCH", "4.0.0".into(), them.into())
        );
    }
    let error = parse(r#"{"version":"4.0.0","client":"OTHER"}"#).unwrap_err();
    assert_eq!(
        (error.code(), error.us().unwrap(), error.them().unwrap()),
        ("ERR_CLIENT_MISMATCH", "MULTIFEED".into(), "OTHER".into())
    );
    assert_eq!(parse("{}"), Err(SessionError::VersionMismatch { us: "4.0.0".into(), them: None }));
    // The version is compared first.
    assert_eq!(parse(r#"{"version":"3.0.0","client":"OTHER"}"#).unwrap_err().code(), "ERR_VERSION_MISMATCH");
    for bad in ["", "null", "[\"4.0.0\",\"MULTIFEED\"]", "{", "{} {}", "\"{}\""] {
        assert_eq!(parse(bad), Err(ExchangeError::Json("MULTIFEED_HANDSHAKE").into()), "{bad}");
    }
    // A very long value is cut in the error.
    let error = parse(&format!(r#"{{"version":"{}"}}"#, "é".repeat(1000))).unwrap_err();
    assert_eq!(error.them().unwrap().chars().count(), 256);
}

#[test]
fn lists_are_read_in_either_case_sorted_and_once_each() {
    let text = format!(r#"["{}","{}", "{}"]"#, key(0xbb), key(0xaa), key(0xbb).to_string().to_uppercase());
    assert_eq!(keys_of(Kind::Request, text.as_bytes(), 3), Ok(vec![key(0xaa), key(0xbb)]));
    let text = format!(r#" {{"x":[{{}}],"keys":[],"keys":["{}"],"y":null}} "#, key(1));
    assert_eq!(keys_of(Kind::Manifest, text.as_bytes(), 3), Ok(vec![key(1)]));
}

#[test]
fn a_manifest_says_more_than_keys() {
    let limits = Limits { manifest_fields_bytes: 40, ..Limits::default() };
    let read = |text: &str| json::parse_list(Kind::Manifest, text.as_bytes(), &limits).map(|list| list.fields);
    assert_eq!(read(r#"{"keys":[]}"#), Ok(None));
    assert_eq!(read(r#"{"a" : [1, 2],"keys":[],"b":{}}"#), Ok(fields(r#"{"a":[1, 2],"b":{}}"#)));
    let member = |bytes: usize| format!(r#"{{"a":"{}","keys":[]}}"#, "x".repeat(bytes));
    // A name of one byte, two quotes of the value, and four bytes for each member.
    assert!(read(&member(33)).unwrap().is_some());
    assert_eq!(read(&member(34)), Err(SessionError::limit("manifest_fields_bytes", 40)));
    assert_eq!(
        json::parse_list(Kind::Manifest, b"{\"a\":\"\xff\",\"keys\":[]}", &limits).map(|_| ()),
        Err(ExchangeError::Json(Kind::Manifest.name()).into())
    );

    // What is written is what is read.
    for sent in [None, fields("{}"), fields(r#"{"a":1}"#), fields(r#"{"a":1,"b\"":[{}]}"#)] {
        let mut out = BytesMut::new();
        let mut told = 0;
        put_keys(Kind::Manifest, &[key(1)], sent.as_ref(), &mut out, |_, len| told = len);
        assert_eq!(told, out.len());
        let list = json::parse_list(Kind::Manifest, &out, &limits).unwrap();
        if let Some(said) = &sent {
            let object = String::from_utf8(out.to_vec()).unwrap().replace(&format!("\"keys\":[\"{}\"]", key(1)), "");
            assert_eq!(object.replace("{,", "{"), said.json().as_str());
        }
        assert_eq!((list.keys, list.fields), (vec![key(1)], sent.filter(|fields| !fields.members().is_empty())));
    }
}

#[test]
fn fields_are_told_with_their_manifest() {
    let (mut exchange, mut log) = (Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY)), Log::default());
    let said = fields(r#"{"kind":"chat"}"#);
    exchange.offer(&[key(1)], said.as_ref(), &mut log);
    exchange.verified(&mut log);
    let early = br#"{"kind":"media","keys":[]}"#;
    receive(&mut exchange, &mut log, Kind::Manifest, early).unwrap();
    receive(&mut exchange, &mut log, Kind::Handshake, HANDSHAKE).unwrap();
    assert_eq!(log.fields, [said.unwrap()]);
    let told = Event::Manifest { root: Root::FIRST, keys: vec![], fields: fields(r#"{"kind":"media"}"#) };
    assert_eq!(log.events[1..], [told]);

    // All that come before the handshake are bounded together.
    let mut exchange = Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY));
    let limits = Limits { manifest_fields_bytes: 2 * r#"{"kind":"media"}"#.len(), ..Limits::default() };
    exchange.receive(Kind::Manifest, early, &limits, &mut log).unwrap();
    exchange.receive(Kind::Manifest, early, &limits, &mut log).unwrap();
    let error = exchange.receive(Kind::Manifest, early, &limits, &mut log).unwrap_err();
    assert_eq!(error, SessionError::limit("manifest_fields_bytes", 32));
}

#[test]
fn bad_lists() {
    let text = |entry: &str| format!(r#"["{}",{entry}]"#, key(1));
    for entry in
        ["null", "5", "\"\"", "\"ab\"", "[]", "{}", "true", &format!("\"{}x\"", &key(1).to_string()[1..]), "\"é\""]
    {
        let list = text(entry);
        let expected = ExchangeError::Key(Kind::Request.name());
        assert_eq!(keys_of(Kind::Request, list.as_bytes(), 10), Err(expected.into()), "{entry}");
        let manifest = format!("{{\"keys\":{list}}}");
        let expected = ExchangeError::Key(Kind::Manifest.name());
        assert_eq!(keys_of(Kind::Manifest, manifest.as_bytes(), 10), Err(expected.into()), "{entry}");
    }
    for body in
        ["", "null", "{}", "[", "[]]", "[\"ab", "{\"keys\":[\"ab", "{\"keys\":null}", "{\"keys\":{}}", "\"x\"", "\u{0}"]
    {
        for kind in [Kind::Manifest, Kind::Request, Kind::Replicate] {
            assert_eq!(keys_of(kind, body.as_bytes(), 10), Err(ExchangeError::Json(kind.name()).into()), "{body}");
        }
    }
    // Deeper than serde_json goes: an error, not a stack that overflows.
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(keys_of(Kind::Manifest, deep.as_bytes(), 10).is_err());
    let many = list(&[key(1), key(2), key(3)]);
    assert_eq!(keys_of(Kind::Request, &many, 2), Err(SessionError::limit("manifest_keys", 2)));
}

proptest! {
    #[test]
    fn lists_round_trip(keys in prop::collection::btree_set(any::<[u8; 32]>(), 0..20)) {
        let keys: Vec<_> = keys.into_iter().map(FeedKey::new).collect();
        for kind in [Kind::Manifest, Kind::Request] {
            let mut out = bytes::BytesMut::new();
            let mut expected = 0;
            put_keys(kind, &keys, None, &mut out, |_, len| expected = len);
            prop_assert_eq!(out.len(), expected);
            prop_assert_eq!(keys_of(kind, &out, 20), Ok(keys.clone()));
        }
    }

    #[test]
    fn any_json_text_is_read_or_refused(body in ".{0,80}") {
        let _ = keys_of(Kind::Manifest, body.as_bytes(), 4);
        let _ = keys_of(Kind::Request, body.as_bytes(), 4);
        let _ = parse(&body);
    }
}

#[test]
fn a_request_is_cut_to_what_was_offered() {
    let (mut exchange, mut log) = ready();
    exchange.offer(&[key(3), key(1)], None, &mut log);
    exchange.request(&[key(9)], &mut log);
    receive(&mut exchange, &mut log, Kind::Request, &list(&[key(3), key(2), key(1), key(3)])).unwrap();
    let cut = vec![key(1), key(3)];
    assert_eq!(
        log.sent,
        [(Kind::Manifest, vec![key(3), key(1)]), (Kind::Request, vec![key(9)]), (Kind::Replicate, cut.clone())]
    );
    assert_eq!(log.events, [Event::Replicate { root: Root::FIRST, keys: cut, origin: Origin::Local }]);
}

#[test]
fn a_replicate_is_cut_to_what_was_requested_and_told_also_when_empty() {
    let (mut exchange, mut log) = ready();
    exchange.request(&[key(2), key(1)], &mut log);
    receive(&mut exchange, &mut log, Kind::Replicate, &list(&[key(5), key(2)])).unwrap();
    receive(&mut exchange, &mut log, Kind::Replicate, b"[]").unwrap();
    assert_eq!(
        log.events,
        [
            Event::Replicate { root: Root::FIRST, keys: vec![key(2)], origin: Origin::Remote },
            Event::Replicate { root: Root::FIRST, keys: vec![], origin: Origin::Remote }
        ]
    );
}

#[test]
fn an_empty_answer_waits_for_our_own_request() {
    let (mut exchange, mut log) = ready();
    exchange.offer(&[], None, &mut log);
    receive(&mut exchange, &mut log, Kind::Request, b"[]").unwrap();
    assert_eq!(log.sent, [(Kind::Manifest, vec![])]);
    exchange.request(&[], &mut log);
    assert_eq!(log.sent[1..], [(Kind::Request, vec![]), (Kind::Replicate, vec![])]);
    receive(&mut exchange, &mut log, Kind::Request, b"[]").unwrap();
    assert_eq!(log.sent[3..], [(Kind::Replicate, vec![])]);
}

#[test]
fn lists_before_the_handshake_come_after_ready() {
    let (mut exchange, mut log) = (Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY)), Log::default());
    exchange.offer(&[key(1)], None, &mut log);
    receive(&mut exchange, &mut log, Kind::Manifest, &manifest(&[key(2)])).unwrap();
    receive(&mut exchange, &mut log, Kind::Request, &list(&[key(1)])).unwrap();
    receive(&mut exchange, &mut log, Kind::Handshake, HANDSHAKE).unwrap();
    assert!(log.events.is_empty() && log.sent.is_empty() && !exchange.is_ready());
    exchange.verified(&mut log);
    assert_eq!(log.handshakes, 1);
    assert_eq!(log.sent, [(Kind::Manifest, vec![key(1)]), (Kind::Replicate, vec![key(1)])]);
    assert!(matches!(
        log.events[..],
        [Event::Ready { .. }, Event::Manifest { .. }, Event::Replicate { origin: Origin::Local, .. }]
    ));
}

#[test]
fn a_second_handshake_is_checked_and_means_nothing() {
    let (mut exchange, mut log) = ready();
    receive(&mut exchange, &mut log, Kind::Handshake, HANDSHAKE).unwrap();
    assert!(log.events.is_empty());
    let error = receive(&mut exchange, &mut log, Kind::Handshake, br#"{"version":"5.0.0"}"#).unwrap_err();
    assert_eq!(error.code(), "ERR_VERSION_MISMATCH");
}

#[test]
fn bounds() {
    let mut limits =
        Limits { offers_total: 4, handshake_bytes: HANDSHAKE.len(), early_messages: 2, ..Limits::default() };
    let (mut exchange, mut log) = ready();
    for n in 0..3 {
        let result = exchange.receive(Kind::Manifest, &manifest(&[key(1), key(2)]), &limits, &mut log);
        assert_eq!(result.is_ok(), n < 2);
    }
    let long = [HANDSHAKE, b" "].concat();
    assert_eq!(exchange.receive(Kind::Handshake, HANDSHAKE, &limits, &mut log), Ok(()));
    let too_long = exchange.receive(Kind::Handshake, &long, &limits, &mut log);
    assert_eq!(too_long, Err(SessionError::limit("handshake_bytes", HANDSHAKE.len())));

    let mut early = Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY));
    for n in 0..3 {
        assert_eq!(early.receive(Kind::Request, b"[]", &limits, &mut log).is_ok(), n < 2);
    }
    limits.manifest_keys = 2;
    let mut early = Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY));
    for n in 0..2 {
        let two = list(&[key(1), key(2)]);
        assert_eq!(early.receive(Kind::Request, &two, &limits, &mut log).is_ok(), n < 1);
    }
}

#[test]
fn long_lists_go_out_in_parts() {
    let (mut exchange, mut log) = ready();
    let keys: Vec<_> = (0..KEYS_IN_MESSAGE as u32 + 1)
        .map(|n| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            FeedKey::new(bytes)
        })
        .collect();
    exchange.offer(&keys, None, &mut log);
    assert_eq!(log.sent.iter().map(|(_, keys)| keys.len()).collect::<Vec<_>>(), [KEYS_IN_MESSAGE, 1]);
}

#[test]
fn a_corestore_multifeed_gets_no_empty_lists() {
    for (handshake, shy) in [(r#"{"client":"MULTIFEED","version":"4.0.0"}"#, true), (HANDSHAKE_TEXT, false)] {
        let mut log = Log { on_channel: true, ..Log::default() };
        let mut exchange = Exchange::new(Root::FIRST, RootConfig::new(DEFAULT_ROOT_KEY));
        exchange.verified(&mut log);
        receive(&mut exchange, &mut log, Kind::Handshake, handshake.as_bytes()).unwrap();
        let [Event::Ready { remote, .. }] = &log.events[..] else { panic!() };
        assert_eq!(remote.live, Some(true), "it is, and does not say so");
        log.events.clear();
        exchange.offer(&[], None, &mut log);
        exchange.request(&[], &mut log);
        receive(&mut exchange, &mut log, Kind::Request, b"[]").unwrap();
        exchange.request(&[key(1)], &mut log);
        let told = |origin| Event::Replicate { root: Root::FIRST, keys: vec![], origin };
        if shy {
            assert_eq!(log.sent, [(Kind::Manifest, vec![]), (Kind::Request, vec![key(1)])]);
            assert_eq!(log.events, [told(Origin::Remote), told(Origin::Local)]);
        } else {
            let kinds = [Kind::Manifest, Kind::Request, Kind::Replicate, Kind::Request];
            assert_eq!(log.sent.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), kinds);
            assert_eq!(log.events, [told(Origin::Local)]);
        }
    }
}
