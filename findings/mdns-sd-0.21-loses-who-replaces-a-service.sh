#!/usr/bin/env bash
# What: an mDNS responder takes back one service and registers another one on the same host name at once. In some of the runs a
#   listener of the same crate never reports the new one as resolved, though it asks and is answered: the goodbye let the host's address end
#   a second later, the new service's first announcement leaves the address out (it was sent less than a second before), and the second one
#   renews it shortly before it ends, which wakes nobody. With a host name for each service it is resolved at once.
# Seen: mdns-sd 0.21.7, Rust 1.95, Linux; November 2026: 3 of 10 never resolved within 30 s on the same host, 0 of 10 on another.
set -euo pipefail
command -v cargo >/dev/null || { echo 'needs cargo'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "replace"
version = "0.0.0"
edition = "2021"

[dependencies]
mdns-sd = "=0.21.7"
TOML
cat >src/main.rs <<'RS'
use mdns_sd::{IfKind, ServiceDaemon, ServiceEvent, ServiceInfo};
use std::thread;
use std::time::{Duration, Instant};

const TYPE: &str = "_replace._tcp.local.";
const PATIENCE: Duration = Duration::from_secs(30);
const RUNS: usize = 10;

fn daemon(port: u16) -> ServiceDaemon {
    let daemon = ServiceDaemon::new_with_port(port).unwrap();
    daemon.disable_interface(IfKind::All).unwrap();
    daemon.enable_interface(IfKind::LoopbackV4).unwrap();
    daemon
}

fn register(daemon: &ServiceDaemon, name: &str, host: &str) -> String {
    let mut service = ServiceInfo::new(TYPE, name, host, "127.0.0.1", 4000, &[("a", "b")][..]).unwrap();
    service.set_requires_probe(false);
    let fullname = service.get_fullname().to_owned();
    daemon.register(service).unwrap();
    fullname
}

/// Whether a listener that was there all the time reports the new service.
fn is_resolved(new_host: &str) -> bool {
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (listener, responder) = (daemon(port), daemon(port));
    let events = listener.browse(TYPE).unwrap();
    let until = |name: &str| {
        let begun = Instant::now();
        while let Some(left) = PATIENCE.checked_sub(begun.elapsed()) {
            match events.recv_timeout(left) {
                Ok(ServiceEvent::ServiceResolved(service)) if service.get_fullname() == name => return true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        false
    };
    let old = register(&responder, "old", "host.local.");
    assert!(until(&old), "the first service is not resolved");
    responder.unregister(&old).unwrap().recv().unwrap();
    let resolved = until(&register(&responder, "new", new_host));
    listener.shutdown().unwrap();
    responder.shutdown().unwrap();
    resolved
}

fn main() {
    let lost = |host: &'static str| {
        let runs: Vec<_> = (0..RUNS).map(|_| thread::spawn(move || is_resolved(host))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).filter(|resolved| !resolved).count()
    };
    let (same, other) = (lost("host.local."), lost("other.local."));
    println!("of {RUNS} never resolved: {same} on the same host, {other} on another");
    std::process::exit(if same > 0 && other == 0 { 0 } else { 1 });
}
RS
cargo build --quiet >cargo.log 2>&1 || { cat cargo.log; exit 2; }
echo 'mdns-sd 0.21.7'
./target/debug/replace
