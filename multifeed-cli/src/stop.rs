//! Ctrl-C and SIGTERM: the first asks for a clean end, a second one ends at once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

static ASKED_FOR: AtomicBool = AtomicBool::new(false);

/// Whether a signal has asked for the end.
pub(crate) fn was_asked_for() -> bool {
    ASKED_FOR.load(Ordering::Relaxed)
}

/// Which signal asked for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    /// Other systems have no such signal.
    #[cfg(unix)]
    Terminate,
}

impl Signal {
    /// The exit code that a shell gives to a program which the signal ended.
    pub(crate) fn exit(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            #[cfg(unix)]
            Signal::Terminate => 143,
        }
    }
}

/// Handles SIGXFSZ, which the system sends if a file may not grow any more (`ulimit -f`), and which ends a process that does not handle it.
/// Handled, the write fails instead, and is reported like any failure of the disk. Must be called on a runtime.
pub(crate) fn outlive_full_files() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays; nobody has to listen. If the system refuses, all is as it was.
        let _ = signal(SignalKind::from_raw(libc::SIGXFSZ));
    }
}

/// Says, any number of times, whether a signal asked for the end.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<Option<Signal>>);

impl Stop {
    /// One that hears no signal: after the first, which asks for a clean end, only a second one cuts that short.
    pub(crate) fn deaf() -> Self {
        Self(watch::channel(None).1)
    }

    /// Listens for the signals from now on.
    ///
    /// # Errors
    ///
    /// If the system refuses to.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(None);
        let mut signals = Signals::new()?;
        tokio::spawn(async move {
            let first = signals.next().await;
            ASKED_FOR.store(true, Ordering::Relaxed);
            sender.send_replace(Some(first));
            let second = signals.next().await;
            std::process::exit(second.exit().into());
        });
        Ok(Stop(receiver))
    }

    /// Waits for a signal.
    pub(crate) async fn wait(&mut self) -> Signal {
        let signal = self.0.wait_for(Option::is_some).await.ok().and_then(|signal| *signal);
        match signal {
            Some(signal) => signal,
            // The task that listens never ends before it sent one.
            None => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
