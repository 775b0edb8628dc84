//! Connecting to a peer, within a time.

use std::io;
use std::time::Duration;

use multifeed_swarm::tcp::Tuned;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects. The system itself would wait for minutes for an address that does not answer.
pub(super) async fn connect(address: &str, time: Duration) -> io::Result<Tuned> {
    match timeout(time, TcpStream::connect(address)).await {
        Ok(stream) => stream.map(Tuned::new),
        Err(_) => {
            let message = format!("no answer within {} s (--timeout)", time.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
    }
}
