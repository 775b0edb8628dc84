#!/usr/bin/env bash
# What: two corestore-multifeed peers on one stream of a corestore, as @corestore/networker makes them. A multifeed that both had joined before is synced. One
#   that only the first had joined when the stream opened is never synced on it: the second peer's corestore answers its root key, which is no core on
#   its disk, by closing the channel, and when the second peer joins, the first one's corestore does the same to it. Neither opens it again. After 10 s
#   the first one, which still waits for an answer, ends the stream.
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
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const late = process.argv[2] === 'late'
process.on('uncaughtException', error => { console.log(error.message); process.exit(1) })

async function peer () {
  const corestore = multifeed.defaultCorestore(ram, {})
  // What @corestore/networker does, as far as MultifeedNetworker sees it.
  const network = Object.assign(new EventEmitter(), { corestore, join () {} })
  const networker = new MultifeedNetworker(network)
  const multi = multifeed(corestore, { rootKey: Buffer.alloc(32, 7) })
  await new Promise(resolve => multi.ready(resolve))
  const feed = await new Promise((resolve, reject) => multi.writer('w', (err, feed) => err ? reject(err) : resolve(feed)))
  await new Promise(resolve => feed.append('a block', resolve))
  const stream = initiator => {
    const stream = new Protocol(initiator, { live: true, onhandshake: () => network.emit('handshake', stream, {}) })
    stream.on('error', () => {})
    corestore.replicate(initiator, { live: true, stream })
    return stream
  }
  return { multi, join: () => networker.swarm(multi), stream }
}

async function main () {
  const [first, second] = [await peer(), await peer()]
  first.join()
  if (!late) second.join()
  const [ours, theirs] = [first.stream(true), second.stream(false)]
  ours.pipe(theirs).pipe(ours)
  await sleep(1000)
  if (late) second.join()
  await sleep(late ? 11000 : 6000)
  console.log([first, second].map(peer => peer.multi.feeds().length).join(' and ') + ' feeds' + (ours.destroyed ? ', stream over' : ', stream open'))
  process.exit(0)
}
main()
JS
echo "corestore-multifeed $(node -p "require('@frando/corestore-multifeed/package.json').version")"
early=$(node run.js)
echo "both had joined when the stream opened: $early"
seen=$(node run.js late)
echo "the second one joined a second later: $seen"
[ "$early" = '2 and 2 feeds, stream open' ] && [ "$seen" = '1 and 1 feeds, stream over' ] || { echo 'this has changed'; exit 1; }
