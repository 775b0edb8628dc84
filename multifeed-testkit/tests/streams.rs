//! A session by itself against real JS peers: several multifeeds on one stream, extensions of the application's own, a stream that
//! a multifeed joins later, a remote that is judged by its key. Blocking code on loopback sockets.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use multifeed_proto::{
    Config, DEFAULT_ROOT_KEY, Event, FeedKey, Json, Message, Request, Role, Root, RootConfig, Scope, Session, Token,
};
use multifeed_testkit::js::{JsPeer, TIMEOUT};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

const ROLES: [Role; 2] = [Role::Initiator, Role::Responder];

/// A session on a socket.
struct Stream {
    session: Session,
    socket: TcpStream,
    start: Instant,
    events: Vec<Event>,
}

impl Stream {
    /// Joins a JS peer, which takes the other role.
    fn join(js: &mut JsPeer, role: Role, config: Config) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let socket = match role {
            Role::Initiator => {
                let reply = js.call(json!({"cmd": "listen", "address": "127.0.0.1:0"}))?;
                TcpStream::connect(reply["address"].as_str().context("no address")?)?
            }
            Role::Responder => {
                js.connect(listener.local_addr()?)?;
                listener.accept()?.0
            }
        };
        socket.set_read_timeout(Some(Duration::from_millis(5)))?;
        socket.set_nodelay(true)?;
        let session = Session::new(role, config, Duration::ZERO, &mut StdRng::seed_from_u64(7));
        Ok(Self { session, socket, start: Instant::now(), events: Vec::new() })
    }

    /// Goes on until an event reports what is waited for. Events that came before count too.
    fn until(&mut self, what: &str, is_it: impl Fn(&Event) -> bool) -> Result<Event> {
        let late = Instant::now() + TIMEOUT;
        loop {
            if let Some(event) = self.events.iter().find(|event| is_it(event)) {
                return Ok(event.clone());
            }
            ensure!(Instant::now() < late, "{what} did not come: {:?}", self.events);
            self.turn()?;
        }
    }

    fn run(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<()> {
        let now = self.start.elapsed();
        self.session.handle_timeout(now);
        let mut out = bytes::BytesMut::new();
        if self.session.poll_output(&mut out) {
            self.socket.write_all(&out)?;
        }
        if let Some(buf) = self.session.recv_buf() {
            let mut bytes = [0; 65536];
            match self.socket.read(&mut bytes) {
                Ok(0) => self.session.handle_eof(),
                Ok(len) => buf.extend_from_slice(&bytes[..len]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => bail!(error),
            }
            let _ = self.session.handle_input(now);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
        Ok(())
    }

    fn ready(&mut self, root: Root) -> Result<()> {
        self.until("Ready", |event| matches!(event, Event::Ready { root: at, .. } if *at == root)).map(drop)
    }

    /// The feeds that the remote offers, once it does.
    fn manifest(&mut self, root: Root) -> Result<Vec<FeedKey>> {
        let is_it =
            |event: &Event| matches!(event, Event::Manifest { root: at, keys, .. } if *at == root && !keys.is_empty());
        match self.until("Manifest", is_it)? {
            Event::Manifest { keys, .. } => Ok(keys),
            other => bail!("{other:?}"),
        }
    }

    /// Requests a feed and asks for its first block, whose bytes come back.
    fn first_block(&mut self, root: Root, token: Token, key: FeedKey) -> Result<Vec<u8>> {
        self.session.request_feeds(root, &[key]).unwrap();
        self.until(
            "Replicate",
            |event| matches!(event, Event::Replicate { root: at, keys, .. } if *at == root && keys.contains(&key)),
        )?;
        self.session.open_channel(token, key).unwrap();
        self.until("Opened", |event| *event == Event::Opened { token })?;
        self.session.send(token, &Message::Request(Request { index: 0, bytes: 0, hash: false, nodes: 0 }));
        let is_it =
            |event: &Event| matches!(event, Event::Message { token: at, message: Message::Data(_) } if *at == token);
        match self.until("Data", is_it)? {
            Event::Message { message: Message::Data(data), .. } => Ok(data.value.context("no value")?.to_vec()),
            other => bail!("{other:?}"),
        }
    }

    fn is_closed(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Closed(_) | Event::RemoteEnded))
    }
}

