// Writes multifeed-proto/tests/vectors/wire.json: a conversation between two sides of the real JS protocol with fixed keys, nonces and
// ephemeral keys, as the bytes that each sent. Run it as `node vectors/proto.js` in this folder's parent; the recorded file
// is what the Rust tests replay, so they need no node.
const fs = require('fs')
const path = require('path')
const sodium = require('sodium-universal')
const XSalsa20 = require('xsalsa20-universal')

const fill = (n, length = 32) => Buffer.alloc(length, n)
const hex = buf => Buffer.from(buf).toString('hex')

// What is drawn at random otherwise, in the order in which the sides are made.
const ephemerals = []
const nonces = []
const dh = require('noise-protocol/dh')
dh.generateKeypair = (pk, sk) => {
  ephemerals.shift().copy(sk)
  sodium.crypto_scalarmult_base(pk, sk)
}
const crypto = require('hypercore-crypto')
crypto.randomBytes = () => nonces.shift()
const Protocol = require('simple-hypercore-protocol')

const root = fill(0x11)
const feed = fill(0x22)
const names = ['MULTIFEED_HANDSHAKE', 'MULTIFEED_MANIFEST', 'MULTIFEED_REPLICATE_FEEDS', 'MULTIFEED_REQUEST_FEEDS']
const json = value => Buffer.from(JSON.stringify(value))
const node = n => ({ index: n, hash: fill(n), size: n * 1000 })

function side (n) {
  const secret = fill(n)
  const publicKey = Buffer.alloc(32)
  sodium.crypto_scalarmult_base(publicKey, secret)
  const recorded = { static_secret: hex(secret), static_public: hex(publicKey), ephemeral: hex(fill(n + 1)), nonce: hex(fill(n + 2, 24)), chunks: [] }
  return { secret, publicKey, ephemeral: fill(n + 1), nonce: fill(n + 2, 24), recorded, inbox: [] }
}

const initiator = side(0x31)
const responder = side(0x41)
for (const [role, us, them] of [['initiator', initiator, responder], ['responder', responder, initiator]]) {
  nonces.push(us.nonce)
  us.protocol = new Protocol(role === 'initiator', {
    keyPair: { publicKey: us.publicKey, secretKey: us.secret },
    send (data) {
      us.recorded.chunks.push(hex(data))
      them.inbox.push(Buffer.from(data))
      return true
    },
    destroy (err) {
      if (err) throw err
    }
  })
}

const turn = () => new Promise(resolve => setImmediate(resolve))

async function deliver () {
  for (let i = 0; i < 20; i++) {
    for (const side of [initiator, responder]) {
      while (side.inbox.length) side.protocol.recv(side.inbox.shift())
    }
    await turn()
  }
}

function speak ({ protocol, recorded }) {
  recorded.handshake_hash = hex(protocol.handshakeHash)
  recorded.tx = hex(protocol._split.tx.slice(0, 32))
  recorded.rx = hex(protocol._split.rx.slice(0, 32))
  recorded.capability = hex(protocol.capability(feed))
  recorded.handshake_chunks = recorded.chunks.length
  protocol.open(1, { key: root, discoveryKey: crypto.discoveryKey(root) })
  protocol.options(0, { extensions: names })
  protocol.extension(0, 0, json({ client: 'MULTIFEED', version: '4.0.0', live: false }))
  protocol.extension(0, 1, json({ keys: [hex(feed)] }))
  protocol.extension(0, 3, json([hex(feed)]))
  protocol.extension(0, 2, json([hex(feed)]))
  protocol.open(2, { key: feed, discoveryKey: crypto.discoveryKey(feed) })
  protocol.options(2, { extensions: ['a', 'b'], ack: true })
  protocol.options(2, { extensions: [], ack: false })
  protocol.status(2, { uploading: true, downloading: false })
  protocol.have(2, { start: 5 })
  protocol.have(2, { start: 8192, length: 8192, bitfield: Buffer.from([0x0b]) })
  protocol.have(2, { start: 7, length: 1, ack: true })
  protocol.have(2, { start: 10, length: 3 })
  protocol.have(2, { start: 0, length: 0, bitfield: Buffer.alloc(0) })
  protocol.unhave(2, { start: 1, length: 2 })
  protocol.want(2, { start: 0, length: 1048576 })
  protocol.unwant(2, { start: 8192, length: 8192 })
  protocol.request(2, { index: 300, bytes: 0, hash: false, nodes: 11 })
  protocol.request(2, { index: 0, bytes: 70000, hash: true, nodes: 0 })
  protocol.cancel(2, { index: 300, bytes: 0, hash: false })
  protocol.data(2, { index: 0, value: Buffer.alloc(0), nodes: [], signature: null })
  protocol.data(2, { index: 300, value: fill(0x55, 200), nodes: [node(2), node(200)], signature: fill(0x66, 64) })
  protocol.data(2, { index: 1, value: null, nodes: [node(5)], signature: null })
  protocol.extension(2, 1, Buffer.from('hello'))
  protocol.extension(2, 200, Buffer.alloc(0))
  protocol.close(2, {})
  protocol.close(1, {})
  protocol.close(3, { discoveryKey: crypto.discoveryKey(feed) })
}

async function main () {
  ephemerals.push(initiator.ephemeral, responder.ephemeral)
  await deliver()
  for (const side of [initiator, responder]) speak(side)
  await deliver()

  const cipher = new XSalsa20(fill(7, 24), fill(9))
  const stream = Buffer.alloc(333)
  for (const [from, to] of [[0, 1], [1, 64], [64, 70], [70, 256], [256, 333]]) cipher.update(stream.subarray(from, to), stream.subarray(from, to))

  const vectors = {
    root: hex(root),
    feed: hex(feed),
    discovery_key: hex(crypto.discoveryKey(feed)),
    initiator: initiator.recorded,
    responder: responder.recorded,
    xsalsa20: { key: hex(fill(9)), nonce: hex(fill(7, 24)), keystream: hex(stream) }
  }
  const file = path.join(__dirname, '../../multifeed-proto/tests/vectors/wire.json')
  fs.writeFileSync(file, JSON.stringify(vectors, null, 2) + '\n')
}

main()
