'use strict'
// A multifeed 6.0.0 peer over TCP, driven by lines of JSON: `node peer.js --help`.

const net = require('net')
const readline = require('readline')
const pump = require('pump')
const lib = require('./lib')
const { print, promise } = lib

const HELP = `node peer.js [--store DIR|memory] [--listen HOST:PORT | --connect HOST:PORT] [options]

  --store WHERE       a folder, or memory (default)
  --listen ADDR       accept peers as responder (port 0: any)
  --connect ADDR      connect as initiator
  --once              exit when the first connection has ended: 0 if cleanly, else 1
  --no-stdin          read no commands, and do not exit at their end
  --key HEX           the root key
  --live              replicate live
  --sparse            blocks only as they are asked for (command "get")
  --download false    --upload false
  --user-data JSON    for the handshake
  --version X         --client X    what the handshake claims, for mismatches
  --extension NAME    one more extension on channel 0; repeatable
  --delay-reads MS    each read of a block or tree node waits up to MS milliseconds,
  --reorder SEED      drawn from this seed (default 1): answers overtake each other
  --corestore         speak corestore-multifeed 0.0.1 instead: always live, without --user-data, --version,
                      --client, --sparse and the event handshake

Commands, one JSON object a line, run one after another; each is answered by {"event":"reply","id":…} with the
command's id and its results, or {"event":"failed","id":…,"message"}. The end of stdin closes the peer.

  {"cmd":"writer","name","seed"?}              finds or makes a writer; seed: 64 hex digits of its key pair
  {"cmd":"append","name", …}                   blocks: [base64…], or count, size, seed, from, batch (see lib.js)
  {"cmd":"feeds","hash"?}                      lists the feeds; "hash":false leaves the digests out
  {"cmd":"wait","blocks","feeds"?,"key"?,"ms"?} until so many blocks are held, in all or in one feed
  {"cmd":"get","key","index","wait"?}          one block; with wait, from the remote
  {"cmd":"clear","key","start","end"}          forgets blocks
  {"cmd":"listen","address"} {"cmd":"connect","address"}
  {"cmd":"finish"}                             ends every stream cleanly (even a live one)
  {"cmd":"destroy","reset"?}                   cuts every socket; with reset, by RST
  {"cmd":"extension","name","data"}            sends a message (base64) of an --extension to every remote
  {"cmd":"close"}                              closes the multifeed, and exits

Events: ready, listening, connected, handshake, feed, remote-feeds, extension, error, ended, closed, crashed.`

const opts = lib.options(process.argv.slice(2), {
  flags: ['help', 'once', 'no-stdin', 'live', 'sparse', 'corestore'],
  lists: ['extension']
})

let multi
let server = null
let connections = 0
let closing = false
const open = new Map() // connection number → { stream, socket, extensions }

if (opts.help) console.log(HELP)
else main().catch(crash)

process.on('uncaughtException', crash)

async function main () {
  const store = lib.storage(opts.store || 'memory', {
    delay: Number(opts['delay-reads'] || 0),
    seed: Number(opts.reorder || 1)
  })
  if (opts.corestore) {
    multi = require('@frando/corestore-multifeed')(store, { rootKey: opts.key })
  } else {
    multi = require('multifeed')(store, { encryptionKey: opts.key, sparse: !!opts.sparse })
  }
  multi.on('error', (err) => print({ event: 'error', connection: null, message: err.message }))
  multi.on('feed', (feed, name) => {
    feed.ready(() => print({ event: 'feed', key: feed.key.toString('hex'), name }))
  })
  await promise((cb) => multi.ready(cb))
  print({ event: 'ready', feeds: multi.feeds().length })

  if (opts.listen) await commands.listen({ address: opts.listen })
  if (opts.connect) await commands.connect({ address: opts.connect })
  if (!opts['no-stdin']) await readCommands()
}

async function readCommands () {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === '') continue
    let command = {}
    try {
      command = JSON.parse(line)
      if (!Object.hasOwn(commands, command.cmd)) throw new Error(`unknown command ${command.cmd}`)
      print({ event: 'reply', id: command.id, ...await commands[command.cmd](command) })
    } catch (err) {
      print({ event: 'failed', id: command.id, message: err.message })
    }
    if (closing) break
  }
  await exit(0)
}

