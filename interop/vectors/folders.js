// Records what the real packages write and answer, as vectors for multifeed-core's tests.
//
//   node interop/vectors/folders.js
//
// writes multifeed-core/tests/vectors/{folders,tree,bitfield}.json. All of it is deterministic: key pairs come from
// fixed seeds, contents from the numbers below, so that running it again changes nothing.
'use strict'

const fs = require('fs')
const os = require('os')
const path = require('path')
const { promisify } = require('util')
const multifeed = require('multifeed')
const hypercore = require('hypercore')
const raf = require('random-access-file')
const crypto = require('hypercore-crypto')
const treeIndex = require('hypercore/lib/tree-index')
const bitfield = require('hypercore/lib/bitfield')
const rle = require('bitfield-rle')

const OUT = path.join(__dirname, '..', '..', 'multifeed-core', 'tests', 'vectors')

// Files up to this size are recorded whole, larger ones by hash.
const WHOLE = 16 * 1024

function keyPair (n) {
  return crypto.keyPair(Buffer.alloc(32, n))
}

// Block i of feed n; the Rust side has the same function.
function block (n, i) {
  const size = (i * 7 + n) % 50
  const bytes = Buffer.alloc(size)
  for (let j = 0; j < size; j++) bytes[j] = (n * 31 + i * 5 + j * 3) & 255
  return bytes
}

function blocks (n, from, to) {
  const list = []
  for (let i = from; i < to; i++) list.push(block(n, i))
  return list
}

// xorshift32; the Rust side has the same.
function random (seed) {
  let x = seed >>> 0
  return (below) => {
    x ^= x << 13
    x >>>= 0
    x ^= x >>> 17
    x ^= x << 5
    x >>>= 0
    return x % below
  }
}

function readFolder (folder) {
  const files = {}
  for (const slot of fs.readdirSync(folder).sort()) {
    for (const name of fs.readdirSync(path.join(folder, slot)).sort()) {
      const bytes = fs.readFileSync(path.join(folder, slot, name))
      files[slot + '/' + name] = bytes.length <= WHOLE
        ? { hex: bytes.toString('hex') }
        : { length: bytes.length, blake2b: hash(bytes) }
    }
  }
  return files
}

function hash (bytes) {
  const out = Buffer.alloc(32)
  require('sodium-universal').crypto_generichash(out, bytes)
  return out.toString('hex')
}

function call (object, method, ...args) {
  return promisify(object[method]).call(object, ...args)
}

async function withFolder (work) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'multifeed-vectors-'))
  try {
    return await work(folder)
  } finally {
    fs.rmSync(folder, { recursive: true })
  }
}

async function open (folder) {
  const multi = multifeed(folder)
  await call(multi, 'ready')
  return multi
}

// Each writer: name, number (of its seed and contents), and batches: lists of block sizes, or counts of `block`s.
async function writers (name, list, after) {
  return withFolder(async (folder) => {
    const multi = await open(folder)
    for (const { writer, n, batches } of list) {
      const feed = await call(multi, 'writer', writer, { keypair: keyPair(n) })
      for (const batch of batches) {
        const list = blocks(n, feed.length, feed.length + batch)
        await call(feed, 'append', batch === 1 ? list[0] : list)
      }
      if (after) await after(feed)
    }
    await call(multi, 'close')
    return { name, writers: list, files: readFolder(folder) }
  })
}

function repeat (count, value) {
  return new Array(count).fill(value)
}

// A copy that holds only some blocks, as a sparse hypercore downloads them, in the folder of a multifeed.
async function sparse (name, n, length, wanted) {
  return withFolder(async (folder) => {
    const { publicKey, secretKey } = keyPair(n)
    const source = hypercore(require('random-access-memory'), publicKey, { secretKey })
    await call(source, 'ready')
    await call(source, 'append', blocks(n, 0, length))
    const copy = hypercore((file) => raf(path.join(folder, '0', file)), publicKey, { sparse: true })
    await call(copy, 'ready')
    const stream = source.replicate(true, { live: true })
    stream.pipe(copy.replicate(false, { live: true })).pipe(stream)
    stream.on('error', () => {})
    for (const index of wanted) await call(copy, 'get', index)
    const digests = []
    for (let i = 0; i < length; i += 3) digests.push([i, copy.digest(i)])
    await call(copy, 'close')
    return { name, n, length, held: wanted, digests, files: readFolder(folder) }
  })
}

