'use strict'
// node corestore.js DIR SPEC: opens a corestore folder with the real package, and does one thing after another in it. Prints
// {"cores":[{key,discoveryKey,length,bytes,downloaded,writable,hash,error}…]}, one for each step in its order, when all are done; it closes the
// corestore when its input ends, and exits then. SPEC is JSON:
// {
//   "masterKey": HEX,   the master key (optional: that of the folder)
//   "steps": [{
//     "namespace": [NAME…],                  of which the core is asked for (optional)
//     "default": true | "name": TEXT | "key": HEX | "seed": HEX | "discoveryKey": HEX | "random": true,
//                                            which core; a seed is that of a key pair given to `get`
//     "append": [BLOCKS…],                   as lib.js's `append` takes them (optional)
//     "fetch": { "append": [BLOCKS…], "have": [[start, end]…] }  with a seed: the core is somebody else's, asked for by its key and downloaded
//                                            from a corestore in memory that has these blocks; of them all, or those in `have`
//   }…],
//   "multifeeds": [{       multifeeds on the corestore, after the steps; printed as "multifeeds": [[[name, key]…]…], the feeds of each (optional)
//     "key": HEX,                            the root key
//     "writers": [{ "name": TEXT?, "append": [BLOCKS…] }…],
//     "remotes": [{ "seed": HEX, "fetch": … }…],  feeds of others, downloaded as by a step, and brought by a session (optional)
//     "twice": true                          each writer is made by two multifeeds at once, so that the list has it twice (optional)
//   }…]
// }

const Corestore = require('corestore')
const corestoreMultifeed = require('@frando/corestore-multifeed')
const crypto = require('hypercore-crypto')
const pump = require('pump')
const ram = require('random-access-memory')
const lib = require('./lib')
const { promise } = lib

async function main (dir, text) {
  if (!dir || !text) throw new Error('usage: node corestore.js DIR SPEC')
  const { masterKey, steps = [], multifeeds = [] } = JSON.parse(text)
  const store = new Corestore(dir, masterKey ? { masterKey: Buffer.from(masterKey, 'hex') } : {})
  // Each core reports its own errors, and a second time here.
  store.on('error', () => {})
  await store.ready()
  const cores = []
  for (const step of steps) cores.push(await take(store, step).catch((err) => ({ error: err.message })))
  const lists = []
  for (const spec of multifeeds) lists.push(await feeds(store, spec))
  lib.print({ cores, multifeeds: lists })
  for await (const _ of process.stdin) { /* until it ends */ }
  await promise((cb) => store.close(cb))
}

async function take (store, step) {
  const feed = step.fetch ? await fetch(store, step) : await open(store, step)
  for (const spec of step.append || []) await lib.append(feed, spec)
  return {
    key: feed.key.toString('hex'),
    discoveryKey: feed.discoveryKey.toString('hex'),
    length: feed.length,
    bytes: feed.byteLength,
    downloaded: feed.downloaded(),
    writable: feed.writable,
    hash: await lib.digest(feed)
  }
}

async function open (store, step) {
  for (const name of step.namespace || []) store = store.namespace(name)
  let feed
  if (step.default) feed = store.default()
  else if (step.random) feed = store.get()
  else if (step.seed) feed = store.get({ keyPair: crypto.keyPair(Buffer.from(step.seed, 'hex')) })
  else if (step.key) feed = store.get({ key: Buffer.from(step.key, 'hex') })
  else if (step.discoveryKey) feed = store.get({ discoveryKey: Buffer.from(step.discoveryKey, 'hex') })
  else feed = store.get({ name: step.name })
  await promise((cb) => feed.ready(cb))
  return feed
}

async function fetch (store, { seed, fetch: { append, have } }) {
  const other = new Corestore(ram)
  await other.ready()
  const origin = await open(other, { seed })
  for (const spec of append) await lib.append(origin, spec)
  const feed = store.get({ key: origin.key, sparse: true })
  await promise((cb) => feed.ready(cb))
  const stream = store.replicate(true, { live: true })
  const ended = promise((cb) => pump(stream, other.replicate(false, { live: true }), stream, () => cb(null)))
  for (const [start, end] of have || [[0, origin.length]]) {
    for (let index = start; index < end; index++) await lib.get(feed, index, {})
  }
  stream.destroy()
  await ended
  await promise((cb) => other.close(cb))
  return feed
}

async function feeds (store, { key, writers = [], remotes = [], twice }) {
  const open = async () => {
    const multi = corestoreMultifeed(store, { rootKey: Buffer.from(key, 'hex') })
    await promise((cb) => multi.ready(cb))
    return multi
  }
  const multis = twice ? [await open(), await open()] : [await open()]
  for (const { name, append = [] } of writers) {
    const made = []
    for (const multi of multis) made.push(await promise((cb) => multi.writer(name, {}, cb)))
    for (const spec of append) await lib.append(made[0], spec)
  }
  // As a session brings them.
  for (const step of remotes) multis[0]._muxer.emit('feed', await fetch(store, step))
  // The list is appended to without waiting; this comes after it.
  const list = store.namespace('@multifeed:' + key).namespace('@multifeed:persist').default()
  await promise((cb) => list.ready(cb))
  await promise((cb) => list.append([], cb))
  return [...multis[0]._feedsByKey.values()].map((feed) => {
    const names = [...multis[0]._feedsByName].filter(([, other]) => other === feed)
    return [names.length ? names[0][0] : null, feed.key.toString('hex')]
  })
}

main(...process.argv.slice(2)).catch((err) => {
  console.error(err)
  process.exit(1)
})
