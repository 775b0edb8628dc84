// Records which keys, names and folders corestore 5 and corestore-multifeed give to cores, as vectors for multifeed-core's tests.
//
//   node interop/vectors/corestore-keys.js
//
// writes multifeed-core/tests/vectors/corestore.json. The master keys are fixed, so that running it again changes nothing.
'use strict'

const fs = require('fs')
const os = require('os')
const path = require('path')
const Corestore = require('corestore')
const corestoreMultifeed = require('@frando/corestore-multifeed')
const { promise } = require('../lib')

const OUT = path.join(__dirname, '..', '..', 'multifeed-core', 'tests', 'vectors', 'corestore.json')
const INPUTS = [
  ['00'.repeat(32), 'bee80ff3a4ee5e727dc44197cb9d25bf8f19d50b0f3ad2984cfe5b7d14e75de7'],
  [Buffer.from(Array.from({ length: 32 }, (_, i) => i)).toString('hex'), '11'.repeat(32)],
  ['40f78c81f1fa3aaa3346bedef2fe5b1bf28fedfe48db74034eeb8daa65b3ce77', '45ad77ac610ab501facf19766c4cc8a865ea6df3a15dc65401cfbea2824efbe0']
]

async function record (masterKey, rootKey) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'corestore-'))
  const store = new Corestore(dir, { masterKey: Buffer.from(masterKey, 'hex') })
  await store.ready()
  const cores = []
  const add = async (label, feed) => {
    await promise((cb) => feed.ready(cb))
    const discoveryKey = feed.discoveryKey.toString('hex')
    const folder = [discoveryKey.slice(0, 2), discoveryKey.slice(2, 4), discoveryKey].join('/')
    cores.push({
      label,
      nameFile: fs.readFileSync(path.join(dir, folder, 'name')).toString('hex'),
      publicKey: feed.key.toString('hex'),
      secretKey: feed.secretKey.toString('hex'),
      discoveryKey,
      folder
    })
  }
  await add('default', store.default())
  await add('chat', store.get({ name: 'chat' }))
  await add('namespace a, default', store.namespace('a').default())
  await add('namespace a, namespace b, default', store.namespace('a').namespace('b').default())
  await add('namespace a, chat', store.namespace('a').get({ name: 'chat' }))
  await add('namespace of bytes, default', store.namespace(Buffer.from([0xab, 0xcd])).default())
  await add('name of bytes', store.get({ name: Buffer.from([0, 0xff, 0x80]) }))
  await add('name of 300 bytes', store.get({ name: 'n'.repeat(300) }))
  const multi = corestoreMultifeed(store, { rootKey })
  await promise((cb) => multi.ready(cb))
  for (const name of ['local', 'zwei', 'grüße', undefined]) {
    const feed = await promise((cb) => multi.writer(name, {}, cb))
    await add(name === undefined ? 'writer without a name' : `writer ${name}`, feed)
  }
  const list = store.namespace('@multifeed:' + rootKey).namespace('@multifeed:persist').default({ valueEncoding: 'binary' })
  await add('list of feeds', list)
  const raw = fs.readFileSync(path.join(dir, cores[cores.length - 1].folder, 'data'))
  await promise((cb) => store.close(cb))
  fs.rmSync(dir, { recursive: true })
  return { masterKey, rootKey, cores, list: raw.toString() }
}

async function main () {
  const vectors = []
  for (const [masterKey, rootKey] of INPUTS) vectors.push(await record(masterKey, rootKey))
  const source = 'corestore 5.8.2, @frando/corestore-multifeed 0.0.1'
  fs.writeFileSync(OUT, JSON.stringify({ source, vectors }, null, 1) + '\n')
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
