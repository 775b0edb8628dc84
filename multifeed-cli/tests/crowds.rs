//! `serve` among strangers by the hundred, that stay or come again and again: whether others get in.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::Store;
use multifeed_testkit::blocks::blocks;
use multifeed_testkit::strangers::resident;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A peer with a block of its own syncs, at its first try, and what that took.
fn honest_sync(address: SocketAddr, size: usize) -> Result<Duration> {
    let store = Store::new()?;
    store.append("honest", &blocks(1, size, 9))?;
    let start = Instant::now();
    store.sync(address, &[])?.ended(0)?;
    Ok(start.elapsed())
}

/// Connections from an address, each of which is made again as soon as it is ended, and says so many bytes of a handshake.
async fn keep_coming(from: &'static str, address: SocketAddr, count: usize, says: &'static [u8]) -> Result<()> {
    let mut strangers = tokio::task::JoinSet::new();
    for _ in 0..count {
        strangers.spawn(async move {
            loop {
                let socket = tokio::net::TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(from.parse()?, 0))?;
                let Ok(mut stream) = socket.connect(address).await else { continue };
                let _ = stream.write_all(says).await;
                // Until it is ended.
                while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            }
            #[expect(unreachable_code, reason = "the type of the task")]
            anyhow::Ok(())
        });
    }
    while let Some(ended) = strangers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Nobody waits behind those that say nothing, or come again and again; nor for long behind those of the own address that speak.
#[test]
fn strangers_that_come_again_and_again_keep_nobody_out() -> Result<()> {
    // The first bytes of a handshake, of which the rest never comes.
    let speaks: &[u8] = &[0x28, 0x0a];
    for (from, says) in [("127.0.0.2", &[][..]), ("127.0.0.1", &[][..]), ("127.0.0.2", speaks), ("127.0.0.1", speaks)] {
        let store = Store::new()?;
        store.append("rust", &blocks(3, 100, 1))?;
        let (server, address) = store.serve(&["--live"])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.spawn(keep_coming(from, address, 400, says));
        std::thread::sleep(Duration::from_secs(2));
        for _ in 0..3 {
            let took = honest_sync(address, 1000)?;
            eprintln!("400 from {from}, {} bytes each: an honest sync took {took:?}", says.len());
            // The machine may be busy. Behind those of the own address that speak, 400 wait for 128 places.
            let most = Duration::from_secs(if from == "127.0.0.1" && !says.is_empty() { 30 } else { 5 });
            ensure!(took < most, "400 from {from}, {} bytes each: {took:?}", says.len());
        }
        runtime.shutdown_background();
        server.signal("INT")?;
        server.ended(0)?;
    }
    Ok(())
}

/// 1,024 that connect and stay, with and without a word.
#[test]
fn a_thousand_idle_strangers_cost_little() -> Result<()> {
    let store = Store::new()?;
    let (server, address) = store.serve(&["--live"])?;
    let before = resident(server.id())?;
    let mut strangers: Vec<TcpStream> = (0..896).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    for _ in 0..128 {
        let mut stranger = TcpStream::connect(address)?;
        stranger.write_all(&[0x28, 0x0a])?;
        strangers.push(stranger);
    }
    std::thread::sleep(Duration::from_secs(1));
    let cost = resident(server.id())?.saturating_sub(before);
    eprintln!("1,024 idle strangers cost {cost} bytes");
    ensure!(cost < 50_000_000, "1,024 strangers cost {cost} bytes");
    let took = honest_sync(address, 1000)?;
    eprintln!("beside them an honest sync took {took:?}");
    ensure!(took < Duration::from_secs(5), "an honest sync took {took:?}");
    drop(strangers);
    server.signal("INT")?;
    server.ended(0)?;
    Ok(())
}

/// Says something and ends the connection, by a reset or not.
fn fail(address: SocketAddr, resets: bool) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[0x28, 0x0a])?;
    if resets {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// A peer that shares an address with those that failed is served at its first try, as soon as their connections have ended.
#[test]
fn connections_that_have_ended_keep_nobody_of_their_address_out() -> Result<()> {
    const THREADS: usize = 8;
    const EACH: usize = 375;
    for resets in [false, true] {
        let store = Store::new()?;
        store.append("rust", &blocks(3, 100, 1))?;
        let (server, address) = store.serve(&["--live"])?;
        let honest = Store::new()?;
        honest.append("honest", &blocks(1, 1000, 9))?;
        let connect = move || (0..EACH).try_for_each(|_| fail(address, resets));
        let threads: Vec<_> = (0..THREADS).map(|_| std::thread::spawn(connect)).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        let start = Instant::now();
        honest.sync(address, &[])?.ended(0)?;
        let took = start.elapsed();
        eprintln!("after 3,000 connections (by a reset: {resets}) an honest sync took {took:?}");
        server.signal("INT")?;
        server.ended(0)?;
    }
    Ok(())
}
