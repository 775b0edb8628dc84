//! A link between two loopback ports with a bandwidth and a delay, for real peers: [`net`](crate::net) is the same on virtual time.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How both directions treat what is sent.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    /// Bytes a second.
    pub rate: u64,
    /// How long a piece is on its way after it has left.
    pub delay: Duration,
    /// Bytes that a direction holds, beside what the system's sockets do.
    pub buffer: usize,
}

/// The most bytes of a piece.
const LARGEST_PIECE: usize = 64 * 1024;

impl Throttle {
    /// So many bytes a second, without delay, and a buffer of 256 KiB.
    pub fn rate(rate: u64) -> Self {
        Self { rate, delay: Duration::ZERO, buffer: 256 * 1024 }
    }

    /// Listens on a loopback port, and carries each connection to `target`, as long as the process runs.
    ///
    /// # Errors
    ///
    /// There is no port.
    pub fn listen(self, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // One that cannot be carried ends, as it does if nobody listens.
                let _ = TcpStream::connect(target).and_then(|far| self.carry(&near, &far));
            }
        });
        Ok(address)
    }

    fn carry(self, near: &TcpStream, far: &TcpStream) -> io::Result<()> {
        for (from, to) in [(near, far), (far, near)] {
            to.set_nodelay(true)?;
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let piece = usize::try_from(self.rate / 20).unwrap_or(usize::MAX).clamp(1, LARGEST_PIECE);
            let (sender, receiver) = sync_channel((self.buffer / piece).max(1));
            thread::spawn(move || self.read(from, piece, &sender));
            thread::spawn(move || write(to, &receiver));
        }
        Ok(())
    }

    /// Takes bytes in, and says when each piece arrives. An empty one is the end.
    fn read(self, mut from: TcpStream, piece: usize, pieces: &SyncSender<(Instant, Vec<u8>)>) {
        let mut free = Instant::now();
        loop {
            let mut bytes = vec![0; piece];
            let count = from.read(&mut bytes).unwrap_or(0);
            bytes.truncate(count);
            free = free.max(Instant::now()) + Duration::from_secs_f64(count as f64 / self.rate as f64);
            if pieces.send((free + self.delay, bytes)).is_err() {
                // The other end is gone.
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
            if count == 0 {
                return;
            }
        }
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>) {
    for (arrives, bytes) in pieces {
        thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if bytes.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
        } else if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_its_bandwidth_and_its_delay() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Throttle { delay: Duration::from_millis(200), ..Throttle::rate(100_000) };
        let mut near = TcpStream::connect(link.listen(listener.local_addr()?)?)?;
        let (mut far, _) = listener.accept()?;
        let start = Instant::now();
        near.write_all(&[7; 50_000])?;
        near.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes)?;
        assert_eq!(bytes, [7; 50_000]);
        let time = start.elapsed();
        assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&time), "{time:?}");
        // The other direction goes on.
        far.write_all(b"back")?;
        drop(far);
        near.read_to_end(&mut bytes)?;
        assert_eq!(&bytes[50_000..], b"back");
        Ok(())
    }
}