/// Appends a block to a writer of a JS multifeed; the writer's key.
fn write(js: &mut JsPeer, root: FeedKey, name: &str, text: &str) -> Result<FeedKey> {
    let root = root.to_string();
    let writer = js.call(json!({"cmd": "writer", "name": name, "key": root}))?;
    js.call(json!({"cmd": "append", "name": name, "key": root, "blocks": [STANDARD.encode(text)]}))?;
    Ok(writer["key"].as_str().context("no key")?.parse()?)
}

#[test]
fn several_multifeeds_with_corestore_multifeed() -> Result<()> {
    for role in ROLES {
        // Ours first, theirs first, and the same order; one that only we have in front, or behind.
        for ours in [vec![1, 2, 3], vec![2, 1], vec![9, 3, 1], vec![2, 9]] {
            several(role, &ours).with_context(|| format!("{role:?} {ours:?}"))?;
        }
    }
    Ok(())
}

fn several(role: Role, ours: &[u8]) -> Result<()> {
    let key = |n: u8| FeedKey::new([n; 32]);
    let theirs = [1, 2, 3];
    let keys = theirs.map(|n| key(n).to_string());
    let mut js = JsPeer::spawn(&["--corestore", "--key", &keys[0], "--key", &keys[1], "--key", &keys[2]])?;
    let mut writers = BTreeMap::new();
    for n in theirs {
        // A writer of one name in each: they are not the same.
        writers.insert(n, write(&mut js, key(n), "writer", &format!("a block of {n}"))?);
    }
    let mut config = Config::new(key(ours[0]));
    config.handshake_timeout = Some(Duration::from_secs(3));
    let mut stream = Stream::join(&mut js, role, config)?;
    for (at, n) in (0..).zip(ours).skip(1) {
        stream.session.open_root(Root(at), RootConfig::new(key(*n))).unwrap();
    }
    for (at, n) in (0..).zip(ours) {
        let root = Root(at);
        let Some(writer) = writers.get(n) else { continue };
        stream.ready(root)?;
        stream.session.offer_feeds(root, &[]).unwrap();
        ensure!(stream.manifest(root)? == [*writer], "the manifest of {n}: {:?}", stream.events);
        let block = stream.first_block(root, Token(at.into()), *writer)?;
        ensure!(block == format!("a block of {n}").as_bytes(), "{block:?}");
    }
    // What only we have ends by itself.
    stream.run(Duration::from_millis(3500).saturating_sub(stream.start.elapsed()))?;
    for (at, n) in (0..).zip(ours) {
        let closed = stream
            .events
            .iter()
            .any(|event| matches!(event, Event::RootClosed { root: Root(root), error: Some(_) } if *root == at));
        ensure!(closed != writers.contains_key(n), "{n}: {:?}", stream.events);
    }
    // A writer that comes now is offered, to its own multifeed.
    let late = write(&mut js, key(ours[1]), "late", "x");
    if writers.contains_key(&ours[1]) {
        let late = late?;
        let is_it = |event: &Event| *event == Event::Manifest { root: Root(1), keys: vec![late], fields: None };
        stream.until("the late writer", is_it)?;
    }
    ensure!(!stream.is_closed(), "{:?}", stream.events);
    js.close()
}

