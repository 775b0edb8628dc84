'use strict'
// node make.js DIR SPEC: makes or extends a multifeed folder, and prints {"feeds":[…]} as peer.js does. SPEC is JSON:
// {
//   "key": HEX,                               the root key for the copies' sync (optional)
//   "writers": [{ "name", "seed"?, "append": [BLOCKS…], "clear": [[start, end]…] }…],
//   "cores":   [{ "slot", "kind", "append": [BLOCKS…] }…]  hypercores as no multifeed makes them, put into folders: kind
//                                             "static" (the key is the root hash, nothing is signed) or "old" (root hashes
//                                             are signed without the length, as hypercore 8 and older did)
//   "copies":  [{ "seed"?, "append": [BLOCKS…], "have": [[start, end]…] }…]
// }
// A writer is found or made; `seed` (64 hex digits) gives its key pair, BLOCKS is what lib.js's `blocks` takes. A copy
// is a feed of somebody else's, downloaded here: all of it, or only the ranges in `have`.

const path = require('path')
const hypercore = require('hypercore')
const ram = require('random-access-memory')
const crypto = require('hypercore-crypto')
const pump = require('pump')
const multifeed = require('multifeed')
const lib = require('./lib')
const { promise } = lib

async function main (dir, text) {
  if (!dir || !text) throw new Error('usage: node make.js DIR SPEC')
  const { key, writers = [], copies = [], cores = [] } = JSON.parse(text)
  for (const spec of cores) await core(dir, spec)
  const multi = await open(dir, { encryptionKey: key, sparse: copies.some((copy) => copy.have) })
  for (const spec of writers) {
    const feed = await write(multi, spec)
    for (const [start, end] of spec.clear || []) await promise((cb) => feed.clear(start, end, cb))
  }
  for (const spec of copies) await copy(multi, key, spec)

  const feeds = []
  for (const feed of multi.feeds()) feeds.push(await lib.describe(multi, feed))
  await promise((cb) => multi.close(cb))
  lib.print({ feeds })
}

async function open (storage, opts) {
  const multi = multifeed(storage, opts)
  await new Promise((resolve, reject) => multi.on('error', reject).ready(resolve))
  return multi
}

async function write (multi, { name, seed, append = [] }) {
  const opts = seed ? { keypair: crypto.keyPair(Buffer.from(seed, 'hex')) } : {}
  const feed = await promise((cb) => multi.writer(name, opts, cb))
  for (const spec of append) await lib.append(feed, spec)
  return feed
}

async function core (dir, { slot, kind, append }) {
  const old = {
    sign: (data, secretKey, cb) => cb(null, crypto.sign(data.subarray(0, 32), secretKey)),
    verify: (signature, data, key, cb) => cb(null, crypto.verify(signature, data, key))
  }
  const opts = kind === 'static' ? { live: false } : { crypto: old }
  const feed = hypercore(path.join(dir, String(slot)), opts)
  await promise((cb) => feed.ready(cb))
  for (const spec of append) for (const block of lib.blocks(spec)) await promise((cb) => feed.append(block, cb))
  if (kind === 'static') await promise((cb) => feed.finalize(cb))
  await promise((cb) => feed.close(cb))
}

async function copy (multi, key, spec) {
  const origin = await open(ram, { encryptionKey: key })
  const { key: feedKey, length } = await write(origin, { name: 'origin', ...spec })
  const known = multi.feed(feedKey)
  const stream = multi.replicate(true, { live: true })
  const ended = promise((cb) => pump(stream, origin.replicate(false, { live: true }), stream, () => cb(null)))
  const feed = known || await new Promise((resolve) => {
    multi.on('feed', (feed) => feed.ready(() => feed.key.equals(feedKey) && resolve(feed)))
  })
  for (const [start, end] of spec.have || [[0, length]]) {
    for (let index = start; index < end; index++) await lib.get(feed, index, {})
  }
  stream.finalize()
  await ended
  await promise((cb) => origin.close(cb))
}

main(...process.argv.slice(2)).catch((err) => {
  console.error(err.stack)
  process.exit(70)
})
