'use strict'
// A multifeed 6.0.0 peer over TCP, driven by lines of JSON: `node peer.js --help`.

const net = require('net')
const readline = require('readline')
const lib = require('./lib')
const { print, promise } = lib

const HELP = `node peer.js [--store DIR|memory] [--listen HOST:PORT | --connect HOST:PORT] [options]

  --store WHERE       a folder, or memory (default)
  --listen ADDR       accept peers as responder (port 0: any)
  --connect ADDR      connect as initiator
  --once              exit when the first connection has ended: 0 if cleanly, else 1
  --no-stdin          read no commands, and do not exit at their end
  --key HEX           the root key; with --corestore repeatable: a multifeed each, on one corestore, sharing each stream
  --live              replicate live
  --sparse            blocks only as they are asked for (command "get")
  --download false    --upload false
  --user-data JSON    for the handshake
  --manifest-fields JSON  members of each manifest beside its keys
  --want KEY              request this feed alone of what is offered; may be given more than once
  --version X         --client X    multifeed's own constants: what its handshake says, and what it holds a remote's against
  --extension NAME    one more extension on channel 0; repeatable
  --feed-extension NAME  an extension on each feed's own channel; repeatable
  --delay-reads MS    each read of a block or tree node waits up to MS milliseconds,
  --reorder SEED      drawn from this seed (default 1): answers overtake each other
  --existing          replicate over a hypercore-protocol stream that is made before
  --corestore         speak corestore-multifeed 0.0.1 instead: always live, without --user-data, --version,
                      --client, --sparse and the event handshake
  --networker         with --corestore: streams are corestore-multifeed's MultifeedNetworker's, and replicate the corestore
  --root-timeout MS   how long corestore-multifeed waits for a remote that does not open a root key (10,000)

Commands, one JSON object a line, run one after another; each is answered by {"event":"reply","id":…} with the
command's id and its results, or {"event":"failed","id":…,"message"}. The end of stdin closes the peer.

  {"cmd":"writer","name","key"?,"seed"?}       finds or makes a writer; key: the root key of its multifeed, where there
                                               are several; seed: 64 hex digits of its key pair
  {"cmd":"append","name","key"?, …}            blocks: [base64…], or count, size, seed, from, batch (see lib.js)
  {"cmd":"feeds","key"?,"hash"?}               lists the feeds, all or those of one root key, which stands in each as root;
                                               "hash":false leaves the digests out
  {"cmd":"wait","blocks","feeds"?,"key"?,"ms"?} until so many blocks are held: in all, in one feed, or for one root key
  {"cmd":"get","key","index","wait"?}          one block; with wait, from the remote
  {"cmd":"clear","key","start","end"}          forgets blocks
  {"cmd":"download","key","start","end"}       blocks of a range, from the remote
  {"cmd":"seek","key","bytes"}                 the place of a byte, asked of the remote where it has to be
  {"cmd":"update","key","length"?}             waits until the feed is longer, or as long
  {"cmd":"remote-has","key","index"}           whether a remote has told of a block that is not held here
  {"cmd":"alone","key"}                        streams from now on carry this feed alone, as hypercore's; one that no
                                               multifeed has is kept in memory
  {"cmd":"listen","address"} {"cmd":"connect","address"}
  {"cmd":"join","key"}                         one more multifeed, on streams that are open too (--networker)
  {"cmd":"testnet"}                            starts a DHT of four nodes on loopback; its bootstrap address
  {"cmd":"swarm","bootstrap":[ADDR…],"seed"?}  joins the topic of each root key with hyperswarm 4; seed: 64 hex digits of its key pair.
                                               An application's two lines: each connection becomes a stream, piped both ways
  {"cmd":"topic","join"?,"leave"?}             joins, or leaves, the topic of a root key
  {"cmd":"swarm-state"}                        how many connections the swarm has
  {"cmd":"finish"}                             ends every stream cleanly (even a live one)
  {"cmd":"destroy","reset"?}                   cuts every socket; with reset, by RST
  {"cmd":"extension","name","data"}            sends a message (base64) of an --extension to every remote
  {"cmd":"feed-extension","key","name","data"} sends a message (base64) of a --feed-extension to every peer of a feed
  {"cmd":"close"}                              closes the multifeed, and exits

Events: ready, listening, connected, handshake, manifest (where it has more than keys), feed, remote-feeds, extension, feed-extension, error, ended, closed,
crashed.`

