//! Sockets on loopback, and a man in the middle who delays and cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// Two ends of a TCP connection, non-blocking, as runtimes want them.
pub fn pair() -> (TcpStream, TcpStream) {
    let (left, right) = blocking_pair();
    left.set_nonblocking(true).expect("a socket");
    right.set_nonblocking(true).expect("a socket");
    (left, right)
}

/// Two ends of a TCP connection, for threads.
pub(crate) fn blocking_pair() -> (TcpStream, TcpStream) {
    let listener = blocking_listener();
    let left = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (right, _) = listener.accept().expect("a connection");
    left.set_nodelay(true).expect("a socket");
    right.set_nodelay(true).expect("a socket");
    (left, right)
}

pub(crate) fn blocking_listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a port")
}

/// What lets bytes through, or holds them.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Holds all bytes from now on.
    pub fn shut(&self) {
        *self.shut_flag() = true;
    }

    /// Lets them through again.
    pub fn open(&self) {
        *self.shut_flag() = false;
        self.0.1.notify_all();
    }

    /// Waits while it is shut.
    pub(crate) fn pass(&self) {
        let shut = self.shut_flag();
        drop(self.0.1.wait_while(shut, |shut| *shut));
    }

    fn shut_flag(&self) -> std::sync::MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection through a thread for each direction.
#[derive(Debug)]
pub struct Proxy {
    /// Holds what goes from the left end to the right one.
    pub rightward: Gate,
    /// Holds what goes from the right end to the left one.
    pub leftward: Gate,
    passed: Arc<AtomicU64>,
}

impl Proxy {
    /// A connection whose both directions are cut once this many bytes went through in all.
    pub fn new(cut_after: u64) -> (TcpStream, Self, TcpStream) {
        let (left, left_inner) = blocking_pair();
        let (right_inner, right) = blocking_pair();
        left.set_nonblocking(true).expect("a socket");
        right.set_nonblocking(true).expect("a socket");
        let proxy = Self { rightward: Gate::default(), leftward: Gate::default(), passed: Arc::default() };
        proxy.carry(&left_inner, &right_inner, &proxy.rightward, cut_after);
        proxy.carry(&right_inner, &left_inner, &proxy.leftward, cut_after);
        (left, proxy, right)
    }

    /// Bytes that went through.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }

    fn carry(&self, from: &TcpStream, to: &TcpStream, gate: &Gate, cut_after: u64) {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        let (gate, passed) = (gate.clone(), self.passed.clone());
        thread::spawn(move || {
            let mut buf = [0; 16 * 1024];
            loop {
                gate.pass();
                let count = match from.read(&mut buf) {
                    Ok(count) if count > 0 => count,
                    _ => break,
                };
                gate.pass();
                if passed.fetch_add(count as u64, Ordering::AcqRel) + count as u64 > cut_after {
                    // A peer that vanishes says nothing more in either direction.
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                if to.write_all(&buf[..count]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
