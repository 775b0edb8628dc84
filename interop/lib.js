'use strict'
// What the scripts of this folder share: made-up blocks, a digest over a feed's blocks, and a feed's description.
// multifeed-testkit computes the same blocks and digests in Rust (its `blocks` module).

const { createHash } = require('crypto')
const ram = require('random-access-memory')
const raf = require('random-access-file')
const path = require('path')

/**
 * The block that `seed` makes for `index`, of `size` bytes: the little-endian words of a 32-bit xorshift
 * (13, 17, 5) that starts at seed * 0x9e3779b1 + index * 0x85ebca77 + 1 modulo 2^32, or at 1 where that is 0.
 */
function block (seed, index, size) {
  let x = (Math.imul(seed, 0x9e3779b1) + Math.imul(index, 0x85ebca77) + 1) | 0
  if (x === 0) x = 1
  const out = Buffer.allocUnsafe(size + 3)
  for (let at = 0; at < size; at += 4) {
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    out.writeInt32LE(x, at)
  }
  return out.subarray(0, size)
}

/**
 * The blocks that a command asks for: `blocks` in base64, or `count` made ones of `size` bytes from `seed`, the
 * first of which has the index `from` (default 0).
 */
function blocks (spec) {
  if (spec.blocks) return spec.blocks.map((text) => Buffer.from(text, 'base64'))
  const { count, size = 100, seed = 0, from = 0 } = spec
  return Array.from({ length: count }, (_, i) => block(seed, from + i, size))
}

/** Appends what `blocks(spec)` gives in batches of `spec.batch` blocks (default: all in one); one signature each. */
async function append (feed, spec) {
  const all = blocks(spec)
  const start = feed.length
  const step = spec.batch || all.length || 1
  for (let i = 0; i < all.length; i += step) {
    await promise((cb) => feed.append(all.slice(i, i + step), cb))
  }
  return { key: feed.key.toString('hex'), start, length: feed.length }
}

/** One block, as an app gets it: a copy on disk that has only seen empty blocks has no `data` file, and hypercore fails to read them. */
function get (feed, index, opts) {
  return promise((cb) => feed.get(index, opts, cb))
}

/**
 * BLAKE2b-512, in hex, over every block that is held, in order: its index and its length, each as 8 bytes
 * little-endian, then its bytes. Null where a block that the bitfield claims cannot be read.
 */
async function digest (feed) {
  const hash = createHash('blake2b512')
  const head = Buffer.alloc(16)
  for (let index = 0; index < feed.length; index++) {
    if (!feed.has(index)) continue
    const value = await get(feed, index, { wait: false }).catch(() => null)
    if (value === null) return null
    head.writeBigUInt64LE(BigInt(index), 0)
    head.writeBigUInt64LE(BigInt(value.length), 8)
    hash.update(head).update(value)
  }
  return hash.digest('hex')
}

/** What `feeds` and `audit` tell of one feed. */
async function describe (multi, feed, { hash = true } = {}) {
  await promise((cb) => feed.ready(cb))
  return {
    key: feed.key.toString('hex'),
    name: nameOf(multi, feed),
    length: feed.length,
    bytes: feed.byteLength,
    downloaded: feed.downloaded(),
    writable: feed.writable,
    hash: hash ? await digest(feed) : undefined
  }
}

// multifeed keeps the names to itself, so its own map has to be read; corestore-multifeed's is another one.
function nameOf (multi, feed) {
  const entries = multi._feedsByName ? [...multi._feedsByName] : Object.entries(multi._feeds)
  const found = entries.find(([, other]) => other === feed)
  return found ? found[0] : null
}

/**
 * Storage for a store: a folder, or memory where `where` is `memory`. With `delay`, each read of a block or a
 * tree node waits up to that many milliseconds, drawn from `seed`, so that answers overtake each other.
 */
function storage (where, { delay = 0, seed = 1 } = {}) {
  const open = (file) => where === 'memory' ? ram() : raf(path.join(where, file))
  if (!delay) return where === 'memory' ? open : where
  let x = seed | 0 || 1
  return (file) => {
    const inner = open(file)
    if (!/\/(data|tree)$/.test(file)) return inner
    const read = inner._read
    inner._read = function (request) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      setTimeout(() => read.call(this, request), (x >>> 0) % (delay + 1))
    }
    return inner
  }
}

/** Runs `call` with a node-style callback. */
function promise (call) {
  return new Promise((resolve, reject) => call((err, value) => err ? reject(err) : resolve(value)))
}

/** Prints one object as one line. */
function print (object) {
  process.stdout.write(JSON.stringify(object) + '\n')
}

/** `--name value` pairs; names in `flags` take no value, those in `lists` may be repeated. The rest is in `_`. */
function options (args, { flags = [], lists = [] } = {}) {
  const out = { _: [] }
  for (let i = 0; i < args.length; i++) {
    if (!args[i].startsWith('--')) {
      out._.push(args[i])
      continue
    }
    const name = args[i].slice(2)
    if (flags.includes(name)) out[name] = true
    else if (i + 1 === args.length) throw new Error(`--${name} needs a value`)
    else if (lists.includes(name)) (out[name] = out[name] || []).push(args[++i])
    else out[name] = args[++i]
  }
  return out
}

/** HOST:PORT */
function address (text) {
  const colon = text.lastIndexOf(':')
  return { host: text.slice(0, colon), port: Number(text.slice(colon + 1)) }
}

module.exports = { block, blocks, append, get, digest, describe, storage, promise, print, options, address }
