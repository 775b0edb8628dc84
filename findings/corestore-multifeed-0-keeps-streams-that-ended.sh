#!/usr/bin/env bash
# What: MultifeedNetworker keeps each stream that it was given, by the peer's key, after the stream ended and 'stream-closed' was emitted. A multifeed
#   that joins later opens its root key on all of them and keeps them: five connections came and went, and it has five streams. One that had
#   joined before has none. Peers mostly draw a new key for each connection, so this grows with every connection.
# Seen: @frando/corestore-multifeed 0.0.1, corestore 5.8.2, hypercore 9.12.0, hypercore-protocol 8.0.7, Node.js 20; November 2026.
set -euo pipefail
command -v npm >/dev/null || { echo 'needs Node.js and npm'; exit 2; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >package.json <<'JSON'
{ "private": true,
  "dependencies": { "@frando/corestore-multifeed": "0.0.1", "corestore": "5.8.2", "hypercore": "9.12.0", "hypercore-protocol": "8.0.7", "random-access-memory": "3.1.4" },
  "overrides": { "noise-protocol": "3.0.1", "hmac-blake2b": "2.0.0", "sodium-universal": "3.1.0", "sodium-native": "3.4.1" } }
JSON
npm install --no-audit --no-fund >npm.log 2>&1 || { cat npm.log; exit 2; }
cat >run.js <<'JS'
const { EventEmitter } = require('events')
const multifeed = require('@frando/corestore-multifeed')
const MultifeedNetworker = require('@frando/corestore-multifeed/networker')
const Protocol = require('hypercore-protocol')
const ram = require('random-access-memory')
const corestore = multifeed.defaultCorestore(ram, {})
// What @corestore/networker does, as far as MultifeedNetworker sees it.
const network = Object.assign(new EventEmitter(), { corestore, join () {} })
const networker = new MultifeedNetworker(network)
const [early, late] = [1, 2].map(n => multifeed(corestore, { rootKey: Buffer.alloc(32, n) }))
const streams = multi => multi._muxer._streams.size
setTimeout(() => { console.log('nothing came'); process.exit(1) }, 20e3)
early.ready(() => late.ready(() => {
  networker.swarm(early)
  come(5)
}))
function come (left) {
  if (!left) {
    networker.swarm(late)
    return setTimeout(() => {
      console.log(`streams: ${streams(early)} of the multifeed that joined before, ${streams(late)} of the one that joined after`)
      process.exit(0)
    }, 500)
  }
  const ours = new Protocol(true, { live: true, onhandshake: () => network.emit('handshake', ours, {}) })
  const theirs = new Protocol(false, { live: true })
  for (const stream of [ours, theirs]) stream.on('error', () => {})
  ours.pipe(theirs).pipe(ours)
  setTimeout(() => theirs.destroy(), 100)
  ours.on('close', () => {
    network.emit('stream-closed', ours, {}, true)
    come(left - 1)
  })
}
JS
echo "corestore-multifeed $(node -p "require('@frando/corestore-multifeed/package.json').version")"
seen=$(node run.js)
echo "after five connections came and went: $seen"
[ "$seen" = 'streams: 0 of the multifeed that joined before, 5 of the one that joined after' ] || { echo 'this has changed'; exit 1; }