const commands = {
  async writer ({ name, seed }) {
    const feed = await writer(name, seed)
    return { key: feed.key.toString('hex'), length: feed.length }
  },

  async append (command) {
    return lib.append(await writer(command.name), command)
  },

  async feeds ({ hash }) {
    const feeds = []
    for (const feed of multi.feeds()) feeds.push(await lib.describe(multi, feed, { hash }))
    return { feeds }
  },

  async wait ({ blocks = 0, feeds = 0, key, ms = 20000 }) {
    const until = Date.now() + ms
    for (;;) {
      const all = multi.feeds().filter((feed) => feed.opened && (!key || feed.key.toString('hex') === key))
      const held = all.reduce((sum, feed) => sum + feed.downloaded(), 0)
      if (held >= blocks && all.length >= feeds) return { blocks: held, feeds: all.length }
      if (Date.now() > until) throw new Error(`${held} of ${blocks} blocks in ${all.length} feeds after ${ms} ms`)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  },

  async get ({ key, index, wait = false }) {
    const value = await lib.get(feedOf(key), index, { wait })
    return { value: value.toString('base64') }
  },

  async clear ({ key, start, end }) {
    await promise((cb) => feedOf(key).clear(start, end, cb))
  },

  async listen ({ address }) {
    server = net.createServer((socket) => replicate(socket, false))
    const { host, port } = lib.address(address)
    await new Promise((resolve, reject) => server.on('error', reject).listen(port, host, resolve))
    const bound = server.address()
    print({ event: 'listening', address: `${bound.address}:${bound.port}` })
    return { address: `${bound.address}:${bound.port}` }
  },

  async connect ({ address }) {
    const socket = net.connect(lib.address(address))
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return { connection: replicate(socket, true) }
  },

  async finish () {
    for (const { stream } of open.values()) stream.finalize()
  },

  async destroy ({ reset }) {
    for (const { socket } of open.values()) reset ? socket.resetAndDestroy() : socket.destroy()
  },

  async extension ({ name, data }) {
    for (const { extensions } of open.values()) extensions[name].send(Buffer.from(data, 'base64'))
  },

  async close () {
    closing = true
  }
}

function replicate (socket, initiator) {
  const connection = ++connections
  socket.setNoDelay(true)
  const stream = multi.replicate(initiator, {
    live: !!opts.live || !!opts.corestore,
    download: flag(opts.download),
    upload: flag(opts.upload),
    userData: opts['user-data'] && JSON.parse(opts['user-data'])
  })
  print({ event: 'connected', connection, initiator })

  // A failure comes up to four times: by multifeed, by the stream that it destroys, and by each end of the pump.
  const told = new Set()
  const tell = (err) => {
    if (told.has(err.message)) return
    told.add(err.message)
    print({
      event: 'error',
      connection,
      code: err.code,
      message: err.message,
      us: err.usVersion || err.usClient,
      them: err.themVersion || err.themClient
    })
  }
  stream.on('error', tell)
  stream.on('remote-feeds', () => print({ event: 'remote-feeds', connection, feeds: multi.feeds().length }))

  // Neither the handshake that goes out nor the one that comes in is in multifeed's API; both pass this extension.
  const handshake = stream.extensions.get('MULTIFEED_HANDSHAKE')
  if (handshake) {
    const { send, handlers } = handshake
    handshake.send = function (message) {
      if (opts.version !== undefined) message.version = opts.version
      if (opts.client !== undefined) message.client = opts.client
      return send.call(this, message)
    }
    handshake.handlers = {
      ...handlers,
      onmessage (header) {
        print({ event: 'handshake', connection, header })
        handlers.onmessage(header)
      }
    }
  }
  const extensions = {}
  for (const name of opts.extension || []) {
    extensions[name] = stream.registerExtension(name, {
      onmessage: (data) => print({ event: 'extension', connection, name, data: data.toString('base64') })
    })
  }

  open.set(connection, { stream, socket, extensions })
  pump(stream, socket, stream, (err) => {
    open.delete(connection)
    if (err) tell(err)
    print({
      event: 'ended',
      connection,
      clean: told.size === 0,
      received: stream.bytesReceived,
      sent: stream.bytesSent
    })
    if (opts.once) exit(told.size === 0 ? 0 : 1)
  })
  return connection
}

async function writer (name, seed) {
  const keypair = seed && require('hypercore-crypto').keyPair(Buffer.from(seed, 'hex'))
  return promise((cb) => multi.writer(name, keypair ? { keypair } : {}, cb))
}

function feedOf (key) {
  const feed = multi.feed(key)
  if (!feed) throw new Error(`no feed ${key}`)
  return feed
}

function flag (text) {
  return text === undefined ? undefined : text !== 'false'
}

let exiting = false
async function exit (code) {
  if (exiting) return
  exiting = true
  if (server) server.close()
  await promise((cb) => multi.close(cb))
  // Closing has finalized every stream; their last bytes, and the remotes' ends, want a moment.
  const until = Date.now() + 1000
  while (open.size > 0 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 5))
  print({ event: 'closed' })
  process.exit(code)
}

// A bug of a JS package that a remote set off, mostly: told apart from our own exits by the code.
function crash (err) {
  print({ event: 'crashed', message: err.message })
  console.error(err.stack)
  process.exit(70)
}