const opts = lib.options(process.argv.slice(2), {
  flags: ['help', 'once', 'no-stdin', 'live', 'sparse', 'corestore', 'existing', 'networker'],
  lists: ['extension', 'feed-extension', 'key', 'want']
})

let multis = [] // one for each root key
let lone = null // the feed that streams carry alone
let networker = null // what MultifeedNetworker takes for @corestore/networker: its swarm is this peer's sockets
let networked = null // the MultifeedNetworker
let corestore = null
let server = null
let swarm = null // hyperswarm's
let testnet = null
let connections = 0
let closing = false
const open = new Map() // connection number → { stream, socket, extensions }
const feedExtensions = new Map() // feed → name → extension

if (opts.help) console.log(HELP)
else main().catch(crash)

process.on('uncaughtException', crash)

async function main () {
  require('./release')(opts)
  const store = lib.storage(opts.store || 'memory', {
    delay: Number(opts['delay-reads'] || 0),
    seed: Number(opts.reorder || 1)
  })
  const keys = opts.key || [undefined]
  if (opts.corestore) {
    const corestoreMultifeed = require('@frando/corestore-multifeed')
    corestore = corestoreMultifeed.defaultCorestore(store, {})
    multis = keys.map((rootKey) => corestoreMultifeed(corestore, { rootKey }))
    if (opts.networker) {
      const MultifeedNetworker = require('@frando/corestore-multifeed/networker')
      networker = Object.assign(new (require('events').EventEmitter)(), { corestore, join () {} })
      networked = new MultifeedNetworker(networker)
    }
  } else {
    if (keys.length > 1) throw new Error('several root keys want --corestore')
    multis = [require('multifeed')(store, { encryptionKey: keys[0], sparse: !!opts.sparse })]
  }
  for (const multi of multis) await openMultifeed(multi)
  print({ event: 'ready', feeds: allFeeds().length })

  if (opts.listen) await commands.listen({ address: opts.listen })
  if (opts.connect) await commands.connect({ address: opts.connect })
  if (!opts['no-stdin']) await readCommands()
}

