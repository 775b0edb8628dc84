//! The serving side of a handshake: a peer asks for a connection over the DHT, and then sends to the address in the answer.

use std::net::IpAddr;
use std::time::Duration;

use libudx::{UdxAsyncStream, UdxRuntime, UdxSocket, UdxStream};
use peeroxide_dht::hyperdht::{KeyPair, alloc_stream_id};
use peeroxide_dht::hyperdht_messages::{
    FIREWALL_UNKNOWN, HandshakeMessage, MODE_FROM_SERVER, MODE_REPLY, NoisePayload, SecretStreamInfo, UdxInfo,
    encode_handshake_to_bytes,
};
use peeroxide_dht::messages::Ipv4Peer;
use peeroxide_dht::noise::Keypair;
use peeroxide_dht::noise_wrap::{NoiseWrap, NoiseWrapResult};
use peeroxide_dht::secret_stream::SecretStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::Key;

/// How long a peer has to send something after the answer to its handshake.
const OPEN: Duration = Duration::from_secs(10);

/// When a datagram is sent towards a peer, so that a NAT on this side lets it in.
const KNOCKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(400), Duration::from_secs(1)];

/// A peer that was answered, and has not sent anything yet.
pub(super) struct Answered {
    noise: NoiseWrapResult,
    stream: UdxStream,
    address: oneshot::Receiver<IpAddr>,
    socket: UdxSocket,
    /// Its address as the node that passed on its handshake sees it.
    client: Option<Ipv4Peer>,
}

/// A peer that came.
pub(super) struct Came {
    pub(super) stream: SecretStream<UdxAsyncStream>,
    pub(super) socket: UdxSocket,
    pub(super) from: IpAddr,
}

/// Answers a handshake: the reply, and what waits for the peer. `None` refuses, as it does for whom `admits` does not let in.
pub(super) async fn answer(
    message: &HandshakeMessage,
    client: Option<Ipv4Peer>,
    key_pair: &KeyPair,
    own_addresses: Vec<Ipv4Peer>,
    udx: &UdxRuntime,
    socket: &UdxSocket,
    admits: impl FnOnce(&Key) -> bool,
) -> Option<(Vec<u8>, Answered)> {
    let own = Keypair { public_key: key_pair.public_key, secret_key: key_pair.secret_key };
    let mut noise = NoiseWrap::new_responder(own);
    let theirs = noise.recv(&message.noise).ok().filter(|theirs| theirs.error == 0 && theirs.version == 1)?;
    let remote_id = u32::try_from(theirs.udx?.id).ok()?;
    let id = alloc_stream_id();
    let ours = NoisePayload {
        version: 1,
        error: 0,
        firewall: FIREWALL_UNKNOWN,
        // Without it the peer sends to our address at once.
        holepunch: None,
        addresses4: own_addresses,
        addresses6: Vec::new(),
        udx: Some(UdxInfo { version: 1, reusable_socket: true, id: id.into(), seq: 0 }),
        secret_stream: Some(SecretStreamInfo { version: 1 }),
        relay_through: None,
        relay_addresses: None,
    };
    let reply = noise.send(&ours).ok()?;
    let noise = noise.finalize().ok()?;
    if noise.remote_public_key == key_pair.public_key || !admits(&noise.remote_public_key) {
        return None;
    }
    let mode = if client.is_some() { MODE_FROM_SERVER } else { MODE_REPLY };
    let reply = HandshakeMessage { mode, noise: reply, peer_address: client.clone(), relay_address: None };
    let reply = encode_handshake_to_bytes(&reply).ok()?;
    let stream = udx.create_stream(id).await.ok()?;
    let (comes_from, address) = oneshot::channel();
    // Only the peer's first packet shows its address. Nothing is written before.
    let hook = move |_: &UdxSocket, _, ip| comes_from.send(ip).is_ok();
    stream.set_firewall_hook(socket, remote_id, hook).ok()?;
    Some((reply, Answered { noise, stream, address, socket: socket.clone(), client }))
}

impl Answered {
    pub(super) fn key(&self) -> Key {
        self.noise.remote_public_key
    }

