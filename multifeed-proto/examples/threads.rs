//! A session on a socket of the standard library: one thread reads, one writes, and a lock is all that is between them.
//!
//! `cargo run -p multifeed-proto --example threads` joins two such peers over loopback. One offers a feed, the other requests it, both
//! open its channel, and the first sends a block (unsigned here: what a block is worth is not the protocol's business).

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use multifeed_proto::{Config, Data, Event, FeedKey, Message, Role, Session, SessionError, Token};

/// What holds of every call here: it is no mistake after those before it.
const FITS: &str = "the call fits";

/// What an application does with an event; it answers with calls on the session.
type Handler = Box<dyn FnMut(&mut Session, &Event) + Send>;

/// A peer's session, which two threads share.
struct Peer {
    session: Mutex<(Session, Handler)>,
    /// Something may be there to be written.
    changed: Condvar,
    stream: TcpStream,
    start: Instant,
}

impl Peer {
    fn new(stream: TcpStream, role: Role, handler: Handler) -> Arc<Self> {
        let session = Session::new(role, Config::default(), Duration::ZERO, &mut rand::rng());
        let (session, start) = (Mutex::new((session, handler)), Instant::now());
        Arc::new(Self { session, changed: Condvar::new(), stream, start })
    }

    fn lock(&self) -> MutexGuard<'_, (Session, Handler)> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the stream ends, and hands every event to the handler. This is the session's end.
    fn read(&self) -> Result<(), SessionError> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let received = (&self.stream).read(&mut piece);
            let mut guard = self.lock();
            let (session, handler) = &mut *guard;
            match received {
                Ok(0) => session.handle_eof(),
                Ok(len) => {
                    // Event::Closed reports an error as well.
                    if let Some(buf) = session.recv_buf() {
                        buf.extend_from_slice(piece.get(..len).unwrap_or_default());
                    }
                    let _ = session.handle_input(self.start.elapsed());
                }
                Err(error) => session.abort(SessionError::Network(error.to_string())),
            }
            while let Some(event) = session.poll_event() {
                handler(session, &event);
                if let Event::Closed(result) = event {
                    self.changed.notify_one();
                    return result;
                }
            }
            // The events are polled, so the session is paused at most until output is taken.
            self.changed.notify_one();
            while session_is_paused(&mut guard.0) {
                guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Writes what the session has to say, and wakes it in its time, until its last byte is out.
    fn write(&self) {
        let mut out = BytesMut::new();
        let mut guard = self.lock();
        loop {
            guard.0.handle_timeout(self.start.elapsed());
            if guard.0.poll_output(&mut out) {
                drop(guard);
                self.changed.notify_one();
                if let Err(error) = (&self.stream).write_all(&out) {
                    self.lock().0.abort(SessionError::Network(error.to_string()));
                }
                out.clear();
                guard = self.lock();
            } else if guard.0.output_finished() {
                // Wakes the reader too, if the session ended by itself.
                let _ = self.stream.shutdown(Shutdown::Both);
                return;
            } else {
                let wait = guard.0.poll_timeout().map(|at| at.saturating_sub(self.start.elapsed()));
                let waited = self.changed.wait_timeout(guard, wait.unwrap_or(Duration::MAX));
                guard = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn run(self: Arc<Self>) -> Result<(), SessionError> {
        let writer = thread::spawn({
            let peer = Arc::clone(&self);
            move || peer.write()
        });
        let result = self.read();
        let _ = writer.join();
        result
    }
}

fn session_is_paused(session: &mut Session) -> bool {
    session.recv_buf().is_none() && !session.output_finished() && session.send_credit() > 0
}

/// Offers a feed, and sends its one block to who opens it.
fn writer(feed: FeedKey) -> Handler {
    Box::new(move |session, event| match event {
        Event::Ready { root, remote } => {
            println!("writer: {} {} is there", remote.client, remote.version);
            session.offer_feeds(*root, &[feed]).expect(FITS);
        }
        // It offers nothing, and waits for our request nevertheless.
        Event::Manifest { root, .. } => session.request_feeds(*root, &[]).expect(FITS),
        Event::Replicate { keys, .. } if keys.contains(&feed) => session.open_channel(Token(0), feed).expect(FITS),
        Event::Opened { token } => {
            let value = Some(Bytes::from_static(b"the first block"));
            session.send(*token, &Message::Data(Data { index: 0, value, nodes: Vec::new(), signature: None }));
        }
        Event::RemoteEnded => session.finish(),
        _ => {}
    })
}

/// Requests what is offered, and ends when the first block is there.
fn reader() -> Handler {
    Box::new(move |session, event| match event {
        Event::Ready { root, .. } => session.offer_feeds(*root, &[]).expect(FITS),
        Event::Manifest { root, keys, .. } => {
            println!("reader: {} feeds are offered", keys.len());
            session.request_feeds(*root, keys).expect(FITS);
        }
        Event::Replicate { keys, .. } => {
            for (token, key) in (0..).zip(keys) {
                session.open_channel(Token(token), *key).expect(FITS);
            }
        }
        Event::Message { message: Message::Data(data), .. } => {
            println!("reader: block {}: {:?}", data.index, data.value);
            session.finish();
        }
        _ => {}
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let connected = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let reader = Peer::new(connected, Role::Initiator, reader());
    let writer = Peer::new(accepted, Role::Responder, writer(FeedKey::new([7; 32])));
    let writer = thread::spawn(move || writer.run());
    reader.run()?;
    writer.join().map_err(|_| "the writer's thread panicked")??;
    println!("both ended well");
    Ok(())
}
