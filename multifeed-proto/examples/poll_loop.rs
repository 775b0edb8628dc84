//! 1,000 sessions on one thread: sockets that do not block, one loop over all of them, and one clock.
//!
//! `cargo run --release -p multifeed-proto --example poll_loop` joins 500 pairs over loopback. Of each pair one side offers a feed, the
//! other requests it, both open its channel, and 100 messages go over it. A real program would ask its operating system which sockets
//! are ready (mio, epoll) instead of trying each in turn; the session does not mind.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use multifeed_proto::{Config, Event, FeedKey, Have, Message, Role, Session, SessionError, Token};

/// What holds of every call here: it is no mistake after those before it.
const FITS: &str = "the call fits";

const PAIRS: usize = 500;
const MESSAGES: u64 = 100;

/// A socket and its session.
struct Peer {
    stream: TcpStream,
    session: Session,
    /// Taken from the session, and not written yet.
    out: BytesMut,
    /// The feed that this side offers.
    offers: Option<FeedKey>,
    received: u64,
    result: Option<Result<(), SessionError>>,
}

impl Peer {
    fn new(stream: TcpStream, role: Role, offers: Option<FeedKey>, now: Duration) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let session = Session::new(role, Config::default(), now, &mut rand::rng());
        Ok(Self { stream, session, out: BytesMut::new(), offers, received: 0, result: None })
    }

    /// Does what can be done without waiting. `false` if that was nothing.
    fn turn(&mut self, now: Duration, piece: &mut [u8]) -> bool {
        let mut moved = self.read(now, piece);
        if self.session.poll_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now);
            moved = true;
        }
        while let Some(event) = self.session.poll_event() {
            self.handle(event);
            moved = true;
        }
        moved | self.write()
    }

    fn read(&mut self, now: Duration, piece: &mut [u8]) -> bool {
        // None: it is paused, and what the remote sends waits in the socket.
        let Some(buf) = self.session.recv_buf() else { return false };
        match self.stream.read(piece) {
            Ok(0) => self.session.handle_eof(),
            Ok(len) => {
                buf.extend_from_slice(piece.get(..len).unwrap_or_default());
                // Event::Closed reports an error as well.
                let _ = self.session.handle_input(now);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => self.session.abort(SessionError::Network(error.to_string())),
        }
        true
    }

    fn write(&mut self) -> bool {
        if self.out.is_empty() && !self.session.poll_output(&mut self.out) {
            return false;
        }
        match self.stream.write(&self.out) {
            Ok(len) => {
                let _ = self.out.split_to(len);
                if self.is_done() {
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => {
                self.out.clear();
                self.session.abort(SessionError::Network(error.to_string()));
            }
        }
        true
    }

    fn is_done(&self) -> bool {
        self.out.is_empty() && self.session.output_finished()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ready { root, .. } => self.session.offer_feeds(root, self.offers.as_slice()).expect(FITS),
            Event::Manifest { root, keys, .. } => self.session.request_feeds(root, &keys).expect(FITS),
            Event::Replicate { keys, .. } => {
                if let Some(key) = keys.first() {
                    self.session.open_channel(Token(0), *key).expect(FITS);
                }
            }
            Event::Opened { token } if self.offers.is_some() => {
                for start in 0..MESSAGES {
                    let have = Have { start, length: 1, bitfield: None, ack: false };
                    self.session.send(token, &Message::Have(have));
                }
            }
            Event::Message { .. } => {
                self.received += 1;
                if self.received == MESSAGES {
                    self.session.finish();
                }
            }
            Event::RemoteEnded => self.session.finish(),
            Event::Closed(result) => {
                self.result = Some(result);
                if self.is_done() {
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
            }
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut peers = Vec::new();
    for n in 0..PAIRS {
        let connected = TcpStream::connect(listener.local_addr()?)?;
        let (accepted, _) = listener.accept()?;
        let mut feed = [0; 32];
        feed[..8].copy_from_slice(&n.to_be_bytes());
        peers.push(Peer::new(connected, Role::Initiator, None, start.elapsed())?);
        peers.push(Peer::new(accepted, Role::Responder, Some(FeedKey::new(feed)), start.elapsed())?);
    }
    let mut piece = vec![0; 64 * 1024];
    let mut left: Vec<_> = peers.iter_mut().collect();
    while !left.is_empty() {
        let mut moved = false;
        for peer in &mut left {
            moved |= peer.turn(start.elapsed(), &mut piece);
        }
        left.retain(|peer| peer.result.is_none() || !peer.is_done());
        if !moved {
            // Nothing is ready, and nothing due: until the next deadline at the latest, and not for long, as sockets do not tell.
            let due = left.iter().filter_map(|peer| peer.session.poll_timeout()).min().unwrap_or(Duration::MAX);
            thread::sleep(due.saturating_sub(start.elapsed()).min(Duration::from_millis(1)));
        }
    }
    let well = peers.iter().filter(|peer| matches!(peer.result, Some(Ok(())))).count();
    let messages: u64 = peers.iter().map(|peer| peer.received).sum();
    println!("{well} of {} sessions ended well, {messages} messages, {:?}", peers.len(), start.elapsed());
    if well == peers.len() { Ok(()) } else { Err("some sessions failed".into()) }
}
