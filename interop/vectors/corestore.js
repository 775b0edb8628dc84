// Writes multifeed-proto/tests/vectors/corestore.json: conversations between two real corestore-multifeed peers with fixed keys,
// nonces and ephemeral keys, as the bytes that each sent, and as the messages in them. Run it as `node vectors/corestore.js` in this
// folder's parent; the recorded file is what the Rust tests replay, so they need no node.
const fs = require('fs')
const path = require('path')
const ram = require('random-access-memory')
const sodium = require('sodium-universal')
const XSalsa20 = require('xsalsa20-universal')
const { promise } = require('../lib')

const fill = (n, length = 32) => Buffer.alloc(length, n)
const hex = buf => Buffer.from(buf).toString('hex')

// Which block hypercore asks for first.
Math.random = () => 0

// What else is drawn at random, in the order in which the sides are made.
const ephemerals = []
const nonces = []
const dh = require('noise-protocol/dh')
dh.generateKeypair = (pk, sk) => {
  (ephemerals.shift() || fill(0x99)).copy(sk)
  sodium.crypto_scalarmult_base(pk, sk)
}
const crypto = require('hypercore-crypto')
crypto.randomBytes = (length) => length === 24 ? nonces.shift() : fill(0x99, length)
const Protocol = require('hypercore-protocol')
const corestoreMultifeed = require('@frando/corestore-multifeed')

// Noise's messages with their lengths in front; what follows them is encrypted.
const HANDSHAKE = { initiator: 59 + 91, responder: 123 }

/** A side with a multifeed for each root key, in this order, and `blocks` blocks by its own writer in each. */
async function side (n, roots, blocks, writer) {
  const secret = fill(n)
  const publicKey = Buffer.alloc(32)
  sodium.crypto_scalarmult_base(publicKey, secret)
  const corestore = corestoreMultifeed.defaultCorestore(() => ram(), { masterKey: fill(n + 3) })
  const feeds = []
  const multis = []
  for (const rootKey of roots) {
    const multi = corestoreMultifeed(corestore, { rootKey })
    await promise((cb) => multi.ready(cb))
    const feed = await promise((cb) => multi.writer(writer, {}, cb))
    for (let i = 0; i < blocks; i++) await promise((cb) => feed.append(`${writer} ${i}`, cb))
    feeds.push({ root: hex(rootKey), key: hex(feed.key), discovery_key: hex(feed.discoveryKey), blocks })
    multis.push(multi)
  }
  return { n, secret, publicKey, multis, feeds, ephemeral: fill(n + 1), nonce: fill(n + 2, 24), chunks: [] }
}

async function conversation (name, roots, { extension } = {}) {
  const sides = {
    initiator: await side(0x31, roots.initiator, 2, 'alice'),
    responder: await side(0x41, roots.responder, 1, 'bob')
  }
  const { initiator, responder } = sides
  ephemerals.push(initiator.ephemeral, responder.ephemeral)
  nonces.push(initiator.nonce, responder.nonce)
  for (const [role, us] of Object.entries(sides)) {
    us.stream = new Protocol(role === 'initiator', {
      live: true,
      timeout: false,
      keyPair: { publicKey: us.publicKey, secretKey: us.secret }
    })
  }
  for (const us of [initiator, responder]) {
    if (extension) us.extension = us.stream.registerExtension(extension, { encoding: 'json', onmessage: () => {} })
    for (const multi of us.multis) multi.replicate(us === initiator, { stream: us.stream, timeout: false })
  }
  for (const [us, them] of [[initiator, responder], [responder, initiator]]) {
    us.stream.on('error', (err) => { throw err })
    us.stream.on('data', (data) => {
      us.chunks.push(Buffer.from(data))
      them.stream.write(data)
    })
  }
  const blocks = (us) => us.multis.flatMap((multi) => multi.feeds()).reduce((sum, feed) => sum + feed.downloaded(), 0)
  const all = [initiator, responder].flatMap((us) => us.feeds)
    .filter((feed) => roots.initiator.concat(roots.responder).filter((root) => hex(root) === feed.root).length === 2)
  const wanted = all.reduce((sum, feed) => sum + feed.blocks, 0)
  const said = () => initiator.chunks.length + responder.chunks.length
  const until = Date.now() + 20000
  while (blocks(initiator) < wanted || blocks(responder) < wanted) {
    if (Date.now() > until) throw new Error(`${name}: ${blocks(initiator)} and ${blocks(responder)} blocks of ${wanted}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  if (extension) for (const us of [initiator, responder]) us.extension.send({ id: `side ${hex([us.n])}` })
  for (let before = -1; before < said();) {
    before = said()
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  return {
    name,
    initiator: record('initiator', initiator),
    responder: record('responder', responder)
  }
}

function record (role, us) {
  const { tx, rx } = us.stream.state._split
  const bytes = Buffer.concat(us.chunks)
  const clear = Buffer.from(bytes.subarray(HANDSHAKE[role]))
  new XSalsa20(us.nonce, tx.slice(0, 32)).update(clear, clear)
  return {
    roots: us.multis.map((multi) => hex(multi.key)),
    feeds: us.feeds,
    static_secret: hex(us.secret),
    static_public: hex(us.publicKey),
    ephemeral: hex(us.ephemeral),
    nonce: hex(us.nonce),
    handshake_hash: hex(us.stream.state.handshakeHash),
    tx: hex(tx.slice(0, 32)),
    rx: hex(rx.slice(0, 32)),
    chunks: us.chunks.map(hex),
    messages: messages(clear)
  }
}

/** The messages in the clear: channel, type, body; the id and the text of an extension's that is JSON. */
function messages (clear) {
  const all = []
  let at = 0
  const varint = () => {
    let value = 0
    for (let shift = 1; ; shift *= 128) {
      const byte = clear[at++]
      value += (byte & 0x7f) * shift
      if (byte < 0x80) return value
    }
  }
  while (at < clear.length) {
    const end = varint()
    if (end === 0) continue
    const stop = at + end
    const header = varint()
    const message = { channel: Math.floor(header / 16), type: header % 16, body: hex(clear.subarray(at, stop)) }
    if (message.type === 15) message.text = clear.subarray(at + 1, stop).toString()
    all.push(message)
    at = stop
  }
  if (at !== clear.length) throw new Error('a message that is not whole')
  return all
}

async function main () {
  const [one, two] = [fill(0x11), fill(0x12)]
  const conversations = [
    await conversation('one root key', { initiator: [one], responder: [one] }),
    await conversation('an extension of an application on channel 0', { initiator: [one], responder: [one] }, { extension: 'peer-id' }),
    await conversation('two root keys', { initiator: [one, two], responder: [two, one] })
  ]
  const file = path.join(__dirname, '../../multifeed-proto/tests/vectors/corestore.json')
  fs.writeFileSync(file, JSON.stringify({ conversations }, null, 2) + '\n')
  process.exit()
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
