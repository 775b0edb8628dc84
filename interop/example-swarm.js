// node example-swarm.js HOST:PORT DIR: a corestore with a multifeed, in sync with whomever hyperswarm 4 finds on the DHT of this bootstrap node (the twin of
// multifeed-swarm/examples/swarm.rs). corestore-multifeed's own networkers speak an older hyperswarm; this one is what it takes for one.
const multifeed = require('@frando/corestore-multifeed')
const MultifeedNetworker = require('@frando/corestore-multifeed/networker')
const Protocol = require('hypercore-protocol')
const Hyperswarm = require('./hyperswarm/node_modules/hyperswarm')
const DHT = require('./hyperswarm/node_modules/hyperdht')
const { EventEmitter } = require('events')
const pump = require('pump')

class Networker extends EventEmitter {
  constructor (corestore, dht) {
    super()
    this.corestore = corestore
    this.swarm = new Hyperswarm({ dht })
    this.swarm.on('connection', (socket, { client }) => {
      const stream = new Protocol(client, { live: true, onhandshake: () => this.emit('handshake', stream, {}) })
      corestore.replicate(client, { live: true, stream })
      pump(stream, socket, stream, () => this.emit('stream-closed', stream, {}, true))
    })
  }

  join (topic) {
    this.swarm.join(topic)
  }
}

const [host, port] = process.argv[2].split(':')
const store = multifeed.defaultCorestore(process.argv[3], {})
const networker = new Networker(store, new DHT({ bootstrap: [{ host, port: Number(port) }], host: '127.0.0.1' }))
const multi = multifeed(store, { rootKey: Buffer.alloc(32, 2) })

multi.ready(() => {
  multi.on('feed', (feed) => feed.get(0, (err, block) => {
    if (!err && !feed.writable) console.log(block.toString())
  }))
  multi.writer('local', {}, (err, feed) => {
    if (err) throw err
    feed.append('hello from JS', () => new MultifeedNetworker(networker).swarm(multi))
  })
})
