//! Connections that do the Noise handshake, begin a message and hold it: what anybody can do to a listener, or anybody who has the root key.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use multifeed_proto::{Config, Event, FeedKey, Message, Request, Role, Root, Scope, Session, Token};
use rand::SeedableRng;
use rand::rngs::StdRng;
use socket2::{Domain, Socket, Type};

/// How long a connection may take to come as far as it should.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a listener that does not read is waited for.
const STUCK: Duration = Duration::from_secs(1);

/// What holds of every call here: it is no mistake after those before it.
const FITS: &str = "the call fits";

/// A session with the root key, on a stream of its own.
struct Dialled {
    stream: TcpStream,
    session: Session,
    start: Instant,
    out: BytesMut,
}

impl Dialled {
    fn connect(from: Option<IpAddr>, address: SocketAddr, root_key: Option<FeedKey>) -> Result<Self> {
        let stream = connect_from(from, address)?;
        stream.set_nodelay(true)?;
        let config = root_key.map_or_else(Config::plain, Config::new);
        let mut rng = StdRng::seed_from_u64(u64::from(stream.local_addr()?.port()));
        let session = Session::new(Role::Initiator, config, Duration::ZERO, &mut rng);
        Ok(Self { stream, session, start: Instant::now(), out: BytesMut::new() })
    }

    fn flush(&mut self) -> Result<()> {
        while self.session.poll_output(&mut self.out) {}
        self.stream.write_all(&self.out.split())?;
        Ok(())
    }

    /// Runs the session until something is found among its events.
    fn until<T>(&mut self, mut find: impl FnMut(&mut Session, Event) -> Option<T>) -> Result<T> {
        loop {
            let mut found = None;
            while found.is_none()
                && let Some(event) = self.session.poll_event()
            {
                if let Event::Closed(result) = event {
                    bail!("the session ended: {result:?}");
                }
                found = find(&mut self.session, event);
            }
            self.flush()?;
            if let Some(found) = found {
                return Ok(found);
            }
            // The session waits a moment for the other side's Open; the time is that of this call.
            self.session.handle_timeout(self.start.elapsed());
            self.flush()?;
            let mut piece = [0; 4096];
            let wait = self.session.poll_timeout().map_or(PATIENCE, |due| due.saturating_sub(self.start.elapsed()));
            self.stream.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), PATIENCE)))?;
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("the listener ended the connection"),
                Ok(count) => {
                    let buf = self.session.recv_buf().context("no buffer")?;
                    buf.extend_from_slice(piece.get(..count).unwrap_or_default());
                    self.session.handle_input(self.start.elapsed())?;
                }
                Err(error) if is_wait(&error) && self.start.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects from an address of this machine's, such as any of 127.0.0.0/8 to itself.
fn connect_from(from: Option<IpAddr>, address: SocketAddr) -> Result<TcpStream> {
    let Some(from) = from else { return Ok(TcpStream::connect(address)?) };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// A peer that has the root key, asks for blocks, and reads nothing more.
#[derive(Debug)]
pub struct StuckReader {
    _stream: TcpStream,
}

impl StuckReader {
    /// Connects, from an address of this machine's, and asks for these blocks of the first feed that the listener offers, at once.
    ///
    /// # Errors
    /// If the listener offers no feed, or does not open its channel.
    pub fn connect(
        from: Option<IpAddr>,
        address: SocketAddr,
        root_key: FeedKey,
        blocks: std::ops::Range<u64>,
    ) -> Result<Self> {
        let mut dialled = Dialled::connect(from, address, Some(root_key))?;
        dialled.until(|session, event| {
            match event {
                Event::Ready { .. } => session.offer_feeds(Root::FIRST, &[]).expect(FITS),
                Event::Manifest { keys, .. } => {
                    session.request_feeds(Root::FIRST, keys.get(..1).unwrap_or_default()).expect(FITS)
                }
                Event::Replicate { keys, .. } => {
                    if let Some(key) = keys.first() {
                        session.open_channel(Token::new(Root::FIRST, 0), *key).expect(FITS);
                    }
                }
                Event::Opened { token } => {
                    for index in blocks.clone() {
                        session.send(token, &Message::Request(Request { index, ..Request::default() }));
                    }
                    return Some(());
                }
                _ => {}
            }
            None
        })?;
        Ok(Self { _stream: dialled.stream })
    }
}

/// A connection that sends a message and keeps the end of it back.
#[derive(Debug)]
pub struct Hoarder {
    stream: TcpStream,
    /// What was not sent of the message, encrypted.
    rest: BytesMut,
    sent: usize,
}

impl Hoarder {
    /// Connects, with or without the root key, and sends all but the last `kept` bytes of a message of `size` bytes, as far as the listener
    /// reads it. A listener that ends the connection in the middle of it is no error.
    ///
    /// # Errors
    /// If it does not come as far as the Noise handshake, or with a root key as far as multifeed's.
    pub fn connect(address: SocketAddr, root_key: Option<FeedKey>, size: usize, kept: usize) -> Result<Self> {
        Self::connect_from(None, address, root_key, size, kept)
    }

    /// As [`connect`](Self::connect), from an address of this machine's.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_from(
        from: Option<IpAddr>,
        address: SocketAddr,
        root_key: Option<FeedKey>,
        size: usize,
        kept: usize,
    ) -> Result<Self> {
        let mut dialled = Dialled::connect(from, address, root_key)?;
        dialled.session.register_extension(Scope::Stream, "hoard").expect(FITS);
        dialled.until(|_, event| match event {
            Event::Connected { .. } if root_key.is_none() => Some(()),
            Event::Ready { .. } => Some(()),
            _ => None,
        })?;
        let Dialled { stream, mut session, mut out, .. } = dialled;
        if size > 0 {
            session.send_extension(Scope::Stream, "hoard", &vec![7; size]).expect(FITS);
            while session.poll_output(&mut out) {}
        }
        let mut hoarder = Self { stream, rest: out, sent: 0 };
        let _ = hoarder.stream.set_write_timeout(Some(STUCK));
        let most = hoarder.rest.len().saturating_sub(kept);
        while hoarder.sent < most && hoarder.push(most - hoarder.sent) {}
        Ok(hoarder)
    }

    /// Sends up to so many bytes more of the message. False if the listener takes none.
    pub fn push(&mut self, bytes: usize) -> bool {
        let bytes = bytes.min(self.rest.len());
        match self.rest.get(..bytes).map(|piece| self.stream.write(piece)) {
            Some(Ok(count)) if count > 0 => {
                self.rest.advance(count);
                self.sent += count;
                true
            }
            _ => false,
        }
    }

    /// Bytes of the message that were sent.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// Whether the listener has not ended the connection.
    pub fn is_alive(&mut self) -> bool {
        let mut piece = [0; 4096];
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(1)));
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return is_wait(&error),
            }
        }
    }
}

fn is_wait(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The memory of a process that is resident, in bytes.
///
/// # Errors
/// If `/proc` does not say.
pub fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
