'use strict'
// The JS side of the benchmarks, one process for each role, disk to disk over loopback TCP:
//   node bench.js make DIR FEEDS COUNT SIZE     a store of FEEDS feeds with COUNT blocks of SIZE bytes each
//   node bench.js append DIR COUNT SIZE BATCH   the same for one feed, timed, in batches of BATCH blocks
//   node bench.js calls DIR COUNT               single appends and gets of one feed, each awaited: microseconds a call
//   node bench.js open DIR                      opens the store until it is ready, and closes it
//   node bench.js serve DIR [HOST:PORT]         prints {"event":"listening","address"}, serves until blocks went out, exits
//   node bench.js host DIR                      the same for any number of peers, until it is killed
//   node bench.js pull DIR HOST:PORT            syncs into DIR, exits
// Each prints one line {"event":"done", …} at its end: `seconds` is the work alone (open; append; connected to ended),
// `process` the whole process up to here, `cpu` its user and system seconds, `rss` its peak in bytes.

const net = require('net')
const pump = require('pump')
const multifeed = require('multifeed')
const lib = require('./lib')
const { promise, print } = lib

const roles = {
  async make (dir, feeds, count, size) {
    const multi = await open(dir)
    for (let i = 0; i < Number(feeds); i++) {
      const feed = await promise((cb) => multi.writer(`writer-${i}`, cb))
      await appendAll(feed, Number(count), Number(size), Math.min(1000, Math.ceil(4e6 / Number(size))), i)
    }
    await finish(multi, performance.now())
  },

  async append (dir, count, size, batch) {
    const multi = await open(dir)
    const feed = await promise((cb) => multi.writer('writer', cb))
    const start = performance.now()
    await appendAll(feed, Number(count), Number(size), Number(batch), 1)
    await finish(multi, start)
  },

  async calls (dir, count) {
    count = Number(count)
    const multi = await open(dir)
    const feed = await promise((cb) => multi.writer('writer', cb))
    const timed = async (call) => {
      const start = performance.now()
      for (let i = 0; i < count; i++) await call(i)
      return (performance.now() - start) * 1000 / count
    }
    const append = await timed((i) => promise((cb) => feed.append(Buffer.alloc(100, i), cb)))
    const get = (index) => promise((cb) => feed.get(index, cb))
    const inOrder = await timed(get)
    const atRandom = await timed(() => get(Math.floor(Math.random() * count)))
    await promise((cb) => multi.close(cb))
    print({ event: 'done', append, in_order: inOrder, at_random: atRandom })
  },

  async open (dir) {
    const start = performance.now()
    const multi = await open(dir)
    await finish(multi, start)
  },

  async serve (dir, address = '127.0.0.1:0') {
    const multi = await open(dir)
    const { host, port } = lib.address(address)
    const server = net.createServer(async (socket) => {
      const start = performance.now()
      await sync(multi, socket, false)
      if (!multi.feeds().some((feed) => feed.stats.totals.uploadedBlocks > 0)) return
      // A process that ends resets its connection, and with it what the other side has not read yet.
      await new Promise((resolve) => setTimeout(resolve, 500))
      await finish(multi, start)
    })
    server.listen(port, host, () => {
      const bound = server.address()
      print({ event: 'listening', address: `${bound.address}:${bound.port}` })
    })
  },

  async host (dir) {
    const multi = await open(dir)
    const server = net.createServer((socket) => sync(multi, socket, false).catch(() => {}))
    server.listen(0, '127.0.0.1', () => print({ event: 'listening', address: `127.0.0.1:${server.address().port}` }))
  },

  async pull (dir, address) {
    const multi = await open(dir)
    // Two JS peers, one of them without feeds, end one time in six before anything moved: then once more.
    for (let attempt = 0; attempt < 20; attempt++) {
      const socket = net.connect(lib.address(address))
      await promise((cb) => socket.once('connect', cb))
      const start = performance.now()
      await sync(multi, socket, true)
      if (multi.feeds().length > 0) return finish(multi, start)
    }
    throw new Error('nothing came')
  }
}

function sync (multi, socket, initiator) {
  socket.setNoDelay(true)
  const stream = multi.replicate(initiator)
  return promise((cb) => pump(stream, socket, stream, cb))
}

async function appendAll (feed, count, size, batch, seed) {
  for (let from = 0; from < count; from += batch) {
    const blocks = lib.blocks({ count: Math.min(batch, count - from), size, seed, from })
    await promise((cb) => feed.append(blocks, cb))
  }
}

async function open (dir) {
  const multi = multifeed(dir)
  await new Promise((resolve, reject) => multi.on('error', reject).ready(resolve))
  return multi
}

async function finish (multi, start) {
  const seconds = (performance.now() - start) / 1000
  const sum = (field) => multi.feeds().reduce((total, feed) => total + field(feed), 0)
  const totals = { feeds: multi.feeds().length, blocks: sum((feed) => feed.downloaded()), bytes: sum((feed) => feed.byteLength) }
  await promise((cb) => multi.close(cb))
  const used = process.resourceUsage()
  print({
    event: 'done',
    ...totals,
    seconds,
    process: performance.now() / 1000,
    cpu: (used.userCPUTime + used.systemCPUTime) / 1e6,
    rss: used.maxRSS * 1024
  })
  process.exit(0)
}

function fail (err) {
  console.error(err.stack)
  process.exit(1)
}

const [role, ...args] = process.argv.slice(2)
if (!Object.hasOwn(roles, role)) fail(new Error('usage: node bench.js make|append|serve|host|pull DIR …, see the file'))
roles[role](...args).catch(fail)