async function folders () {
  const cleared = (from, to) => (feed) => call(feed, 'clear', from, to)
  return {
    writers: [
      await writers('forty blocks, one by one', [{ writer: 'forty', n: 1, batches: repeat(40, 1) }]),
      await writers('batches', [{ writer: 'batches', n: 2, batches: [1, 2, 3, 5, 7, 13, 100, 1, 1] }]),
      await writers('an empty block alone', [{ writer: 'empty', n: 50, batches: [1] }]),
      await writers('empty blocks among others', [{ writer: 'empties', n: 7, batches: [10, 1, 50] }]),
      await writers('several writers', [
        { writer: 'a', n: 3, batches: [3] },
        { writer: 'b', n: 4, batches: [] },
        { writer: 'a longer name, in ümläuts', n: 5, batches: [1, 1] }
      ]),
      await writers('past a page of the bitfield', [{ writer: 'long', n: 6, batches: [8190, 1, 1, 1, 5, 8190, 3] }]),
      await writers('a page one by one, then more', [{ writer: 'long', n: 8, batches: repeat(300, 1).concat([20000]) }])
    ],
    cleared: [
      { from: 5, to: 9, ...await writers('cleared inside', [{ writer: 'c', n: 9, batches: [40] }], cleared(5, 9)) },
      { from: 38, to: 40, ...await writers('cleared at the end', [{ writer: 'c', n: 10, batches: [40] }], cleared(38, 40)) }
    ],
    sparse: [
      await sparse('a copy with holes', 11, 40, [0, 1, 2, 3, 9, 17, 18, 30, 39]),
      await sparse('a copy of one block', 12, 100, [64]),
      await sparse('a copy in a random order', 13, 64, [63, 5, 40, 6, 7, 8, 41, 20, 0])
    ]
  }
}

// Trees as random downloads leave them, and what hypercore's tree index says of them.
function trees () {
  const list = []
  const next = random(42)
  for (let t = 0; t < 60; t++) {
    const length = 1 + next(t < 30 ? 20 : 3000)
    const source = treeIndex()
    for (let i = 0; i < length; i++) source.set(2 * i)
    const copy = treeIndex()
    const sets = []
    const count = next(2 * Math.min(length, 60))
    for (let c = 0; c < count; c++) {
      const index = 2 * next(length)
      if (copy.get(index)) continue
      const digest = copy.digest(index)
      for (const node of source.proof(index, { digest }).nodes.concat([index])) {
        copy.set(node)
        sets.push(node)
      }
    }
    const questions = []
    for (let q = 0; q < 12; q++) {
      const index = 2 * next(length + 3)
      const digest = q % 3 === 0 ? copy.digest(index) : next(1 << (1 + next(12)))
      const hash = next(4) === 0
      const answer = (tree) => {
        const proof = tree.proof(index, { digest, hash })
        return proof && [proof.nodes, proof.verifiedBy]
      }
      questions.push({
        index, digest, hash, copyDigest: copy.digest(index), whole: answer(source), copy: answer(copy), verifiedBy: copy.verifiedBy(index)
      })
    }
    list.push({ length, sets, end: copy.bitfield.length, blocks: copy.blocks(), wholeBlocks: source.blocks(), questions })
  }
  return list
}

// Bitfields after random changes: pages by hash, ranges as they go over the wire.
function bitfields () {
  const list = []
  for (let seed = 1; seed <= 20; seed++) {
    const next = random(seed)
    const field = bitfield()
    for (let step = 0; step < 40; step++) {
      const start = next(40000)
      const count = 1 + next(seed % 2 ? 20 : 3000)
      const value = next(5) !== 0
      for (let i = start; i < start + count; i++) field.set(i, value)
    }
    const pages = []
    for (let p = 0; p < field.pages.length; p++) {
      const page = field.pages.get(p, true)
      pages.push(page ? hash(page.buffer) : null)
    }
    const ranges = []
    for (const [start, length] of [[0, 0], [0, 1 << 20], [8192, 8192], [1 << 20, 1 << 20], [16384, 1 << 20]]) {
      ranges.push([start, length, field.compress(start, length).toString('hex')])
    }
    list.push({ seed, pages, ranges })
  }
  return list
}

function runs () {
  const next = random(7)
  const list = []
  for (let n = 0; n < 100; n++) {
    const parts = []
    for (let r = next(12); r > 0; r--) parts.push(Buffer.alloc(1 + next(next(4) ? 6 : 300), [0, 255, 1, 0x80, 0xaa][next(5)]))
    const plain = Buffer.concat(parts)
    const encoded = rle.encode(plain)
    list.push([plain.toString('hex'), encoded.toString('hex'), rle.align(4).decode(encoded).toString('hex')])
  }
  return list
}

async function main () {
  fs.mkdirSync(OUT, { recursive: true })
  const write = (name, value) => fs.writeFileSync(path.join(OUT, name), JSON.stringify(value, null, 1) + '\n')
  write('folders.json', await folders())
  write('tree.json', trees())
  write('bitfield.json', { bitfields: bitfields(), runs: runs() })
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
