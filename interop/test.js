'use strict'
// The scripts of this folder against each other: `npm test`.

const test = require('node:test')
const assert = require('node:assert')
const { spawn, execFileSync } = require('child_process')
const fs = require('fs')
const os = require('os')
const path = require('path')
const readline = require('readline')
const { block } = require('./lib')

test('made blocks are the same in every language', () => {
  assert.strictEqual(block(1, 0, 10).toString('hex'), '7227215135ef24cc549d')
  assert.strictEqual(block(0, 0, 0).length, 0)
  assert.notDeepStrictEqual(block(1, 1, 10), block(1, 0, 10))
})

test('two peers sync, each keeps the other\'s blocks', async (t) => {
  const [a, b] = [new Peer(t, 'a', '--listen', '127.0.0.1:0'), new Peer(t, 'b', '--user-data', '{"hello":1}')]
  const { address } = await a.event('listening')
  await a.call({ cmd: 'append', name: 'alice', count: 30, size: 50, seed: 1 })
  await b.call({ cmd: 'append', name: 'bob', blocks: ['', 'aGk='] })
  await b.call({ cmd: 'connect', address })
  assert.deepStrictEqual((await a.event('handshake')).header.userData, { hello: 1 })
  for (const peer of [a, b]) assert.strictEqual((await peer.event('ended')).clean, true)
  const feeds = [await a.call({ cmd: 'feeds' }), await b.call({ cmd: 'feeds' })].map((reply) => hashes(reply.feeds))
  assert.deepStrictEqual(feeds[0], feeds[1])
  for (const peer of [a, b]) {
    assert.strictEqual(await peer.close(), 0)
    assert.deepStrictEqual(hashes(run('audit.js', peer.dir).feeds), feeds[0])
  }
})

test('another version is refused, with both values', async (t) => {
  const a = new Peer(t, 'a', '--listen', '127.0.0.1:0')
  const b = new Peer(t, 'b', '--version', '3.1.0')
  await b.call({ cmd: 'connect', address: (await a.event('listening')).address })
  const error = await a.event('error')
  assert.deepStrictEqual([error.code, error.us, error.them], ['ERR_VERSION_MISMATCH', '4.0.0', '3.1.0'])
})

test('a folder with a whole and a sparse copy', (t) => {
  const dir = temporary(t)
  const append = [{ count: 20, size: 10 }]
  const made = run('make.js', dir, JSON.stringify({
    writers: [{ name: 'w', append }],
    copies: [{ append }, { append, have: [[0, 2], [19, 20]] }]
  }))
  assert.deepStrictEqual(made.feeds.map((feed) => feed.downloaded).sort(), [20, 20, 3])
  assert.deepStrictEqual(hashes(run('audit.js', dir).feeds), hashes(made.feeds))
})

test('several multifeeds of corestore-multifeed share a stream', async (t) => {
  const [one, two, three] = ['11', '22', '33'].map((byte) => byte.repeat(32))
  const a = new Peer(t, 'a', '--corestore', '--key', one, '--key', two, '--listen', '127.0.0.1:0')
  const b = new Peer(t, 'b', '--corestore', '--key', two, '--key', one)
  const { address } = await a.event('listening')
  await a.call({ cmd: 'append', name: 'alice', key: one, count: 3, size: 10, seed: 1 })
  await a.call({ cmd: 'append', name: 'alice', key: two, count: 4, size: 10, seed: 2 })
  // A side without any feed would answer with an empty list, at which the other closes that root key's channel.
  await b.call({ cmd: 'append', name: 'bob', key: one, count: 2, size: 10, seed: 3 })
  await b.call({ cmd: 'append', name: 'bob', key: two, count: 5, size: 10, seed: 4 })
  await b.call({ cmd: 'connect', address })
  for (const peer of [a, b]) {
    assert.deepStrictEqual(fields(await peer.call({ cmd: 'wait', key: one, blocks: 5 })), { blocks: 5, feeds: 2 })
    assert.deepStrictEqual(fields(await peer.call({ cmd: 'wait', key: two, blocks: 9 })), { blocks: 9, feeds: 2 })
  }
  for (const key of [one, two]) {
    const [ours, theirs] = [await a.call({ cmd: 'feeds', key }), await b.call({ cmd: 'feeds', key })]
    assert.deepStrictEqual(hashes(ours.feeds), hashes(theirs.feeds))
    assert.ok(ours.feeds.every((feed) => feed.root === key))
  }
  a.child.stdin.write(JSON.stringify({ cmd: 'writer', name: 'carol', key: three }) + '\n')
  assert.match((await a.event('failed')).message, /no multifeed/)
  for (const peer of [a, b]) assert.strictEqual(await peer.close(), 0)
})

for (const flags of [['--live'], ['--corestore']]) {
  test(`extensions on the stream and on a feed's channel, ${flags}`, async (t) => {
    const args = [...flags, '--extension', 'peer-id', '--feed-extension', 'hello']
    const [a, b] = [new Peer(t, 'a', ...args, '--listen', '127.0.0.1:0'), new Peer(t, 'b', ...args)]
    const { address } = await a.event('listening')
    const { key } = await a.call({ cmd: 'append', name: 'alice', count: 1 })
    await b.call({ cmd: 'append', name: 'bob', count: 1 })
    await b.call({ cmd: 'connect', address })
    await b.call({ cmd: 'wait', blocks: 1, key })
    const [id, hello] = ['{"id":"somebody"}', 'hi'].map((text) => Buffer.from(text).toString('base64'))
    for (const [from, to] of [[a, b], [b, a]]) {
      await from.call({ cmd: 'extension', name: 'peer-id', data: id })
      assert.deepStrictEqual(fields(await to.event('extension')), { connection: 1, name: 'peer-id', data: id })
      await from.call({ cmd: 'feed-extension', key, name: 'hello', data: hello })
      assert.deepStrictEqual(fields(await to.event('feed-extension')), { key, name: 'hello', data: hello })
    }
    for (const peer of [a, b]) assert.strictEqual(await peer.close(), 0)
  })
}

class Peer {
  constructor (t, name, ...args) {
    this.dir = temporary(t)
    this.waiting = []
    this.events = []
    this.child = spawn(process.execPath, ['peer.js', '--store', this.dir, ...args], {
      cwd: __dirname,
      stdio: ['pipe', 'pipe', 'inherit']
    })
    this.exit = new Promise((resolve) => this.child.on('exit', resolve))
    readline.createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.events.push(JSON.parse(line))
      this.waiting.splice(0).forEach((wake) => wake())
    })
    t.after(() => this.child.kill())
  }

  async event (name) {
    for (;;) {
      const failed = this.events.find((event) => event.event === 'failed')
      if (failed && name === 'reply') throw new Error(failed.message)
      const at = this.events.findIndex((event) => event.event === name)
      if (at >= 0) return this.events.splice(at, 1)[0]
      await new Promise((resolve) => this.waiting.push(resolve))
    }
  }

  async call (command) {
    this.child.stdin.write(JSON.stringify(command) + '\n')
    return this.event('reply')
  }

  close () {
    this.child.stdin.end()
    return this.exit
  }
}

function temporary (t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'multifeed-interop-'))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

function run (script, ...args) {
  return JSON.parse(execFileSync(process.execPath, [script, ...args], { cwd: __dirname }))
}

/** What an event or a reply tells, without its name. */
function fields ({ event, id, ...rest }) {
  return rest
}

function hashes (feeds) {
  return feeds.map(({ key, length, hash }) => ({ key, length, hash })).sort((a, b) => a.key < b.key ? -1 : 1)
}
