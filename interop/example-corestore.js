// node example-corestore.js PORT DIR: a corestore with two multifeeds, for whoever connects (the twin of multifeed-cli/examples/corestore.rs).
const multifeed = require('@frando/corestore-multifeed')
const Protocol = require('hypercore-protocol')
const net = require('net')
const pump = require('pump')

const store = multifeed.defaultCorestore(process.argv[3], {})
const multis = [1, 2].map((n) => multifeed(store, { rootKey: Buffer.alloc(32, n) }))
const texts = ['a note from JS', 'hello from JS']

const written = multis.map((multi, i) => new Promise((resolve, reject) => multi.ready(() => {
  multi.on('feed', (feed) => feed.get(0, (err, block) => {
    if (!err && !feed.writable) console.log(block.toString())
  }))
  multi.writer('local', {}, (err, feed) => err ? reject(err) : feed.append(texts[i], resolve))
})))

const server = net.createServer((socket) => {
  const stream = new Protocol(false, { live: true })
  for (const multi of multis) multi.replicate(false, { live: true, stream })
  pump(stream, socket, stream, () => {})
})
Promise.all(written).then(() => {
  server.listen(process.argv[2], '127.0.0.1', () => console.log('listening on ' + server.address().port))
})
