//! The Noise handshake: `Noise_XX_25519_ChaChaPoly_BLAKE2b`, each message with its length as a varint in front, each with
//! the sender's stream nonce as payload (simple-hypercore-protocol's `lib/handshake.js`).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use bytes::{Buf, BytesMut};
use rand_core::CryptoRng;
use snow::HandshakeState;
use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifierList, HandshakePattern, HashChoice,
    NoiseParams,
};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::capability::Split;
use crate::error::HandshakeError;
use crate::identity::{Role, StaticKeyPair};
use crate::key::{HandshakeHash, PeerKey};
use crate::wire::{message, schema, varint};

/// The longest handshake message that Noise allows.
const MESSAGE_MAX: usize = 65_535;

/// Bytes in front of the first message that are kept.
const PREFIX_MAX: usize = 64;

/// Bytes of what is no handshake that are looked at.
const START_MAX: usize = 4096;

/// Bytes of the responder's message, in multifeed 6 and in 5.
const SECOND_MESSAGE: usize = 122;

/// A handshake that is under way.
pub struct Handshake {
    noise: Box<HandshakeState>,
    role: Role,
    nonce: [u8; 24],
    /// From the last payload of the remote that was not empty.
    remote_nonce: Option<[u8; 24]>,
    /// Length of the message that is arriving, once known.
    length: Option<usize>,
    /// Messages of the remote's that were read.
    messages: u8,
    /// What was read of the stream in front of its first message: its length, and empty ones.
    prefix: Vec<u8>,
    /// Failed before, and stays so.
    broken: Option<HandshakeError>,
}

/// What a handshake ends in.
#[derive(Debug)]
pub struct Established {
    /// The remote's static key.
    pub remote_public_key: PeerKey,
    /// Noise's handshake hash.
    pub handshake_hash: HandshakeHash,
    /// The keys of the two directions.
    pub split: Split,
    /// The nonce of what we send.
    pub nonce: [u8; 24],
    /// The nonce of what the remote sends.
    pub remote_nonce: [u8; 24],
}

impl Handshake {
    /// Starts a handshake. Draws from `rng`, in this order: the static secret key (32 bytes) if none is given, the ephemeral
    /// one (32), the stream nonce (24).
    pub fn new(
        role: Role,
        static_key: Option<&StaticKeyPair>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, HandshakeError> {
        let mut secret = Zeroizing::new([0; 32]);
        match static_key {
            Some(pair) => secret.copy_from_slice(pair.secret_key()),
            None => rng.fill_bytes(&mut secret[..]),
        }
        let mut ephemeral = [0; 32];
        rng.fill_bytes(&mut ephemeral);
        let mut nonce = [0; 24];
        rng.fill_bytes(&mut nonce);
        let builder = snow::Builder::with_resolver(params(), Box::new(Resolver { ephemeral }))
            .local_private_key(&secret[..])
            .map_err(|_| HandshakeError::Decrypt)?;
        ephemeral.zeroize();
        let noise = match role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        };
        let noise = Box::new(noise.map_err(|_| HandshakeError::Decrypt)?);
        Ok(Self { noise, role, nonce, remote_nonce: None, length: None, messages: 0, prefix: Vec::new(), broken: None })
    }

    /// Sends what is due before anything arrived: the initiator's first message.
    pub fn start(&mut self, out: &mut BytesMut) -> Result<(), HandshakeError> {
        if self.role == Role::Initiator { self.write(out) } else { Ok(()) }
    }

    /// Takes handshake messages off the start of `input` and answers them in `out`. Once it is done, what is left in `input` is
    /// the ciphertext that follows.
    pub fn receive(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Established>, HandshakeError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let result = self.advance(input, out);
        self.broken = result.as_ref().err().copied();
        result
    }

