// Records the folders that old releases of multifeed write, as vectors for multifeed-core's tests.
//
//   node interop/vectors/old.js
//
// installs each release with npm in a temporary folder, has it make a store with two named writers, an unnamed one and a remote's feed, and
// writes multifeed-core/tests/vectors/old_releases.json. Keys are random: running it again records other folders.
'use strict'

const fs = require('fs')
const os = require('os')
const path = require('path')
const { execFileSync } = require('child_process')
const { promisify } = require('util')

const OUT = path.join(__dirname, '..', '..', 'multifeed-core', 'tests', 'vectors', 'old_releases.json')

// Releases before 5 take hypercore as an argument; of each the one that it was made for. The sodium-native that release 5 came with does not
// build for the Node.js of today: a newer one stands in for it, and sodium-javascript where that has no stream cipher of the old kind.
const RELEASES = {
  '1.3.12': { hypercore: '6.18.1' },
  '2.1.0': { hypercore: '6.18.1' },
  '3.0.8': { hypercore: '6.18.1' },
  '4.3.0': { hypercore: '6.18.1' },
  '5.2.4': {
    overrides: {
      'noise-protocol': '3.0.1',
      'hmac-blake2b': '2.0.0',
      'sodium-universal': '3.1.0',
      'sodium-native': '3.4.1',
      'simple-hypercore-protocol': { 'sodium-universal': 'npm:sodium-javascript@0.5.6' }
    }
  }
}

function call (object, method, ...args) {
  return promisify(object[method]).call(object, ...args)
}

async function record (release, { hypercore, overrides }, folder) {
  fs.writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ private: true, overrides }))
  const packages = ['multifeed@' + release].concat(hypercore ? ['hypercore@' + hypercore] : [])
  execFileSync('npm', ['install', '--no-audit', '--no-fund', ...packages], { cwd: folder, stdio: 'ignore' })
  const load = (name) => require(path.join(folder, 'node_modules', name))
  const multifeed = load('multifeed')
  const binary = { valueEncoding: 'binary' }
  const open = async (dir) => {
    const multi = hypercore ? multifeed(load('hypercore'), dir, binary) : multifeed(dir, binary)
    await call(multi, 'ready')
    return multi
  }
  const [ours, theirs] = [path.join(folder, 'ours'), path.join(folder, 'theirs')]
  const [a, b] = [await open(ours), await open(theirs)]
  const made = []
  const write = async (multi, name, batches) => {
    const feed = name ? await call(multi, 'writer', name) : await call(multi, 'writer')
    for (const batch of batches) await call(feed, 'append', batch.map((text) => Buffer.from(text)))
    made.push({ key: feed.key.toString('hex'), name: name || null, writable: multi === a, blocks: batches.flat() })
  }
  const texts = (name, count) => Array.from({ length: count }, (_, i) => `${name} ${i} of ${release}`)
  await write(a, 'alice', texts('alice', 5).map((text) => [text]))
  await write(a, 'bob', [texts('bob', 6)])
  await write(a, undefined, [texts('unnamed', 1)])
  await write(b, 'carol', [['carol', '', release]])

  // Each has options of its own: some releases change them.
  const stream = (multi, isInitiator) => hypercore ? multi.replicate({ live: false }) : multi.replicate(isInitiator, { live: false })
  const [s, t] = [stream(a, true), stream(b, false)]
  let failed = null
  for (const stream of [s, t]) stream.on('error', (err) => { failed = failed || err })
  s.pipe(t).pipe(s)
  // Not every release's streams end by themselves.
  const carol = made[made.length - 1]
  const came = () => a.feeds().some((feed) => {
    return feed.key.toString('hex') === carol.key && carol.blocks.every((_, index) => feed.has(index))
  })
  for (let tries = 0; !came(); tries++) {
    if (failed || tries === 100) throw failed || new Error(`${release}: the remote's feed did not come`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  // The last blocks may be on their way to the disk.
  await new Promise((resolve) => setTimeout(resolve, 1000))

  const files = {}
  for (const slot of fs.readdirSync(ours).sort()) {
    for (const name of fs.readdirSync(path.join(ours, slot)).sort()) {
      const bytes = fs.readFileSync(path.join(ours, slot, name))
      const end = bytes.reduce((end, byte, at) => byte ? at + 1 : end, 0)
      // The zeros at the end are left out.
      files[`${slot}/${name}`] = { length: bytes.length, hex: bytes.subarray(0, end).toString('hex') }
    }
  }
  return { release, hypercore: load('hypercore/package.json').version, feeds: made, files }
}

async function main () {
  const recorded = []
  for (const [release, needs] of Object.entries(RELEASES)) {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'multifeed-old-'))
    try {
      recorded.push(await record(release, needs, folder))
    } finally {
      fs.rmSync(folder, { recursive: true, force: true })
    }
  }
  fs.writeFileSync(OUT, JSON.stringify(recorded, null, 1) + '\n')
  process.exit(0)
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
