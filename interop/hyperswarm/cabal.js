'use strict'
// node cabal.js HOST:PORT KEY: a Cabal in memory, which joins the DHT of this bootstrap node by its own `swarm`. Prints {"event":"ready"} when it can be found,
// and {"event":"message","text"} for each message of its channel, its own ones too; {"cmd":"publish","text"} on a line of its input says one.

const DHT = require('hyperdht')
const ram = require('random-access-memory')
const readline = require('readline')

// It makes the DHT itself, of public bootstrap nodes, whatever it is given.
const [host, port] = process.argv[2].split(':')
require.cache[require.resolve('hyperdht')].exports = class extends DHT {
  constructor (opts) {
    super({ ...opts, bootstrap: [{ host, port: Number(port) }], host: '127.0.0.1' })
  }
}
const Cabal = require('cabal-core')

const print = (object) => console.log(JSON.stringify(object))
const cabal = new Cabal(ram, process.argv[3])

cabal.ready(() => {
  cabal.messages.events.on('message', ({ value }) => print({ event: 'message', text: value.content.text }))
  cabal.swarm(async (err, swarm) => {
    if (err) throw err
    await Promise.all([...swarm.topics()].map((topic) => topic.flushed()))
    print({ event: 'ready' })
  })
})

const input = readline.createInterface({ input: process.stdin })
input.on('line', (line) => {
  const { id, text } = JSON.parse(line)
  cabal.publish({ type: 'chat/text', content: { text, channel: 'default' } }, (err) => {
    print(err ? { event: 'failed', id, message: err.message } : { event: 'reply', id })
  })
})
input.on('close', async () => {
  await cabal.close()
  process.exit(0)
})