    fn advance(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> Result<Option<Established>, HandshakeError> {
        loop {
            // JS reads nothing, neither a length nor a message, from fewer than three bytes.
            if input.len() < 3 {
                return Ok(None);
            }
            let Some(length) = self.length else {
                let (length, len) = varint::decode(input, 3)
                    .ok()
                    .flatten()
                    .and_then(|(length, len)| Some((usize::try_from(length).ok()?, len)))
                    .filter(|&(length, _)| length <= MESSAGE_MAX)
                    .ok_or(HandshakeError::TooLong)?;
                if self.messages == 0 && self.prefix.len() < PREFIX_MAX {
                    self.prefix.extend_from_slice(input.get(..len).unwrap_or_default());
                }
                input.advance(len);
                self.length = Some(length).filter(|&length| length > 0);
                continue;
            };
            if input.len() < length {
                return Ok(None);
            }
            let message = input.split_to(length);
            self.length = None;
            if let Err(error) = self.read(&message) {
                let is_old = error != HandshakeError::LowOrderKey && self.is_old_release(&message, input);
                return Err(if is_old { HandshakeError::OldRelease } else { error });
            }
            self.messages += 1;
            if !self.noise.is_handshake_finished() {
                self.write(out)?;
            }
            if self.noise.is_handshake_finished() {
                return self.finish().map(Some);
            }
        }
    }

    /// Whether the remote is an older release of npm multifeed, by a message that is not Noise's, or does not decrypt, and what follows it.
    fn is_old_release(&self, message: &[u8], rest: &[u8]) -> bool {
        if self.messages > 0 {
            return false;
        }
        let parts = self.prefix.iter().chain(message).chain(rest);
        let start: Vec<u8> = parts.copied().take(START_MAX).collect();
        let at = |offset: usize, bytes: &[u8]| start.get(offset..).is_some_and(|start| start.starts_with(bytes));
        // The Feed message of hypercore-protocol 6: a length, a header, and a discovery key of 32 bytes.
        let feed = |offset: usize| (1..3).any(|length| at(offset + length, &[0, 0x0a, 0x20]));
        // 3 and 4 begin with it. In 2 a JSON object stands before it, its length in four bytes; in 1 a list of keys, their number in two.
        let keys = start.first_chunk().map_or(0, |count| usize::from(u16::from_le_bytes(*count)));
        let is_1 = feed(2 + 32 * keys) || (keys > 0 && start.len() == 2 + 32 * keys);
        // 5 has messages of the same sizes, but other keys.
        let is_5 = self.role == Role::Initiator && message.len() == SECOND_MESSAGE;
        feed(0) || at(3, b"\0{\"") || is_1 || is_5
    }

    fn read(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        let mut payload = vec![0; message.len()];
        let len = self.noise.read_message(message, &mut payload).map_err(failure)?;
        payload.truncate(len);
        if !payload.is_empty() {
            // The first message is not authenticated, so that any garbage of the right length passes for one. JS looks at
            // payloads only when all is done, but its own are always sound. Here garbage is found out at once.
            let payload: schema::NoisePayload =
                message::parse("NoisePayload", &payload.into()).map_err(|_| HandshakeError::BadPayload)?;
            let nonce = payload.nonce.and_then(|nonce| nonce.as_slice().try_into().ok());
            self.remote_nonce = Some(nonce.ok_or(HandshakeError::BadPayload)?);
        }
        Ok(())
    }

    fn write(&mut self, out: &mut BytesMut) -> Result<(), HandshakeError> {
        let mut payload = BytesMut::with_capacity(26);
        message::put(&schema::NoisePayload { nonce: Some(self.nonce.to_vec()) }, &mut payload);
        // Two keys with a tag and a payload with a tag are the most that XX sends.
        let mut message = [0; 32 + 48 + 26 + 16];
        let len = self.noise.write_message(&payload, &mut message).map_err(failure)?;
        varint::encode(len as u64, out);
        out.extend_from_slice(message.get(..len).unwrap_or_default());
        Ok(())
    }

    fn finish(&mut self) -> Result<Established, HandshakeError> {
        let remote_nonce = self.remote_nonce.ok_or(HandshakeError::NoPayload)?;
        let remote_public_key = self.noise.get_remote_static().and_then(|key| key.try_into().ok()).map(PeerKey::new);
        let handshake_hash = self.noise.get_handshake_hash().try_into().map(HandshakeHash::new).ok();
        let (k1, k2) = self.noise.dangerously_get_raw_split();
        let split = match self.role {
            Role::Initiator => Split { tx: k1, rx: k2 },
            Role::Responder => Split { tx: k2, rx: k1 },
        };
        Ok(Established {
            remote_public_key: remote_public_key.ok_or(HandshakeError::Decrypt)?,
            handshake_hash: handshake_hash.ok_or(HandshakeError::Decrypt)?,
            split,
            nonce: self.nonce,
            remote_nonce,
        })
    }
}

impl core::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Handshake").field("role", &self.role).finish_non_exhaustive()
    }
}

fn failure(error: snow::Error) -> HandshakeError {
    match error {
        snow::Error::Dh => HandshakeError::LowOrderKey,
        _ => HandshakeError::Decrypt,
    }
}

fn params() -> NoiseParams {
    NoiseParams::new(
        String::from("Noise_XX_25519_ChaChaPoly_BLAKE2b"),
        BaseChoice::Noise,
        HandshakeChoice { pattern: HandshakePattern::XX, modifiers: HandshakeModifierList { list: vec![] } },
        DHChoice::Curve25519,
        CipherChoice::ChaChaPoly,
        HashChoice::Blake2b,
    )
}

/// snow's primitives, but with the one random value drawn beforehand, and a Diffie-Hellman that refuses an all-zero result,
/// as libsodium's does.
struct Resolver {
    ephemeral: [u8; 32],
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Drawn(Some(self.ephemeral))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        Some(Box::new(StrictDh(DefaultResolver.resolve_dh(choice)?)))
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.ephemeral.zeroize();
    }
}

/// Gives out the ephemeral secret, once.
struct Drawn(Option<[u8; 32]>);

impl Random for Drawn {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let mut secret = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != secret.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&secret);
        secret.zeroize();
        Ok(())
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

struct StrictDh(Box<dyn Dh>);

impl Dh for StrictDh {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn pub_len(&self) -> usize {
        self.0.pub_len()
    }

    fn priv_len(&self) -> usize {
        self.0.priv_len()
    }

    fn set(&mut self, privkey: &[u8]) {
        self.0.set(privkey);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        self.0.generate(rng)
    }

    fn pubkey(&self) -> &[u8] {
        self.0.pubkey()
    }

    fn privkey(&self) -> &[u8] {
        self.0.privkey()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.dh(pubkey, out)?;
        let secret = out.get(..32).ok_or(snow::Error::Dh)?;
        if bool::from(secret.ct_eq(&[0; 32])) { Err(snow::Error::Dh) } else { Ok(()) }
    }
}
