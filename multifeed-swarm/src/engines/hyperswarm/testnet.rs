//! A DHT of this machine alone.

use std::net::{Ipv4Addr, SocketAddr};

use libudx::UdxRuntime;
use peeroxide_dht::hyperdht::{self, HyperDhtConfig};
use tokio::sync::oneshot;

use super::HyperswarmError;

/// A DHT on 127.0.0.1, for tests and demonstrations: its nodes are no peers of any topic. It ends when this is dropped.
#[derive(Debug)]
pub struct Testnet {
    bootstrap: Vec<SocketAddr>,
    end: Option<oneshot::Sender<()>>,
    over: Option<std::thread::JoinHandle<()>>,
}

impl Testnet {
    /// Starts `nodes` nodes; at least 3 are needed for peers to find each other, and 4 are safer. The first takes `port`; 0 takes a free one.
    ///
    /// # Errors
    /// [`HyperswarmError::Start`]: a port is taken, say.
    pub async fn start(nodes: usize, port: u16) -> Result<Self, HyperswarmError> {
        let (has_started, started) = oneshot::channel();
        let (end, ending) = oneshot::channel::<()>();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(has_started.send(Err(HyperswarmError::Start(error.to_string())))),
            };
            runtime.block_on(async {
                let started = run_nodes(nodes, port).await;
                if has_started.send(started).is_ok() {
                    let _ = ending.await;
                }
            });
        };
        let thread = std::thread::Builder::new().name("multifeed-testnet".to_owned()).spawn(run);
        let thread = thread.map_err(|error| HyperswarmError::Start(error.to_string()))?;
        let bootstrap = started.await.map_err(|_| HyperswarmError::Start("its thread ended".to_owned()))??;
        Ok(Self { bootstrap, end: Some(end), over: Some(thread) })
    }

    /// Returns the addresses of its nodes, for [`HyperswarmOptions::bootstrap`](crate::HyperswarmOptions::bootstrap): one is enough.
    pub fn bootstrap(&self) -> &[SocketAddr] {
        &self.bootstrap
    }
}

impl Drop for Testnet {
    fn drop(&mut self) {
        self.end.take();
        if let Some(over) = self.over.take() {
            let _ = over.join();
        }
    }
}

/// The addresses of the nodes, which run on in tasks of this runtime.
async fn run_nodes(nodes: usize, port: u16) -> Result<Vec<SocketAddr>, HyperswarmError> {
    let failed = |error: &dyn std::fmt::Display| HyperswarmError::Start(error.to_string());
    let udx = UdxRuntime::new().map_err(|error| failed(&error))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for _ in 0..nodes.max(1) {
        let mut config = HyperDhtConfig::default();
        config.dht.bootstrap = addresses.first().map(ToString::to_string).into_iter().collect();
        config.dht.host = Ipv4Addr::LOCALHOST.to_string();
        config.dht.port = if addresses.is_empty() { port } else { 0 };
        (config.dht.ephemeral, config.dht.firewalled) = (Some(false), false);
        let (_, dht, _) = hyperdht::spawn(&udx, config).await.map_err(|error| failed(&error))?;
        dht.bootstrapped().await.map_err(|error| failed(&error))?;
        let port = dht.local_port().await.map_err(|error| failed(&error))?;
        addresses.push((Ipv4Addr::LOCALHOST, port).into());
        // The node lives as long as its handle.
        tokio::spawn(async move {
            let _dht = dht;
            std::future::pending::<()>().await;
        });
    }
    Ok(addresses)
}