async function openMultifeed (multi) {
  multi.on('error', (err) => print({ event: 'error', connection: null, message: err.message }))
  multi.on('feed', (feed, name) => {
    extend(feed)
    feed.ready(() => print({ event: 'feed', key: feed.key.toString('hex'), name, root: rootOf(multi) }))
  })
  await promise((cb) => multi.ready(cb))
  if (opts['root-timeout']) multi._muxer._opts = { timeout: Number(opts['root-timeout']) }
  if (networked) networked.swarm(multi)
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
  async writer ({ name, key, seed }) {
    const feed = await writer(name, key, seed)
    return { key: feed.key.toString('hex'), length: feed.length }
  },

  async append (command) {
    return lib.append(await writer(command.name, command.key), command)
  },

  async feeds ({ key, hash }) {
    const all = []
    for (const multi of key ? [multiOf(key)] : multis) {
      for (const feed of multi.feeds()) all.push({ ...await lib.describe(multi, feed, { hash }), root: rootOf(multi) })
    }
    return { feeds: all }
  },

  async wait ({ blocks = 0, feeds = 0, key, ms = 20000 }) {
    const until = Date.now() + ms
    for (;;) {
      const root = key && multis.find((multi) => rootOf(multi) === key)
      const all = (root ? root.feeds() : allFeeds())
        .filter((feed) => feed.opened && (!key || root || feed.key.toString('hex') === key))
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

  async download ({ key, start, end }) {
    await promise((cb) => feedOf(key).download({ start, end }, cb))
  },

  async seek ({ key, bytes }) {
    return new Promise((resolve, reject) => {
      feedOf(key).seek(bytes, (err, index, offset) => err ? reject(err) : resolve({ index, offset }))
    })
  },

  async update ({ key, length }) {
    const feed = feedOf(key)
    await promise((cb) => feed.update(length === undefined ? {} : { minLength: length }, cb))
    return { length: feed.length, downloaded: feed.downloaded() }
  },

  async 'remote-has' ({ key, index }) {
    return { has: feedOf(key).peers.some((peer) => peer.remoteBitfield.get(index)) }
  },

  async alone ({ key }) {
    lone = multis[0].feed(key) || require('hypercore')(require('random-access-memory'), key)
    await promise((cb) => lone.ready(cb))
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

  async join ({ key }) {
    const multi = require('@frando/corestore-multifeed')(corestore, { rootKey: key })
    multis.push(multi)
    await openMultifeed(multi)
  },

  async testnet () {
    testnet = await require('./hyperswarm/node_modules/hyperdht/testnet')(4, { host: '127.0.0.1' })
    return { bootstrap: testnet.bootstrap.map(({ host, port }) => `${host}:${port}`) }
  },

  async swarm ({ bootstrap, seed }) {
    const Hyperswarm = require('./hyperswarm/node_modules/hyperswarm')
    const DHT = require('./hyperswarm/node_modules/hyperdht')
    const dht = new DHT({ bootstrap: bootstrap.map(lib.address), host: '127.0.0.1' })
    swarm = new Hyperswarm({ dht, seed: seed && Buffer.from(seed, 'hex') })
    swarm.on('connection', (socket, info) => replicate(socket, info.client))
    for (const key of opts.key) await swarm.join(topicOf(key)).flushed()
    return { key: swarm.keyPair.publicKey.toString('hex') }
  },

  async topic ({ join, leave }) {
    if (join) await swarm.join(topicOf(join)).flushed()
    if (leave) await swarm.leave(topicOf(leave))
  },

  async 'swarm-state' () {
    return { connections: swarm.connections.size }
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

  async 'feed-extension' ({ key, name, data }) {
    feedExtensions.get(feedOf(key))[name].broadcast(Buffer.from(data, 'base64'))
  },

  async close () {
    closing = true
  }
}

function replicate (socket, initiator) {
  const connection = ++connections
  const stream = replicateOn(initiator)
  print({ event: 'connected', connection, initiator })

  // A failure comes up to three times: by multifeed, by the stream that it destroys, and by the socket.
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
  stream.on('remote-feeds', () => print({ event: 'remote-feeds', connection, feeds: allFeeds().length }))

  // The handshake that comes in is not in multifeed's API; it passes this extension.
  const handshake = !lone && stream.extensions.get('MULTIFEED_HANDSHAKE')
  if (handshake) {
    const { handlers } = handshake
    handshake.handlers = {
      ...handlers,
      onmessage (header) {
        print({ event: 'handshake', connection, header })
        handlers.onmessage(header)
      }
    }
  }
  // What an application gives to offerFeeds beside the keys, and what its remote's mux tells it.
  const manifest = stream.extensions.get('MULTIFEED_MANIFEST')
  if (manifest) {
    const { send, handlers } = manifest
    const said = JSON.parse(opts['manifest-fields'] || '{}')
    manifest.send = function (message) {
      return send.call(this, { ...said, ...message })
    }
    manifest.handlers = {
      ...handlers,
      onmessage (message) {
        const { keys, ...fields } = message
        if (Object.keys(fields).length > 0) print({ event: 'manifest', connection, keys, fields })
        // An application that does not want all of a list requests the others.
        const wants = (key) => !opts.want || opts.want.includes(key)
        handlers.onmessage({ ...message, keys: keys.filter(wants) })
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
  // As multifeed's README joins them, and most apps do: a stream that fails leaves its socket as it is.
  stream.pipe(socket).pipe(stream)
  socket.on('error', tell)
  socket.on('close', ended)
  stream.on('error', ended)
  function ended () {
    if (!open.delete(connection)) return
    print({
      event: 'ended',
      connection,
      clean: told.size === 0,
      received: stream.bytesReceived,
      sent: stream.bytesSent
    })
    if (opts.once) exit(told.size === 0 ? 0 : 1)
  }
  return connection
}

function replicateOn (initiator) {
  const options = { live: !!opts.live, download: flag(opts.download), upload: flag(opts.upload) }
  if (lone) return lone.replicate(initiator, options)
  if (opts.corestore) return replicateAll(initiator)
  const userData = opts['user-data'] && JSON.parse(opts['user-data'])
  const first = opts.existing ? new (require('hypercore-protocol'))(initiator) : initiator
  return multis[0].replicate(first, { ...options, userData })
}

/** One stream with every multifeed on it. */
function replicateAll (initiator) {
  const options = { live: true, download: flag(opts.download), upload: flag(opts.upload) }
  if (networker) return replicateNetworked(initiator, options)
  const stream = new (require('hypercore-protocol'))(initiator, options)
  for (const multi of multis) multi.replicate(initiator, { ...options, stream })
  return stream
}

/** A stream of the networker's: it replicates the corestore, and MultifeedNetworker opens its root keys after the handshake. */
function replicateNetworked (initiator, options) {
  const onhandshake = () => networker.emit('handshake', stream, {})
  const stream = new (require('hypercore-protocol'))(initiator, { ...options, onhandshake })
  corestore.replicate(initiator, { ...options, stream })
  stream.on('close', () => networker.emit('stream-closed', stream, {}, true))
  return stream
}

/** Registers the --feed-extensions, before the feed's channel is opened anywhere. */
function extend (feed) {
  const extensions = {}
  for (const name of opts['feed-extension'] || []) {
    extensions[name] = feed.registerExtension(name, {
      onmessage: (data) => print({
        event: 'feed-extension',
        key: feed.key.toString('hex'),
        name,
        data: data.toString('base64')
      })
    })
  }
  feedExtensions.set(feed, extensions)
}

async function writer (name, key, seed) {
  const keypair = seed && require('hypercore-crypto').keyPair(Buffer.from(seed, 'hex'))
  return promise((cb) => multiOf(key).writer(name, keypair ? { keypair } : {}, cb))
}

function multiOf (key) {
  const multi = key === undefined ? multis[0] : multis.find((multi) => rootOf(multi) === key)
  if (!multi) throw new Error(`no multifeed with the root key ${key}`)
  return multi
}

/** What peers of a root key look for each other by. */
function topicOf (key) {
  return require('hypercore-crypto').discoveryKey(Buffer.from(key, 'hex'))
}

/** The root key, where there may be several. */
function rootOf (multi) {
  return opts.corestore && multi.key ? multi.key.toString('hex') : undefined
}

function allFeeds () {
  const feeds = multis.flatMap((multi) => multi.feeds())
  return lone && !feeds.includes(lone) ? [...feeds, lone] : feeds
}

function feedOf (key) {
  const feed = allFeeds().find((feed) => feed.key && feed.key.toString('hex') === key)
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
  for (const multi of multis) await promise((cb) => multi.close(cb))
  // Closing has finalized every stream; their last bytes, and the remotes' ends, want a moment.
  const until = Date.now() + 1000
  while (open.size > 0 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 5))
  if (swarm) await swarm.destroy()
  if (testnet) await testnet.destroy()
  print({ event: 'closed' })
  process.exit(code)
}

// A bug of a JS package that a remote set off, mostly: told apart from our own exits by the code.
function crash (err) {
  print({ event: 'crashed', message: err.message })
  console.error(err.stack)
  process.exit(70)
}
