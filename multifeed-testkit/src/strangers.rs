//! Connections that do the Noise handshake, begin a message and hold it: what anybody can do to a listener, or anybody who has the root key.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use multifeed_proto::{Config, Event, FeedKey, Role, Scope, Session};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// How long a connection may take to come as far as it should.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a listener that does not read is waited for.
const STUCK: Duration = Duration::from_secs(1);

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
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        let config = root_key.map_or_else(Config::plain, Config::new);
        let mut rng = StdRng::seed_from_u64(u64::from(stream.local_addr()?.port()));
        let mut session = Session::new(Role::Initiator, config, Duration::ZERO, &mut rng);
        session.register_extension(Scope::Stream, "hoard");
        let mut out = BytesMut::new();
        loop {
            let mut ready = false;
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Connected { .. } => ready |= root_key.is_none(),
                    Event::Ready { .. } => ready = true,
                    Event::Closed(result) => bail!("the session ended: {result:?}"),
                    _ => {}
                }
            }
            while session.poll_output(&mut out) {}
            stream.write_all(&out.split())?;
            if ready {
                break;
            }
            // The session waits a moment for the other side's Open; the time is that of this call.
            session.handle_timeout(start.elapsed());
            while session.poll_output(&mut out) {}
            stream.write_all(&out.split())?;
            let mut piece = [0; 4096];
            let wait = session.poll_timeout().map_or(PATIENCE, |due| due.saturating_sub(start.elapsed()));
            stream.set_read_timeout(Some(wait.clamp(Duration::from_millis(1), PATIENCE)))?;
            match stream.read(&mut piece) {
                Ok(0) => bail!("the listener ended the connection"),
                Ok(count) => {
                    session.recv_buf().context("no buffer")?.extend_from_slice(piece.get(..count).unwrap_or_default());
                    session.handle_input(start.elapsed())?;
                }
                Err(error) if is_wait(&error) && start.elapsed() < PATIENCE => {}
                Err(error) => return Err(error.into()),
            }
        }
        if size > 0 {
            session.send_extension(Scope::Stream, "hoard", &vec![7; size]);
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
/// If `/proc` does not tell.
pub fn resident(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