    /// Waits until the peer sends something, and opens the stream. `None` if it does not.
    pub(super) async fn open(self) -> Option<Came> {
        let Self { noise, stream, address, socket, client } = self;
        let client = client.and_then(|client| Some((client.host.parse::<IpAddr>().ok()?, client.port)));
        let knocking = async {
            if let Some(client) = client {
                for wait in KNOCKS {
                    sleep(wait).await;
                    let _ = socket.send_to(&[0], client.into());
                }
            }
            std::future::pending().await
        };
        let opening = async {
            let from = address.await.ok()?;
            let opened = SecretStream::from_session(
                noise.is_initiator,
                stream.into_async_stream(),
                noise.tx,
                noise.rx,
                noise.handshake_hash,
                noise.remote_public_key,
            );
            Some((opened.await.ok()?, from))
        };
        let opened = timeout(OPEN, async {
            tokio::select! {
                opened = opening => opened,
                () = knocking => None,
            }
        });
        let (stream, from) = opened.await.ok()??;
        Some(Came { stream, socket, from })
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn socket(udx: &UdxRuntime) -> UdxSocket {
        let socket = udx.create_socket().await.unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        socket
    }

    /// A handshake to `key` of one who has `from`, with this in it.
    fn handshake(from: &KeyPair, key: Key, change: impl FnOnce(&mut NoisePayload)) -> HandshakeMessage {
        let own = Keypair { public_key: from.public_key, secret_key: from.secret_key };
        let mut payload = NoisePayload {
            version: 1,
            error: 0,
            firewall: FIREWALL_UNKNOWN,
            holepunch: None,
            addresses4: Vec::new(),
            addresses6: Vec::new(),
            udx: Some(UdxInfo { version: 1, reusable_socket: true, id: 7, seq: 0 }),
            secret_stream: Some(SecretStreamInfo { version: 1 }),
            relay_through: None,
            relay_addresses: None,
        };
        change(&mut payload);
        let noise = NoiseWrap::new_initiator(own, key).send(&payload).unwrap();
        HandshakeMessage { mode: 0, noise, peer_address: None, relay_address: None }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_sends_nothing_after_the_answer_is_let_go() {
        let udx = UdxRuntime::new().unwrap();
        let (socket, own, peer) = (socket(&udx).await, KeyPair::generate(), KeyPair::generate());
        let message = handshake(&peer, own.public_key, |_| {});
        let answered = answer(&message, None, &own, Vec::new(), &udx, &socket, |_| true).await;
        let (_, answered) = answered.expect("it is let in");
        assert_eq!(answered.key(), peer.public_key);
        let begun = Instant::now();
        assert!(answered.open().await.is_none());
        assert_eq!(begun.elapsed().as_secs(), OPEN.as_secs());
    }

    #[tokio::test]
    async fn handshakes_that_are_none_and_strangers_are_refused() {
        let udx = UdxRuntime::new().unwrap();
        let (socket, own, peer) = (socket(&udx).await, KeyPair::generate(), KeyPair::generate());
        let to_own = |change: fn(&mut NoisePayload)| handshake(&peer, own.public_key, change);
        let mut altered = to_own(|_| {});
        altered.noise[40] ^= 1;
        let mut short = to_own(|_| {});
        short.noise.truncate(31);
        let cases = [
            ("altered", altered),
            ("short", short),
            ("to another key", handshake(&peer, peer.public_key, |_| {})),
            ("from our own key", handshake(&own, own.public_key, |_| {})),
            ("an error", to_own(|payload| payload.error = 1)),
            ("without a stream", to_own(|payload| payload.udx = None)),
            ("a stream of no number", to_own(|payload| payload.udx.as_mut().unwrap().id = 1 << 32)),
        ];
        for (what, message) in cases {
            let answered = answer(&message, None, &own, Vec::new(), &udx, &socket, |_| true).await;
            assert!(answered.is_none(), "{what}");
        }
        let message = to_own(|_| {});
        let answered = answer(&message, None, &own, Vec::new(), &udx, &socket, |key| *key != peer.public_key).await;
        assert!(answered.is_none(), "one who is not admitted");
    }
}