/// The extension and the value that Cabal sends.
#[test]
fn peer_id_with_multifeed_6() -> Result<()> {
    for role in ROLES {
        let mut js = JsPeer::spawn(&["--live", "--extension", "peer-id"])?;
        let mut stream = Stream::join(&mut js, role, Config::default())?;
        stream.session.register_extension(Scope::Stream, "peer-id").unwrap();
        let ours = Json::new(r#"{"id":"ours"}"#).context("JSON")?;
        stream.session.send_extension(Scope::Stream, "peer-id", ours.as_str().as_bytes()).unwrap();
        stream.ready(Root::FIRST)?;
        ensure!(stream.session.remote_speaks(Scope::Stream, "peer-id"), "it says so in its Options");
        stream.run(Duration::from_millis(50))?;
        let heard = js.event("extension")?;
        ensure!(heard["name"] == "peer-id" && heard["data"] == STANDARD.encode(ours.as_str()), "{heard}");

        let theirs = r#"{"id":"theirs"}"#;
        js.call(json!({"cmd": "extension", "name": "peer-id", "data": STANDARD.encode(theirs)}))?;
        let event = stream.until("Extension", |event| matches!(event, Event::Extension { .. }))?;
        let Event::Extension { scope: Scope::Stream, name, body } = event else { bail!("{event:?}") };
        ensure!(&*name == "peer-id" && Json::from_bytes(&body) == Json::new(theirs), "{body:?}");
        ensure!(!stream.is_closed(), "{:?}", stream.events);
        js.close()?;
    }
    Ok(())
}

#[test]
fn an_extension_on_a_feeds_channel() -> Result<()> {
    for role in ROLES {
        for dialect in ["--live", "--corestore"] {
            let mut js = JsPeer::spawn(&[dialect, "--feed-extension", "typing"])?;
            let writer: FeedKey = js.append("writer", 1, 10, 1)?.parse()?;
            let mut stream = Stream::join(&mut js, role, Config::default())?;
            stream.ready(Root::FIRST)?;
            stream.session.offer_feeds(Root::FIRST, &[]).unwrap();
            ensure!(stream.manifest(Root::FIRST)? == [writer], "{:?}", stream.events);
            stream.session.request_feeds(Root::FIRST, &[writer]).unwrap();
            stream
                .until("Replicate", |event| matches!(event, Event::Replicate { keys, .. } if keys.contains(&writer)))?;
            let scope = Scope::Channel(Token(4));
            stream.session.open_channel(Token(4), writer).unwrap();
            stream.session.register_extension(scope, "typing").unwrap();
            stream.until("Opened", |event| *event == Event::Opened { token: Token(4) })?;
            stream.session.send_extension(scope, "typing", b"\x00bytes").unwrap();
            let is_options = |event: &Event| matches!(event, Event::Message { message: Message::Options(_), .. });
            stream.until("Options", is_options)?;
            ensure!(stream.session.remote_speaks(scope, "typing"), "it says so in its Options");
            stream.run(Duration::from_millis(50))?;
            let heard = js.event("feed-extension")?;
            ensure!(heard["name"] == "typing" && heard["data"] == STANDARD.encode(b"\x00bytes"), "{heard}");
            js.call(json!({"cmd": "feed-extension", "key": writer.to_string(), "name": "typing", "data": STANDARD.encode("hi")}))?;
            let event = stream.until("Extension", |event| matches!(event, Event::Extension { .. }))?;
            let Event::Extension { scope: at, name, body } = event else { bail!("{event:?}") };
            ensure!(at == scope && &*name == "typing" && &body[..] == b"hi", "{body:?}");
            js.close()?;
        }
    }
    Ok(())
}

#[test]
fn a_multifeed_joins_a_stream_that_runs() -> Result<()> {
    for role in ROLES {
        let mut js = JsPeer::spawn(&["--live"])?;
        let writer: FeedKey = js.append("writer", 1, 10, 1)?.parse()?;
        let mut stream = Stream::join(&mut js, role, Config::plain())?;
        let root = DEFAULT_ROOT_KEY.discovery_key();
        stream.until("Discovered", |event| *event == Event::Discovered { discovery_key: root })?;
        ensure!(!stream.events.iter().any(|event| matches!(event, Event::Ready { .. })), "{:?}", stream.events);
        stream.session.open_root(Root(5), RootConfig::new(DEFAULT_ROOT_KEY)).unwrap();
        stream.ready(Root(5))?;
        stream.session.offer_feeds(Root(5), &[]).unwrap();
        ensure!(stream.manifest(Root(5))? == [writer], "{:?}", stream.events);
        ensure!(stream.first_block(Root(5), Token(0), writer)?.len() == 10);
        js.close()?;
    }
    Ok(())
}

#[test]
fn a_remote_is_judged_by_its_key() -> Result<()> {
    for role in ROLES {
        for accepted in [true, false] {
            let mut js = JsPeer::spawn(&["--live"])?;
            let mut config = Config::default();
            config.authenticate = true;
            let mut stream = Stream::join(&mut js, role, config)?;
            stream.until("Connected", |event| matches!(event, Event::Connected { .. }))?;
            stream.run(Duration::from_millis(200))?;
            ensure!(stream.events.len() == 1, "{:?}", stream.events);
            if accepted {
                stream.session.accept().unwrap();
                stream.ready(Root::FIRST)?;
            } else {
                stream.session.refuse().unwrap();
                stream.until(
                    "Closed",
                    |event| matches!(event, Event::Closed(Err(error)) if error.code() == "ERR_REFUSED"),
                )?;
                drop(stream);
                js.event("ended")?;
            }
            js.close()?;
        }
    }
    Ok(())
}
